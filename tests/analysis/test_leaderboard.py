"""A search as a leaderboard: places by hand, ties and bounds named, and no number cut at any width."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from analysis import blog, columns_text, figures, leaderboard_text, report, standings
from analysis.cli import main
from analysis.columns_text import Column
from analysis.leaderboard import Leaderboard, is_search, leaderboard
from analysis.study import Study
from sweeper.records import LoadPoint, RateSearch, TrialResult

MakeTrial = Callable[..., TrialResult]
MakeFolder = Callable[..., Path]

RPS, TTFT, TPOT = "request_throughput_per_s", "p99_ttft_ms", "p99_tpot_ms"
BOUND = {"metric": TTFT, "limit": 2000, "is_upper": True, "request_rate_per_s": 16.0}
FASTEST = {"metric": RPS, "direction": "maximize"}
PROMPTEST = {"metric": TPOT, "direction": "minimize"}

# (max_num_seqs, num_scheduler_steps): requests per second, p99 TTFT. vLLM 0.6.2 holds 256 and 1 unsaid.
DEFAULT, TWO, ONE, TOO_SLOW = (256, 1), (512, 10), (256, 10), (1024, 10)
NUMBERS: Mapping[tuple[int, int], tuple[float, float]] = {
    DEFAULT: (10.0, 1000.0),
    TWO: (15.0, 1000.0),
    ONE: (15.0, 1100.0),  # as fast as TWO, with one override less
    TOO_SLOW: (20.0, 2500.0),  # the fastest, and a quarter past the bound
}


def name_of(knobs: tuple[int, int]) -> str:
    return f"max_num_seqs={knobs[0]}, num_scheduler_steps={knobs[1]}"


@pytest.fixture
def made(trial: MakeTrial, study_folder: MakeFolder) -> Callable[..., Study]:
    """Make a search of ``NUMBERS``, one setting of which fails."""

    def make(
        numbers: Mapping[tuple[int, int], tuple[float, float]] = NUMBERS,
        *,
        objectives: Sequence[Mapping[str, Any]] = (FASTEST,),
        constraints: Sequence[Mapping[str, Any]] = (BOUND,),
        starts: Sequence[float] = (1.0,),
        **about: Any,
    ) -> Study:
        def knobs(seqs: int, steps: int) -> dict[str, Any]:
            return {"max_num_seqs": seqs, "num_scheduler_steps": steps, "kv_cache_dtype": "auto"}

        trials = [
            trial(
                knobs=knobs(*chosen),
                runs=[
                    [{RPS: rps * start, TTFT: ttft, TPOT: 50.0, "output_throughput_tok_per_s": 2000.0}]
                    for start in starts
                ],
            )
            for chosen, (rps, ttft) in numbers.items()
        ]
        told = {"objectives": list(objectives), "constraints": list(constraints), **about}
        return Study.load(study_folder(*trials, trial(knobs=knobs(2048, 1)), about=told))

    return make


def text(board: Leaderboard, *, width: int = 80, **more: Any) -> str:
    return "\n".join(leaderboard_text.lines(board, width=width, **more))


def test_places_go_to_those_that_keep_bounds_and_equal_ones_share_theirs(made: Callable[..., Study]) -> None:
    board = leaderboard(made())
    assert [entry.setting for entry in board.entries] == [
        *map(name_of, (ONE, TWO, DEFAULT, TOO_SLOW)),
        "max_num_seqs=2048, num_scheduler_steps=1",
    ]
    assert [entry.place for entry in board.entries] == [1, 1, 3, None, None]
    assert [entry.overrides for entry in board.entries] == [1, 2, 0, 2, 1]
    assert [entry.is_tied for entry in board.entries] == [True, True, False, False, False]
    assert board.knobs == ("max_num_seqs", "num_scheduler_steps")
    assert board.same == {"kv_cache_dtype": "auto"}
    # 15 requests per second against 10 of the default.
    assert board.baseline == name_of(DEFAULT) and board.is_default
    assert [entry.changes[0] for entry in board.entries] == pytest.approx([0.5, 0.5, 0.0, 1.0, None])
    assert board.entries[0].standing == standings.BEST
    assert board.entries[3].breaks == "p99_ttft_ms at 16 QPS <= 2000 (is 2,500, 25 % over)"
    assert board.entries[4].why_none == "failed: out_of_memory"


def test_leaderboard_as_json_has_every_setting_with_its_numbers(
    made: Callable[..., Study], capsys: pytest.CaptureFixture[str]
) -> None:
    study = made()
    assert main(["leaderboard", str(study.folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    board = leaderboard(study)
    assert [each["setting"] for each in told["settings"]] == [entry.setting for entry in board.entries]
    (objective,) = told["objectives"]
    assert [each["changes"][objective] for each in told["settings"]] == [
        entry.changes[0] for entry in board.entries
    ]
    first, slow = told["settings"][0], told["settings"][3]
    assert first["keeps_bounds"] and first["values"][objective]["mean"] == 15.0
    assert first["knobs"] == dict(board.entries[0].knobs)
    assert not slow["keeps_bounds"] and slow["breaks"][0]["value"] == 2500
    assert told["settings"][4]["why_none"] == "failed: out_of_memory"


def test_lines_say_who_ties_who_breaks_a_bound_and_what_all_share(made: Callable[..., Study]) -> None:
    shown = text(leaderboard(made()), is_all=True)
    assert re.findall(r"^ *(\d[=!]?)  ", shown, re.MULTILINE) == ["1", "2=", "3", "4!", "5"]
    assert "2,500 +25 %!" in shown
    assert "2 settings share the best number; row 1 is\n  recommended" in shown
    assert "equal for all: kv_cache_dtype=auto, 4 GPUs" in shown
    assert "against row 3, the default" in shown
    assert "4 have numbers, 3 keep every bound,\n  1 failed: out_of_memory" in shown


def test_interval_over_engine_starts_stands_beside_mean(made: Callable[..., Study]) -> None:
    # Starts of 9 and 11: mean 10, standard error 1, t(1 degree, 97.5 %) = 12.71.
    board = leaderboard(made({DEFAULT: (10.0, 100.0)}, starts=(0.9, 1.1)))
    assert "10.00 ± 12.71" in text(board)
    assert "half of the 95 % interval" in text(board)


@pytest.mark.parametrize("width", [30, 60, 80, 120, 160])
def test_no_width_cuts_a_number(made: Callable[..., Study], width: int) -> None:
    shown = text(leaderboard(made()), width=width, is_all=True)
    for number in ("15.00", "20.00", "1,100", "2,500 +25 %!", "+100 %", "1024", "512"):
        assert re.search(rf"(?<![\d.,]){re.escape(number)}(?![\d,])", shown), number
    assert max(map(len, shown.splitlines())) <= max(width, 40)
    assert "\N{HORIZONTAL ELLIPSIS}" not in shown


def test_ten_are_shown_and_the_default_and_all_on_demand(
    made: Callable[..., Study], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    many = {(n, 10): (10.0 + n, 100.0) for n in range(1, 40)}
    study = made({DEFAULT: (10.0, 100.0), **many})
    monkeypatch.setenv("COLUMNS", "80")
    shown = {}
    for option in ((), ("--all",)):
        assert main(["leaderboard", str(study.folder), *option]) == 0
        shown[option] = capsys.readouterr().out
    rows = {option: len(re.findall(r"^ *\d+  ", told, re.MULTILINE)) for option, told in shown.items()}
    # Ten and the default; of all 41 settings one failed.
    assert rows == {(): 11, ("--all",): 41}
    assert "the first 10 of 41 settings" in shown[()]
    assert max(map(len, shown[()].splitlines())) <= 80


def test_places_of_several_objectives_are_fronts(trial: MakeTrial, study_folder: MakeFolder) -> None:
    # requests per second, p99 TPOT: a and b trade one for the other; c loses to a, d to a and c.
    numbers = {64: (10.0, 50.0), 128: (12.0, 80.0), 256: (9.0, 60.0), 512: (8.0, 70.0)}
    trials = [
        trial(knobs={"max_num_seqs": seqs}, runs=[[{RPS: rps, TPOT: tpot}]])
        for seqs, (rps, tpot) in numbers.items()
    ]
    study = Study.load(study_folder(*trials, about={"objectives": [FASTEST, PROMPTEST]}))
    board = leaderboard(study)
    assert [(entry.knobs["max_num_seqs"], entry.place) for entry in board.entries] == [
        *(("128", 1), ("64", 1), ("256", 2), ("512", 3)),
    ]
    assert [entry.standing for entry in board.entries] == ["front", "front", "", ""]
    assert "front 1: no other setting beats it" in text(board).replace("\n  ", " ")


def test_price_gives_cost_of_a_million_output_tokens(made: Callable[..., Study]) -> None:
    study = made(config={"study": {"price_per_gpu_hour": 3.6, "currency": "USD"}})
    # 4 GPUs at 3.6 an hour are 0.004 per second; at 2000 tokens per second 0.000002 each.
    assert leaderboard(study).entries[0].cost == pytest.approx(2.0)
    assert "(USD)" in text(leaderboard(study)) and "2.00" in text(leaderboard(study))


def test_heaviest_load_is_told_by_what_was_completed(trial: MakeTrial, study_folder: MakeFolder) -> None:
    search = RateSearch(low=12.0, high=12.0, resolution=1.0, bounds=((TTFT, 2000.0),))
    point = LoadPoint(dataset="sharegpt", num_prompts=10, request_rate_per_s=12.0, rate_search=search)
    trials = [
        trial(knobs={"max_num_seqs": seqs}, points=(point,), runs=[[{RPS: done, "max_rate_per_s": 12.0}]])
        for seqs, done in ((64, 7.78), (128, 8.5))
    ]
    objective = {"metric": "max_rate_per_s", "direction": "maximize"}
    study = Study.load(study_folder(*trials, about={"objectives": [objective]}))
    shown = text(leaderboard(study))
    assert "completed" in shown and "7.78" in shown and "8.50" in shown
    assert standings.best_lines(study)[0].startswith(
        "max_num_seqs=64: highest max_rate_per_s: 7.78 completed"
    )


def test_best_keeps_bounds_in_every_table_chart_and_sentence(made: Callable[..., Study]) -> None:
    study = made()
    best, faster = name_of(ONE), name_of(TOO_SLOW)
    board = leaderboard(study)
    assert [board.number(name) for name in (best, faster)] == [1, 4]
    assert list(standings.best(study)["setting"]) == [best]
    assert standings.best_lines(study, name=board.row_name) == [
        "row 1 (max_num_seqs=256, num_scheduler_steps=10): highest request_throughput_per_s, at 16 QPS: "
        "15.00 (tie); the same number has row 2 (max_num_seqs=512, num_scheduler_steps=10); recommended is "
        "the one with the fewest overrides"
    ]
    for metric in figures.metrics_of(study):
        table = figures.chart_table(study, metric)
        assert set(table.loc[table["standing"] == standings.BEST, "setting"]) == {best}
        assert set(table.loc[table["setting"] == faster, "standing"]) <= {standings.BREAKS}
    written = report.text(study, drawn=[])
    section = written.split("## Best setting", 1)[1].split("\n## ", 1)[0]
    assert section.lstrip().startswith(f"**{best}** has the highest")
    first, *_, last = [line for line in section.splitlines() if re.match(r"\| \d", line)]
    assert first.startswith("| 1 |") and last.startswith("| 4! |")
    (article,) = [path for path in blog.write([study], out=study.folder / "blog") if path.suffix == ".md"]
    assert f"({best}; verdict: tie)" in article.read_text(encoding="utf-8")


def test_grid_of_named_series_is_no_search(trial: MakeTrial, study_folder: MakeFolder) -> None:
    trials = [
        trial(series=(name,), knobs={"max_num_seqs": seqs}, runs=[[{RPS: 1.0}]])
        for seqs, name in enumerate("ab", start=1)
    ]
    assert not is_search(Study.load(study_folder(*trials)))


def test_wide_table_goes_on_in_a_second_block_with_its_first_column() -> None:
    results = [Column(head="#", cells=("1", "2")), Column(head="requests per second", cells=("12.50", "6"))]
    knobs = [Column(head="a_long_name", cells=("some words", "none"), is_number=False)]
    assert columns_text.lines([results, knobs], width=16) == [
        "   requests",
        "        per",
        "#    second",
        "-  --------",
        "1     12.50",
        "2         6",
        "",
        "   a_long_",
        "#  name",
        "-  ----------",
        "1  some words",
        "2  none",
    ]
