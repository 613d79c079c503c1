"""Where a person reads: standard output that may be full, closed or unable to write a character.

A sweep of many hours does not end because its reader did (``| head``) or because the disk of its log is full.
The first failure is kept and said at the end; what comes after it goes nowhere. A character that the
terminal's encoding lacks is written by its code.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from sweeper.errors import AnswerError, ConfigError


def prepare_streams() -> None:
    """Make the standard streams of this process such that nothing that is printed can end it.

    A letter that the terminal lacks is spelt out as ``\\xf6``: better than to lose the answer of a study. In
    place of a stream that was closed (``>&-``) stands nowhere; else the next file that is opened, such as the
    study's database, gets its descriptor, and what a child process prints.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest that is free is this one.
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class Stream:
    """A text stream that outlives its reader.

    It stands in front of standard output or error, whatever that is at the moment of a write.
    """

    def __init__(self, name: str) -> None:
        """Stand in front of ``stdout`` or ``stderr``."""
        self._name = name
        self.failure: OSError | None = None

    @property
    def _stream(self) -> TextIO:
        # While rich draws a live table it puts a proxy there, which prints through the console.
        stream = getattr(sys, self._name)
        behind: TextIO = getattr(stream, "rich_proxied_file", stream)
        return behind

    def write(self, text: str) -> int:
        """Write; what cannot be encoded is written by its code, what cannot be written is dropped."""
        encoding = self._stream.encoding or "utf-8"
        told = text.encode(encoding, "backslashreplace").decode(encoding)
        with self._keeping():
            self._stream.write(told)
        return len(text)

    def flush(self) -> None:
        """Pass on what is buffered."""
        with self._keeping():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        """Be the stream in everything else: whether it is a terminal, its encoding, its descriptor."""
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _keeping(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            self.failure = self.failure or exc
            # What is buffered would fail again with every later write, and once more when Python ends.
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)


def failure_text(stream: Stream) -> str:
    """Report that output was lost, and what to do; empty where all was written or the reader left."""
    if stream.failure is None or stream.failure.errno == errno.EPIPE:
        return ""
    return (
        f"standard output: cannot be written ({stream.failure.strerror}); expected a terminal, a pipe, or a "
        "file on a disk with free space. Make room, or send it elsewhere, then give the same command again."
    )


def check_written(stream: Stream) -> None:
    """Check that what a command printed arrived: it is all that the command is for.

    Raises:
        AnswerError: It did not.
    """
    text = failure_text(stream)
    if text:
        raise AnswerError(text)


def json_answer(content: Any) -> str:
    """Return an answer for programs as standard output can carry it: JSON, with null for what is no number.

    JSON is UTF-8. Where the stream is not, letters are written by their codes, as JSON has them.
    """
    encoding = (sys.stdout.encoding or "utf-8").lower().replace("-", "")
    return json.dumps(_finite(content), indent=2, ensure_ascii=encoding != "utf8")


def _finite(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {name: _finite(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


class _Lines(argparse.HelpFormatter):
    """Wraps each line of a text by itself, and leaves an indented one whole: a command that can be copied."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        lines = text.splitlines()
        return "\n".join(line if line.startswith(" ") else fill(line, width, indent) for line in lines)


class Parser(argparse.ArgumentParser):
    """Prints its help as everything else is printed, and reports a mistake as one of ours."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take what argparse takes."""
        super().__init__(*args, **{"formatter_class": _Lines, **kwargs})

    def error(self, message: str) -> Any:
        """Raise the mistake, with the command that explains it.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(f"{self.prog}: {message}. See: {self.prog} --help")

    def print_help(self, file: Any = None) -> None:
        """Print the help, and check that it was written.

        Raises:
            AnswerError: It did not.
        """
        stream = Stream("stdout")
        super().print_help(file or stream)
        stream.flush()
        check_written(stream)
