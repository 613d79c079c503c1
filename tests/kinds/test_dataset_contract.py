"""What holds for every dataset of the registry: what is drawn in its place, and what the clients are told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sweeper.clients import dataset_arguments
from sweeper.errors import ConfigError
from sweeper.kinds import CLIENTS, DATASETS, DatasetKind, opened
from sweeper.records import LoadPoint
from sweeper.workload.lengths import expected
from sweeper.workload.requests import make_workload

REQUESTS = 300
MISSING = "/data/prompts.json"
OPTIONS = {
    "prefix_repetition": (("num_prefixes", 3), ("prefix_len", 512), ("suffix_len", 64)),
    "conversations": (("turns", 5), ("system_len", 200), ("pause_s", 2.5)),
}
FILES = {
    "custom": "\n".join(
        json.dumps({"prompt": f"word {place} " * 40, "output_tokens": 50 + place % 7})
        for place in range(5000)
    ),
    "burstgpt": "Timestamp,Model,Request tokens,Response tokens\n"
    + "\n".join(f"{place},GPT-4,{100 + place % 50},{20 + place % 9}" for place in range(5000)),
    "timed_trace": "\n".join(
        json.dumps(
            {"timestamp": place, "input_length": 100 + place % 50, "output_length": 20, "hash_ids": [place]}
        )
        for place in range(5000)
    ),
    "sonnet": "A line of a text.\n" * 100,
}
FILES["trace_lengths"] = FILES["timed_trace"]
FILES["custom_conversations"] = FILES["timed_conversations"] = "\n".join(
    json.dumps(
        {
            "session_id": str(place),
            "turns": [
                {"text": f"word {place} " * 20, "output_length": 30 + place % 7, "timestamp": 50 * place},
                {"input_length": 40 + place % 5, "output_length": 20, "delay": 100},
            ],
        }
    )
    for place in range(2500)
)


@pytest.fixture(params=list(DATASETS))
def kind(request: pytest.FixtureRequest) -> DatasetKind:
    return DATASETS[request.param]


@pytest.fixture
def point(kind: DatasetKind, tmp_path: Path) -> LoadPoint:
    lengths = {} if kind.has_own_lengths else {"input_len": 64, "output_len": 16}
    if kind.needs_output_len:
        lengths["output_len"] = 16
    path = None
    if kind.reads_file:
        path = MISSING
        if kind.name in FILES:
            path = str(tmp_path / f"{kind.name}.txt")
            Path(path).write_text(FILES[kind.name], encoding="utf-8")
    options = OPTIONS.get(kind.name, ())
    return LoadPoint(dataset=kind.name, num_prompts=REQUESTS, dataset_path=path, options=options, **lengths)


def test_what_is_drawn_is_whole_and_same_for_seed(kind: DatasetKind, point: LoadPoint) -> None:
    if not kind.needs_server:
        with pytest.raises(ConfigError, match="expected one of"):
            make_workload(point, seed=1)
        return
    if kind.draw is None and kind.conversations is None:
        with pytest.raises(ConfigError, match="whose lengths are not known before it is sent"):
            make_workload(point, seed=1)
        return
    first, again, other = (make_workload(point, seed=seed) for seed in (1, 1, 2))
    assert first.requests == REQUESTS
    assert np.array_equal(first.input_tokens, again.input_tokens)
    assert np.array_equal(first.prompt_ids, again.prompt_ids)
    assert not set(first.prompt_ids) & set(other.prompt_ids)


def test_lengths_are_those_that_are_promised(kind: DatasetKind, point: LoadPoint) -> None:
    if not kind.has_own_lengths:
        assert kind.mean_input_len > 0
        return
    if kind.draw is None and kind.conversations is None:
        return
    many = replace(point, num_prompts=4200)
    drawn, told = make_workload(many, seed=1), expected(many)
    assert drawn.input_tokens.max() <= kind.most_input_len
    assert (drawn.input_tokens + drawn.output_tokens).max() <= kind.most_total_len
    # Within a tenth: 4000 draws of such lengths have a mean that is well within it.
    assert drawn.input_tokens.mean() == pytest.approx(told.mean_input, rel=0.1)
    assert drawn.output_tokens.mean() == pytest.approx(told.mean_output, rel=0.1)


@pytest.mark.parametrize("release", ["0.6.2", "0.8.4", "0.32.0"])
def test_benchmark_is_told_which_dataset_it_is(kind: DatasetKind, point: LoadPoint, release: str) -> None:
    if kind.arguments is None:
        assert kind.conversations or not kind.needs_server
        with pytest.raises(ConfigError, match=r"choose another dataset|Choose one of them"):
            dataset_arguments.of(point)
        return
    spoken = [dataset_arguments.of(point)]
    if kind.script_arguments is None:
        with pytest.raises(ConfigError, match=r"Take vLLM 0\.9\.1 or later for the client"):
            dataset_arguments.of_script(point, release=release)
    else:
        spoken.append(dataset_arguments.of_script(point, release=release))
    for words in spoken:
        assert words[0] == "--dataset-name"
        assert all(isinstance(word, str) for word in words)
        assert kind.reads_file is (point.dataset_path in words)


def test_some_client_sends_it_and_its_label_is_short(kind: DatasetKind, point: LoadPoint) -> None:
    assert any(client.has_engine_inside is not kind.needs_server for client in CLIENTS.values())
    assert 0 < len(point.label) < 60


def test_file_that_is_missing_is_found_before_start(kind: DatasetKind, point: LoadPoint) -> None:
    if kind.check is None:
        assert not kind.reads_file or kind.draw is None, "a hub's id is no file"
        return
    if not kind.reads_file:
        opened(kind.check)(point)
        return
    with pytest.raises(ConfigError, match=rf"workload\.dataset_path: .*{MISSING}"):
        opened(kind.check)(replace(point, dataset_path=MISSING))
