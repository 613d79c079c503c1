"""Which trials of a study share an engine's start, and why others do not (``engine.live``).

Sharing is for screening: what a smaller start would have made besides, KV blocks and captured graph sizes,
stays that of the shared one. So finalists, controls and whatever is compared with published figures start
afresh, and a setting that the store holds from a start of its own is not measured again on a shared one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sweeper.errors import ConfigError
from sweeper.kinds import CLIENTS, ENGINES
from sweeper.knobs.live import LIVE_KNOBS, LiveGroup, groups, why_not_live
from sweeper.plan.planner import Job, Planner
from sweeper.records import INSTANCES, Assignment, TrialSpec
from sweeper.records.plurals import amount
from sweeper.space.domains import Choice, Domain


@dataclass(frozen=True, kw_only=True)
class SharedStarts:
    """The jobs of a grid with the starts that they share.

    Attributes:
        jobs: All of them, in the order given.
        starts: What each shared start is made with, and how many settings it serves.
        reasons: Why a job is on a start of its own though ``engine.live`` asks for sharing, by its label.
    """

    jobs: tuple[Job, ...]
    starts: tuple[tuple[Assignment, int], ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def lines(self) -> tuple[str, ...]:
        """Say in sentences what is shared and what is not; nothing where sharing was not asked for."""
        if not self.starts and not self.reasons:
            return ()
        shared = [
            f"{amount(served, 'setting')} on one start with {_limits_text(start)}"
            for start, served in self.starts
        ]
        by_reason: dict[str, list[str]] = {}
        for label, reason in self.reasons.items():
            by_reason.setdefault(reason, []).append(label)
        fresh = [f"on a start of its own: {', '.join(labels)}: {why}" for why, labels in by_reason.items()]
        return (*(shared or ["no settings share a start"]), *fresh)


def shared_starts(
    planner: Planner, jobs: Sequence[Job], *, is_measured: Callable[[str], bool] = lambda key: False
) -> SharedStarts:
    """Find the jobs of a grid that share a start, and give it to them.

    The start is that of all jobs that share it, those in the store included, so that a study that goes on
    measures the rest as it measured the others.

    Args:
        planner: Of the study.
        jobs: Its grid, as ``Planner.grid`` plans it.
        is_measured: Whether the store holds a complete trial of a key.

    Raises:
        ConfigError: ``engine.live`` is ``true``, and a setting cannot share a start.
    """
    if planner.live == "false":
        return SharedStarts(jobs=tuple(jobs))
    reasons: dict[str, str] = {}
    candidates: list[Job] = []
    for job in jobs:
        if job.refusal is not None or is_measured(job.spec.key):
            continue
        reason = why_fresh(planner, job.spec)
        if reason is None:
            candidates.append(job)
        else:
            reasons[job.spec.label] = reason
    if planner.live == "true" and reasons:
        label, reason = next(iter(reasons.items()))
        raise ConfigError(
            f"engine.live: is true, and '{label}' cannot share a start: {reason}; expected settings that all "
            "can. Set engine.live=auto, which measures it on a start of its own."
        )
    shared: dict[str, Job] = {}
    starts = []
    for group in _groups(planner, candidates):
        members = group.jobs
        refusal = _start_refusal(planner, members[0].spec, group.start)
        if refusal is not None:
            reasons |= dict.fromkeys((job.spec.label for job in members), refusal)
            continue
        if len(members) == 1 and not is_measured(members[0].spec.shared_key):
            reasons[members[0].spec.label] = (
                "no other setting differs from it in limits of the scheduler alone"
            )
            continue
        starts.append((group.start, len(members)))
        shared |= {job.spec.key: on_shared_start(job, group.start) for job in members}
    return SharedStarts(
        jobs=tuple(shared.get(job.spec.key, job) for job in jobs), starts=tuple(starts), reasons=reasons
    )


def on_shared_start(job: Job, start: Assignment) -> Job:
    """Give a job a start that it shares, and the folder of the trial that it is then."""
    spec = replace(job.spec, live_start=start)
    return replace(job, spec=replace(spec, folder=f"{job.spec.folder.rpartition('/')[0]}/{spec.key}"))


def why_fresh(planner: Planner, spec: TrialSpec) -> str | None:
    """Return why a trial needs a start of its own, one sentence; None where it may share one."""
    return next(_reasons(planner, spec), None)


def _reasons(planner: Planner, spec: TrialSpec) -> Iterator[str]:
    kind = ENGINES[spec.engine.kind]
    if planner.fresh_because is not None:
        yield planner.fresh_because
    if not kind.has_live_limits:
        yield f"the limits of {kind.title} cannot be changed while it runs"
    if CLIENTS[spec.client.kind].has_engine_inside:
        yield f"client.kind={spec.client.kind} starts the engine itself, once for each load"
    if spec.repeats > 1:
        yield f"repeats={spec.repeats} asks for starts of each setting; runs_per_start repeats loads on one"
    if spec.is_exclusive:
        yield "it changes settings of the host, which hold for one trial alone"
    if INSTANCES in spec.assignment:
        yield f"{INSTANCES} is set, and each instance has a scheduler of its own"
    reason = why_not_live(spec.assignment, release=planner.engine.release, accelerator=planner.accelerator)
    if reason is not None:
        yield reason


@dataclass(frozen=True, kw_only=True)
class _Group:
    start: Assignment
    jobs: tuple[Job, ...]


def _groups(planner: Planner, jobs: Sequence[Job]) -> Iterator[_Group]:
    """Sort jobs by the start that serves them: of one model and engine, and alike but for limits."""
    kinds: dict[object, list[Job]] = {}
    for job in jobs:
        kinds.setdefault((str(job.spec.model.identity), job.spec.engine), []).append(job)
    for alike in kinds.values():
        by_assignment = {id(job.spec.assignment): job for job in alike}
        found: tuple[LiveGroup, ...] = groups(
            [job.spec.assignment for job in alike],
            release=planner.engine.release,
            accelerator=planner.accelerator,
        )
        for group in found:
            members = tuple(by_assignment[id(member)] for member in group.members)
            yield _Group(start=group.start, jobs=members)


def _limits_text(start: Assignment) -> str:
    return ", ".join(f"{knob} {start[knob]}" for knob in LIVE_KNOBS if knob in start)


def on_largest_start(planner: Planner, job: Job) -> Job:
    """Give a job of a search the start that serves all of its neighbours, where they can share one.

    Which settings a search will ask for is not known, so the start has the largest value of each limit that
    varies.
    """
    start = None if job.refusal is not None else _largest_start(planner, job.spec)
    if start is None or _start_refusal(planner, job.spec, start) is not None:
        return job
    return on_shared_start(job, start)


def search_line(planner: Planner) -> str | None:
    """Say what trials of a search share; None where sharing was not asked for.

    Raises:
        ConfigError: ``engine.live`` is ``true``, and the usual setting cannot share a start.
    """
    if planner.live == "false":
        return None
    limits = [knob for knob in LIVE_KNOBS if knob in planner.space.domains]
    reason = _why_search_fresh(planner, limits)
    if reason is None:
        return f"settings that differ in {', '.join(limits)} alone share a start at the largest of each"
    if planner.live == "true":
        raise ConfigError(
            f"engine.live: is true, and settings of this search cannot share a start: {reason}; expected "
            "limits that vary and can be changed while an engine runs. Set engine.live=auto."
        )
    return f"every setting on a start of its own: {reason}"


def _why_search_fresh(planner: Planner, limits: Sequence[str]) -> str | None:
    """Return why the usual setting, with its limits at the largest, cannot be a start that others share."""
    if not limits:
        return f"the space varies none of {', '.join(LIVE_KNOBS)}"
    job = planner.default()
    if job is None:
        return None
    # The usual setting may leave them to the release.
    largest = {knob: _largest_value(planner.space.domains[knob]) for knob in limits}
    given = {knob: value for knob, value in largest.items() if value is not None}
    spec = replace(job.spec, assignment={**job.spec.assignment, **given})
    return why_fresh(planner, spec) or _start_refusal(planner, spec, spec.assignment)


def _largest_start(planner: Planner, spec: TrialSpec) -> Assignment | None:
    varying = {knob: planner.space.domains[knob] for knob in LIVE_KNOBS if knob in planner.space.domains}
    if planner.live == "false" or not varying or why_fresh(planner, spec) is not None:
        return None
    largest = {knob: _largest_value(domain) for knob, domain in varying.items() if knob in spec.assignment}
    if not largest or None in largest.values():
        return None
    return {**spec.assignment, **{knob: value for knob, value in largest.items() if value is not None}}


def _start_refusal(planner: Planner, spec: TrialSpec, start: Assignment) -> str | None:
    refusal = planner.refusal(replace(spec, assignment=start))
    return None if refusal is None else f"the start that they would share is refused: {refusal}"


def _largest_value(domain: Domain) -> int | None:
    values = domain.values if isinstance(domain, Choice) else (domain.high,)
    whole = [int(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    return max(whole, default=None)
