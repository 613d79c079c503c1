"""A Ray of our own that does not come up.

Not beside the tests of executors: a process has one Ray, and giving one up would end theirs in whatever order
they run.
"""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

from sweeper.errors import PlacementError
from sweeper.executors.private_ray import PrivateRay
from sweeper.executors.ray_import import import_ray
from sweeper.processes import process as processes


@pytest.mark.ray
# Ray forgets the processes of a node that did not come up; Python complains when it drops them.
@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_ray_that_comes_up_half_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import_ray(is_private=True)
    from ray._private.node import Node

    before = processes.descendants(os.getpid())
    begun: list[processes.Process] = []

    def too_slow(node: object, *_: object, **__: object) -> None:
        begun.extend(set(processes.descendants(os.getpid())) - set(before))
        raise Exception("The current node timed out during startup.")

    # Its gcs_server is up when its raylet is to be started.
    monkeypatch.setattr(Node, "start_raylet", too_slow)
    with pytest.raises(PlacementError, match="did not start in 3 attempts: The current node timed out"):
        PrivateRay(devices=8, log_path=tmp_path / "ray.log")
    assert len(begun) >= 3
    assert not any(map(processes.is_alive, begun))
    gc.collect()
