"""What an experiment becomes on a release that lacks its knobs; an amd-smi of ours shows a node of MI300X."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from sweeper import cli, config
from sweeper.prepare.platform import compose_for_platform
from sweeper.records import Platform
from tests.standin_server import write_interpreter
from tests.test_mi300x import write_amd_smi

EXPERIMENTS = config.groups()["experiment"]
MODES = {"cpx_density": "rocm_6.4_cpx_nps4"}
OTHER_QUESTIONS = ("case1_chunked_prefill", "case2_sched_steps", "case4_capture_len", "article_cases")


@dataclass(frozen=True, kw_only=True)
class Told:
    """How a command ended, and what it printed."""

    code: int
    text: str

    @property
    def first_line(self) -> str:
        return self.text.partition("\n")[0]


class Node:
    """A node of MI300X, and an interpreter with some release of vLLM."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def told(
        self, *overrides: str, release: str | None = None, python: str = "", platform: str = "mi300x"
    ) -> Told:
        """Run a sweep's command line on it."""
        if release is not None:
            self._monkeypatch.setenv("STANDIN_VERSION", release)
            python = str(write_interpreter(Path(f"venv-{release}")).absolute())
        self._monkeypatch.setenv("SWEEPER_VLLM_PYTHON", python)
        code = cli.main([*overrides, f"platform={platform}"])
        found = self._capsys.readouterr()
        return Told(code=code, text=found.out + found.err)

    def plan(self, *overrides: str, release: str | None = None, python: str = "") -> Told:
        """Plan on it; as ``told``."""
        return self.told(*overrides, "plan=true", release=release, python=python)


@pytest.fixture
def node(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> Node:
    write_amd_smi(tmp_path / "tools", getattr(request, "param", "rocm_6.2_spx"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'tools'}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return Node(monkeypatch, capsys)


@pytest.mark.vllm
@pytest.mark.parametrize(
    ("name", "node"),
    [(name, MODES.get(name, "rocm_6.2_spx")) for name in EXPERIMENTS],
    indirect=["node"],
    ids=EXPERIMENTS,
)
def test_every_experiment_is_planned_without_refusal_for_the_real_vllm(
    name: str, node: Node, vllm_python: str
) -> None:
    told = node.plan(f"+experiment={name}", python=vllm_python)
    assert told.code == cli.OK, told.text
    assert "engine: vLLM 0.32.0" in told.text
    # A combination that breaks a rule of its space is none of a search's points.
    ruled_out = re.compile(
        r"^refused \(\d+\)\s+[\d,]+: (for example: )?breaks the rule of the space", re.MULTILINE
    )
    assert not re.search(r"^refused|[1-9]\d* refused", ruled_out.sub("", told.text), re.MULTILINE), told.text
    assert not re.search(r": left out$", told.text, re.MULTILINE), "what became of a knob is said"


@pytest.mark.vllm
@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if re.match(r"case\d_|quick_start", name)])
def test_every_case_is_planned_without_refusal_for_the_real_vllm_on_two_cores(
    name: str, node: Node, vllm_python: str
) -> None:
    told = node.told(f"+experiment={name}", "plan=true", python=vllm_python, platform="cpu")
    assert told.code == cli.OK, told.text
    assert " run, 0 refused" in told.text, told.text
    assert "model: tiny-llama" in told.text


def test_first_lines_say_release_counterpart_and_what_became_of_each_knob(node: Node) -> None:
    told = node.plan("+experiment=case2_sched_steps", release="0.32.0")
    assert told.text.splitlines()[:4] == [
        "today: vLLM 0.32.0 has no VLLM_RPC_TIMEOUT, VLLM_USE_TRITON_FLASH_ATTN, num_scheduler_steps: "
        "case2_sched_steps runs as its counterpart case2_async_scheduling "
        "(conf/today/case2_sched_steps.yaml); strict=true refuses instead",
        "       VLLM_RPC_TIMEOUT: left out; only V0's front end waited by it",
        "       VLLM_USE_TRITON_FLASH_ATTN: left out; V1 chooses its attention backend by itself",
        "       num_scheduler_steps: async_scheduling, with stream_interval for output in batches",
    ]
    assert "study: case2_async_scheduling-mi300x in outputs/case2_async_scheduling-mi300x" in told.text


def test_missing_dataset_is_said_by_a_plan_and_refuses_a_run(node: Node) -> None:
    command = "python -m sweeper sharegpt sharegpt.json "
    planned = node.plan("+experiment=case2_sched_steps", release="0.32.0")
    assert planned.code == cli.OK
    assert "still missing: workload.dataset_path: is not given" in planned.text
    assert command in planned.text
    refused = node.told("+experiment=case2_sched_steps", release="0.32.0")
    assert refused.code == cli.MISTAKE
    assert command in refused.text
    assert cli.main(["sharegpt", "sharegpt.json"]) == cli.OK
    whole = node.plan(
        "+experiment=case2_sched_steps", "workload.dataset_path=sharegpt.json", release="0.32.0"
    )
    assert (whole.code, "still missing" in whole.text) == (cli.OK, False)


def test_strict_refuses_as_it_is_written(node: Node) -> None:
    told = node.plan("+experiment=case2_sched_steps", "strict=true", release="0.32.0")
    assert told.code == cli.MISTAKE
    assert "num_scheduler_steps was removed in vLLM 0.10.1" in told.text
    assert "Without strict=true, case2_sched_steps runs on this release as its counterpart." in told.text


