"""A number is kept only of the proven engine, alone on its devices, whose answers did not change."""

from __future__ import annotations

import itertools
import os
import socket
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.clients.short_answers import check as check_lengths
from sweeper.engines.instances import InstancesEngine, SplitServer
from sweeper.engines.vllm import VllmEngine
from sweeper.errors import MeasurementError
from sweeper.records import FailureClass, LoadPoint, Placement, Platform, TrialResult, TrialSpec, TrialState
from sweeper.topology import Answer, Runner
from sweeper.topology.device_processes import DeviceProcesses
from sweeper.trial import trial
from sweeper.trial.proof import Proof
from tests.stand_ins import StandInClient, StandInEngine, StandInServer
from tests.standin_server import PLACEMENT, make_spec, never, write_interpreter

POINT = LoadPoint(dataset="random", num_prompts=4, input_len=8, output_len=8, ignore_eos=True)


@pytest.fixture
def spec(simulated_spec: TrialSpec) -> TrialSpec:
    engine = replace(simulated_spec.engine, kind="vllm")
    return replace(simulated_spec, platform=Platform.CUDA, engine=engine, load_points=(POINT,))


def run(
    spec: TrialSpec, placement: Placement, engine: StandInEngine, *, probe: Runner | None = None
) -> TrialResult:
    return trial.run(
        spec,
        placement,
        cancelled=never,
        engine=engine,
        open_client=lambda spec, placement: StandInClient(engine.diary),
        probe=probe or silent,
    )


def silent(command: Sequence[str]) -> Answer:
    raise FileNotFoundError(command[0])


def nvidia(*pids: int) -> Runner:
    """A node of five GPUs, where these processes come to the first four once they were seen to be free."""
    looks = itertools.count()

    def answer(command: Sequence[str]) -> Answer:
        if "--query-gpu=index,uuid" in command:
            return Answer(exit_status=0, stdout="".join(f"{i}, GPU-{i}\n" for i in range(5)))
        if "--query-compute-apps=gpu_uuid,pid" not in command:
            return Answer(exit_status=9, stdout="")
        there = pids if next(looks) else ()
        listed = [f"GPU-{gpu}, {pid}\n" for gpu in range(4) for pid in there]
        return Answer(exit_status=0, stdout="".join(listed) + "GPU-4, 999\n")

    return answer


def test_engine_whose_answer_changes_under_load_leaves_no_number(
    spec: TrialSpec, placement: Placement
) -> None:
    result = run(spec, placement, StandInEngine(answers=(" Paris", " Paris", " !!!!")))
    assert (result.state, result.failure_class) == (TrialState.FAILED, FailureClass.WRONG_ANSWER)
    assert "with ' Paris' before the load and with ' !!!!' after it" in str(result.failure_message)
    assert result.measurements == ()


@pytest.mark.parametrize("after", [" Paris", " the capital"], ids=["cold again", "warm"])
def test_engine_may_answer_otherwise_from_its_prefix_cache(
    spec: TrialSpec, placement: Placement, after: str
) -> None:
    # The second answer begins from what the first one left in the cache, and the load may push that out.
    result = run(spec, placement, StandInEngine(answers=(" Paris", " the capital", after)))
    assert (result.state, result.sanity_text) == (TrialState.COMPLETE, " Paris")
    assert len(result.measurements) == 1


def test_engine_that_answers_otherwise_each_time_leaves_no_number(
    spec: TrialSpec, placement: Placement
) -> None:
    result = run(spec, placement, StandInEngine(answers=(" Paris", " the capital", " !!!!")))
    assert result.failure_class is FailureClass.WRONG_ANSWER
    assert "with ' Paris' and ' the capital' before the load and with ' !!!!'" in str(result.failure_message)


def test_answers_of_two_starts_are_both_kept_where_they_differ(spec: TrialSpec, placement: Placement) -> None:
    engine = StandInEngine()
    starts = iter(((" Paris", " Paris"), (" Lyon", " Lyon")))

    class Changing(StandInEngine):
        def start(self, *given: object, **named: object) -> object:  # type: ignore[override]
            self.answers = next(starts)
            return super().start(*given, **named)  # type: ignore[arg-type]

    engine = Changing()
    result = run(replace(spec, repeats=2), placement, engine)
    assert (result.state, result.sanity_text) == (TrialState.COMPLETE, " Paris |  Lyon")


