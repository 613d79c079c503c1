"""A command is run to its end, and ended with its children when it takes too long."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from sweeper.topology import Answer, run_command


def test_command_gives_its_output_and_exit_status() -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    answer = run_command([sys.executable, "-c", code])
    assert answer == Answer(exit_status=3, stdout="out\n", stderr="err\n")
    assert answer.last_line == "err"


def test_command_that_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    # The mark on the command line tells the child from every other process of the machine.
    mark = str(tmp_path)
    child = f"import time; time.sleep(600); {mark!r}"
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}]).wait()"
    with pytest.raises(TimeoutError, match=r"did not end within 2 s"):
        run_command([sys.executable, "-c", parent], timeout_s=2)
    deadline = time.monotonic() + 20  # the kernel may take a moment to bury it
    while alive(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert alive(mark) == []


def alive(mark: str) -> list[str]:
    """Processes whose command line has the mark."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found += [path.parent.name] if mark.encode() in path.read_bytes() else []
    return found


def test_command_that_does_not_exist_is_told_apart() -> None:
    with pytest.raises(FileNotFoundError):
        run_command(["no-such-program-here"])
