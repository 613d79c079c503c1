"""The simulated platform as another GPU than the MI300X: from the key in the configuration to the row."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sweeper import config
from sweeper.cli import main
from sweeper.engines.simulated import SimulatedEngine
from sweeper.errors import ConfigError
from sweeper.records import LoadPoint, Placement, Platform, TrialSpec
from sweeper.simulation.settings import is_v1, resolve
from sweeper.store.store import Store
from sweeper.workload.requests import make_workload

HOPPER = Placement(node="here", devices=tuple(range(8)), parents=tuple(range(8)))
SHAREGPT = make_workload(LoadPoint(dataset="sharegpt", num_prompts=60), seed=0)


def duration_s(spec: TrialSpec, device: str) -> float:
    spec = replace(spec, modelled_device=device, assignment={"tensor_parallel_size": 4})
    server = SimulatedEngine().start(spec, HOPPER, restart=0, cancelled=lambda: False)
    return float(server.serve(SHAREGPT).records.last_token_s.max())


def test_more_memory_bandwidth_alone_makes_decoding_faster(simulated_spec: TrialSpec) -> None:
    # Compute and links are the same: 3.35 against 4.8 TB/s.
    assert 1 < duration_s(simulated_spec, "h100") / duration_s(simulated_spec, "h200") < 4.8 / 3.35


def test_device_has_defaults_of_its_own_platform(simulated_spec: TrialSpec) -> None:
    engine = replace(simulated_spec.engine, release="0.8.5")
    both = [replace(simulated_spec, engine=engine, modelled_device=name) for name in ("mi300x", "h100")]
    # vLLM took V1 as its default on CUDA in 0.8.0 and on ROCm in 0.9.2.
    assert [is_v1(each) for each in both] == [False, True]
    assert [resolve(each)["enable_prefix_caching"] for each in both] == [False, True]


def test_trials_of_two_devices_are_two_trials_and_old_keys_hold(simulated_spec: TrialSpec) -> None:
    unsaid, usual, other = (
        replace(simulated_spec, modelled_device=name) for name in (None, "mi300x", "h200")
    )
    assert unsaid.key == usual.key != other.key


def test_real_node_is_not_told_what_its_devices_are() -> None:
    composed = config.compose_run(["platform=cpu", "platform.device=h200"])
    with pytest.raises(
        ConfigError, match=r"platform.device: is 'h200', and the platform is cpu; expected none"
    ):
        config.settings(composed, platform=Platform.CPU)


def test_unknown_device_is_refused_with_known_ones() -> None:
    composed = config.compose_run(["platform=simulated", "platform.device=h1000"])
    with pytest.raises(ConfigError, match=r"'h1000' is not allowed; expected one of mi300x, mi325x"):
        config.settings(composed, platform=Platform.SIMULATED)


def test_rows_name_device_and_say_that_its_error_is_not_known(tmp_path: Path) -> None:
    arguments = [
        *("+experiment=quick_start", "platform=simulated", "platform.device=h200", "executor=inline"),
        *(f"study.outputs={tmp_path}", "study.name=there", "workload.num_prompts=20"),
    ]
    assert main(arguments) == 0
    rows = Store(tmp_path / "there").read()
    assert set(rows["modelled_device"]) == {"h200"}
    assert set(rows["expected_error"]) == {"unknown: never compared with device h200"}
    assert rows["partition_mode"].isna().all()
