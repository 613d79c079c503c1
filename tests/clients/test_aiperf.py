"""aiperf as a client: what it is told, how its times are read, and whole runs of a program of its manners."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sweeper.clients import aiperf_config, aiperf_datasets, aiperf_report
from sweeper.clients.aiperf import AiperfClient
from sweeper.clients.aiperf_datasets import Dataset
from sweeper.errors import ConfigError, EngineError, MeasurementError
from sweeper.metrics import summarize
from sweeper.records import ClientSpec, EngineSpec, FailureClass, LoadPoint, Ramp, RequestForm, TrialSpec
from tests.standin_benchmarks import API_KEY, QuietServer
from tests.standin_foreign import write_foreign_interpreter
from tests.standin_server import PLACEMENT, make_spec, never
from tests.standin_stream import StreamingServer, served

POINT = LoadPoint(
    dataset="random",
    num_prompts=6,
    request_rate_per_s=20,
    input_len=10,
    output_len=3,
    ignore_eos=True,
    client_seed=7,
)
TRACE = LoadPoint(dataset="timed_trace", num_prompts=3, ignore_eos=True, options=(("chunk_len", 16),))
CHATS = LoadPoint(
    dataset="conversations",
    num_prompts=5,
    max_concurrency=2,
    input_len=8,
    output_len=4,
    ignore_eos=True,
    options=(("pause_s", 0.25), ("system_len", 6), ("turns", 3)),
    form=RequestForm(endpoint="chat"),
)
PLAIN = Dataset(settings={"type": "synthetic"})

# As aiperf 0.13.0 wrote it of the real vLLM, with some of its metrics left out.
LINE = """
{"metadata": {"session_num": 0, "x_request_id": "bec49189", "conversation_id": "session_000000",
"turn_index": 0, "credit_issued_ns": 1795790800710780038, "request_start_ns": 1795790800712198911,
"request_ack_ns": 1795790800720557162, "request_end_ns": 1795790800803114766, "worker_id": "worker_7799e639",
"benchmark_phase": "profiling", "phase_index": 0, "was_cancelled": false}, "metrics":
{"output_sequence_length": {"value": 8, "unit": "tokens"}, "request_latency": {"value": 90.5, "unit": "ms"},
"time_to_first_token": {"value": 20.5, "unit": "ms"}, "usage_completion_tokens": {"value": 8, "unit":
"tokens"}, "input_sequence_length": {"value": 72, "unit": "tokens"}, "inter_chunk_latency": {"value":
[10.0, 12.0, 8.0, 10.0, 10.0, 11.0, 9.0], "unit": "ms"}, "inter_token_latency": {"value": 10.0, "unit":
"ms"}}}
"""


@pytest.fixture
def streaming() -> Iterator[StreamingServer]:
    with served() as server:
        yield server


@pytest.fixture
def spec(tmp_path: Path) -> TrialSpec:
    python = write_foreign_interpreter(tmp_path / "bin")
    client = ClientSpec(kind="aiperf", python=str(python))
    return make_spec(tmp_path / "outputs", "python", client=client, load_timeout_s=60)


def at(server: StreamingServer) -> QuietServer:
    return QuietServer(base_url=f"http://127.0.0.1:{server.server_address[1]}")


def line() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(LINE)
    return found


# What it is told


def test_configuration_holds_the_load_and_no_key(spec: TrialSpec, tmp_path: Path) -> None:
    told = aiperf_config.settings(
        spec,
        POINT,
        aiperf_datasets.random(POINT, file=tmp_path / "unused"),
        base_url="http://127.0.0.1:4321",
        has_key=True,
        tokenizer="/models/tiny",
        artifacts=tmp_path,
    )
    assert told["randomSeed"] == 7
    benchmark = told["benchmark"]
    assert benchmark["endpoint"] == {
        "url": "http://127.0.0.1:4321",
        "type": "completions",
        "path": "/v1/completions",
        "apiKey": "${OPENAI_API_KEY}",
        "streaming": True,
        "timeout": 60.0,
        "useServerTokenCount": True,
        "useLegacyMaxTokens": True,
        "extra": {"temperature": 0.0, "ignore_eos": True},
    }
    assert benchmark["dataset"] == {"type": "synthetic", "entries": 6, "prompts": {"isl": 10, "osl": 3}}
    assert benchmark["profiling"] == {"type": "poisson", "rate": 20, "requests": 6}
    assert benchmark["tokenizer"] == {"name": "/models/tiny"}


PHASES: dict[str, tuple[LoadPoint, dict[str, object]]] = {
    "all at once": (
        replace(POINT, request_rate_per_s=None),
        {"type": "concurrency", "requests": 6, "concurrency": 6},
    ),
    "by users": (
        replace(POINT, request_rate_per_s=None, max_concurrency=2),
        {"type": "concurrency", "requests": 6, "concurrency": 2},
    ),
    "at a rate with a cap": (
        replace(POINT, max_concurrency=2),
        {"type": "poisson", "rate": 20, "requests": 6, "concurrency": 2},
    ),
    "in bursts": (
        replace(POINT, burstiness=0.5),
        {"type": "gamma", "smoothness": 0.5, "rate": 20, "requests": 6},
    ),
    "at the times of a trace": (TRACE, {"type": "fixed_schedule", "autoOffset": True}),
}


@pytest.mark.parametrize("name", PHASES)
def test_arrivals_are_told_in_its_words(name: str) -> None:
    point, expected = PHASES[name]
    assert aiperf_config.phase(point, PLAIN) == expected


def test_conversations_are_counted_as_sessions() -> None:
    told = aiperf_config.phase(CHATS, replace(PLAIN, sessions=2))
    assert told == {"type": "concurrency", "sessions": 2, "concurrency": 2}


def test_sampling_and_body_are_added_to_every_request() -> None:
    form = RequestForm(sampling=(("temperature", 0.7), ("top_p", 0.9)), extra_body='{"min_tokens": 2}')
    body = aiperf_config.body(replace(POINT, ignore_eos=False, form=form))
    assert body == {"temperature": 0.7, "top_p": 0.9, "min_tokens": 2}


def test_ramp_is_refused() -> None:
    ramp = Ramp(strategy="linear", start_per_s=1, end_per_s=5)
    engine = EngineSpec(kind="vllm", release="0.32.0")
    with pytest.raises(ConfigError, match=r"workload\.ramp_up: is a linear ramp .* client=vllm_bench"):
        aiperf_config.check(ClientSpec(kind="aiperf"), [replace(POINT, ramp=ramp)], engine)


# Its datasets


def written(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_text().splitlines()]


def test_prefix_and_range_of_random_prompts_are_told(tmp_path: Path) -> None:
    point = replace(POINT, range_ratio=0.3, options=(("prefix_len", 32),))
    told = aiperf_datasets.random(point, file=tmp_path / "unused").settings
    assert told["prompts"] == {"isl": 10, "osl": 3, "randomRangeRatio": "0.3"}
    assert told["prefixPrompts"] == {"poolSize": 1, "length": 32}


def test_prompts_of_a_file_are_sent_from_the_first_on_and_again(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "one", "output_tokens": 4}\n{"prompt": "two", "output_tokens": 6}\n')
    point = LoadPoint(dataset="custom", num_prompts=3, dataset_path=str(file))
    told = aiperf_datasets.custom(point, file=tmp_path / "sent.jsonl")
    assert written(tmp_path / "sent.jsonl") == [
        {"text": "one", "output_length": 4},
        {"text": "two", "output_length": 6},
        {"text": "one", "output_length": 4},
    ]
    # 4 + 6 + 4 tokens.
    assert told.output_tokens == 14


def trace(folder: Path, *rows: dict[str, object]) -> str:
    path = folder / "trace.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def test_trace_begins_at_zero_at_its_speed_and_its_blocks_have_one_length_each(tmp_path: Path) -> None:
    path = trace(
        tmp_path,
        {"timestamp": 1000, "input_length": 40, "output_length": 6, "hash_ids": [1, 2, 3]},
        {"timestamp": 1500, "input_length": 48, "output_length": 7, "hash_ids": [1, 2, 3]},
        {"timestamp": 3000, "input_length": 40, "output_length": 8, "hash_ids": [1, 2, 3]},
    )
    point = replace(TRACE, dataset_path=path, options=(*TRACE.options, ("speed", 2.0)))
    told = aiperf_datasets.timed_trace(point, file=tmp_path / "sent.jsonl")
    first, second, third = written(tmp_path / "sent.jsonl")
    assert [row["timestamp"] for row in (first, second, third)] == [0.0, 250.0, 1000.0]
    assert told.settings["blockSize"] == 16
    assert told.output_tokens == 6 + 7 + 8
    # 40 tokens are two blocks of 16 and one of 8, which is not the full block of the second's 48.
    assert first["hash_ids"] == third["hash_ids"]
    assert first["hash_ids"][:2] == second["hash_ids"][:2]
    assert first["hash_ids"][2] != second["hash_ids"][2]


def test_what_a_trace_tells_nothing_of_is_nobody_elses(tmp_path: Path) -> None:
    path = trace(
        tmp_path,
        {"timestamp": 0, "input_length": 32, "output_length": 1, "hash_ids": [1]},
        {"timestamp": 0, "input_length": 32, "output_length": 1, "hash_ids": [1]},
        {"timestamp": 0, "input_length": 20, "output_length": 1},
    )
    point = replace(TRACE, dataset="trace_lengths", dataset_path=path)
    aiperf_datasets.trace_lengths(point, file=tmp_path / "sent.jsonl")
    first, second, third = written(tmp_path / "sent.jsonl")
    assert first["hash_ids"][0] == second["hash_ids"][0]
    assert first["hash_ids"][1] != second["hash_ids"][1]
    assert "hash_ids" not in third
    assert "timestamp" not in first


def test_conversations_are_written_turn_by_turn_with_their_lengths(tmp_path: Path) -> None:
    told = aiperf_datasets.conversations(CHATS, file=tmp_path / "sent.jsonl")
    rows = written(tmp_path / "sent.jsonl")
    # Five turns are a conversation of three and one of two; each begins with the same system prompt.
    assert [len(row["turns"]) for row in rows] == [1 + 3, 1 + 2]
    assert rows[0]["turns"][0] == rows[1]["turns"][0]
    assert [turn.get("delay") for turn in rows[0]["turns"]] == [None, None, 250.0, 250.0]
    assert (told.sessions, told.output_tokens) == (2, 5 * 4)


def test_conversations_with_times_say_so_where_it_looks(tmp_path: Path) -> None:
    file = tmp_path / "chats.jsonl"
    turns = [{"text": "one", "output_length": 3, "timestamp": 500}, {"text": "two", "output_length": 2}]
    file.write_text(json.dumps({"session_id": "a", "turns": turns}) + "\n")
    point = replace(
        CHATS,
        dataset="timed_conversations",
        num_prompts=2,
        dataset_path=str(file),
        options=(),
        output_len=None,
    )
    aiperf_datasets.conversations(point, file=tmp_path / "sent.jsonl")
    (row,) = written(tmp_path / "sent.jsonl")
    # Times begin with the first; aiperf 0.13.0 refuses a schedule without one beside the turns.
    assert (row["timestamp"], row["turns"][0]["timestamp"]) == (0, 0.0)
    assert aiperf_config.phase(point, PLAIN)["type"] == "fixed_schedule"


# How its report is read


def test_times_of_requests_become_records() -> None:
    later = line()
    later["metadata"]["request_start_ns"] += 250_000_000
    # An answer in a single message has no times between messages.
    del later["metrics"]["inter_chunk_latency"]
    records = aiperf_report.records_of([line(), later], log_path=None)
    assert np.allclose(records.arrival_s, [0.0, 0.25], atol=1e-12)
    metrics = summarize(records)
    assert metrics["mean_ttft_ms"] == pytest.approx(20.5)
    assert metrics["mean_e2el_ms"] == pytest.approx(90.5)
    # (90.5 - 20.5) / (8 - 1), which aiperf calls inter_token_latency.
    assert metrics["mean_tpot_ms"] == pytest.approx(10.0)
    # (10 + 12 + 8 + 10 + 10 + 11 + 9) / 7
    assert metrics["mean_itl_ms"] == pytest.approx(10.0)
    assert (metrics["total_input_tokens"], metrics["total_output_tokens"]) == (144, 16)


def without(*path: str) -> Callable[[dict[str, Any]], object]:
    def spoil(row: dict[str, Any]) -> object:
        for name in path[:-1]:
            row = row[name]
        return row.pop(path[-1])

    return spoil


SPOILT: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no latency": (without("metrics", "request_latency"), "a request has no request_latency"),
    "no count": (without("metrics", "output_sequence_length"), "a request has no output_sequence_length"),
    "no begin": (without("metadata", "request_start_ns"), "request_start_ns None; expected nanoseconds"),
    "text": (
        lambda row: row["metrics"]["time_to_first_token"].update(value="soon"),
        "value is 'soon'; expected a number",
    ),
    "gaps": (
        lambda row: row["metrics"]["inter_chunk_latency"].update(value=[1.0, -1.0]),
        "inter_chunk_latency has -1.0 at place 1",
    ),
}


@pytest.mark.parametrize("name", SPOILT)
def test_report_that_cannot_be_is_refused(name: str) -> None:
    spoil, expected = SPOILT[name]
    row = line()
    spoil(row)
    with pytest.raises(MeasurementError, match=expected):
        aiperf_report.records_of([row], log_path=None)


def test_file_that_is_no_report_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "profile_export.jsonl"
    for text in ("{", "[]\n", '{"metadata": {}}\n'):
        path.write_text(text)
        with pytest.raises(MeasurementError, match=r"profile_export\.jsonl is not as aiperf writes it"):
            aiperf_report.read_requests(path, log_path=None)


def test_answer_without_a_text_is_explained() -> None:
    failed = {**line(), "error": {"type": "InvalidInferenceResultError", "message": "no content"}}
    with pytest.raises(
        MeasurementError, match=r"0 of 1 .* no content \(aiperf takes an answer without a text"
    ):
        aiperf_report.check_complete([failed], wanted=1, log_path=None)


# Whole runs


def run(spec: TrialSpec, server: StreamingServer, point: LoadPoint = POINT) -> Any:
    client = AiperfClient(spec, PLACEMENT)
    return client.measure(at(server), point, restart=0, repeat=1, cancelled=never)


def test_load_is_measured_and_its_report_kept(spec: TrialSpec, streaming: StreamingServer) -> None:
    measured = run(spec, streaming)
    assert (measured.metrics["completed"], measured.metrics["failed"]) == (6, 0)
    # 6 requests of 10 tokens in and 3 out.
    assert (measured.metrics["total_input_tokens"], measured.metrics["total_output_tokens"]) == (60, 18)
    assert measured.metrics["mean_ttft_ms"] < measured.metrics["mean_e2el_ms"]
    assert measured.metrics["mean_itl_ms"] > 0
    assert measured.telemetry["ramp_s"] >= 0
    # Under its own names, what aiperf alone has.
    raw = Path(measured.raw_path)
    assert json.loads(raw.read_text())["effective_concurrency"]["avg"] == 1.5
    beside = sorted(path.name.removeprefix(f"{raw.stem}.") for path in raw.parent.iterdir())
    assert beside == ["config.yaml", "json", "requests.jsonl"]
    assert "inter_chunk_latency" not in raw.with_suffix(".requests.jsonl").read_text()
    assert {request["ignore_eos"] for request in streaming.asked} == {True}


def test_key_reaches_the_server_and_no_file(spec: TrialSpec, streaming: StreamingServer) -> None:
    run(spec, streaming)
    assert streaming.keys == {f"Bearer {API_KEY}"}
    files = [path for path in Path(spec.folder).rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if API_KEY in path.read_text(errors="replace")]


def test_warm_up_leaves_nothing(spec: TrialSpec, streaming: StreamingServer) -> None:
    client = AiperfClient(spec, PLACEMENT)
    assert client.warm_up(at(streaming), POINT, prompts=2, cancelled=never) > 0
    assert len(streaming.asked) == 2
    assert not list((Path(spec.folder) / "raw").iterdir())


def test_conversations_are_measured_turn_by_turn(spec: TrialSpec, streaming: StreamingServer) -> None:
    measured = run(spec, streaming, CHATS)
    assert (measured.metrics["completed"], measured.metrics["total_output_tokens"]) == (5, 20)


FAULTS = {
    "lose-one": (MeasurementError, r"5 of 6 requests completed, 0 failed", FailureClass.CLIENT),
    "fail-one": (MeasurementError, r"5 of 6 .* 1 failed .* The first error: 503 full\.", FailureClass.CLIENT),
    "cut-short": (MeasurementError, r"the answers have 12 tokens together; expected 18", FailureClass.CLIENT),
    "another": (MeasurementError, r"is of version 9\.9\.9, and 0\.13\.0 was found", FailureClass.CLIENT),
    "killed": (EngineError, r"aiperf ended with exit code 137 and left no result", FailureClass.CLIENT),
    "torn": (EngineError, r"aiperf ended with exit code 137 and left no result", FailureClass.CLIENT),
    "die": (
        EngineError,
        r"aiperf ended with exit code 1 and left no result; it says: no tokenizer of that name",
        FailureClass.CLIENT,
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_failures_are_one_sentence(
    spec: TrialSpec, streaming: StreamingServer, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    error, expected, failure = FAULTS[fault]
    monkeypatch.setenv("STANDIN", fault)
    monkeypatch.setenv("STANDIN_LAST_WORDS", "no tokenizer of that name")
    monkeypatch.setattr("sweeper.clients.program._DEATH_S", 0.0)
    with pytest.raises(error, match=expected) as caught:
        run(spec, streaming)
    assert caught.value.failure is failure  # type: ignore[attr-defined]


def test_client_that_never_ends_is_ended(
    spec: TrialSpec, streaming: StreamingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN", "slow")
    hasty = replace(spec, engine=replace(spec.engine, load_timeout_s=1.0))
    with pytest.raises(EngineError, match=r"no result after 1 s of load") as caught:
        run(hasty, streaming)
    assert caught.value.failure is FailureClass.HANG


def test_answers_of_a_file_are_held_against_their_lengths(
    spec: TrialSpec, streaming: StreamingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN", "cut-short")
    rows = [{"timestamp": 0, "input_length": 20, "output_length": n} for n in (3, 4, 5)]
    point = replace(TRACE, dataset_path=trace(tmp_path, *rows))
    # Each of three answers lacks a token of 3 + 4 + 5.
    with pytest.raises(MeasurementError, match=r"have 9 tokens together; expected 12, as their lengths ask"):
        run(spec, streaming, point)
