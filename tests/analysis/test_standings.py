"""Whatever is marked, ranked or named as the best keeps every bound; where none does, that is said."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analysis import blog, compare, costs, figures, report, standings, style, timeline
from analysis.cli import main
from analysis.study import Study
from sweeper.records import LoadPoint, Placement, RateSearch, TrialResult
from sweeper.store.store import Store
from tests.analysis.conftest import described

MakeTrial = Callable[..., TrialResult]
MakeFolder = Callable[..., Path]

RPS, TPOT, TTFT = "request_throughput_per_s", "p99_tpot_ms", "p99_ttft_ms"
BOUND = {"metric": TTFT, "limit": 2000, "is_upper": True, "request_rate_per_s": 16.0}
SECOND_BOUND = {"metric": TPOT, "limit": 75, "is_upper": True, "request_rate_per_s": 16.0}
FASTEST = {"metric": RPS, "direction": "maximize"}
PROMPTEST = {"metric": TPOT, "direction": "minimize"}

# setting: requests per second, p99 TPOT, p99 TTFT
NUMBERS: Mapping[str, tuple[float, float, float]] = {
    "a": (10.0, 50.0, 1000.0),
    "b": (12.0, 80.0, 2000.0),  # keeps the bound exactly
    "c": (14.0, 90.0, 2500.0),  # the fastest, and breaks the bound by a quarter
    "d": (9.0, 60.0, 900.0),  # a is better in both
}


@pytest.fixture
def made(trial: MakeTrial, study_folder: MakeFolder) -> Callable[..., Study]:
    def make(
        numbers: Mapping[str, tuple[float, float, float]] = NUMBERS,
        *,
        objectives: Sequence[Mapping[str, Any]] = (FASTEST,),
        constraints: Sequence[Mapping[str, Any]] = (BOUND,),
        **about: Any,
    ) -> Study:
        trials = [
            trial(series=(name,), knobs={"n": n}, runs=[[{RPS: rps, TPOT: tpot, TTFT: ttft}]])
            for n, (name, (rps, tpot, ttft)) in enumerate(numbers.items())
        ]
        told = {"objectives": list(objectives), "constraints": list(constraints), **about}
        return Study.load(study_folder(*trials, about=told))

    return make


def many(count: int = 12) -> dict[str, tuple[float, float, float]]:
    """Faster and slower to answer from one to the next; the last two break the bound of 2000 ms."""
    return {f"s{n:02}": (10.0 + n, 50.0 + n, 2001.0 if n >= count - 2 else 100.0) for n in range(count)}


def test_who_breaks_bound_stands_behind_those_that_keep_it(made: Callable[..., Study]) -> None:
    found = standings.standings(made())
    assert found.order == ("b", "a", "d", "c")
    assert found.marked == ("b",)
    assert [found.of(name) for name in "abcd"] == ["", "best", "breaks a bound", ""]
    assert found.breaks("c") == "p99_ttft_ms at 16 QPS <= 2000 (is 2,500, 25 % over)"


def test_highlighted_bar_keeps_bounds_and_those_that_do_not_are_pale(
    made: Callable[..., Study],
) -> None:
    study = made(many())
    table = figures.chart_table(study, figures.METRICS[0])
    figure = figures.draw(table, metric=figures.METRICS[0], subtitle="", caption="")
    (axes,) = figure.axes
    colours = {
        bar.get_width(): style_of(bar.get_facecolor())
        for bar in axes.patches
        if bar.get_width() > 1  # type: ignore[attr-defined]
    }
    # Of 10 to 21 requests per second, 20 and 21 break the bound: 19 is the best.
    assert colours[19.0] == style.COLOURS[1]
    assert colours[20.0] == colours[21.0] == style.PALE
    assert list(colours.values()).count(style.COLOURS[1]) == 1
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[0] == "s09"
    assert labels[-2].startswith(
        "s11\n\N{MULTIPLICATION SIGN} breaks p99_ttft_ms at 16 QPS <= 2000 (is 2,001,"
    )
    assert set(table.loc[table["standing"] == "best", "setting"]) == {"s09"}


def style_of(colour: tuple[float, ...]) -> str:
    return "#" + "".join(f"{round(part * 255):02X}" for part in colour[:3])


def test_pareto_search_marks_front_and_nothing_else(made: Callable[..., Study]) -> None:
    both = (FASTEST, PROMPTEST)
    free = standings.standings(made(objectives=both, constraints=()))
    # d loses to a in both; every other is faster than all that answer sooner.
    assert [free.of(name) for name in "abcd"] == ["front", "front", "front", ""]


def test_setting_that_is_beaten_by_one_that_breaks_bound_is_on_front(
    made: Callable[..., Study],
) -> None:
    numbers = {"x": (10.0, 50.0, 100.0), "y": (20.0, 40.0, 9000.0)}
    found = standings.standings(made(numbers, objectives=(FASTEST, PROMPTEST)))
    assert found.marked == ("x",)
    assert found.of("y") == "breaks a bound"


def test_bounded_metrics_are_drawn_with_their_limit(made: Callable[..., Study]) -> None:
    study = made()
    assert [metric.column for metric in figures.metrics_of(study)][-1] == TTFT
    metric = figures.metrics_of(study)[-1]
    table = figures.chart_table(study, metric)
    assert table["bound"].tolist() == [2000.0] * 4
    assert "Red line: the bound." in figures.marks_text(study, table, metric=metric)
    assert report.text(study, drawn=[]).count("25 % over") >= 1


def test_where_nobody_keeps_bound_it_is_named_with_who_is_nearest(made: Callable[..., Study]) -> None:
    study = made(constraints=({**BOUND, "limit": 800},))
    (line,) = standings.best_lines(study)
    assert line == (
        "none: nobody keeps p99_ttft_ms at 16 QPS <= 800; nearest is d, which breaks "
        "p99_ttft_ms at 16 QPS <= 800 (is 900, 12 % over)"
    )
    assert standings.standings(study).marked == ()
    written = report.text(study, drawn=[])
    assert "Nobody keeps p99_ttft_ms at 16 QPS <= 800; nearest is d" in written
    assert "To serve with it" not in written
    article = blog.text([study], pictures=[])
    assert "nearest is d, which breaks" in article
    assert "vllm serve" not in article


def test_where_no_setting_keeps_all_bounds_at_once_that_is_said(made: Callable[..., Study]) -> None:
    numbers = {"x": (10.0, 80.0, 100.0), "y": (20.0, 40.0, 3000.0)}
    (line,) = standings.best_lines(made(numbers, constraints=(BOUND, SECOND_BOUND)))
    # x is 5 / 75 over one bound, y 1000 / 2000 over the other.
    assert line == (
        "none: no setting keeps every bound at once; nearest is x, which breaks "
        "p99_tpot_ms at 16 QPS <= 75 (is 80.00, 7 % over)"
    )


def test_setting_that_breaks_bound_when_it_is_measured_again_is_not_best(
    trial: MakeTrial, study_folder: MakeFolder
) -> None:
    def one(name: str, n: int, rps: float, ttft: float, **more: Any) -> TrialResult:
        result = trial(series=(name,), knobs={"n": n}, runs=[[{RPS: rps, TTFT: ttft}]])
        return replace(result, spec=replace(result.spec, **more))

    study = Study.load(
        study_folder(
            one("lucky", 1, 14.0, 1990.0),
            one("fair", 2, 12.0, 1000.0),
            one("lucky", 1, 13.0, 2200.0, final=0),
            one("fair", 2, 12.0, 1000.0, final=0),
            about={"objectives": [FASTEST], "constraints": [BOUND]},
        )
    )
    found = standings.standings(study)
    assert found.marked == ("fair",)
    assert found.breaks("lucky") == (
        "p99_ttft_ms at 16 QPS <= 2000 (is 2,200 when measured again, 10 % over)"
    )


def test_equal_settings_are_named_and_one_with_fewest_overrides_is_recommended(
    trial: MakeTrial, study_folder: MakeFolder
) -> None:
    def one(name: str, **knobs: int) -> TrialResult:
        return trial(series=(name,), knobs=knobs, runs=[[{RPS: 10.0}]])

    study = Study.load(
        study_folder(
            one("three", max_num_seqs=64, block_size=16, num_scheduler_steps=8),
            one("two", max_num_seqs=128, block_size=32),
            # 256 is what vLLM 0.6.2 has unsaid, so this one overrides one knob.
            one("one", max_num_seqs=256, num_scheduler_steps=10),
            about={"series": {name: {"label": name} for name in ("three", "two", "one")}},
        )
    )
    (answer,) = standings.best(study).to_dict("records")
    assert (answer["setting"], answer["verdict"]) == ("one", "tie")
    assert sorted(answer["ties"]) == ["three", "two"]
    (line,) = standings.best_lines(study)
    assert line.endswith(
        "10.00 (tie); the same number has three | two; recommended is the one with the fewest overrides"
    )
    assert standings.standings(study).order[0] == "one"


def test_what_decides_says_over_which_loads_and_how(trial: MakeTrial, study_folder: MakeFolder) -> None:
    study = Study.load(
        study_folder(
            trial(rates=(4.0, 8.0, None), runs_at=lambda point: [[{RPS: point.request_rate_per_s or 30.0}]])
        )
    )
    (answer,) = standings.best(study).to_dict("records")
    assert answer["objective"] == (
        "highest request_throughput_per_s, mean over 4 QPS, 8 QPS and all at once, each counting the same"
    )
    assert answer["value"] == 14.0  # (4 + 8 + 30) / 3


def test_rate_that_was_searched_for_is_shown_beside_what_was_completed(
    trial: MakeTrial, study_folder: MakeFolder
) -> None:
    search = RateSearch(low=1.0, high=12.0, resolution=1.0, bounds=((TTFT, 2000.0),))
    usual = LoadPoint(dataset="sharegpt", num_prompts=1000, request_rate_per_s=12.0, rate_search=search)
    result = trial(
        series=("x",),
        points=(replace(usual, request_rate_per_s=1.0), usual),
        runs_at=lambda point: [
            [{RPS: 1.0}] if point.request_rate_per_s == 1 else [{RPS: 7.78, "max_rate_per_s": 12.0}]
        ],
    )
    objective = {"metric": "max_rate_per_s", "direction": "maximize"}
    study = Study.load(study_folder(result, about={"objectives": [objective]}))
    assert standings.best_lines(study) == ["x: highest max_rate_per_s: 7.78 completed, 12.00 offered (alone)"]
    written = report.text(study, drawn=report.write(study.folder).figures)  # type: ignore[arg-type]
    assert "| x | 12.00 (n=1), 7.78 completed |" in written
    assert "Highest request rate within bounds (offered, per second)" in written


def test_price_becomes_cost_of_tokens_and_requests(trial: MakeTrial, study_folder: MakeFolder) -> None:
    numbers = {RPS: 2.0, "output_throughput_tok_per_s": 400.0}
    eighth = Placement(node="node-7", devices=(3, 4), parents=(0,), partition_mode="CPX")
    whole, part = (
        trial(series=("whole",), knobs={"n": 1}, runs=[[numbers]]),
        trial(series=("part",), knobs={"n": 2}, runs=[[numbers]]),
    )
    config = {"study": {"price_per_gpu_hour": 3.6, "currency": "EUR"}}
    study = Study.load(study_folder(whole, replace(part, placement=eighth), about={"config": config}))
    table = costs.costs(study).set_index("setting")
    # 4 GPUs at 3.60 an hour cost 0.004 a second: / 400 tokens * 1e6 = 10; / 2 requests * 1000 = 2.
    assert table.loc["whole"].tolist()[1:] == pytest.approx([4, 10.0, 2.0])
    # 2 of the 8 partitions of a GPU are a sixteenth of that.
    assert table.loc["part"].tolist()[1:] == pytest.approx([0.25, 0.625, 0.125])
    assert "| whole | 16 QPS | 4 | 10.00 | 2.00 |" in report.text(study, drawn=[])
    assert "In EUR, at 3.60 per GPU and hour" in report.text(study, drawn=[])
    assert costs.line(study, "whole") == (
        "cost in EUR: 10.00 per million output tokens and 2.00 per 1000 requests at 16 QPS"
    )


def test_without_price_nothing_is_said_of_costs(made: Callable[..., Study]) -> None:
    study = made()
    assert costs.costs(study).empty
    assert "## Cost" not in report.text(study, drawn=[])


# ---- results that lie elsewhere ----


@pytest.fixture
def elsewhere(trial: MakeTrial, tmp_path: Path) -> Path:
    """A study whose results lie in another folder, as ``study.results`` puts them."""
    folder, results = tmp_path / "outputs" / "steps", tmp_path / "shared" / "steps"
    store = Store(folder, results)
    for n in (1, 2):
        store.append(trial(knobs={"n": n}, runs=[[{RPS: float(n)}]]), queued_s=0.0, knobs=[])
    folder.mkdir(parents=True)
    (folder / "study.json").write_text(described(results=str(results)).as_json, encoding="utf-8")
    return folder


@pytest.mark.parametrize("command", ["figures", "report", "claims", "guide", "timeline"])
def test_every_command_finds_results_that_lie_elsewhere(
    elsewhere: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert main([command, str(elsewhere)]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert str(elsewhere) in told.out


def test_time_line_of_results_that_lie_elsewhere_has_their_trials(elsewhere: Path) -> None:
    table = timeline.table_of(Study.load(elsewhere))
    assert sorted(set(table["setting"])) == ["n=1", "n=2"]


def test_comparison_goes_beside_second_study_unless_folder_is_named(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(elsewhere), str(elsewhere)]) == 0
    written = capsys.readouterr().out.split()
    assert written[-1] == str(elsewhere / "compare-steps" / "compare.md")
    assert Path(written[-1]).is_file()
    assert compare.text(Study.load(elsewhere), Study.load(elsewhere)).startswith("# steps against steps")


def test_bound_on_what_was_not_measured_is_named_and_not_called_broken(
    trial: MakeTrial, study_folder: MakeFolder
) -> None:
    study = Study.load(
        study_folder(
            *(trial(knobs={"max_num_seqs": seqs}, runs=[[{RPS: seqs / 10}]]) for seqs in (16, 32)),
            about={"objectives": [FASTEST], "constraints": [BOUND]},
        )
    )
    assert standings.best_lines(study) == [
        "none: no setting has a number for p99_ttft_ms, so none is known to keep "
        "p99_ttft_ms at 16 QPS <= 2000"
    ]
    assert standings.closing_lines(study) == [
        "bounds (p99_ttft_ms at 16 QPS <= 2000): 0 of 2 settings with numbers break one; of 2 it is not "
        "known: what a bound is on was not measured"
    ]
