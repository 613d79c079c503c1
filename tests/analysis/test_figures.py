"""A chart shows the stored numbers, those published beside them, and where they come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import matplotlib
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from analysis import figures, standings, style
from analysis.page import SIMULATED_BAND, Words, make_page
from analysis.study import Study
from sweeper.records import FailureClass, LoadPoint, Model, Provenance, TrialResult, TrialState

MakeTrial = Callable[..., TrialResult]
MakeFolder = Callable[..., Path]

RPS = figures.METRICS[0]
ABOUT = {
    "experiment": "steps",
    "question": "How many steps?",
    "series": {
        "one": {"label": "1 step", "published": "base", "order": 0},
        "ten": {"label": "10 steps", "published": None, "order": 1},
    },
    "objectives": [{"metric": "p99_ttft_ms", "direction": "minimize", "request_rate_per_s": None}],
}


def run(value: float, *more: float) -> list[list[dict[str, float]]]:
    return [[{"request_throughput_per_s": v, "p99_ttft_ms": 100 * v}] for v in (value, *more)]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)]


def bars(figure: Figure, colour: str) -> list[Rectangle]:
    """Bars of a colour, from left to right; the legend is not among them."""
    found = [p for p in figure.axes[0].patches if isinstance(p, Rectangle)]
    return sorted((p for p in found if p.get_facecolor() == to_rgba(colour)), key=lambda p: p.get_x())


@pytest.fixture
def study(trial: MakeTrial, study_folder: MakeFolder) -> Study:
    """One step at 16 and 32 QPS: 9 and 11 in two starts; ten steps failed."""
    return Study.load(
        study_folder(
            trial(series=("one",), knobs={"steps": 1}, rates=(16.0, 32.0), runs=run(9.0, 11.0)),
            trial(series=("ten",), knobs={"steps": 10}, rates=(16.0, 32.0)),
            about=ABOUT,
        )
    )


def test_published_values_stand_beside_same_series_and_rate(study: Study, experiments: Path) -> None:
    table = figures.chart_table(study, RPS, experiments=experiments)

    row = table[(table["setting"] == "1 step") & (table["load_point"] == "16")].iloc[0]
    assert (row["mean"], row["n"]) == (10.0, 2)
    assert (row["published_value"], row["published_low"], row["published_high"]) == (10.0, 9.9, 10.1)
    assert row["published_method"] == "pixel reading"
    # Nothing was published at 32 QPS, and nothing for ten steps.
    assert table["published_value"].notna().sum() == 1


def test_published_values_of_another_model_are_left_out(
    trial: MakeTrial, study_folder: MakeFolder, experiments: Path, llama_70b: Model
) -> None:
    small = Model(name="Llama-3.1-8B-Instruct", path="8b", shape=llama_70b.shape)
    folder = study_folder(trial(series=("one",), runs=run(9.0), model=small), about=ABOUT)

    table = figures.chart_table(Study.load(folder), RPS, experiments=experiments)

    assert table["published_value"].isna().all()


def test_bars_have_height_of_numbers_and_failures_are_marked(study: Study, experiments: Path) -> None:
    table = figures.chart_table(study, RPS, experiments=experiments)

    figure = figures.draw(table, metric=RPS, subtitle="How many steps?", caption="Two starts.")

    assert [bar.get_height() for bar in bars(figure, style.COLOURS[0])] == [10.0, 10.0]
    assert bars(figure, style.COLOURS[1]) == []
    assert [bar.get_height() for bar in bars(figure, "white")] == [10.0]  # published
    shown = texts(figure)
    assert shown.count("failed") == 2
    assert {"Requests per second", "How many steps?", "Two starts.", "higher is better"} <= set(shown)
    assert {"16", "32", "Request rate (QPS)", "1 step", "10 steps"} <= set(shown)
    assert "published: vLLM 0.6.2 on 4 MI300X" in shown
    # Whiskers: the axis reaches above the interval's end, 10 + 12.7062 * 1.4142 / 1.4142 = 22.7.
    assert figure.axes[0].get_ylim()[1] > 22.7


def numbers(figure: Figure) -> list[Text]:
    return [t for t in figure.axes[0].texts if t.get_text().replace(",", "").replace(".", "").isdigit()]


def test_numbers_stay_clear_of_neighbouring_bars(trial: MakeTrial, study_folder: MakeFolder) -> None:
    """Five settings at three rates with published outlines: the densest of the article's charts."""
    trials = [
        trial(series=(f"s{n}",), knobs={"n": n}, rates=(16.0, 32.0, 1000.0), runs=run(10.0 + n))
        for n in range(5)
    ]
    study = Study.load(study_folder(*trials))
    table = figures.chart_table(study, RPS).assign(published_value=10.8, published_system="vLLM")

    figure = figures.draw(table, metric=RPS, subtitle="", caption="")

    figure.canvas.draw()
    filled = [p.get_window_extent() for p in figure.axes[0].patches if p.get_height() > 10.8]
    outlined = [t for t in numbers(figure) if t.get_text() == "10.80"]
    assert len(outlined) == 15
    assert not any(t.get_window_extent().overlaps(bar) for t in outlined for bar in filled)


