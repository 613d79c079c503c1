"""What is to be run: points of the space, turned into jobs, or into the reason why they cannot run.

Deciding is kept here, apart from acting (``sweep``): a planner starts nothing and stores nothing, so that
a plan can be shown before it is run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sweeper import knobs
from sweeper.engines import checks as engine_checks
from sweeper.engines import instances
from sweeper.errors import ConfigError, KnobError
from sweeper.kinds import ENGINES, EngineKind
from sweeper.models import fit
from sweeper.plan.chat import check_chat
from sweeper.plan.not_modelled import why_no_bar
from sweeper.plan.too_long import why_too_long
from sweeper.records import (
    IMAGE,
    Assignment,
    ClientSpec,
    EngineSpec,
    FailureClass,
    LoadPoint,
    Model,
    Platform,
    Questions,
    Scalar,
    TrialSpec,
)
from sweeper.records.plurals import amount
from sweeper.simulation import stacks
from sweeper.simulation.builds import kinds_of
from sweeper.simulation.calibration import NamedCalibration
from sweeper.simulation.device import USUAL_DEVICE
from sweeper.space import control
from sweeper.space.space import Point, Series, Space
from sweeper.topology import Node

# These refusals are mistakes in the configuration; the others depend on the point and become rows.
_MISTAKES = frozenset({"unknown", "not_yet", "removed", "no_effect", "bad_value"})

# Of these, what another release may have or not.
_OF_RELEASE = frozenset({"not_yet", "removed"})

NODE_DEVICES = "node_devices"
"""Name by which a rule speaks of how many devices the node has."""

Seen = Callable[[int, int], None]
"""Is told how many of how many a long piece of work has done."""


def unseen(done: int, total: int) -> None:
    """Show no progress."""


# A short and a long longest sequence: a default that is the same for both does not depend on it.
_SOME_POSITIONS = (2048, 131072)


@dataclass(frozen=True)
class Refusal:
    """Why an assignment can never run here.

    Attributes:
        failure: The class that its row is stored with.
        message: The reason in words, with the arithmetic where there is some.
        is_rule: Whether a rule of the space says so: then it is no point of the space at all.
    """

    failure: FailureClass
    message: str
    is_rule: bool = False

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True, kw_only=True)
class Job:
    """Points of equal assignment, and what is to be done about them.

    Attributes:
        refusal: Why this can never run here, or None.
    """

    spec: TrialSpec
    points: tuple[Point, ...]
    refusal: Refusal | None = None


@dataclass(frozen=True, kw_only=True)
class Planner:
    """Turns points of the space into jobs for one engine release on one node.

    Attributes:
        others: Engines that series name and that have an environment of their own, by kind.
        live: Whether settings may share an engine's start (``plan.live``): ``false``, ``auto`` or ``true``.
        fresh_because: Why none may, whatever ``live`` says, one sentence; None where some may.
        left_out: Sentences about what the space could not have here (``fitting``).
        images: What serves in each image that the knob ``image`` may name, with its own release.
    """

    study: str
    trials_folder: str
    space: Space
    engine: EngineSpec
    model: Model
    platform: Platform
    node: Node
    accelerator: knobs.Accelerator
    load_points: tuple[LoadPoint, ...]
    client: ClientSpec = field(default_factory=ClientSpec)
    accuracy: Questions | None = None
    warmup_prompts: int = 0
    repeats: int = 1
    runs_per_start: int = 1
    allow_unknown: bool = False
    calibration: Mapping[str, float] = field(default_factory=dict)
    calibrated: NamedCalibration | None = None
    modelled_device: str | None = None
    control: str | None = None
    control_every: int | None = None
    others: Mapping[str, EngineSpec] = field(default_factory=dict)
    live: str = "false"
    fresh_because: str | None = None
    left_out: tuple[str, ...] = ()
    images: Mapping[str, EngineSpec] = field(default_factory=dict)
    _planned_grid: list[Job] = field(default_factory=list, init=False, repr=False, compare=False)
    _ruled_out: Counter[str] = field(default_factory=Counter, init=False, repr=False, compare=False)

    def default(self) -> Job | None:
        """Plan what finalists are compared with: the control, or the knobs that every trial has.

        Returns:
            The job; None where it cannot run here.
        """
        job = self.job(control.point_of(self.space, self.control or control.BASE))
        return job if job.refusal is None else None

    def controls(self, trials: int) -> list[tuple[int, Job]]:
        """Plan the repetitions of the control setting, one engine start each; none without a control.

        Args:
            trials: Other trials of the study.

        Returns:
            For each repetition, how many other trials have begun when it is due, and the job, which belongs
            to no point of the search.

        Raises:
            ConfigError: The control is no setting of the space.
            KnobError: As ``job``.
        """
        if self.control is None:
            return []
        job = self.job(control.point_of(self.space, self.control))
        return [
            (position, _repetition(job, number, self.trials_folder))
            for number, position in enumerate(control.positions(trials, every=self.control_every))
        ]

    def grid(self, *, seen: Seen = unseen) -> list[Job]:
        """Plan every point of the space: equal assignments joined, large placements first.

        Combinations of domains that break a rule are no points. A series that does was named by the user:
        it is planned, and refused with the rule, so that its place in a chart says why it is empty.
        A planner works it out once.

        Args:
            seen: Is called with the points planned so far and all there are.

        Raises:
            ConfigError: No point keeps the rules.
            KnobError: A knob does not exist in this release; nothing was started.
        """
        if self._planned_grid:
            return list(self._planned_grid)
        by_key: dict[str, Job] = {}
        ruled_out: Counter[str] = Counter()
        total = self.space.size() or 0
        for number, point in enumerate(self.space.grid(), start=1):
            seen(number, total)
            job = self.job(point)
            if job.refusal is not None and job.refusal.is_rule and _is_of_domains(point):
                ruled_out[str(job.refusal)] += 1
                continue
            known = by_key.get(job.spec.key)
            by_key[job.spec.key] = job if known is None else _joined(known, job)
        if ruled_out and not by_key:
            raise ConfigError(
                f"space: none of its points keeps the rules; one {next(iter(ruled_out))}. Expected one that "
                "does. Correct the rules, or give the knobs other values."
            )
        # Large blocks first: they find the node whole, and small trials fill the gaps that remain.
        self._planned_grid.extend(sorted(by_key.values(), key=lambda job: -job.spec.devices_wanted))
        self._ruled_out.update(ruled_out)
        return list(self._planned_grid)

    @property
    def ruled_out(self) -> Counter[str]:
        """How many combinations of domains break which rule, in words; known once the grid was planned."""
        return self._ruled_out.copy()

    def job(self, point: Point) -> Job:
        """Plan one point.

        Raises:
            KnobError: A knob does not exist in this release, or has a value that it does not take.
        """
        series = None if point.series is None else self.space.named(point.series)
        engine = self._engine_of(series, point.assignment)
        spec = TrialSpec(
            study=self.study,
            folder="",
            series=() if point.series is None else (point.series,),
            assignment=dict(point.assignment),
            load_points=self._load_points_of(point, engine),
            engine=engine,
            model=(series.model if series is not None else None) or self.model,
            platform=self.platform,
            devices_wanted=devices_wanted(point.assignment),
            client=self._client_of(engine),
            warmup_prompts=self.warmup_prompts,
            repeats=self.repeats,
            runs_per_start=self.runs_per_start,
            accuracy=self.accuracy,
            calibration=self.calibration,
            calibration_name=None if self.calibrated is None else self.calibrated.name,
            label=point_label(point),
            partitioning=self.node.mode_label,
            modelled_device=self.modelled_device,
        )
        spec = replace(
            spec,
            folder=f"{self.trials_folder}/{spec.key}",
            expected_error=self._expected_error(spec),
            calibration_nearness=(
                None if self.calibrated is None else stacks.nearness(self.calibrated, stacks.asked_of(spec))
            ),
            stack_distance=None if self.calibrated is None else stacks.distance(self.calibrated, spec),
        )
        return Job(spec=spec, points=(point,), refusal=self.refusal(spec))

    def unsaid(self, assignment: Assignment, model: Model) -> dict[str, Scalar]:
        """Return the release's defaults for what an assignment leaves unsaid.

        Of a model whose longest sequence is not known, those that do not depend on it.
        """
        built = model.built
        found = [
            knobs.defaults(
                self._in_image(assignment).release,
                accelerator=self.accelerator,
                assignment=assignment,
                max_positions=positions,
            )
            for positions in (_SOME_POSITIONS if built is None else [built.max_positions])
        ]
        return {knob: value for knob, value in found[0].items() if value == found[-1].get(knob)}

    def _expected_error(self, spec: TrialSpec) -> str | None:
        if self.calibrated is None:
            return None
        if self.modelled_device not in (None, USUAL_DEVICE):
            return f"unknown: never compared with device {self.modelled_device}"
        return self.calibrated.expected_error(
            generation=knobs.engine_generation(spec.engine.release, assignment=spec.assignment),
            datasets=[point.dataset for point in spec.load_points],
            mode=self.node.partition_mode,
            model=spec.model.name,
            kinds=kinds_of(spec.model, spec.assignment),
        )

    def _engine_of(self, series: Series | None, assignment: Assignment) -> EngineSpec:
        engine = self._in_image(assignment)
        if series is None or ENGINES[series.engine].takes_vllm_flags or series.engine == engine.kind:
            return engine
        if engine.container is not None:
            raise ConfigError(
                f"space.series.{series.name}: is served by {series.engine}, and {engine.container.image} is "
                f"the image of {engine.kind}; expected one of its own. "
                f"Set space.series.{series.name}.knobs.{IMAGE}."
            )
        return self.others.get(series.engine) or replace(engine, kind=series.engine)

    def _in_image(self, assignment: Assignment) -> EngineSpec:
        """Return the study's engine in the image that an assignment names, if it names one."""
        return self.images.get(str(assignment.get(IMAGE)), self.engine)

    def _client_of(self, engine: EngineSpec) -> ClientSpec:
        """Return what loads an engine: its own environment's vLLM only where that has one."""
        is_own_image = engine.container is not None and not ENGINES[engine.kind].takes_vllm_flags
        has_none = engine.kind in self.others or (is_own_image and engine.kind != self.engine.kind)
        is_beside = has_none and self.client.python is None
        if not is_beside:
            return self.client
        return replace(self.client, python=self.engine.python, version=self.engine.version)

    def engine_of(self, point: Point) -> EngineSpec:
        """Return what serves a point of the space."""
        series = None if point.series is None else self.space.named(point.series)
        return self._engine_of(series, point.assignment)

    def loads_of(self, point: Point) -> tuple[LoadPoint, ...]:
        """Return the load points that a point of the space is measured at."""
        return self._load_points_of(point, self.engine_of(point))

    def _load_points_of(self, point: Point, engine: EngineSpec) -> tuple[LoadPoint, ...]:
        """Drop the second runs of a trial that remembers nothing: they would repeat the first ones."""
        if self._keeps_prefixes(point, ENGINES[engine.kind]):
            return self.load_points
        return tuple(load for load in self.load_points if not load.keeps_prefix_cache)

    def _keeps_prefixes(self, point: Point, kind: EngineKind) -> bool:
        if not kind.keeps_prefixes:
            return False
        if kind.cache_off is not None:
            return not point.assignment.get(kind.cache_off, False)
        release = self._in_image(point.assignment).release
        unsaid = knobs.defaults(release, accelerator=self.accelerator, assignment=point.assignment)
        return bool(point.assignment.get("enable_prefix_caching", unsaid["enable_prefix_caching"]))

    def refusal(self, spec: TrialSpec) -> Refusal | None:
        """Return why a trial can never run here, or None.

        Raises:
            KnobError: A knob does not exist in this release, or has a value that it does not take.
        """
        instances.check_client(spec.assignment, engine=spec.engine, client=spec.client)
        kind = ENGINES[spec.engine.kind]
        if not kind.is_started_by_us:
            # It runs already, so it fits; and nothing of the assignment is for us to set.
            return None
        if not kind.takes_vllm_flags:
            return self._foreign_refusal(spec, kind)
        if kind.is_modelled and IMAGE in spec.assignment:
            return Refusal(FailureClass.NOT_MODELLED, "the model of vLLM runs in no container image")
        if not kind.is_modelled:
            check_chat(spec)
        broken = self.space.broken_rule(
            spec.assignment, defaults=self.rule_defaults(spec.assignment, spec.model)
        )
        if broken is not None:
            return _rule_refusal(broken)
        refusals = knobs.check(
            instances.served_assignment(spec),
            release=spec.engine.release,
            allow_unknown=self.allow_unknown,
            accelerator=self.accelerator,
            build=spec.engine.build,
        )
        refusals = (*refusals, *self._against_the_others(spec))
        mistakes = [refusal for refusal in refusals if self._is_mistake(refusal)]
        if mistakes:
            raise KnobError(
                f"vLLM {spec.engine.release}: " + "\n  ".join(refusal.message for refusal in mistakes)
            )
        if refusals:
            return Refusal(FailureClass.UNSUPPORTED, refusals[0].message)
        refusal = self._size_refusal(spec) or self._shape_refusal(spec) or _length_refusal(spec)
        return refusal or self._memory_refusal(spec) or self._repeated_refusal(spec)

    def _is_mistake(self, refusal: knobs.Refusal) -> bool:
        """Whether no trial of the study may start: of several images, one may lack what the others have."""
        is_of_release = len(self.images) > 1 and refusal.kind in _OF_RELEASE
        return refusal.is_mistake or (refusal.kind in _MISTAKES and not is_of_release)

    def _repeated_refusal(self, spec: TrialSpec) -> Refusal | None:
        """Refuse a series that differs from an earlier one in knobs only that are not modelled."""
        if self.platform is not Platform.SIMULATED:
            return None
        why = why_no_bar(self.space, spec)
        return None if why is None else Refusal(FailureClass.NOT_MODELLED, why)

    def _against_the_others(self, spec: TrialSpec) -> Iterator[knobs.Refusal]:
        """Refuse what contradicts the model, or what the client cannot be given."""
        if ENGINES[spec.engine.kind].is_modelled:
            return
        if "load_format" in spec.assignment:
            found = knobs.refuse_load_format(spec.assignment["load_format"], is_dummy=spec.model.is_dummy)
            yield from () if found is None else (found,)
        for knob, value in spec.assignment.items():
            near = knobs.refuse_near_path(knob, value)
            yield from () if near is None else (near,)
        # What the client of another interpreter takes is not known here.
        if self.client.python is None:
            yield from knobs.refuse_unshared(
                spec.assignment, release=spec.engine.release, client=self.client.kind
            )

    def rule_defaults(self, assignment: Assignment, model: Model | None = None) -> dict[str, Scalar]:
        """Return what rules may name and an assignment leaves unset: the release's defaults, and the node."""
        unsaid = self.unsaid(assignment, model or self.model)
        return {**self._sizes(), **unsaid}

    def _sizes(self) -> dict[str, Scalar]:
        return {**dict.fromkeys(knobs.PARALLEL_SIZES, 1), NODE_DEVICES: len(self.node.devices)}

    def _foreign_refusal(self, spec: TrialSpec, kind: EngineKind) -> Refusal | None:
        if self.platform is Platform.SIMULATED and not kind.is_modelled:
            return Refusal(
                FailureClass.NOT_MODELLED,
                f"there is no model of {kind.title}; its published figures stand in the chart",
            )
        # The defaults of vLLM say nothing about another engine.
        broken = self.space.broken_rule(spec.assignment, defaults=self._sizes())
        if broken is not None:
            return _rule_refusal(broken)
        mistakes = engine_checks.mistakes(
            spec.assignment, kind=kind, allow_unknown=self.allow_unknown, engine=spec.engine
        )
        if mistakes:
            raise KnobError(f"{kind.title}: " + "\n  ".join(mistakes))
        return self._size_refusal(spec) or self._shape_refusal(spec) or _length_refusal(spec)

    def _size_refusal(self, spec: TrialSpec) -> Refusal | None:
        if spec.devices_wanted <= len(self.node.devices):
            return None
        return Refusal(
            FailureClass.UNSUPPORTED,
            f"needs {amount(spec.devices_wanted, 'device')} (instances x tensor x pipeline x prefill "
            f"context x data parallel size), the node has {len(self.node.devices)}",
        )

    def _shape_refusal(self, spec: TrialSpec) -> Refusal | None:
        built = spec.model.built
        if built is None:
            return None
        reason = next(knobs.why_shape_forbids(instances.served_assignment(spec), built), None)
        if reason is None:
            return None
        return Refusal(FailureClass.UNSUPPORTED, f"{reason} ({spec.model.name}). Choose one.")

    def _memory_refusal(self, spec: TrialSpec) -> Refusal | None:
        if self.platform is Platform.CPU:
            # The CPU build sizes its cache by VLLM_CPU_KVCACHE_SPACE, not by a share of a device.
            return None
        if spec.model.built is None:
            # Nothing is refused for what is not known; the engine itself says whether it fits.
            return None
        memory = min(device.memory_gib or 0.0 for device in self.node.devices)
        if not memory:
            return None
        found = fit.fit(
            spec.model,
            spec.assignment,
            release=spec.engine.release,
            device_memory_gib=memory,
            accelerator=self.accelerator,
        )
        if found.is_feasible:
            return None
        return Refusal(FailureClass.OUT_OF_MEMORY, f"does not fit in memory: {found}")


