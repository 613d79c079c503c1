"""Two real Ray nodes on this machine, each a modelled MI300X node: trials on both, one of them killed."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sweeper import topology
from sweeper.errors import ConfigError, PlacementError
from sweeper.executors import cluster as cluster_module
from sweeper.executors.cluster import Cluster
from sweeper.executors.ray import RayExecutor
from sweeper.executors.ray_import import import_ray, noise_to
from sweeper.processes import process as processes
from sweeper.records import FailureClass, Model, Objective, Placement, TrialResult, TrialSpec, TrialState
from sweeper.schedule.scheduler import Scheduler
from sweeper.search import Search, storage_url
from sweeper.space.space import Series, Space
from sweeper.store.store import Store
from sweeper.sweep.ledger import Ledger
from sweeper.sweep.sweep import Outcome, Sweep
from sweeper.sweep.terms import Terms
from tests.stand_ins import LOAD, planner_of_three_series

SIXTEEN = Space(
    base={"tensor_parallel_size": 4, "max_model_len": 4096},
    series=tuple(Series(name=f"s{n}", label=f"S{n}", knobs={"max_num_seqs": n}) for n in range(4, 20)),
)


class Nodes:
    """Ray processes of this test alone: a head and one more node, both without a dashboard.

    ``RAY_TMPDIR`` must name the folder while they live. Ray's own helper writes the cluster's address below
    it, and otherwise into a folder that only exists where somebody has started Ray by hand. It also
    marks each process of the cluster, also of one that was started half.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = folder / "nodes.log"
        self._second: Any = None
        import_ray(is_private=True)
        from ray.cluster_utils import Cluster as RayNodes

        self._ray: Any = RayNodes()

    @property
    def address(self) -> str:
        return str(self._ray.address)

    def start(self) -> None:
        """Start the head, on ports that are free: Ray's own defaults are fixed numbers."""
        with noise_to(self._log):
            self._ray.add_node(
                num_cpus=2,
                include_dashboard=False,
                dashboard_port=None,
                dashboard_agent_listen_port=0,
                temp_dir=str(self._folder / "ray"),
            )

    def complete(self) -> None:
        """Start the second node, unless it is there and lives."""
        with noise_to(self._log):
            if self._second is not None and self._agent.poll() is not None:
                self._ray.remove_node(self._second)
                self._second = None
                self._ray.wait_for_nodes()
            if self._second is None:
                self._second = self._ray.add_node(num_cpus=2)

    def kill_second(self) -> None:
        """End the second node as a power cut would: its agent is gone at once, and so are its workers."""
        self._agent.kill()
        self._agent.wait()

    def end(self) -> None:
        try:
            with noise_to(self._log):
                self._ray.shutdown()
        finally:
            processes.end(processes.marked("RAY_TMPDIR", str(self._folder)), grace_s=0.0)

    @property
    def second_id(self) -> str:
        """Ray's identifier of the second node."""
        return str(self._second.node_id)

    @property
    def _agent(self) -> subprocess.Popen[bytes]:
        (agent,) = self._second.all_processes["raylet"]
        process: subprocess.Popen[bytes] = agent.process
        return process


