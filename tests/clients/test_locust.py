"""Locust as a client: what it is told, how its times are read, and whole runs against a streaming server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sweeper.clients import locust
from sweeper.clients.locust import LocustClient
from sweeper.errors import MeasurementError
from sweeper.metrics import summarize
from sweeper.records import ClientSpec, LoadPoint, TrialSpec, TrialState
from sweeper.trial import trial
from tests.standin_benchmarks import API_KEY, QuietServer, ReadyEngine
from tests.standin_server import PLACEMENT, make_spec, never
from tests.standin_stream import StreamingServer, served

POINT = LoadPoint(
    dataset="random", num_prompts=6, request_rate_per_s=20, input_len=10, output_len=3, ignore_eos=True
)


@pytest.fixture
def streaming(request: pytest.FixtureRequest) -> Iterator[StreamingServer]:
    asked = getattr(request, "param", None)
    with served(**({"ending": asked} if isinstance(asked, str) else {"refuse": asked})) as server:
        yield server


@pytest.fixture
def spec(tmp_path: Path) -> TrialSpec:
    made = make_spec(tmp_path / "outputs", "python", load_timeout_s=60)
    return replace(made, model=replace(made.model, shape=replace(made.model.shape, vocab=800)))


def at(server: StreamingServer) -> QuietServer:
    return QuietServer(base_url=f"http://127.0.0.1:{server.server_address[1]}")


# What it is told


def test_there_are_users_for_every_request_within_cap() -> None:
    def users(point: LoadPoint) -> str:
        words = locust.locust_command(point, base_url="http://127.0.0.1:4321")
        assert words[words.index("--host") + 1] == "http://127.0.0.1:4321"
        assert words[words.index("--users") + 1] == words[words.index("--spawn-rate") + 1]
        return words[words.index("--users") + 1]

    assert users(POINT) == "6"
    assert users(replace(POINT, max_concurrency=2)) == "2"
    assert users(replace(POINT, num_prompts=5000)) == "1000"


def test_load_is_told_in_file_without_key(spec: TrialSpec, tmp_path: Path) -> None:
    assert locust.load_settings(spec, POINT, result=tmp_path / "one.json") == {
        "model": "tiny",
        "vocab": 800,
        "num_prompts": 6,
        "rate_per_s": 20,
        "input_len": 10,
        "output_len": 3,
        "range_ratio": 0.0,
        "ignore_eos": True,
        "must_count": True,
        "seed": 0,
        "timeout_s": 60,
        "result": str(tmp_path / "one.json"),
    }


# How its times are read


def test_times_of_requests_become_records() -> None:
    records = locust.read_requests(
        [
            {
                "sent_s": 1.0,
                "token_s": [1.5, 1.75, 2.25],
                "input_tokens": 4,
                "output_tokens": 3,
                "error": None,
            },
            {"sent_s": 2.0, "token_s": [2.5], "input_tokens": 0, "output_tokens": 1, "error": "cut off"},
        ]
    )
    assert records.arrival_s.tolist() == [1.0, 2.0]
    assert records.first_token_s[0] == 1.5
    assert records.last_token_s[0] == 2.25
    # A request that failed has no last token and counts no tokens, whatever came before.
    assert np.isnan(records.last_token_s[1])
    assert records.output_tokens.tolist() == [3, 0]
    assert records.inter_token_s.tolist() == [0.25, 0.5]
    metrics = summarize(records)
    assert (metrics["completed"], metrics["failed"]) == (1, 1)


# Whole runs


@pytest.mark.locust
def test_load_point_is_sent_at_constant_rate(spec: TrialSpec, streaming: StreamingServer) -> None:
    client = LocustClient(spec, PLACEMENT)
    measured = client.measure(at(streaming), POINT, restart=0, repeat=1, cancelled=never)
    client.close()
    assert (measured.metrics["completed"], measured.metrics["failed"]) == (6, 0)
    # 6 requests of 10 tokens in and 3 out.
    assert (measured.metrics["total_input_tokens"], measured.metrics["total_output_tokens"]) == (60, 18)
    assert measured.repeat == 1
    assert (measured.telemetry["client_latest_s"] or 0) >= 0
    assert measured.raw_path is not None
    requests = json.loads(Path(measured.raw_path).read_text())["requests"]
    due = [request["due_s"] for request in requests]
    # One every 1 / 20 s, by the clock and not by the answers.
    assert np.diff(due) == pytest.approx(0.05)
    assert all(request["sent_s"] >= request["due_s"] for request in requests)
    assert all(len(request["token_s"]) == 3 for request in requests)
    asked = streaming.asked[0]
    assert asked["ignore_eos"] is True
    assert asked["temperature"] == 0
    # Token ids away from both ends of a vocabulary of 800: from 100 up to 700.
    prompts = [prompt for request in streaming.asked if isinstance(prompt := request["prompt"], list)]
    assert len(prompts) == 6
    assert all(len(prompt) == 10 and min(prompt) >= 100 and max(prompt) < 700 for prompt in prompts)
    assert len({tuple(prompt) for prompt in prompts}) == 6
    assert streaming.keys == {f"Bearer {API_KEY}"}
    assert not [f for f in Path(spec.folder).rglob("*") if f.is_file() and API_KEY in f.read_text()]
    (log,) = Path(spec.folder).glob("client-1-0-1-*.log")
    assert "time_to_first_token" in log.read_text()


@pytest.mark.locust
@pytest.mark.parametrize("streaming", [2], indirect=True)
def test_refused_request_spoils_run(
    spec: TrialSpec, streaming: StreamingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeper.clients.program._DEATH_S", 0.0)
    with pytest.raises(MeasurementError, match=r"5 of 6 requests completed, 1 failed.* status 503: full"):
        LocustClient(spec, PLACEMENT).measure(at(streaming), POINT, restart=0, repeat=0, cancelled=never)


@pytest.mark.locust
def test_warm_up_sends_other_prompts_at_once(spec: TrialSpec, streaming: StreamingServer) -> None:
    client = LocustClient(spec, PLACEMENT)
    assert client.warm_up(at(streaming), POINT, prompts=2, cancelled=never) > 0
    warm = [request["prompt"] for request in streaming.asked]
    assert len(warm) == 2
    client.measure(at(streaming), POINT, restart=0, repeat=0, cancelled=never)
    assert not [request for request in streaming.asked[2:] if request["prompt"] in warm]


@pytest.mark.locust
def test_trial_that_names_locust_is_loaded_by_it(spec: TrialSpec, streaming: StreamingServer) -> None:
    asked = replace(spec, client=ClientSpec(kind="locust"), load_points=(POINT,))
    result = trial.run(asked, PLACEMENT, cancelled=never, engine=ReadyEngine(at(streaming)))
    assert result.state is TrialState.COMPLETE, result.failure_message
    assert result.measurements[0].metrics["completed"] == 6
    assert "client_latest_s" in result.measurements[0].telemetry


@pytest.mark.locust
@pytest.mark.parametrize(
    ("streaming", "reason"),
    [
        ("cut", r"the stream ended before \[DONE\]"),
        ("error", "EngineCore died"),
        ("error-counted", "EngineCore died"),
        ("abort", "ended by 'abort'"),
        ("unended", "ended by None"),
        ("uncounted", r"without the server's count of its tokens"),
        ("overcounted", "30 tokens in 3 messages, where 3 tokens were asked for"),
        ("text-count", "usage has completion_tokens '3'"),
        ("fraction", r"usage has completion_tokens '3\.5'"),
    ],
    indirect=["streaming"],
)
def test_answer_that_broke_off_is_none(
    spec: TrialSpec, streaming: StreamingServer, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeper.clients.program._DEATH_S", 0.0)
    point = replace(POINT, num_prompts=2, ignore_eos=False)
    with pytest.raises(MeasurementError, match=rf"0 of 2 requests completed, 2 failed.*{reason}"):
        LocustClient(spec, PLACEMENT).measure(at(streaming), point, restart=0, repeat=0, cancelled=never)


def test_what_locustfile_wrote_is_read_only_in_its_form(tmp_path: Path) -> None:
    request = {
        "sent_s": 1.0,
        "due_s": 1.0,
        "token_s": [1.5],
        "input_tokens": 4,
        "output_tokens": 1,
        "error": None,
    }
    path = tmp_path / "result.json"

    def read(content: object) -> object:
        path.write_text(json.dumps(content))
        return locust.written_requests(path, log_path=None)

    assert read({"requests": [request]}) == [request]
    for wrong in (
        [],
        {"requests": 3},
        {"requests": ["x"]},
        {"requests": [{**request, "sent_s": "1.0"}]},
        {"requests": [{**request, "token_s": [True]}]},
        {"requests": [{**request, "output_tokens": -1}]},
        {"requests": [{**request, "output_tokens": float("nan")}]},
        {"requests": [{name: value for name, value in request.items() if name != "error"}]},
    ):
        with pytest.raises(MeasurementError, match="the report cannot be believed"):
            read(wrong)
