"""Make a model folder with a shape and a tokenizer and no weights, for engines with ``load_format: dummy``.

Speed needs no weights: an engine that fills them with random numbers runs the same kernels on the same
sizes. The folder holds the shape of Llama-3.1-8B and a tokenizer of as many words, each one token, so that
lengths in tokens are exact whatever the engine answers.

    python benchmarks/shape_only_model.py FOLDER
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

# Source: config.json of meta-llama/Llama-3.1-8B, without its rope_scaling, which moves no work.
_SHAPE = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "rope_theta": 500000.0,
    "rms_norm_eps": 1e-05,
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "bos_token_id": 0,
    "eos_token_id": 1,
    "initializer_range": 0.02,
    "use_cache": True,
}
_SPECIAL = ("<s>", "</s>", "<unk>")


def make(folder: Path) -> None:
    """Write config.json and a tokenizer of one word per token into a folder.

    Args:
        folder: Made where missing; files of these names are replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    words = [*_SPECIAL, *(f"w{number}" for number in range(len(_SPECIAL), int(str(_SHAPE["vocab_size"]))))]
    special = [
        {"id": number, "content": word, "special": True, "normalized": False}
        | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
        for number, word in enumerate(_SPECIAL)
    ]
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": {word: number for number, word in enumerate(words)},
            "unk_token": "<unk>",
        },
    }
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "model_max_length": _SHAPE["max_position_embeddings"],
    }
    for name, content in (("config", _SHAPE), ("tokenizer", tokenizer), ("tokenizer_config", about)):
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def main() -> None:
    """Make the folder named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="made where missing")
    make(parser.parse_args().folder)


if __name__ == "__main__":
    main()
