"""``client.arguments``: what may be given to the load generator, and what another key sets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeper.clients import bench_script, vllm_bench
from sweeper.config import client_arguments
from sweeper.config.schema import key_names
from sweeper.errors import ConfigError
from sweeper.kinds import DATASETS
from sweeper.records import LoadPoint, Ramp, RequestForm
from tests.clients.test_sendable import POINTS
from tests.standin_server import make_spec

RANDOM = POINTS["random"]


def of(points: tuple[LoadPoint, ...] = (RANDOM,), **given: Any) -> tuple[tuple[str, Any], ...]:
    return client_arguments.of(given, points)


def test_arguments_are_kept_by_name_in_underscores_and_in_order() -> None:
    given = {"--num-warmups": 3, "metadata": ["a=1", "b=2"], "chat-template-kwargs": {"thinking": False}}
    assert client_arguments.of({**given, "profile": None}, [RANDOM]) == (
        ("chat_template_kwargs", '{"thinking": false}'),
        ("metadata", ("a=1", "b=2")),
        ("num_warmups", 3),
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_warmup": 3}, r"num_warmup: no release .* has --num-warmup; .*Did you mean 'num_warmups'\?"),
        ({"serve_params": "x"}, r"serve_params: no release of vLLM's benchmark has --serve-params"),
        ({"request_rate": 3}, r"request_rate: .*workload\.request_rate_per_s sets it; .*Set workload\.req"),
        ({"top_p": 0.5}, r"top_p: .*Set workload\.sampling\.top_p\."),
        ({"random-prefix-len": 8}, r"random_prefix_len: .*Set workload\.options\.prefix_len\."),
        ({"port": 8000}, r"port: is given, and engine\.url sets it"),
        ({"append_result": True}, r"append_result: .*the sweeper sets it to get the report.*Leave it out\."),
        ({"random_mm_base_items_per_request": 1}, r"only dataset random-mm .* which no load point sends"),
        ({"no_stream": True}, r"only dataset hf .* Set workload\.dataset=hf, or leave it out\."),
        ({"num_warmups": 3, "--num-warmups": 4}, r"num_warmups: is given twice"),
        ({"metadata": [["a"]]}, r"metadata: is \[\['a'\]\]; expected numbers or texts in the list"),
        ({"header": ["Authorization=Bearer abcdefgh12345678"]}, r"header: holds what looks like a secret"),
    ],
)
def test_what_may_not_be_given_is_refused_with_what_to_do(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"client\.arguments\..*{message}|client\.arguments\.{message}"):
        client_arguments.of(given, [RANDOM])


def test_argument_of_a_dataset_is_taken_where_that_is_sent() -> None:
    assert of((POINTS["hf"],), no_stream=True) == (("no_stream", True),)


def written(tmp_path: Path) -> Iterator[str]:
    """Return every flag that is written for any dataset, arrival and form, of a command and of a script."""
    python = tmp_path / "python"
    spec = make_spec(tmp_path, python)
    ramp = Ramp(strategy="linear", start_per_s=1, end_per_s=9)
    form = RequestForm(endpoint="chat", sampling=(("top_p", 0.9),), extra_body='{"min_tokens": 2}')
    shaped = LoadPoint(
        dataset="random",
        num_prompts=8,
        input_len=9,
        output_len=9,
        ignore_eos=True,
        max_concurrency=2,
        burstiness=0.5,
        goodput_ms=(("ttft_ms", 9.0),),
        ramp=ramp,
        form=form,
    )
    for point in (*POINTS.values(), shaped):
        release = "0.31.0" if point.dataset == "sonnet" else "0.32.0"
        yield from vllm_bench.benchmark_arguments(
            spec, point, base_url="http://127.0.0.1:1", release=release, result=tmp_path / "r.json"
        )
    plain = LoadPoint(dataset="random", num_prompts=8, input_len=9, output_len=9, request_rate_per_s=1.0)
    for release in ("0.6.2", "0.9.0.1"):
        yield from bench_script.script_arguments(
            spec, plain, base_url="http://127.0.0.1:1", release=release, result=tmp_path / "r.json"
        )


def test_every_word_that_the_sweeper_writes_may_not_be_given(tmp_path: Path) -> None:
    flags = {word for word in written(tmp_path) if word.startswith("--")}
    assert len(flags) > 40
    every = tuple(POINTS.values())
    for flag in flags:
        with pytest.raises(ConfigError, match=r"sets it"):
            client_arguments.of({flag.replace("--no-", "--"): 1}, every)


def test_every_key_that_is_said_to_set_an_argument_is_one() -> None:
    keys = set(key_names())
    for key in client_arguments.SET_BY.values():
        known = any(key == known or key.startswith(f"{known}.") for known in keys)
        assert known, key


def test_identity_holds_arguments_and_is_unchanged_without_any(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, tmp_path / "python")
    given = replace(spec, client=replace(spec.client, arguments=(("num_warmups", 3),)))
    other = replace(spec, client=replace(spec.client, arguments=(("num_warmups", 4),)))
    none = replace(spec, client=replace(spec.client, arguments=()))
    assert len({spec.key, given.key, other.key}) == 3
    assert none.key == spec.key
    assert given.client.arguments_text == "num_warmups=3"
    assert spec.client.arguments_text is None


def test_datasets_of_arguments_are_those_of_the_benchmark() -> None:
    # hf is ours, so that its arguments may be given; none of the others can be chosen.
    names = {kind.bench_name or kind.name for kind in DATASETS.values()}
    assert "hf" in names
    assert not names & {"random-mm", "random-rerank", "spec_bench", "speed_bench", "custom_image"}
