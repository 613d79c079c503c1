"""Every key of the configuration, with its type and its default.

These classes are Hydra's structured configuration: a key that is not here is refused wherever it comes
from. What a value means, and whether it is sensible, is checked where it becomes an object (``settings``).
A default that the object has too is written there and taken over here, so that there is one of each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, get_type_hints

from sweeper.goals.termination import Termination
from sweeper.records import ClientSpec, EngineSpec, LoadPoint, Model, Questions, StopRule
from sweeper.schedule.queue import ORDERS
from sweeper.schedule.scheduler import ISOLATIONS


@dataclass
class StudyConfig:
    """What is asked, and where its answers go.

    ``counterpart_of`` names the experiment that this one stands in for where the engine's release lacks its
    knobs; ``changes`` is knob to what became of it there.
    """

    name: str = ""
    experiment: str = ""
    question: str = ""
    source: str = ""
    counterpart_of: str = ""
    changes: dict[str, str] = field(default_factory=dict)
    outputs: str = "outputs"
    storage: str | None = None
    results: str | None = None
    isolation: str = ISOLATIONS[0]
    order: str = ORDERS[0]
    control: str | None = None
    control_every: int | None = None
    price_per_gpu_hour: float | None = None
    currency: str = ""


@dataclass
class PlatformConfig:
    """The machine that is measured."""

    name: str = "auto"
    devices: int | None = None
    device_ids: Any = None
    partition_mode: str | None = None
    memory_mode: str | None = None
    overlay: str | None = None
    device: str | None = None
    calibration: str | None = None


@dataclass
class EngineConfig:
    """What serves."""

    kind: str = "auto"
    release: str = "0.6.2"
    python: str | None = None
    url: str | None = None
    api_key_env: str | None = None
    command: str = EngineSpec.command
    prefix: list[str] = field(default_factory=list)
    image: str | None = None
    container_runtime: str | None = None
    container_arguments: list[str] = field(default_factory=list)
    instances_by: str = EngineSpec.instances_by
    binds_numa: bool = EngineSpec.binds_numa
    allow_unknown: bool = False
    live: Any = False
    free_timeout_s: float = EngineSpec.free_timeout_s
    launch_timeout_s: float = EngineSpec.launch_timeout_s
    start_timeout_s: float = EngineSpec.start_timeout_s
    ready_timeout_s: float = EngineSpec.ready_timeout_s
    sanity_timeout_s: float = EngineSpec.sanity_timeout_s
    warmup_timeout_s: float = EngineSpec.warmup_timeout_s
    load_timeout_s: float = EngineSpec.load_timeout_s
    stop_timeout_s: float = EngineSpec.stop_timeout_s


@dataclass
class ShapeConfig:
    """A model's dimensions, as in its config.json."""

    layers: int = 0
    hidden: int = 0
    intermediate: int = 0
    heads: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    vocab: int = 0
    max_positions: int = 0
    tied_embeddings: bool = False


@dataclass
class ModelConfig:
    """The model that is served; ``config`` holds fields of its config.json under their names there."""

    name: str = ""
    path: str = ""
    dtype: str | None = None
    is_dummy: bool = Model.is_dummy
    revision: str | None = None
    config: dict[str, Any] | None = None
    shape: ShapeConfig = field(default_factory=ShapeConfig)


@dataclass
class ClientConfig:
    """What loads the engine."""

    kind: str = ClientSpec.kind
    script: str | None = None
    python: str | None = None
    start_timeout_s: float = ClientSpec.start_timeout_s
    trust_remote_code: bool = ClientSpec.trust_remote_code
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass
class AccuracyConfig:
    """Questions that an engine is asked before its loads, by lm-eval: those of a file or a task."""

    path: str | None = Questions.path
    task: str | None = Questions.task
    limit: int | None = Questions.limit
    max_tokens: int = Questions.max_tokens
    timeout_s: float = Questions.timeout_s
    python: str | None = Questions.python


@dataclass
class MaxRateConfig:
    """A search for the highest request rate that keeps bounds; ``bounds`` is metric to the most it may be."""

    low: float = 1.0
    high: float = 0.0
    resolution: float = 1.0
    bounds: dict[str, float] = field(default_factory=dict)


@dataclass
class MaxUsersConfig:
    """A search for the most users of a closed loop with whom bounds are kept; as ``MaxRateConfig``."""

    low: int = 1
    high: int = 0
    resolution: int = 1
    bounds: dict[str, float] = field(default_factory=dict)


