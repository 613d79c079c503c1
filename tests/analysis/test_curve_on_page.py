"""The curve on the page of a study, which draws it itself: its data, and what a browser makes of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis import curve
from analysis.browser import document
from analysis.browser.contents import contents
from analysis.curve import OVERALL, STREAMING
from analysis.study import Study
from sweeper.records import LoadPoint, TrialResult
from tests.analysis.test_browser import CHROMIUM, dom_of
from tests.analysis.test_curve import BOUND, OPEN, closed, make_study, runs_of  # noqa: F401

MakeStudy = Callable[..., Study]
MakeTrial = Callable[..., TrialResult]
MakeFolder = Callable[..., Path]


def test_page_has_points_with_both_speeds_and_names_what_the_report_names(make_study: MakeStudy) -> None:  # noqa: F811
    study = make_study(constraints=[BOUND])
    told = contents(study)
    (found,) = told["curves"]

    places = {setting["series"]: place for place, setting in enumerate(told["settings"])}
    by_name = {(point["s"], point["users"]): point for point in found["points"]}
    assert len(by_name) == 6
    most = by_name[(places["open"], 16)]
    assert most["out"]["v"] == [160.0, None, None, 1]
    assert [speed["v"][0] for speed in most["speeds"]] == [50.0, 40.0]
    assert most["breaks"] == "mean_tpot_ms <= 15 (is 20.00, 33 % over)"
    assert [key for key, point in by_name.items() if point["named"]] == [(places["gate"], 4)]
    assert "The most per GPU within mean_tpot_ms <= 15 gives gate at 4 users: 70.00" in found["sentence"]
    # 15 ms a token are 66.7 a second; no bound is on what a GPU gives, nor on the whole request.
    assert [panel["least"] for panel in found["panels"]] == [pytest.approx(1000 / 15), None]
    assert found["least"] is None


def test_speed_that_is_not_known_is_none(trial: MakeTrial, study_folder: MakeFolder) -> None:
    # One token has no time after it.
    numbers = {users: (tokens, 0.0) for users, (tokens, _) in OPEN.items()}
    (found,) = contents(Study.load(study_folder(trial(points=closed(1, 4, 16), runs_at=runs_of(numbers)))))[
        "curves"
    ]

    assert [point["speeds"][0] for point in found["points"]] == [None] * 3
    assert [point["speeds"][1]["v"][0] for point in found["points"]] == [80.0, 60.0, 40.0]


def test_study_of_two_numbers_of_users_or_of_rates_has_none(make_study: MakeStudy) -> None:  # noqa: F811
    assert contents(make_study(points=closed(1, 4)))["curves"] == []
    rated = tuple(
        LoadPoint(
            dataset="random",
            num_prompts=10,
            input_len=64,
            output_len=32,
            request_rate_per_s=rate,
            max_concurrency=users,
        )
        for rate, users in ((1.0, 1), (2.0, 4), (4.0, 16))
    )
    assert contents(make_study(points=rated, name="rates"))["curves"] == []


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
def test_browser_draws_the_frontiers_of_the_report(
    make_study: MakeStudy,  # noqa: F811
    tmp_path: Path,
) -> None:
    study = make_study(constraints=[BOUND])
    drawn, complaints = dom_of(document.write(study), tmp_path / "profile")

    assert not complaints
    figure = next(
        found
        for found in re.findall(r"<figure.*?</figure>", drawn, re.DOTALL)
        if "<h3>Tokens per second: per GPU against per user</h3>" in found
    )
    panels = re.findall(r"<svg viewBox=\"0 0 \d+.*?</svg>", figure.split("<figcaption")[0], re.DOTALL)
    assert ["While the answer streams" in panel for panel in panels] == [True, False]
    assert all("SIMULATED - no GPU was measured" in panel for panel in panels)
    (known,) = curve.curves([study])
    for panel, speed in zip(panels, (STREAMING, OVERALL), strict=True):
        (edge,) = re.findall(r'<path d="([^"]*)"[^>]*stroke-width="11"', panel)
        assert len(re.findall("[ML]", edge)) == len(known.frontier(speed))
        texts = re.findall(r"<text[^>]*>([^<]*)</text>", panel)
        assert {"1", "4", "16"} <= set(texts)
    # Shaded is what the bound rules out, on the panel of its axis alone.
    assert ['fill-opacity="0.09"' in panel for panel in panels] == [True, False]
    # One point breaks the bound, on both panels; one is named.
    assert [len(re.findall(r'fill="#fff"[^>]*class="mark"', panel)) for panel in panels] == [1, 1]
    assert [len(re.findall(r'r="9"', panel)) for panel in panels] == [1, 1]
    assert "Hollow: breaks a bound. Ring: the most within the bounds." in figure
