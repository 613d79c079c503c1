"""The tiny model: complete, deterministic, and read by the libraries that the engine uses."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from sweeper.errors import ConfigError
from sweeper.models import config_json, tiny
from sweeper.records.architecture import Attention, DeltaAttention, LatentAttention, Mamba
from tests.surroundings import full_disk


def load(path: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
    return content


def test_revision_by_which_studies_are_identified_is_kept() -> None:
    assert tiny.revision() == "f41abf8907723801"


def test_merges_never_join_letters_with_signs(tmp_path: Path) -> None:
    tokenizer = json.loads((tiny.make(tmp_path) / "tokenizer.json").read_text(encoding="utf-8"))
    spelled = [merge.replace(" ", "") for merge in tokenizer["model"]["merges"]]
    assert len(spelled) > 700
    assert not [text for text in spelled if text.endswith((",", ".")) and len(text.strip("Ġ,.")) > 0]


def test_every_byte_has_printable_character_of_its_own(tmp_path: Path) -> None:
    tokenizer = json.loads((tiny.make(tmp_path) / "tokenizer.json").read_text(encoding="utf-8"))
    # The special tokens come first, then the bytes in their order.
    alphabet = dict(
        enumerate(sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get)[3:259])
    )
    assert set(alphabet) == set(range(256))
    assert len(set(alphabet.values())) == 256
    assert alphabet[ord("A")] == "A"
    # The blank is the 33rd byte without a character of its own: 0 to 31 come before it.
    assert alphabet[ord(" ")] == chr(256 + 32) == "Ġ"


def test_vocabulary_fills_embedding_and_every_merge_is_in_it(tmp_path: Path) -> None:
    tokenizer = json.loads((tiny.make(tmp_path) / "tokenizer.json").read_text(encoding="utf-8"))
    vocab, merges = tokenizer["model"]["vocab"], tokenizer["model"]["merges"]
    assert sorted(vocab.values()) == list(range(1024))
    assert all(merge.replace(" ", "") in vocab for merge in merges)
    assert [vocab[token] for token in ("<|bos|>", "<|eos|>", "<|pad|>")] == [0, 1, 2]


def test_config_and_record_tell_same_shape(tmp_path: Path) -> None:
    model = tiny.describe(tmp_path)
    config = load(Path(model.path) / "config.json")
    assert model.is_dummy
    assert config["num_hidden_layers"] == model.shape.layers == 4
    assert config["num_key_value_heads"] == model.shape.kv_heads == 4
    assert config["vocab_size"] == model.shape.vocab == 1024
    # Old releases read these two names only.
    assert config["rope_theta"] == 10000.0
    assert config["torch_dtype"] == model.dtype
    # 4 layers of (attention 256*32*(2*8+2*4) + MLP 3*256*512 + norms 512) + two embeddings + last norm.
    assert model.shape.parameters == 4 * (196608 + 393216 + 512) + 2 * 1024 * 256 + 256


def test_making_it_again_gives_same_bytes_and_writes_nothing(tmp_path: Path) -> None:
    first = tiny.make(tmp_path / "one")
    second = tiny.make(tmp_path / "two")
    assert first.name == second.name == f"tiny-llama-{tiny.revision()}"
    assert tiny.describe(tmp_path / "one").revision == tiny.revision()
    for file in first.iterdir():
        assert file.read_bytes() == (second / file.name).read_bytes()
    before = {file.name: file.stat().st_mtime_ns for file in first.iterdir()}
    assert tiny.make(tmp_path / "one") == first
    assert {file.name: file.stat().st_mtime_ns for file in first.iterdir()} == before


def test_no_room_for_it_is_told_with_place(tmp_path: Path) -> None:
    with (
        full_disk(),
        pytest.raises(ConfigError, match=r"tiny-llama-\w+: cannot be written \(File too large\)"),
    ):
        tiny.make(tmp_path)
    # Nothing of it is left that the next attempt would take for a model.
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_half_model_is_completed(tmp_path: Path) -> None:
    path = tiny.make(tmp_path)
    whole = (path / "config.json").read_text()
    (path / "config.json").unlink()
    assert tiny.make(tmp_path) == path
    assert (path / "config.json").read_text() == whole


# Other builds


OTHERS = [like for like in tiny.known() if like != tiny.USUAL]


@pytest.mark.parametrize("like", OTHERS)
def test_model_of_every_build_is_whole_small_and_read_as_any_other(like: str, tmp_path: Path) -> None:
    path = tiny.make(tmp_path, like=like)
    model = config_json.read(path)
    assert path.name.startswith(f"tiny-{like}-")
    assert model.dtype == "bfloat16"
    assert model.built is not None
    assert model.built.parameters < 10_000_000
    config = load(path / "config.json")
    text = config.get("text_config", config)
    assert isinstance(text, dict)
    added = json.loads((path / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    assert all(token["id"] < text["vocab_size"] for token in added)
    assert {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"} <= {
        file.name for file in path.iterdir()
    }


def test_builds_differ_in_what_they_are_named_for(tmp_path: Path) -> None:
    built = {like: config_json.read(tiny.make(tmp_path, like=like)).built for like in OTHERS}
    with_experts = {like for like, found in built.items() if found is not None and found.has_experts}
    assert {"mixtral", "qwen2_moe", "qwen3_moe", "deepseek_v3", "gpt_oss", "llama4"} <= with_experts
    assert not with_experts & {"qwen3", "gemma3", "mistral", "starcoder2"}
    kinds = {like: [layer.attention for layer in found.layers] for like, found in built.items() if found}
    assert all(isinstance(attention, LatentAttention) for attention in kinds["deepseek_v3"])
    assert [isinstance(a, DeltaAttention) for a in kinds["qwen3_next"]] == [True, True, True, False]
    assert [isinstance(a, Mamba) for a in kinds["bamba"]] == [True, True, False, True]
    windows = [attention.window for attention in kinds["gpt_oss"] if isinstance(attention, Attention)]
    assert windows == [128, None, 128, None]
    assert [attention.window for attention in kinds["gemma3"]] == [512] * 5 + [None, 512]


@pytest.mark.parametrize("like", ["gemma3", "qwen2_vl", "llama4"])
def test_tokens_of_images_are_numbered_as_config_says(like: str, tmp_path: Path) -> None:
    path = tiny.make(tmp_path, like=like)
    config = load(path / "config.json")
    added = json.loads((path / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    names = {token["id"]: token["content"] for token in added}
    image = {"gemma3": "<image_soft_token>", "qwen2_vl": "<|image_pad|>", "llama4": "<|patch|>"}[like]
    place = config.get("image_token_index", config.get("image_token_id"))
    assert isinstance(place, int)
    assert names[place] == image
    assert len(names) == len(set(names.values())) > 3


def test_build_that_is_not_known_is_refused_with_known_ones(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"--like: there is no 'mixtrel'; expected one of llama, .*mixtral.* Choose"
    ):
        tiny.make(tmp_path, like="mixtrel")


def test_folder_made_here_is_known_to_have_no_weights(tmp_path: Path) -> None:
    path = tiny.make(tmp_path, like="mixtral")
    assert tiny.has_random_weights(path)
    assert tiny.has_random_weights(tiny.make(tmp_path))
    config = load(path / "config.json")
    # A change makes it somebody's own, whose weights may lie beside it.
    (path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}))
    assert not tiny.has_random_weights(path)
    assert not tiny.has_random_weights(tmp_path)


ROUND_TRIP = """
import sys
from transformers import AutoConfig, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
text = "The scheduler reads 128 tokens; h\\u00e4llo \\u4e16\\u754c\\n  and more"
ids = tokenizer(text)["input_ids"]
assert tokenizer.decode(ids) == text, tokenizer.decode(ids)
assert len(tokenizer) == 1024, len(tokenizer)
assert tokenizer.eos_token_id == 1
print(len(tokenizer(" scheduler")["input_ids"]), AutoConfig.from_pretrained(sys.argv[1]).num_hidden_layers)
"""


@pytest.mark.vllm
@pytest.mark.slow
def test_engines_own_libraries_read_it(tmp_path: Path, vllm_python: str) -> None:
    path = tiny.make(tmp_path)
    answer = subprocess.run(
        [vllm_python, "-c", ROUND_TRIP, str(path)],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    # Words of the corpus are short, four layers are read.
    tokens, layers = map(int, answer.stdout.split())
    assert tokens <= 3
    assert layers == 4