def test_numbers_too_wide_for_their_bars_stand_upright(trial: MakeTrial, study_folder: MakeFolder) -> None:
    trials = [
        trial(series=(f"s{n}",), knobs={"n": n}, rates=(16.0, 32.0, 1000.0), runs=run(41_000.0 + n))
        for n in range(9)
    ]
    table = figures.chart_table(Study.load(study_folder(*trials)), RPS)
    # With outlines, 27 pairs of bars share 13.8 inches: far less than the 0.3 that "41,000" needs.
    table = table.assign(published_value=41_000.0, published_system="vLLM")

    figure = figures.draw(table, metric=RPS, subtitle="", caption="")

    assert {text.get_rotation() for text in numbers(figure)} == {90.0}


def test_names_of_many_load_points_and_large_numbers_stay_clear_and_on_the_page(
    trial: MakeTrial, study_folder: MakeFolder
) -> None:
    """Four rates, each with four limits, in fifteen inches: an inch for a name of an inch and a half."""
    points = tuple(
        LoadPoint(dataset="sharegpt", num_prompts=1000, request_rate_per_s=rate, max_concurrency=most)
        for rate in (1.0, 2.0, 4.0, 8.0)
        for most in (4, 16, 64, 256)
    )
    trials = [
        trial(series=(f"s{n}",), knobs={"n": n}, points=points, runs=run(41_000_000.0 + n)) for n in range(3)
    ]
    table = figures.chart_table(Study.load(study_folder(*trials)), RPS)

    figure = figures.draw(table, metric=RPS, subtitle="", caption="Of a study. " * 30)

    with style.chart_style():
        FigureCanvasAgg(figure).draw()
    axes, (caption,) = figure.axes[0], [text for text in figure.texts if "Of a study" in text.get_text()]
    names = [label.get_window_extent() for label in axes.get_xticklabels()]
    assert len(names) == 16
    assert not any(one.overlaps(other) for one, other in combinations(names, 2))
    below, beside = axes.xaxis.label.get_window_extent(), axes.yaxis.label.get_window_extent()
    assert not any(below.overlaps(other) for other in (*names, caption.get_window_extent()))
    assert beside.x0 >= 0


def test_simulated_chart_says_so_outside_its_data_and_measured_one_does_not(
    trial: MakeTrial, study_folder: MakeFolder, study: Study, tmp_path: Path
) -> None:
    simulated = figures.draw(figures.chart_table(study, RPS), metric=RPS, subtitle="", caption="")
    measured_table = figures.chart_table(study, RPS).assign(provenance="measured")
    measured = figures.draw(measured_table, metric=RPS, subtitle="", caption="")

    assert figures.SIMULATED_BAND in texts(simulated)
    assert figures.SIMULATED_BAND not in texts(measured)
    band = next(t for t in simulated.texts if t.get_text() == figures.SIMULATED_BAND)
    assert band.get_position()[1] > simulated.axes[0].get_position().y1


def test_many_settings_become_sorted_list_with_best_marked(
    trial: MakeTrial, study_folder: MakeFolder
) -> None:
    trials = [trial(knobs={"seqs": n}, runs=run(float(n))) for n in range(1, 33)]
    study = Study.load(study_folder(*trials, trial(knobs={"seqs": 99})))

    figure = figures.draw(figures.chart_table(study, RPS), metric=RPS, subtitle="", caption="A grid.")

    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[:2] == ["seqs=32", "seqs=31"]
    assert len(labels) == figures.MOST_LISTED
    assert [bar.get_width() for bar in bars(figure, style.COLOURS[1])] == [32.0]
    assert any("the best 15 of 33 settings" in " ".join(text.split()) for text in texts(figure))


def test_in_list_lower_latency_stands_first_and_failures_last(
    trial: MakeTrial, study_folder: MakeFolder
) -> None:
    latency = figures.Metric(column="p99_ttft_ms", title="p99 TTFT (ms)", is_higher_better=False)
    trials = [trial(knobs={"seqs": n}, runs=run(float(n))) for n in range(1, 12)]
    study = Study.load(study_folder(*trials, trial(knobs={"seqs": 99})))

    figure = figures.draw(figures.chart_table(study, latency), metric=latency, subtitle="", caption="")

    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert (labels[0], labels[-1]) == ("seqs=1", "seqs=99")
    assert "lower is better" in texts(figure)
    assert any(text.endswith("failed") for text in texts(figure))


