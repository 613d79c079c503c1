"""Two real Ray nodes on this machine, each a modelled MI300X node: trials on both, one of them killed."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
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
from sweeper.executors.ray_door import import_ray, noise_to
from sweeper.records import FailureClass, Model, Objective, Placement, TrialResult, TrialSpec, TrialState
from sweeper.schedule import Scheduler
from sweeper.search import Search, storage_url
from sweeper.space import Series, Space
from sweeper.store import Store
from sweeper.sweep import Outcome, Sweep
from tests.stand_ins import LOAD, planner_of_three_series

SIXTEEN = Space(
    base={"tensor_parallel_size": 4, "max_model_len": 4096},
    series=tuple(Series(name=f"s{n}", label=f"S{n}", knobs={"max_num_seqs": n}) for n in range(4, 20)),
)


class Nodes:
    """Ray processes of this test alone: a head and one more node, both without a dashboard."""

    def __init__(self, folder: Path) -> None:
        import_ray(is_private=True)
        from ray.cluster_utils import Cluster as RayNodes

        self._log = folder / "nodes.log"
        with noise_to(self._log):
            self._ray: Any = RayNodes(
                initialize_head=True,
                head_node_args={"num_cpus": 2, "include_dashboard": False, "temp_dir": str(folder / "r")},
            )
            self._second = self._ray.add_node(num_cpus=2)
        self.address = str(self._ray.address)

    def kill_second(self) -> None:
        """End the second node as a power cut would: its agent is gone at once, and so are its workers."""
        (agent,) = self._second.all_processes["raylet"]
        os.kill(agent.process.pid, signal.SIGKILL)

    def end(self) -> None:
        with noise_to(self._log):
            self._ray.shutdown()


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    # Unix socket paths below it must stay short.
    folder = Path(tempfile.mkdtemp(prefix="swc-"))
    started = Nodes(folder)
    yield started
    started.end()
    shutil.rmtree(folder, ignore_errors=True)


class Witness:
    """Sees who runs where, and kills a node when trials run on both."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self.running: dict[str, str] = {}
        self.used: set[str] = set()
        self.results: list[TrialResult] = []
        self.killed_s: float | None = None

    def planned(self, *, total: int | None, done: int, refused: int) -> None:
        pass

    def started(self, spec: TrialSpec, placement: Placement) -> None:
        self.running[spec.key] = placement.node
        self.used.add(placement.node)

    def finished(self, result: TrialResult, *, will_retry: bool) -> None:
        self.results.append(result)
        self.running.pop(result.spec.key, None)

    def tick(self) -> None:
        enough = any(result.state is TrialState.COMPLETE for result in self.results)
        if self.killed_s is None and enough and len(set(self.running.values())) == 2:
            self.killed_s = time.monotonic()
            self._nodes.kill_second()


def join(nodes: Nodes) -> Cluster:
    return Cluster(nodes.address, read=topology.modelled_mi300x)


@pytest.mark.ray
def test_nodes_have_names_of_their_own_and_share_the_folder(nodes: Nodes, tmp_path: Path) -> None:
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
def test_a_node_that_another_study_holds_is_not_taken(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(join(nodes)) as cluster:
        cluster.claim()
        monkeypatch.setattr(cluster_module, "_CLAIM_S", 1.0)
        with pytest.raises(PlacementError, match=r"is held by another study or job"):
            cluster.claim()


@pytest.mark.ray
def test_a_cluster_whose_nodes_have_no_such_devices_is_refused(nodes: Nodes) -> None:
    nothing = partial(topology.Absent, reason="amd-smi is not installed")
    with pytest.raises(PlacementError, match=r"no node of the cluster has such devices .*amd-smi is not"):
        Cluster(nodes.address, read=nothing)


@pytest.mark.ray
def test_a_cluster_that_does_not_answer_is_named() -> None:
    with pytest.raises(ConfigError, match=r"executor\.address: no Ray cluster answers at '127\.0\.0\.1:1'"):
        Cluster("127.0.0.1:1", read=topology.modelled_mi300x)


@pytest.mark.ray
def test_a_study_outlives_one_of_its_nodes_and_nothing_is_lost_or_doubled(
    nodes: Nodes, tmp_path: Path, llama_70b: Model
) -> None:
    store, witness = Store(tmp_path / "test"), Witness(nodes)
    with closing(join(nodes)) as cluster:
        cluster.claim()
        outcome = swept(tmp_path, llama_70b, store, witness, cluster)
        lost_name = next(iter(cluster.lost_nodes()))

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
        assert f"node {lost_name} is gone" in (result.failure_message or "")
    attempts = Counter(frame["trial_key"])
    assert sorted(attempts.values()) == [1] * (16 - len(lost)) + [2] * len(lost)
    again = frame[frame["attempt"] == 2]
    assert set(again["state"]) == {"complete"}
    assert lost_name not in set(again["node"])


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
            store=store,
            executor=executor,
            scheduler=Scheduler(cluster.nodes),
            observer=witness,
            objectives=objectives,
            method="grid",
            trials=None,
        )
        return sweep.run(stop=lambda: False)
