"""Where batch or length is what varies, metrics run as lines; memory stands as bars."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from analysis import figures, lines
from analysis.page import lay_legend
from analysis.study import Study
from sweeper.records import LoadPoint, TrialResult

MakeTrial = Callable[..., TrialResult]
MakeFolder = Callable[..., Path]

THROUGHPUT = "total_throughput_tok_per_s"
ABOUT = {
    "experiment": "batches",
    "question": "Which server?",
    "series": {"ours": {"label": "vLLM", "published": "theirs"}, "broken": {"label": "Too large"}},
    "objectives": [{"metric": THROUGHPUT, "direction": "maximize"}],
}


def batch(*sizes: int, rate: float | None = None) -> tuple[LoadPoint, ...]:
    return tuple(
        LoadPoint(dataset="sonnet", num_prompts=size, input_len=80, request_rate_per_s=rate) for size in sizes
    )


def runs_at(point: LoadPoint) -> list[list[dict[str, float]]]:
    """Twice the batch in throughput, the batch in TTFT; two starts, 10 % apart."""
    size = float(point.num_prompts)
    return [[{THROUGHPUT: f * 2 * size, "mean_ttft_ms": f * size}] for f in (0.95, 1.05)]


@pytest.fixture
def study(trial: MakeTrial, study_folder: MakeFolder) -> Study:
    """Batches of 1, 2 and 4: one server measured, with 10 GiB more for each prompt; the other failed."""
    points = batch(1, 2, 4)
    return Study.load(
        study_folder(
            trial(
                series=("ours",),
                knobs={"k": 1},
                points=points,
                runs_at=runs_at,
                telemetry_at=lambda point: {"gpu_memory_gib": 10.0 * point.num_prompts},
            ),
            trial(series=("broken",), knobs={"k": 2}, points=points),
            about=ABOUT,
        )
    )


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)]


def test_lines_run_over_batch_where_it_alone_varies(study: Study) -> None:
    assert lines.line_axis(study.frame) == "num_prompts"


def test_bars_stay_where_rates_vary_or_values_are_few(trial: MakeTrial, study_folder: MakeFolder) -> None:
    two = Study.load(study_folder(trial(points=batch(1, 2)), name="two")).frame
    rated = (*batch(1, 2, 4), *batch(1, rate=16.0))
    mixed = Study.load(study_folder(trial(points=rated), name="mixed")).frame

    assert lines.line_axis(two) is None
    assert lines.line_axis(mixed) is None


@pytest.mark.parametrize(
    ("values", "doubles"), [([1, 2, 4, 8], True), ([16000, 32000, 128000], True), ([1, 2, 3], False)]
)
def test_values_that_double_are_spaced_evenly(values: list[float], doubles: bool) -> None:
    # From 2 to 3 is a factor of 1.5, from 3 to 4 one of 1.33; a doubling axis wants 1.5 throughout.
    assert lines.is_doubling([*values, 4] if not doubles else values) is doubles


def test_line_study_draws_total_throughput_ttft_and_memory(study: Study) -> None:
    assert [(m.column, m.title) for m in figures.metrics_of(study)] == [
        (THROUGHPUT, "Total throughput (tokens/s)"),
        ("mean_ttft_ms", "Mean TTFT (ms)"),
        ("gpu_memory_gib", "Device memory in use (GiB)"),
    ]


def test_line_has_stored_numbers_on_doubling_axis(study: Study) -> None:
    metric = figures.metrics_of(study)[0]
    table = figures.chart_table(study, metric)

    figure = figures.draw(table, metric=metric, subtitle="Which?", caption="Two starts.", axis="num_prompts")

    axes = figure.axes[0]
    line = next(line for line in axes.get_lines() if list(line.get_ydata()) == [2.0, 4.0, 8.0])
    assert list(line.get_xdata()) == [1, 2, 4]
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "4"]
    shown = texts(figure)
    assert {"vLLM", "Too large (failed)", "Prompts sent (batch)", "8.00"} <= set(shown)
    assert figures.SIMULATED_BAND in shown


def test_values_over_wide_range_stand_on_logarithmic_axis(trial: MakeTrial, study_folder: MakeFolder) -> None:
    wide = Study.load(study_folder(trial(points=batch(1, 16, 256), runs_at=runs_at)))
    metric = figures.METRICS[1]

    figure = figures.draw(
        figures.chart_table(wide, metric), metric=metric, subtitle="", caption="", axis="num_prompts"
    )

    assert figure.axes[0].get_yscale() == "log"
    assert "Mean TTFT (ms), log scale" in texts(figure)


def test_line_that_ends_early_says_where_and_why(trial: MakeTrial, study_folder: MakeFolder) -> None:
    def until_2(point: LoadPoint) -> list[list[dict[str, float]]]:
        return runs_at(point) if point.num_prompts <= 2 else [[{THROUGHPUT: 1.0}]]

    study = Study.load(study_folder(trial(points=batch(1, 2, 4096), runs_at=until_2)))
    metric = figures.METRICS[1]

    figure = figures.draw(
        figures.chart_table(study, metric), metric=metric, subtitle="", caption="", axis="num_prompts"
    )

    assert "the one setting (no value at 4,096)" in texts(figure)


def test_memory_is_highest_of_each_setting(study: Study) -> None:
    table = figures.chart_table(study, figures.metrics_of(study)[-1])

    assert table["setting"].tolist() == ["vLLM", "Too large"]
    assert table["mean"].iloc[0] == 40.0
    assert table["load_point"].unique().tolist() == ["highest of all load points"]


def test_published_values_join_at_same_batch(study: Study, experiments: Path) -> None:
    folder = experiments / "batches"
    folder.mkdir()
    (folder / "published.csv").write_text(
        "series,metric,request_rate_per_s,num_prompts,value,low,high,method,system,model,source\n"
        f"theirs,{THROUGHPUT},,2,3.5,,,printed label,TGI,Llama-3.1-70B-Instruct,A post\n",
        encoding="utf-8",
    )
    metric = figures.metrics_of(study)[0]

    table = figures.chart_table(study, metric, experiments=experiments)
    figure = figures.draw(table, metric=metric, subtitle="", caption="", axis="num_prompts")

    assert table.loc[table["published_value"].notna(), "num_prompts"].tolist() == [2]
    assert any(list(line.get_ydata()) == [3.5] for line in figure.axes[0].get_lines())
    assert "published: TGI" in texts(figure)


def test_line_charts_are_written_beside_their_data(study: Study) -> None:
    names = [path.name for path in figures.write(study)]

    assert [name for name in names if name.endswith(".png")] == [
        f"{THROUGHPUT}.png",
        "mean_ttft_ms.png",
        "gpu_memory_gib.png",
    ]


def test_caption_of_many_batches_gives_their_ends(
    study: Study, trial: MakeTrial, study_folder: MakeFolder
) -> None:
    many = Study.load(study_folder(trial(points=batch(1, 2, 4, 8), runs_at=runs_at), name="many"))

    few_words, many_words = (
        figures.caption_of(one, figures.chart_table(one, figures.METRICS[1])) for one in (study, many)
    )

    assert "1, 2, 4 sonnet prompts per load point" in few_words
    assert "1 to 8 sonnet prompts per load point" in many_words


def test_long_labels_are_broken_and_keep_their_ends() -> None:
    # 7.5 - 0.5 - 0.75 inches hold 85 characters of 0.073: a label of 100 takes two lines.
    legend = lay_legend(["word " * 19 + "first", "word " * 19 + "other"], width_in=7.5)

    assert (legend.columns, legend.rows) == (1, 4)
    assert [label.rpartition(" ")[2] for label in legend.labels] == ["first", "other"]
    assert lay_legend(["a", "b", "c", "d"], width_in=7.5).rows == 2


def test_numbers_at_ends_of_close_lines_stay_clear_of_each_other(
    trial: MakeTrial, study_folder: MakeFolder
) -> None:
    def runs_of(n: int) -> Callable[[LoadPoint], list[list[dict[str, float]]]]:
        return lambda point: [[{THROUGHPUT: (100 + n) * point.num_prompts / 4}]]

    trials = [trial(knobs={"n": n}, points=batch(1, 2, 4), runs_at=runs_of(n)) for n in range(10)]
    figure = draw_throughput(Study.load(study_folder(*trials)))

    FigureCanvasAgg(figure).draw()
    # Of the number alone, without the stroke to its line.
    ends = [Text.get_window_extent(text) for text in figure.axes[0].texts]
    assert [text.get_text() for text in figure.axes[0].texts] == [str(100 + n) for n in range(10)]
    assert all(low.y1 <= high.y0 for low, high in pairwise(ends))


def test_numbers_of_lines_that_end_near_zero_stay_above_axis() -> None:
    assert lines.apart([1.0, 2.0, 30.0], gap=9.0, lowest=4.0) == [4.0, 13.0, 30.0]
    assert lines.apart([50.0, 51.0, 52.0], gap=9.0, lowest=4.0) == [42.0, 51.0, 60.0]


def test_values_below_axis_stay_clear_of_each_other(trial: MakeTrial, study_folder: MakeFolder) -> None:
    figure = draw_throughput(
        Study.load(study_folder(trial(points=batch(*range(1, 41)), runs_at=runs_at))),
    )

    FigureCanvasAgg(figure).draw()
    shown = [label for label in figure.axes[0].get_xticklabels() if label.get_text()]
    boxes = [label.get_window_extent() for label in shown]
    assert (shown[0].get_text(), shown[-1].get_text()) == ("1", "40")
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def draw_throughput(study: Study) -> Figure:
    metric = figures.metrics_of(study)[0]
    assert metric.column == THROUGHPUT
    table = figures.chart_table(study, metric)
    return figures.draw(table, metric=metric, subtitle="", caption="", axis="num_prompts")
