"""The user's arguments, warm-up by users and short answers, on the real engine and its real benchmark."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from sweeper.clients.vllm_bench import VllmBenchClient
from sweeper.engines.vllm import VllmEngine
from sweeper.errors import MeasurementError
from sweeper.models import tiny
from sweeper.records import ClientSpec, LoadPoint, Measurement
from tests.real_engine import make_real_spec
from tests.standin_server import PLACEMENT, never

CAP = 12
POINT = LoadPoint(dataset="random", num_prompts=4, input_len=16, output_len=8, ignore_eos=True)
GIVEN = (
    ("logprobs", 1),
    ("metadata", ("who=a user", "n=1")),
    ("num_warmups", 2),
    ("request_id_prefix", "-mine"),
)


@dataclass(frozen=True)
class Bench:
    """A server that caps every answer, and the benchmark with arguments of the user."""

    client: VllmBenchClient
    server: Any

    def measure(self, point: LoadPoint) -> Measurement:
        return self.client.measure(self.server, point, restart=0, repeat=0, cancelled=never)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, vllm_python: str) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("real")
    model = tiny.describe(folder / "models")
    spec = make_real_spec(
        folder,
        vllm_python,
        model=model,
        assignment={
            "max_num_seqs": 8,
            "enforce_eager": True,
            "max_model_len": 64,
            "override_generation_config": json.dumps({"max_new_tokens": CAP}),
        },
        client=ClientSpec(arguments=GIVEN, keeps_requests=True),
    )
    client = VllmBenchClient(spec, PLACEMENT)
    try:
        server = VllmEngine().start(spec, PLACEMENT, restart=0, cancelled=never)
        try:
            yield Bench(client, server)
        finally:
            server.stop()
    finally:
        client.close()


pytestmark = [pytest.mark.vllm, pytest.mark.slow]


def test_arguments_reach_the_benchmark_and_answers_are_whole(bench: Bench) -> None:
    measured = bench.measure(POINT)
    assert measured.metrics["total_output_tokens"] == 32
    assert measured.telemetry["short_answers"] == 0
    assert measured.short_answers_because is None
    report = json.loads(Path(str(measured.raw_path)).read_text())
    assert (report["who"], report["n"]) == ("a user", "1")


def test_closed_loop_is_warmed_by_its_users(bench: Bench) -> None:
    users = replace(POINT, max_concurrency=4, num_prompts=8, warmup_per_user=2)
    before = bench.server.counters()["requests_answered"]
    prompts = users.warmup_prompts
    assert prompts == 8
    assert bench.client.warm_up(bench.server, users, prompts=prompts, cancelled=never) > 0
    # The benchmark's own probe and warm-ups (num_warmups) come on top.
    assert bench.server.counters()["requests_answered"] - before >= 8
    assert bench.measure(users).metrics["completed"] == 8


def test_answers_cut_by_a_cap_of_the_server_are_refused_with_that_reason(bench: Bench) -> None:
    with pytest.raises(MeasurementError) as raised:
        bench.measure(replace(POINT, output_len=20))
    assert f"4 of 4 answers have {CAP} tokens where 20 were asked for" in str(raised.value)
    assert "as max_new_tokens of a generation config ends them" in str(raised.value)


def test_answers_that_may_end_are_counted_and_explained(bench: Bench) -> None:
    repeated = replace(
        POINT,
        dataset="prefix_repetition",
        input_len=None,
        output_len=20,
        ignore_eos=False,
        options=(("num_prefixes", 2), ("prefix_len", 16), ("suffix_len", 8)),
    )
    measured = bench.measure(repeated)
    assert measured.telemetry["short_answers"] == 4
    assert "as max_new_tokens of a generation config ends them" in str(measured.short_answers_because)


def test_answers_for_which_the_longest_sequence_has_no_room_are_refused_with_that_reason(
    bench: Bench,
) -> None:
    # 64 tokens in all, of which the prompt takes 60.
    with pytest.raises(
        MeasurementError, match=r"4 of 4 answers have 4 tokens where 10 .* sequence of 64 tok"
    ):
        bench.measure(replace(POINT, input_len=60, output_len=10))


def test_prompts_that_are_too_long_are_refused_with_what_the_server_said(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeper.clients.program._DEATH_S", 0.0)
    with pytest.raises(MeasurementError, match=r"0 of 4 requests completed, 4 failed; .*The first error: "):
        bench.measure(replace(POINT, input_len=80, output_len=4))