def test_data_of_chart_has_hit_rate_where_it_was_counted(trial: MakeTrial, study_folder: MakeFolder) -> None:
    counted = trial(runs=run(9.0), telemetry_at=lambda _: {"prefix_cache_hit_rate": 0.25})

    table = figures.chart_table(Study.load(study_folder(counted)), RPS)

    assert table["prefix_cache_hit_rate"].tolist() == [0.25]


@pytest.mark.parametrize(
    ("column", "title"),
    [
        ("mean_ttft_ms", "Mean TTFT (ms)"),
        ("p99_tpot_ms", "p99 TPOT (ms)"),
        ("total_throughput_tok_per_s", "Total throughput (tokens/s)"),
        ("completed", "completed"),
    ],
)
def test_metrics_are_named_in_words(column: str, title: str) -> None:
    assert figures.metric_title(column) == title


def test_chart_is_saved_as_picture_drawing_and_data(study: Study, tmp_path: Path) -> None:
    written = figures.save(Figure(), pd.DataFrame({"a": [1]}), tmp_path / "new" / "chart.v1")

    assert [path.name for path in written] == ["chart.v1.png", "chart.v1.svg", "chart.v1.csv"]
    assert pd.read_csv(written[2])["a"].tolist() == [1]


def test_what_study_strives_for_is_drawn_too(study: Study) -> None:
    assert [(m.column, m.title, m.is_higher_better) for m in figures.metrics_of(study)] == [
        ("request_throughput_per_s", "Requests per second", True),
        ("mean_ttft_ms", "Mean TTFT (ms)", False),
        ("mean_tpot_ms", "Mean TPOT (ms)", False),
        ("p99_ttft_ms", "p99 TTFT (ms)", False),
    ]


def test_every_chart_is_written_beside_its_data(study: Study, experiments: Path) -> None:
    written = figures.write(study, experiments=experiments)

    # Nobody measured mean TTFT and TPOT here: no picture of nothing.
    names = [f"{m}.{e}" for m in ("request_throughput_per_s", "p99_ttft_ms") for e in ("png", "svg", "csv")]
    assert [path.name for path in written] == names
    assert written[0].read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert figures.SIMULATED_BAND in written[1].read_text(encoding="utf-8")
    data = pd.read_csv(written[2])
    assert data["mean"].tolist()[:2] == [10.0, 10.0]
    assert data["published_value"].iloc[0] == 10.0
    assert set(data["provenance"]) == {"simulated"}


def test_caption_says_what_chart_rests_on(study: Study, experiments: Path) -> None:
    caption = figures.caption_of(study, figures.chart_table(study, RPS, experiments=experiments))

    assert caption == (
        "Study steps, simulated. 1000 sharegpt prompts per load point; engine starts: 2; whiskers: 95 % "
        "t-interval over restarts. Simulated vLLM 0.6.2, meta-llama/Llama-3.1-70B-Instruct (bfloat16). "
        "Published: An article; by pixel reading."
    )


def test_caption_of_measurement_names_its_machine(trial: MakeTrial, study_folder: MakeFolder) -> None:
    study = Study.load(study_folder(trial(runs=run(9.0), provenance=Provenance.MEASURED)))

    caption = figures.caption_of(study, figures.chart_table(study, RPS))

    assert caption.startswith("Study steps, measured on mi300x.")
    assert "engine starts: 1; a single start gives no interval" in caption


@pytest.mark.parametrize(
    ("failure", "engines"),
    [(FailureClass.NOT_MODELLED, "vLLM 0.6.2 (TGI was not run)"), (None, "vLLM 0.6.2, TGI")],
)
def test_another_engine_is_named_in_caption_and_in_its_place(
    trial: MakeTrial, study_folder: MakeFolder, failure: FailureClass | None, engines: str
) -> None:
    ran = trial(series=("vllm",), runs=run(9.0))
    tgi = trial(series=("tgi",), runs=() if failure else run(8.0))
    spec = replace(tgi.spec, engine=replace(tgi.spec.engine, kind="tgi"))
    other = replace(tgi, spec=spec, failure_class=failure)
    if failure:
        other = replace(other, state=TrialState.INFEASIBLE)
    study = Study.load(study_folder(ran, other))
    table = figures.chart_table(study, RPS)

    assert engines in figures.caption_of(study, table)
    drawn = [
        text.get_text() for text in figures.draw(table, metric=RPS, subtitle="", caption="").axes[0].texts
    ]
    assert ("not modelled" in drawn) == (failure is not None)


