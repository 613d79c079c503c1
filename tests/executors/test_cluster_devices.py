"""Two real Ray nodes on one machine, each started with the mask of its own half of the GPUs."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sweeper import config
from sweeper.errors import PlacementError
from sweeper.executors.cluster import Cluster
from sweeper.executors.ray_import import import_ray, noise_to
from sweeper.prepare import node as prepare
from sweeper.prepare import platform
from sweeper.processes import process
from sweeper.records import Platform
from tests.test_mi300x import write_amd_smi


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The address of a cluster whose head may use GPUs 0 to 3, and whose other node 4 to 7."""
    # Unix socket paths below it must stay short.
    folder = Path(tempfile.mkdtemp(prefix="swd-"))
    write_amd_smi(folder / "tools", "rocm_6.2_spx")
    with pytest.MonkeyPatch.context() as patch:
        # Ray's helper writes the cluster's address below it, and it marks what was started.
        patch.setenv("RAY_TMPDIR", str(folder))
        patch.setenv("PATH", f"{folder / 'tools'}:{os.environ['PATH']}")
        import_ray(is_private=True)
        from ray.cluster_utils import Cluster as RayNodes

        ray: Any = RayNodes()
        try:
            with noise_to(folder / "nodes.log"):
                ray.add_node(
                    num_cpus=1,
                    num_gpus=4,
                    include_dashboard=False,
                    temp_dir=str(folder / "ray"),
                    env_vars={"HIP_VISIBLE_DEVICES": "0,1,2,3"},
                )
                ray.add_node(num_cpus=1, num_gpus=4, env_vars={"HIP_VISIBLE_DEVICES": "4,5,6,7"})
            yield str(ray.address)
        finally:
            with noise_to(folder / "nodes.log"):
                ray.shutdown()
            process.end(process.marked("RAY_TMPDIR", str(folder)), grace_s=0.0)
            shutil.rmtree(folder, ignore_errors=True)


def join(address: str, *overrides: str) -> Cluster:
    composed = config.compose_run(["platform=mi300x", f"executor.address={address}", *overrides])
    settings = config.settings(composed, platform=Platform.MI300X)
    return prepare.join_cluster(settings, platform.choose_platform("mi300x"))


@pytest.mark.ray
def test_each_node_has_what_its_own_environment_leaves(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # What the driver's shell says is no node's business.
    monkeypatch.setenv("ROCR_VISIBLE_DEVICES", "7")
    with closing(join(address)) as cluster:
        found = {node.restriction: [device.index for device in node.devices] for node in cluster.nodes}
    assert found == {
        "only devices 0-3 of the node's 8 (HIP_VISIBLE_DEVICES=0,1,2,3)": [0, 1, 2, 3],
        "only devices 4-7 of the node's 8 (HIP_VISIBLE_DEVICES=4,5,6,7)": [4, 5, 6, 7],
    }


@pytest.mark.ray
def test_devices_that_node_may_not_use_are_refused_with_its_name(address: str) -> None:
    with pytest.raises(
        PlacementError,
        match=r"node \S+ cannot be read: platform\.device_ids: names devices 2-3, and HIP_VISIBLE_DEVICES=4",
    ):
        join(address, "platform.device_ids=2-3")
