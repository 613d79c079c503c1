"""Several engines of one assignment as one service: how they are made, shared out, and ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.engines import Cancelled, Server, instances
from sweeper.engines.instances import InstancesEngine, SplitServer
from sweeper.engines.simulated import SimulatedEngine
from sweeper.engines.vllm import VllmEngine
from sweeper.errors import ConfigError, EngineError, KnobError
from sweeper.records import FailureClass, Placement, TrialSpec
from tests.stand_ins import StandInServer
from tests.standin_server import make_spec, never, write_interpreter

FOUR = Placement(node="here", devices=(4, 5, 6, 7), parents=(4, 5, 6, 7))


def asking(
    tmp_path: Path, n: object, *, by: str = "auto", release: str = "0.32.0", **knobs: object
) -> TrialSpec:
    spec = make_spec(tmp_path, "python", assignment={"max_num_seqs": 8, "instances": n, **knobs})
    return replace(spec, engine=replace(spec.engine, instances_by=by, release=release))


def test_data_parallelism_is_taken_where_release_has_it(tmp_path: Path) -> None:
    assert instances.way(asking(tmp_path, 2)) == "data_parallel"
    assert instances.way(asking(tmp_path, 2, release="0.6.2")) == "split"
    assert instances.way(asking(tmp_path, 2, by="split")) == "split"
    assert instances.way(asking(tmp_path, 1)) == "single"
    assert instances.served_assignment(asking(tmp_path, 2)) == {"max_num_seqs": 8, "data_parallel_size": 2}
    assert instances.served_assignment(asking(tmp_path, 2, by="split")) == {"max_num_seqs": 8}


def test_what_cannot_be_realised_is_refused_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(KnobError, match=r"which vLLM 0.6.2 does not have"):
        instances.way(asking(tmp_path, 2, by="data_parallel", release="0.6.2"))
    with pytest.raises(KnobError, match="given together with data_parallel_size"):
        instances.way(asking(tmp_path, 2, data_parallel_size=2))
    for wrong in (0, True, "two"):
        with pytest.raises(ConfigError, match="expected a whole number of at least 1"):
            instances.count({"instances": wrong})
    assert instances.count({}) == 1


def test_each_instance_has_its_share_of_devices_and_folder_of_its_own(tmp_path: Path) -> None:
    spec = asking(tmp_path, 2, by="split")
    part, block = instances.part_of(spec, FOUR, index=1)
    assert block.devices == block.parents == (6, 7)
    assert part.folder == f"{spec.folder}/instance-1"
    assert part.assignment == {"max_num_seqs": 8}
    assert part.client.keeps_requests
    # Eight partitions of two GPUs: the second half lies on the second GPU.
    eight = replace(FOUR, devices=tuple(range(16, 24)), parents=(4, 5))
    assert instances.part_of(spec, eight, index=0)[1].parents == (4,)
    assert instances.part_of(spec, eight, index=1)[1].parents == (5,)


def test_split_instances_are_started_proven_and_ended_together(tmp_path: Path) -> None:
    python = write_interpreter(tmp_path / "bin")
    spec = asking(tmp_path, 2, by="split")
    spec = replace(spec, engine=replace(spec.engine, python=str(python)))
    server = InstancesEngine(VllmEngine()).start(spec, FOUR, restart=0, cancelled=never)
    assert isinstance(server, SplitServer)
    try:
        assert len({one.base_url for one in server.servers}) == 2
        assert server.effective["instances"] == 2
        assert server.effective["instances_by"] == "split"
        assert server.effective["max_num_seqs"] == 8
        # Both answer alike, so their fingerprint is that of one.
        assert server.sanity() == server.servers[1].sanity()
        # Three questions so far at the first and the second together, and 100 tokens looked up for each.
        assert server.counters()["prefix_cache_queries"] == 300.0
        assert server.counters()["kv_cache_usage"] == 0.5
        server.check_alive()
        server.servers[1].stop()
        with pytest.raises(EngineError):
            server.check_alive()
    finally:
        assert server.stop() >= 0.0
    for one in server.servers:
        with pytest.raises(EngineError):
            one.check_alive()


class Counting(StandInServer):
    """A server that has counted what it is made with."""

    def __init__(self, **counted: float) -> None:
        super().__init__(diary=[])
        self.counted = counted

    def counters(self) -> Mapping[str, float]:
        return self.counted


def test_what_one_instance_does_not_report_is_unknown_of_all() -> None:
    first = Counting(preemptions=3.0, prefix_cache_hits=40.0, kv_cache_usage=0.25)

    def counted(second: Counting) -> Mapping[str, float]:
        return SplitServer([first, second], told={}, start_s=0.0).counters()

    assert counted(Counting(preemptions=1.0, kv_cache_usage=0.5)) == {
        "preemptions": 4.0,
        "kv_cache_usage": 0.5,
    }
    # One whose page did not come in time: its counts are not zero.
    assert counted(Counting()) == {}


def test_when_one_instance_fails_others_are_ended(tmp_path: Path) -> None:
    diary: list[str] = []

    class SecondFails:
        def start(
            self, spec: TrialSpec, placement: Placement, *, restart: int, cancelled: Cancelled
        ) -> Server:
            if spec.folder.endswith("instance-1"):
                raise EngineError("no memory", failure=FailureClass.OUT_OF_MEMORY)
            return StandInServer(diary=diary)

    with pytest.raises(EngineError, match="no memory"):
        InstancesEngine(SecondFails()).start(
            asking(tmp_path, 2, by="split"), FOUR, restart=0, cancelled=never
        )
    assert diary == ["stop"]


def test_first_real_failure_is_told_and_not_its_echo() -> None:
    def waits(cancelled: Cancelled) -> None:
        while not cancelled():
            time.sleep(0.01)
        raise EngineError("stopped on request", failure=FailureClass.INTERRUPTED)

    def fails(cancelled: Cancelled) -> None:
        raise EngineError("its own line", failure=FailureClass.CRASH)

    with pytest.raises(EngineError, match="its own line"):
        instances.together([waits, fails], cancelled=never)


def test_tasks_run_at_same_time_and_answer_in_order() -> None:
    meeting = threading.Barrier(2, timeout=30)

    def task(name: str) -> str:
        meeting.wait()
        return name

    found = instances.together([lambda _: task("a"), lambda _: task("b")], cancelled=never)
    assert found == ["a", "b"]


@pytest.mark.parametrize(("release", "by"), [("0.6.2", "split"), ("0.9.0", "data_parallel")])
def test_modelled_service_of_two_instances_has_two_replicas(
    simulated_spec: TrialSpec, release: str, by: str
) -> None:
    spec = replace(
        simulated_spec,
        assignment={**simulated_spec.assignment, "max_model_len": 8192, "instances": 2},
        engine=replace(simulated_spec.engine, release=release),
    )
    eight = Placement(node="n", devices=tuple(range(8)), parents=tuple(range(8)))
    server = InstancesEngine(SimulatedEngine()).start(spec, eight, restart=0, cancelled=never)
    assert server.effective["data_parallel_size"] == 2
    assert server.effective["instances"] == 2
    assert server.effective["instances_by"] == by
    assert "not_modelled" not in server.effective
