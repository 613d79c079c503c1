"""Which environments an engine may start in."""

from __future__ import annotations

import pytest

from sweeper.processes import masks

EXPECTED = {"SWEEPER_DEVICE_MASK": "HIP_VISIBLE_DEVICES=2,3"}


def test_expected_mask_alone_is_accepted() -> None:
    assert masks.expected({"HIP_VISIBLE_DEVICES": "2,3"}) == EXPECTED
    assert masks.refusal({**EXPECTED, "HIP_VISIBLE_DEVICES": "2,3", "PATH": "/bin"}) is None


def test_engine_without_mask_expects_none() -> None:
    assert masks.expected({}) == {}
    assert masks.refusal({"CUDA_VISIBLE_DEVICES": "0"}) is None


@pytest.mark.parametrize(
    "name",
    ["ROCR_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL"],
)
def test_second_mask_is_refused_though_it_says_same(name: str) -> None:
    told = masks.refusal({**EXPECTED, "HIP_VISIBLE_DEVICES": "2,3", name: "2,3"})
    assert told is not None
    assert f"{name}=2,3" in told
    assert "expected exactly HIP_VISIBLE_DEVICES=2,3" in told


def test_rays_switches_about_masks_are_no_masks() -> None:
    switch = {"RAY_EXPERIMENTAL_NOSET_HIP_VISIBLE_DEVICES": "1"}
    assert masks.refusal({**EXPECTED, "HIP_VISIBLE_DEVICES": "2,3", **switch}) is None


def test_mask_of_cores_is_compared_too_and_its_text_may_hold_equals_signs() -> None:
    cores = masks.expected({"VLLM_CPU_OMP_THREADS_BIND": "0,1|2,3"})
    assert masks.refusal({**cores, "VLLM_CPU_OMP_THREADS_BIND": "0,1|2,3"}) is None
    assert "got VLLM_CPU_OMP_THREADS_BIND=0-3" in str(
        masks.refusal({**cores, "VLLM_CPU_OMP_THREADS_BIND": "0-3"})
    )
    assert masks.refusal({"SWEEPER_DEVICE_MASK": "A=b=c", "A": "b=c"}) is None
