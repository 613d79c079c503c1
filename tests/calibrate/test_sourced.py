"""Stacks that one public source tells, and dstack's sources."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from sweeper.calibrate import public, sourced
from sweeper.calibrate.figures import FIT, VALIDATION, predict, relative_errors
from sweeper.calibrate.judging import errors_as
from sweeper.simulation import calibration, stacks
from sweeper.simulation.calibration import Calibration


@pytest.fixture(scope="module", params=[each.name for each in sourced.STACKS])
def each(request: pytest.FixtureRequest) -> sourced.Sourced:
    return next(each for each in sourced.STACKS if each.name == request.param)


def test_file_says_where_each_parameter_comes_from(each: sourced.Sourced) -> None:
    named = calibration.load(each.name)
    assert set(named.fitted) == set(each.starts)
    assert set(named.fitted) | set(named.taken) == set(Calibration.__dataclass_fields__)
    assert not set(named.fitted) & set(named.taken)


def test_errors_in_file_are_those_of_its_sources(each: sourced.Sourced) -> None:
    named = calibration.load(each.name)
    for role, name in ((FIT, each.fitted_to), (VALIDATION, each.judged_by)):
        figures = public.figures_of(name)
        told = predict(figures, asdict(named.calibration))
        assert errors_as(role, figures, told, all_count=True) == pytest.approx(
            named.errors_pct[role], abs=0.05
        )


def test_unseen_source_is_predicted_far_better_than_by_parent(each: sourced.Sourced) -> None:
    figures = [f for f in public.figures_of(each.judged_by) if f.metric == "request_throughput_per_s"]
    own, parents = (
        np.abs(relative_errors(figures, predict(figures, asdict(calibration.load(name).calibration)))).mean()
        for name in (each.name, each.parent)
    )
    assert own < parents / 3


def test_runs_of_source_get_its_stack(each: sourced.Sourced) -> None:
    for name in (each.fitted_to, each.judged_by):
        asked = stacks.asked_of(public.figures_of(name)[0].spec)
        assert stacks.nearest(asked).name == each.name


def test_metas_fp8_on_nvidia_is_as_any_fp8() -> None:
    asked = stacks.asked_of(public.figures_of("dstack_405b_h100")[0].spec)
    assert asked.weights == "fp8"
    assert stacks.nearest(asked).name == "amd_0_6_6"


def test_two_engines_hold_their_devices_and_share_requests() -> None:
    figure = public.figures_of("dstack_405b_amd_2x4_online")[0]
    assert figure.placement.devices == tuple(range(8))
    assert figure.point.option("mean_output_len") == 180


def test_lengths_that_were_served_are_read_from_file_beside_the_sources() -> None:
    source = next(each for each in public.sources() if each["name"] == "dstack_405b_meta_8_online")
    point = public.load_of(source["runs"][0])
    assert point.dataset_path is not None
    assert point.dataset_path.startswith(str(public.DATA))
