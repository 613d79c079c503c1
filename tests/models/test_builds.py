"""What decoders are built of: published models come to their stated sizes, and hand counts hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeper.errors import ConfigError
from sweeper.models import config_json, published
from sweeper.models.builds import BUILDS, architecture_of
from sweeper.models.published import CLOSE_SHARE, PublishedModel
from sweeper.records.architecture import Attention, DeltaAttention, Experts, LatentAttention

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"
MODELS = {model.name: model for model in published.published_models()}


def built(name: str) -> Any:
    return MODELS[name].architecture


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_published_model_comes_to_its_stated_size(model: PublishedModel) -> None:
    if model.name == "moonshotai/Kimi-K2-Instruct":  # stated as 1T
        assert 1.0e12 <= model.architecture.parameters < 1.05e12
        return
    assert abs(model.off_share) <= CLOSE_SHARE


@pytest.mark.parametrize("model", [m for m in MODELS.values() if m.active_b], ids=lambda model: model.name)
def test_active_weights_lie_at_one_of_two_ways_to_count(model: PublishedModel) -> None:
    found = model.architecture
    low = found.active_parameters / 1e9
    high = low + found.vocab * found.hidden / 1e9
    assert model.active_b is not None
    # Makers round to whole billions, and some of them down.
    assert low - 1 <= model.active_b <= high + 0.5


@pytest.mark.parametrize(
    ("name", "kv_bytes"),
    [
        ("deepseek-ai/DeepSeek-V3", 61 * 576 * 2),
        ("meta-llama/Llama-3.1-70B-Instruct", 327_680),
        ("Qwen/Qwen3-235B-A22B", 192_512),
        ("Qwen/Qwen3-Next-80B-A3B-Instruct", 12 * 2 * 2 * 256 * 2),
    ],
)
def test_kv_cache_by_hand(name: str, kv_bytes: int) -> None:
    assert built(name).kv_bytes_per_token() == kv_bytes


def test_every_sixth_layer_sees_all() -> None:
    found = built("google/gemma-3-27b-it")
    assert [layer.attention.window for layer in found.layers[:6]] == [1024] * 5 + [None]


def test_first_layers_without_experts() -> None:
    found = built("deepseek-ai/DeepSeek-V3")
    has_experts = [isinstance(layer.mlp, Experts) for layer in found.layers]
    assert has_experts == [False] * 3 + [True] * 58
    assert all(isinstance(layer.attention, LatentAttention) for layer in found.layers)
    assert found.draft_layers == 1


def test_state_in_place_of_cache() -> None:
    found = built("Qwen/Qwen3-Next-80B-A3B-Instruct")
    whole = [isinstance(layer.attention, Attention) for layer in found.layers]
    assert whole == [False, False, False, True] * 12
    delta = found.layers[0].attention
    assert isinstance(delta, DeltaAttention)
    assert delta.state_values == 32 * 128 * 128 + (2 * 16 * 128 + 32 * 128) * 3
    assert found.state_values() == 36 * delta.state_values


def test_layers_named_one_by_one_count_as_they_are_named() -> None:
    config = {
        **{"model_type": "gpt_oss", "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4},
        **{"num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 64, "num_local_experts": 4},
        **{
            "num_experts_per_tok": 2,
            "vocab_size": 100,
            "max_position_embeddings": 512,
            "sliding_window": 128,
        },
        "sliding_window": 128,
        "layer_types": ["full_attention", "sliding_attention", "full_attention"],
    }
    assert [layer.attention.window for layer in architecture_of(config).layers] == [None, 128, None]


def test_unknown_build_is_refused_with_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"x/config.json: model_type is 'gptj'.* expected one of .*llama"):
        architecture_of({"model_type": "gptj"}, where="x/config.json")


@pytest.mark.parametrize("build", BUILDS)
def test_missing_field_is_named(build: str) -> None:
    with pytest.raises(ConfigError, match=r"config.json: \w+ is None; expected a whole number"):
        architecture_of({"model_type": build})


def test_layer_types_that_do_not_cover_the_layers_are_refused() -> None:
    config = {
        "model_type": "gemma3_text",
        "num_hidden_layers": 3,
        "intermediate_size": 8,
        "sliding_window": 8,
    }
    with pytest.raises(ConfigError, match=r"layer_types has 2 words; expected one for each of 3 layers"):
        architecture_of({**config, "layer_types": ["full_attention"] * 2})


ODD: tuple[object, ...] = (None, [], {}, "x", True, -1, 0, 1.5, 1e300, 10**18, ["x"], [None], {"bits": []})


@pytest.mark.parametrize(
    "name", ["Qwen/Qwen3-Next-80B-A3B-Instruct", "deepseek-ai/DeepSeek-V3", "openai/gpt-oss-20b"]
)
def test_odd_value_of_any_field_is_read_or_refused(name: str, tmp_path: Path) -> None:
    rows = yaml.safe_load(
        (Path(published.__file__).parent / "data" / "published_models.yaml").read_text("utf-8")
    )
    config = next(row["config"] for row in rows if row["name"] == name)
    stored = {
        "quant_method": "awq",
        "bits": 4,
        "config_groups": {"a": {"weights": {}}},
        "ignore": ["lm_head"],
    }
    whole = {**config, "architectures": ["XForCausalLM"], "layer_types": [], "quantization_config": stored}
    changes = [{key: value} for key in whole for value in ODD]
    changes += [
        {"quantization_config": {**stored, "quant_method": method, key: value}}
        for method in ("awq", "gptq", "compressed-tensors", "quark", "mxfp4", [])
        for key in (*stored, "global_quant_config", "group_size")
        for value in ODD
    ]
    for change in changes:
        (tmp_path / "config.json").write_text(json.dumps({**whole, **change}), encoding="utf-8")
        try:
            found = config_json.read(tmp_path)
        except ConfigError as refused:
            assert "config.json: " in str(refused)
        else:
            assert found.built is not None and found.built.parameters > 0


def test_page_is_what_models_come_to() -> None:
    assert PAGE.read_text(encoding="utf-8") == published.page()
