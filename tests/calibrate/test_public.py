"""Which public measurements are fitted, which judge, and the calibration that came of them."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from sweeper.calibrate import public
from sweeper.calibrate.figures import FIT, VALIDATION, predict, relative_errors
from sweeper.calibrate.judging import errors_pct
from sweeper.simulation import calibration
from sweeper.simulation.calibration import Calibration


def test_one_model_is_fitted_and_other_judges() -> None:
    figures = public.table_figures()
    models = {role: {f.spec.model.name for f in figures if f.role == role} for role in (FIT, VALIDATION)}
    assert all(len(names) == 1 for names in models.values())
    assert models[FIT].isdisjoint(models[VALIDATION])
    assert {f.spec.engine.release for f in figures} == {"0.10.0"}


def test_only_what_was_fitted_differs_from_article() -> None:
    v1, article = asdict(calibration.load(generation="v1").calibration), asdict(Calibration())
    assert {name for name in article if v1[name] != article[name]} == set(public.PARAMETERS)


def test_errors_that_row_names_are_those_of_its_file() -> None:
    named = calibration.load(generation="v1")
    figures = public.table_figures()
    found = errors_pct(figures, predict(figures, named.values))
    for role, errors in named.errors_pct.items():
        assert found[role] == pytest.approx(errors, abs=0.02)


def test_it_predicts_model_that_it_was_not_fitted_to_better_than_articles_does() -> None:
    figures = [figure for figure in public.table_figures() if figure.role == VALIDATION]
    own, articles = (
        sum(map(abs, relative_errors(figures, predict(figures, values))))
        for values in (calibration.load(generation="v1").values, asdict(Calibration()))
    )
    assert own < articles / 3


def test_model_of_source_is_found_and_its_block_is_as_large_as_it_asks() -> None:
    (source,) = (each for each in public.sources() if each["name"] == public.FITTED)
    figure = public.source_figures(source)[0]
    assert figure.placement.devices == tuple(range(8))
    assert figure.spec.model.shape.layers == 80
    assert figure.role == VALIDATION


def test_latencies_and_throughputs_are_of_one_image_and_it_had_aiters_kernels_off() -> None:
    # AMD's page for the image of 2025-08-12; the one of 2025-07-15 (vLLM 0.9.1) says 17.236 and 48.453 s.
    of_one = {"amd_70b_fp8": (17188, 46195, 13383.3), "amd_405b_fp8": (48824, 118212, 3867.7)}
    for source in public.sources():
        if source["name"] in of_one:
            runs = {run["name"]: run["published"] for run in source["runs"]}
            first, last, throughput = of_one[source["name"]]
            assert runs["latency, batch 1, 128/2048 tokens"] == first
            assert runs["latency, batch 128, 128/2048 tokens"] == last
            assert runs[next(name for name in runs if name.startswith("throughput, 128/2048"))] == throughput
            assert "image of 2025-08-12" in source["told"]
            assert "AITER's kernels off" in source["told"]
    assert "without AITER's kernels" in calibration.load(generation="v1").about
