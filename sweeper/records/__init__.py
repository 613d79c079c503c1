"""The frozen data that crosses module borders.

Words are those of docs/architecture.md: an *assignment* gives every knob a value, a *trial* is one
assignment on one *placement*, a *measurement* is one client run at one *load point*.
Missing is ``None``; zero, -1 and empty text are values.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

Scalar = bool | int | float | str
"""A knob's value."""

Assignment = Mapping[str, Scalar]
"""Knob name to value, for one engine. A name in UPPER_CASE is an environment variable, a name that
starts with ``host_`` is a setting of the host, every other name is a flag of the server
(``max_num_seqs`` is ``--max-num-seqs``)."""


METRIC_NAMES = (
    "request_throughput_per_s",
    "output_throughput_tok_per_s",
    "total_throughput_tok_per_s",
    "request_goodput_per_s",
    *(
        f"{statistic}_{latency}_ms"
        for latency in ("ttft", "tpot", "itl", "e2el")
        for statistic in ("mean", "median", "std", "p50", "p90", "p95", "p99")
    ),
    *(f"{statistic}_batch_latency_ms" for statistic in ("mean", "median", "std", "p50", "p90", "p95", "p99")),
    "completed",
    "failed",
    "total_input_tokens",
    "total_output_tokens",
    "duration_s",
    "max_rate_per_s",
)
"""Every metric of a measurement, named and defined as vLLM's benchmarks do; ``max_rate_per_s`` alone is ours:
what a search over the request rate found."""

MAX_RATE = "max_rate_per_s"
"""The highest request rate that keeps its bounds; measured by load points that search for it."""

GOODPUT_BOUNDS = ("ttft_ms", "tpot_ms", "e2el_ms")
"""Latencies of a request that goodput can bound. Source: vLLM's benchmark, ``--goodput``."""

HOST_PREFIX = "host_"
"""How the names of knobs begin that are settings of the host, and no server's."""

GPU = "gpu"
"""What an objective can be divided by: the GPUs that a trial used, a partition counting as its share."""

PARTITIONS_PER_GPU: Mapping[str, int] = {"SPX": 1, "DPX": 2, "TPX": 3, "QPX": 4, "CPX": 8}
"""Devices that one GPU shows in each compute mode; CPX is one per XCD, so 8 holds for GPUs with 8 XCDs only.

Source:
    Linux, drivers/gpu/drm/amd/amdgpu/aqua_vanjaram.c: 8 XCDs (MI300X, MI325X) take SPX, DPX, QPX and CPX, 6
    (MI300A) SPX, TPX and CPX, 4 (MI308X) SPX, DPX and CPX; __aqua_vanjaram_get_px_mode_info has the counts.
"""

OFFLINE_DATASETS = ("latency", "throughput")
"""Datasets of load points that need no server: vLLM's latency and throughput benchmarks."""

MEASURED_ITERATIONS = 5
"""Rounds of a batch that the latency benchmark measures. Source: AMD's vllm_benchmark_report.sh."""

DATASETS = ("sharegpt", "random", *OFFLINE_DATASETS)
"""What a load point can send."""

CLIENTS = ("vllm_bench", "offline", "locust")
"""What can load an engine; the first one unless another is chosen."""

ENGINES = ("vllm", "tgi", "attach", "simulated")
"""What can serve."""

INSTANCES_BY = ("auto", "data_parallel", "split")
"""How several instances become one service: by the engine's own data parallelism, or as servers between
which the requests are split; ``auto`` takes the first where the release has it."""

INSTANCES = "instances"
"""The knob of the sweeper itself: how many engines of one assignment share a trial's devices and load."""

SEARCH_METHODS = ("grid", "random", "tpe", "nsga2", "gp", "guided", "staged")
"""How a space can be walked."""


class Platform(StrEnum):
    """The machine that is measured."""

    MI300X = "mi300x"
    CUDA = "cuda"
    CPU = "cpu"
    SIMULATED = "simulated"


