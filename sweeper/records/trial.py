"""One trial: its engine, its client, the devices that it holds, and its identity."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from sweeper.kinds import DEFAULT_CLIENT, ENGINES
from sweeper.records.accuracy import Questions
from sweeper.records.goal import StopRule
from sweeper.records.kinds import (
    HOST_PREFIX,
    IMAGE,
    INSTANCES,
    PARTITIONS_PER_GPU,
    Assignment,
    GivenArgument,
    Platform,
    Provenance,
    Scalar,
    content_key,
)
from sweeper.records.load import LoadPoint
from sweeper.records.model import Model


@dataclass(frozen=True, kw_only=True)
class ContainerSpec:
    """The container that an engine runs in.

    Attributes:
        image: Reference as the user wrote it; None where only the knob ``image`` names some.
        runtime: Program that runs it: docker, podman or apptainer, or a path of one; None is yet to be found.
        arguments: Words for the runtime beside those that the sweeper gives it.
        digest: Content of the image, as ``sha256:...``; None until it was looked up.
        python: Interpreter in the image.
        mounts: Files and folders of this machine that it may read, at the same paths.
        python_path: Folders that the image itself puts on PYTHONPATH; they stay, behind ours.
    """

    image: str | None = None
    runtime: str | None = None
    arguments: tuple[str, ...] = ()
    digest: str | None = None
    python: str = "python3"
    mounts: tuple[str, ...] = ()
    python_path: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """What serves, and how long its stages may take (seconds).

    Attributes:
        kind: One of ``kinds.ENGINES``.
        release: Version of vLLM, such as ``0.6.2``: found in its environment, or modelled. Of an engine that
            has an environment of its own, that engine's.
        build: Version that its environment reports where that does not say which release it is, and
            ``release`` was stated for it (``0.1.dev9453``); None where the release is the version that was
            found.
        python: Interpreter of the engine's own environment; None for the simulated engine.
        url: Where an attached endpoint answers.
        api_key_env: Environment variable that holds its key; the key itself is in no record.
        command: Program that starts TGI.
        prefix: Words before that program, such as those that run it in a container.
        container: What it runs in; None for a process of this machine. ``python`` is then a program of this
            machine that runs the image's interpreter.
        instances_by: How the knob ``instances`` is realised: one of ``INSTANCES_BY``.
        binds_numa: Whether engine and client are kept on the NUMA node of their devices.
        free_timeout_s: Until its devices are seen to be free.
        launch_timeout_s: Until the process that watches over a program is up.
        start_timeout_s: From there until the server listens.
        ready_timeout_s: From there until it says that it is healthy.
        sanity_timeout_s: Until one question is answered.
        warmup_timeout_s: For the warm-up.
        load_timeout_s: For one load.
        stop_timeout_s: Between the request to end and the killing of what is left; 5 s at most for one that
            was never ready.
    """

    kind: str
    release: str
    build: str | None = None
    python: str | None = None
    url: str | None = None
    api_key_env: str | None = None
    command: str = "text-generation-launcher"
    prefix: tuple[str, ...] = ()
    container: ContainerSpec | None = None
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
        """Version that the engine's environment reports, without its local part."""
        return (self.build or self.release).partition("+")[0]


