"""What tests find around them is theirs alone, and they leave nothing: no process, no temporary file.

Whatever a machine has in its home, its temporary folder and its environment, the tests see none of it, so
that they pass for a stranger as they pass here.
"""

from __future__ import annotations

import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sweeper.processes import masks
from sweeper.processes import process as processes

_MARK = "TESTS_OF_MODULE"
# What users and batch systems set for programs like ours; PATH, the locale and the time zone stay.
_OF_THE_USER = (
    *("CUDA_", "GPU_", "HIP_", "ROCR_", "NCCL_", "RCCL_", "HSA_", "NVIDIA_", "ZE_", "SLURM_", "PBS_", "SGE_"),
    *("VLLM_", "RAY_", "SWEEPER_", "HYDRA_", "OPTUNA_", "MPL", "XDG_", "HF_", "HUGGING_FACE_", "AWS_", "PG"),
    *("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "OMP_", "http_proxy", "https_proxy"),
    *("all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
)
_GONE_WITHIN_S = 20.0


@contextmanager
def full_disk(*, room_bytes: int = 10) -> Iterator[None]:
    """Let every file that this process writes meanwhile end after a few bytes, as on a disk without room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def running(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A program that is ended with the block, also when a check in it fails."""
    process = subprocess.Popen(command, **options)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def of_the_user(environment: Mapping[str, str]) -> list[str]:
    """Names of the variables that would tell tests about the machine they happen to run on."""
    return [name for name in environment if masks.is_mask(name) or name.startswith(_OF_THE_USER)]


@pytest.fixture(scope="session", autouse=True)
def own_surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An empty temporary folder and home; what is left in the first is a fault."""
    # Made before the folder is changed: it is kept after the session, to be looked into.
    tmp_path_factory.getbasetemp()
    with (
        # Short, whatever the user's is, so that the paths of Ray's sockets fit below it.
        tempfile.TemporaryDirectory(prefix="t", dir="/tmp", ignore_cleanup_errors=True) as temporary,
        tempfile.TemporaryDirectory(prefix="home-", ignore_cleanup_errors=True) as home,
        pytest.MonkeyPatch.context() as patch,
    ):
        # Others may pass through: a PostgreSQL server started by root runs as another user.
        Path(temporary).chmod(0o711)
        for variable in of_the_user(os.environ):
            patch.delenv(variable)
        patch.setenv("TMPDIR", temporary)
        patch.setenv("HOME", home)
        patch.setattr(tempfile, "tempdir", temporary)
        yield
        left = sorted(path.name for path in Path(temporary).iterdir())
        assert left == [], f"tests left files in the temporary folder: {', '.join(left)}"


@pytest.fixture(scope="module", autouse=True)
def nothing_left_running(request: pytest.FixtureRequest) -> Iterator[None]:
    """End what the tests of a file started and left, and say so."""
    before = set(processes.descendants(os.getpid()))
    mark = f"{os.getpid()}:{request.node.nodeid}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(_MARK, mark)
        yield

    def left() -> set[processes.Process]:
        # By descent and by mark: an orphan is no descendant, and some programs overwrite their marks.
        return {*processes.descendants(os.getpid()), *processes.marked(_MARK, mark)} - before

    deadline = time.monotonic() + _GONE_WITHIN_S
    while left() and time.monotonic() < deadline:
        time.sleep(0.05)
    titles = [processes.title(process.pid) for process in sorted(left())]
    processes.end(left(), grace_s=0.0)
    assert titles == [], f"tests left processes: {titles}"