def test_style_does_not_leak_into_other_charts() -> None:
    before = matplotlib.rcParams["hatch.linewidth"]

    with style.chart_style():
        within = matplotlib.rcParams["hatch.linewidth"]

    assert within == 0.55
    assert matplotlib.rcParams["hatch.linewidth"] == before
    assert len(style.COLOURS) == len(set(style.COLOURS)) == len(style.HATCHES) == figures.MOST_GROUPED


@pytest.mark.parametrize("width_in", [5.0, 7.0, 11.0])
@pytest.mark.parametrize("letters", [10, 45, 88])
def test_texts_of_a_page_stay_on_it_and_clear_of_each_other(width_in: float, letters: int) -> None:
    title = ("Output tokens per second per GPU over two knobs and one thing more, at sixteen a second " * 2)[
        :letters
    ]
    words = Words(
        title=title, note="higher is better", subtitle="Which is best, and why? " * 6, caption="Of a study.",
        band=SIMULATED_BAND,
    )  # fmt: skip
    page = make_page(words, width_in=width_in, plot_in=2.0, legend_rows=1)
    FigureCanvasAgg(page.figure).draw()
    assert "higher is better" in "\n".join(text.get_text() for text in page.figure.texts)
    places = [text.get_window_extent() for text in page.figure.texts if text.get_text()]
    assert all(place.x0 >= 0 and place.x1 <= page.figure.bbox.x1 for place in places)
    assert not any(one.overlaps(other) for one, other in combinations(places, 2))


LOSS = figures.Metric(column="accuracy_loss", title="Right answers lost (share)", is_higher_better=False)


def answering(result: TrialResult, right: int) -> TrialResult:
    """Let a trial have answered that many of a hundred questions right."""
    told = "1" * right + "0" * (100 - right)
    return replace(result, accuracy={"accuracy_of": "q", "accuracy_questions": 100, "accuracy_right": told})


def answered(trial: MakeTrial, study_folder: MakeFolder, settings: int, **given: object) -> Study:
    """Return a study of settings of which each answers three questions more than the one before it."""
    knobs: list[dict[str, int]] = [{}, *({"n": n} for n in range(1, settings))]
    trials = [
        answering(trial(knobs=one, runs=run(1.0, 1.1), **given), 50 + 3 * n) for n, one in enumerate(knobs)
    ]
    about = {"constraints": [{"metric": "accuracy_loss", "limit": 0.05, "is_upper": True}]}
    return Study.load(study_folder(*trials, about=about))


@pytest.mark.parametrize("settings", [3, 12])
def test_answers_won_are_drawn_below_zero(settings: int, trial: MakeTrial, study_folder: MakeFolder) -> None:
    table = figures.chart_table(answered(trial, study_folder, settings), LOSS)

    figure = figures.draw(table, metric=LOSS, subtitle="", caption="")

    (axes,) = figure.axes
    is_list = settings > figures.MOST_GROUPED
    start, end = axes.get_xlim() if is_list else axes.get_ylim()
    # Of 100 answers, three more are won from setting to setting.
    assert start < -0.03 * (settings - 1)
    assert end > 0
    FigureCanvasAgg(figure).draw()
    panel = axes.get_window_extent()
    told = [text for text in axes.texts if text.get_text().startswith("-")]
    assert len(told) == settings - 1
    assert all(panel.y0 <= text.get_window_extent().y0 for text in told)


def test_answers_won_are_drawn_as_lines(trial: MakeTrial, study_folder: MakeFolder) -> None:
    points = tuple(LoadPoint(dataset="sonnet", num_prompts=size, input_len=80) for size in (1, 2, 4))
    study = answered(trial, study_folder, 3, points=points)
    table = figures.chart_table(study, LOSS)

    figure = figures.draw(table, metric=LOSS, subtitle="", caption="", axis="num_prompts")

    (axes,) = figure.axes
    assert axes.get_ylim()[0] < -0.06
    assert axes.get_ylim()[1] > 0


