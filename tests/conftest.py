"""What all tests share."""

from __future__ import annotations

import os
import random
from pathlib import Path

import hypothesis
import pytest

from sweeper.records import EngineSpec, LoadPoint, Model, ModelShape, Placement, Platform, TrialSpec
from tests.surroundings import nothing_left_running, own_surroundings

# Imported for pytest, which finds fixtures here.
__all__ = ["nothing_left_running", "own_surroundings"]

ROOT = Path(__file__).resolve().parents[1]
# Read at once: the tests themselves see no variable of the user's.
_VLLM_PYTHON = Path(os.environ.get("SWEEPER_VLLM_PYTHON", ROOT / ".venv-vllm" / "bin" / "python"))


# The same examples on every machine, none remembered from earlier runs, and no limit on the time of one: what
# passes must not depend on how busy the machine is. Others are tried with --hypothesis-profile=default.
hypothesis.settings.register_profile("everywhere", derandomize=True, database=None, deadline=None)
hypothesis.settings.load_profile("everywhere")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--shuffle", type=int, metavar="SEED", help="random order: of files, and of tests in each"
    )


def pytest_report_header(config: pytest.Config) -> str | None:
    seed = config.getoption("shuffle")
    return None if seed is None else f"random order: repeat it with --shuffle={seed}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Shuffle files as wholes, so that what a file shares among its tests is still set up only once."""
    seed = config.getoption("shuffle")
    if seed is None:
        return
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    # Sorted first: the order depends on the seed and on what is collected, not on the order of arguments.
    chosen = random.Random(seed)
    shuffled = sorted(files)
    chosen.shuffle(shuffled)
    for path in shuffled:
        chosen.shuffle(files[path])
    items[:] = [item for path in shuffled for item in files[path]]


@pytest.fixture(scope="session")
def vllm_python() -> str:
    """The interpreter of the real vLLM's environment (CPU build), which `make test` installs."""
    if not _VLLM_PYTHON.exists():
        pytest.fail(f"{_VLLM_PYTHON}: is missing; run 'make test', or 'python -m sweeper cpu-vllm' once")
    return str(_VLLM_PYTHON)


@pytest.fixture
def llama_70b() -> Model:
    return Model(
        name="meta-llama/Llama-3.1-70B-Instruct",
        path="meta-llama/Llama-3.1-70B-Instruct",
        shape=ModelShape(
            layers=80,
            hidden=8192,
            intermediate=28672,
            heads=64,
            kv_heads=8,
            head_dim=128,
            vocab=128256,
            max_positions=131072,
        ),
    )


@pytest.fixture
def without_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """End studies without charts and pages, which take longer than a few simulated trials do."""
    monkeypatch.setattr("analysis.report.write_of", lambda _study: None)


@pytest.fixture
def placement() -> Placement:
    return Placement(node="here", devices=(0, 1, 2, 3), parents=(0, 1, 2, 3))


@pytest.fixture
def simulated_spec(tmp_path: Path, llama_70b: Model) -> TrialSpec:
    """One small trial on the simulated platform."""
    return TrialSpec(
        study="test",
        folder=str(tmp_path / "trial"),
        series=("tuned",),
        assignment={"tensor_parallel_size": 4, "max_num_seqs": 64},
        load_points=(LoadPoint(dataset="random", num_prompts=20, input_len=64, output_len=16),),
        engine=EngineSpec(kind="simulated", release="0.6.2"),
        model=llama_70b,
        platform=Platform.SIMULATED,
        devices_wanted=4,
        label="tuned",
    )
