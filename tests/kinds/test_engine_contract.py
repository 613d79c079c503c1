"""What holds for every engine of the registry: it starts, is proven, is asked, and ends.

A new engine is tested by being declared: a model as it is, a server by a stand-in that speaks its protocol.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.engines import Engine, Server, checks
from sweeper.engines.registry import engine_of
from sweeper.errors import EngineError
from sweeper.kinds import ENGINES, EngineKind, opened
from sweeper.knobs.forms import Scalar
from sweeper.processes.ports import ReservedPort
from sweeper.records import EngineSpec, FailureClass, Placement, Provenance, TrialSpec
from tests.engines.test_attach import KEY, attached_spec, wait_until_it_answers
from tests.engines.test_tgi import tgi_spec
from tests.standin_server import PLACEMENT, make_spec, never, write_interpreter
from tests.standin_sglang import sglang_spec
from tests.surroundings import running

Trial = tuple[TrialSpec, Placement]


@contextmanager
def vllm(folder: Path, simulated: Trial) -> Iterator[Trial]:
    yield make_spec(folder / "outputs", write_interpreter(folder / "bin")), PLACEMENT


@contextmanager
def sglang(folder: Path, simulated: Trial) -> Iterator[Trial]:
    yield sglang_spec(folder), PLACEMENT


@contextmanager
def tgi(folder: Path, simulated: Trial) -> Iterator[Trial]:
    yield tgi_spec(folder), PLACEMENT


@contextmanager
def attach(folder: Path, simulated: Trial) -> Iterator[Trial]:
    with ReservedPort() as reserved:
        command = [
            *(str(write_interpreter(folder / "bin")), "-m", "vllm.entrypoints.openai.api_server"),
            *("--served-model-name", "tiny", "--port", str(reserved.port), "--max-num-seqs", "8"),
        ]
        with running(command, env={**os.environ, "VLLM_API_KEY": KEY}):
            url = f"http://127.0.0.1:{reserved.port}"
            wait_until_it_answers(url)
            yield attached_spec(folder, url), PLACEMENT


@contextmanager
def simulated(folder: Path, simulated: Trial) -> Iterator[Trial]:
    yield simulated


STAND_INS: Mapping[str, Callable[[Path, Trial], AbstractContextManager[Trial]]] = {
    "vllm": vllm,
    "sglang": sglang,
    "tgi": tgi,
    "attach": attach,
    "simulated": simulated,
}


@pytest.fixture(params=list(ENGINES))
def kind(request: pytest.FixtureRequest) -> EngineKind:
    return ENGINES[request.param]


@pytest.fixture
def trial(
    kind: EngineKind,
    tmp_path: Path,
    simulated_spec: TrialSpec,
    placement: Placement,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Trial]:
    monkeypatch.setenv("ENDPOINT_KEY", KEY)
    if kind.is_modelled and kind.name not in STAND_INS:
        engine = replace(simulated_spec.engine, kind=kind.name)
        yield replace(simulated_spec, engine=engine, assignment={}), placement
        return
    assert kind.name in STAND_INS, f"write a stand-in of engine '{kind.name}', which this suite starts"
    with STAND_INS[kind.name](tmp_path, (simulated_spec, placement)) as found:
        yield found


@contextmanager
def started(trial: Trial) -> Iterator[Server]:
    spec, placement = trial
    server = engine_of(spec).start(spec, placement, restart=0, cancelled=never)
    try:
        yield server
    finally:
        server.stop()


def test_its_declaration_names_what_there_is(kind: EngineKind) -> None:
    engine: Engine = opened(kind.engine)()
    assert set(inspect.signature(engine.start).parameters) == {"spec", "placement", "restart", "cancelled"}
    for place in (kind.find, kind.check, kind.own_client):
        assert place is None or callable(opened(place))
    assert all(isinstance(flag, str) for flag in checks.flags(kind))


def test_it_can_be_named_on_terminal(kind: EngineKind) -> None:
    facts = ("release", "version", "taken_for", "python", "url", "command")
    assert kind.words.format(**{name: f"<{name}>" for name in facts})
    assert kind.title


def test_running_engine_is_proven_twice_and_told_of(trial: Trial, kind: EngineKind) -> None:
    with started(trial) as server:
        server.check_alive()
        first = server.prove_ours()
        assert server.prove_ours() == first
        assert server.sanity() == server.sanity()
        assert server.provenance is (Provenance.SIMULATED if kind.is_modelled else Provenance.MEASURED)
        assert server.provenance is trial[0].provenance
        assert server.start_s >= 0
        assert server.versions
        assert bool(server.base_url) is not kind.is_modelled
        assert not any(server.api_key in word for word in server.command if server.api_key)
        assert all(isinstance(value, float | int) for value in server.counters().values())
        effective: Mapping[str, Scalar] = server.effective
        assert all(isinstance(value, bool | int | float | str) for value in effective.values())


def test_only_what_was_started_is_ended(trial: Trial, kind: EngineKind) -> None:
    with started(trial) as server:
        assert server.stop() >= 0
        assert server.stop() >= 0
        if kind.is_started_by_us:
            with pytest.raises(EngineError):
                server.check_alive()
        else:
            server.check_alive()


def test_start_that_is_stopped_is_interrupted(trial: Trial) -> None:
    spec, placement = trial
    with pytest.raises(EngineError) as caught:
        engine_of(spec).start(spec, placement, restart=0, cancelled=lambda: True).check_alive()
    assert caught.value.failure is FailureClass.INTERRUPTED


def test_its_release_is_looked_for_without_start(trial: Trial, kind: EngineKind) -> None:
    spec: EngineSpec = trial[0].engine
    found = checks.find(spec, kind=kind)
    assert found is None or (found.release and found.where)
    assert checks.mistakes(trial[0].assignment, kind=kind, allow_unknown=False) == ()


def test_unknown_knob_is_mistake_where_engine_knows_its_own(kind: EngineKind) -> None:
    if kind.check is None:
        return
    (mistake,) = checks.mistakes({"no_such_knob_at_all": 1}, kind=kind, allow_unknown=False)
    assert "no_such_knob_at_all" in mistake


def test_trial_keeps_key_of_its_engines_name(trial: Trial) -> None:
    spec, _ = trial
    assert spec.key != replace(spec, engine=replace(spec.engine, kind="other")).key