def test_in_list_setting_without_heaviest_load_stands_behind_those_with_all(
    trial: MakeTrial, study_folder: MakeFolder
) -> None:
    """The slowest has no number at 32 QPS: its mean over the light load alone would be the best."""

    def runs_at(n: int) -> Callable[[LoadPoint], list[list[dict[str, float]]]]:
        def runs(point: LoadPoint) -> list[list[dict[str, float]]]:
            rate = point.request_rate_per_s or 0.0
            has_none = n == 12 and rate == 32.0
            return [[{"request_throughput_per_s": 1.0} | ({} if has_none else {"p99_ttft_ms": n * rate})]]

        return runs

    latency = figures.Metric(column="p99_ttft_ms", title="p99 TTFT (ms)", is_higher_better=False)
    trials = [trial(knobs={"seqs": n}, rates=(1.0, 32.0), runs_at=runs_at(n)) for n in range(1, 13)]
    table = figures.chart_table(Study.load(study_folder(*trials)), latency)

    figure = figures.draw(table, metric=latency, subtitle="", caption="")

    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == [f"seqs={n}" for n in range(1, 13)]
    assert any("those that lack one after the others" in " ".join(text.split()) for text in texts(figure))


def test_axis_of_list_suits_settings_that_it_shows(trial: MakeTrial, study_folder: MakeFolder) -> None:
    latency = figures.Metric(column="p99_ttft_ms", title="p99 TTFT (ms)", is_higher_better=False)
    slowest = {n: 100.0 * n if n <= 15 else 1e9 for n in range(1, 20)}
    trials = [
        trial(knobs={"n": n}, runs=[[{"request_throughput_per_s": 1 / n, "p99_ttft_ms": waited}]])
        for n, waited in slowest.items()
    ]
    table = figures.chart_table(Study.load(study_folder(*trials)), latency)

    figure = figures.draw(table, metric=latency, subtitle="", caption="")

    # The fifteen that are shown end at 1500 ms; those left out at 1e9.
    assert 1500 < figure.axes[0].get_xlim()[1] < 2000


@pytest.mark.parametrize(("settings", "look"), [(3, "With a cross in the legend"), (12, "Pale with a cross")])
def test_caption_says_how_broken_bounds_look_in_its_own_chart(
    settings: int, look: str, trial: MakeTrial, study_folder: MakeFolder
) -> None:
    bound = {"metric": "p99_ttft_ms", "limit": 150.0, "is_upper": True}
    trials = [trial(knobs={"n": n}, runs=run(float(n))) for n in range(1, settings + 1)]
    study = Study.load(study_folder(*trials, about={"constraints": [bound]}))

    said = figures.marks_text(study, figures.chart_table(study, RPS), metric=RPS)

    assert said.startswith(f"{look}: breaks a bound")


def test_caption_of_list_names_no_mark_of_settings_that_it_leaves_out(
    trial: MakeTrial, study_folder: MakeFolder
) -> None:
    bound = {"metric": "p99_ttft_ms", "limit": 150.0, "is_upper": True}
    trials = [
        trial(
            knobs={"n": n},
            runs=[[{"request_throughput_per_s": n, "p99_ttft_ms": 200.0 if n > 16 else 100.0}]],
        )
        for n in range(1, 19)
    ]
    study = Study.load(study_folder(*trials, about={"constraints": [bound]}))
    table = figures.chart_table(study, RPS)

    assert (table["standing"] == standings.BREAKS).sum() == 2
    assert "Pale" not in figures.marks_text(study, table, metric=RPS)


def test_caption_names_no_line_that_is_too_far_to_be_drawn(
    trial: MakeTrial, study_folder: MakeFolder
) -> None:
    latency = figures.Metric(column="p99_ttft_ms", title="p99 TTFT (ms)", is_higher_better=False)
    bound = {"metric": "p99_ttft_ms", "limit": 90_000.0, "is_upper": True}
    study = Study.load(study_folder(trial(knobs={"n": 1}, runs=run(1.0)), about={"constraints": [bound]}))
    table = figures.chart_table(study, latency)

    assert table["bound"].tolist() == [90_000.0]
    assert "Red" not in figures.marks_text(study, table, metric=latency)


def test_list_of_many_load_points_is_no_wider_than_five_panels(
    trial: MakeTrial, study_folder: MakeFolder
) -> None:
    rates = tuple(map(float, range(1, 13)))
    trials = [trial(knobs={"n": n}, rates=rates, runs=run(float(n))) for n in range(1, 13)]
    table = figures.chart_table(Study.load(study_folder(*trials)), RPS)

    figure = figures.draw(table, metric=RPS, subtitle="", caption="")

    assert [panel.get_title(loc="left") for panel in figure.axes] == [f"{rate:g} QPS" for rate in rates]
    assert figure.get_figwidth() < 16
    places = [panel.get_position() for panel in figure.axes]
    assert not any(one.overlaps(other) for one, other in combinations(places, 2))
    # The settings are named at the left of each row.
    named = [panel for panel in figure.axes if panel.get_yticklabels()[0].get_text()]
    assert named == figure.axes[::5]
