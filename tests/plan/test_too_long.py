"""Requests longer than the longest sequence, and sequences longer than the model's, are told in advance."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.config.space import parse_fitting
from sweeper.plan.fitting import fitted
from sweeper.plan.planner import Planner
from sweeper.records import LoadPoint, Model, Platform, Scalar
from sweeper.space.space import Point, Space
from tests.stand_ins import planner_of_three_series

CHOICES = {"fits": True, "choices": [8192, 16384, 32768, 262144]}


@pytest.fixture
def planner(tmp_path: Path, llama_70b: Model) -> Planner:
    """Eight MI300X that are measured, with vLLM 0.32.0 and a model of 131,072 tokens."""
    found = planner_of_three_series(tmp_path, llama_70b)
    engine = replace(found.engine, kind="vllm", release="0.32.0")
    return replace(found, engine=engine, platform=Platform.MI300X, space=Space(base={}))


def random_load(input_len: int, output_len: int, *, range_ratio: float = 0.0) -> LoadPoint:
    return LoadPoint(
        dataset="random",
        num_prompts=50,
        request_rate_per_s=None,
        input_len=input_len,
        output_len=output_len,
        range_ratio=range_ratio,
    )


def log_of(path: Path, *lengths: tuple[int, int]) -> LoadPoint:
    """Return a load point that replays a log, as the command ``traffic`` writes it."""
    rows = ({"timestamp": 100 * n, "input_length": i, "output_length": o} for n, (i, o) in enumerate(lengths))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return LoadPoint(
        dataset="timed_trace", num_prompts=len(lengths), request_rate_per_s=None, dataset_path=str(path)
    )


def refusal(planner: Planner, load: LoadPoint, **knobs: Scalar) -> str | None:
    assignment = {"tensor_parallel_size": 8, **knobs}
    job = replace(planner, load_points=(load,)).job(Point(choices={}, assignment=assignment, series=None))
    return None if job.refusal is None else job.refusal.message


def test_request_longer_than_longest_sequence_is_refused_with_what_to_set(
    planner: Planner, tmp_path: Path
) -> None:
    load = log_of(tmp_path / "log.jsonl", (100, 50), (17482, 106), (9000, 10))
    assert refusal(planner, load, max_model_len=8192) == (
        "longer than max_model_len = 8192 tokens: 2 of the load's 3 requests, the longest with 17,588 of "
        "prompt and answer. Set knobs.max_model_len=18432."
    )
    # What it advises is taken, and so is the model's own length.
    assert refusal(planner, load, max_model_len=18432) is None
    assert refusal(planner, load) is None


def test_answer_counts_to_the_last_token(planner: Planner) -> None:
    assert refusal(planner, random_load(1000, 24), max_model_len=1024) is None
    assert "50 of the load's 50" in str(refusal(planner, random_load(1000, 25), max_model_len=1024))


def test_model_that_is_too_short_for_load_has_no_knob_for_it(planner: Planner) -> None:
    why = refusal(planner, random_load(131072, 16))
    assert why is not None
    assert why.startswith("longer than the model's 131072 tokens: 50 of the load's 50 requests")
    assert why.endswith("Choose a model of longer sequences, or shorter requests.")


def test_longest_sequence_beyond_models_is_refused_unless_it_is_stretched(planner: Planner) -> None:
    load = random_load(100, 100)
    assert "131072 tokens of " in str(refusal(planner, load, max_model_len=200_000))
    assert refusal(planner, load, max_model_len=200_000, VLLM_ALLOW_LONG_MAX_MODEL_LEN=1) is None


def test_text_whose_tokens_are_not_known_is_not_refused_where_it_is_measured(
    planner: Planner, tmp_path: Path
) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps({"prompt": "word " * 9000}) + "\n")
    load = LoadPoint(
        dataset="custom", num_prompts=1, request_rate_per_s=None, output_len=16, dataset_path=str(path)
    )
    assert refusal(planner, load, max_model_len=2048) is None
    modelled = replace(planner, platform=Platform.SIMULATED, engine=replace(planner.engine, kind="simulated"))
    assert "1 of the load's 1 request," in str(refusal(modelled, load, max_model_len=2048))


def taken(planner: Planner, load: LoadPoint, **base: Scalar) -> tuple[Scalar | None, tuple[str, ...]]:
    domain, fitting = parse_fitting("space.knobs.max_model_len", CHOICES)
    assert fitting is not None
    space = Space(base=base, domains={"max_model_len": domain}, fittings={"max_model_len": fitting})
    found = fitted(replace(planner, space=space, load_points=(load,)))
    assert found.space.domains == {}
    return found.space.base.get("max_model_len"), found.left_out


@pytest.mark.parametrize(
    ("longest", "wanted"), [(300, 8192), (8192, 8192), (8193, 16384), (32768, 32768), (40_000, None)]
)
def test_least_length_that_has_room_is_taken_else_models_own(
    planner: Planner, longest: int, wanted: int | None
) -> None:
    length, left_out = taken(planner, random_load(longest - 100, 100))
    assert length == wanted
    assert bool(left_out) == (longest > 8192)
    assert all(f"the longest request of the load takes {longest:,} tokens" in text for text in left_out)


def test_length_that_study_says_itself_stays(planner: Planner) -> None:
    assert taken(planner, random_load(9000, 100), max_model_len=20_000) == (20_000, ())
