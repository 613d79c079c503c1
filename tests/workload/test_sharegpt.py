"""A file like ShareGPT: the format that vLLM reads, the public statistics, the same bytes every time."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from sweeper import cli
from sweeper.errors import ConfigError
from sweeper.models import tiny
from sweeper.workload import sharegpt


def tiny_tokens(words: list[str]) -> dict[str, int]:
    """Tokens of each word in the tiny model's tokenizer, by its own merges in their own order."""
    tokenizer = json.loads(Path(tiny.__file__).with_name("tiny_tokenizer.json").read_text(encoding="utf-8"))
    merges = {tuple(text.split(" ")): rank for rank, text in enumerate(tokenizer["model"]["merges"])}
    counts = {}
    for word in words:
        symbols = ["Ġ", *word]
        while ranked := [
            (merges[pair], place) for place, pair in enumerate(pairwise(symbols)) if pair in merges
        ]:
            _, place = min(ranked)
            symbols[place : place + 2] = ["".join(symbols[place : place + 2])]
        counts[word] = len(symbols)
    return counts


def words_of(entry: dict[str, object]) -> tuple[int, int]:
    told = entry["conversations"]
    assert isinstance(told, list)
    human, gpt = told
    assert (human["from"], gpt["from"]) == ("human", "gpt")
    return len(human["value"].split()), len(gpt["value"].split())


def test_thousand_conversations_have_public_statistics() -> None:
    made = sharegpt.conversations(count=1000, seed=0)
    lengths = np.array([words_of(entry) for entry in made])
    # vLLM's filter keeps prompts of 4 to 1024 tokens and at most 2048 together; the public totals of 1000
    # prompts are about 215 thousand in and 198 thousand out.
    assert lengths.min() >= 4
    assert lengths[:, 0].max() <= 1024
    assert lengths.sum(axis=1).max() <= 2048
    assert lengths.sum(axis=0) == pytest.approx([215_000, 198_000], rel=0.03)
    assert len({entry["id"] for entry in made}) == 1000


def test_word_is_token_of_tiny_model() -> None:
    counts = tiny_tokens(list(sharegpt.WORDS))
    assert sum(counts.values()) / len(counts) == pytest.approx(1.0, abs=0.03)
    assert len(set(sharegpt.WORDS)) == len(sharegpt.WORDS) > 100


def test_text_has_as_many_words_as_were_asked_for() -> None:
    rng = np.random.default_rng(0)
    assert sharegpt.text(1, rng) == "I"
    said = sharegpt.text(40, rng).split()
    assert len(said) == 40
    assert set(said[1:]) <= set(sharegpt.WORDS)


def test_scale_shortens_every_text_but_keeps_what_filter_asks_for() -> None:
    whole = np.array([words_of(e) for e in sharegpt.conversations(count=200, seed=3)])
    short = np.array([words_of(e) for e in sharegpt.conversations(count=200, seed=3, scale=0.1)])
    assert (short == np.maximum(np.rint(whole * 0.1), 4)).all()


def test_same_seed_writes_same_file(tmp_path: Path) -> None:
    one = sharegpt.write(tmp_path / "a" / "one.json", count=20, seed=5)
    two = sharegpt.write(tmp_path / "two.json", count=20, seed=5)
    other = sharegpt.write(tmp_path / "other.json", count=20, seed=6)
    assert one.read_bytes() == two.read_bytes() != other.read_bytes()
    assert len(json.loads(one.read_text())) == 20


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 0}, "conversations: is 0; expected at least 1."),
        ({"scale": 0.0}, "scale: is 0; expected above 0 and at most 1"),
        ({"scale": 2.0}, "scale: is 2; expected above 0 and at most 1"),
    ],
)
def test_impossible_numbers_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        sharegpt.conversations(**{"count": 10, "seed": 0, "scale": 1.0, **changes})  # type: ignore[arg-type]
    assert str(caught.value).startswith(message)


def test_file_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        sharegpt.write(tmp_path / "file" / "share.json", count=1, seed=0)


def test_command_writes_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "share.json"
    assert cli.main(["sharegpt", str(path), "--conversations", "5", "--scale", "0.5", "--seed", "2"]) == 0
    assert str(path) in capsys.readouterr().out
    assert json.loads(path.read_text()) == sharegpt.conversations(count=5, seed=2, scale=0.5)