def test_engine_that_was_replaced_during_load_leaves_no_number(spec: TrialSpec, placement: Placement) -> None:
    # The second look is the one after the load.
    result = run(spec, placement, StandInEngine(is_replaced_before=lambda look: look == 2))
    assert (result.state, result.failure_class) == (TrialState.FAILED, FailureClass.WRONG_ENGINE)
    assert result.measurements == ()


def test_run_alone_on_its_devices_says_so(spec: TrialSpec, placement: Placement) -> None:
    result = run(spec, placement, StandInEngine(engine_pids=frozenset({70, 71})), probe=nvidia(70, 71))
    assert [m.telemetry["foreign_processes"] for m in result.measurements] == [0]


def test_another_process_on_devices_costs_trial_and_is_named(spec: TrialSpec, placement: Placement) -> None:
    probe = nvidia(70, os.getpid())
    result = run(spec, placement, StandInEngine(engine_pids=frozenset({70})), probe=probe)
    assert (result.state, result.failure_class) == (TrialState.FAILED, FailureClass.INFRASTRUCTURE)
    assert f"used by process {os.getpid()} (" in str(result.failure_message)
    assert result.failure_class is not None
    assert result.failure_class.is_transient, "the neighbour may be gone the next time"


@pytest.mark.parametrize("is_partition", [False, True])
def test_engine_that_leaves_one_of_its_devices_idle_is_none_of_what_was_asked(is_partition: bool) -> None:
    # It was given 0 to 3 for two replicas of two, and only one of them came up.
    def probe(command: Sequence[str]) -> Answer:
        if "--query-gpu=index,uuid" in command:
            return Answer(exit_status=0, stdout="".join(f"{i}, GPU-{i}\n" for i in range(4)))
        return Answer(exit_status=0, stdout="GPU-0, 70\nGPU-1, 71\n")

    server = StandInServer(diary=[], engine_pids=frozenset({70, 71}))
    processes = DeviceProcesses(platform=Platform.CUDA, devices=(0, 1, 2, 3), run=probe)
    if is_partition:  # whose memory the tools may count at the first one of its GPU
        assert Proof(server, processes, has_whole_devices=False).look() == 0
        return
    with pytest.raises(MeasurementError, match="holds no memory on 2-3 of those that it was given") as told:
        Proof(server, processes).look()
    assert told.value.failure is FailureClass.WRONG_ENGINE


@pytest.mark.parametrize("probe", [silent, nvidia(4_000_001)], ids=["no tool", "ids of another namespace"])
def test_where_it_cannot_be_told_who_is_there_number_stays_and_says_null(
    spec: TrialSpec, placement: Placement, probe: Runner
) -> None:
    result = run(spec, placement, StandInEngine(engine_pids=frozenset({70})), probe=probe)
    assert [m.telemetry["foreign_processes"] for m in result.measurements] == [None]


def test_no_engine_starts_where_somebody_is(spec: TrialSpec, placement: Placement) -> None:
    probe = nvidia(os.getpid())
    probe(("nvidia-smi", "--query-compute-apps=gpu_uuid,pid"))
    impatient = replace(spec, engine=replace(spec.engine, free_timeout_s=0.01))
    engine = StandInEngine()
    result = run(impatient, placement, engine, probe=probe)
    assert (result.state, result.failure_class) == (TrialState.FAILED, FailureClass.INFRASTRUCTURE)
    assert f"not free after 0.01 s: process {os.getpid()} (" in str(result.failure_message)
    assert engine.diary == []


def watched(*there: int) -> tuple[Proof, threading.Event]:
    """A proof whose second GPU has the engine, and then these too; and what is set once they were told."""
    is_told = threading.Event()
    looks = itertools.count()

    def probe(command: Sequence[str]) -> Answer:
        if "--query-gpu=index,uuid" in command:
            return Answer(exit_status=0, stdout="1, GPU-1\n")
        if next(looks) >= 2:
            is_told.set()
        return Answer(exit_status=0, stdout="".join(f"GPU-1, {pid}\n" for pid in (70, *there)))

    processes = DeviceProcesses(platform=Platform.CUDA, devices=(1,), run=probe)
    return Proof(StandInServer(diary=[], engine_pids=frozenset({70})), processes), is_told


