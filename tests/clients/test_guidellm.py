"""guidellm as a client: what it is told, how its times are read, and whole runs of one of its manners."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sweeper.clients import guidellm_config, guidellm_report
from sweeper.clients.guidellm import GuidellmClient
from sweeper.errors import ConfigError, EngineError, MeasurementError
from sweeper.metrics import summarize
from sweeper.records import ClientSpec, EngineSpec, LoadPoint, Ramp, RequestForm, TrialSpec
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

# As guidellm 0.8.1 wrote it of the real vLLM, with most of what it says left out.
ROW = """
{"type_": "generative_request_stats", "request_id": "9898a438", "request_args": "{}", "output": "word",
"info": {"status": "completed", "timings": {"targeted_start": -0.799, "queued": 1795790892.52,
"request_start": 1795790892.5, "first_request_iteration": 1795790892.54, "first_token_iteration":
1795790892.54, "last_token_iteration": 1795790892.68, "last_request_iteration": 1795790892.69,
"request_iterations": 10, "token_iterations": 8, "request_end": 1795790892.7}, "error": null},
"request_latency": 0.2, "prompt_tokens": 62, "output_tokens": 8, "time_to_first_token_ms": 40.0,
"time_per_output_token_ms": 22.5, "inter_token_latency_ms": 20.0}
"""


@pytest.fixture
def streaming() -> Iterator[StreamingServer]:
    with served() as server:
        yield server


@pytest.fixture
def spec(tmp_path: Path) -> TrialSpec:
    python = write_foreign_interpreter(tmp_path / "bin")
    client = ClientSpec(kind="guidellm", python=str(python))
    return make_spec(tmp_path / "outputs", "python", client=client, load_timeout_s=60)


def row() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ROW)
    return found


def run(spec: TrialSpec, server: StreamingServer, point: LoadPoint = POINT) -> Any:
    there = QuietServer(base_url=f"http://127.0.0.1:{server.server_address[1]}")
    return GuidellmClient(spec, PLACEMENT).measure(there, point, restart=0, repeat=1, cancelled=never)


# What it is told


def test_scenario_holds_the_load_and_no_key(spec: TrialSpec, tmp_path: Path) -> None:
    told = guidellm_config.settings(
        spec, POINT, base_url="http://127.0.0.1:4321", tokenizer="/models/tiny", result=tmp_path / "one.json"
    )["spec"]
    assert told == {
        "backend": {
            "kind": "openai_http",
            "target": "http://127.0.0.1:4321",
            "model": "tiny",
            "request_format": "/v1/completions",
            "http2": False,
            "validate_backend": False,
            "timeout": 60.0,
            "extras": {"body": {"temperature": 0.0, "ignore_eos": True}},
        },
        "profile": {"kind": "poisson", "rate": [20]},
        "constraints": [{"kind": "max_requests", "count": 6}],
        "tokenizer": {"kind": "huggingface_auto", "model": "/models/tiny"},
        "data": [{"kind": "synthetic_text", "prompt_tokens": 10, "output_tokens": 3}],
        "seed": {"kind": "static", "value": 7},
        "outputs": [{"kind": "json", "path": str(tmp_path / "one.json")}],
    }


def test_arrivals_are_told_in_its_words() -> None:
    capped = replace(POINT, max_concurrency=2)
    assert guidellm_config.profile(capped) == {"kind": "poisson", "rate": [20], "max_concurrency": 2}
    by_users = replace(capped, request_rate_per_s=None)
    assert guidellm_config.profile(by_users) == {"kind": "concurrent", "streams": [2]}
    at_once = replace(POINT, request_rate_per_s=None)
    assert guidellm_config.profile(at_once) == {"kind": "throughput", "max_concurrency": 6}


def test_lengths_are_drawn_from_the_same_range_as_elsewhere() -> None:
    point = replace(POINT, input_len=100, output_len=5, range_ratio=0.3, options=(("prefix_len", 32),))
    assert guidellm_config.data(point) == {
        "kind": "synthetic_text",
        # 100 * (1 +/- 0.3), and 5 * (1 +/- 0.3) as whole tokens.
        **{"prompt_tokens": 100, "prompt_tokens_min": 70, "prompt_tokens_max": 130},
        **{"output_tokens": 5, "output_tokens_min": 3, "output_tokens_max": 7},
        "prefix_buckets": [{"prefix_count": 1, "prefix_tokens": 32}],
    }


def test_answers_may_end_where_they_need_not_be_whole() -> None:
    form = RequestForm(sampling=(("top_p", 0.9),), extra_body='{"min_tokens": 2}')
    body = guidellm_config.body(replace(POINT, ignore_eos=False, form=form))
    # guidellm itself would ask for whole answers.
    assert body == {"temperature": 0.0, "top_p": 0.9, "ignore_eos": False, "min_tokens": 2}


def test_its_own_settings_are_left_to_the_user_who_gives_them() -> None:
    name = "GUIDELLM__MAX_WORKER_PROCESSES"
    assert name in guidellm_config.variables({})
    assert name not in guidellm_config.variables({name: "3"})


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"burstiness": 0.5}, "burstiness"),
        ({"ramp": Ramp(strategy="linear", start_per_s=1, end_per_s=5)}, "ramp_up"),
    ],
)
def test_other_arrivals_are_refused(changes: dict[str, Any], key: str) -> None:
    engine = EngineSpec(kind="vllm", release="0.32.0")
    with pytest.raises(ConfigError, match=rf"^workload\.{key}: .* use client=vllm_bench"):
        guidellm_config.check(ClientSpec(kind="guidellm"), [replace(POINT, **changes)], engine)


# How its report is read


def test_times_of_requests_become_records() -> None:
    later = row()
    for name in ("request_start", "first_token_iteration", "last_token_iteration"):
        later["info"]["timings"][name] += 0.25
    records = guidellm_report.records_of([row(), later], log_path=None)
    assert np.allclose(records.arrival_s, [0.0, 0.25])
    metrics = summarize(records)
    assert metrics["mean_ttft_ms"] == pytest.approx(40.0, abs=1e-3)
    # To the last token, not to the end of the stream 20 ms later.
    assert metrics["mean_e2el_ms"] == pytest.approx(180.0, abs=1e-3)
    # (180 - 40) / (8 - 1); guidellm's time per output token, 180 / 8 = 22.5, is another thing.
    assert metrics["mean_tpot_ms"] == pytest.approx(20.0, abs=1e-3)
    assert metrics["mean_itl_ms"] is None
    assert (metrics["total_input_tokens"], metrics["total_output_tokens"]) == (124, 16)


def test_requests_off_their_schedule_are_refused() -> None:
    def sent(*, due_s: float, after_s: float) -> dict[str, Any]:
        found = row()
        timings = found["info"]["timings"]
        timings["targeted_start"] = due_s
        timings["request_start"] += after_s
        return found

    kept = [sent(due_s=-1.0, after_s=0.1), sent(due_s=0.0, after_s=1.15), sent(due_s=9.0, after_s=10.1)]
    guidellm_report.check_schedule(kept, log_path=None)
    assert guidellm_report.latest_s(kept, log_path=None) == pytest.approx(0.05, abs=1e-3)
    # Ten seconds of requests that went out within a fifth of one.
    at_once = [sent(due_s=-1.0, after_s=0.0), sent(due_s=9.0, after_s=0.2)]
    with pytest.raises(MeasurementError, match=r"up to 9\.8 s off guidellm's schedule of 10 s; expected the"):
        guidellm_report.check_schedule(at_once, log_path=None)


@pytest.mark.parametrize(
    ("spoilt", "expected"),
    [
        ({"prompt_tokens": None}, "a request has no prompt_tokens"),
        ({"output_tokens": "8"}, "output_tokens is '8'; expected a number"),
        ({"info": {}}, "a request has no request_start"),
    ],
)
def test_report_that_cannot_be_is_refused(spoilt: dict[str, Any], expected: str) -> None:
    with pytest.raises(MeasurementError, match=expected):
        guidellm_report.records_of([{**row(), **spoilt}], log_path=None)


def test_report_without_a_benchmark_is_refused() -> None:
    for report in (None, {}, {"benchmarks": []}, {"benchmarks": [{}, {}]}):
        with pytest.raises(MeasurementError, match="it has not one benchmark"):
            guidellm_report.benchmark_of(report, log_path=None)


# Whole runs


def test_load_is_measured_and_its_report_kept(spec: TrialSpec, streaming: StreamingServer) -> None:
    measured = run(spec, streaming)
    assert (measured.metrics["completed"], measured.metrics["failed"]) == (6, 0)
    # 6 requests of 10 tokens in and 3 out.
    assert (measured.metrics["total_input_tokens"], measured.metrics["total_output_tokens"]) == (60, 18)
    assert measured.metrics["mean_tpot_ms"] > 0
    # Its own time per output token stands under its own name.
    assert measured.telemetry["guidellm.mean_time_per_output_token_ms"] == 12.5
    assert measured.telemetry["client_latest_s"] < 0.01
    raw = Path(measured.raw_path).read_text()
    assert "first_token_iteration" in raw
    assert "the whole prompt" not in raw
    assert streaming.keys == {f"Bearer {API_KEY}"}
    files = [path for path in Path(spec.folder).rglob("*") if path.is_file()]
    assert not [path for path in files if API_KEY in path.read_text(errors="replace")]


FAULTS = {
    "lose-one": (MeasurementError, r"5 of 6 requests completed, 0 failed"),
    "fail-one": (MeasurementError, r"5 of 6 .* 1 failed .* The first error: 503 full\."),
    "cut-short": (MeasurementError, r"the answers have 12 tokens together; expected 18"),
    "another": (MeasurementError, r"is of version 9\.9\.9, and 0\.8\.1 was found"),
    "late": (MeasurementError, r"off guidellm's schedule of 45 s; expected the rate"),
    "die": (EngineError, r"guidellm ended with exit code 1 and left no result; last line: no such scenario"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_failures_are_one_sentence(
    spec: TrialSpec, streaming: StreamingServer, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    error, expected = FAULTS[fault]
    monkeypatch.setenv("STANDIN", fault)
    monkeypatch.setenv("STANDIN_LAST_WORDS", "no such scenario")
    monkeypatch.setattr("sweeper.clients.program._DEATH_S", 0.0)
    with pytest.raises(error, match=expected):
        run(spec, streaming)
