"""Several engines of one assignment, measured together as one service: the knob ``instances``.

It is a knob of the sweeper and no flag of any server. Each instance holds an equal part of the trial's
devices. Where the release has data parallelism, one server with that many replicas is the service, and its
own balancer deals out the requests; else there are that many servers, and the client splits the stream of
requests between them (``clients.split``). Which of the two it was is stored in ``effective.instances_by``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from sweeper import knobs
from sweeper.engines import Cancelled, Engine, Server
from sweeper.engines.endpoint import joined
from sweeper.errors import ConfigError, EngineError, KnobError
from sweeper.kinds import CLIENTS, ENGINES
from sweeper.records import (
    INSTANCES,
    Assignment,
    ClientSpec,
    EngineSpec,
    FailureClass,
    Placement,
    Provenance,
    Scalar,
    TrialSpec,
)
from sweeper.records.plurals import amount

_DATA_PARALLEL = "data_parallel_size"
_POLL_S = 0.1
_Result = TypeVar("_Result")


def count(assignment: Assignment) -> int:
    """Describe how many instances an assignment asks for; 1 unless it says so.

    Raises:
        ConfigError: The number is not a valid count.
    """
    asked = assignment.get(INSTANCES, 1)
    if not isinstance(asked, int) or isinstance(asked, bool) or asked < 1:
        raise ConfigError(f"knobs.{INSTANCES}: is {asked!r}; expected a whole number of at least 1.")
    return asked


def way(spec: TrialSpec) -> str:
    """Describe how this trial's instances become one service, as ``way_of`` does."""
    return way_of(spec.assignment, engine=spec.engine)


def way_of(assignment: Assignment, *, engine: EngineSpec) -> str:
    """Describe how the instances of an assignment become one service.

    Returns:
        ``single`` for one instance, ``data_parallel`` for one server with replicas, ``split`` for servers
        between which the client splits the requests.

    Raises:
        ConfigError: The number of instances is not a valid count.
        KnobError: Data parallelism is insisted on and the release has none, or is asked for besides.
    """
    if count(assignment) == 1:
        return "single"
    wanted, release = engine.instances_by, engine.release
    kind = ENGINES[engine.kind]
    is_offered = kind.takes_vllm_flags and _DATA_PARALLEL in knobs.known_names(release)
    if wanted == "data_parallel" and not is_offered:
        named = f"vLLM {release}" if kind.takes_vllm_flags else kind.title
        raise KnobError(
            f"engine.instances_by: is 'data_parallel', which {named} does not have "
            "(vLLM has it from 0.8.3). Set engine.instances_by=split."
        )
    if wanted == "split" or not is_offered:
        return "split"
    if _DATA_PARALLEL in assignment:
        raise KnobError(
            f"knobs.{INSTANCES}: is given together with {_DATA_PARALLEL}, which would realise it; expected "
            "one of them. Remove one, or set engine.instances_by=split."
        )
    return "data_parallel"


def check_client(assignment: Assignment, *, engine: EngineSpec, client: ClientSpec) -> None:
    """Check that the client can load as many servers as an assignment asks for; a model of them needs none.

    Raises:
        ConfigError: They share a load that this client cannot split.
    """
    kind = ENGINES[engine.kind]
    if kind.is_modelled or not kind.is_started_by_us or CLIENTS[client.kind].can_split:
        return
    if way_of(assignment, engine=engine) == "split":
        able = next(other.name for other in CLIENTS.values() if other.can_split)
        raise ConfigError(
            f"client.kind: is '{client.kind}' for {amount(count(assignment), 'server')} that share a "
            f"load; expected '{able}', which tells the times of single requests. Set client={able}."
        )


def served_assignment(spec: TrialSpec) -> dict[str, Scalar]:
    """Return the assignment of one server: without our own knob, with replicas where they do its work.

    Raises:
        ConfigError: As ``way``.
    """
    assignment = {name: value for name, value in spec.assignment.items() if name != INSTANCES}
    if way(spec) == "data_parallel":
        assignment[_DATA_PARALLEL] = count(spec.assignment)
    return assignment