@contextmanager
def started_head() -> Iterator[Nodes]:
    # Unix socket paths below it must stay short.
    with (
        tempfile.TemporaryDirectory(prefix="swc-", ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("RAY_TMPDIR", folder)
        nodes = Nodes(Path(folder))
        try:
            nodes.start()
            yield nodes
        finally:
            nodes.end()


@pytest.fixture(scope="module")
def head() -> Iterator[Nodes]:
    with started_head() as nodes:
        yield nodes


@pytest.fixture
def nodes(head: Nodes) -> Nodes:
    """Both nodes, whatever an earlier test did to the second."""
    head.complete()
    return head


class Witness:
    """Sees who runs where, and kills a node when trials run on both and one has just begun there."""

    def __init__(self, nodes: Nodes, *, second: str) -> None:
        self._nodes = nodes
        self._second = second
        self.running: dict[str, str] = {}
        self.used: set[str] = set()
        self.results: list[TrialResult] = []
        self.killed_s: float | None = None

    def planned(self, *, total: int | None, done: int, refused: int) -> None:
        pass

    def started(self, spec: TrialSpec, placement: Placement) -> None:
        self.running[spec.key] = placement.node
        self.used.add(placement.node)
        enough = any(result.state is TrialState.COMPLETE for result in self.results)
        is_there = placement.node == self._second and len(set(self.running.values())) == 2
        # At once: a trial that is over before the node is gone would not be lost with it.
        if self.killed_s is None and enough and is_there:
            self.killed_s = time.monotonic()
            self._nodes.kill_second()

    def finished(self, result: TrialResult, *, will_retry: bool) -> None:
        self.results.append(result)
        self.running.pop(result.spec.key, None)

    def tick(self) -> None:
        pass


def join(nodes: Nodes) -> Cluster:
    return Cluster(nodes.address, read=topology.modelled_mi300x)


@pytest.mark.ray
def test_head_that_fails_half_way_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    before = processes.descendants(os.getpid())
    begun: list[processes.Process] = []

    def no_room(address: str) -> None:
        begun.extend(set(processes.descendants(os.getpid())) - set(before))
        raise OSError("no room for the address")

    import_ray(is_private=True)
    from ray._private import utils

    # Ray writes the address last, with the processes of the head up already.
    monkeypatch.setattr(utils, "write_ray_address", no_room)
    with pytest.raises(OSError, match="no room for the address"), started_head():
        pytest.fail("it started all the same")
    assert len(begun) >= 2
    assert not any(map(processes.is_alive, begun))


@pytest.mark.ray
def test_nodes_have_names_of_their_own_and_share_folder(nodes: Nodes, tmp_path: Path) -> None:
    with closing(join(nodes)) as cluster:
        first, second = cluster.nodes
        assert first.host != second.host
        assert replace(first, host="modelled") == topology.modelled_mi300x()
        assert cluster.remarks == []
        cluster.check_paths(tmp_path, needed={str(tmp_path): "model.path"})
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(ConfigError, match=r"node .*: engine\.python \(/no/python\) is not there"):
            cluster.check_paths(tmp_path, needed={"/no/python": "engine.python"})
        assert cluster.lost_nodes() == frozenset()


@pytest.mark.ray
def test_node_that_another_study_holds_is_not_taken(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(join(nodes)) as cluster:
        cluster.claim()
        monkeypatch.setattr(cluster_module, "_CLAIM_S", 1.0)
        with pytest.raises(PlacementError, match=r"is held by another study or job"):
            cluster.claim()


@pytest.mark.ray
def test_cluster_whose_nodes_have_no_such_devices_is_refused(nodes: Nodes) -> None:
    nothing = partial(topology.Absent, reason="amd-smi is not installed")
    with pytest.raises(PlacementError, match=r"no node of the cluster has such devices .*amd-smi is not"):
        Cluster(nodes.address, read=nothing)


@pytest.mark.ray
def test_node_that_cannot_be_asked_is_named_with_what_it_said(nodes: Nodes) -> None:
    with pytest.raises(PlacementError, match=r"does not answer: amd-smi: no such driver\. Mend it") as caught:
        Cluster(nodes.address, read=partial(fail, "amd-smi: no such driver"))
    assert "\x1b" not in str(caught.value)


def fail(text: str) -> topology.Node:
    raise RuntimeError(text)


@pytest.mark.ray
def test_cluster_that_does_not_answer_is_named() -> None:
    with pytest.raises(ConfigError, match=r"executor\.address: no Ray cluster answers at '127\.0\.0\.1:1'"):
        Cluster("127.0.0.1:1", read=topology.modelled_mi300x)


@pytest.mark.ray
def test_study_outlives_one_of_its_nodes_and_nothing_is_lost_or_doubled(
    nodes: Nodes, tmp_path: Path, llama_70b: Model
) -> None:
    store = Store(tmp_path / "test")
    with closing(join(nodes)) as cluster:
        (second,) = (name for name, node in cluster._members.items() if node.node_id == nodes.second_id)
        witness = Witness(nodes, second=second)
        cluster.claim()
        outcome = swept(tmp_path, llama_70b, store, witness, cluster)
        assert cluster.lost_nodes() == {second}

    assert witness.killed_s is not None
    assert len(witness.used) == 2
    assert outcome.states == {TrialState.COMPLETE: 16}
    frame = store.read()
    complete = frame[frame["state"] == "complete"]
    assert sorted(complete["knob.max_num_seqs"]) == list(range(4, 20))
    lost = [result for result in witness.results if result.state is TrialState.FAILED]
    # Two trials of four devices fit on each node of eight.
    assert 1 <= len(lost) <= 2
    for result in lost:
        assert result.failure_class is FailureClass.INFRASTRUCTURE
        assert f"node {second} is gone" in (result.failure_message or "")
    attempts = Counter(frame["trial_key"])
    assert sorted(attempts.values()) == [1] * (16 - len(lost)) + [2] * len(lost)
    again = frame[frame["attempt"] == 2]
    assert set(again["state"]) == {"complete"}
    assert second not in set(again["node"])


def swept(folder: Path, model: Model, store: Store, witness: Witness, cluster: Cluster) -> Outcome:
    """Sweep sixteen trials of about a second each over the cluster."""
    load = replace(LOAD, dataset="sharegpt", input_len=None, output_len=None, num_prompts=3000)
    planner = replace(
        planner_of_three_series(folder, model),
        space=SIXTEEN,
        node=cluster.nodes[0],
        load_points=(replace(load, request_rate_per_s=8.0),),
    )
    objectives = (Objective(metric="request_throughput_per_s", direction="maximize"),)
    search = Search(
        storage=storage_url(folder),
        name="test",
        space=SIXTEEN,
        objectives=objectives,
        method="grid",
        seed=0,
    )
    with closing(search), closing(RayExecutor(cluster)) as executor:
        sweep = Sweep(
            planner=planner,
            search=search,
            ledger=Ledger(store, planner, Terms(objectives=objectives, method="grid")),
            executor=executor,
            scheduler=Scheduler(cluster.nodes),
            observer=witness,
        )
        return sweep.run(stop=lambda: False)
