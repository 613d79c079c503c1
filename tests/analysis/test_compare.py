"""Two studies side by side: what differs, what that did, and never a mixture of the two."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from analysis import cli, compare, figures, pairs
from analysis.page import Words
from analysis.ratios import Basis, Ratio
from analysis.study import Study
from sweeper.records import Provenance, TrialResult

MakeTrial = Callable[..., TrialResult]
MakeFolder = Callable[..., Path]
RPS = figures.METRICS[0]


def starts(*values: float) -> list[list[dict[str, float]]]:
    return [[{"request_throughput_per_s": value}] for value in values]


@pytest.fixture
def pair(trial: MakeTrial, study_folder: MakeFolder) -> tuple[Study, Study]:
    """Yesterday, modelled, 0.6.2: base 10 and tuned 20. Today, measured, 0.11.0: base 10.1 and new 30."""
    old = study_folder(
        trial(series=("base",), knobs={"k": 1}, runs=starts(10.0), name="old", effective={"block_size": 16}),
        trial(series=("tuned",), knobs={"k": 2, "max_num_seqs": 256}, runs=starts(20.0), name="old"),
        about={"series": {"base": {"label": "Base"}, "tuned": {"label": "Tuned"}}},
        name="old",
    )
    new = study_folder(
        trial(
            series=("base",),
            knobs={"k": 1},
            runs=starts(12.0),
            name="new",
            release="0.11.0",
            provenance=Provenance.MEASURED,
            effective={"block_size": 32},
        ),
        trial(
            series=("fresh",),
            knobs={"k": 3},
            runs=starts(30.0),
            name="new",
            release="0.11.0",
            provenance=Provenance.MEASURED,
        ),
        about={"series": {"base": {"label": "Base, reworded"}, "fresh": {"label": "New idea"}}},
        name="new",
    )
    return Study.load(old), Study.load(new)


def test_only_what_both_have_is_compared(pair: tuple[Study, Study]) -> None:
    table = compare.paired(*pair, RPS)

    # A series keeps its identity when its label is reworded.
    assert table[["setting", "load_point", "first", "second"]].values.tolist() == [
        ["Base", "16 QPS", 10.0, 12.0]
    ]
    row = table.iloc[0]
    assert row["ratio"] == pytest.approx(1.2)
    # One start of a machine: nobody knows what the next one gives.
    assert (row["verdict"], row["basis"]) == ("inconclusive", "single start")
    assert pd.isna(row["low"])
    assert pd.isna(row["high"])


def test_modelled_numbers_of_one_start_are_judged_by_margin(
    trial: MakeTrial, study_folder: MakeFolder
) -> None:
    studies = [
        Study.load(study_folder(trial(runs=starts(value), name=name), name=name))
        for name, value in (("a", 10.0), ("b", 10.5))
    ]

    row = compare.paired(studies[0], studies[1], RPS).iloc[0]

    assert (row["verdict"], row["basis"]) == ("better", "single start")


def test_measured_restarts_on_both_sides_can_say_better(trial: MakeTrial, study_folder: MakeFolder) -> None:
    measured = {
        name: trial(
            runs=[[{RPS.column: value}] for value in values], name=name, provenance=Provenance.MEASURED
        )
        for name, values in (("a", (10.0, 10.01, 9.99)), ("b", (10.5, 10.51, 10.49)))
    }
    studies = [Study.load(study_folder(result, name=name)) for name, result in measured.items()]

    row = compare.paired(studies[0], studies[1], RPS).iloc[0]

    assert (row["verdict"], row["basis"]) == ("better", "restarts")


def test_other_prompts_make_another_load_point(trial: MakeTrial, study_folder: MakeFolder) -> None:
    studies = [
        Study.load(study_folder(trial(rates=(rate,), runs=starts(1.0)), name=name))
        for name, rate in (("a", 16.0), ("b", 32.0))
    ]

    assert compare.paired(studies[0], studies[1], RPS).empty
    assert "have no setting and load point with numbers in common" in compare.text(*studies)


@pytest.mark.parametrize(
    ("low", "high", "is_higher_better", "word"),
    [
        (1.01, 1.2, True, "better"),
        (1.01, 1.2, False, "worse"),
        (0.8, 0.99, True, "worse"),
        (0.8, 0.99, False, "better"),
        (0.9, 1.1, True, "inconclusive"),
    ],
)
def test_verdict_needs_whole_interval_on_one_side(
    low: float, high: float, is_higher_better: bool, word: str
) -> None:
    found = Ratio(value=1.0, low=low, high=high, basis=Basis.RESTARTS)

    assert compare.verdict(found, is_higher_better=is_higher_better) == word


def test_differences_of_environment_are_listed(pair: tuple[Study, Study]) -> None:
    found = compare.environment_differences(*pair).set_index("what")

    assert found.loc["Platform"].tolist() == ["simulated", "mi300x"]
    assert found.loc["Provenance"].tolist() == ["simulated", "measured"]
    assert found.loc["version.vllm"].tolist() == ["0.6.2", "0.11.0"]
    assert "Model" not in found.index


def test_defaults_that_moved_are_named_with_both_values(pair: tuple[Study, Study]) -> None:
    found = compare.default_differences(*pair).set_index("knob")

    # 0.6.2 on ROCm: chunks of 512 for a long context, no prefix cache; 0.11.0 (V1): 8192, and a cache.
    assert found.loc["max_num_batched_tokens"].tolist() == ["512", "8192", "no"]
    assert found.loc["enable_prefix_caching"].tolist() == ["False", "True", "no"]


def test_pinned_knob_is_not_moved_by_its_default(trial: MakeTrial, study_folder: MakeFolder) -> None:
    studies = [
        Study.load(
            study_folder(trial(knobs={"max_num_seqs": 64}, runs=starts(1.0), release=release), name=release)
        )
        for release in ("0.6.2", "0.11.0")
    ]

    found = compare.default_differences(*studies).set_index("knob")

    assert found.loc["max_num_seqs", "pinned"] == "yes"


def test_what_engines_reported_differently_is_listed(pair: tuple[Study, Study]) -> None:
    found = compare.effective_differences(*pair)

    assert found.values.tolist() == [["Base", "block_size", "16", "32"]]


def test_text_names_both_provenances_and_what_only_one_has(pair: tuple[Study, Study]) -> None:
    written = compare.text(*pair)

    assert written.startswith("# new against old\n")
    assert "- First: `old`. **Simulated: no GPU was measured.**" in written
    assert "- Second: `new`. **Measured** on node-7 (mi300x)." in written
    assert "- only in `old`: Tuned\n- only in `new`: New idea" in written
    assert "| Base | 16 QPS | 10.00 | 12.00 | 1.200 (no interval) | inconclusive (single start) |" in written


def test_chart_of_mixed_provenance_names_simulated_one(pair: tuple[Study, Study], tmp_path: Path) -> None:
    written = compare.write(*pair, out=tmp_path / "out")

    assert [path.name for path in written] == [
        *(f"compare_request_throughput_per_s.{ending}" for ending in ("png", "svg", "csv")),
        "compare.md",
    ]
    drawing = written[1].read_text(encoding="utf-8")
    assert "old is SIMULATED - no GPU was measured for it" in drawing
    assert "(compare_request_throughput_per_s.png)" in written[-1].read_text(encoding="utf-8")


def test_pair_of_bars_has_two_numbers(pair: tuple[Study, Study]) -> None:
    words = Words(title="Requests", note="", subtitle="", caption="Both.")

    figure = pairs.draw_pairs(compare.paired(*pair, RPS), metric=RPS, names=("old", "new"), words=words)

    widths = [bar.get_width() for bar in figure.axes[0].patches if isinstance(bar, Rectangle)]
    assert widths == [10.0, 12.0]
    shown = {text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)}
    assert {"first: old", "second: new", "\N{MULTIPLICATION SIGN}1.20", "16 QPS", "Base"} <= shown
    assert figures.SIMULATED_BAND not in shown


def test_compare_command_writes_where_it_is_told(
    pair: tuple[Study, Study], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "here"

    assert cli.main(["compare", str(pair[0].folder), str(pair[1].folder), "--out", str(out)]) == 0

    assert capsys.readouterr().out.splitlines()[-1] == str(out / "compare.md")
    assert (out / "compare.md").exists()


def test_modelled_gpu_has_defaults_of_its_own_kind(trial: MakeTrial, study_folder: MakeFolder) -> None:
    # vLLM 0.8.4 runs V1 with 1024 sequences on an H100, and V0 with 256 on an MI300X.
    studies = []
    for device in ("mi300x", "h100"):
        made = trial(runs=starts(10.0), name=device, release="0.8.4")
        made = replace(made, spec=replace(made.spec, modelled_device=device))
        studies.append(Study.load(study_folder(made, name=device)))
    table = compare.default_differences(studies[0], studies[1]).set_index("knob")
    assert (table.loc["max_num_seqs", "first"], table.loc["max_num_seqs", "second"]) == ("256", "1024")
    assert compare.default_differences(studies[0], studies[0]).empty


def test_comparison_begins_with_what_it_found(
    pair: tuple[Study, Study], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = compare.in_short(*pair)
    assert any("the middle ratio of new to old is " in line for line in lines)
    assert cli.main(["compare", str(pair[0].folder), str(pair[1].folder), "--out", str(tmp_path / "o")]) == 0
    assert capsys.readouterr().out.splitlines()[: len(lines)] == lines
    text = (tmp_path / "o" / "compare.md").read_text(encoding="utf-8")
    assert text.index("## In short") < text.index("## What differs")


def test_studies_with_nothing_in_common_say_so_on_the_terminal(
    trial: MakeTrial, study_folder: MakeFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [
        str(study_folder(trial(runs=starts(10.0), name=name, rates=(rate,)), name=name))
        for name, rate in (("one", 4.0), ("two", 8.0))
    ]
    assert cli.main(["compare", *folders, "--out", str(tmp_path / "o")]) == 0
    assert "two and one have no setting and load point with numbers in common" in capsys.readouterr().out
