"""Asking the machine: a vendor's tool is run to its end, or a file of the kernel is read.

What can go wrong with asking is distinguished here: a tool that is not installed is an absence, which is
ordinary; one that is there and does not answer is an error.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sweeper.errors import PlacementError

PROBE_TIMEOUT_S = 60.0
"""Longest wait for one question to a vendor's tool. With 64 partitions amd-smi takes several seconds."""


@dataclass(frozen=True, kw_only=True)
class Absent:
    """A vendor's tool is not installed, so the node has none of that vendor's GPUs for us.

    Attributes:
        reason: Which tool, and what was found instead.
    """

    reason: str


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a command printed, and its exit status."""

    exit_status: int
    stdout: str
    stderr: str = ""

    @property
    def last_line(self) -> str:
        """The line that most likely says what went wrong."""
        lines = [line.strip() for line in f"{self.stdout}\n{self.stderr}".splitlines() if line.strip()]
        return lines[-1] if lines else "no output"


Runner = Callable[[Sequence[str]], Answer]
"""Runs a command to its end; FileNotFoundError when there is none, TimeoutError when it takes too long."""


def run_command(command: Sequence[str], *, timeout_s: float = PROBE_TIMEOUT_S) -> Answer:
    """Run a command, and end it with all its children when it takes too long.

    Raises:
        FileNotFoundError: There is no such program.
        TimeoutError: It did not end within ``timeout_s`` seconds.
    """
    process = subprocess.Popen(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # a wrapper script's children hold the pipes open; they must go with it
    )
    with process:
        try:
            stdout, stderr = process.communicate(timeout=timeout_s)
        except BaseException as exc:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(exc, subprocess.TimeoutExpired):
                raise TimeoutError(f"{command[0]} did not end within {timeout_s:g} s") from exc
            raise
    return Answer(exit_status=process.returncode, stdout=stdout, stderr=stderr)


def ask(run: Runner, command: Sequence[str]) -> Answer | Absent:
    """Ask a vendor's tool; a tool that is not installed makes its answer Absent.

    Raises:
        PlacementError: The tool is there, but it cannot be run or does not answer in time.
    """
    try:
        return run(command)
    except FileNotFoundError:
        return Absent(reason=f"{command[0]}: not found")
    except OSError as exc:  # TimeoutError too: the tool is there, but no answer is to be had
        raise PlacementError(
            f"`{' '.join(command)}`: got {exc}; expected an answer. Run it by hand; if it hangs there too, "
            "the GPU driver is being reloaded or needs attention (dmesg)."
        ) from exc


def contents(path: Path) -> str | None:
    """Read a file of /proc or /sys; None where there is none or it may not be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return None
