"""A setting's greedy answer against the baseline's: same, different, unexplained, broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from analysis import answers, bests, report, tables
from analysis.study import Study
from sweeper.records import Objective, Provenance, Scalar, TrialResult
from sweeper.store.store import Store

MakeTrial = Callable[..., TrialResult]
PARIS = " Paris, which is the"
FASTEST = Objective(metric="request_throughput_per_s", direction="maximize")


@pytest.fixture
def frame_of(trial: MakeTrial, tmp_path: Path) -> Callable[..., pd.DataFrame]:
    """Rows of settings that were asked; each is (series, knobs, answer, requests per second)."""

    def make(*settings: tuple[str, dict[str, Scalar], str | None, float]) -> pd.DataFrame:
        store = Store(tmp_path / "study")
        for series, knobs, text, speed in settings:
            runs = [[{"request_throughput_per_s": speed}]]
            result = trial(series=(series,), knobs=knobs, runs=runs, provenance=Provenance.MEASURED)
            store.append(replace(result, sanity_text=text), queued_s=0.0, knobs=())
        return store.read()

    return make


def verdict_of(frame: pd.DataFrame) -> dict[str, tuple[str, str]]:
    judged = answers.verdicts(tables.settings(frame))
    return {row["setting"]: (row["sanity_verdict"], row["why"]) for row in judged.to_dict("records")}


def test_answers_are_held_against_those_of_default_series(frame_of: Callable[..., pd.DataFrame]) -> None:
    frame = frame_of(
        ("batch", {"max_num_seqs": 64}, PARIS, 2.0),
        ("default", {}, PARIS, 1.0),
        ("eight bits", {"kv_cache_dtype": "fp8"}, " a city in France", 3.0),
        ("garbage", {"kv_cache_dtype": "fp8_e5m2"}, "!!!!!!!!", 9.0),
        ("odd", {"max_num_seqs": 128}, " Lyon", 2.0),
    )
    found = verdict_of(frame)
    assert {setting: verdict for setting, (verdict, _) in found.items()} == {
        "batch": "same",
        "default": "baseline",
        "eight bits": "different",
        "garbage": "broken",
        "odd": "unexplained",
    }
    assert found["eight bits"][1] == "kv_cache_dtype: numbers are kept with fewer bits in the KV cache"


def test_setting_with_broken_answers_is_never_best(frame_of: Callable[..., pd.DataFrame]) -> None:
    frame = frame_of(
        ("default", {}, PARIS, 1.0),
        ("fast", {"kv_cache_dtype": "fp8"}, "!!!!!!!!", 9.0),
        ("faster", {"max_num_seqs": 64}, PARIS, 2.0),
    )
    assert bests.best(frame, objectives=[FASTEST])["setting"].tolist() == ["faster"]


def test_where_baseline_has_no_text_either_nothing_is_called_broken(
    frame_of: Callable[..., pd.DataFrame],
) -> None:
    frame = frame_of(("default", {}, "!!!!!!!!", 1.0), ("other", {"max_num_seqs": 64}, "????????", 2.0))
    assert verdict_of(frame)["other"] == ("unexplained", "")


def test_first_setting_is_baseline_where_no_series_is_called_default(
    frame_of: Callable[..., pd.DataFrame],
) -> None:
    frame = frame_of(("a", {}, PARIS, 1.0), ("b", {"dtype": "float16"}, " Lyon", 2.0))
    assert verdict_of(frame) == {
        "a": ("baseline", ""),
        "b": ("different", "dtype: numbers are kept with fewer bits, or with more"),
    }


def test_rows_that_nobody_could_be_asked_for_have_no_verdict(frame_of: Callable[..., pd.DataFrame]) -> None:
    frame = frame_of(("a", {}, None, 1.0))
    assert verdict_of(frame) == {}
    assert answers.verdicts(tables.settings(frame).drop(columns="sanity_text")).empty


@pytest.mark.parametrize(
    "text", ["", "  ", "!!!!!!!!", " the the the the", "\ufffd\ufffd a", "a\x00b", "ababababab", " 0 0 0 0"]
)
def test_what_is_no_text_is_broken(text: str) -> None:
    assert answers.is_broken(text)


@pytest.mark.parametrize("text", [PARIS, " Paris. Paris is", " 巴黎", "42", " a a b a", "the Mississippi"])
def test_text_is_not_broken(text: str) -> None:
    assert not answers.is_broken(text)


def test_report_tells_each_verdict_and_what_it_means(
    frame_of: Callable[..., pd.DataFrame], tmp_path: Path
) -> None:
    frame_of(("default", {}, PARIS, 1.0), ("odd", {"max_num_seqs": 64}, " Lyon", 2.0))
    section = report.answers_section(Study.load(tmp_path / "study"))
    assert "| odd | unexplained | ' Lyon' |  |" in section
    assert "unexplained: another text, and no knob that differs is known to change one" in section
