"""One trial from start to result, and every way it can end."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.errors import ConfigError, EngineError
from sweeper.records import (
    ClientSpec,
    FailureClass,
    LoadPoint,
    Placement,
    Platform,
    Provenance,
    TrialResult,
    TrialSpec,
    TrialState,
)
from sweeper.store.store import Store
from sweeper.trial import trial
from tests.audit import nodes
from tests.stand_ins import StandInClient, StandInEngine
from tests.standin_server import PLACEMENT, make_spec, never, write_interpreter

GENTLE = LoadPoint(dataset="random", num_prompts=4, input_len=8, output_len=8, request_rate_per_s=2.0)
ALL_AT_ONCE = replace(GENTLE, request_rate_per_s=None)


@pytest.fixture
def spec(simulated_spec: TrialSpec) -> TrialSpec:
    engine = replace(simulated_spec.engine, kind="vllm")
    return replace(
        simulated_spec,
        platform=Platform.CPU,
        engine=engine,
        load_points=(ALL_AT_ONCE, GENTLE),
        warmup_prompts=3,
    )


def run(spec: TrialSpec, placement: Placement, engine: StandInEngine, client: StandInClient) -> TrialResult:
    client.diary = engine.diary
    return trial.run(
        spec, placement, cancelled=lambda: False, engine=engine, open_client=lambda spec, placement: client
    )


def test_trial_starts_proves_warms_measures_and_stops_in_this_order(
    spec: TrialSpec, placement: Placement
) -> None:
    engine = StandInEngine()
    result = run(spec, placement, engine, StandInClient())
    assert engine.diary == [
        "start 0",
        "sanity",
        "sanity",
        "warm up with 3 at 2 QPS",
        "measure all at once",
        "measure 2 QPS",
        "sanity",
        "stop",
        "close",
    ]
    assert result.state is TrialState.COMPLETE
    assert [m.load_point for m in result.measurements] == [ALL_AT_ONCE, GENTLE]
    # On cores there is nobody to ask, so the look whether they are free takes no time to speak of.
    assert result.phases.pop("free_wait_s") < 1.0  # type: ignore[attr-defined]
    assert result.phases == {"engine_start_s": 2.0, "warmup_s": 0.25, "stop_s": 0.5}
    # printf ' Paris' | sha256sum | cut -c1-16
    assert (result.sanity_text, result.sanity_fingerprint) == (" Paris", "3ca6a054807c4570")
    assert result.command == ("serve", "model")
    assert result.effective == {
        "max_num_seqs": 64,
        "numa_binding": "not bound: the engine has a mask of cores",
    }
    assert result.versions["vllm"] == "0.32.0"


def test_engine_and_client_start_on_numa_node_of_their_devices(
    spec: TrialSpec, placement: Placement, tmp_path: Path
) -> None:
    cpu = max(os.sched_getaffinity(0))
    node = tmp_path / "sys/devices/system/node/node1"
    node.mkdir(parents=True)
    (node / "cpulist").write_text(f"{cpu}\n")
    bound: list[set[int]] = []

    def open_client(spec: TrialSpec, placement: Placement) -> StandInClient:
        bound.append(os.sched_getaffinity(0))
        return StandInClient()

    def result_of(spec: TrialSpec) -> TrialResult:
        return trial.run(
            spec,
            replace(placement, numa_node=1),
            cancelled=lambda: False,
            engine=StandInEngine(),
            open_client=open_client,
            sys=tmp_path / "sys",
        )

    amd = replace(spec, platform=Platform.MI300X)
    assert result_of(amd).effective["numa_binding"] == "node 1"
    free = replace(amd, engine=replace(amd.engine, binds_numa=False))
    assert result_of(free).effective["numa_binding"] == "not bound: switched off"
    assert bound == [{cpu}, os.sched_getaffinity(0)]
    assert free.key != amd.key, "bound and not bound are two things to measure"


def test_row_has_digest_of_node_as_its_engine_found_it(
    spec: TrialSpec, simulated_spec: TrialSpec, placement: Placement, tmp_path: Path
) -> None:
    root = nodes.write(tmp_path, {**nodes.GOOD_FILES, "proc/sys/kernel/numa_balancing": "1\n"})
    store = Store(tmp_path / "study")

    def audit_of(spec: TrialSpec) -> str | None:
        result = trial.run(
            spec,
            placement,
            cancelled=lambda: False,
            engine=StandInEngine(),
            open_client=lambda spec, placement: StandInClient(),
            proc=root / "proc",
        )
        store.append(result, queued_s=0.0, knobs=())
        digest = result.surroundings.get("audit")
        return None if digest is None else str(digest)

    left = audit_of(spec)
    changed = audit_of(replace(spec, assignment={**spec.assignment, "host_numa_balancing": False}))
    assert left is not None
    assert changed is not None
    assert left.endswith(" differs: numa_balancing")
    assert changed.endswith(" good"), "the host was changed before, and put back after"
    assert audit_of(simulated_spec) is None
    stored = store.read()["audit"]
    assert set(stored.dropna()) == {left, changed}
    assert stored.isna().any()


def test_warm_up_grows_with_the_users_of_a_load_point(spec: TrialSpec, placement: Placement) -> None:
    few, many = (
        replace(ALL_AT_ONCE, max_concurrency=users, num_prompts=4 * users, warmup_per_user=2)
        for users in (1, 256)
    )
    again = replace(many, keeps_prefix_cache=True)
    engine = StandInEngine()
    closed = replace(spec, load_points=(few, many, again), warmup_prompts=0)
    result = run(closed, placement, engine, StandInClient())
    assert result.state is TrialState.COMPLETE
    sent = [line for line in engine.diary if line.startswith(("warm up", "measure"))]
    # Two of each user; a second run has the first for that, whose prompts it is to find in the cache.
    assert sent == [
        *(f"warm up with 2 at {few.label}", f"measure {few.label}"),
        *(f"warm up with 512 at {many.label}", f"measure {many.label}"),
        f"measure {again.label}",
    ]
    assert result.phases["warmup_s"] == 0.5


def test_repeats_are_starts_and_runs_are_within_one(spec: TrialSpec, placement: Placement) -> None:
    twice = replace(spec, repeats=2, runs_per_start=2, load_points=(GENTLE,), warmup_prompts=0)
    result = run(twice, placement, StandInEngine(), StandInClient())
    assert [(m.restart, m.repeat) for m in result.measurements] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert result.phases["engine_start_s"] == 4.0


def test_engine_that_does_not_start_is_failed_result_with_its_class_and_line(
    spec: TrialSpec, placement: Placement
) -> None:
    error = EngineError("No module named x", failure=FailureClass.CRASH, log_path="engine.log")
    engine = StandInEngine(fails_with=error)
    result = run(spec, placement, engine, StandInClient())
    assert result.state is TrialState.FAILED
    assert result.failure_class is FailureClass.CRASH
    assert result.failure_message == "No module named x"
    assert result.log_path == "engine.log"
    assert engine.diary == ["start 0", "close"]


def test_client_that_fails_still_stops_engine(spec: TrialSpec, placement: Placement) -> None:
    engine = StandInEngine()
    client = StandInClient(fails_with=EngineError("3 of 4 completed", failure=FailureClass.CLIENT))
    result = run(spec, placement, engine, client)
    assert result.failure_class is FailureClass.CLIENT
    assert engine.diary[-2:] == ["stop", "close"]


def test_engine_that_died_during_load_leaves_no_number(spec: TrialSpec, placement: Placement) -> None:
    # Looked at before and after each load: the second look comes after the first load.
    engine = StandInEngine(dies_before=lambda look: look == 2)
    result = run(spec, placement, engine, StandInClient())
    assert result.failure_class is FailureClass.OUT_OF_MEMORY
    assert result.measurements == ()


def test_stop_between_two_loads_ends_trial_as_interrupted(spec: TrialSpec, placement: Placement) -> None:
    engine = StandInEngine()
    client = StandInClient(diary=engine.diary)
    result = trial.run(
        spec,
        placement,
        cancelled=lambda: "measure all at once" in engine.diary,
        engine=engine,
        open_client=lambda spec, placement: client,
    )
    assert result.failure_class is FailureClass.INTERRUPTED
    assert "measure 2 QPS" not in engine.diary
    assert engine.diary[-2:] == ["stop", "close"]


def test_rays_cancel_arrives_as_interrupt_and_cleans_up(spec: TrialSpec, placement: Placement) -> None:
    engine = StandInEngine()
    result = run(spec, placement, engine, StandInClient(fails_with=KeyboardInterrupt()))
    assert result.failure_class is FailureClass.INTERRUPTED
    assert engine.diary[-2:] == ["stop", "close"]


def test_error_of_our_own_is_result_too_with_its_traceback_in_file(
    spec: TrialSpec, placement: Placement
) -> None:
    result = run(spec, placement, StandInEngine(fails_with=ZeroDivisionError("by zero")), StandInClient())
    assert result.failure_class is FailureClass.INFRASTRUCTURE
    assert result.failure_message == "ZeroDivisionError: by zero"
    assert result.log_path is not None
    assert "ZeroDivisionError" in Path(result.log_path).read_text()


def test_error_is_result_also_where_its_traceback_cannot_be_written(
    spec: TrialSpec, placement: Placement, tmp_path: Path
) -> None:
    (tmp_path / "trials").write_text("a file where the folder belongs")
    lost = replace(spec, folder=str(tmp_path / "trials" / "one"))
    result = run(lost, placement, StandInEngine(fails_with=ZeroDivisionError("by zero")), StandInClient())
    assert result.failure_class is FailureClass.INFRASTRUCTURE
    assert result.failure_message == "ZeroDivisionError: by zero"
    assert result.log_path is None


@pytest.mark.parametrize("writer", ["client", "engine", "offline engine"])
def test_folder_that_cannot_be_written_fails_trial_and_is_named(tmp_path: Path, writer: str) -> None:
    (tmp_path / "outputs").write_text("a file where the folder belongs")
    kind = "offline" if writer == "offline engine" else "vllm_bench"
    spec = make_spec(tmp_path / "outputs", write_interpreter(tmp_path / "bin"), client=ClientSpec(kind=kind))
    own = None if writer == "client" else lambda spec, placement: StandInClient()
    result = trial.run(spec, PLACEMENT, cancelled=never, open_client=own)
    assert result.failure_class is FailureClass.INFRASTRUCTURE
    assert result.failure_message is not None
    assert f"{tmp_path}/outputs is no folder); expected a writable folder" in result.failure_message
    assert result.failure_message.startswith(f"{spec.folder}")
    assert result.log_path is None


def test_mistake_found_late_is_not_tried_again(spec: TrialSpec, placement: Placement) -> None:
    result = run(spec, placement, StandInEngine(fails_with=ConfigError("no such knob")), StandInClient())
    assert result.failure_class is FailureClass.BAD_ARGUMENT
    assert not result.failure_class.is_transient


def test_lost_worker_makes_transient_failure(spec: TrialSpec, placement: Placement) -> None:
    result = trial.lost(spec, placement, RuntimeError("worker died\nlong story"))
    assert result.state is TrialState.FAILED
    assert result.failure_class is FailureClass.INFRASTRUCTURE
    assert result.failure_message == "the worker of this trial was lost: RuntimeError: worker died"
    assert result.placement == placement


def test_what_a_lost_worker_died_of_is_told_and_not_rays_heading(
    spec: TrialSpec, placement: Placement
) -> None:
    # As Ray's of a task: its text is a traceback in colours, which begins with the task and its process.
    carrier = RuntimeError("\x1b[36mray::run()\x1b[39m (pid=1)\nModuleNotFoundError: No module named 'x'")
    carrier.cause = ModuleNotFoundError("No module named 'x'")  # type: ignore[attr-defined]
    result = trial.lost(spec, placement, carrier)
    assert result.failure_message == (
        "the worker of this trial was lost: ModuleNotFoundError: No module named 'x'"
    )
    assert trial.lost(spec, placement, MemoryError()).failure_message == (
        "the worker of this trial was lost: MemoryError"
    )


def test_only_simulated_platform_is_simulated(spec: TrialSpec, simulated_spec: TrialSpec) -> None:
    assert spec.provenance is Provenance.MEASURED
    assert simulated_spec.provenance is Provenance.SIMULATED


def test_specs_own_engine_and_client_are_used_where_none_is_given(
    simulated_spec: TrialSpec, placement: Placement
) -> None:
    result = trial.run(simulated_spec, placement, cancelled=lambda: False)
    assert result.state is TrialState.COMPLETE, result.failure_message
    assert result.provenance is Provenance.SIMULATED
    assert result.measurements[0].metrics["completed"] == 20
