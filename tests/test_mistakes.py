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
        "command line: 'case2_sched_steps' is an experiment; expected +experiment=case2_sched_steps.",
    ),
    "no experiment at all": (
        ["platform=simulated"],
        "no experiment is given. Choose one with +experiment=NAME (known: ",
    ),
    "a misspelt command": (
        ["dashbord"],
        "'dashbord' is neither a command nor key=value. Did you mean 'dashboard'?",
    ),
    "a command of the analysis": (
        ["leaderboard", "outputs/mine"],
        "command line: 'leaderboard' is a command of the analysis; expected python -m analysis leaderboard. "
        "Its help: python -m analysis leaderboard --help",
    ),
    "time between tokens of answers of one token": (
        ["+experiment=tune", "platform=simulated", "workload.output_len=1"],
        "objective.reading_speed.metric: is mean_tpot_ms, and load point 'all at once' asks for answers of "
        "one token, which have no time between tokens; expected workload.output_len of 2 or more, or a "
        "metric such as mean_ttft_ms.",
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
    "a knob without its group": (
        [CASE_2, "tensor_parallel_size=8"],
        "command line: 'tensor_parallel_size' is not a key of the configuration. Knobs stand below knobs: "
        "knobs.tensor_parallel_size=8. See them all with: ",
    ),
    "a knob that varies without its group": (
        [CASE_2, "max_num_seq=64,256"],
        "Knobs stand below space.knobs: space.knobs.max_num_seqs=64,256.",
    ),
    "a variable without its group": (
        [CASE_2, "NCCL_MIN_NCHANNELS=112"],
        "Knobs stand below knobs: knobs.NCCL_MIN_NCHANNELS=112.",
    ),
    "a kind of platform": (
        [CASE_2, "platform=gpu"],
        "platform=gpu: there is no such platform. Known: auto (The machine is looked at: mi300x if AMD GPUs "
        "answer, cuda if NVIDIA's do, else simulated); cpu (The real vLLM (CPU build) on this machine's "
        "cores; each core plays the part of one GPU); cuda (A node with NVIDIA GPUs); mi300x (A node of ",
    ),
    "a model by its usual name": (
        [CASE_2, "model=llama-3.1-70b"],
        "there is no such model. Did you mean 'llama_3_1_70b_instruct'? Known: ",
    ),
    "a rule over a misspelt knob": (
        [CASE_2, "space.rules=['max_num_seq > 2']"],
        "space.rules[0]: 'max_num_seq > 2' names 'max_num_seq', which is no knob of this study and none of "
        "vLLM 0.6.2; the rule would never apply. Did you mean 'max_num_seqs'? Correct it.",
    ),
    "a start over a misspelt knob": (
        [CASE_2, "search=tpe", "space.knobs.max_num_seqs=64,256", "search.start=[{max_num_seq: 64}]"],
        "search.start[0]: 'max_num_seq' is not varied;",
    ),
    "a start over a misspelt knob for a method without starts": (
        [CASE_2, "space.knobs.max_num_seqs=64,256", "search.start=[{max_num_seq: 64}]"],
        "search.start[0]: 'max_num_seq' is not varied;",
    ),
    "a stage over a misspelt knob": (
        [CASE_2, "search=staged", "space.knobs.max_num_seqs=64,256", "search.stages=[[max_num_seq]]"],
        "search.stages: 'max_num_seq' is not varied;",
    ),
    "a condition over a misspelt knob": (
        [
            "space.knobs.max_num_seqs={choices: [64, 256], when: 'max_num_batched_token > 1'}",
            "knobs.max_num_batched_tokens=512",
        ],
        "names 'max_num_batched_token', which is no knob of this space;",
    ),
    "an unknown platform": (
        [CASE_2, "platform=mi300"],
        "command line: platform=mi300: there is no such platform. Did you mean 'mi300x'? "
        "Known: auto, cpu, cuda, mi300x, simulated.",
    ),
    "a knob that no column can hold": (
        [CASE_2, "+knobs.max_num_seqs=9223372036854775808"],
        "knobs.max_num_seqs: is a whole number of 64 bits; expected one between -9223372036854775807 and ",
    ),
    "such a knob among those that vary": (
        [CASE_2, "+space.knobs.max_num_seqs='8,9223372036854775808'"],
        "space.knobs.max_num_seqs: is a whole number of 64 bits; expected one between ",
    ),
    "a seed that no column can hold": (
        [CASE_2, "workload.client_seed=9223372036854775808"],
        "workload.client_seed: is a whole number of 64 bits; expected one between ",
    ),
    "a knob without an end": (
        [CASE_2, "+knobs.gpu_memory_utilization=inf"],
        "knobs.gpu_memory_utilization: is inf; expected a finite number.",
    ),
    "a text for a number": (
        [CASE_2, "engine.start_timeout_s=soon"],
        "engine.start_timeout_s: Value 'soon' of type 'str' could not be converted to Float. Correct ",
    ),
    "a broken number": (
        [CASE_2, "repeats=1.5"],
        "repeats: Value '1.5' of type 'float' could not be converted to Integer. Correct the value.",
    ),
    "a key that is left out and cannot be": (
        [CASE_2, "~space.rules"],
        "'~space.rules': every configuration has this key; expected a value. To empty it: space.rules=[] of",
    ),
    "a key that is left out and is not there": (
        [CASE_2, "~workload.request_rate"],
        "'~workload.request_rate': there is no such key to leave out; expected one that is there. "
        "Did you mean 'workload.request_rate_per_s'?",
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
    "a plan as JSON that is none": (
        [CASE_2, "plan_json=plan.json"],
        "plan_json: is given, and plan is false; expected a plan to write. Add plan=true.",
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
        "--config-dir: 'nowhere' is not there; expected a folder. Give the folder that holds experiment/.",
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
    "a negative time limit": (
        [CASE_2, "engine.start_timeout_s=-1"],
        "engine.start_timeout_s: is -1.0; expected a number above 0.",
    ),
    "a pause that never ends": (
        [CASE_2, "retry_pause_s=inf"],
        "retry_pause_s: is inf; expected 0 or more.",
    ),
    "no time for the client to start": (
        [CASE_2, "client.start_timeout_s=0"],
        "client.start_timeout_s: is 0.0; expected a number above 0.",
    ),
    "more devices than there are": (
        [CASE_2, "platform.devices=99"],
        "platform.devices: is 99; expected at most 8, which node ",
    ),
    "an unknown partition mode": (
        [CASE_2, "platform.partition_mode=XPX"],
        "platform.partition_mode, platform.memory_mode: partition mode: got 'XPX'; expected one of SPX, ",
    ),
    "no tensor parallelism at all": (
        ["space.knobs.tensor_parallel_size=[0,8]"],
        "knobs.tensor_parallel_size: is 0; expected a whole number of at least 1.",
    ),
    "no repeats": ([CASE_2, "repeats=-3"], "repeats: is -3; expected a number above 0."),
    "no prompts at all": (
        [CASE_2, "workload.num_prompts=[]"],
        "workload.num_prompts: is an empty list; expected at least one value.",
    ),
    "a ratio of one": (
        [CASE_2, "workload.range_ratio=1"],
        "workload.range_ratio: is 1.0; expected 0 <= ratio < 1.",
    ),
    "a search method": (
        [CASE_2, "search.method=bayes"],
        "search.method: 'bayes' is not allowed; expected one of grid, random, tpe, nsga2, gp, guided, "
        "staged.",
    ),
    "a seed below zero": ([CASE_2, "search.seed=-1"], "search.seed: is -1; expected 0 or more."),
    "a client": (
        [CASE_2, "client.kind=wrk"],
        "client.kind: 'wrk' is not allowed; expected one of vllm_bench,",
    ),
    "an engine": (
        [CASE_2, "engine.kind=trtllm"],
        "engine.kind: 'trtllm' is not allowed; expected one of auto,",
    ),
    "an address without an endpoint": (
        [CASE_2, "engine.url=http://x"],
        "engine.url: is given, and engine.kind is 'simulated', which starts its own server.",
    ),
    "a release": ([CASE_2, "engine.release=abc"], "'abc' is no release of vLLM; expected a version such as"),
    "a secret in the open": (
        [CASE_2, "study.results=s3://u:p@b/x"],
        "study.results: 's3://u:***@b/x' holds a secret, and is kept with the study; expected none.",
    ),
    "no place for results": (
        [CASE_2, "study.outputs="],
        "study.outputs: is empty; expected the folder of all",
    ),
    "no trial at once": (
        [CASE_2, "executor.max_parallel=0"],
        "executor.max_parallel: is 0; expected a number above 0.",
    ),
    "no devices": ([CASE_2, "platform.devices=0"], "platform.devices: is 0; expected a number above 0."),
    "a parameter of the model": (
        [CASE_2, "calibration.x=1"],
        "calibration: got 'x'; expected one of gemm_frac,",
    ),
    "a type of weights": (
        [CASE_2, "model.dtype=int4"],
        "model.dtype: 'int4' is not allowed; expected one of",
    ),
    "half a rule": (
        [CASE_2, "space.rules=['max_num_seqs >']"],
        "space.rules: 'max_num_seqs >' is not an expression; expected a comparison of knobs",
    ),
    "a range without steps": (
        [CASE_2, "space.knobs.max_num_seqs=range(1,9,0)"],
        "space.knobs.max_num_seqs: 'range(1,9,0)' has step 0; expected another step, such as 1.",
    ),
    "a grid without end": (
        [CASE_2, "space.knobs.max_num_seqs=range(1,1000000)"],
        "points (series 5 x max_num_seqs 999,999); expected at most 20,000 (search.grid_limit)",
    ),
    "half a range": (
        [CASE_2, "space.knobs.max_num_seqs={low: 1}"],
        "space.knobs.max_num_seqs: high is None; expected a number.",
    ),
    "a value that the knob lacks": (
        [CASE_2, "knobs.kv_cache_dtype=fp3"],
        "knob 'kv_cache_dtype' = 'fp3': vLLM 0.6.2 has no such value; expected one of auto, fp8, fp8_e4m3.",
    ),
    "a load point that is none": (
        [CASE_2, "workload.points=[1]"],
        "workload.points[0]: is 1; expected such as {input_len: 128, output_len: 1}.",
    ),
    "a plan into no folder": (
        [CASE_2, "plan=true", "plan_csv=/dev/null/x.csv"],
        "plan_csv: /dev/null/x.csv: cannot be written (/dev/null is no folder)",
    ),
    "a plan as JSON into no folder": (
        [CASE_2, "plan=true", "plan_json=/dev/null/x.json"],
        "plan_json: /dev/null/x.json: cannot be written (/dev/null is no folder)",
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
    "a list for a file": ("- a\n- b", "configuration"),
    "a letter that YAML forbids": ("study: {name: \x98}", "mine.yaml: is not YAML: "),
    "a rule of nothing": (
        "space: {knobs: {max_num_seqs: [1]}, rules: [null]}",
        "rules",
    ),
    "a range beyond numbers": (
        "space: {knobs: {max_num_seqs: {low: 1, high: .inf}}}",
        "space.knobs.max_num_seqs: high is inf; expected a number between -1e18 and 1e18.",
    ),
    "a rate that is no number": (
        "workload: {request_rate_per_s: .nan}\nspace: {knobs: {block_size: [8, 16]}}",
        "workload.request_rate_per_s: is nan; expected a number above 0, or null.",
    ),
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
    "a knob without its group": (
        "max_num_seqs: 8",
        "'max_num_seqs' is not a key of the configuration. Knobs stand below knobs: knobs.max_num_seqs=",
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
def test_mistake_at_command_line_is_answered_in_one_sentence(
    mistake: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, message = AT_THE_COMMAND_LINE[mistake]
    if not any(text.startswith(("platform", "platfrom")) for text in arguments) and len(arguments[0]) > 9:
        arguments = [*arguments, "platform=simulated"] if "=" in arguments[0] else arguments
    told = refused(arguments, capsys)
    assert told.startswith("error: ")
    assert " ".join(message.split()) in told


@pytest.mark.parametrize("mistake", IN_YAML)
def test_mistake_in_file_is_answered_with_files_name_or_key(
    mistake: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, message = IN_YAML[mistake]
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{content}\n")
    told = refused(["--config-dir", "mine", "+experiment=mine", "platform=simulated"], capsys)
    assert " ".join(message.split()) in told
