"""The models of conf/model: read as a folder's config.json is, and one with what is published of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from sweeper import config
from sweeper.models import config_json, published
from sweeper.records import Model, Platform

FOLDER = config.conf_folder() / "model"
FILES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
PUBLISHED = {model.name: model for model in published.published_models()}
FP8_OF_16_BITS = {
    "amd/Llama-3.1-70B-Instruct-FP8-KV": "meta-llama/Llama-3.1-70B-Instruct",
    "meta-llama/Llama-3.1-405B-Instruct-FP8": "meta-llama/Llama-3.1-405B-Instruct",
    "Qwen/Qwen3-235B-A22B-FP8": "Qwen/Qwen3-235B-A22B",
    "RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic": "meta-llama/Llama-3.1-70B-Instruct",
}


def of(preset: str, *overrides: str) -> Model:
    composed = config.compose_run([f"model={preset}", *overrides, "platform=mi300x"])
    return config.settings(composed, platform=Platform.MI300X).model


def test_there_are_presets_of_many_models_and_each_says_what_it_is() -> None:
    assert len(FILES) >= 24
    for name in FILES:
        first = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
        assert first.startswith("# "), name


@pytest.mark.parametrize("preset", FILES)
def test_preset_and_file_of_same_content_are_one_model(preset: str, tmp_path: Path) -> None:
    content = yaml.safe_load((FOLDER / f"{preset}.yaml").read_text(encoding="utf-8"))
    found = of(preset)
    assert found.built is not None
    assert found.described_by is None
    if "config" not in content:
        assert found.path == "tiny"
        return
    (tmp_path / "config.json").write_text(json.dumps(content["config"]), encoding="utf-8")
    own = config_json.read(tmp_path)
    assert (found.shape, found.architecture, found.dtype) == (own.shape, own.architecture, own.dtype)
    assert found.quantization == own.quantization


@pytest.mark.parametrize("preset", FILES)
def test_preset_is_what_is_published_under_its_name(preset: str) -> None:
    found = of(preset)
    name = FP8_OF_16_BITS.get(found.name, found.name)
    if name in PUBLISHED:
        built = PUBLISHED[name].architecture
        # A dense decoder is a shape, which does not keep of which family it is.
        kind = built.model_type if found.shape is None else "llama"
        # How a checkpoint is stored is no part of what is published of a model's size.
        assert found.built is not None
        assert replace(found.built, block_rows=None) == replace(built, model_type=kind)
    has_eight_bits = found.dtype == "fp8" or (found.quantization is not None and found.quantization.bits == 8)
    assert has_eight_bits >= ("fp8" in preset)


def test_weights_of_quantized_presets() -> None:
    # DeepSeek: fp8 in blocks for every matrix; gpt-oss: MXFP4 for experts, 4 bits and 8 for each 32.
    assert (of("deepseek_r1").dtype, of("deepseek_r1").quantization) == ("fp8", None)
    stored = of("gpt_oss_120b").quantization
    assert stored is not None
    assert (stored.method, stored.bits, stored.parts) == ("mxfp4", 4.25, {"experts"})


def test_shapes_of_presets_of_before_are_what_they_were() -> None:
    # Llama 3.1 8B as its trial keys have it since the first release.
    found = of("llama_3_1_8b")
    assert found.identity["shape"] == {
        **{"layers": 32, "hidden": 4096, "intermediate": 14336, "heads": 32, "kv_heads": 8},
        **{"head_dim": 128, "vocab": 128256, "max_positions": 131072, "tied_embeddings": False},
    }
    assert (of("llama_2_7b_chat").dtype, of("llama_3_1_70b_instruct_fp8").dtype) == ("float16", "fp8")


def test_id_of_preset_takes_its_description_and_says_so() -> None:
    whole = of("qwen3_8b")
    found = of("llama_3_1_8b", "model.path=Qwen/Qwen3-8B")
    assert (found.name, found.shape, found.dtype) == (whole.name, whole.shape, whole.dtype)
    assert found.described_by == "conf/model/qwen3_8b.yaml"
    # What was looked up takes no part in the key of a measured trial, which was the same before it was known.
    assert dict(found.identity) == {
        **{"name": "Qwen/Qwen3-8B", "path": "Qwen/Qwen3-8B", "shape": None, "dtype": None},
        **{"is_dummy": False, "revision": None},
    }


def test_id_of_preset_is_modelled_with_its_description() -> None:
    composed = config.compose_run(["model=llama_3_1_8b", "model.path=Qwen/Qwen3-8B", "platform=simulated"])
    found = config.settings(composed, platform=Platform.SIMULATED).model
    assert found.identity == of("qwen3_8b").identity
