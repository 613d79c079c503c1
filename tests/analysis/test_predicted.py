"""How sure the model is: in charts in another style than a measured interval, in tables in brackets."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import best_section, blog, curve_chart, figures, predicted, report
from analysis.curve import curves
from analysis.page import Words
from analysis.study import Study
from sweeper.records import LoadPoint, Provenance, TrialResult
from sweeper.simulation.intervals import factor

MakeTrial = Callable[..., TrialResult]
MakeFolder = Callable[..., Path]

TTFT = next(metric for metric in figures.METRICS if metric.column == "mean_ttft_ms")


def of_stack(trial: TrialResult, distance: float | None) -> TrialResult:
    return replace(trial, spec=replace(trial.spec, stack_distance=distance))


@pytest.fixture
def simulate(trial: MakeTrial, study_folder: MakeFolder) -> Callable[..., Study]:
    """Make a study of settings with a mean TTFT of 100, 101, ... ms, from a stack so far from a known one."""

    def make(settings: int, *, distance: float | None = 0.0, name: str = "s", **given: object) -> Study:
        made = [
            of_stack(
                trial(series=(f"s{n}",), knobs={"n": n}, runs=[[{"mean_ttft_ms": 100.0 + n}]], **given),
                distance,
            )
            for n in range(settings)
        ]
        return Study.load(study_folder(*made, name=name))

    return make


def drawn(study: Study, *, axis: str | None = None) -> Figure:
    table = figures.chart_table(study, TTFT)
    caption = figures.marks_text(study, table, metric=TTFT, axis=axis)
    return figures.draw(table, metric=TTFT, subtitle="", caption=caption, axis=axis)


def dotted(figure: Figure) -> list[Line2D]:
    """Return the dotted lines of a chart's panels."""
    return [
        line
        for axes in figure.axes
        for line in axes.get_lines()
        if line.is_dashed() and line.get_linestyle() == "--" and len(line.get_xdata()) == 2
    ]


def caption_of(figure: Figure) -> str:
    return " ".join(text.get_text().replace("\n", " ") for text in figure.texts)


