"""What holds for every client of the registry, and for the one that an engine brings along.

A new client is tested by being declared; it needs something to load here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from sweeper.clients import Client, plausibility
from sweeper.clients.registry import client_of
from sweeper.engines import Server
from sweeper.engines.registry import engine_of
from sweeper.errors import EngineError
from sweeper.kinds import CLIENTS, DATASETS, ENGINES, MODEL_OF_ENGINE, opened
from sweeper.records import (
    METRIC_NAMES,
    ClientSpec,
    EngineSpec,
    FailureClass,
    LoadPoint,
    Placement,
    TrialSpec,
)
from tests.standin_benchmarks import QuietServer, write_old_interpreter
from tests.standin_foreign import write_foreign_interpreter
from tests.standin_server import PLACEMENT, make_spec, never, write_interpreter
from tests.standin_stream import served

BATCH = LoadPoint(dataset="latency", num_prompts=8, input_len=128, output_len=2)
STEADY = LoadPoint(
    dataset="random", num_prompts=6, request_rate_per_s=20, input_len=10, output_len=3, ignore_eos=True
)


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A server that runs, and the trial whose client loads it."""

    spec: TrialSpec
    placement: Placement
    server: Server

    @property
    def point(self) -> LoadPoint:
        return self.spec.load_points[0]


@contextmanager
def by_its_engine(spec: TrialSpec, placement: Placement = PLACEMENT) -> Iterator[Loaded]:
    server = engine_of(spec).start(spec, placement, restart=0, cancelled=never)
    try:
        yield Loaded(spec=spec, placement=placement, server=server)
    finally:
        server.stop()


def vllm_bench(folder: Path, simulated: TrialSpec) -> AbstractContextManager[Loaded]:
    return by_its_engine(make_spec(folder / "outputs", write_interpreter(folder / "bin")))


def offline(folder: Path, simulated: TrialSpec) -> AbstractContextManager[Loaded]:
    python = write_old_interpreter(folder / "bin", release="0.11.0")
    spec = make_spec(folder / "outputs", python, load_points=(BATCH,), client=ClientSpec(kind="offline"))
    return by_its_engine(replace(spec, engine=EngineSpec(kind="vllm", release="0.11.0", python=str(python))))


@contextmanager
def locust(folder: Path, simulated: TrialSpec) -> Iterator[Loaded]:
    spec = make_spec(folder / "outputs", "python", load_points=(STEADY,), client=ClientSpec(kind="locust"))
    assert spec.model.shape is not None
    spec = replace(spec, model=replace(spec.model, shape=replace(spec.model.shape, vocab=800)))
    with served() as there:
        url = f"http://127.0.0.1:{there.server_address[1]}"
        yield Loaded(spec=spec, placement=PLACEMENT, server=QuietServer(base_url=url))


@contextmanager
def foreign(folder: Path, kind: str) -> Iterator[Loaded]:
    python = write_foreign_interpreter(folder / "bin")
    client = ClientSpec(kind=kind, python=str(python))
    spec = make_spec(folder / "outputs", "python", load_points=(STEADY,), client=client)
    with served() as there:
        url = f"http://127.0.0.1:{there.server_address[1]}"
        yield Loaded(spec=spec, placement=PLACEMENT, server=QuietServer(base_url=url))


def aiperf(folder: Path, simulated: TrialSpec) -> AbstractContextManager[Loaded]:
    return foreign(folder, "aiperf")


def guidellm(folder: Path, simulated: TrialSpec) -> AbstractContextManager[Loaded]:
    return foreign(folder, "guidellm")


def of_the_model(folder: Path, simulated: TrialSpec) -> AbstractContextManager[Loaded]:
    devices = Placement(node="here", devices=(0, 1, 2, 3), parents=(0, 1, 2, 3))
    return by_its_engine(simulated, devices)


STAND_INS: Mapping[str, Callable[[Path, TrialSpec], AbstractContextManager[Loaded]]] = {
    "vllm_bench": vllm_bench,
    "offline": offline,
    "locust": locust,
    "aiperf": aiperf,
    "guidellm": guidellm,
    MODEL_OF_ENGINE: of_the_model,
}
MARKS = {"locust": pytest.mark.locust}
OWN = [kind.name for kind in ENGINES.values() if kind.own_client is not None]
ALL = [pytest.param(name, marks=MARKS.get(name, ())) for name in (*CLIENTS, *OWN)]


@pytest.fixture(params=ALL)
def loaded(request: pytest.FixtureRequest, tmp_path: Path, simulated_spec: TrialSpec) -> Iterator[Loaded]:
    assert request.param in STAND_INS, f"write something for client '{request.param}' to load"
    with STAND_INS[request.param](tmp_path, simulated_spec) as found:
        yield found


@contextmanager
def opened_client(loaded: Loaded) -> Iterator[Client]:
    client = client_of(loaded.spec)(loaded.spec, loaded.placement)
    try:
        yield client
    finally:
        client.close()


def test_measurement_says_what_was_measured_in_our_names(loaded: Loaded) -> None:
    with opened_client(loaded) as client:
        measured = client.measure(loaded.server, loaded.point, restart=2, repeat=1, cancelled=never)
    assert (measured.load_point, measured.restart, measured.repeat) == (loaded.point, 2, 1)
    assert set(measured.metrics) <= set(METRIC_NAMES)
    assert measured.metrics["completed"] == loaded.point.num_prompts
    assert measured.measured_s > 0
    assert measured.ended_at >= measured.started_at
    plausibility.check(measured, log_path=None)


def test_client_takes_one_load_point_after_another(loaded: Loaded) -> None:
    with opened_client(loaded) as client:
        runs = [
            client.measure(loaded.server, loaded.point, restart=0, repeat=repeat, cancelled=never)
            for repeat in (0, 1)
        ]
    assert [run.repeat for run in runs] == [0, 1]
    raw = [run.raw_path for run in runs if run.raw_path is not None]
    assert len(set(raw)) == len(raw)


def test_warm_up_takes_time_and_leaves_no_number(loaded: Loaded) -> None:
    with opened_client(loaded) as client:
        assert client.warm_up(loaded.server, loaded.point, prompts=2, cancelled=never) >= 0


def test_load_that_is_stopped_is_interrupted(loaded: Loaded) -> None:
    with opened_client(loaded) as client, pytest.raises(EngineError) as caught:
        client.measure(loaded.server, loaded.point, restart=0, repeat=0, cancelled=lambda: True)
    assert caught.value.failure is FailureClass.INTERRUPTED


def test_client_is_closed_twice_without_harm(loaded: Loaded) -> None:
    client = client_of(loaded.spec)(loaded.spec, loaded.placement)
    client.close()
    client.close()


@pytest.mark.parametrize("name", list(CLIENTS))
def test_its_declaration_names_what_there_is(name: str) -> None:
    kind = CLIENTS[name]
    for place in (kind.client, kind.client_of_scripts, kind.check, kind.engine):
        assert place is None or callable(opened(place))
    sent = [dataset for dataset in DATASETS.values() if dataset.needs_server is not kind.has_engine_inside]
    assert sent
    assert kind.datasets is None or set(kind.datasets) <= {dataset.name for dataset in sent}
