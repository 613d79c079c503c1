"""A Llama of three million weights and its tokenizer, made here and now without a network.

It serves one purpose: to start the real engine on any machine, a laptop included, in order to learn
whether the whole chain from command line to chart works. It holds no weights at all; the engine fills
them with seeded random numbers (``--load-format dummy``). Its text means nothing, its greedy answer is
the same every time.

The same release of this module writes the same bytes, so the content hash is the model's revision.
"""

from __future__ import annotations

import functools
import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

from sweeper.errors import ConfigError
from sweeper.records import Model, ModelShape

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


def make(folder: Path) -> Path:
    """Write the tiny model below a folder, or find it there.

    Args:
        folder: Holds one subfolder for each content of the model; made when absent.

    Returns:
        The model's own folder, whose name ends with its revision; give it to the engine as the model.

    Raises:
        ConfigError: The folder cannot be made.
    """
    content = _files()
    target = folder.resolve() / f"tiny-llama-{_revision(content)}"
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
    with tempfile.TemporaryDirectory(dir=folder, prefix=".tiny-llama-") as aside:
        for name, text in content.items():
            (Path(aside) / name).write_text(text, encoding="utf-8")
        target.mkdir(exist_ok=True)
        for name in content:
            (Path(aside) / name).replace(target / name)


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
    """Content hash of the files that `make` writes: 16 hex digits."""
    return _revision(_files())


@functools.cache
def _files() -> dict[str, str]:
    return {
        "config.json": json.dumps(_CONFIG, indent=1),
        "generation_config.json": json.dumps({"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}),
        "tokenizer.json": _TOKENIZER.read_text(encoding="utf-8"),
        "tokenizer_config.json": json.dumps(_TOKENIZER_CONFIG, indent=1),
    }


def _revision(content: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
