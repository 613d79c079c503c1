"""The real vLLM (CPU build) in a real container: engine and benchmark, measured and ended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.engines import images
from sweeper.records import ContainerSpec, LoadPoint, TrialState
from sweeper.trial.kept import KeptEngines
from tests import runtimes as containing
from tests.real_engine import make_real_spec
from tests.runtimes import Runtime
from tests.standin_server import PLACEMENT, never


@pytest.fixture
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    with containing.opened(tmp_path_factory.mktemp("podman")) as found:
        yield found


@pytest.mark.vllm
def test_trials_of_the_real_vllm_share_a_start_in_a_container(
    podman: Runtime, tmp_path: Path, vllm_python: str
) -> None:
    made = make_real_spec(
        tmp_path,
        vllm_python,
        assignment={"max_num_seqs": 8, "max_model_len": 512, "enforce_eager": True},
        load_points=(LoadPoint(dataset="random", num_prompts=8, input_len=32, output_len=8),),
    )
    environment = Path(vllm_python).parents[1]
    container = ContainerSpec(
        image=podman.image("localhost/sweeper-real:1"),
        runtime="podman",
        arguments=tuple(
            containing.mounts_of_this_machine(environment.resolve(), Path(vllm_python).resolve().parents[1])
        ),
        python=str(environment.resolve() / "bin" / "python"),
    )
    engine = images.provided(replace(made.engine, container=container), may_pull=False)
    spec = replace(made, engine=images.with_mounts(engine, [made.model.path]), live_start=made.assignment)
    engines = KeptEngines(is_alone=True)
    try:
        for number, seqs in enumerate((8, 2)):
            setting = replace(
                spec,
                assignment={**made.assignment, "max_num_seqs": seqs},
                folder=f"{made.folder}-{seqs}",
            )
            result = engines.run(setting, PLACEMENT, cancelled=never)
            assert result.state is TrialState.COMPLETE, result.failure_message
            assert result.command[:2] == ("podman", "run") and "localhost/sweeper-real:1" in result.command
            assert result.versions["vllm"] == made.engine.release
            assert result.effective["max_num_seqs"] == seqs and result.effective["live_trial"] == number
            (measured,) = result.measurements
            assert measured.metrics["completed"] == 8
            assert len(podman.running()) == 1
    finally:
        engines.close()
    assert podman.running() == []