def test_stranger_that_comes_while_load_runs_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweeper.trial.proof.WATCH_INTERVAL_S", 0.01)
    proof, is_told = watched(os.getpid())
    with pytest.raises(MeasurementError, match=rf"used by process {os.getpid()} \(") as told, proof.watched():
        assert is_told.wait(30.0)
    assert told.value.failure is FailureClass.INFRASTRUCTURE


def test_several_instances_are_watched_as_one_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Real processes: of two servers the vendor's tool sees one on the device, and this test's own process.
    monkeypatch.setattr("sweeper.trial.proof.WATCH_INTERVAL_S", 0.01)
    spec = make_spec(tmp_path, write_interpreter(tmp_path / "bin"), assignment={"instances": 2})
    spec = replace(spec, engine=replace(spec.engine, instances_by="split"))
    two = replace(PLACEMENT, devices=(0, 1))
    server = InstancesEngine(VllmEngine()).start(spec, two, restart=0, cancelled=never)
    try:
        assert isinstance(server, SplitServer)
        each = [one.pids() for one in server.servers]
        assert all(each)
        assert server.pids() == frozenset().union(*map(frozenset, each))
        is_told = threading.Event()

        def probe(command: Sequence[str]) -> Answer:
            if "--query-gpu=index,uuid" in command:
                return Answer(exit_status=0, stdout="1, GPU-1\n")
            is_told.set()
            there = (*(each[1] or ()), os.getpid())
            return Answer(exit_status=0, stdout="".join(f"GPU-1, {pid}\n" for pid in there))

        proof = Proof(server, DeviceProcesses(platform=Platform.CUDA, devices=(1,), run=probe))
        with pytest.raises(MeasurementError, match=rf"by process {os.getpid()} \(") as told, proof.watched():
            assert is_told.wait(30.0)
        assert told.value.failure is FailureClass.INFRASTRUCTURE
    finally:
        server.stop()
    assert server.pids() == frozenset()


def test_engine_that_stays_alone_is_not_doubted_while_load_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweeper.trial.proof.WATCH_INTERVAL_S", 0.01)
    proof, is_told = watched()
    with proof.watched():
        assert is_told.wait(30.0)


def test_load_that_failed_says_why_and_not_who_else_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweeper.trial.proof.WATCH_INTERVAL_S", 0.01)
    proof, is_told = watched(os.getpid())
    with pytest.raises(ZeroDivisionError), proof.watched():
        assert is_told.wait(30.0)
        raise ZeroDivisionError


def test_port_that_another_process_answers_on_later_is_noticed(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, write_interpreter(tmp_path / "bin"))
    server = VllmEngine().start(spec, PLACEMENT, restart=0, cancelled=never)
    try:
        assert server.prove_ours() == frozenset(server.pids())
        # As if the process that was proven had not been the one that listens now.
        server._proven = {next(iter(server._proven)).__class__(1, 1)}
        with pytest.raises(MeasurementError, match="expected the same engine from start to end") as told:
            server.prove_ours()
        assert told.value.failure is FailureClass.WRONG_ENGINE
    finally:
        server.stop()


def test_stranger_that_listens_on_engines_port_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec(tmp_path, write_interpreter(tmp_path / "bin"))
    server = VllmEngine().start(spec, PLACEMENT, restart=0, cancelled=never)
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        # This test's own process listens there, and it is none of the engine's.
        monkeypatch.setattr(server._reserved, "port", stranger.getsockname()[1])
        try:
            with pytest.raises(MeasurementError, match=str(os.getpid())) as told:
                server.prove_ours()
            assert told.value.failure is FailureClass.WRONG_ENGINE
        finally:
            server.stop()


def test_answers_shorter_than_asked_are_no_measurement(spec: TrialSpec) -> None:
    # 4 requests of 8 tokens are 32.
    check_lengths(32.0, spec, POINT, log_path=None)
    with pytest.raises(MeasurementError, match="have 31 tokens together; expected 32, 8 for each of 4"):
        check_lengths(31.0, spec, POINT, log_path=None)


def test_answers_may_have_any_length_where_nothing_fixes_it(spec: TrialSpec) -> None:
    for point in (
        replace(POINT, ignore_eos=False),
        replace(POINT, range_ratio=0.5),
        replace(POINT, output_len=None),
    ):
        check_lengths(31.0, spec, point, log_path=None)
    check_lengths(None, spec, POINT, log_path=None)
    tgi = replace(spec, engine=replace(spec.engine, kind="tgi"))
    check_lengths(31.0, tgi, POINT, log_path=None)