MASK_VARIABLES: Mapping[Platform, str | None] = {
    Platform.MI300X: "HIP_VISIBLE_DEVICES",
    Platform.CUDA: "CUDA_VISIBLE_DEVICES",
    Platform.CPU: "VLLM_CPU_OMP_THREADS_BIND",
    Platform.SIMULATED: None,
}
"""Environment variable that names the devices to the engine on each platform."""


class Provenance(StrEnum):
    """Whether a number was seen on a machine or computed by a model of one."""

    MEASURED = "measured"
    SIMULATED = "simulated"


class TrialState(StrEnum):
    """How a trial ended."""

    COMPLETE = "complete"
    FAILED = "failed"
    INFEASIBLE = "infeasible"
    SKIPPED = "skipped"


class FailureClass(StrEnum):
    """Why a trial has no numbers; the caller's reaction hangs on it."""

    OUT_OF_MEMORY = "out_of_memory"
    BAD_ARGUMENT = "bad_argument"
    UNSUPPORTED = "unsupported"
    PORT = "port"
    START_TIMEOUT = "start_timeout"
    HANG = "hang"
    CRASH = "crash"
    WRONG_ANSWER = "wrong_answer"
    WRONG_ENGINE = "wrong_engine"
    NOT_MODELLED = "not_modelled"
    CLIENT = "client"
    INFRASTRUCTURE = "infrastructure"
    INTERRUPTED = "interrupted"

    @property
    def is_transient(self) -> bool:
        """Whether the same trial may well succeed when it is repeated."""
        return self in (FailureClass.PORT, FailureClass.INFRASTRUCTURE, FailureClass.INTERRUPTED)


@dataclass(frozen=True, kw_only=True)
class RateSearch:
    """A search for the highest request rate at which a running server keeps its bounds.

    Attributes:
        low: Smallest rate tried, requests per second.
        high: Largest rate tried, requests per second.
        resolution: Distance of neighbouring rates: how well the answer is known, requests per second.
        bounds: Pairs of a latency metric, such as ``p99_ttft_ms``, and the most it may be.
    """

    low: float
    high: float
    resolution: float
    bounds: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        return ", ".join(f"{metric} <= {bound:g}" for metric, bound in self.bounds)


