"""What commands tell of the product (``list``, ``explain``, ``node``, ``fit``), as text and as JSON."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest

from sweeper import cli, config, knobs
from sweeper.cli.experiments import releases_with
from sweeper.cli.explain import every_name, explained
from sweeper.errors import FailureClass


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main([*arguments]) == cli.OK
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("max_num_seqs", ("(knob)", "most sequences in one step [sequences]", "in vLLM 0.4.2 to")),
        ("max-num-seqs", ("max_num_seqs (knob)",)),
        ("instances", ("engines of one assignment that share a trial's devices and load [engines]",)),
        ("VLLM_USE_V1", ("engine generation",)),
        (
            "p99_ttft_ms",
            ("(column)", "99th percentile of the time to first token", "unit: ms", "better: lower"),
        ),
        ("knob.max_num_seqs", ("Value of knob max_num_seqs that was asked for",)),
        ("energy_per_output_token_j", ("worked out on reading", "unit: J", "better: lower")),
        ("accuracy_loss_high", ("Newcombe's", "unit: fraction")),
        ("port", ("(class of failures)", "the port was in use", "tried again by itself: yes")),
        ("crash", ("tried again by itself: no; retry_failed=true does",)),
        ("out_of_memory", ("what to do: lower max_num_batched_tokens, max_num_seqs or max_model_len",)),
        ("kv_cache_dtype", ("may change answers: ",)),
    ],
)
def test_name_is_explained(capsys: pytest.CaptureFixture[str], name: str, words: tuple[str, ...]) -> None:
    text = told(capsys, "explain", name)
    for each in words:
        assert each in text


def test_explanation_as_json_is_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = json.loads(told(capsys, "explain", "--json", "max_num_batched_tokens"))
    release = knobs.releases()[-1]
    assert found["default"] == {"vllm": release, "value": knobs.defaults(release)["max_num_batched_tokens"]}
    assert (found["kind"], found["smallest"]) == ("knob", 1)


@pytest.mark.parametrize("failure", list(FailureClass))
def test_every_class_of_failures_has_its_remedy(failure: FailureClass) -> None:
    (found,) = (each for each in explained(failure) if each["kind"] == "class of failures")
    assert found["what to do"]
    assert not found["what to do"].endswith(".")


def test_every_name_has_an_explanation() -> None:
    for name in every_name():
        assert all(each["meaning"] not in ("", "not known") for each in explained(name)), name
        assert list(explained(name)), name


def test_unknown_name_gets_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain", "kv_cache_dtyp"]) == cli.MISTAKE
    assert "no class of failures. Did you mean 'kv_cache_dtype'?" in " ".join(capsys.readouterr().err.split())


def test_every_class_of_failures_has_a_meaning() -> None:
    assert all(each.meaning for each in FailureClass)


def test_list_has_every_experiment_with_its_question(capsys: pytest.CaptureFixture[str]) -> None:
    listed = {each["experiment"]: each for each in json.loads(told(capsys, "list", "--json"))}
    assert set(listed) == set(config.groups()["experiment"])
    assert all(each["question"].endswith("?") for each in listed.values())
    steps = listed["case2_sched_steps"]
    assert (steps["question"], steps["has_counterpart"]) == ("How many steps should vLLM plan at once?", True)
    # The number of steps is gone since 0.10.1.
    assert steps["last_vllm"] == "0.10.0"
    assert listed["cpu_smoke"]["platform"] == "cpu"

    text = told(capsys, "list")
    assert (
        "case2_sched_steps\n    How many steps should vLLM plan at once?\n    any platform; vLLM 0.6" in text
    )


def test_list_holds_the_users_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\n# Question: does it pay?\ndefaults:\n  - override /platform: cpu\n"
        "knobs: {max_num_seqs: 4}\nspace: {series: {a: {knobs: {async_scheduling: true}}}}\n",
        encoding="utf-8",
    )
    found = json.loads(told(capsys, "list", "--config-dir", str(tmp_path), "--json"))
    (mine,) = [each for each in found if each["experiment"] == "mine"]
    assert (mine["question"], mine["platform"]) == ("Does it pay?", "cpu")
    assert (mine["first_vllm"], mine["last_vllm"]) == releases_with(["async_scheduling"])


def test_list_reads_the_knobs_that_composing_gives() -> None:
    """Read without Hydra, and the same: the knobs of one experiment that is built on two other files."""
    (listed,) = [each for each in config.experiments() if each.name == "case2_sched_steps"]
    composed = config.compose_run(["+experiment=case2_sched_steps"])
    series = [each["knobs"] for each in composed["space"]["series"].values()]
    names = {*composed["knobs"], *composed["space"]["knobs"], *(name for each in series for name in each)}
    assert listed.knobs == names


def test_node_as_json_has_a_row_for_each_device(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(told(capsys, "node", "--platform", "simulated", "--mode", "CPX", "--json"))
    assert (found["platform"], found["compute mode"], len(found["devices"])) == ("simulated", "CPX", 64)
    assert all(row.keys() == found["devices"][0].keys() for row in found["devices"])


def test_fit_as_json_has_the_numbers_of_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("fit", "llama_3_1_70b_instruct", "max_model_len=8192", "--mode", "SPX")
    sizes = json.loads(told(capsys, *asked, "--json"))["sizes"]
    rows = [
        line.split()
        for line in told(capsys, *asked).splitlines()
        if line.split()[1:2] and line.split()[1].isdigit() and line.split()[0].startswith("SPX")
    ]
    assert [size["tensor_parallel_size"] for size in sizes] == [int(row[1]) for row in rows]
    assert [f"{size['weights_gib']:.1f}" for size in sizes] == [row[2] for row in rows]
    assert [size["fits"] for size in sizes] == [row[7] == "yes" for row in rows]
    assert [size["engines"] for size in sizes] == [int(row[-1]) for row in rows]

    every = json.loads(told(capsys, *asked, "--sizes", "--json"))
    assert every["model"].endswith("Llama-3.1-70B-Instruct")
    assert {size["mode"] for size in every["sizes"]} == {sizes[0]["mode"]}
    assert len(every["sizes"]) > len(sizes)


def completed(script: str, typed: str) -> list[str]:
    """Return what bash offers for a line, with the script that we print."""
    line = f"COMP_LINE={shlex.quote(typed)}; COMP_POINT=${{#COMP_LINE}}; _sweeper"
    shown = "printf '%s\\n' \"${COMPREPLY[@]}\""
    ended = subprocess.run(
        ["bash", "-c", f"{script}\n{line}; {shown}"], capture_output=True, text=True, check=True, timeout=60
    )
    assert ended.stderr == ""
    return ended.stdout.split()


def test_bash_completes_commands_experiments_and_groups(capsys: pytest.CaptureFixture[str]) -> None:
    script = told(capsys, "completion", "bash")
    assert completed(script, "sweeper expl") == ["explain"]
    assert completed(script, "sweeper +exp")[0].startswith("+experiment=")
    # Readline takes what follows an equals sign for a word of its own.
    assert completed(script, "sweeper +experiment=case2") == ["case2_async_scheduling", "case2_sched_steps"]
    assert completed(script, "sweeper +experiment=quick_start platform=s") == ["simulated"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_the_same_words(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    script = told(capsys, "completion", shell)
    for word in ("explain", "+experiment=case2_sched_steps", "platform=simulated", "completion"):
        assert f" {word} " in script or f'"{word} ' in script
