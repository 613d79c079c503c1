"""aiperf and guidellm on the real vLLM: counts, lengths, times and turns, as its engine counted them, too.

They are installed by ``python -m sweeper install-client``; without them these tests are left out.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from sweeper.clients import own_environment, plausibility
from sweeper.clients.registry import client_of
from sweeper.engines import Server
from sweeper.engines.vllm import VllmEngine
from sweeper.kinds import CLIENTS
from sweeper.records import ClientSpec, LoadPoint, Measurement, RequestForm, TrialSpec
from tests.real_engine import make_real_spec
from tests.standin_server import PLACEMENT, never

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}assistant:"
)
# Whole letters: random weights would write half characters, which are no text to these clients.
LETTERS = json.dumps({"allowed_token_ids": [259, 261, 263, 264, 266, 267, 268, 274]})
RANDOM = LoadPoint(
    dataset="random",
    num_prompts=12,
    request_rate_per_s=4,
    input_len=40,
    output_len=8,
    ignore_eos=True,
    form=RequestForm(extra_body=LETTERS),
)
TIMES_S = (0.0, 0.3, 0.9, 1.4)


@dataclass(frozen=True, kw_only=True)
class Served:
    """The real vLLM with a tiny model, and the trial that it runs for."""

    spec: TrialSpec
    server: Server

    def measure(self, kind: str, point: LoadPoint) -> Measurement:
        python = ROOT / (CLIENTS[kind].package or pytest.fail(kind)).folder / "bin" / "python"
        if not python.exists():
            pytest.skip(f"{python} is missing: python -m sweeper install-client {kind}")
        version = own_environment.version_at(CLIENTS[kind], str(python))
        client = ClientSpec(kind=kind, python=str(python), version=version)
        spec = replace(self.spec, client=client, load_points=(point,))
        measured = client_of(spec)(spec, PLACEMENT).measure(
            self.server, point, restart=0, repeat=0, cancelled=never
        )
        plausibility.check(measured)
        assert measured.metrics["completed"] == point.num_prompts
        return measured


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, vllm_python: str) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("real")
    template = folder / "chat.jinja"
    template.write_text(TEMPLATE)
    spec = make_real_spec(
        folder,
        vllm_python,
        assignment={
            "max_num_seqs": 8,
            "enforce_eager": True,
            "enable_prefix_caching": True,
            "chat_template": str(template),
        },
    )
    server = VllmEngine().start(spec, PLACEMENT, restart=0, cancelled=never)
    try:
        yield Served(spec=spec, server=server)
    finally:
        server.stop()


def requests_of(measured: Measurement) -> list[dict[str, Any]]:
    path = Path(str(measured.raw_path)).with_suffix(".requests.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("kind", ["aiperf", "guidellm"])
def test_random_prompts_have_their_lengths_at_a_rate_and_by_users(engine: Served, kind: str) -> None:
    for point in (RANDOM, replace(RANDOM, request_rate_per_s=None, max_concurrency=3)):
        measured = engine.measure(kind, point)
        # 12 requests of 40 tokens in and 8 out.
        assert measured.metrics["total_input_tokens"] == 480
        assert measured.metrics["total_output_tokens"] == 96
        first, last = measured.metrics["mean_ttft_ms"], measured.metrics["mean_e2el_ms"]
        assert 0 < (first or 0) < (last or 0)
        assert (measured.metrics["mean_tpot_ms"] or 0) > 0


def test_trace_is_replayed_at_its_times(engine: Served, tmp_path: Path) -> None:
    # The CPU build caches prefixes in blocks of 128 tokens.
    rows = [
        {
            "timestamp": 1000 * time_s,
            "input_length": 512,
            "output_length": 4 + place,
            "hash_ids": [1, 2, 3, place + 9],
        }
        for place, time_s in enumerate(TIMES_S)
    ]
    path = tmp_path / "trace.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    point = LoadPoint(
        dataset="timed_trace",
        num_prompts=4,
        ignore_eos=True,
        dataset_path=str(path),
        options=(("chunk_len", 128),),
        form=RequestForm(extra_body=LETTERS),
    )
    measured = engine.measure("aiperf", point)
    assert measured.metrics["total_input_tokens"] == 4 * 512
    assert measured.metrics["total_output_tokens"] == 4 + 5 + 6 + 7
    begun = [row["metadata"]["request_start_ns"] / 1e9 for row in requests_of(measured)]
    assert [time_s - begun[0] for time_s in begun] == pytest.approx(TIMES_S, abs=0.15)
    # Three of the four prompts begin with the 384 tokens of the first: 3 * 384 of 4 * 512.
    assert measured.telemetry["prefix_cache_hit_rate"] == pytest.approx(0.5625)


def test_conversations_grow_turn_by_turn_and_are_found_in_the_prefix_cache(engine: Served) -> None:
    point = LoadPoint(
        dataset="conversations",
        num_prompts=6,
        max_concurrency=2,
        input_len=130,
        output_len=6,
        ignore_eos=True,
        options=(("pause_s", 0.3), ("system_len", 260), ("turns", 3)),
        form=RequestForm(endpoint="chat", extra_body=LETTERS),
    )
    measured = engine.measure("aiperf", point)
    assert measured.metrics["total_output_tokens"] == 6 * 6
    turns: dict[str, list[dict[str, Any]]] = {}
    for row in requests_of(measured):
        turns.setdefault(row["metadata"]["conversation_id"], []).append(row)
    assert [len(rows) for rows in turns.values()] == [3, 3]
    for rows in turns.values():
        assert [row["metadata"]["turn_index"] for row in rows] == [0, 1, 2]
        prompts = [row["metrics"]["input_sequence_length"]["value"] for row in rows]
        assert prompts == sorted(prompts)
        for before, after in itertools.pairwise(rows):
            waited_ns = after["metadata"]["request_start_ns"] - before["metadata"]["request_end_ns"]
            assert waited_ns / 1e9 == pytest.approx(0.3, abs=0.2)
    # The second and third turn of each hold all that was said before them.
    assert (measured.telemetry["prefix_cache_hit_rate"] or 0.0) > 0.3


def test_conversations_begin_at_their_times(engine: Served, tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    chats = [
        [{"text": "one two three", "output_length": 5, "timestamp": 0}, {"text": "four", "output_length": 4}],
        [
            {"text": "hello there", "output_length": 3, "timestamp": 700},
            {"text": "more", "output_length": 6, "timestamp": 1500},
        ],
    ]
    path.write_text("".join(f"{json.dumps({'turns': turns})}\n" for turns in chats))
    point = LoadPoint(
        dataset="timed_conversations",
        num_prompts=4,
        ignore_eos=True,
        dataset_path=str(path),
        form=RequestForm(endpoint="chat", extra_body=LETTERS),
    )
    measured = engine.measure("aiperf", point)
    assert measured.metrics["total_output_tokens"] == 5 + 4 + 3 + 6
    begun = {
        (row["metadata"]["conversation_id"], row["metadata"]["turn_index"]): row["metadata"][
            "request_start_ns"
        ]
        for row in requests_of(measured)
    }
    first = begun["conversation-0", 0]
    assert (begun["conversation-1", 0] - first) / 1e9 == pytest.approx(0.7, abs=0.2)
    assert (begun["conversation-1", 1] - first) / 1e9 == pytest.approx(1.5, abs=0.2)