@dataclass(frozen=True, kw_only=True)
class LoadPoint:
    """What the client sends to the engine in one run.

    Attributes:
        dataset: ``sharegpt`` or ``random``; ``latency`` and ``throughput`` are vLLM's benchmarks without a
            server: one batch again and again, and everything at once.
        num_prompts: Requests sent; for ``latency``, those of one batch.
        request_rate_per_s: Mean of the Poisson arrivals; None sends everything at once.
        max_concurrency: Requests under way at once; None is unlimited.
        input_len: Prompt tokens of every dataset but sharegpt.
        output_len: Output tokens of the same; for sharegpt, replaces the recorded lengths.
        range_ratio: Random lengths lie in len * (1 +/- ratio); 0 fixes them.
        dataset_path: File of the dataset, where it has one.
        ignore_eos: Generate exactly the wanted number of tokens.
        client_seed: Seed of arrivals and sampling.
        keeps_prefix_cache: Begin with what the engine remembers of earlier runs, as a benchmark that is
            run a second time does; otherwise its prefix cache is emptied first. Load points share their
            prompts, so without that every one after the first would be answered from the cache.
        goodput_ms: What a request has to keep to count as good: pairs of one of ``GOODPUT_BOUNDS`` and
            milliseconds; empty leaves goodput unknown.
        rate_search: Bounds whose highest request rate is searched for; None measures at one rate.
    """

    dataset: str
    num_prompts: int
    request_rate_per_s: float | None = None
    max_concurrency: int | None = None
    input_len: int | None = None
    output_len: int | None = None
    range_ratio: float = 0.0
    dataset_path: str | None = None
    ignore_eos: bool = False
    client_seed: int = 0
    keeps_prefix_cache: bool = False
    goodput_ms: tuple[tuple[str, float], ...] = ()
    rate_search: RateSearch | None = None

    @property
    def identity(self) -> Mapping[str, object]:
        """What is sent, as plain data; what came later is left out where unused, so that old keys hold."""
        content = asdict(self)
        for name in ("goodput_ms", "rate_search"):
            if not content[name]:
                del content[name]
        return content

    @property
    def goodput_bounds(self) -> str | None:
        """The goodput bounds as vLLM's ``--goodput`` takes them: ``ttft:2000 tpot:100``; None without any."""
        words = (f"{name.removesuffix('_ms')}:{bound:g}" for name, bound in self.goodput_ms)
        return " ".join(words) or None

    @property
    def max_rate_slo(self) -> str | None:
        """What the search over the request rate keeps, in words; None where there is no such search."""
        return None if self.rate_search is None else str(self.rate_search)

    @property
    def label(self) -> str:
        """Short text that tells this load point from its siblings in a log or an axis."""
        if self.dataset in OFFLINE_DATASETS:
            what = "batch of" if self.dataset == "latency" else "requests:"
            return f"{what} {self.num_prompts}, {self.input_len} in, {self.output_len} out"
        rate = "all at once" if self.request_rate_per_s is None else f"{self.request_rate_per_s:g} QPS"
        parts = [rate if self.rate_search is None else f"highest rate with {self.rate_search}"]
        if self.max_concurrency is not None:
            parts.append(f"{self.max_concurrency} at a time")
        if self.keeps_prefix_cache:
            parts.append("second run")
        return ", ".join(parts)


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """The numbers of a dense decoder-only transformer, as its config.json gives them."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    max_positions: int
    tied_embeddings: bool = False

    @property
    def parameters(self) -> int:
        """Weights in number: embeddings, attention, gated MLP, norms; the head unless it is tied."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        per_layer = attention + 3 * self.hidden * self.intermediate + 2 * self.hidden
        embeddings = self.vocab * self.hidden * (1 if self.tied_embeddings else 2)
        return self.layers * per_layer + embeddings + self.hidden


@dataclass(frozen=True, kw_only=True)
class Model:
    """What is served.

    Attributes:
        name: Name under which it is served.
        path: Hub id or local folder given to the engine.
        shape: Its dimensions; None where they are not known.
        dtype: Type of the weights: bfloat16, float16, float32 or fp8; None where it is not known.
        is_dummy: Weights are random, so only speed means anything.
        revision: Revision on the hub, or a content hash of a local folder.
        no_shape_because: Why there is no shape, in words.
    """

    name: str
    path: str
    shape: ModelShape | None
    dtype: str | None = "bfloat16"
    is_dummy: bool = False
    revision: str | None = None
    no_shape_because: str | None = None

    @property
    def identity(self) -> Mapping[str, object]:
        """What makes it this model: where a local folder lies does not, once its content has a hash."""
        content = asdict(self)
        del content["no_shape_because"]
        if self.revision is not None:
            del content["path"]
        return content


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """What serves, and how long its stages may take (seconds).

    Attributes:
        kind: One of ``ENGINES``.
        release: Version of vLLM, such as ``0.6.2``: found in its environment, or modelled.
        build: Version that its environment tells where that does not say which release it is, and ``release``
            was stated for it (``0.1.dev9453``); None where the release is the version that was found.
        python: Interpreter of the engine's own environment; None for the simulated engine.
        url: Where an attached endpoint answers.
        api_key_env: Environment variable that holds its key; the key itself is in no record.
        command: Program that starts TGI.
        prefix: Words before that program, such as those that run it in a container.
        instances_by: How the knob ``instances`` is realised: one of ``INSTANCES_BY``.
        binds_numa: Whether engine and client are kept on the NUMA node of their devices.
        free_timeout_s: Until its devices are seen to be free.
        launch_timeout_s: Until the process that watches over a program is up.
        start_timeout_s: From there until the server listens.
        ready_timeout_s: From there until it says that it is healthy.
        sanity_timeout_s: Until one question is answered.
        warmup_timeout_s: For the warm-up.
        load_timeout_s: For one load.
        stop_timeout_s: Between the request to end and the killing of what is left.
    """

    kind: str
    release: str
    build: str | None = None
    python: str | None = None
    url: str | None = None
    api_key_env: str | None = None
    command: str = "text-generation-launcher"
    prefix: tuple[str, ...] = ()
    instances_by: str = "auto"
    binds_numa: bool = True
    free_timeout_s: float = 120.0
    launch_timeout_s: float = 60.0
    start_timeout_s: float = 3600.0
    ready_timeout_s: float = 600.0
    sanity_timeout_s: float = 120.0
    warmup_timeout_s: float = 1800.0
    load_timeout_s: float = 7200.0
    stop_timeout_s: float = 60.0

    @property
    def version(self) -> str:
        """Version that the engine's environment tells, without its local part."""
        return (self.build or self.release).partition("+")[0]


