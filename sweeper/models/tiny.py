"""Models of a few million weights and their tokenizer, made here and now without a network.

They serve one purpose: to start the real engine on any machine, a laptop included, in order to learn
whether the whole chain from command line to chart works. The usual one is a Llama; others are built as
models with experts, latent attention, windows, states or an encoder of images are (data/tiny_models.yaml).
They hold no weights at all; the engine fills them with seeded random numbers (``--load-format dummy``).
Their text means nothing, their greedy answer is the same every time.

The same release of this module writes the same bytes, so the content hash is the model's revision.
"""

from __future__ import annotations

import functools
import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from sweeper.errors import ConfigError, nearest
from sweeper.records import Model, ModelShape

USUAL = "llama"
"""The build of the tiny model that is taken where none is named."""

SHAPE = ModelShape(
    layers=4,
    hidden=256,
    intermediate=512,
    heads=8,
    kv_heads=4,
    head_dim=32,
    vocab=1024,
    max_positions=4096,
)
"""Dimensions of the tiny model; one token of its KV cache takes 2 KiB in bfloat16."""

SPECIAL_TOKENS = ("<|bos|>", "<|eos|>", "<|pad|>")

_CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": SHAPE.vocab,
    "hidden_size": SHAPE.hidden,
    "intermediate_size": SHAPE.intermediate,
    "num_hidden_layers": SHAPE.layers,
    "num_attention_heads": SHAPE.heads,
    "num_key_value_heads": SHAPE.kv_heads,
    "head_dim": SHAPE.head_dim,
    "max_position_embeddings": SHAPE.max_positions,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": SHAPE.tied_embeddings,
    "use_cache": True,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
    # Both are needed by releases up to 0.11, whose transformers does not read the newer names.
    "rope_theta": 10000.0,
    "torch_dtype": "bfloat16",
}

_TOKENIZER_CONFIG = {
    # The older transformers of vLLM 0.11 knows this class name and not the newer one.
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": SPECIAL_TOKENS[0],
    "eos_token": SPECIAL_TOKENS[1],
    "pad_token": SPECIAL_TOKENS[2],
    "clean_up_tokenization_spaces": False,
    "model_max_length": SHAPE.max_positions,
}

# Byte-level BPE in the format of the tokenizers library: special tokens, 256 bytes, and merges learnt once
# from a page of English. Another file is another model, of another revision.
_TOKENIZER = Path(__file__).with_name("tiny_tokenizer.json")


def known() -> Sequence[str]:
    """Return the builds that a tiny model can be made of, by their ``model_type``."""
    return [USUAL, *sorted(_builds())]


def make(folder: Path, *, like: str = USUAL) -> Path:
    """Write a tiny model below a folder, or find it there.

    Args:
        folder: Holds one subfolder for each content of a model; made when absent.
        like: Its build, one of `known`.

    Returns:
        The model's own folder, whose name ends with its revision; give it to the engine as the model.

    Raises:
        ConfigError: The build is not known, or the folder cannot be made.
    """
    content = _files(like)
    target = folder.resolve() / f"tiny-{like}-{_revision(content)}"
    if all((target / name).is_file() for name in content):
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise ConfigError(
            f"{folder}: cannot be made ({exc.strerror}); expected a folder that can be written. Name another."
        ) from exc
    try:
        _write(content, folder=folder, target=target)
    except OSError as exc:
        raise ConfigError(
            f"{target}: cannot be written ({exc.strerror or exc}); expected a writable folder with "
            "free space. Make room, or name another."
        ) from exc
    return target


def _write(content: Mapping[str, str], *, folder: Path, target: Path) -> None:
    """Write the files aside and rename them, so that another process never reads half a model."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".tiny-") as aside:
        for name, text in content.items():
            (Path(aside) / name).write_text(text, encoding="utf-8")
        target.mkdir(exist_ok=True)
        for name in content:
            (Path(aside) / name).replace(target / name)


def has_random_weights(folder: Path) -> bool:
    """Return whether a folder holds a model that was made here, word for word, so that it has no weights."""
    try:
        found = (folder / "config.json").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False
    return any(found == _files(like)["config.json"] for like in known())


def describe(folder: Path) -> Model:
    """Make the tiny model below a folder and give its record: name, path, shape and revision."""
    path = make(folder)
    return Model(
        name="tiny-llama",
        path=str(path),
        shape=SHAPE,
        dtype="bfloat16",
        is_dummy=True,
        revision=revision(),
    )


def revision() -> str:
    """Content hash of the files that `make` writes for the usual build: 16 hex digits."""
    return _revision(_files(USUAL))


@functools.cache
def _files(like: str) -> dict[str, str]:
    """Return the files of a tiny model, by name.

    Raises:
        ConfigError: The build is not known.
    """
    config: Mapping[str, Any] = _CONFIG
    build: Mapping[str, Any] = {}
    if like != USUAL:
        build = _build(like)
        config = build["config"]
    tokens = build.get("tokens", ())
    return {
        "config.json": json.dumps(config, indent=1),
        "generation_config.json": json.dumps({"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}),
        "tokenizer.json": _tokenizer(tokens),
        "tokenizer_config.json": json.dumps({**_TOKENIZER_CONFIG, **build.get("tokenizer", {})}, indent=1),
        **{name: json.dumps(content, indent=1) for name, content in build.get("files", {}).items()},
    }


def _build(like: str) -> Mapping[str, Any]:
    builds = _builds()
    if like not in builds:
        raise ConfigError(
            f"tiny-model --like: there is no '{like}'; expected one of {', '.join(known())}."
            f"{nearest(like, known())} Choose one."
        )
    return builds[like]


@functools.cache
def _builds() -> Mapping[str, Mapping[str, Any]]:
    text = resources.files("sweeper.models").joinpath("data/tiny_models.yaml").read_text(encoding="utf-8")
    found: Mapping[str, Mapping[str, Any]] = yaml.safe_load(text)["models"]
    return found


def _tokenizer(tokens: Sequence[str]) -> str:
    """Return the tokenizer's file, with special tokens of a build numbered on from the vocabulary."""
    text = _TOKENIZER.read_text(encoding="utf-8")
    if not tokens:
        return text
    content = json.loads(text)
    usual = content["added_tokens"][0]
    content["added_tokens"] += [
        {**usual, "id": SHAPE.vocab + place, "content": token} for place, token in enumerate(tokens)
    ]
    return json.dumps(content, ensure_ascii=False)


def _revision(content: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
