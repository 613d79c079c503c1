"""The command line as a new user meets it, on the simulated platform and without Ray."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pandas as pd
import pytest
import yaml

import sweeper
from sweeper import cli
from sweeper.processes.ports import ReservedPort
from tests.stubbed_node import stub
from tests.surroundings import running

QUICK = (
    "+experiment=case2_sched_steps",
    "platform=simulated",
    "executor=inline",
    "workload.num_prompts=40",
    "workload.request_rate_per_s=[16,null]",
)
A_SEARCH = (
    *("platform=simulated", "executor=inline", "workload=random", "knobs.tensor_parallel_size=4"),
    *("workload.num_prompts=20", "space.knobs.max_num_seqs=[8,16,32,64,128]"),
)
FOLDER = Path("outputs/case2_sched_steps-simulated")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = cli.main(arguments)
    told = capsys.readouterr()
    assert "Traceback" not in told.out + told.err
    return code, told.out + told.err


def test_case_2_ends_with_charts_table_and_line_for_production(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, told = run(capsys, *QUICK)
    assert code == cli.OK
    assert told.startswith("platform: simulated: asked for\n")
    assert "No GPU was measured: these numbers are simulated." in told
    assert "trials: 5 complete; started now: 5" in told
    assert "vllm serve meta-llama/Llama-3.1-70B-Instruct" in told
    assert "--enable-chunked-prefill=False" in told
    for metric in ("request_throughput_per_s", "mean_ttft_ms", "mean_tpot_ms"):
        for kind in ("png", "svg", "csv"):
            assert (FOLDER / "figures" / f"{metric}.{kind}").stat().st_size > 0
    frame = pd.read_parquet(FOLDER / "measurements")
    assert len(frame) == 10
    assert set(frame["provenance"]) == {"simulated"}
    assert (frame["completed"] == 40).all()
    assert "Simulated: no GPU was measured." in (FOLDER / "report.md").read_text()


def test_line_for_production_says_up_to_which_release_it_is_valid(
    capsys: pytest.CaptureFixture[str],
) -> None:
    steps = (
        *("knobs.num_scheduler_steps=15", "knobs.enable_chunked_prefill=false"),
        *("space.knobs.max_num_seqs=[8]", "workload.num_prompts=4"),
    )
    code, told = run(capsys, *A_SEARCH[:4], *steps, "study.name=steps")
    assert code == cli.OK
    lines = told.splitlines()
    (place,) = (number for number, line in enumerate(lines) if "--num-scheduler-steps 15" in line)
    assert lines[place].startswith("  vllm serve ")
    assert lines[place + 1] == (
        "  This line is for vLLM 0.6.2 and valid up to 0.10.0: newer releases lack --num-scheduler-steps. "
        "Nearest to it for vLLM 0.33.0, which was not measured: num_scheduler_steps=15 becomes "
        "async_scheduling=True."
    )
    assert lines[place + 2].startswith("  vllm serve ")
    assert "--async-scheduling" in lines[place + 2]


def test_what_line_for_production_needs_of_host_stands_in_lines_before_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, told = run(
        capsys, *A_SEARCH[:4], "knobs.host_numa_balancing=false", "space.knobs.max_num_seqs=[8]",
        "workload.num_prompts=4", "study.name=host",
    )  # fmt: skip
    assert code == cli.OK
    lines = told.splitlines()
    (place,) = (number for number, line in enumerate(lines) if line.startswith("  vllm serve "))
    assert lines[place - 1] == "  # needs: sysctl kernel.numa_balancing=0"


def test_same_command_again_measures_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, *QUICK)
    parts = {path: path.stat().st_mtime_ns for path in (FOLDER / "measurements").glob("*.parquet")}
    code, told = run(capsys, *QUICK)
    assert code == cli.OK
    assert "plan: 5 trials, 5 already in the store" in told
    assert "started now: 0" in told
    assert {path: path.stat().st_mtime_ns for path in (FOLDER / "measurements").glob("*.parquet")} == parts


def test_search_finds_and_names_its_best_setting(capsys: pytest.CaptureFixture[str]) -> None:
    code, told = run(
        capsys,
        "platform=simulated",
        "executor=inline",
        "search=tpe",
        "search.trials=4",
        "workload=random",
        "workload.num_prompts=20",
        "knobs.tensor_parallel_size=4",
        "knobs.max_model_len=8192",
        "space.knobs.max_num_seqs=1,64",
        "study.name=mine",
    )
    assert code == cli.OK
    # two points are all there are, whatever the budget
    assert "started now: 2" in told
    assert "best: row 1 (max_num_seqs=64): highest request_throughput_per_s" in told


def test_search_of_one_model_is_no_answer_for_another(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["+experiment=tune", "platform=simulated", "executor=inline", "search=random", "search.trials=2"]
    words.append("workload.num_prompts=20")
    assert cli.main([*words, "model=llama_3_1_8b_instruct"]) == cli.OK

    for plan in ("true", "false"):
        assert cli.main([*words, "model=qwen3_8b", f"plan={plan}"]) == cli.MISTAKE
        assert "give the new one a name of its own with study.name=" in capsys.readouterr().err
    assert cli.main([*words, "model=qwen3_8b", "study.name=another"]) == cli.OK


def test_trials_that_cannot_run_are_counted_and_explained(capsys: pytest.CaptureFixture[str]) -> None:
    code, told = run(
        capsys,
        "platform=simulated",
        "executor=inline",
        "workload=random",
        "workload.num_prompts=4",
        "knobs.max_model_len=8192",
        "space.knobs.tensor_parallel_size=4,16",
        "study.name=mine",
    )
    assert code == cli.OK
    assert "trials: 1 complete, 1 infeasible; started now: 1" in told
    assert "infeasible: needs 16 devices" in told


def test_of_many_settings_best_are_shown_and_equal_reasons_are_counted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, told = run(
        capsys,
        "platform=simulated",
        "executor=inline",
        "workload=random",
        "workload.num_prompts=16",
        "knobs.max_model_len=8192",
        f"space.knobs.max_num_seqs={','.join(str(n) for n in range(1, 15))}",
        "space.knobs.tensor_parallel_size=4,16",
        "space.rules=['max_num_seqs < 3 or tensor_parallel_size == 4']",
        "study.name=mine",
    )
    assert code == cli.OK
    assert "the first 10 of 16 settings; 14 have numbers, 2 infeasible" in " ".join(told.split())
    rows = told[told.index("leaderboard (simulated)") :].partition("--  ")[2].splitlines()[1:11]
    assert [row.split()[0].rstrip("=") for row in rows] == [str(place) for place in range(1, 11)]
    rates = [float(row.split()[1]) for row in rows]
    assert rates == sorted(rates, reverse=True)
    assert not {"1", "2", "3"} & {row.split()[-2] for row in rows}, (
        "one, two or three prompts at once are slow"
    )
    # What breaks the rule is no point and told of no more; the two that keep it do not fit on 8 devices.
    assert "2 times infeasible: needs 16 devices" in told


def test_many_reasons_of_one_kind_are_first_one_and_count_in_terminal_and_report(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, told = run(
        capsys,
        *("platform=simulated", "executor=inline", "workload=random", "workload.num_prompts=4"),
        *("space.knobs.max_num_seqs=1,2,3,4,5", "space.knobs.tensor_parallel_size=4,16"),
        *("knobs.max_model_len=8192", "search.method=grid", "study.name=mine"),
    )
    assert code == cli.OK
    assert "trials: 5 complete, 5 infeasible" in told
    lines = [line.strip() for line in told.splitlines() if "needs 16 devices" in line]
    assert [line.endswith(" (and 4 more like it)") for line in lines] == [False] * 3 + [True] * 2
    section = Path("outputs/mine/report.md").read_text().partition("## Trials without numbers")[2]
    assert section.count("needs 16 devices") == section.count("(and 4 more like it)") == 1
    assert "report.html names every setting." in section


def test_study_where_everything_fails_says_so_with_its_exit_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, told = run(
        capsys,
        "platform=simulated",
        "executor=inline",
        "workload=random",
        "workload.num_prompts=4",
        # The engine takes as many tokens as its device has room for, which are fewer than the client sends.
        "workload.input_len=100000",
        "platform.partition_mode=CPX",
        "platform.memory_mode=NPS4",
        "engine.release=0.32.0",
        "model=llama_3_1_8b_instruct",
        "knobs.max_model_len=-1",
        "study.name=mine",
        "space.knobs.max_num_seqs=4",
    )
    assert code == cli.NOTHING_COMPLETE
    assert "trials: 1 failed" in told
    assert "client: " in told


def test_plan_starts_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    code, told = run(capsys, *QUICK, "plan=true")
    assert code == cli.OK
    assert "no_chunk_steps15" in told
    assert "runs" in told
    assert not Path("outputs").exists()
    run(capsys, *QUICK)
    _, told = run(capsys, *QUICK, "plan=true")
    assert "stored: complete" in told
    assert "5: 0 run, 0 refused, 5 in the store" in told
    assert "predicted on" not in told


def test_plan_of_80_columns_keeps_knob_and_number_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["+experiment=cpu_smoke", "platform=simulated", "plan=true"]) == cli.OK
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if line.startswith("│")]
    assert any("max_num_batched_tokens=1024 " in row for row in rows)
    assert all(row.endswith("│") for row in rows)


def test_plan_says_how_long_it_would_take_and_writes_its_time_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, told = run(capsys, *QUICK, "plan=true", "plan_csv=plan.csv")
    # 5 trials of 4 devices, two at a time on 8: three rounds of 80 s of start and 2 loads, each of which ends
    # with an answer of 1200 tokens at 10 to 25 ms
    assert re.search(
        r"predicted on a real node: 5 trials of .+ in [5-7] min, 0\.\d\d node-hours", _unwrapped(told)
    )
    assert "(basis: modelled)" in _unwrapped(told)
    assert "expected error requests/s 6 %, mean TTFT 17 %, mean TPOT 12 % (runs not fitted)" in _unwrapped(
        told
    )
    assert "time-line: plan.csv; draw it with: python -m analysis timeline plan.csv" in told
    assert len(pd.read_csv("plan.csv")) == 5 * 4
    assert not Path("outputs").exists()
    run(capsys, *QUICK, "space.rules=['num_scheduler_steps not in (5, 15)']")
    _, told = run(capsys, *QUICK, "plan=true")
    assert "predicted on a real node: 2 trials of" in _unwrapped(told)
    assert told.count("runs again") == 2
    assert "(basis: seen: 3 trials of this study)" in _unwrapped(told)
    _, told = run(capsys, *QUICK, "plan=true", "study.isolation=exclusive", "study.name=other")
    # One at a time: half of the node idles.
    assert "devices idle 50 % of the time" in _unwrapped(told)


def _unwrapped(told: str) -> str:
    """Join lines that were broken for a terminal of 80 columns."""
    return " ".join(told.split())


def test_composed_configuration_is_printed_as_yaml(capsys: pytest.CaptureFixture[str]) -> None:
    code, told = run(capsys, *QUICK, "--cfg", "job")
    assert code == cli.OK
    assert yaml.safe_load(told)["workload"]["num_prompts"] == 40


def test_help_lists_commands_and_experiments(capsys: pytest.CaptureFixture[str]) -> None:
    code, told = run(capsys, "--help")
    assert code == cli.OK
    for word in ("cpu-vllm", "dashboard", "case2_sched_steps", "cpu_smoke", "Exit codes"):
        assert word in told
    assert run(capsys) == (code, told)


def test_examples_of_help_have_lines_of_their_own(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    ends = {"fit": " --sizes", "size": " --price 2.50", "tiny-model": " model.path=FOLDER"}
    for command, end in ends.items():
        with pytest.raises(SystemExit, match="0"):
            cli.main([command, "--help"])
        lines = capsys.readouterr().out.splitlines()
        shown = [line for line in lines if line.startswith("  python -m sweeper")]
        assert len(shown) == 2
        assert shown[-1].endswith(end)


def test_colons_in_a_path_are_not_read_as_the_name_of_a_picture(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cleanup", "data:key:b:x:1"]) == 2
    assert "error: data:key:b:x:1: is no folder." in capsys.readouterr().err


def test_version_is_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (cli.OK, f"{sweeper.__version__}\n")


def test_node_is_shown_device_by_device(capsys: pytest.CaptureFixture[str]) -> None:
    code, told = run(capsys, "node", "--platform", "simulated")
    assert code == cli.OK
    assert "node: modelled: 8 x modelled AMD Instinct MI300X (SPX/NPS1), 192 GiB each" in told
    rows = [line.split() for line in told.splitlines() if "│" in line]
    # What tells them apart; what they share is said once.
    assert [(row[0], row[-1]) for row in rows] == [(str(n), str(n // 4)) for n in range(8)]
    assert told.count("compute units 304") == 1
    code, told = run(capsys, "node", "--platform", "cuda")
    assert code == cli.MISTAKE
    assert "nvidia-smi" in told


def test_tiny_model_is_made_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    code, told = run(capsys, "tiny-model", "models")
    assert code == cli.OK
    assert (Path(told.strip()) / "tokenizer.json").is_file()
    code, told = run(capsys, "tiny-model", "--like", "mixtral", "--output", "models")
    assert code == cli.OK
    assert Path(told.strip()).name.startswith("tiny-mixtral-")
    code, told = run(capsys, "tiny-model", "models", "--output", "models")
    assert code == cli.MISTAKE
    assert "--output: is given beside a folder" in told


def test_cleaning_up_where_nothing_is_left_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    Path("outputs").mkdir()
    assert run(capsys, "cleanup") == (cli.OK, "0 processes ended\n")


def test_cleanup_looks_at_what_killed_trial_left_changed_on_host(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Of a boot before this one, so that nothing is to be put back on the machine that runs this test.
    left = {"owner": "1:1", "boot_id": "an earlier boot", "before": {"host_numa_balancing": "1"}}
    record = tmp_path / "host-restore.json"
    record.write_text(json.dumps(left))
    assert run(capsys, "cleanup", str(tmp_path)) == (cli.OK, "0 processes ended\n")
    assert not record.exists()
    record.write_text("{}")
    code, said = run(capsys, "cleanup", str(tmp_path))
    assert code == cli.AT_RISK
    assert "is no record of ours" in said


def test_plan_of_search_counts_finalists_and_tells_what_may_end_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    search = ["search.method=tpe", "search.trials=4", "search.max_hours=2"]
    finals = ["search.finalists=1", "search.final_repeats=3"]
    code, told = run(capsys, *A_SEARCH, *search, *finals, "plan=true")
    assert code == cli.OK
    told = " ".join(told.split())
    assert "search.max_hours=2 ends the study earlier" in told
    assert "then the best 1 and the default start 3 times each" in told
    # 4 trials, and 3 starts of the best and of the default.
    assert "10 trials of" in told
    _, told = run(capsys, *A_SEARCH, *search, "plan=true")
    assert "4 trials of" in " ".join(told.split())


def test_dashboard_without_study_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    code, told = run(capsys, "dashboard")
    assert code == cli.MISTAKE
    assert "outputs/optuna.db: does not exist. Run an experiment first" in told


def test_wrong_argument_of_command_is_mistake_like_any_other(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, told = run(capsys, "node", "--platfrom", "cpu")
    assert code == cli.MISTAKE
    assert "unrecognized arguments: --platfrom cpu. See: python -m sweeper node --help" in told


def test_defect_of_ours_is_told_without_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> int:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(cli._COMMANDS["node"], "run", broken)
    code, told = run(capsys, "node")
    assert code == cli.AT_RISK
    assert "a defect of this program: ZeroDivisionError: by zero" in told
    report = Path(told.split("report it with ")[1].strip())
    assert "Traceback" in report.read_text()
    report.unlink()


def test_optuna_dashboard_shows_study_with_named_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, *QUICK)
    with ReservedPort() as reserved:
        command = [sys.executable, "-m", "sweeper", "dashboard", "--port", str(reserved.port)]
        with running(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            answer = _answer(f"http://127.0.0.1:{reserved.port}/api/studies/1")
    study = json.loads(answer)
    assert study["objective_names"] == ["request_throughput_per_s"]
    assert [trial["state"] for trial in study["trials"]] == ["Complete"] * 5
    shown = {entry["key"] for entry in study["trials"][0]["user_attrs"]}
    assert {"mean_ttft_ms (16 QPS)", "provenance", "key", "devices"} <= shown


def _answer(url: str) -> str:
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                return str(response.read().decode())
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stop_keeps_what_is_finished_and_says_how_to_go_on(number: signal.Signals, code: int) -> None:
    # 60 settings of a second or so each, one at a time: there is time to stop in the middle.
    command = [
        *(sys.executable, "-m", "sweeper", "platform=simulated", "executor=inline", "study.name=mine"),
        *("executor.max_parallel=1", "knobs.tensor_parallel_size=4", "knobs.max_model_len=8192"),
        *("workload=sharegpt", "workload.request_rate_per_s=[16]"),
        f"space.knobs.max_num_seqs={','.join(str(n) for n in range(100, 160))}",
    ]
    sweep = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert sweep.stdout is not None
    lines = []
    for line in sweep.stdout:
        lines.append(line)
        if line.startswith("done") and sweep.poll() is None and len(lines) < 1000:
            sweep.send_signal(number)
            break
    rest, _ = sweep.communicate(timeout=120)
    assert sweep.returncode == code, rest
    assert "stopped. What is finished is kept; the same command goes on from here." in rest
    finished = len(list(Path("outputs/mine/measurements").glob("*.parquet")))
    assert 1 <= finished < 60


GERMAN = """\
# @package _global_
defaults:
  - override /model: llama_3_1_8b_instruct
