"""Limits changed while an engine runs: the scheduler's file, and who believes it, against each other.

The file is the one that is shipped, on a stand-in for vLLM's own scheduler; `test_live_real` runs it in vLLM.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from sweeper.engines import live
from sweeper.engines.endpoint import Answer, Endpoint
from sweeper.engines.live import LiveLimits
from sweeper.engines.vllm import VllmEngine
from sweeper.errors import EngineError, MeasurementError
from sweeper.processes import orphans
from sweeper.records import FailureClass
from tests.standin_server import PLACEMENT, make_spec, never, write_interpreter

FILE = Path(live.__file__).with_name("live_scheduler.py")


class FakeScheduler:
    """What the file uses of vLLM's scheduler."""

    def __init__(self, *, vllm_config: Any) -> None:
        self.scheduler_config = vllm_config.scheduler_config
        self.max_num_running_reqs = self.scheduler_config.max_num_seqs
        self.max_num_scheduled_tokens = self.scheduler_config.max_num_batched_tokens
        self.max_model_len = 4096
        self.max_num_encoder_input_tokens = 0
        self.requests: dict[str, object] = {}
        self.is_reset = True

    def reset_prefix_cache(self, reset_running_requests: bool = False) -> bool:
        return self.is_reset


class FakeAsyncScheduler(FakeScheduler):
    """Of the other kind."""


def config(**changes: object) -> SimpleNamespace:
    given = {
        **{"max_num_seqs": 32, "max_num_batched_tokens": 2048, "long_prefill_token_threshold": 0},
        **{"async_scheduling": False, "enable_chunked_prefill": True},
    }
    return SimpleNamespace(scheduler_config=SimpleNamespace(**given | changes))


class FakeEndpoint(Endpoint):
    """An engine whose prefix cache is reset by the way that the API server takes."""

    def __init__(self, on_reset: Callable[[], object], *, status: int | None = 200) -> None:
        super().__init__(base_url="http://127.0.0.1:1")
        object.__setattr__(self, "on_reset", on_reset)
        object.__setattr__(self, "status", status)

    def post(self, path: str, body: Mapping[str, object], *, timeout_s: float = 30.0) -> Answer:
        assert path == "/reset_prefix_cache"
        self.on_reset()  # type: ignore[attr-defined]
        return Answer(status=self.status, text="", problem="refused")  # type: ignore[attr-defined]


@pytest.fixture
def limits(tmp_path: Path) -> LiveLimits:
    return LiveLimits(tmp_path / "live")


