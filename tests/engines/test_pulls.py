"""An image that is fetched: what is said meanwhile, and what comes of it. The runtime is a stand-in."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from sweeper.engines import images
from sweeper.errors import ConfigError
from sweeper.processes.containers import follow

DIGEST = "sha256:" + "ab" * 32
# Prints as a runtime does that draws a bar over itself, and waits in the middle for a sign of life.
RUNTIME = """#!{python}
import pathlib, sys, time
here = pathlib.Path(__file__).parent
if sys.argv[1:3] == ["image", "inspect"]:
    if not (here / "fetched").exists():
        sys.exit("Error: no such image")
    print({inspected!r})
elif sys.argv[1] == "pull":
    sys.stderr.write("Trying to pull\\nCopying blob 1 of 2\\rCopying blob 2 of 2\\n")
    sys.stderr.flush()
    while {waits} and not (here / "seen").exists():
        time.sleep(0.01)
    if {code}:
        sys.exit("Error: manifest unknown")
    (here / "fetched").touch()
"""


def runtime(folder: Path, *, code: int = 0, waits: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "podman"
    inspected = json.dumps([{"Id": DIGEST, "RepoDigests": [f"org/image@{DIGEST}"]}])
    path.write_text(RUNTIME.format(python=sys.executable, inspected=inspected, code=code, waits=waits))
    path.chmod(0o755)
    return path


def test_last_line_of_runtime_is_told_while_it_pulls(tmp_path: Path) -> None:
    podman = runtime(tmp_path, waits=True)
    told: list[str] = []

    def seen(spent_s: float, line: str) -> None:
        assert spent_s >= 0
        told.append(line)
        if line == "Copying blob 2 of 2":
            (tmp_path / "seen").touch()

    assert follow((str(podman), "pull", "x"), within_s=60, seen=seen, every_s=0.02).is_ok
    assert told[0] == "" or told[0].startswith(("Trying", "Copying"))
    assert told[-1] == "Copying blob 2 of 2"


def test_runtime_that_does_not_end_is_ended(tmp_path: Path) -> None:
    podman = runtime(tmp_path, waits=True)
    answer = follow((str(podman), "pull", "x"), within_s=0.2, seen=lambda spent_s, line: None, every_s=0.05)
    assert (answer.is_ok, answer.text) == (False, "no answer within 0.2 s")


def test_image_that_is_fetched_says_so_before_anything_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    podman = str(runtime(tmp_path))
    assert images.digest_of("org/image:1", podman, may_pull=True) == DIGEST
    said = capsys.readouterr()
    first = f"engine.image: {podman} pulls org/image:1, it is not on this machine (Ctrl-C stops it)\n"
    assert said.out == "" and said.err.startswith(first)
    # It is there now: nothing is pulled, nothing is said.
    assert images.digest_of("org/image:1", podman, may_pull=True) == DIGEST
    assert capsys.readouterr().err == ""


def test_pull_that_fails_gives_the_runtimes_own_last_line(tmp_path: Path) -> None:
    podman = str(runtime(tmp_path, code=1))
    with pytest.raises(ConfigError) as told:
        images.digest_of("org/image:1", podman, may_pull=True)
    assert f"'{podman} pull org/image:1' failed: Error: manifest unknown; expected" in str(told.value)
