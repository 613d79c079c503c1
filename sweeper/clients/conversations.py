"""What a file in ShareGPT's format holds for vLLM's sampler, read for real and in pieces.

The sampler keeps conversations of at least two turns whose first two texts have some length in tokens. Tokens
are a tokenizer's to count; what can be said without one is said here: a text of few letters is too short for
any, and one of too many words is too long. So counts are of what may be left, at most.

The file has hundreds of MB. It is read conversation by conversation, in little memory, and only as far as
needed where a count is all that is asked for.
"""

from __future__ import annotations

import codecs
import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Bounds of the sampler, tokens.
# Source: is_valid_sequence, vllm/benchmarks/datasets of 0.32.0; benchmark_serving.py of 0.4.3 has the same.
_LONGEST_PROMPT = 1024
_LONGEST_WHOLE = 2048
# Four tokens are asked for. Fewer words than these in fewer bytes are no four tokens to a usual tokenizer.
_FEWEST_WORDS = 4
_FEWEST_BYTES = 8

_CHUNK_BYTES = 2**20
_LARGEST_ENTRY = 2**28
_BLANK = " \t\n\r"


class NotShareGptError(ValueError):
    """The file is not what it should be; the message goes on after the file's name."""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a file holds.

    Attributes:
        entries: All of them.
        two_turns: Those with two turns.
        usable: Those that may pass the sampler.
    """

    entries: int
    two_turns: int
    usable: int


def contents(path: Path, *, output_len: int | None = None) -> Contents:
    """Read a whole file; once for as long as it does not change.

    Args:
        path: The file.
        output_len: Tokens of every answer, where they are not those of the conversations.

    Raises:
        NotShareGptError: It is no JSON list of conversations.
        OSError: It cannot be read.
    """
    status = path.stat()
    return _contents(path, status.st_mtime_ns, status.st_size, output_len, None)


def repeated(path: Path, *, prompts: int, output_len: int | None = None) -> int | None:
    """Describe how many of so many prompts are repetitions at least, for there are fewer conversations.

    Returns:
        Their number; None where there may be enough conversations.

    Raises:
        NotShareGptError: It is no JSON list of conversations, as far as it was read.
        OSError: It cannot be read.
    """
    status = path.stat()
    found = _contents(path, status.st_mtime_ns, status.st_size, output_len, prompts)
    return prompts - found.usable if found.usable < prompts else None


@functools.lru_cache(maxsize=8)
def _contents(path: Path, mtime_ns: int, size: int, output_len: int | None, enough: int | None) -> Contents:
    entries = two_turns = usable = 0
    for number, entry in enumerate(_entries(path)):
        entries += 1
        turns = _turns(entry, number)
        if turns is None:
            continue
        two_turns += 1
        usable += _may_pass(*turns, output_len=output_len)
        if usable == enough:
            break
    return Contents(entries=entries, two_turns=two_turns, usable=usable)


def _turns(entry: Any, number: int) -> tuple[str, str] | None:
    """Return the first two texts of an entry, or None where the sampler passes over it.

    Raises:
        NotShareGptError: The sampler would fail on it.
    """
    where = f"entry {number}, counted from 0,"
    if not isinstance(entry, dict):
        raise NotShareGptError(f"{where} is a {type(entry).__name__}; expected an object")
    turns = entry.get("conversations", [])
    if not isinstance(turns, list):
        raise NotShareGptError(f"{where} has conversations that are no list of turns")
    if len(turns) < 2:
        return None
    texts = [turn.get("value") if isinstance(turn, dict) else None for turn in turns[:2]]
    question, answer = texts
    if not isinstance(question, str) or not isinstance(answer, str):
        raise NotShareGptError(f'{where} has a turn without a text under "value"')
    return question, answer


def _may_pass(question: str, answer: str, *, output_len: int | None) -> bool:
    if _is_too_short(question) or (output_len is None and _is_too_short(answer)):
        return False
    # A word is a token at least.
    asked = _words(question)
    answered = _words(answer) if output_len is None else output_len
    return asked <= _LONGEST_PROMPT and asked + answered <= _LONGEST_WHOLE


def _is_too_short(text: str) -> bool:
    return len(text) < _FEWEST_BYTES and (
        len(text.encode("utf-8", "replace")) < _FEWEST_BYTES and len(text.split()) < _FEWEST_WORDS
    )


def _words(text: str) -> int:
    return len(text.split()) if len(text) > _LONGEST_PROMPT else 0


def _entries(path: Path) -> Iterator[Any]:
    """Return the elements of a JSON list, one after the other.

    Raises:
        NotShareGptError: It is no such list, breaks off, or goes on after its end.
    """
    decoder = json.JSONDecoder()
    with path.open("rb") as file:
        reader = _Reader(file)
        if reader.skip_blanks() != "[":
            raise NotShareGptError("is no JSON list of conversations")
        reader.drop(1)
        is_first = True
        while True:
            sign = reader.skip_blanks()
            if sign == "]":
                break
            if not is_first:
                if sign != ",":
                    raise NotShareGptError(_broken(reader))
                reader.drop(1)
                reader.skip_blanks()
            is_first = False
            yield reader.take(decoder)
        reader.drop(1)
        if reader.skip_blanks():
            raise NotShareGptError("goes on after the end of its list")


class _Reader:
    """The text of a file, as much of it as is being looked at."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._bytes = 0
        self.is_at_end = False
        self.text = ""
        self._at = 0

    def read(self, size: int) -> None:
        chunk = self._file.read(size)
        self._bytes += len(chunk)
        self.is_at_end = not chunk
        try:
            self.text = self.text[self._at :] + self._decoder.decode(chunk, final=self.is_at_end)
        except UnicodeDecodeError as exc:
            raise NotShareGptError(f"is not UTF-8 (within the first {self._bytes} bytes)") from exc
        self._at = 0

    def skip_blanks(self) -> str:
        """Go to the next sign; empty at the end of the file."""
        while True:
            while self._at < len(self.text):
                if self.text[self._at] not in _BLANK:
                    return self.text[self._at]
                self._at += 1
            if self.is_at_end:
                return ""
            self.read(_CHUNK_BYTES)

    def drop(self, signs: int) -> None:
        self._at += signs

    def take(self, decoder: json.JSONDecoder) -> Any:
        """Read one value that begins here."""
        while True:
            try:
                value, end = decoder.raw_decode(self.text, self._at)
            except (ValueError, RecursionError) as exc:
                left = len(self.text) - self._at
                # Only what reaches into the unread may be whole with more of it.
                if self.is_at_end or left > _LARGEST_ENTRY or not _may_go_on(exc, self.text):
                    raise NotShareGptError(_broken(self)) from exc
                self.read(max(_CHUNK_BYTES, left))
            else:
                self._at = end
                return value

    @property
    def before(self) -> int:
        """About how many bytes were read."""
        return self._bytes


def _may_go_on(exc: Exception, text: str) -> bool:
    """Whether a value that could not be read may be one whose end was not read yet."""
    if not isinstance(exc, json.JSONDecodeError):
        return False
    # An open text is blamed at its beginning; anything else at the place where it breaks off.
    return exc.msg.startswith("Unterminated string") or exc.pos >= len(text) - _LONGEST_WORD


# A name, a number or an escape that the end of a chunk cut in two.
_LONGEST_WORD = 64


def _broken(reader: _Reader) -> str:
    if reader.is_at_end:
        return "is cut off: its list of conversations has no end"
    return f"is no JSON within its first {reader.before} bytes: it is damaged"
