"""Stacks that several public sources tell together."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from sweeper.calibrate import pooled, public
from sweeper.calibrate.figures import FIT, VALIDATION, predict
from sweeper.calibrate.judging import errors_as
from sweeper.simulation import calibration, intervals, stacks
from sweeper.simulation.calibration import Calibration, bare_name


@pytest.fixture(scope="module", params=[each.name for each in pooled.STACKS])
def each(request: pytest.FixtureRequest) -> pooled.Pooled:
    return next(each for each in pooled.STACKS if each.name == request.param)


def test_file_says_of_which_stack_it_is_and_where_each_parameter_comes_from(each: pooled.Pooled) -> None:
    named = calibration.load(each.name)
    assert named.stack is not None
    assert (named.stack.device, named.stack.aiter, named.stack.parent) == (
        each.device,
        each.aiter,
        each.parent,
    )
    assert set(named.fitted) == set(each.parameters)
    assert set(named.fitted) | set(named.taken) == set(Calibration.__dataclass_fields__)
    parents = calibration.load(each.parent).values
    moved = {name for name, value in named.values.items() if value != parents[name]}
    assert moved == set(each.parameters)
    for source in each.sources:
        assert all(source in sources for sources in named.fitted.values())


def test_errors_in_file_are_those_of_its_sources(each: pooled.Pooled) -> None:
    named = calibration.load(each.name)
    figures = [figure for own in pooled.by_model(each).values() for figure in own]
    told = predict(figures, asdict(named.calibration))
    assert errors_as(FIT, figures, told, all_count=True) == pytest.approx(named.errors_pct[FIT], abs=0.05)


def test_errors_of_unseen_numbers_are_those_without_their_model(each: pooled.Pooled) -> None:
    # The same fits went into the file and into the list that intervals are made of.
    by_name = {name: public.figures_of(name) for name in each.sources}
    figures = [figure for name in each.sources for figure in by_name[name]]
    told = [one for name in each.sources for one in intervals.known() if one.source == name]
    assert [one.metric for one in told] == [figure.metric for figure in figures]
    found = errors_as(VALIDATION, figures, [one.predicted for one in told], all_count=True)
    assert found == pytest.approx(calibration.load(each.name).errors_pct[VALIDATION], abs=0.05)


def test_models_are_told_apart_and_sources_of_one_are_left_out_together(each: pooled.Pooled) -> None:
    by_model = pooled.by_model(each)
    assert sum(map(len, by_model.values())) == sum(len(public.figures_of(name)) for name in each.sources)
    for model, figures in by_model.items():
        assert {bare_name(figure.spec.model.name) for figure in figures} == {model}


def test_source_that_stack_was_fitted_to_is_predicted_without_its_model() -> None:
    # Fits a stack without one model.
    source = "vllm_blog_minimax_m2_5_mi355x"
    found = pooled.without_model_of(source)
    assert found.name == "mi355x_0_14"
    assert found.values != calibration.load(found.name).values
    told = predict(public.figures_of(source), found.values)
    stored = [each.predicted for each in intervals.known() if each.source == source]
    assert told == pytest.approx(stored, rel=1e-4)


def test_runs_of_sources_get_their_stack(each: pooled.Pooled) -> None:
    for name in each.sources:
        asked = stacks.asked_of(public.figures_of(name)[0].spec)
        assert stacks.nearest(asked).name == each.name