def part_of(spec: TrialSpec, placement: Placement, *, index: int) -> tuple[TrialSpec, Placement]:
    """Return one instance's own trial: its share of the devices, and its own folder below the trial's."""
    parts = count(spec.assignment)
    share = len(placement.devices) // parts
    chosen = range(index * share, (index + 1) * share)
    # Blocks are aligned, so every physical GPU has the same number of devices in them.
    parents = {placement.parents[i * len(placement.parents) // len(placement.devices)] for i in chosen}
    part = replace(
        spec,
        assignment=served_assignment(spec),
        devices_wanted=share,
        folder=str(Path(spec.folder) / f"instance-{index}"),
        client=replace(spec.client, keeps_requests=True),
    )
    return part, replace(
        placement,
        devices=tuple(placement.devices[i] for i in chosen),
        parents=tuple(sorted(parents)),
    )


class InstancesEngine:
    """Starts the instances of a trial by an engine that knows of one only."""

    def __init__(self, engine: Engine) -> None:
        """Name the engine that starts each one."""
        self._engine = engine

    def start(self, spec: TrialSpec, placement: Placement, *, restart: int, cancelled: Cancelled) -> Server:
        """Start all instances, at the same time, and wait until each is ready and proven ours.

        Raises:
            EngineError: One did not come up; nothing of the others is left running.
        """
        # The model of a server has replicas whatever release it models.
        if way(spec) == "split" and not ENGINES[spec.engine.kind].is_modelled:
            return self._start_several(spec, placement, restart=restart, cancelled=cancelled)
        assignment = served_assignment(spec)
        if way(spec) == "split":
            # Each instance may itself be one server with replicas.
            assignment[_DATA_PARALLEL] = knobs.replicas(spec.assignment)
        server = self._engine.start(
            replace(spec, assignment=assignment), placement, restart=restart, cancelled=cancelled
        )
        server.effective = {**server.effective, **_told(spec)}
        return server

    def _start_several(
        self, spec: TrialSpec, placement: Placement, *, restart: int, cancelled: Cancelled
    ) -> SplitServer:
        started: list[Server] = []

        def starter(index: int) -> Callable[[Cancelled], Server]:
            part, block = part_of(spec, placement, index=index)

            def start(cancelled: Cancelled) -> Server:
                server = self._engine.start(part, block, restart=restart, cancelled=cancelled)
                started.append(server)
                return server

            return start

        began = time.monotonic()
        try:
            servers = together([starter(i) for i in range(count(spec.assignment))], cancelled=cancelled)
        except BaseException:
            for server in started:
                server.stop()
            raise
        return SplitServer(servers, told=_told(spec), start_s=time.monotonic() - began)


class SplitServer:
    """Several servers that are one service.

    Attributes:
        servers: Each of them, in the order of their devices.
        base_url: Of the first; a client that loads the service asks each server by itself.
        effective: As the first one reports it, with ``instances`` and ``instances_by``; each was compared
            with what was asked.
        command: Of the first; the others differ in port and devices.
    """

    provenance = Provenance.MEASURED

    def __init__(self, servers: Sequence[Server], *, told: Mapping[str, Scalar], start_s: float) -> None:
        """Join servers that are ready."""
        first = servers[0]
        self.servers = tuple(servers)
        self.base_url = first.base_url
        self.api_key = first.api_key
        self.start_s = start_s
        self.command = first.command
        self.effective: Mapping[str, Scalar] = {**first.effective, **told}
        self.versions = first.versions
        self.log_path = first.log_path

    def sanity(self) -> str | None:
        """Ask each server and return the text that they share, or all of them where they differ.

        Raises:
            MeasurementError: One of them returns no answer.
        """
        return joined(server.sanity() for server in self.servers)

    def check_alive(self) -> None:
        """Return quietly while all of them live.

        Raises:
            EngineError: One has ended; class and message come from its own last lines.
        """
        for server in self.servers:
            server.check_alive()

    def prove_ours(self) -> frozenset[int] | None:
        """Check that each is still the one that was started; return the ids of all of their processes.

        Raises:
            EngineError: One of them no longer listens.
            MeasurementError: At one of them another process answers.
        """
        return _together(server.prove_ours() for server in self.servers)

    def pids(self) -> frozenset[int] | None:
        """Return the ids of all processes of all of them; None where one's cannot be seen."""
        return _together(server.pids() for server in self.servers)

    def counters(self) -> Mapping[str, float]:
        """Add up what they have counted; a share in use is that of the fullest.

        What one of them does not report is unknown of all: the sum of the others would be of fewer servers.
        """
        told = [server.counters() for server in self.servers]
        return {
            name: (max if name.startswith("kv_cache_usage") else sum)(one[name] for one in told)
            for name in told[0]
            if all(name in one for one in told)
        }

    def stop(self) -> float:
        """End all of them, at the same time; return the seconds it took. Safe to call twice."""
        began = time.monotonic()
        together([_stopping(server) for server in self.servers], cancelled=lambda: False)
        return time.monotonic() - began


def together(tasks: Sequence[Callable[[Cancelled], _Result]], *, cancelled: Cancelled) -> list[_Result]:
    """Run tasks at the same time, in threads; the first failure cancels the others.

    Args:
        tasks: Each is given what it polls to learn that it is to stop.
        cancelled: Polled besides.

    Returns:
        Their results, in order.

    Raises:
        EngineError: The first task that failed by itself, once all have ended; any other exception passes in
            the same way.
    """
    failed = threading.Event()

    def is_over() -> bool:
        return failed.is_set() or cancelled()

    def guarded(task: Callable[[Cancelled], _Result]) -> _Result:
        try:
            return task(is_over)
        except BaseException:
            failed.set()
            raise

    with ThreadPoolExecutor(max_workers=len(tasks), thread_name_prefix="instance") as pool:
        futures = [pool.submit(guarded, task) for task in tasks]
        try:
            while wait(futures, timeout=_POLL_S).not_done:
                pass
        except BaseException:
            # A request to stop arrives here, in the trial's own thread; the pool waits for its threads.
            failed.set()
            raise
    errors = [error for future in futures if (error := future.exception()) is not None]
    if errors:
        raise min(errors, key=_is_echo)
    return [_value(future) for future in futures]


def _together(groups: Iterable[Set[int] | None]) -> frozenset[int] | None:
    """Join the processes of servers; those of all are not known where one's are not."""
    found: frozenset[int] = frozenset()
    for group in groups:
        if group is None:
            return None
        found |= group
    return found


def _stopping(server: Server) -> Callable[[Cancelled], float]:
    return lambda cancelled: server.stop()


def _value(future: Future[_Result]) -> _Result:
    return future.result()


def _is_echo(error: BaseException) -> bool:
    """Whether a task ended only because it was stopped."""
    return isinstance(error, EngineError) and error.failure is FailureClass.INTERRUPTED


def _told(spec: TrialSpec) -> dict[str, Scalar]:
    return {INSTANCES: count(spec.assignment), "instances_by": way(spec)}
