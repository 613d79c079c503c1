"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sweeper.records import EngineSpec, LoadPoint, Model, ModelShape, Placement, Platform, TrialSpec

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def vllm_python() -> str:
    """The interpreter of the real vLLM's environment (CPU build), which `make test` installs."""
    python = Path(os.environ.get("SWEEPER_VLLM_PYTHON", ROOT / ".venv-vllm" / "bin" / "python"))
    if not python.exists():
        pytest.fail(f"{python}: is missing; run 'make test', or 'python -m sweeper cpu-vllm' once")
    return str(python)


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
