"""A model by one word: a preset, a folder, or an id that vLLM's interpreter is asked for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper import cli
from sweeper.errors import ConfigError
from sweeper.models.published import published_models
from sweeper.prepare import hub_config
from sweeper.prepare.model import named
from tests.stubbed_node import hub_holds, stub

DEEPSEEK = {
    **{"model_type": "deepseek_v3", "architectures": ["DeepseekV3ForCausalLM"], "hidden_size": 7168},
    **{"num_hidden_layers": 61, "num_attention_heads": 128, "intermediate_size": 18432, "vocab_size": 129280},
    **{"max_position_embeddings": 163840, "first_k_dense_replace": 3, "moe_intermediate_size": 2048},
    **{"n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 8, "q_lora_rank": 1536},
    **{"kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128},
    **{
        "num_nextn_predict_layers": 1,
        "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
    },
}
OWN = ("workload=random", "knobs.max_model_len=8192", "space.knobs.max_num_seqs=[64,256]")


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    hub_config.look_up.cache_clear()
    return stub(tmp_path, monkeypatch)


def plan(python: str, *words: str) -> int:
    return cli.main([*OWN, "platform=mi300x", f"engine.python={python}", "plan=true", *words])


def test_preset_folder_and_id_are_one_model(tmp_path: Path, python: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(DEEPSEEK))
    hub_holds(python, **{"my--deepseek": json.dumps(DEEPSEEK)})
    preset, folder, known = named("deepseek_v3"), named(str(tmp_path)), named("deepseek-ai/DeepSeek-V3")
    asked = named("my/deepseek", python=python)
    assert preset.built == folder.built == known.built == asked.built
    assert {model.dtype for model in (preset, folder, known, asked)} == {"fp8"}
    assert known.described_by == "conf/model/deepseek_v3.yaml"
    assert asked.described_by == f"its config.json, found by {python}"
    published = {model.name: model.architecture for model in published_models()}
    # How a checkpoint is stored is no part of what is published of a model's size.
    assert preset.built is not None
    assert replace(preset.built, block_rows=None) == published["deepseek-ai/DeepSeek-V3"]


def test_word_that_names_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"there is no 'qwen3_8bb'; .* Did you mean 'qwen3_8b'\?"):
        named("qwen3_8bb")


def test_interpreter_that_finds_nothing_is_reason_and_no_error(python: str, tmp_path: Path) -> None:
    found = named("org/unknown", python=python)
    assert found.built is None
    assert str(found.no_shape_because).endswith("does not find it (huggingface_hub is not installed there)")
    hub_config.look_up.cache_clear()
    hub_holds(python)
    found = named("org/unknown", python=python)
    assert str(found.no_shape_because).endswith("(it is in no cache, and HF_HUB_OFFLINE is set)")
    assert "cannot be started" in str(named("org/unknown", python="/no/python").no_shape_because)
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexit 3\n")
    silent.chmod(0o755)
    assert "ended without an answer (status 3)" in str(
        named("org/unknown", python=str(silent)).no_shape_because
    )


def test_interpreter_is_not_waited_for_beyond_its_time(tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    found = hub_config.look_up("org/x", revision=None, python=str(slow), timeout_s=0.2)
    assert found.why == f"{slow} did not find it within 0.2 s"


def test_unknown_id_is_planned_on_measured_platform(python: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan(python, "model.path=org/unknown") == cli.OK
    told = capsys.readouterr().out
    assert "model: org/unknown, type of its weights not known\n" in told
    assert "memory: not worked out for org/unknown: no config.json: 'org/unknown' is no folder of" in told
    assert "0 refused" in told


def test_id_that_interpreter_finds_is_worked_out(python: str, capsys: pytest.CaptureFixture[str]) -> None:
    hub_holds(python, **{"my--deepseek": json.dumps(DEEPSEEK)})
    assert plan(python, "model.path=my/deepseek") == cli.NOTHING_COMPLETE
    told = capsys.readouterr().out
    assert f"model: my/deepseek, fp8, described by its config.json, found by {python}\n" in told
    assert "not worked out" not in told
    assert "does not fit in memory" in told, "671 GB on one partition of 24 GB"


def test_unknown_build_is_planned_and_named(
    python: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "strange"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "nonesuch", "hidden_size": 3}))
    assert plan(python, f"model.path={folder}") == cli.OK
    reason = "model_type 'nonesuch' is not known to this release"
    assert f"memory: not worked out for strange: {reason}\n" in capsys.readouterr().out
    hub_holds(python, **{"my--strange": (folder / "config.json").read_text()})
    assert plan(python, "model.path=my/strange") == cli.OK
    assert f"memory: not worked out for my/strange: {reason}\n" in capsys.readouterr().out
    assert cli.main([*OWN, "platform=simulated", "plan=true", f"model.path={folder}"]) == cli.MISTAKE
    assert reason in capsys.readouterr().err


def test_series_models_are_asked_for_too(python: str, capsys: pytest.CaptureFixture[str]) -> None:
    hub_holds(python, **{"my--deepseek": json.dumps(DEEPSEEK)})
    words = ["platform=mi300x", f"engine.python={python}", "plan=true", "engine.release=0.32.0"]
    series = "space.series.vllm_this_guide.model.path=my/deepseek"
    cli.main(["+experiment=intro_405b", *words, series])
    assert "model: my/deepseek, fp8, described by its config.json" in capsys.readouterr().out


def test_label_alone_is_refused_with_what_to_write(python: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan(python, "model.name=mine") == cli.MISTAKE
    assert "Set model.path to what is served under this name;" in capsys.readouterr().err


def test_key_of_measured_trial_is_same_whether_id_was_found_or_not(python: str) -> None:
    before = named("my/deepseek", python=python)
    hub_config.look_up.cache_clear()
    hub_holds(python, **{"my--deepseek": json.dumps(DEEPSEEK)})
    after = named("my/deepseek", python=python)
    assert (before.built, after.built is None) == (None, False)
    assert before.identity == after.identity


@pytest.mark.vllm
def test_real_client_of_hub_reads_its_cache_offline(
    vllm_python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_config.look_up.cache_clear()
    kept = tmp_path / "hub" / "models--my--deepseek"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("a" * 40)
    (kept / "snapshots" / ("a" * 40)).mkdir(parents=True)
    (kept / "snapshots" / ("a" * 40) / "config.json").write_text(json.dumps(DEEPSEEK))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert hub_config.look_up("my/deepseek", revision=None, python=vllm_python).config == DEEPSEEK
    other = hub_config.look_up("my/other", revision=None, python=vllm_python)
    assert other.why.endswith("does not find it (it is in no cache, and HF_HUB_OFFLINE is set)")
