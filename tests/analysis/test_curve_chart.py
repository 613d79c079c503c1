"""The picture of the curve: what is drawn where, and what the report says beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from analysis import blog, compare, curve, curve_chart, report, style
from analysis.page import Words
from analysis.study import Study
from sweeper.records import Constraint, LoadPoint, Provenance, TrialResult
from tests.analysis.test_curve import BOUND, GATE, OPEN, SERIES, closed, runs_of

MakeTrial = Callable[..., TrialResult]
MakeFolder = Callable[..., Path]

WORDS = Words(title="Curve", note="", subtitle="Which?", caption="One start.")


def make(
    trial: MakeTrial,
    study_folder: MakeFolder,
    *,
    name: str = "steps",
    is_measured: bool = False,
    **about: Any,
) -> Study:
    results = [
        trial(
            series=(series,),
            knobs={"max_num_seqs": 4**place},
            points=closed(1, 4, 16),
            runs_at=runs_of(numbers),
            name=name,
            provenance=Provenance.MEASURED if is_measured else Provenance.SIMULATED,
        )
        for place, (series, numbers) in enumerate({"gate": GATE, "open": OPEN}.items(), start=1)
    ]
    return Study.load(study_folder(*results, about={"series": SERIES, **about}, name=name))


@pytest.fixture
def bounded(trial: MakeTrial, study_folder: MakeFolder) -> Study:
    return make(trial, study_folder, constraints=[BOUND], question="Whom does it serve?")


def draw(*studies: Study) -> Figure:
    with style.chart_style():
        return curve_chart.draw(curve.curves(studies)[0], words=WORDS)


def texts(figure: Figure | Axes) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text()]


def lines(axes: Axes) -> list[list[tuple[float, float]]]:
    return [list(zip(*line.get_data(), strict=True)) for line in axes.get_lines()]  # type: ignore[call-overload]


def test_each_panel_has_line_per_setting_and_frontier(bounded: Study) -> None:
    streaming, overall = draw(bounded).axes

    assert [(100, 20), (80, 60), (50, 160)] in lines(streaming)
    assert [(80, 20), (60, 60), (40, 160)] in lines(overall)
    # The frontiers, by the speed of a user.
    assert [(50, 160), (80, 71), (100, 20)] in lines(streaming)
    assert [(40, 160), (70, 70), (80, 20)] in lines(overall)


def test_users_stand_at_points_and_units_on_axes(bounded: Study) -> None:
    streaming, overall = draw(bounded).axes

    assert {"1", "4", "16"} <= set(texts(overall)) and {"1", "4", "16"} <= set(texts(streaming))
    assert streaming.get_ylabel() == "Output tokens per second per GPU"
    assert "per second per user (1000 / median time per output token, ms)" in streaming.get_xlabel()
    assert "per second per user (tokens of the run / users)" in overall.get_xlabel()
    assert streaming.get_xlim()[0] == 0 and streaming.get_ylim() == overall.get_ylim()


def test_bound_is_shaded_where_its_axis_is(bounded: Study) -> None:
    streaming, overall = draw(bounded).axes

    # 15 ms a token are 66.7 tokens per second.
    (area,) = streaming.patches
    left, right = area.get_extents().transformed(streaming.transData.inverted()).intervalx
    assert (left, right) == pytest.approx((0, 1000 / 15))
    assert not overall.patches
    legend = texts(draw(bounded))
    assert "outside mean_tpot_ms <= 15" in legend and "breaks mean_tpot_ms <= 15" in legend


def test_points_that_break_bound_are_hollow_and_named_one_is_ringed(bounded: Study) -> None:
    overall = draw(bounded).axes[1]

    faces = {
        point: line.get_markerfacecolor()
        for line, data in zip(overall.get_lines(), lines(overall), strict=True)
        if line.get_linestyle() == "None"
        for point in data
    }
    assert faces[(40, 160)] == "white" and faces[(60, 60)] != "white"
    rings = [
        data
        for line, data in zip(overall.get_lines(), lines(overall), strict=True)
        if line.get_markersize() > 10
    ]
    assert rings == [[(70, 70)]]


@pytest.mark.parametrize(
    ("bound", "area"),
    [
        (Constraint(metric="p99_tpot_ms", limit=20, is_upper=True), (curve.STREAMING, 50)),
        (
            Constraint(metric="output_throughput_tok_per_s", limit=90, is_upper=False, per="gpu"),
            (curve.PER_GPU, 90),
        ),
        # Of the whole server: how much that is per GPU differs from setting to setting.
        (Constraint(metric="output_throughput_tok_per_s", limit=90, is_upper=False), None),
        (Constraint(metric="std_tpot_ms", limit=5, is_upper=True), None),
        (Constraint(metric="p99_ttft_ms", limit=200, is_upper=True), None),
        (Constraint(metric="mean_tpot_ms", limit=5, is_upper=False), None),
    ],
)
def test_bound_has_area_only_on_its_own_axis(bound: Constraint, area: tuple[str, float] | None) -> None:
    assert curve_chart.area_of(bound) == area


def test_of_many_settings_those_on_frontier_have_colours(trial: MakeTrial, study_folder: MakeFolder) -> None:
    def numbers(place: int) -> dict[int, tuple[float, float]]:
        # The last three are the best at one number of users each; the others are slower everywhere.
        best = {11: 1, 12: 4, 13: 16}.get(place)
        return {n: (v * (1.1 if n == best else 0.5), t) for n, (v, t) in OPEN.items()}

    made = [
        trial(knobs={"k": place}, points=closed(1, 4, 16), runs_at=runs_of(numbers(place)))
        for place in range(14)
    ]
    figure = draw(Study.load(study_folder(*made)))

    legend = texts(figure)
    assert {"k=11", "k=12", "k=13", "4 other settings"} <= set(legend)
    assert len([text for text in legend if text.startswith("k=")]) == curve_chart.MOST_LINES


def test_setting_without_point_says_why_in_legend(trial: MakeTrial, study_folder: MakeFolder) -> None:
    numbers = {**OPEN, 4: (float("nan"), 12.5), 32: (700.0, 30.0)}
    study = Study.load(study_folder(trial(points=closed(1, 4, 16, 32), runs_at=runs_of(numbers))))

    assert "the one setting (no value at 4)" in texts(draw(study))


def test_answers_of_one_token_leave_stream_unknown(trial: MakeTrial, study_folder: MakeFolder) -> None:
    # One token has no time after it: TPOT is 0, and 1000 / 0 is no speed.
    numbers = {users: (tokens, 0.0) for users, (tokens, _) in OPEN.items()}
    study = Study.load(study_folder(trial(points=closed(1, 4, 16), runs_at=runs_of(numbers))))

    streaming, overall = draw(study).axes

    assert "not known: answers of one token, or in bunches" in texts(streaming)
    assert [(80, 20), (60, 60), (40, 160)] in lines(overall)
    assert "| the one setting | 16 | 160 | no value | 40.00 |" in report.text(study, drawn=[])


# ---- reports ----


def test_report_shows_curve_and_names_its_point(bounded: Study) -> None:
    files = report.write(bounded.folder)
    written = files.report.read_text(encoding="utf-8")

    assert {"curve.png", "curve.svg", "curve.csv"} <= {path.name for path in files.figures}
    assert "## Tokens per second: per GPU against per user\n\n![" in written
    assert (
        "The most per GPU within mean_tpot_ms <= 15 gives **gate** at 4 users: 70.00 output tokens per "
        "second. A user gets 80.00 while the answer streams and 70.00 over the whole request; half of the "
        "first tokens come after 100 ms." in written
    )
    assert "| open | 16 | 160 | 50.00 | 40.00 | 100 | mean_tpot_ms <= 15 (is 20.00, 33 % over) |" in written
    drawing = (bounded.folder / "figures" / "curve.svg").read_text(encoding="utf-8")
    assert "SIMULATED - no GPU was measured" in drawing and "Whom does it serve?" in drawing


def test_report_says_which_stream_came_in_bunches(trial: MakeTrial, study_folder: MakeFolder) -> None:
    bunched = {**OPEN, 4: (240.0, 0.25)}
    tight = {"metric": "mean_tpot_ms", "limit": 11.0, "is_upper": True}
    made = trial(points=closed(1, 4, 16), runs_at=runs_of(bunched))
    study = Study.load(study_folder(made, about={"constraints": [tight]}))

    written = report.text(study, drawn=report.draw(study))

    assert "in bunches: the one setting at 4 users. Measure again on a machine that is less busy." in written
    assert "| the one setting | 4 | 60.00 | in bunches | 60.00 |" in written
    # Of its users nothing is said of a stream that nobody saw.
    assert "at 4 users: 60.00 output tokens per second. A user gets 60.00 over the whole request" in written


def test_one_user_is_no_users(trial: MakeTrial, study_folder: MakeFolder) -> None:
    tight = {"metric": "mean_tpot_ms", "limit": 11.0, "is_upper": True}
    made = trial(points=closed(1, 4, 16), runs_at=runs_of(OPEN))

    written = report.text(Study.load(study_folder(made, about={"constraints": [tight]})), drawn=[])

    assert "gives **the one setting** at 1 user: 20.00 output tokens per second." in written


def test_study_over_rates_has_no_curve_in_its_report(trial: MakeTrial, study_folder: MakeFolder) -> None:
    runs = [[{"output_throughput_tok_per_s": 80.0, "median_tpot_ms": 10.0, "request_throughput_per_s": 1.0}]]
    folder = study_folder(trial(rates=(1.0, 2.0, 4.0, 8.0), runs=runs))

    files = report.write(folder)

    assert "against per user" not in files.report.read_text(encoding="utf-8")
    assert not [path for path in files.figures if path.stem.startswith("curve")]


def test_article_has_curve_among_its_figures(bounded: Study, tmp_path: Path) -> None:
    written = blog.write([bounded], out=tmp_path / "article")

    index = written[-1].read_text(encoding="utf-8")
    assert "### Tokens per second: per GPU against per user" in index
    assert "](figures/steps/curve.png)" in index
    assert (tmp_path / "article" / "figures" / "steps" / "curve.png").exists()


def test_comparison_draws_both_and_says_which_is_simulated(
    trial: MakeTrial, study_folder: MakeFolder, tmp_path: Path
) -> None:
    modelled = make(trial, study_folder, name="modelled")
    measured = make(trial, study_folder, name="measured", is_measured=True)

    compare.write_all([modelled, measured], out=tmp_path / "both")

    text = (tmp_path / "both" / "compare.md").read_text(encoding="utf-8")
    drawing = (tmp_path / "both" / "curve.svg").read_text(encoding="utf-8")
    assert "`modelled`: The most per GPU without a bound" in text and "`measured`: The most per GPU" in text
    assert "modelled is SIMULATED - no GPU was measured for it" in drawing
    assert "frontier of modelled" in drawing and "frontier of measured" in drawing
    assert "measured: open" in drawing


def test_comparison_of_three_draws_all_and_compares_each_with_first(
    trial: MakeTrial, study_folder: MakeFolder, tmp_path: Path
) -> None:
    studies = [make(trial, study_folder, name=name) for name in "abc"]

    compare.write_all(studies, out=tmp_path / "three")

    page = (tmp_path / "three" / "compare.md").read_text(encoding="utf-8")
    assert page.startswith("# b, c against a\n") and "[Against the first](c/compare.md)" in page
    assert "# c against a" in (tmp_path / "three" / "c" / "compare.md").read_text(encoding="utf-8")
    drawing = (tmp_path / "three" / "curve.svg").read_text(encoding="utf-8")
    assert all(f"frontier of {name}" in drawing for name in "abc")


def test_comparison_says_that_other_loads_do_not_compare(
    trial: MakeTrial, study_folder: MakeFolder, tmp_path: Path
) -> None:
    first = make(trial, study_folder, name="a")
    longer = trial(points=closed(1, 4, 16, input_len=999), runs_at=runs_of(OPEN), name="b")
    second = Study.load(study_folder(longer, name="b"))

    text = compare.text(first, second)

    assert "curves over the users at once, at different loads: those do not compare" in text


def test_intervals_are_drawn_whole_and_axis_titles_stay_on_page(
    trial: MakeTrial, study_folder: MakeFolder
) -> None:
    def runs_at(point: LoadPoint) -> list[list[dict[str, float]]]:
        users = float(point.max_concurrency or 0)
        # Of 0.9 and 1.1 times as much the interval reaches to 1 + 12.7062 * 0.1 = 2.27 times.
        return [
            [{"output_throughput_tok_per_s": f * 4e7 * users, "median_tpot_ms": 20.0 / f}] for f in (0.9, 1.1)
        ]

    study = Study.load(study_folder(trial(points=closed(1, 4, 16), runs_at=runs_at)))
    figure = draw(study)

    with style.chart_style():
        FigureCanvasAgg(figure).draw()
    streaming, overall = figure.axes
    assert streaming.get_ylim()[1] > 2.27 * 16e7
    # 4e7 a user, to 2.27 times as much.
    assert overall.get_xlim()[1] > 2.27 * 4e7
    assert streaming.yaxis.label.get_window_extent().x0 >= 0
