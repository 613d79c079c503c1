"""A series that the model cannot tell from another has no bar, and the reason stands in its place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.plan.planner import Planner
from sweeper.records import FailureClass, Model, Platform
from sweeper.space.space import Series, Space
from tests.stand_ins import planner_of_three_series

SPACE = Space(
    base={"tensor_parallel_size": 4, "max_model_len": 8192},
    series=(
        Series(name="default", label="default", knobs={}),
        Series(name="aiter", label="AITER", knobs={"VLLM_ROCM_USE_AITER": 1}),
        Series(name="same", label="the default again", knobs={}),
        Series(name="fp8", label="FP8", knobs={"VLLM_ROCM_USE_AITER": 1, "kv_cache_dtype": "fp8"}),
    ),
)


@pytest.fixture
def planner(tmp_path: Path, llama_70b: Model) -> Planner:
    found = planner_of_three_series(tmp_path, llama_70b)
    return replace(found, space=SPACE, engine=replace(found.engine, release="0.32.0"))


def test_series_that_differs_in_what_is_not_modelled_is_refused(planner: Planner) -> None:
    jobs = {name: job for job in planner.grid() for name in job.spec.series}
    refusal = jobs["aiter"].refusal
    assert refusal is not None
    assert refusal.failure is FailureClass.NOT_MODELLED
    assert refusal.message == (
        "VLLM_ROCM_USE_AITER: no effect in the model, so it would repeat series default. Measure it."
    )
    # One that is meant to be the same shares its trial, and one with a modelled knob besides has a number.
    assert [jobs[name].refusal for name in ("default", "same", "fp8")] == [None, None, None]


def test_what_is_measured_is_measured(planner: Planner) -> None:
    measured = replace(planner, platform=Platform.MI300X, engine=replace(planner.engine, kind="vllm"))
    assert all(job.refusal is None for job in measured.grid())