def test_knob_of_the_command_line_that_is_gone_is_refused(node: Node) -> None:
    told = node.plan("+experiment=case8_max_num_seqs", "knobs.num_scheduler_steps=10", release="0.32.0")
    assert told.code == cli.MISTAKE
    assert "knob 'num_scheduler_steps' = 10: num_scheduler_steps was removed in vLLM 0.10.1" in told.text


def test_release_that_has_the_knobs_runs_the_experiment_itself(node: Node) -> None:
    told = node.plan("+experiment=case2_sched_steps", release="0.6.2")
    assert told.first_line == "platform: mi300x: asked for"
    assert "study: case2_sched_steps-mi300x in" in told.text


def test_release_that_is_stated_for_a_build_counts(node: Node) -> None:
    told = node.plan("+experiment=case2_sched_steps", "engine.release=0.32.0", release="0.1.dev9453")
    assert told.first_line.startswith("today: vLLM 0.32.0 has no")
    assert told.code == cli.OK


def test_release_without_the_knobs_of_either_names_the_one_that_the_counterpart_needs(node: Node) -> None:
    # num_scheduler_steps went with 0.10.1, and stream_interval came with 0.11.1.
    told = node.plan("+experiment=case2_sched_steps", release="0.10.2")
    assert told.code == cli.MISTAKE
    assert "case2_sched_steps has a counterpart without these knobs, for vLLM 0.11.1 or later." in told.text


@pytest.mark.parametrize(
    ("defaults", "remedy"),
    [
        (
            "[/experiment/case8_max_num_seqs, _self_]",
            "case8_max_num_seqs, which mine is built on, has a counterpart for this release: take "
            "/today/case8_max_num_seqs into its defaults in place of /experiment/case8_max_num_seqs.",
        ),
        (
            "[{override /workload: random}]",
            "What num_scheduler_steps was for is asked on this release by "
            "+experiment=case2_async_scheduling.",
        ),
    ],
)
def test_own_experiment_is_refused_and_told_the_counterpart(node: Node, defaults: str, remedy: str) -> None:
    folder = Path("mine/experiment")
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(
        f"# @package _global_\ndefaults: {defaults}\nstudy: {{experiment: mine, question: 'How many?'}}\n"
        "knobs: {num_scheduler_steps: 10}\nspace: {series: {one: {}}}\n"
    )
    told = node.plan("--config-dir=mine", "+experiment=mine", release="0.32.0")
    assert told.code == cli.MISTAKE
    assert "num_scheduler_steps was removed in vLLM 0.10.1" in told.text
    assert remedy in told.text


def test_own_experiment_may_have_a_counterpart_of_its_own(node: Node) -> None:
    head = "# @package _global_\ndefaults: [{override /workload: random}]\n"
    for group, knob in (("experiment", "num_scheduler_steps: 10"), ("today", "async_scheduling: true")):
        Path("mine", group).mkdir(parents=True)
        Path("mine", group, "mine.yaml").write_text(
            f"{head}study: {{experiment: mine, question: 'How many?', counterpart_of: mine}}\n"
            f"knobs: {{{knob}}}\nspace: {{series: {{one: {{}}}}}}\n"
        )
    told = node.plan("--config-dir=mine", "+experiment=mine", release="0.32.0")
    assert told.code == cli.OK
    assert told.first_line.startswith(
        "today: vLLM 0.32.0 has no num_scheduler_steps: mine runs as its counter"
    )


def composed(name: str) -> config.Composed:
    return config.compose_run([f"+today={name}", "platform=mi300x"])


@pytest.mark.parametrize("name", config.groups()["today"])
def test_counterpart_names_what_it_stands_in_for_in_its_title(name: str) -> None:
    found = composed(name)
    assert found["study"]["counterpart_of"] == name
    settings = config.settings(found, platform=Platform.MI300X)
    assert settings.question.endswith(f"? (today's counterpart of {name})")
    assert settings.name != f"{name}-mi300x", "measurements of the two never share a folder"


@pytest.mark.parametrize("name", OTHER_QUESTIONS)
def test_published_figures_stay_out_where_the_question_is_another(name: str) -> None:
    found = composed(name)
    assert found["study"]["experiment"] != name
    assert [series for series in found["space"]["series"].values() if series["published"]] == []


def test_published_figures_stand_beside_counterpart_of_the_same_question() -> None:
    found = composed("case6_kv_cache_dtype")
    assert found["study"]["experiment"] == "case6_kv_cache_dtype"
    assert {name: series["published"] for name, series in found["space"]["series"].items()} == {
        "default": "default",
        "tuned_kv_auto": "hw",
        "tuned_kv_fp8": "hw_fp8",
    }


def test_configuration_that_is_shown_is_the_one_that_would_run(node: Node) -> None:
    told = node.told("+experiment=case4_capture_len", "--cfg", "job", release="0.32.0")
    shown = yaml.safe_load(told.text)
    assert shown["study"]["counterpart_of"] == "case4_capture_len"
    assert "max_cudagraph_capture_size" in shown["space"]["series"]["graphs_64"]["knobs"]


def test_counterpart_is_scaled_down_on_a_cpu_by_the_overlay_of_what_it_stands_in_for() -> None:
    found, _ = compose_for_platform(["+today=case3_prefix_caching", "platform=cpu"], config_dir=None)
    assert found["model"]["path"] == "tiny"
    assert found["workload"]["input_len"] == 400, "conf/overlay/cpu_case3_prefix_caching.yaml"
