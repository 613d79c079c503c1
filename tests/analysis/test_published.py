"""Published figures are read with their method, and never put beside another model's numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeper import published
from sweeper.errors import StoreError


def test_article_printed_11_24_requests_per_second_for_ten_steps_at_1000_qps() -> None:
    frame = published.load("case2_sched_steps")

    ten = frame[(frame["series"] == "no_cp_steps10") & (frame["request_rate_per_s"] == 1000)]
    values = ten.set_index("metric")["value"]
    assert values["request_throughput_per_s"] == 11.24
    assert len(values) == 3


@pytest.mark.parametrize(("experiment", "series"), [("case1_chunked_prefill", 4), ("case2_sched_steps", 5)])
def test_each_case_has_three_metrics_at_three_rates_for_every_series(experiment: str, series: int) -> None:
    frame = published.load(experiment)

    assert len(frame) == series * 3 * 3
    assert frame["series"].nunique() == series
    # A printed number is exact; one read off a chart lies within the range of its reading.
    read_off = frame[frame["method"] == "pixel reading"]
    assert read_off["value"].between(read_off["low"], read_off["high"]).all()
    assert frame[frame["method"] == "printed label"][["low", "high"]].isna().all(axis=None)


@pytest.mark.parametrize("experiment", [None, "never_heard_of"])
def test_nothing_is_published_for_unknown_experiment(experiment: str | None) -> None:
    frame = published.load(experiment)

    assert frame.empty
    assert list(frame.columns) == list(published.COLUMNS)


def test_experiments_stand_beside_package() -> None:
    assert (published.experiments_folder() / "case2_sched_steps" / "published.csv").is_file()


def test_file_without_its_method_is_refused(experiments: Path) -> None:
    path = experiments / "steps" / "published.csv"
    path.write_text(path.read_text(encoding="utf-8").replace("method", "means"), encoding="utf-8")

    with pytest.raises(StoreError, match=r"published\.csv: lacks \['method'\]"):
        published.load("steps", root=experiments)


def test_two_values_for_one_configuration_are_refused(experiments: Path) -> None:
    path = experiments / "steps" / "published.csv"
    head, row = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([head, row, row]), encoding="utf-8")

    with pytest.raises(StoreError, match="series 'base' at 16 QPS twice"):
        published.load("steps", root=experiments)


def test_model_is_same_under_every_host() -> None:
    assert published.is_same_model("meta-llama/Llama-3.1-70B-Instruct", "Meta-Llama-3.1-70B-Instruct")
    assert not published.is_same_model("meta-llama/Llama-3.1-70B-Instruct", "Llama-3.1-8B-Instruct")
    assert not published.is_same_model(None, None)
