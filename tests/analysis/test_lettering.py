"""Labels are text wherever they are drawn: every chart, with labels that are meant to break it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from analysis import compare, figures, latencies, lettering, pairs, report, style, timeline
from analysis.page import Words
from analysis.study import Study
from sweeper.records import LoadPoint, TrialResult
from sweeper.text.printable import whole

MakeTrial = Callable[..., TrialResult]
MakeFolder = Callable[..., Path]

RPS = figures.METRICS[0]
NASTY = {
    "mathematics": r"$\frac{",
    "mathematics without end": "costs $5 and ^ or _ or \\",
    "control characters": "\x00\x1b[31m\a",
    "lines": "one\ntwo\r\n\tthree\u2028",
    "half a character": "\ud83d",
    "marks of direction": "abc\u202edef\u2066",
    "no glyph": "模型 🚀 \U00012000",
    "markup": "[red]<b>&amp;</b>[/]",
    "no end": "knob=value, " * 700,
    "one word": "x" * 3000,
}


def texts(figure: Figure) -> list[str]:
    return [str(item.get_text()) for item in figure.findobj(Text)]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (r"$\frac{", r"$\frac{"),
        ("\x1b[31m\n", r"\x1b[31m\n"),
        ("\ud83d \u202e", r"\ud83d \u202e"),
        ("café ≤ × Ω", "café ≤ × Ω"),
    ],
)
def test_text_is_drawn_as_it_is_or_by_its_code(text: str, shown: str) -> None:
    assert lettering.drawn(text) == shown


def test_sign_that_no_font_has_is_drawn_by_its_code() -> None:
    # Cuneiform: in none of the fonts that charts use. Which of the others a machine has differs.
    assert lettering.drawn("a \U00012000") == r"a \U00012000"
    assert lettering.families()[0] == lettering.FAMILY


def test_of_long_label_both_ends_are_drawn() -> None:
    short = lettering.drawn("first=1, " * 900 + "last=2")
    assert len(short) <= lettering.LONGEST
    assert (short[:8], short[-6:]) == ("first=1,", "last=2")


@pytest.mark.parametrize("label", NASTY.values(), ids=list(NASTY))
@pytest.mark.parametrize("settings", [2, 12], ids=["groups", "list"])
def test_bars_draw_any_label(trial: MakeTrial, study_folder: MakeFolder, label: str, settings: int) -> None:
    # Warnings are errors in this suite: a glyph that is missing would fail here.
    trials = [
        trial(series=(f"s{n}",), knobs={"n": n}, runs=[[{RPS.column: n + 1.0}]]) for n in range(settings)
    ]
    study = Study.load(
        study_folder(
            *trials,
            about={"question": label, "series": {f"s{n}": {"label": f"{label}{n}"} for n in range(settings)}},
        )
    )
    written = report.write(study.folder)
    assert {path.suffix for path in written.figures} == {".png", ".svg", ".csv"}
    assert all(path.stat().st_size > 0 for path in written.figures)


@pytest.mark.parametrize("label", NASTY.values(), ids=list(NASTY))
def test_lines_pairs_and_time_line_draw_any_label(
    trial: MakeTrial, study_folder: MakeFolder, label: str
) -> None:
    points = tuple(LoadPoint(dataset="random", num_prompts=size, input_len=8) for size in (1, 2, 4))
    done = trial(
        series=("s",),
        points=points,
        runs_at=lambda point: [[{"mean_ttft_ms": 1.0 * point.num_prompts}]],
    )
    study = Study.load(study_folder(done, about={"question": label, "series": {"s": {"label": label}}}))
    label = whole(label)  # as a study and a table hold it
    figures.write(study)
    compare.write(study, study, out=study.folder / "compared")
    timeline.write(study.folder)
    table = timeline.table_of(study).assign(setting=label, node=label)
    figure = timeline.draw(table, title=label, subtitle=label, origin=label)
    style.rendered(figure, "png")
    row = {"setting": label, "load_point": label, "ratio": 1.0, "verdict": "better"}
    ends = ("", "_low", "_high", "_interval_80_low", "_interval_80_high")
    sides = {f"{side}{end}": 1.0 for side in ("first", "second") for end in ends}
    words = Words(title=label, note=label, subtitle=label, caption=label, band=label)
    pair = pairs.draw_pairs(pd.DataFrame([row | sides]), metric=RPS, names=(label, label), words=words)
    style.rendered(pair, "svg")


@pytest.mark.parametrize("label", NASTY.values(), ids=list(NASTY))
def test_chart_of_trial_draws_any_label(trial: MakeTrial, tmp_path: Path, label: str) -> None:
    result = trial(runs=[[{"p50_ttft_ms": 1.0, "p99_ttft_ms": math.inf}]])
    spec = replace(result.spec, label=label, study=label, folder=str(tmp_path))
    path = latencies.write(replace(result, spec=spec))
    assert path is not None
    assert path.stat().st_size > 0


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 1e300, 0.0])
def test_value_that_no_axis_holds_does_not_end_drawing(
    trial: MakeTrial, study_folder: MakeFolder, value: float
) -> None:
    odd = trial(series=("odd",), knobs={"n": 1}, runs=[[{RPS.column: value}]])
    fair = trial(series=("fair",), knobs={"n": 2}, runs=[[{RPS.column: 2.0}]])
    study = Study.load(study_folder(odd, fair))
    written = report.write(study.folder)
    table = figures.chart_table(study, RPS).set_index("setting")
    assert table.loc["fair", "mean"] == 2.0
    assert table["mean"].notna().tolist() == [True, math.isfinite(value)]
    assert "fair" in written.report.read_text(encoding="utf-8")
    # Infinity is no measurement, so it is not the best either.
    assert ("**odd**" in written.report.read_text(encoding="utf-8")) == (value == 1e300)


def test_dollar_signs_are_drawn_and_not_typeset(trial: MakeTrial, study_folder: MakeFolder) -> None:
    study = Study.load(
        study_folder(
            trial(series=("s",), runs=[[{RPS.column: 1.0}]]), about={"series": {"s": {"label": "a $x^2$ b"}}}
        )
    )
    table = figures.chart_table(study, RPS)
    figure = figures.draw(table, metric=RPS, subtitle="$y$", caption="")
    assert "a $x^2$ b" in texts(figure)
    marked = [item for item in figure.findobj(Text) if "$" in item.get_text()]  # type: ignore[attr-defined]
    assert len(marked) == 2
    assert not any(item.get_parse_math() for item in marked)  # type: ignore[attr-defined]