@dataclass(frozen=True, kw_only=True)
class ClientSpec:
    """What loads the engine.

    Attributes:
        kind: One of ``CLIENTS``.
        script: The folder ``benchmarks/`` of vLLM's repository, or a script in it, for releases whose load
            generator is no command yet.
        python: Interpreter that runs the load generator; None takes the engine's.
        keeps_requests: Its own JSON keeps the times of single requests.
        start_timeout_s: Until it has imported what it needs.
    """

    kind: str = CLIENTS[0]
    script: str | None = None
    python: str | None = None
    keeps_requests: bool = False
    start_timeout_s: float = 600.0


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The aligned block of devices that a trial holds.

    Attributes:
        node: Host name.
        devices: Node-absolute indices, ascending, as HIP, CUDA or the core list counts them.
        parents: Physical GPUs that the block touches, ascending.
        partition_mode: Compute mode (SPX, DPX, QPX, CPX), or None where there are none.
        partitions_per_gpu: Devices that each GPU shows in that mode; None where it is not told.
        memory_mode: NPS1, NPS2, NPS4, or None.
        device_name: Product name of the devices, such as ``AMD Instinct MI300X``.
        numa_node: NUMA node that all devices share, else None.
        mask_variable: Environment variable that names the devices to the engine, besides its alias.
    """

    node: str
    devices: tuple[int, ...]
    parents: tuple[int, ...]
    partition_mode: str | None = None
    partitions_per_gpu: int | None = None
    memory_mode: str | None = None
    device_name: str | None = None
    numa_node: int | None = None
    mask_variable: str | None = None


# Of simulated trials; those from before there was a choice have none.
_USUAL_DEVICES = (None, "mi300x")


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """Everything a worker needs to run one trial; it is sent to it whole.

    Attributes:
        study: Name of the study.
        label: What tells this trial from its siblings, for a person: its series or its varying knobs.
        folder: The trial's own folder for start file, command, logs and raw client JSON.
        series: Names of the series that this assignment serves.
        assignment: Knob to value.
        devices_wanted: How many devices its placement needs.
        warmup_prompts: Requests sent before the first measured run of each engine start.
        partitioning: Mode that the node's GPUs are in, such as ``CPX/NPS4``: one device is not the same
            thing in another mode. None where there are no partitions.
        repeats: Engine starts.
        runs_per_start: Client runs at each load point within one start.
        control: Which repetition of the study's control setting it is, from 0; None for any other trial.
        calibration: Parameters of the simulation; those that are not there have their defaults.
        calibration_name: What these are called; None where nothing is simulated.
        expected_error: How far off a simulated number of this kind is to be expected, in words.
        modelled_device: Which of ``simulation.device.DEVICES`` the devices are; None where none is simulated.
        final: Which repetition of a finalist it is, from 0, after the search; None for any other trial.
        is_default: Whether that finalist is the setting that the others are compared with.
        stop_rule: When its remaining load points are left out; None measures all of them, as written.
    """

    study: str
    folder: str
    series: tuple[str, ...]
    assignment: Assignment
    load_points: tuple[LoadPoint, ...]
    engine: EngineSpec
    model: Model
    platform: Platform
    devices_wanted: int
    warmup_prompts: int = 0
    repeats: int = 1
    runs_per_start: int = 1
    attempt: int = 1
    calibration: Mapping[str, float] = field(default_factory=dict)
    calibration_name: str | None = None
    expected_error: str | None = None
    modelled_device: str | None = None
    label: str = ""
    partitioning: str | None = None
    client: ClientSpec = ClientSpec()
    control: int | None = None
    final: int | None = None
    is_default: bool = False
    stop_rule: StopRule | None = None

    @property
    def role(self) -> str | None:
        """What it is besides a trial of the study: ``control``, ``finalist``, ``default``, or nothing."""
        if self.final is not None:
            return "default" if self.is_default else "finalist"
        return None if self.control is None else "control"

    @property
    def is_exclusive(self) -> bool:
        """Whether it changes the host, so that nothing else may run beside it; a model of a host may."""
        is_real = self.platform is not Platform.SIMULATED
        return is_real and any(knob.startswith(HOST_PREFIX) for knob in self.assignment)

    @cached_property
    def key(self) -> str:
        """Identity by content: 16 hex digits; order of knobs, folders, series and attempts do not matter."""
        return content_key(
            {
                "assignment": dict(self.assignment),
                "engine": self.engine.kind,
                "release": self.engine.release,
                "model": self.model.identity,
                "platform": str(self.platform),
                "load_points": [point.identity for point in self.load_points],
                "warmup_prompts": self.warmup_prompts,
                "repeats": self.repeats,
                "runs_per_start": self.runs_per_start,
                "calibration": dict(self.calibration),
                # Left out where it is the usual one, so that keys from before there was a choice still hold.
                **({} if self.client.kind == CLIENTS[0] else {"client": self.client.kind}),
                **({} if self.partitioning is None else {"partitioning": self.partitioning}),
                **({} if self.modelled_device in _USUAL_DEVICES else {"device": self.modelled_device}),
                **({} if self.engine.build is None else {"build": self.engine.build}),
                **({} if self.engine.url is None else {"url": self.engine.url}),
                **({"instances_by": self.engine.instances_by} if INSTANCES in self.assignment else {}),
                **({} if self.engine.binds_numa else {"binds_numa": False}),
                **({} if self.control is None else {"control": self.control}),
                **({} if self.final is None else {"final": self.final}),
            }
        )


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One client run at one load point.

    Attributes:
        metrics: Names and units as in ``sweeper.store`` (``mean_ttft_ms``, ``completed``, ...).
        telemetry: What the engine counted during the run (``prefix_cache_hit_rate``, ...).
        raw_path: The client's own JSON, kept as it came; None for the simulated client.
    """

    load_point: LoadPoint
    restart: int
    repeat: int
    metrics: Mapping[str, float | None]
    telemetry: Mapping[str, float | None]
    measured_s: float
    client_overhead_s: float
    started_at: float
    ended_at: float
    raw_path: str | None = None


