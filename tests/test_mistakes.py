"""What a new user gets wrong, and the one sentence that answers each: no traceback, nothing started."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeper import cli

CASE_2 = "+experiment=case2_sched_steps"

AT_THE_COMMAND_LINE = {
    "an unknown experiment": (
        ["+experiment=case2_sched_step"],
        "command line: experiment=case2_sched_step: there is no such experiment. "
        "Did you mean 'case2_sched_steps'? Known: ",
    ),
    "an experiment without its key": (
        ["case2_sched_steps"],
        "command line: 'case2_sched_steps' is neither a command nor key=value. "
        "Did you mean 'case2_sched_steps'? An experiment is chosen with +experiment=NAME.",
    ),
    "no experiment at all": (
        ["platform=simulated"],
        "no experiment is given. Choose one with +experiment=NAME (known: ",
    ),
    "a misspelt command": (
        ["dashbord"],
        "'dashbord' is neither a command nor key=value. Did you mean 'dashboard'?",
    ),
    "a misspelt key": (
        [CASE_2, "workload.num_prompt=10"],
        "command line: 'workload.num_prompt' is not a key of the configuration. "
        "Did you mean 'workload.num_prompts'? See them all with: python -m sweeper --cfg job",
    ),
    "a misspelt key with a plus": (
        [CASE_2, "+workload.num_prompt=10"],
        "'workload.num_prompt' is not a key of the configuration. Did you mean 'workload.num_prompts'?",
    ),
    "a misspelt group": (
        [CASE_2, "platfrom=cpu"],
        "'platfrom' is not a key of the configuration. Did you mean 'platform'?",
    ),
    "an unknown platform": (
        [CASE_2, "platform=mi300"],
        "command line: platform=mi300: there is no such platform. Did you mean 'mi300x'? "
        "Known: auto, cpu, cuda, mi300x, simulated.",
    ),
    "a text for a number": (
        [CASE_2, "engine.start_timeout_s=soon"],
        "engine.start_timeout_s: Value 'soon' of type 'str' could not be converted to Float. Correct ",
    ),
    "a broken number": (
        [CASE_2, "repeats=1.5"],
        "repeats: Value '1.5' of type 'float' could not be converted to Integer. Correct the value.",
    ),
    "an unknown isolation": (
        [CASE_2, "study.isolation=exclusiv"],
        "study.isolation: 'exclusiv' is not allowed; expected one of shared, exclusive. "
        "Did you mean 'exclusive'?",
    ),
    "an unknown order": (
        [CASE_2, "study.order=shortest_first"],
        "study.order: 'shortest_first' is not allowed; expected one of longest_first, as_written, shuffled.",
    ),
    "a file for a plan that is none": (
        [CASE_2, "plan_csv=plan.csv"],
        "plan_csv: is given, and plan is false; expected a plan to write. Add plan=true.",
    ),
    "zero prompts": (
        [CASE_2, "workload.num_prompts=0"],
        "workload.num_prompts: is 0; expected a whole number above 0.",
    ),
    "a text among rates": (
        [CASE_2, "workload.request_rate_per_s=[16,fast]"],
        "workload.request_rate_per_s: is 'fast'; expected a number above 0, or null.",
    ),
    "a list without brackets": (
        [CASE_2, "workload.request_rate_per_s=16,32"],
        "command line: 'workload.request_rate_per_s=16,32' gives several values; expected one. "
        "For a list write 'workload.request_rate_per_s=[16,32]'.",
    ),
    "a knob varied where it is fixed": (
        [CASE_2, "knobs.max_num_seqs=64,256"],
        "gives several values; expected one. To vary a knob write space.knobs.max_num_seqs=64,256.",
    ),
    "an unclosed bracket": (
        [CASE_2, "workload.request_rate_per_s=[16"],
        "command line: 'workload.request_rate_per_s=[16' cannot be read; expected key=value, such as ",
    ),
    "multirun": (
        [CASE_2, "--multirun"],
        "command line: '--multirun' is not needed: the space says what varies. ",
    ),
    "an unknown option": ([CASE_2, "--dry-run"], "command line: '--dry-run' is not an option. "),
    "a config folder that is not there": (
        [CASE_2, "--config-dir", "nowhere"],
        "--config-dir: 'nowhere' is not a folder. Give the folder that holds experiment/.",
    ),
    "a study name with a slash": (
        [CASE_2, "study.name=../escape"],
        "study.name: '../escape' cannot name a folder; expected letters, digits, '.', '_' and '-'.",
    ),
    "an unknown metric": (
        [CASE_2, "objective.throughput.metric=mean_ttft"],
        "objective.throughput.metric: 'mean_ttft' is not a metric. Did you mean 'mean_ttft_ms'?",
    ),
    "a search without a budget": (
        [CASE_2, "search=tpe", "search.trials=null"],
        "search.trials: is not given; expected how many trials search=tpe may spend.",
    ),
    "a misspelt knob": (
        [CASE_2, "knobs.max_num_seq=64"],
        "max_num_seq",
    ),
    "a knob that the release lacks": (
        [CASE_2, "engine.release=0.11.0"],
        "0.10.1",
    ),
    "a setting of Hydra's": (
        [CASE_2, "hydra.run.dir=elsewhere"],
        "command line: 'hydra.run.dir=elsewhere' is a setting of Hydra; this program has no use for it.",
    ),
    "a continuous grid": (
        ["space.knobs.gpu_memory_utilization={low: 0.8, high: 0.9}"],
        "space.knobs.gpu_memory_utilization: a continuous or logarithmic range has no grid; ",
    ),
    "GPUs that are not there": (
        [CASE_2, "platform=mi300x"],
        "platform=mi300x: amd-smi",
    ),
}

IN_YAML = {
    "a misspelt key": (
        "stduy: {name: x}",
        "experiment/mine.yaml: 'stduy' is not a key of the configuration. Did you mean 'study'?",
    ),
    "a misspelt nested key": (
        "study: {experiment: mine, qestion: Why}",
        "experiment/mine.yaml: 'study.qestion' is not a key of the configuration. "
        "Did you mean 'study.question'?",
    ),
    "a wrong type": (
        "runs_per_start: many",
        "experiment/mine.yaml: runs_per_start: Value 'many' of type 'str' could not be converted to Integer.",
    ),
    "broken YAML": ("study: {name: x", "mine.yaml"),
    "an unknown model": (
        "defaults: [{override /model: llama_4}]",
        "there is no 'llama_4'.",
    ),
    "a range upside down": (
        "space: {knobs: {max_num_seqs: {low: 512, high: 256}}}",
        "space.knobs.max_num_seqs: has low=512 above high=256; expected low <= high. ",
    ),
    "a rule that calls": (
        "space: {knobs: {max_num_seqs: [1]}, rules: ['exit()']}",
        "space.rules: 'exit()' uses Call; expected only knob names, values, comparisons, ",
    ),
    "a list as a knob": (
        "knobs: {max_num_seqs: [1, 2]}\nspace: {knobs: {block_size: [8, 16]}}",
        "knobs.max_num_seqs: is list; expected a number, a text, true or false.",
    ),
    "a misspelt part of a series": (
        "space: {series: {a: {lable: A}}}",
        "lable' is not a key of the configuration.",
    ),
    "a direction that is none": (
        "objective: {throughput: {direction: up}}\nspace: {knobs: {block_size: [8, 16]}}",
        "objective.throughput.direction: 'up' is not allowed; expected one of maximize, minimize.",
    ),
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    code = cli.main(arguments)
    told = capsys.readouterr()
    text = told.out + told.err
    assert code in (cli.MISTAKE, cli.AT_RISK), text
    assert "Traceback" not in text
    assert not Path("outputs").exists() or not list(Path("outputs").glob("*/measurements/*"))
    return " ".join(told.err.split())


@pytest.mark.parametrize("mistake", AT_THE_COMMAND_LINE)
def test_a_mistake_at_the_command_line_is_answered_in_one_sentence(
    mistake: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, message = AT_THE_COMMAND_LINE[mistake]
    if not any(text.startswith(("platform", "platfrom")) for text in arguments) and len(arguments[0]) > 9:
        arguments = [*arguments, "platform=simulated"] if "=" in arguments[0] else arguments
    told = refused(arguments, capsys)
    assert told.startswith("error: ")
    assert " ".join(message.split()) in told


@pytest.mark.parametrize("mistake", IN_YAML)
def test_a_mistake_in_a_file_is_answered_with_the_files_name_or_key(
    mistake: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, message = IN_YAML[mistake]
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{content}\n")
    told = refused(["--config-dir", "mine", "+experiment=mine", "platform=simulated"], capsys)
    assert " ".join(message.split()) in told
