"""What an engine itself can say before a run: whether it is there, and mistakes in its knobs."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from sweeper.kinds import EngineKind, opened
from sweeper.records import Assignment, EngineSpec


@dataclass(frozen=True, kw_only=True)
class Found:
    """A release that an engine reports.

    Attributes:
        release: As reported.
        where: The interpreter or address that reported it.
    """

    release: str
    where: str


def find(engine: EngineSpec, *, kind: EngineKind) -> Found | None:
    """Find what will serve, before anything is started; None where it reports no release, or has none.

    Raises:
        ConfigError: It is not there.
    """
    if kind.find is None:
        return None
    found: Found | None = opened(kind.find)(engine)
    return found


def mistakes(
    assignment: Assignment, *, kind: EngineKind, allow_unknown: bool, engine: EngineSpec | None = None
) -> tuple[str, ...]:
    """Find what the engine would not take, or would ignore; each is one line of an error.

    Args:
        assignment: Knob to value.
        kind: The engine.
        allow_unknown: Whether names pass that are not known.
        engine: As a trial has it, where its interpreter and release are known.
    """
    if kind.check is None:
        return ()
    facts = {"engine": engine} if kind.is_run_by_python else {}
    return tuple(opened(kind.check)(assignment, allow_unknown=allow_unknown, **facts))


def flags(kind: EngineKind) -> Set[str]:
    """Return the knobs that an engine has besides vLLM's; empty where they are not known."""
    return frozenset() if kind.flags is None else frozenset(opened(kind.flags))