PHASES = ("free_wait_s", "engine_start_s", "warmup_s", "stop_s")
"""What a trial spends its time on besides its loads, in seconds."""


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """What became of a trial. A failure is a result as good as any other.

    Attributes:
        failure_message: The engine's own line where it left one, else ours.
        effective: Configuration that the engine itself reported, by knob name.
        versions: ``vllm``, ``torch``, ``rocm``, ``driver``, ``kernel``, ... as far as they are known.
        surroundings: Under what it ran: ``container``, ``numa_balancing``, ``environment``.
        sanity_text: The answer to a greedy question, before and after the loads; that of all starts where
            they differ.
        phases: Seconds spent on each of ``PHASES``.
    """

    spec: TrialSpec
    placement: Placement | None
    state: TrialState
    provenance: Provenance
    measurements: tuple[Measurement, ...] = ()
    failure_class: FailureClass | None = None
    failure_message: str | None = None
    log_path: str | None = None
    effective: Mapping[str, Scalar] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    surroundings: Mapping[str, Scalar] = field(default_factory=dict)
    phases: Mapping[str, float] = field(default_factory=dict)
    sanity_fingerprint: str | None = None
    sanity_text: str | None = None
    command: tuple[str, ...] = ()
    started_at: float | None = None
    ended_at: float | None = None


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What is better.

    Attributes:
        metric: A metric column of the store, such as ``request_throughput_per_s``.
        direction: ``maximize`` or ``minimize``.
        request_rate_per_s: The load point that counts; None takes the mean over all load points.
        per: ``GPU`` divides by the GPUs used; None takes the metric as it is.
    """

    metric: str
    direction: str
    request_rate_per_s: float | None = None
    per: str | None = None

    @property
    def name(self) -> str:
        """Name on the dashboard's axes; the unit is the end of the metric's own name."""
        return _quantity_name(self.metric, self.request_rate_per_s, self.per)


@dataclass(frozen=True, kw_only=True)
class Constraint:
    """What a setting has to keep to be feasible, such as a service level objective.

    Attributes:
        metric: A metric column of the store, such as ``p99_ttft_ms``.
        limit: The bound, in the metric's unit; a value equal to it keeps it.
        is_upper: Whether values may not lie above it; otherwise not below.
        request_rate_per_s: The load point that counts; None takes the mean over all load points.
        per: As in ``Objective``.
    """

    metric: str
    limit: float
    is_upper: bool
    request_rate_per_s: float | None = None
    per: str | None = None

    @property
    def name(self) -> str:
        """The bound in words: ``p99_ttft_ms at 16 QPS <= 2000``."""
        quantity = _quantity_name(self.metric, self.request_rate_per_s, self.per)
        return f"{quantity} {'<=' if self.is_upper else '>='} {self.limit:g}"

    def violation(self, value: float) -> float:
        """Tell how far a value is past the limit, as a share of it; 0 or less keeps it.

        A share, so that a search may add up bounds in milliseconds and in requests; a limit of 0 has no
        shares, and gives the distance itself.
        """
        past = value - self.limit if self.is_upper else self.limit - value
        return past / abs(self.limit) if self.limit else past


@dataclass(frozen=True, kw_only=True)
class StopRule:
    """What a running trial is held against, to stop once it can no longer matter.

    Attributes:
        objectives: What is better.
        constraints: What has to be kept.
        incumbents: Values, one per objective, of the best trials known when it began.
        margin: By what share of a value it has to be behind, or past a bound.
    """

    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...] = ()
    incumbents: tuple[tuple[float, ...], ...] = ()
    margin: float = 0.05


def gpus_used(
    devices: int, *, partition_mode: str | None = None, partitions_per_gpu: int | None = None
) -> float:
    """Count the GPUs that so many devices are: a partition is its share of one.

    Args:
        devices: How many.
        partition_mode: Of their GPUs; None where there are no modes.
        partitions_per_gpu: Devices that one GPU shows in that mode; None takes the usual count.
    """
    return devices / (partitions_per_gpu or PARTITIONS_PER_GPU.get(partition_mode or "", 1))


def gpus_of_row(row: Mapping[Hashable, Any] | Mapping[str, Any]) -> float:
    """Count the GPUs that a stored row's trial held; earlier releases stored no count per GPU."""
    mode, told = row.get("partition_mode"), row.get("partitions_per_gpu")
    # pandas gives NaN for a null cell.
    is_told = isinstance(told, int | float) and told == told
    return gpus_used(
        len(row["devices"]),
        partition_mode=mode if isinstance(mode, str) else None,
        partitions_per_gpu=int(told) if is_told and told is not None else None,
    )


def _quantity_name(metric: str, rate: float | None, per: str | None) -> str:
    divided = "" if per is None else f" per {per.upper()}"
    at = "" if rate is None else f" at {rate:g} QPS"
    return f"{metric}{divided}{at}"


def content_key(content: object) -> str:
    """Hash JSON-able content to 16 hex digits, the same for any order of keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
