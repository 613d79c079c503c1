"""The clients: what each can send and report."""

from __future__ import annotations

from dataclasses import dataclass

from sweeper.kinds.registry import Registry


@dataclass(frozen=True, kw_only=True)
class ClientKind:
    """What is known of a client without importing it.

    Where code is named, it is as ``module:name``.

    Attributes:
        name: Value of ``client.kind``.
        client: Opens it for a trial and its placement (``sweeper.clients.Client``).
        client_of_scripts: Opens it where the engine's release has the benchmark as a script only.
        check: Function from the client's spec, the load points and the engine's spec that raises
            ``ConfigError`` where something that it needs is missing; None where it needs nothing.
        engine: Class of the engine inside it, started in place of a server; None where it loads a server.
        datasets: What it can send; None is everything that goes to a server (or to none, as it does).
        needs_rate: It sends at a constant rate, which has to be given.
        can_split: Its own JSON has the times of single requests, so that several can share a load.
        reports_requests: It can judge single requests: goodput, and the search for the highest rate.
        reads_tokenizer: It reads the model's tokenizer as the server does, and must be given the same.
        is_of_vllm: It is a benchmark of vLLM, a script in early releases.
        stays_up: It is a process that stays up for the life of the engine.
        takes_arguments: It is given what ``client.arguments`` holds.
        has_own_python: It can run in another environment than the engine (``client.python``).
    """

    name: str
    client: str
    client_of_scripts: str | None = None
    check: str | None = None
    engine: str | None = None
    datasets: tuple[str, ...] | None = None
    needs_rate: bool = False
    can_split: bool = False
    reports_requests: bool = False
    reads_tokenizer: bool = False
    is_of_vllm: bool = False
    stays_up: bool = False
    has_own_python: bool = False
    takes_arguments: bool = False

    @property
    def has_engine_inside(self) -> bool:
        """Whether it starts an engine for each load itself, so that there is no server."""
        return self.engine is not None


_VLLM_BENCH = ClientKind(
    name="vllm_bench",
    client="sweeper.clients.vllm_bench:VllmBenchClient",
    client_of_scripts="sweeper.clients.bench_script:BenchScriptClient",
    check="sweeper.clients.requirements:check_vllm_bench",
    can_split=True,
    reports_requests=True,
    reads_tokenizer=True,
    is_of_vllm=True,
    stays_up=True,
    has_own_python=True,
    takes_arguments=True,
)
_OFFLINE = ClientKind(
    name="offline",
    client="sweeper.clients.vllm_offline:OfflineClient",
    check="sweeper.clients.requirements:check_offline",
    engine="sweeper.engines.vllm_offline:OfflineEngine",
    is_of_vllm=True,
)
_LOCUST = ClientKind(
    name="locust",
    client="sweeper.clients.locust:LocustClient",
    check="sweeper.clients.requirements:check_locust_client",
    datasets=("random",),
    needs_rate=True,
)

CLIENTS = Registry(
    "client.kind",
    (_VLLM_BENCH, _OFFLINE, _LOCUST),
    declared_by=ClientKind,
    group="sweeper.clients",
)
"""What can load an engine."""

DEFAULT_CLIENT = _VLLM_BENCH.name
"""What loads it unless another is chosen."""
