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
import itertools
import json
import re
import tempfile
from collections import Counter
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

# Words of the trade and of plain English: enough different syllables for all the merges that are needed.
CORPUS = """
An engine serves a model: it takes requests, puts them into a batch, and answers them token by token. The
scheduler decides at every step which requests advance. Prefill reads the prompt and fills the cache of
keys and values; decode then adds one token after another. Prefill is bound by arithmetic, decode by the
bandwidth of memory, and a good schedule keeps both busy. When the number of sequences grows, throughput
rises until the memory for the cache is exhausted; then requests wait in the queue or are preempted and
computed again. Chunked prefill cuts a long prompt into pieces, so that short answers are not held up
behind it. Prefix caching keeps blocks that several prompts share. Tensor parallelism splits every matrix
across devices and pays with communication between them; data parallelism copies the whole model instead.
The time to the first token tells how long a user waits before anything appears; the time between tokens
tells how smoothly the text flows; the mean is pleasant, the tail is what people remember and complain
about. A benchmark sends the same prompts at a chosen rate, measures every answer, and writes down what it
saw. One run is an anecdote. Several restarts with an interval around their average are evidence, and an
honest report admits when the evidence does not decide the question. Change a single setting, hold the
others, compare with the baseline, and say under which conditions the difference was observed. Quantised
weights save bandwidth and may cost quality, therefore look at the output as well as at the clock. Large
batches improve efficiency while small batches improve latency: somewhere between the two lies the point
that your service agreement allows. Graph capture removes launch overhead from short kernels; compilation
fuses neighbouring operations; asynchronous scheduling hides the work of the host behind the accelerator.
Partitions divide one processor into several smaller ones with their own slice of memory. Placement near
the right socket avoids slow links. Nothing here replaces measurement, because hardware, drivers, libraries
and workloads interact in ways nobody predicts. Early morning fog covered the quiet harbour, ships moved
slowly past the lighthouse, children played with yellow kites above the grey stones, and an old captain
described distant islands, strange markets, broken compasses, friendly dolphins and the terrible winter of
his youth. Questions: who, what, where, when, why, how? Numbers: 0 1 2 3 4 5 6 7 8 9 10 16 32 64 128 256.
"""

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

# What GPT-2's expression tells apart in plain text; merges across these borders would never be used.
_WORD = re.compile(r" ?[^\W\d_]+| ?\d+| ?[^\s\w]+")

Symbol = str
Pair = tuple[Symbol, Symbol]


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
    """Write the files aside and rename them, so that a neighbour never reads half a model."""
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


def learn_merges(text: str, *, merges: int) -> list[Pair]:
    """Learn byte-pair merges from a text, the most frequent pair first.

    Ties go to the pair that comes first in the alphabet, so the same text always gives the same merges.

    Args:
        text: Training text; letters, digits and signs are kept apart, a word keeps the blank before it.
        merges: How many merges are wanted.

    Returns:
        Pairs of symbols in the order in which they must be applied; fewer than wanted when the text is
        exhausted, that is, when every word has become one symbol.

    Source:
        Sennrich, Haddow, Birch 2016, "Neural machine translation of rare words with subword units",
        algorithm 1, on bytes as GPT-2 does it.
    """
    words = Counter(_WORD.findall(text))
    spelled = {word: _byte_symbols(word) for word in words}
    learnt: list[Pair] = []
    while len(learnt) < merges:
        pairs: Counter[Pair] = Counter()
        for word, count in words.items():
            symbols = spelled[word]
            for pair in itertools.pairwise(symbols):
                pairs[pair] += count
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        learnt.append(best)
        spelled = {word: _merged(symbols, best) for word, symbols in spelled.items()}
    return learnt


def byte_alphabet() -> dict[int, Symbol]:
    """Return every byte a printable character, as byte-level tokenizers write it.

    Source:
        GPT-2's ``bytes_to_unicode``: printable Latin-1 stands for itself, the rest follows from U+0100.
    """
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    alphabet = {byte: chr(byte) for byte in printable}
    hidden = (byte for byte in range(256) if byte not in alphabet)
    return alphabet | {byte: chr(256 + index) for index, byte in enumerate(hidden)}


_ALPHABET = byte_alphabet()


def _byte_symbols(word: str) -> list[Symbol]:
    return [_ALPHABET[byte] for byte in word.encode()]


def _merged(symbols: list[Symbol], pair: Pair) -> list[Symbol]:
    """Replace every occurrence of a pair, from the left, by one symbol."""
    merged: list[Symbol] = []
    for symbol in symbols:
        if merged and (merged[-1], symbol) == pair:
            # A symbol that was just merged cannot take part again: its text is already longer.
            merged[-1] = merged[-1] + symbol
        else:
            merged.append(symbol)
    return merged


def _tokenizer() -> dict[str, object]:
    """The tokenizer in the format of Hugging Face's tokenizers library, filling the model's vocabulary."""
    wanted = SHAPE.vocab - len(SPECIAL_TOKENS) - len(_ALPHABET)
    symbols = [*SPECIAL_TOKENS, *(_ALPHABET[byte] for byte in range(256))]
    known = set(symbols)
    merges: list[Pair] = []
    # Two different pairs can spell the same symbol; only the first one makes a new entry.
    for pair in learn_merges(CORPUS, merges=2 * wanted):
        if len(symbols) == SHAPE.vocab:
            break
        merges.append(pair)
        if "".join(pair) not in known:
            known.add("".join(pair))
            symbols.append("".join(pair))
    special = [
        {
            "id": index,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for index, token in enumerate(SPECIAL_TOKENS)
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {symbol: index for index, symbol in enumerate(symbols)},
            # The older way of writing pairs, which every release of the library reads.
            "merges": [" ".join(pair) for pair in merges],
        },
    }


@functools.cache
def _files() -> dict[str, str]:
    return {
        "config.json": json.dumps(_CONFIG, indent=1),
        "generation_config.json": json.dumps({"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}),
        "tokenizer.json": json.dumps(_tokenizer(), ensure_ascii=False, indent=0),
        "tokenizer_config.json": json.dumps(_TOKENIZER_CONFIG, indent=1),
    }


def _revision(content: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
