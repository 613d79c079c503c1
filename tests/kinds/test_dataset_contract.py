"""What holds for every dataset of the registry: what is drawn in its place, and what the clients are told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sweeper.clients import dataset_arguments
from sweeper.errors import ConfigError
from sweeper.kinds import CLIENTS, DATASETS, DatasetKind, opened
from sweeper.records import LoadPoint
from sweeper.workload.requests import make_workload

REQUESTS = 300


@pytest.fixture(params=list(DATASETS))
def kind(request: pytest.FixtureRequest) -> DatasetKind:
    return DATASETS[request.param]


@pytest.fixture
def point(kind: DatasetKind) -> LoadPoint:
    lengths = {} if kind.has_own_lengths else {"input_len": 64, "output_len": 16}
    path = "/data/prompts.json" if kind.reads_file else None
    return LoadPoint(dataset=kind.name, num_prompts=REQUESTS, dataset_path=path, **lengths)


def test_what_is_drawn_is_whole_and_same_for_seed(kind: DatasetKind, point: LoadPoint) -> None:
    if not kind.needs_server:
        with pytest.raises(ConfigError, match="expected one of"):
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
    drawn = make_workload(replace(point, num_prompts=4000), seed=1)
    assert drawn.input_tokens.max() <= kind.most_input_len
    assert (drawn.input_tokens + drawn.output_tokens).max() <= kind.most_total_len
    # Within a tenth: 4000 draws of such lengths have a mean that is well within it.
    assert drawn.input_tokens.mean() == pytest.approx(kind.mean_input_len, rel=0.1)
    assert drawn.output_tokens.mean() == pytest.approx(kind.mean_output_len, rel=0.1)


@pytest.mark.parametrize("release", ["0.6.2", "0.8.4", "0.32.0"])
def test_benchmark_is_told_which_dataset_it_is(kind: DatasetKind, point: LoadPoint, release: str) -> None:
    if kind.arguments is None:
        assert not kind.needs_server
        with pytest.raises(ConfigError, match="Choose one of them"):
            dataset_arguments.of(point)
        return
    for words in (dataset_arguments.of(point), dataset_arguments.of_script(point, release=release)):
        assert words[0] == "--dataset-name"
        assert all(isinstance(word, str) for word in words)
        assert kind.reads_file is ("/data/prompts.json" in words)


def test_some_client_sends_it_and_its_label_is_short(kind: DatasetKind, point: LoadPoint) -> None:
    assert any(client.has_engine_inside is not kind.needs_server for client in CLIENTS.values())
    assert 0 < len(point.label) < 60


def test_file_that_is_missing_is_found_before_start(kind: DatasetKind, point: LoadPoint) -> None:
    if kind.check is None:
        assert not kind.reads_file
        return
    with pytest.raises(ConfigError, match=r"workload\.dataset_path: there is no file /data/prompts\.json"):
        opened(kind.check)(point)