@dataclass
class RampConfig:
    """A request rate that rises over the run, in place of ``workload.request_rate_per_s``."""

    strategy: str = "linear"
    start_per_s: int = 1
    end_per_s: int = 10


@dataclass
class WorkloadConfig:
    """What the client sends. A list in place of a number makes one load point per value.

    ``points`` is a list of mappings, each of which replaces some of the other keys: what it names holds for
    its load points, what it leaves out is taken from the keys next to it.
    """

    dataset: str = "random"
    dataset_path: str | None = None
    num_prompts: Any = 200
    request_rate_per_s: Any = None
    max_concurrency: Any = None
    input_len: Any = None
    output_len: Any = None
    range_ratio: float = LoadPoint.range_ratio
    ignore_eos: bool = LoadPoint.ignore_eos
    client_seed: int = LoadPoint.client_seed
    warmup_prompts: int = 0
    warmup_per_user: int = LoadPoint.warmup_per_user
    second_run: bool = False
    points: list[Any] | None = None
    goodput: dict[str, float] = field(default_factory=dict)
    max_rate: MaxRateConfig | None = None
    max_users: MaxUsersConfig | None = None
    options: dict[str, Any] = field(default_factory=dict)
    prompts_per_user: int | None = None
    burstiness: float = LoadPoint.burstiness
    ramp_up: RampConfig | None = None
    endpoint: str = "completions"
    sampling: dict[str, float] = field(default_factory=dict)
    extra_body: dict[str, Any] = field(default_factory=dict)


@dataclass
class SeriesConfig:
    """A named assignment: one bar colour of a chart."""

    label: str = ""
    published: str | None = None
    run: str | None = None
    engine: str = "vllm"
    model: ModelConfig | None = None
    knobs: dict[str, Any] = field(default_factory=dict)


@dataclass
class SpaceConfig:
    """What varies."""

    series: dict[str, SeriesConfig] = field(default_factory=dict)
    knobs: dict[str, Any] = field(default_factory=dict)
    rules: list[Any] = field(default_factory=list)


@dataclass
class SearchConfig:
    """How the space is walked."""

    method: str = "grid"
    grid_limit: int = 20_000
    trials: int | None = None
    seed: int = 0
    stops_early: bool | None = None
    stop_margin: float = StopRule.margin
    max_hours: float | None = None
    max_node_hours: float | None = None
    min_improvement: float | None = None
    patience: int = Termination.patience
    finalists: int = Termination.finalists
    final_repeats: int = Termination.final_repeats
    start: list[Any] = field(default_factory=list)
    stages: list[Any] = field(default_factory=list)


@dataclass
class ObjectiveConfig:
    """What is better; with ``at_most`` or ``at_least`` in place of a direction, what must be kept."""

    metric: str = "request_throughput_per_s"
    direction: str | None = None
    at_most: float | None = None
    at_least: float | None = None
    request_rate_per_s: float | None = None
    max_concurrency: int | None = None
    per: str | None = None


@dataclass
class ExecutorConfig:
    """Where trials run."""

    kind: str = "ray"
    address: str = "local"
    max_parallel: int | None = None


@dataclass
class RootConfig:
    """Everything that a run can be told."""

    study: StudyConfig = field(default_factory=StudyConfig)
    platform: PlatformConfig = field(default_factory=PlatformConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    workload: WorkloadConfig = field(default_factory=WorkloadConfig)
    client: ClientConfig = field(default_factory=ClientConfig)
    accuracy: AccuracyConfig = field(default_factory=AccuracyConfig)
    knobs: dict[str, Any] = field(default_factory=dict)
    space: SpaceConfig = field(default_factory=SpaceConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    objective: dict[str, ObjectiveConfig] = field(default_factory=dict)
    executor: ExecutorConfig = field(default_factory=ExecutorConfig)
    calibration: dict[str, float] = field(default_factory=dict)
    repeats: int = 1
    runs_per_start: int = 1
    max_attempts: int = 2
    retry_pause_s: float = 10.0
    retry_failed: bool = False
    strict: bool = False
    plan: bool = False
    plan_csv: str | None = None
    plan_json: str | None = None


def key_names() -> Iterator[str]:
    """Return every key as a dotted path: ``study``, ``study.name``, ``workload.num_prompts``, ..."""
    return (name for name, _ in key_types())


def key_types(node: Any = RootConfig, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Return every key as a dotted path (``study``, ``study.name``, ...) with the type of its value."""
    hints = get_type_hints(node)
    for item in fields(node):
        name, kind = f"{prefix}{item.name}", hints[item.name]
        yield name, kind
        if is_dataclass(kind):
            yield from key_types(kind, f"{name}.")