def labels(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_bar_of_simulated_number_has_its_interval_dotted(simulate: Callable[..., Study]) -> None:
    wide = factor("mean_ttft_ms", 0.0)
    assert wide is not None

    figure = drawn(simulate(2, rates=(16.0, 32.0)))

    whiskers = dotted(figure)
    assert len(whiskers) == 4
    assert list(whiskers[0].get_ydata()) == pytest.approx([100 / wide, 100 * wide])
    assert predicted.LABEL in labels(figure)
    assert "held 80 % of published values that were not seen; no spread of repeated runs" in caption_of(
        figure
    )
    # The axis has room for the longest.
    assert figure.axes[0].get_ylim()[1] > 101 * wide


def test_dotted_line_leaves_number_and_published_bar_free(simulate: Callable[..., Study]) -> None:
    table = figures.chart_table(simulate(5, rates=(16.0, 32.0, 1000.0)), TTFT).assign(
        published_value=90.0, published_system="vLLM"
    )

    figure = figures.draw(table, metric=TTFT, subtitle="", caption="")

    figure.canvas.draw()
    numbers = [text for text in figure.axes[0].texts if text.get_text()[0].isdigit()]
    hollow = [p for p in figure.axes[0].patches if p.get_facecolor()[:3] == (1.0, 1.0, 1.0)]
    assert (len(numbers), len(hollow)) == (30, 15)
    for line in dotted(figure):
        place = line.get_window_extent()
        assert not any(place.overlaps(text.get_window_extent()) for text in numbers)
        assert not any(place.overlaps(bar.get_window_extent()) for bar in hollow)


def test_measured_chart_and_unknown_calibration_have_none(
    simulate: Callable[..., Study], trial: MakeTrial, study_folder: MakeFolder
) -> None:
    measured = trial(runs=[[{"mean_ttft_ms": 100.0}]], provenance=Provenance.MEASURED)
    for study in (Study.load(study_folder(measured, name="measured")), simulate(1, distance=None)):
        figure = drawn(study)
        assert dotted(figure) == []
        assert predicted.LABEL not in labels(figure)
        assert "Dotted" not in caption_of(figure)
        table = figures.chart_table(study, TTFT)
        assert report.predicted_note(table) == ""
        assert "[" not in best_section.table_of(study, table).to_string()


def test_interval_wider_than_the_chart_ends_in_an_arrow(simulate: Callable[..., Study]) -> None:
    wide = factor("mean_ttft_ms", 9.0)
    assert wide is not None and wide > predicted.MOST

    figure = drawn(simulate(1, distance=9.0))

    (whisker,) = dotted(figure)
    assert list(whisker.get_ydata()) == pytest.approx([100 / wide, 100 * predicted.MOST])
    arrows = [line for line in figure.axes[0].get_lines() if line.get_marker() == "^"]
    assert [list(arrow.get_ydata()) for arrow in arrows] == [[pytest.approx(100 * predicted.MOST)]]
    assert "an arrow goes on beyond the chart" in caption_of(figure)


def test_list_of_many_settings_has_one_for_each(simulate: Callable[..., Study]) -> None:
    figure = drawn(simulate(figures.MOST_GROUPED + 1))

    assert len(dotted(figure)) == figures.MOST_GROUPED + 1
    assert "Dotted: predicted interval" in caption_of(figure)


def points(sizes: Sequence[int]) -> tuple[LoadPoint, ...]:
    return tuple(LoadPoint(dataset="sonnet", num_prompts=size, input_len=80) for size in sizes)


def test_line_has_them_at_its_ends(simulate: Callable[..., Study]) -> None:
    figure = drawn(simulate(3, points=points((1, 2, 4, 8))), axis="num_prompts")

    ends = sorted(float(line.get_xdata()[0]) for line in dotted(figure))
    assert ends == [1.0, 1.0, 1.0, 8.0, 8.0, 8.0]
    assert predicted.LABEL in labels(figure)
    # Side by side, not over each other.
    figure.canvas.draw()
    places = sorted(line.get_window_extent().x0 for line in dotted(figure))
    assert all(math.isclose(right - left, places[1] - places[0]) for left, right in pairwise(places[:3]))
    assert places[0] < places[1] < places[2]


def test_report_and_article_have_them_in_brackets(simulate: Callable[..., Study], tmp_path: Path) -> None:
    study = simulate(1)
    low, high = (100.0 / (factor("mean_ttft_ms", 0.0) or 0), 100.0 * (factor("mean_ttft_ms", 0.0) or 0))
    cell = f"100 (n=1) [{low:.2f} to {high:.0f}]"

    report.write(study.folder)
    text = (study.folder / "report.md").read_text(encoding="utf-8")
    pages = blog.write([study], out=tmp_path / "article")

    article = next(path for path in pages if path.suffix == ".md").read_text(encoding="utf-8")
    for page in (text, article):
        assert cell in page.replace("\\", "")
        assert "In brackets: the predicted interval, which held 80 % of published values" in page
    data = (study.folder / "figures" / "mean_ttft_ms.csv").read_text(encoding="utf-8")
    assert "interval_80_low,interval_80_high" in data.splitlines()[0]


def test_interval_of_several_starts_is_about_their_mean(trial: MakeTrial, study_folder: MakeFolder) -> None:
    twice = of_stack(trial(runs=[[{"mean_ttft_ms": 90.0}], [{"mean_ttft_ms": 110.0}]]), 0.0)

    row = figures.chart_table(Study.load(study_folder(twice)), TTFT).iloc[0]

    wide = factor("mean_ttft_ms", 0.0)
    assert wide is not None
    assert (row[predicted.LOW], row[predicted.HIGH]) == pytest.approx((100 / wide, 100 * wide))
    assert row["low"] < row["mean"] < row["high"]


def test_curve_has_them_at_the_ends_of_its_frontier(trial: MakeTrial, study_folder: MakeFolder) -> None:
    """One setting on 4 GPUs with 1, 2 and 4 users: 40, 60 and 80 output tokens/s at 20, 25 and 40 ms each."""
    numbers = {1: (40.0, 20.0), 2: (60.0, 25.0), 4: (80.0, 40.0)}
    load = LoadPoint(dataset="random", num_prompts=8, input_len=10, output_len=10, ignore_eos=True)

    def runs_at(point: LoadPoint) -> list[list[dict[str, float]]]:
        output, tpot = numbers[int(point.max_concurrency or 0)]
        return [[{"output_throughput_tok_per_s": output, "median_tpot_ms": tpot}]]

    users = tuple(replace(load, max_concurrency=one) for one in numbers)
    study = Study.load(study_folder(of_stack(trial(points=users, runs_at=runs_at), 0.0)))
    (curve,) = curves([study])
    fast, slow = factor("output_throughput_tok_per_s", 0.0), factor("median_tpot_ms", 0.0)
    assert fast is not None and slow is not None

    row = curve.points.set_index("users").loc[2]
    assert row["output_tok_per_s_per_gpu_interval_80_low"] == pytest.approx(60 / 4 / fast)
    assert row["streaming_tok_per_s_per_user_interval_80_high"] == pytest.approx(1000 / 25 * slow)

    figure = curve_chart.draw(curve, words=Words(title="", note="", subtitle="", caption=""))

    # Two panels, a cross at 1 and at 4 users each, of two lines.
    assert len(dotted(figure)) == 8
    assert "Drawn at the ends of the frontier." in curve_chart.predicted_text(curve)


def test_one_interval_is_found_among_those_of_a_row(trial: MakeTrial, study_folder: MakeFolder) -> None:
    runs = [[{"mean_ttft_ms": 1e-7, "median_ttft_ms": 12.0, "p99_ttft_ms": 3e18, "mean_e2el_ms": 40.0}]]
    rows = Study.load(study_folder(of_stack(trial(runs=runs), 0.0))).frame
    (text,) = rows[predicted.COLUMN]
    stored = {name: (low, high) for name, (low, high) in json.loads(text).items()}
    assert set(stored) == set(runs[0][0])

    def ends_of(rows: pd.DataFrame, metric: str) -> tuple[float, float]:
        (found,) = predicted.ends(rows, np.zeros(len(rows), dtype=int), metric)
        return found

    assert {name: ends_of(rows, name) for name in stored} == stored
    assert all(map(math.isnan, ends_of(rows, "ttft_ms")))
    # Spaces are another program's choice.
    spaced = rows.assign(**{predicted.COLUMN: json.dumps(json.loads(text), indent=1)})
    assert {name: ends_of(spaced, name) for name in stored} == stored