def _length_refusal(spec: TrialSpec) -> Refusal | None:
    why = why_too_long(spec)
    return None if why is None else Refusal(FailureClass.UNSUPPORTED, why)


def _rule_refusal(broken: str) -> Refusal:
    return Refusal(FailureClass.BAD_ARGUMENT, f"breaks the rule of the space: {broken}", is_rule=True)


def _repetition(job: Job, number: int, trials_folder: str) -> Job:
    spec = replace(job.spec, control=number, repeats=1, label=f"control {number + 1} ({job.spec.label})")
    return replace(job, spec=replace(spec, folder=f"{trials_folder}/{spec.key}"), points=())


def _is_of_domains(point: Point) -> bool:
    return point.series is None and bool(point.choices)


def _joined(first: Job, second: Job) -> Job:
    series = tuple(dict.fromkeys((*first.spec.series, *second.spec.series)))
    label = f"{first.spec.label}, {second.spec.label}"
    return replace(
        first, spec=replace(first.spec, series=series, label=label), points=(*first.points, *second.points)
    )


def point_label(point: Point) -> str:
    """Label a point by what it chose: its series, and the knobs that vary."""
    knobs_chosen = [f"{name}={value}" for name, value in point.choices.items() if name != "series"]
    return " ".join([*([point.series] if point.series else []), *knobs_chosen]) or "the only setting"


def devices_wanted(assignment: Mapping[str, Any]) -> int:
    """Count the devices that an assignment needs (``knobs.devices``).

    Raises:
        KnobError: A parallel size is not a whole number of at least 1.
    """
    return knobs.devices(assignment)
