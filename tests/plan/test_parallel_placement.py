"""From parallel sizes to devices: a trial holds, and each of its engines is shown, those it computes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.engines import instances
from sweeper.engines.environment import device_mask
from sweeper.engines.instances import InstancesEngine
from sweeper.engines.simulated import SimulatedEngine
from sweeper.plan.planner import Job, Planner
from sweeper.records import Model, Placement, Platform, Scalar, TrialSpec
from sweeper.schedule.allocator import Allocator
from sweeper.space.space import Point
from sweeper.topology import modelled_mi300x
from tests.stand_ins import planner_of_three_series
from tests.standin_server import never


@pytest.fixture
def planner(tmp_path: Path, llama_70b: Model) -> Planner:
    """Eight MI300X with vLLM 0.32.0; FP8 weights, so that each of two devices holds half of a 70B."""
    found = planner_of_three_series(tmp_path, llama_70b)
    return replace(found, engine=replace(found.engine, release="0.32.0"))


def planned(planner: Planner, sizes: Mapping[str, Scalar]) -> Job:
    base: dict[str, Scalar] = {"max_model_len": 8192, "quantization": "fp8"}
    return planner.job(Point(choices={}, assignment={**base, **sizes}, series=None))


@pytest.mark.parametrize(
    ("sizes", "devices"),
    [
        ({"tensor_parallel_size": 2, "data_parallel_size": 2}, 4),
        ({"tensor_parallel_size": 2, "pipeline_parallel_size": 2}, 4),
        ({"tensor_parallel_size": 2, "pipeline_parallel_size": 2, "data_parallel_size": 2}, 8),
        # Where experts lie, how many front ends there are, that all replicas are here: these add none.
        ({"tensor_parallel_size": 2, "data_parallel_size": 2, "enable_expert_parallel": True}, 4),
        ({"tensor_parallel_size": 2, "data_parallel_size": 2, "api_server_count": 2}, 4),
        ({"tensor_parallel_size": 2, "data_parallel_size": 2, "data_parallel_size_local": 2}, 4),
        ({"tensor_parallel_size": 2, "instances": 3}, 6),
    ],
)
def test_trial_takes_as_many_devices_as_its_ranks(
    planner: Planner, sizes: Mapping[str, Scalar], devices: int
) -> None:
    job = planned(planner, sizes)
    assert (job.refusal, job.spec.devices_wanted) == (None, devices)
    block = Allocator(planner.node).acquire(job.spec.devices_wanted)
    assert block is not None
    assert device_mask(Platform.MI300X, block.devices) == {
        "HIP_VISIBLE_DEVICES": ",".join(map(str, range(devices)))
    }


def test_two_engines_of_two_replicas_lie_side_by_side_on_eight_devices(planner: Planner) -> None:
    split = replace(planner, engine=replace(planner.engine, instances_by="split"))
    sizes = {"tensor_parallel_size": 2, "data_parallel_size": 2, "instances": 2}
    job = planned(split, sizes)
    assert job.spec.devices_wanted == 8
    block = Allocator(planner.node).acquire(8)
    assert block is not None
    shares = [instances.part_of(job.spec, block, index=index) for index in range(2)]
    assert [share.devices for _, share in shares] == [(0, 1, 2, 3), (4, 5, 6, 7)]
    # Each is one `vllm serve` with its replicas.
    assert all(part.assignment["data_parallel_size"] == 2 for part, _ in shares)
    assert all(part.devices_wanted == 4 for part, _ in shares)


def test_two_trials_of_four_devices_run_next_to_one_another(planner: Planner) -> None:
    allocator = Allocator(planner.node)
    wanted = planned(planner, {"tensor_parallel_size": 2, "data_parallel_size": 2}).spec.devices_wanted
    blocks = [allocator.acquire(wanted) for _ in range(3)]
    assert [block and block.devices for block in blocks] == [(0, 1, 2, 3), (4, 5, 6, 7), None]


def test_replicas_on_partitions_stay_on_as_few_gpus_as_hold_them(planner: Planner) -> None:
    node = modelled_mi300x("CPX", "NPS4")
    eight_b = planner.model.shape
    assert eight_b is not None
    small = replace(
        planner.model, shape=replace(eight_b, layers=32, hidden=4096, intermediate=14336, heads=32)
    )
    on_partitions = replace(planner, node=node, model=small)
    job = planned(on_partitions, {"tensor_parallel_size": 2, "data_parallel_size": 8})
    assert (job.refusal, job.spec.devices_wanted) == (None, 16)
    block = Allocator(node).acquire(16)
    assert block is not None
    assert (block.parents, block.devices) == ((0, 1), tuple(range(16)))


def test_modelled_engines_side_by_side_have_all_their_replicas(simulated_spec: TrialSpec) -> None:
    sizes = {"tensor_parallel_size": 2, "data_parallel_size": 2, "instances": 2, "max_model_len": 8192}
    engine = replace(simulated_spec.engine, release="0.9.0", instances_by="split")
    spec = replace(simulated_spec, assignment=sizes, devices_wanted=8, engine=engine)
    eight = Placement(node="n", devices=tuple(range(8)), parents=tuple(range(8)))
    server = InstancesEngine(SimulatedEngine()).start(spec, eight, restart=0, cancelled=never)
    assert server.effective["data_parallel_size"] == 4
