"""Sizes that nobody can mean are refused at once; long work before the first trial says how far it is."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from sweeper import cli
from sweeper.cli.long_work import LongWork

PLAN = ("+experiment=case2_sched_steps", "platform=simulated", "plan=true")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["repeats=1000000000"], "repeats: is 1,000,000,000; expected at most 10,000. Lower it."),
        (["runs_per_start=20000"], "runs_per_start: is 20,000; expected at most 10,000."),
        (["max_attempts=20000"], "max_attempts: is 20,000; expected at most 10,000."),
        (["search.finalists=20000"], "search.finalists: is 20,000; expected at most 10,000."),
        (["search.final_repeats=20000"], "search.final_repeats: is 20,000; expected at most 10,000."),
        (
            ["search.method=random", "search.trials=10000000"],
            "search.trials: is 10,000,000; expected at most 1,000,000.",
        ),
        (["search.grid_limit=10000000"], "search.grid_limit: is 10,000,000; expected at most 1,000,000."),
        (["search.grid_limit=0"], "search.grid_limit: is 0; expected"),
        (["workload.num_prompts=1000000000"], "expected a whole number above 0, below 10,000,000"),
        (
            ["workload.request_rate_per_s=[1e-320]"],
            "is 1e-320; expected a number above 0 (from 1e-09), or null.",
        ),
        (["study.price_per_gpu_hour=1e308"], "is 1e+308; expected one from 1e-09 to 1e+12. Correct it."),
        (["engine.start_timeout_s=1e-300"], "is 1e-300; expected one from 1e-09 to 1e+12. Correct it."),
        (["workload.burstiness=1e-300"], "is 1e-300; expected one from 1e-09 to 1e+12. Correct it."),
        (["repeats=" + "1" * 5000], "holds a number of more than 4,300 digits"),
        (["knobs.max_num_seqs=" + "1" * 5000], "holds a number of more than 4,300 digits"),
    ],
)
def test_size_that_cannot_be_is_refused(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*PLAN, *words]) == cli.MISTAKE
    assert told in capsys.readouterr().err


UNFOLDING = "".join(f"b{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 9))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"a: &a0 [x]\n{UNFOLDING}", "its YAML aliases (*name) unfold to more than 100,000 values"),
        ("a: &a [*a]\n", "its YAML aliases (*name) unfold to more than 100,000 values"),
        (f"repeats: {'1' * 5000}\n", "cannot be read as configuration: Exceeds the limit (4300 digits)"),
    ],
    ids=["unfolding", "endless", "digits"],
)
def test_file_that_unfolds_to_more_than_memory_holds_is_refused(
    text: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine/experiment").mkdir(parents=True)
    Path("mine/experiment/large.yaml").write_text(f"# @package _global_\n{text}")
    assert cli.main(["--config-dir", "mine", "+experiment=large", *PLAN[1:]]) == cli.MISTAKE
    shown = capsys.readouterr().err
    assert "mine/experiment/large.yaml: " in shown
    assert told in shown


def test_alias_that_saves_typing_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine/experiment").mkdir(parents=True)
    Path("mine/experiment/small.yaml").write_text(
        "# @package _global_\ndefaults: [{override /workload: random}]\nstudy: {experiment: small}\n"
        "space: {knobs: {max_num_seqs: &counts [64, 128], max_num_batched_tokens: [8192]}}\n"
        "knobs: {tensor_parallel_size: 4, max_model_len: 8192}\nsearch: {start: [], stages: []}\n"
        "workload: {num_prompts: *counts}\n"
    )
    assert cli.main(["--config-dir", "mine", "+experiment=small", *PLAN[1:]]) == cli.OK
    assert "max_num_seqs=128" in " ".join(capsys.readouterr().out.split())


def test_long_work_says_how_far_it_is_and_how_long_it_will_last() -> None:
    now_s = [0.0]
    out = io.StringIO()
    work = LongWork(Console(file=out, width=80), "planning settings", clock=lambda: now_s[0])
    work.seen(10, 1000)
    assert out.getvalue() == ""
    for now_s[0] in (4.0, 5.0, 14.0):
        work.seen(int(now_s[0] * 10), 1000)
    # 4 s for 40 of 1000 leave 96 s; then one line in ten seconds.
    assert out.getvalue().splitlines() == [
        "planning settings: 40 of 1,000, about 96 s left (Ctrl-C stops it)",
        "planning settings: 140 of 1,000, about 86 s left (Ctrl-C stops it)",
    ]


def test_large_grid_is_planned_once_and_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeper.cli.long_work._FIRST_S", 0.0)
    grid = "space.knobs.max_num_seqs=[" + ",".join(str(count) for count in range(256, 456)) + "]"
    assert cli.main([*PLAN, grid]) == cli.OK
    told = capsys.readouterr().out
    assert "planning settings: " in told
    assert "placing trials: " in told


LARGE = (
    *("platform=simulated", "executor=inline", "workload=random", "workload.num_prompts=2"),
    *("knobs.tensor_parallel_size=8", "space.knobs.max_num_seqs={low: 1, high: 1000, step: 1}"),
    "space.knobs.block_size=[8,16,32]",
)


def test_grid_above_its_limit_is_refused_with_its_size_and_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*LARGE, "search.grid_limit=2999"]) == cli.MISTAKE
    assert (
        "error: space.knobs: is a grid of 3,000 points (max_num_seqs 1,000 x block_size 3); expected at most "
        "2,999 (search.grid_limit), for each of them would be measured. Search it with search=guided "
        "search.trials=100 (or search=tpe), give knobs fewer values, or raise search.grid_limit.\n"
    ) in capsys.readouterr().err
    assert not (tmp_path / "outputs").exists()


def test_plan_of_grid_above_its_limit_answers_from_points_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    rule = "space.rules=['max_num_seqs <= 500']"
    assert cli.main([*LARGE, rule, "search.grid_limit=2999", "plan=true"]) == cli.OK
    told = " ".join(capsys.readouterr().out.split())
    assert "is a grid of 3,000 points (max_num_seqs 1,000 x block_size 3, rules aside)" in told
    (looked_at, can_run) = re.findall(
        r"3,000 combinations, ([\d,]+) drawn at .* at: ([\d,]+) distinct", told
    )[0]
    # Two thousand are drawn of three thousand, some twice; the rule lets half of them run.
    assert 1200 < int(looked_at.replace(",", "")) < 2000
    assert abs(int(can_run.replace(",", "")) / int(looked_at.replace(",", "")) - 0.5) < 0.1
    (runs,) = re.findall(r"about ([\d,]+) would run, by the points drawn", told)
    assert abs(int(runs.replace(",", "")) / 1500 - 1) < 0.2
    assert "predicted the whole grid about" in told
    assert not (tmp_path / "outputs").exists()


def test_same_size_as_the_limit_is_enumerated(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*LARGE, "space.knobs.max_num_seqs.high=2", "search.grid_limit=6", "plan=true"]) == cli.OK
    assert "6: 6 run, 0 refused" in capsys.readouterr().out
    # A search proposes as many as it is told to, whatever the space.
    assert cli.main([*LARGE, "search=random", "plan=true"]) == cli.OK
