"""Everything in conf/ composes, and becomes our own objects."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeper import config
from sweeper.config.checks import check_choice, check_not_negative, check_positive, nonempty, scalar
from sweeper.config.schema import key_names
from sweeper.errors import ConfigError
from sweeper.records import Platform
from sweeper.space.domains import Choice, Range

GROUPS = config.groups()


def simulated(*overrides: str) -> config.Settings:
    composed = config.compose_run([*overrides, "platform=simulated"])
    return config.settings(composed, platform=Platform.SIMULATED)


@pytest.mark.parametrize("name", GROUPS["experiment"])
def test_every_experiment_composes_and_asks_question(name: str) -> None:
    found = simulated(f"+experiment={name}")
    assert found.experiment == name
    assert found.question.endswith("?")
    assert found.name == f"{name}-simulated"
    size = found.space.size()
    assert size is None or size * len(found.load_points) >= 2


# A client sends what belongs to it, and is refused with another workload.
WORKLOAD_OF = {
    "offline": ["workload=random", "workload.dataset=throughput"],
    "locust": ["workload=random", "workload.request_rate_per_s=1"],
    "aiperf": ["workload=random"],
    "guidellm": ["workload=random"],
}

# An engine that only runs on a real machine, and what it cannot be without.
REAL_ENGINES: dict[str, list[str]] = {"sglang": [], "tgi": [], "attach": ["engine.url=http://127.0.0.1:8000"]}


@pytest.mark.parametrize(
    ("group", "name"),
    [(g, n) for g, names in GROUPS.items() for n in names if g not in ("experiment", "overlay")],
)
def test_every_file_of_every_group_composes(group: str, name: str) -> None:
    platform = name if group == "platform" and name != "auto" else "simulated"
    platform = "cpu" if group == "engine" and name in REAL_ENGINES else platform
    # What a step of other builds than Llama's takes is not modelled.
    platform = "mi300x" if group == "model" else platform
    overrides = [f"{group}={name}"] if group != "platform" else []
    overrides += WORKLOAD_OF.get(name, []) if group == "client" else []
    overrides += REAL_ENGINES.get(name, []) if group == "engine" else []
    composed = config.compose_run([*overrides, f"platform={platform}"])
    assert config.settings(composed, platform=Platform(platform)).platform == platform


def test_file_of_conf_begins_with_its_purpose() -> None:
    for path in config.conf_folder().glob("**/*.yaml"):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert lines[0].startswith("#"), path
        assert lines[0].startswith("# @package") is False or lines[1].startswith("#"), path


def test_case_2_is_articles() -> None:
    found = simulated("+experiment=case2_sched_steps")
    assert [p.request_rate_per_s for p in found.load_points] == [16.0, 32.0, 1000.0]
    assert {p.num_prompts for p in found.load_points} == {1000}
    steps = {s.name: s.knobs["num_scheduler_steps"] for s in found.space.series}
    assert steps == {
        "default": 1,
        "no_chunk_steps1": 1,
        "no_chunk_steps5": 5,
        "no_chunk_steps10": 10,
        "no_chunk_steps15": 15,
    }
    assert all(p.assignment["tensor_parallel_size"] == 4 for p in found.space.grid())
    assert found.engine.release == "0.6.2"


def test_experiment_for_large_node_becomes_small_on_cpu() -> None:
    composed = config.compose_run(["+experiment=case1_chunked_prefill", "+overlay=cpu", "platform=cpu"])
    found = config.settings(composed, platform=Platform.CPU)
    assert found.model.is_dummy
    assert found.space.base["tensor_parallel_size"] == 1
    assert "VLLM_USE_TRITON_FLASH_ATTN" not in found.space.base
    assert [s.name for s in found.space.series] == ["default", "chunk_2048", "chunk_4096", "no_chunk"]


def test_own_experiment_stands_beside_shipped_ones(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\n"
        "study: {experiment: mine, question: 'Which?'}\n"
        "space: {knobs: {max_num_seqs: [1, 2]}}\n"
    )
    composed = config.compose_run(["+experiment=mine"], config_dir=tmp_path)
    assert composed["space"]["knobs"] == {"max_num_seqs": [1, 2]}
    assert "mine" in config.groups(tmp_path)["experiment"]
    assert "mine" not in config.groups()["experiment"]


def test_knob_may_be_varied_from_command_line_in_hydras_syntax() -> None:
    found = simulated("space.knobs.max_num_seqs=64,256", "space.knobs.block_size=range(8,33,step=8)")
    assert found.space.domains["max_num_seqs"] == Choice(values=(64, 256))
    assert found.space.domains["block_size"] == Range(low=8, high=32, step=8, is_int=True)


def test_null_takes_knob_away() -> None:
    found = simulated("+experiment=case2_sched_steps", "knobs.VLLM_RPC_TIMEOUT=null")
    assert "VLLM_RPC_TIMEOUT" not in found.space.base
    assert found.space.base["VLLM_USE_TRITON_FLASH_ATTN"] == 0


def test_lists_of_workload_make_every_combination_load_point() -> None:
    found = simulated(
        "workload=random", "workload.input_len=[128,256]", "workload.request_rate_per_s=[1,null]"
    )
    pairs = [(p.input_len, p.request_rate_per_s) for p in found.load_points]
    assert pairs == [(128, 1.0), (128, None), (256, 1.0), (256, None)]


@pytest.mark.parametrize(
    ("written", "domain"),
    [
        ([8, 16], Choice(values=(8, 16))),
        ({"choices": ["auto", "fp8"]}, Choice(values=("auto", "fp8"))),
        ("auto", Choice(values=("auto",))),
        (True, Choice(values=(True,))),
        ({"low": 1, "high": 16}, Range(low=1, high=16, is_int=True)),
        ({"low": 1, "high": 1024, "log": True}, Range(low=1, high=1024, log=True, is_int=True)),
        ({"low": 0.8, "high": 0.9, "step": 0.05}, Range(low=0.8, high=0.9, step=0.05)),
        ({"low": 1, "high": 2, "type": "float"}, Range(low=1, high=2)),
        ("choice(8,32)", Choice(values=(8, 32))),
        ("8,32", Choice(values=(8, 32))),
        ("choice('auto','fp8')", Choice(values=("auto", "fp8"))),
        ("range(1,16,step=5)", Range(low=1, high=11, step=5, is_int=True)),
        ("range(0.5,0.8,step=0.1)", Range(low=0.5, high=0.7, step=0.1)),
        ("range(0.1,0.7,step=0.1)", Range(low=0.1, high=0.6, step=0.1)),
        ("interval(0.8,0.95)", Range(low=0.8, high=0.95)),
        ("tag(log,int(interval(1,1024)))", Range(low=1, high=1024, log=True, is_int=True)),
    ],
)
def test_domain_is_written_as_yaml_or_in_hydras_sweep_syntax(written: object, domain: object) -> None:
    assert config.parse_domain("space.knobs.x", written) == domain


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ([], "space.knobs.x: is an empty list; expected at least one value."),
        ([None], "space.knobs.x: is null; expected a number, a text, true or false. Quote JSON as a text."),
        (
            {"low": 512, "high": 256},
            "space.knobs.x: has low=512 above high=256; expected low <= high. "
            "Swap them, or give a single choice to pin the knob.",
        ),
        ({"low": 1}, "space.knobs.x: high is None; expected a number."),
        (
            {"low": 0, "high": 8, "log": True},
            "space.knobs.x: has low=0 with log; expected low > 0, a logarithm needs it.",
        ),
        ({"low": 1, "high": 8, "step": 0}, "space.knobs.x: has step=0; expected a step above 0."),
        (
            {"low": 1, "high": 8, "step": 2, "log": True},
            "space.knobs.x: has both log and step; expected one of them. Remove the step.",
        ),
        (
            {"low": 1, "high": 4, "step": 0.5, "type": "int"},
            "space.knobs.x: step is 0.5, and its values are whole numbers; expected one, too. "
            "Correct it, or set type: float.",
        ),
        ({"low": 1, "high": 4, "log": "no"}, "space.knobs.x: log is 'no'; expected true or false."),
        (
            {"low": 1, "hgih": 8},
            "space.knobs.x: 'hgih' is not part of a range; expected low, high, and step, log or type. "
            "Did you mean 'high'?",
        ),
    ],
)
def test_domain_that_makes_no_sense_says_why(written: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.parse_domain("space.knobs.x", written)
    assert str(caught.value) == message


def test_flag_that_takes_json_may_be_written_as_mapping(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\n"
        "study: {experiment: mine, question: 'Which?'}\n"
        "knobs: {compilation_config: {mode: 0, cudagraph_mode: NONE}}\n"
        "space:\n"
        "  series:\n"
        "    draft: {knobs: {speculative_config: {num_speculative_tokens: 2, method: ngram}}}\n"
        "    text: {knobs: {speculative_config: '{\"num_speculative_tokens\": 2}'}}\n"
        "  knobs:\n"
        "    hf_overrides: [{rope_theta: 1.0}, '{\"rope_theta\":2}']\n"
        "    kv_transfer_config: {kv_role: kv_both}\n"
    )
    composed = config.compose_run(["+experiment=mine", "platform=simulated"], config_dir=tmp_path)
    space = config.settings(composed, platform=Platform.SIMULATED).space
    # Keys in order, whatever order they were written in.
    assert space.base == {"compilation_config": '{"cudagraph_mode": "NONE", "mode": 0}'}
    assert [one.knobs["speculative_config"] for one in space.series] == [
        '{"method": "ngram", "num_speculative_tokens": 2}',
        '{"num_speculative_tokens": 2}',
    ]
    assert space.domains["hf_overrides"] == Choice(values=('{"rope_theta": 1.0}', '{"rope_theta":2}'))
    assert space.domains["kv_transfer_config"] == Choice(values=('{"kv_role": "kv_both"}',))


def test_mapping_for_flag_that_takes_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^knobs.max_num_seqs: is dict; expected a number"):
        simulated("++knobs.max_num_seqs={low: 8, high: 64}")


def test_simulated_engine_and_measured_platform_never_meet() -> None:
    composed = config.compose_run(["engine.kind=simulated", "platform=cpu"])
    with pytest.raises(ConfigError, match="no simulated number stands among measured ones"):
        config.settings(composed, platform=Platform.CPU)


def test_every_key_of_schema_is_dotted_path() -> None:
    names = list(key_names())
    assert {"study", "study.name", "model.shape.kv_heads", "repeats"} <= set(names)


def test_single_values_are_checked() -> None:
    for refused in (
        lambda: check_choice("k", "b", ("a",)),
        lambda: check_positive("k", 0),
        lambda: check_not_negative("k", -1),
        lambda: nonempty("k", []),
        lambda: scalar("k", [1]),
    ):
        with pytest.raises(ConfigError, match=r"^k: "):
            refused()
    assert check_not_negative("k", 0) == 0
    assert nonempty("k", [1]) == [1]
    assert scalar("k", "x") == "x"
    check_choice("k", "a", ("a",))
    check_positive("k", 1)