@dataclass(frozen=True, kw_only=True)
class ClientSpec:
    """What loads the engine.

    Attributes:
        kind: One of ``kinds.CLIENTS``.
        script: The folder ``benchmarks/`` of vLLM's repository, or a script in it, for releases whose load
            generator is no command yet.
        python: Interpreter that runs the load generator; None takes the engine's, or finds the environment of
            its own.
        version: Of the client that has an environment of its own, or of the vLLM whose benchmark loads an
            engine of another environment, as found there; None for any other.
        keeps_requests: Its own JSON keeps the times of single requests.
        start_timeout_s: Until it has imported what it needs.
        trust_remote_code: Whether it runs a tokenizer that is code of the model's own folder, for a server
            that was not started here; one that was has the knob of that name, which reaches both.
        arguments: What the load generator is given beside what other keys set, in the order of names.
    """

    kind: str = DEFAULT_CLIENT
    script: str | None = None
    python: str | None = None
    version: str | None = None
    keeps_requests: bool = False
    start_timeout_s: float = 600.0
    trust_remote_code: bool = False
    arguments: tuple[GivenArgument, ...] = ()

    @property
    def arguments_text(self) -> str | None:
        """Its arguments in words: ``logprobs=5, no_oversample=true``; None without any."""
        texts = (f"{name}={_argument_text(value)}" for name, value in self.arguments)
        return ", ".join(texts) or None


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The aligned block of devices that a trial holds.

    Attributes:
        node: Host name.
        devices: Node-absolute indices, ascending, as HIP, CUDA or the core list counts them.
        parents: Physical GPUs that the block touches, ascending.
        partition_mode: Compute mode (SPX, DPX, QPX, CPX), or None where there are none.
        partitions_per_gpu: Devices that each GPU shows in that mode; None where it is not reported.
        memory_mode: NPS1, NPS2, NPS4, or None.
        device_name: Product name of the devices, such as ``AMD Instinct MI300X``.
        numa_node: NUMA node that all devices share, else None.
    """

    node: str
    devices: tuple[int, ...]
    parents: tuple[int, ...]
    partition_mode: str | None = None
    partitions_per_gpu: int | None = None
    memory_mode: str | None = None
    device_name: str | None = None
    numa_node: int | None = None


# Of simulated trials; those from before there was a choice have none.
_USUAL_DEVICES = (None, "mi300x")


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """Everything a worker needs to run one trial; it is sent to it whole.

    Attributes:
        study: Name of the study.
        label: What distinguishes this trial from its siblings, for a person: its series or its varying knobs.
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
        calibration_nearness: How near the stack that these are of is to the trial's own, in words.
        stack_distance: The same as a number (``simulation.stack``); None where it is not known.
        expected_error: How far off a simulated number of this kind is to be expected, in words.
        modelled_device: Which of ``simulation.device.DEVICES`` the devices are; None where none is simulated.
        final: Which repetition of a finalist it is, from 0, after the search; None for any other trial.
        is_default: Whether that finalist is the setting that the others are compared with.
        stop_rule: When its remaining load points are left out; None measures all of them, as written.
        live_start: What the engine is started with that several settings share, each by limits that are
            changed while it runs; None for an engine started for this trial alone. A trial that shares a
            start is another trial than one that does not, and is stored under another key.
        accuracy: Questions that the engine is asked before its loads; None asks none.
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
    calibration_nearness: str | None = None
    stack_distance: float | None = None
    expected_error: str | None = None
    modelled_device: str | None = None
    label: str = ""
    partitioning: str | None = None
    client: ClientSpec = ClientSpec()
    control: int | None = None
    final: int | None = None
    is_default: bool = False
    stop_rule: StopRule | None = None
    live_start: Assignment | None = None
    accuracy: Questions | None = None

    @property
    def role(self) -> str | None:
        """What it is besides a trial of the study: ``control``, ``finalist``, ``default``, or nothing."""
        if self.final is not None:
            return "default" if self.is_default else "finalist"
        return None if self.control is None else "control"

    @property
    def is_modelled(self) -> bool:
        """Whether its numbers come from a model of a device or of an engine, and not from a measurement."""
        return self.platform is Platform.SIMULATED or ENGINES[self.engine.kind].is_modelled

    @property
    def provenance(self) -> Provenance:
        """Whether its numbers are measured or simulated."""
        return Provenance.SIMULATED if self.is_modelled else Provenance.MEASURED

    @property
    def is_exclusive(self) -> bool:
        """Whether it changes the host, so that nothing else may run on the node; a model of a host may."""
        is_real = self.platform is not Platform.SIMULATED
        return is_real and any(knob.startswith(HOST_PREFIX) for knob in self.assignment)

    @cached_property
    def key(self) -> str:
        """Identity by content: 16 hex digits; order of knobs, folders, series and attempts do not matter."""
        return content_key(
            {
                # An image is what it holds, whatever it is called.
                "assignment": {name: value for name, value in self.assignment.items() if name != IMAGE},
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
                **({} if self.client.kind == ClientSpec.kind else {"client": self.client.kind}),
                **({"client_arguments": dict(self.client.arguments)} if self.client.arguments else {}),
                **({} if self.partitioning is None else {"partitioning": self.partitioning}),
                **({} if self.modelled_device in _USUAL_DEVICES else {"device": self.modelled_device}),
                **({} if self.engine.build is None else {"build": self.engine.build}),
                **({} if self.engine.url is None else {"url": self.engine.url}),
                **({} if self.engine.container is None else {"image": self.engine.container.digest}),
                **({"instances_by": self.engine.instances_by} if INSTANCES in self.assignment else {}),
                **({} if self.engine.binds_numa else {"binds_numa": False}),
                **({} if self.control is None else {"control": self.control}),
                **({} if self.final is None else {"final": self.final}),
                # Not with what: a start that is larger because the study grew serves the same setting.
                **({} if self.live_start is None else {"live": True}),
                **({} if self.accuracy is None else {"accuracy": self.accuracy.identity}),
            }
        )

    @cached_property
    def start_key(self) -> str | None:
        """Identity of the start that this trial shares; None where it has one of its own."""
        if self.live_start is None:
            return None
        start = replace(
            self,
            assignment=self.live_start,
            load_points=(),
            warmup_prompts=0,
            runs_per_start=1,
            calibration={},
            accuracy=None,
        )
        return start.key

    @property
    def shared_key(self) -> str:
        """Identity of the same setting on a start that it shares, whatever that is made with."""
        return replace(self, live_start=self.live_start or self.assignment).key

    @property
    def keys(self) -> frozenset[str]:
        """Identities of the same setting, on a start of its own and on a shared one."""
        return frozenset((self.key, self.shared_key, self.fresh.key))

    @property
    def fresh(self) -> TrialSpec:
        """The same setting on a start of its own; its folder is that of its key."""
        if self.live_start is None:
            return self
        fresh = replace(self, live_start=None)
        return replace(fresh, folder=f"{self.folder.rpartition('/')[0]}/{fresh.key}")


def _argument_text(value: Scalar | tuple[str, ...]) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(value) if isinstance(value, tuple) else str(value)


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
