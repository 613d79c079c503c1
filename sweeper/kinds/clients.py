"""The clients: what each can send and report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sweeper.kinds.registry import Registry


@dataclass(frozen=True, kw_only=True)
class ClientPackage:
    """What a client lies in that is installed into an environment of its own, and by what it is found there.

    Attributes:
        distribution: Its name on the package index.
        release: What is installed unless told otherwise: the release that was tried here.
        since: Oldest release whose configuration and report are those that are written and read here.
        folder: Where it is installed unless told otherwise.
        variable: Environment variable that may name its interpreter.
        size: What it takes on disk.
        extras: Of the distribution, by comma; empty for none.
        key: Group of the configuration whose ``python`` may name its interpreter.
        asked: What begins the sentence on who asks for it.
    """

    distribution: str
    release: str
    since: str
    folder: str
    variable: str
    size: str
    extras: str = ""
    key: str = "client"
    asked: str = "client.kind: is"


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
        writers: Name of a dataset to the function that writes it in the client's own words; empty where the
            dataset says itself what the client is given.
        package: What is installed for it into an environment of its own; None where it needs none.
        is_told_lengths_alone: It draws prompts by their lengths, and knows nothing else of a dataset.
        forms_requests: It can be told how requests are put and in which rhythm they come.
        needs_rate: It sends at a constant rate, which has to be given.
        can_split: Its own JSON has the times of single requests, so that several can share a load.
        reports_requests: It can judge single requests: goodput, and the search for the highest rate.
        reads_tokenizer: It reads the model's tokenizer as the server does, and must be given the same.
        is_of_vllm: It is a benchmark of vLLM, a script in early releases.
        stays_up: It is a process that stays up for the life of the engine.
        is_kept_warm: What it imports can be kept from one engine to the next: it is opened with ``warm=`` too
            (``sweeper.processes.warm``).
        takes_arguments: It is given what ``client.arguments`` holds.
        has_own_python: It can run in another environment than the engine (``client.python``).
    """

    name: str
    client: str
    client_of_scripts: str | None = None
    check: str | None = None
    engine: str | None = None
    datasets: tuple[str, ...] | None = None
    writers: Mapping[str, str] = field(default_factory=dict)
    package: ClientPackage | None = None
    is_told_lengths_alone: bool = False
    forms_requests: bool = False
    needs_rate: bool = False
    can_split: bool = False
    reports_requests: bool = False
    reads_tokenizer: bool = False
    is_of_vllm: bool = False
    stays_up: bool = False
    is_kept_warm: bool = False
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
    forms_requests=True,
    can_split=True,
    reports_requests=True,
    reads_tokenizer=True,
    is_of_vllm=True,
    stays_up=True,
    is_kept_warm=True,
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
    is_told_lengths_alone=True,
    needs_rate=True,
)
_AIPERF_WRITERS = {
    **{
        name: f"sweeper.clients.aiperf_datasets:{name}"
        for name in ("random", "custom", "timed_trace", "trace_lengths", "conversations")
    },
    "custom_conversations": "sweeper.clients.aiperf_datasets:conversations",
    "timed_conversations": "sweeper.clients.aiperf_datasets:conversations",
}
_AIPERF = ClientKind(
    name="aiperf",
    client="sweeper.clients.aiperf:AiperfClient",
    check="sweeper.clients.aiperf_config:check",
    datasets=tuple(_AIPERF_WRITERS),
    writers=_AIPERF_WRITERS,
    package=ClientPackage(
        distribution="aiperf",
        release="0.13.0",
        since="0.13.0",
        folder=".venv-aiperf",
        variable="SWEEPER_AIPERF_PYTHON",
        size="1.5 GB",
    ),
    forms_requests=True,
    reports_requests=True,
    reads_tokenizer=True,
    has_own_python=True,
)
_GUIDELLM = ClientKind(
    name="guidellm",
    client="sweeper.clients.guidellm:GuidellmClient",
    check="sweeper.clients.guidellm_config:check",
    datasets=("random",),
    package=ClientPackage(
        distribution="guidellm",
        release="0.8.1",
        since="0.8.1",
        folder=".venv-guidellm",
        variable="SWEEPER_GUIDELLM_PYTHON",
        size="2 GB with the CPU build of torch, 6 GB with the usual one",
    ),
    forms_requests=True,
    reports_requests=True,
    reads_tokenizer=True,
    has_own_python=True,
)

CLIENTS = Registry(
    "client.kind",
    (_VLLM_BENCH, _OFFLINE, _LOCUST, _AIPERF, _GUIDELLM),
    declared_by=ClientKind,
    group="sweeper.clients",
)
"""What can load an engine."""

LM_EVAL = ClientKind(
    name="lm_eval",
    client="sweeper.clients.accuracy:score",
    package=ClientPackage(
        distribution="lm-eval",
        extras="api",
        release="0.4.13",
        since="0.4.9",
        folder=".venv-lm_eval",
        variable="SWEEPER_LM_EVAL_PYTHON",
        size="600 MB",
        key="accuracy",
        asked="accuracy: questions are asked by",
    ),
)
"""What asks questions (``accuracy.path``): it lies where clients of other projects do, and loads nothing."""

DEFAULT_CLIENT = _VLLM_BENCH.name
"""What loads it unless another is chosen."""
