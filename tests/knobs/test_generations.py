"""Which engine runs, V0 or V1."""

from __future__ import annotations

import pytest

from sweeper import knobs
from sweeper.records import Assignment, Platform
from sweeper.simulation.device import DEVICES


@pytest.mark.parametrize(
    ("release", "accelerator", "assignment", "expected"),
    [
        ("0.6.2", "rocm", {}, "v0"),
        ("0.6.3", "rocm", {"VLLM_USE_V1": 1}, "v0"),  # the variable came with 0.6.4
        ("0.6.4", "rocm", {"VLLM_USE_V1": 1}, "v1"),
        ("0.7.3", "cuda", {}, "v0"),
        ("0.8.0", "cuda", {}, "v1"),
        ("0.8.0", "cuda", {"scheduling_policy": "priority"}, "v0"),
        ("0.9.2", "cuda", {"scheduling_policy": "priority"}, "v1"),
        ("0.9.1", "rocm", {}, "v0"),
        ("0.9.2", "rocm", {}, "v1"),
        ("0.9.2", "rocm", {"num_scheduler_steps": 10}, "v0"),
        ("0.9.2", "rocm", {"num_scheduler_steps": 1}, "v1"),
        ("0.10.2", "rocm", {"preemption_mode": "swap"}, "v0"),
        ("0.10.2", "rocm", {"VLLM_USE_V1": False}, "v0"),
        ("0.11.0", "rocm", {"VLLM_USE_V1": False}, "v1"),
        ("0.32.0", "cpu", {}, "v1"),
    ],
)
def test_generation_follows_release_accelerator_and_knobs(
    release: str, accelerator: str, assignment: Assignment, expected: str
) -> None:
    found = knobs.engine_generation(release, accelerator=accelerator, assignment=assignment)  # type: ignore[arg-type]
    assert found == expected


def test_every_platform_and_every_device_that_is_modelled_has_accelerator() -> None:
    platforms = {platform: knobs.accelerator_of(platform) for platform in Platform}
    assert platforms == {"mi300x": "rocm", "cuda": "cuda", "cpu": "cpu", "simulated": "rocm"}
    devices = {name: knobs.accelerator_of("simulated", modelled_device=name) for name in DEVICES}
    assert devices == {name: "cuda" if name.startswith("h") else "rocm" for name in DEVICES}
