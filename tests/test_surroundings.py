"""What tests find around them, and the order in which they run."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.surroundings import of_the_user, running


def test_what_users_and_batch_systems_set_is_hidden_and_rest_stays() -> None:
    machine = {"PATH": "/bin", "LANG": "C", "TZ": "UTC", "UV_INDEX_URL": "x"}
    user = {"HIP_VISIBLE_DEVICES": "4", "SLURM_JOB_ID": "7", "http_proxy": "x", "MPLCONFIGDIR": "/x"}
    assert of_the_user({**machine, **user}) == list(user)


def test_program_ends_with_its_block_also_when_check_in_it_fails() -> None:
    with pytest.raises(AssertionError), running(["sleep", "600"]) as program:
        raise AssertionError
    assert program.poll() is not None


def order(seed: int) -> list[str]:
    """Names of the tests of two files, in their order under a seed."""
    files = ("tests/text/test_urls.py", "tests/test_errors.py")
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", f"--shuffle={seed}", *files]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=True).stdout
    return [line for line in told.splitlines() if "::" in line]


def test_seed_gives_order_that_can_be_repeated_and_keeps_files_whole() -> None:
    first = order(1)
    assert first == order(1)
    assert first != order(2)
    assert sorted(first) == sorted(order(2))
    files = [name for name, _ in itertools.groupby(first, key=lambda name: name.split("::")[0])]
    assert sorted(files) == ["tests/test_errors.py", "tests/text/test_urls.py"]