study: {experiment: german, question: "Wie groß?"}
space:
  series:
    small: {label: Größe 8, knobs: {max_num_seqs: 8}}
    large: {label: Größe 16, knobs: {max_num_seqs: 16}}
"""


def test_letters_that_terminal_cannot_show_are_spelt_out(tmp_path: Path) -> None:
    experiment = tmp_path / "größe" / "experiment" / "german.yaml"
    experiment.parent.mkdir(parents=True)
    experiment.write_text(GERMAN, encoding="utf-8")

    def said(*words: str) -> str:
        environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
        told = subprocess.run(
            [sys.executable, "-m", *words], capture_output=True, env=environment, cwd=tmp_path / "größe"
        )
        assert told.returncode == 0, told.stdout + told.stderr
        return told.stdout.decode("ascii")

    sweep = said("sweeper", "--config-dir=.", "+experiment=german", *QUICK[1:])
    assert r"Gr\xf6\xdfe 16" in sweep
    study = tmp_path / "größe" / "outputs" / "german-simulated"
    assert r"gr\xf6\xdfe/outputs" in said("analysis", "figures", str(study))


@pytest.mark.parametrize("program", [["sweeper", "--help"], ["analysis", "columns"]])
def test_reader_that_has_seen_enough_is_no_error(program: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    told = subprocess.run(
        [sys.executable, "-m", *program], stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (told.returncode, told.stderr) == (0, "")


def test_node_cuts_no_name_and_no_address_at_80_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stub(tmp_path, monkeypatch)
    monkeypatch.setenv("COLUMNS", "80")
    code, told = run(capsys, "node", "--platform", "mi300x", "--json")
    assert code == cli.OK
    devices = json.loads(told)["devices"]
    assert len(devices) == 64
    code, told = run(capsys, "node", "--platform", "mi300x")
    for name in ("name", "bdf", "uuid"):
        assert all(device[name] in told for device in devices)
    # The first lines say why this platform and which node, the last what holds for the whole node.
    assert max(map(len, told.splitlines()[2:-1])) <= 80
