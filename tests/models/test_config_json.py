"""A model's own config.json is read as what it says, or refused with what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sweeper.errors import ConfigError
from sweeper.models import config_json, tiny

# As Llama 3.1 8B's, without what is not read.
LLAMA = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}


def write(folder: Path, **changes: object) -> Path:
    path = folder / "config.json"
    config = {**LLAMA, **changes}
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not ...}))
    return path


def test_tiny_models_file_says_shape_it_was_made_with(tmp_path: Path) -> None:
    found = config_json.read(tiny.make(tmp_path))
    assert found.shape == tiny.SHAPE
    assert found.dtype == "bfloat16"


def test_what_llama_leaves_out_follows_from_rest(tmp_path: Path) -> None:
    shape = config_json.read(write(tmp_path)).shape
    assert shape.head_dim == 128  # 4096 / 32
    assert not shape.tied_embeddings
    older = config_json.read(write(tmp_path, num_key_value_heads=...)).shape
    assert older.kv_heads == 32


def test_type_of_weights_is_read_by_its_old_and_its_new_name(tmp_path: Path) -> None:
    assert config_json.read(write(tmp_path, torch_dtype="float16")).dtype == "float16"
    assert config_json.read(write(tmp_path, torch_dtype=..., dtype="float32")).dtype == "float32"
    quantized = write(tmp_path, quantization_config={"quant_method": "fbgemm_fp8"})
    assert config_json.read(quantized).dtype == "fp8"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": ...}, "num_hidden_layers is None; expected a whole number"),
        ({"vocab_size": "many"}, "vocab_size is 'many'; expected a whole number"),
        (
            {"num_local_experts": 8},
            "has 'num_local_experts' with model_type 'llama', which is a dense decoder",
        ),
        ({"text_config": {"num_experts": 128}}, "has 'num_experts' with model_type 'llama'"),
        ({"kv_lora_rank": 512}, "has 'kv_lora_rank' with model_type 'llama'"),
        ({"quantization_config": {"quant_method": "newest"}}, "quant_method is 'newest', of which it is not"),
        ({"torch_dtype": "int4"}, "torch_dtype is 'int4'; expected one of bfloat16"),
        ({"model_type": "zamba2"}, "model_type is 'zamba2', whose build is not known here; expected one of"),
        ({"model_type": "newest"}, "model_type is 'newest', whose build is not known here; expected one of"),
        ({"model_type": ...}, "model_type is 'not given', whose build is not known here"),
        (
            {"architectures": ["LlamaForCausalLMEagle"]},
            "['LlamaForCausalLMEagle'] with model_type 'llama'; expected ['LlamaForCausalLM']",
        ),
        (
            {"model_type": "mistral3", "num_hidden_layers": ..., "text_config": {"model_type": "mistral"}},
            "config.json: text_config.num_hidden_layers is None; expected a whole number",
        ),
    ],
)
def test_model_that_cannot_be_worked_out_is_refused(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as refused:
        config_json.read(write(tmp_path, **changes))
    assert message in str(refused.value)
    assert "config.json: " in str(refused.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "mistral", "sliding_window": None},
        {"model_type": "qwen2", "use_sliding_window": False, "sliding_window": 4096},
        {"model_type": "qwen2", "sliding_window": 4096},
        {"model_type": "qwen3", "layer_types": ["full_attention"] * 32},
        {"model_type": "phi3", "sliding_window": 262144},
        {"architectures": ["LLaMAForCausalLM"]},
    ],
)
def test_builds_that_count_as_llamas_does_are_read(changes: dict[str, object], tmp_path: Path) -> None:
    assert config_json.read(write(tmp_path, **changes)).shape.layers == 32


@pytest.mark.parametrize(
    ("changes", "windows"),
    [
        ({"model_type": "mistral"}, [4096] * 32),
        ({"model_type": "phi3", "sliding_window": 2047}, [2047] * 32),
        (
            {"model_type": "qwen2", "layer_types": ["full_attention", "sliding_attention"] * 16}
            | {"sliding_window": 1024, "use_sliding_window": True},
            [None, 1024] * 16,
        ),
    ],
)
def test_windows_make_another_build(
    changes: dict[str, object], windows: list[int | None], tmp_path: Path
) -> None:
    found = config_json.read(write(tmp_path, **{"sliding_window": 4096, **changes}))
    assert found.shape is None
    assert found.built is not None
    assert [layer.attention.window for layer in found.built.layers] == windows


def test_window_that_mistral_has_where_its_file_leaves_it_out(tmp_path: Path) -> None:
    found = config_json.read(write(tmp_path, model_type="mistral"))
    assert found.shape is None
    assert found.built is not None
    assert {layer.attention.window for layer in found.built.layers} == {4096}


@pytest.mark.parametrize(
    ("stored", "bits", "parts"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, 4 + 20 / 128, 4),
        ({"quant_method": "gptq", "bits": 4, "group_size": -1}, 4, 4),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": {"num_bits": 4, "group_size": 32}}},
                "ignore": ["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*"],
            },
            4.5,
            2,
        ),
        ({"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]}, 4.25, 1),
        (
            {"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "fp4", "group_size": 32}}},
            4.25,
            4,
        ),
    ],
)
def test_bits_of_stored_weight(stored: dict[str, object], bits: float, parts: int, tmp_path: Path) -> None:
    found = config_json.read(write(tmp_path, quantization_config=stored)).quantization
    assert found is not None
    assert found.bits == bits
    assert len(found.parts) == parts


def test_file_that_is_not_there_or_no_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config.json: No such file or directory; expected a model's"):
        config_json.read(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config.json: is no JSON"):
        config_json.read(tmp_path)
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(ConfigError, match=r"config.json: is no JSON"):
        config_json.read(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"config.json: is no JSON object"):
        config_json.read(tmp_path)


@pytest.mark.parametrize(
    ("scaling", "longest"),
    [
        ({"type": "linear", "factor": 4.0}, 524288),
        ({"rope_type": "dynamic", "factor": 2.0}, 262144),
        ({"rope_type": "llama3", "factor": 8.0}, 131072),
        ({"rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 4096}, 163840),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}, 131072),
        ({"rope_type": "default"}, 131072),
        (None, 131072),
    ],
    ids=str,
)
def test_longest_sequence_is_that_of_scaled_embeddings(
    tmp_path: Path, scaling: dict[str, object] | None, longest: int
) -> None:
    found = config_json.read(write(tmp_path, rope_scaling=scaling))
    assert found.shape is not None
    assert found.shape.max_positions == longest