@pytest.fixture
def start(limits: LiveLimits, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Start a scheduler as vLLM does: the class found by name on its path, made by keywords."""
    environment = limits.environment({})
    monkeypatch.setenv("SWEEPER_LIVE_FOLDER", environment["SWEEPER_LIVE_FOLDER"])
    for name in ("vllm", "vllm.v1", "vllm.v1.core", "vllm.v1.core.sched"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    plain, asynchronous = (f"vllm.v1.core.sched.{kind}" for kind in ("scheduler", "async_scheduler"))
    monkeypatch.setitem(sys.modules, plain, module(plain, Scheduler=FakeScheduler))
    monkeypatch.setitem(sys.modules, asynchronous, module(asynchronous, AsyncScheduler=FakeAsyncScheduler))

    def started(vllm_config: SimpleNamespace) -> Any:
        spec = importlib.util.spec_from_file_location(
            "live_scheduler", Path(environment["PYTHONPATH"]) / "live_scheduler.py"
        )
        assert spec is not None and spec.loader is not None
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        return loaded.LiveScheduler(vllm_config=vllm_config)

    yield started


def module(name: str, **content: object) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(content)
    return made


def change(limits: LiveLimits, scheduler: Any, **wanted: int) -> live.Confirmed:
    endpoint = FakeEndpoint(scheduler.reset_prefix_cache)
    return limits.change(endpoint, wanted, timeout_s=0.0)


# What is shipped


def test_file_imports_nothing_but_vllm_and_standard_library() -> None:
    tree = ast.parse(FILE.read_text(encoding="utf-8"))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {name.name for node in found if isinstance(node, ast.Import) for name in node.names}
    names |= {str(node.module) for node in found if isinstance(node, ast.ImportFrom)}
    roots = {name.partition(".")[0] for name in names}
    assert roots - set(sys.stdlib_module_names) == {"vllm"}


def test_engine_finds_scheduler_and_nothing_else_of_ours(limits: LiveLimits) -> None:
    environment = limits.environment({"PYTHONPATH": "/elsewhere"})
    ours, theirs = environment["PYTHONPATH"].split(":")
    assert theirs == "/elsewhere"
    assert [path.name for path in Path(ours).iterdir()] == ["live_scheduler.py"]
    assert live.ARGUMENTS == ("--scheduler-cls", "live_scheduler.LiveScheduler")


# Confirmed changes


@pytest.mark.parametrize(
    ("is_asynchronous", "kind"), [(True, "LiveAsyncScheduler"), (False, "LiveSynchronousScheduler")]
)
def test_start_confirms_what_it_was_made_with(
    limits: LiveLimits, start: Callable[..., Any], is_asynchronous: bool, kind: str
) -> None:
    start(config(async_scheduling=is_asynchronous))
    said = limits.started()
    assert (said.scheduler, said.change, said.refused) == (kind, None, {})
    assert said.limits == said.started
    assert said.limits == {
        **{"max_num_seqs": 32, "max_num_batched_tokens": 2048},
        "long_prefill_token_threshold": 0,
    }
    assert said.changed == {}


def test_limits_go_down_and_up_again_and_rest_stays(limits: LiveLimits, start: Callable[..., Any]) -> None:
    scheduler = start(config())
    scheduler.max_num_active_reqs = 32  # as in 0.32
    said = change(limits, scheduler, max_num_seqs=8)
    assert said.changed == {"max_num_seqs": 8}
    assert said.started["max_num_seqs"] == 32
    assert (scheduler.max_num_running_reqs, scheduler.max_num_active_reqs) == (8, 8)
    change(limits, scheduler, max_num_batched_tokens=512, long_prefill_token_threshold=256)
    assert scheduler.max_num_scheduled_tokens == 512
    assert scheduler.scheduler_config.long_prefill_token_threshold == 256
    said = change(limits, scheduler, max_num_seqs=32, max_num_batched_tokens=2048)
    assert said.changed == {"long_prefill_token_threshold": 256}


def test_cache_emptied_by_somebody_else_changes_nothing(
    limits: LiveLimits, start: Callable[..., Any]
) -> None:
    scheduler = start(config())
    assert scheduler.reset_prefix_cache(True) is True
    assert limits.started().limits["max_num_seqs"] == 32


def test_engine_with_requests_left_is_waited_for(limits: LiveLimits, start: Callable[..., Any]) -> None:
    scheduler = start(config())
    scheduler.requests = {"a": 1, "b": 2}

    def reset() -> None:
        scheduler.reset_prefix_cache()
        scheduler.requests = dict(list(scheduler.requests.items())[1:])

    said = limits.change(FakeEndpoint(reset), {"max_num_seqs": 8}, timeout_s=30.0)
    assert said.change == 3
    assert said.limits["max_num_seqs"] == 8


# Refused changes: all or nothing, and the reason


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ({"max_num_seqs": 33}, "max_num_seqs: 33 is above 32, which the engine was started with"),
        ({"max_num_seqs": 0}, "0 is no whole number from 1"),
        ({"max_num_seqs": True}, "True is no whole number from 1"),
        ({"block_size": 32}, "block_size: it cannot be changed while the engine runs"),
        ({"max_num_batched_tokens": 16}, "less than max_num_seqs, 32"),
        ({"max_num_seqs": 8, "max_num_batched_tokens": 4096}, "4096 is above 2048"),
    ],
)
def test_change_is_refused_as_whole(
    limits: LiveLimits, start: Callable[..., Any], wanted: dict[str, int], reason: str
) -> None:
    scheduler = start(config())
    with pytest.raises(MeasurementError, match=reason) as caught:
        change(limits, scheduler, **wanted)
    assert caught.value.failure is FailureClass.WRONG_ENGINE
    assert (scheduler.max_num_running_reqs, scheduler.max_num_scheduled_tokens) == (32, 2048)


def test_what_this_engine_cannot_change_is_refused(limits: LiveLimits, start: Callable[..., Any]) -> None:
    whole_prompts = start(config(enable_chunked_prefill=False))
    with pytest.raises(MeasurementError, match=r"without chunked prefill .* up to 4096"):
        change(limits, whole_prompts, max_num_batched_tokens=512)
    of_before = start(config(enable_chunked_prefill=None, chunked_prefill_enabled=True))
    assert change(limits, of_before, max_num_batched_tokens=512)
    with_images = start(config())
    with_images.max_num_encoder_input_tokens = 2048
    with pytest.raises(MeasurementError, match="the model has an encoder"):
        change(limits, with_images, max_num_batched_tokens=512)
    assert change(limits, with_images, max_num_seqs=8)


def test_budget_that_engine_changed_by_itself_is_not_ours_to_set(
    limits: LiveLimits, start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = FakeScheduler.__init__

    def with_drafts(self: FakeScheduler, *, vllm_config: Any) -> None:
        plain(self, vllm_config=vllm_config)
        self.max_num_scheduled_tokens -= 128

    monkeypatch.setattr(FakeScheduler, "__init__", with_drafts)
    scheduler = start(config())
    with pytest.raises(MeasurementError, match="made 1920 of 2048 for reasons of its own"):
        change(limits, scheduler, max_num_batched_tokens=512)


@pytest.mark.parametrize(
    ("state", "reason"),
    [({"requests": {"a": 1}}, "1 requests"), ({"is_reset": False}, "the prefix cache is not empty")],
)
def test_busy_engine_refuses(
    limits: LiveLimits, start: Callable[..., Any], state: dict[str, object], reason: str
) -> None:
    scheduler = start(config())
    vars(scheduler).update(state)
    with pytest.raises(MeasurementError, match=reason):
        change(limits, scheduler, max_num_seqs=8)
    assert scheduler.max_num_running_reqs == 32
    vars(scheduler).update(requests={}, is_reset=True)
    scheduler.reset_prefix_cache()  # as a client does, between loads
    assert scheduler.max_num_running_reqs == 32


# Engines that are not as they should be


def test_started_engine_that_ignores_class_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN", "fixed")
    spec = make_spec(tmp_path / "outputs", str(write_interpreter(tmp_path / "bin")))
    spec = replace(spec, live_start=spec.assignment)
    with pytest.raises(MeasurementError, match="ignored --scheduler-cls") as caught:
        VllmEngine().start(spec, PLACEMENT, restart=0, cancelled=never)
    assert caught.value.failure is FailureClass.WRONG_ENGINE
    assert orphans.find_orphans(tmp_path / "outputs") == []


def test_engine_of_fixed_limits_is_not_asked(tmp_path: Path) -> None:
    spec = make_spec(tmp_path / "outputs", str(write_interpreter(tmp_path / "bin")))
    server = VllmEngine().start(spec, PLACEMENT, restart=0, cancelled=never)
    try:
        assert not {"set_live", "started_with"} & set(server.effective)
        assert "--scheduler-cls" not in server.command
        with pytest.raises(MeasurementError, match="started with fixed limits"):
            server.change_limits({"max_num_seqs": 8})
    finally:
        server.stop()


def test_engine_that_ignores_class_is_found_at_its_start(limits: LiveLimits) -> None:
    with pytest.raises(MeasurementError, match="ignored --scheduler-cls"):
        limits.started()


def test_what_earlier_engine_confirmed_counts_for_none(limits: LiveLimits, start: Callable[..., Any]) -> None:
    start(config())
    with pytest.raises(MeasurementError, match="ignored --scheduler-cls"):
        LiveLimits(limits.folder).started()


def test_scheduler_that_takes_no_notice_is_not_believed(
    limits: LiveLimits, start: Callable[..., Any]
) -> None:
    start(config())
    with pytest.raises(MeasurementError, match="asked for max_num_seqs 32 it took no notice"):
        limits.change(FakeEndpoint(lambda: None), {"max_num_seqs": 32}, timeout_s=0.0)


def test_another_process_that_confirms_is_not_believed(
    limits: LiveLimits, start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = start(config())
    limits.started()
    monkeypatch.setattr("os.getpid", lambda: 1)
    with pytest.raises(MeasurementError, match="process 1 confirms"):
        change(limits, scheduler, max_num_seqs=8)


@pytest.mark.parametrize("text", ["{", '{"change": 1}', "[]"])
def test_confirmation_that_is_not_whole_is_none(
    limits: LiveLimits, start: Callable[..., Any], text: str
) -> None:
    start(config())
    confirmed = limits.folder / "confirmed.json"
    with pytest.raises(MeasurementError, match="it confirms nothing"):
        limits.change(FakeEndpoint(lambda: confirmed.write_text(text)), {"max_num_seqs": 8}, timeout_s=0.0)


def test_scheduler_that_lies_is_not_believed(limits: LiveLimits, start: Callable[..., Any]) -> None:
    scheduler = start(config())
    confirmed = limits.folder / "confirmed.json"

    def lie() -> None:
        scheduler.reset_prefix_cache()
        told = json.loads(confirmed.read_text())
        told["limits"]["max_num_seqs"] = 16
        confirmed.write_text(json.dumps(told))

    with pytest.raises(MeasurementError, match="it has max_num_seqs 16; expected what was asked for"):
        limits.change(FakeEndpoint(lie), {"max_num_seqs": 8}, timeout_s=0.0)


def test_limits_file_that_cannot_be_read_says_so(limits: LiveLimits, start: Callable[..., Any]) -> None:
    scheduler = start(config())

    def wedged() -> None:
        (limits.folder / "limits.json").write_text("{")
        scheduler.reset_prefix_cache()

    with pytest.raises(MeasurementError, match=r"limits\.json cannot be read: JSONDecodeError"):
        limits.change(FakeEndpoint(wedged), {"max_num_seqs": 8}, timeout_s=0.0)


@pytest.mark.parametrize(("status", "failure"), [(404, "wrong_engine"), (None, "hang")])
def test_engine_without_route_or_answer_fails(
    limits: LiveLimits, start: Callable[..., Any], status: int | None, failure: str
) -> None:
    start(config())
    with pytest.raises(EngineError, match="/reset_prefix_cache") as caught:
        limits.change(FakeEndpoint(lambda: None, status=status), {"max_num_seqs": 8}, timeout_s=0.0)
    assert caught.value.failure == failure
