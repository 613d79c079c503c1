"""Nodes of a cluster must be alike, share a folder, and have names of their own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import sweeper
from sweeper import topology
from sweeper.errors import ConfigError, PlacementError
from sweeper.executors import cluster_checks
from sweeper.records import Platform
from sweeper.topology import Device, Node


def gpu_node(host: str, *, mode: str = "SPX", memory_gib: float = 192.0, uuid: str = "") -> Node:
    return Node(
        host=host,
        platform=Platform.MI300X,
        devices=(
            Device(
                index=0, parent=0, partition_id=0, name="MI300X", memory_gib=memory_gib, uuid=uuid or host
            ),
        ),
        source="a test",
        partition_mode=mode,
        memory_mode="NPS1",
    )


def test_hosts_with_several_ray_nodes_are_numbered() -> None:
    assert cluster_checks.unique_names(["a", "b", "b"]) == ["a", "b-1", "b-2"]


def test_equal_nodes_pass_even_where_kernels_round_memory_differently() -> None:
    cluster_checks.refuse_unlike([gpu_node("a"), gpu_node("b", memory_gib=191.7)])


def test_node_in_another_mode_is_named_with_commands_that_change_it() -> None:
    nodes = [gpu_node("a"), gpu_node("odd", mode="CPX", memory_gib=24), gpu_node("c")]
    odd = r"odd has mi300x, MI300X, CPX/NPS1, 24 GiB a device; expected"
    with pytest.raises(ConfigError, match=odd) as caught:
        cluster_checks.refuse_unlike(nodes)
    assert "mi300x, MI300X, SPX/NPS1, 192 GiB a device, as a, c" in str(caught.value)
    assert "amd-smi set" in str(caught.value)


def test_node_with_less_memory_is_named() -> None:
    with pytest.raises(ConfigError, match=r"small has mi300x, MI300X, SPX/NPS1, 64 GiB a device") as caught:
        cluster_checks.refuse_unlike([gpu_node("a"), gpu_node("b"), gpu_node("small", memory_gib=64)])
    # Its mode is that of the others, and no command gives it their memory.
    assert str(caught.value).endswith("Leave the odd ones out of the cluster.")


def test_two_ray_nodes_with_one_device_are_refused() -> None:
    same = {"a-1": "boot 1", "a-2": "boot 1"}
    with pytest.raises(ConfigError, match=r"a-1 and a-2 run on one machine and both have its device 0"):
        cluster_checks.refuse_shared_devices([gpu_node("a-1", uuid="x"), gpu_node("a-2", uuid="x")], same)


def test_containers_with_devices_of_their_own_and_modelled_nodes_may_share_machine() -> None:
    same = {"a-1": "boot 1", "a-2": "boot 1"}
    cluster_checks.refuse_shared_devices([gpu_node("a-1", uuid="x"), gpu_node("a-2", uuid="y")], same)
    modelled = [replace(topology.modelled_mi300x(), host=name) for name in same]
    cluster_checks.refuse_shared_devices(modelled, same)


def test_machine_that_cannot_be_read_says_why() -> None:
    def broken() -> Node:
        raise PlacementError("GPU 3 is missing")

    assert cluster_checks.read_machine(broken) == "GPU 3 is missing"
    answer = cluster_checks.read_machine(topology.modelled_mi300x)
    assert isinstance(answer, cluster_checks.Answer)
    assert (answer.node, len(answer.machine.strip())) == (topology.modelled_mi300x(), 36)


def test_questions_answer_with_what_is_here() -> None:
    assert cluster_checks.version_question()() == {
        "sweeper": sweeper.__version__,
        "Python": f"{sys.version_info[0]}.{sys.version_info[1]}",
    }
    assert cluster_checks.calling()(lambda: 7) == 7


def test_node_that_shares_folder_proves_it_and_leaves_nothing(tmp_path: Path) -> None:
    with cluster_checks.Probe(tmp_path) as probe:
        assert probe.question("b", {str(tmp_path): "model.path"})() is None
        assert probe.missing_from("b") is None
    assert list(tmp_path.iterdir()) == []


def moved(
    question: Callable[[], str | None], tmp_path: Path, to: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Let a question be answered where the study's path is another folder."""
    monkeypatch.setattr(cluster_checks, "_SHOWS_WITHIN_S", 0.2)
    tmp_path.rename(to)
    try:
        return question() or ""
    finally:
        to.rename(tmp_path)


def test_node_without_folder_or_needed_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    with cluster_checks.Probe(folder) as probe:
        question = probe.question("b", {"/no/such/python": "engine.python"})
        assert "is not there, or is another folder" in moved(question, folder, tmp_path / "x", monkeypatch)
        assert "does not show on this machine" in (probe.missing_from("b") or "")
        assert question() == "engine.python (/no/such/python) is not there"
