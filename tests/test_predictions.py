"""The page of predictions beside public measurements: what it is made of, and its arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmarks import predictions
from sweeper.calibrate import public
from sweeper.calibrate.figures import predict
from sweeper.knobs.aiter import MASTER
from sweeper.simulation import calibration, intervals
from sweeper.simulation.device import DEVICES

PAGE = Path(__file__).resolve().parents[1] / "docs" / "predictions.md"
SOURCES = public.sources()


def source(**changes: Any) -> dict[str, Any]:
    run = {
        "name": "ten at once",
        "knobs": {},
        "load": {"dataset": "random", "num_prompts": 10, "input_len": 100, "output_len": 5},
        "metric": "output_throughput_tok_per_s",
        "published": 1.0,
    }
    return {
        "name": "a_test",
        "title": "A test",
        "address": "nowhere",
        "model": "llama_3_1_8b_instruct",
        "device": "mi300x",
        "release": "0.6.2",
        "told": "nothing",
        "assumed": "",
        "knobs": {"tensor_parallel_size": 1, "max_model_len": 4096},
        "runs": [{**run, **changes}],
    }


def test_error_is_predicted_over_published_less_one() -> None:
    (pair,) = predictions.pairs(source())
    # One token a second is published.
    assert pair.predicted is not None
    assert pair.predicted > 100
    assert pair.error == pytest.approx(pair.predicted - 1)


def test_too_long_latency_and_too_little_throughput_are_both_too_slow() -> None:
    latency, throughput = (
        predictions.Pair(run="", metric=metric, published=10, predicted=predicted)
        for metric, predicted in (("mean_ttft_ms", 20), ("request_throughput_per_s", 5))
    )
    assert latency.speed == throughput.speed == 0.5


def test_source_whose_client_stops_counting_is_shown_so() -> None:
    (own,) = (each for each in SOURCES if each.get("counted_s"))
    assert own["name"] == "amd_spx_nemo"
    last = {**own, "runs": own["runs"][-2:]}
    shown = [pair.predicted for pair in predictions.pairs(last)]
    assert shown == predict(public.source_figures(last), {})
    assert shown != [pair.predicted for pair in predictions.pairs({**last, "counted_s": None})]


def test_source_that_a_stack_was_fitted_to_with_others_is_shown_as_predicted_without_its_model() -> None:
    (own,) = (each for each in SOURCES if each["name"] == "inferencex_llama_70b_mi355x")
    figures = public.source_figures(own)
    shown = [pair.predicted for pair in predictions.pairs(own)]
    fitted = predict(figures, calibration.load("mi355x_0_14").values)
    assert shown == [each.predicted for each in intervals.known() if each.source == own["name"]]
    assert shown != pytest.approx(fitted, rel=1e-3)


def test_source_with_aiter_on_is_run_with_it() -> None:
    (own,) = (each for each in SOURCES if each["name"] == "recipes_ministral_14b")
    shown = [pair.predicted for pair in predictions.pairs(own)]
    (asked,) = {figure.spec.assignment[MASTER] for figure in public.source_figures(own)}
    assert asked == 1
    assert shown == pytest.approx(
        [each.predicted for each in intervals.known() if each.source == own["name"]], rel=1e-4
    )


def test_what_model_refuses_has_no_error_and_says_why() -> None:
    (pair,) = predictions.pairs(source(knobs={"tensor_parallel_size": 3}))
    assert pair.error is None
    assert "expected a divisor of the model's 32 attention heads" in pair.refusal


def test_every_public_number_has_address_and_names_what_is_known() -> None:
    for each in SOURCES:
        assert each["address"]
        assert each["told"]
        assert each["device"] in DEVICES
        for run in each["runs"]:
            assert run["published"] > 0


def test_page_shows_every_source_with_its_address_and_what_was_assumed() -> None:
    shown = PAGE.read_text(encoding="utf-8")
    for each in SOURCES:
        # Tables that a calibration is fitted to stand by their image.
        assert (f"{each['release']} of {each['date']}" if each.get("stack") else each["title"]) in shown
        assert each["address"] in shown
        assert each["assumed"] in shown


def test_rows_beside_page_hold_every_public_number_with_its_error() -> None:
    kept = pd.read_csv(PAGE.with_suffix(".csv"))
    told = [
        (each["title"], run["name"], run["metric"], run["published"])
        for each in SOURCES
        for run in each["runs"]
    ]
    assert list(kept[["source", "run", "metric", "published"]].itertuples(index=False, name=None)) == told
    predicted = kept[kept["refusal"].isna()]
    assert predicted["error"].to_numpy() == pytest.approx(
        (predicted["predicted"] / predicted["published"] - 1).to_numpy(), abs=1e-4
    )


def test_page_counts_numbers_that_are_far_off() -> None:
    pairs = [
        predictions.Pair(run="one", metric="mean_ttft_ms", published=10, predicted=predicted)
        for predicted in (11.0, 14.0, 5.0)
    ]
    told = "\n".join(predictions.page([({**source(), "title": "Somebody"}, pairs)]))
    # 14 is 40 % above, 5 is 50 % below.
    assert "Of the 3 numbers below that no fit had seen, 2 are off by more than 30 %." in told
    assert "| Somebody: nowhere | " in told
