"""Which settings of vLLM differ in limits alone that a running engine can change: one start serves them.

The limits are those of the scheduler. A scheduler of ours takes them while the engine is idle
(``engines.live``); for that it leans on inside names of vLLM, so it is allowed for releases whose sources
were read, and refused elsewhere. What a start makes of the limits besides (KV blocks, activation memory,
captured graph sizes, compiled ranges) stays that of the largest: near a full KV cache a live setting is not
a fresh one.

Source:
    vllm/v1/core/sched/scheduler.py, async_scheduler.py and vllm/v1/engine/core.py of the source distributions
    of 0.9.1, 0.9.2, 0.10.0 to 0.10.2, 0.11.0 to 0.14.0, 0.16.0 to 0.20.0, 0.22.0, 0.24.0, 0.26.0, 0.28.0 and
    0.30.0, and of 0.32.0 as installed; run on 0.11.0 and 0.32.0 (CPU builds).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sweeper.knobs.generations import Accelerator, engine_generation, is_set
from sweeper.knobs.parallelism import replicas
from sweeper.knobs.release_order import is_between, release_key
from sweeper.records import Assignment, Scalar

LIVE_KNOBS = ("max_num_batched_tokens", "max_num_seqs", "long_prefill_token_threshold")
"""The knobs that may change in a running engine: tokens a step, running requests, tokens of one long prompt
a step."""

FIRST_RELEASE = "0.9.1"
LAST_RELEASE = "0.32.0"
"""The first and last release whose sources allow it."""

# There --async-scheduling puts its own scheduler in the place of the one that was asked for.
_IGNORED_WITH_ASYNC = ("0.10.0", "0.11.0")


@dataclass(frozen=True, kw_only=True)
class LiveGroup:
    """Settings that one start can serve, one after another.

    Attributes:
        start: What the engine is started with: what they share, and the largest of each live knob.
        members: The settings, in the order given; a single one is an ordinary start.
        reason: Why a single one is by itself, where a rule refuses to change its limits.
    """

    start: Assignment
    members: tuple[Assignment, ...]
    reason: str | None = None

    def limits(self, member: Assignment) -> dict[str, int]:
        """Return what a running engine is asked for to become this setting."""
        return live_limits_of(member)


def live_limits_of(assignment: Assignment) -> dict[str, int]:
    """Return the limits of a setting that a running engine can be asked for."""
    return {knob: _whole(assignment[knob]) for knob in LIVE_KNOBS if knob in assignment}


def groups(
    assignments: Sequence[Assignment], *, release: str, accelerator: Accelerator = "rocm"
) -> tuple[LiveGroup, ...]:
    """Sort settings by the start that serves them.

    Settings share one where they give the same live knobs, whatever values, and agree in all else: what is
    left out holds by the release's default, which may follow from other knobs, so it is never mixed with a
    value.

    Args:
        assignments: Settings of one study.
        release: Release of the engine.
        accelerator: What it runs on.

    Returns:
        The groups, in the order of their first members.
    """
    found: dict[object, list[Assignment]] = {}
    refused: dict[object, str] = {}
    for number, assignment in enumerate(assignments):
        reason = why_not_live(assignment, release=release, accelerator=accelerator)
        key = _shared(assignment) if reason is None else number
        if reason is not None:
            refused[key] = reason
        found.setdefault(key, []).append(assignment)
    return tuple(
        LiveGroup(start=_largest(members), members=tuple(members), reason=refused.get(key))
        for key, members in found.items()
    )


def why_not_live(assignment: Assignment, *, release: str, accelerator: Accelerator = "rocm") -> str | None:
    """Return why a setting needs a start of its own, one sentence; None where its limits can change live."""
    return next(_reasons(assignment, release, accelerator), None)


def _reasons(assignment: Assignment, release: str, accelerator: Accelerator) -> Iterator[str]:
    if release_key(release) < release_key(FIRST_RELEASE):
        yield f"vLLM {release} is before {FIRST_RELEASE}, the first release read and found to allow it"
    elif release_key(release) > release_key(LAST_RELEASE):
        yield f"vLLM {release} is after {LAST_RELEASE}, the last release read and found to allow it"
    elif engine_generation(release, accelerator=accelerator, assignment=assignment) != "v1":
        yield "the V0 engine would run, which has another scheduler"
    if assignment.get("scheduler_cls") is not None:
        yield "scheduler_cls is set, and there can be one scheduler only"
    if replicas(assignment) > 1:
        yield "data parallel engines have a scheduler each, and there is one file of limits"
    if is_set(assignment.get("async_scheduling", False)) and is_between(release, *_IGNORED_WITH_ASYNC):
        yield f"with async_scheduling vLLM {release} ignores the scheduler that it is given"
    given = [knob for knob in LIVE_KNOBS if knob in assignment]
    if not given:
        yield f"it sets none of {', '.join(LIVE_KNOBS)}"
    for knob in given:
        value = assignment[knob]
        if isinstance(value, bool) or not isinstance(value, int):
            yield f"{knob} is {value!r}, and the scheduler takes whole numbers"


def _shared(assignment: Assignment) -> object:
    rest = frozenset((k, type(v), v) for k, v in assignment.items() if k not in LIVE_KNOBS)
    return rest, frozenset(knob for knob in LIVE_KNOBS if knob in assignment)


def _largest(members: Sequence[Assignment]) -> Assignment:
    first = members[0]
    if len(members) == 1:
        return first
    return {knob: _start_value(knob, members) if knob in LIVE_KNOBS else first[knob] for knob in first}


def _start_value(knob: str, members: Sequence[Assignment]) -> Scalar:
    return max(_whole(member[knob]) for member in members)


def _whole(value: Scalar) -> int:
    return int(value)
