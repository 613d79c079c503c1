"""When each flag, variable and value existed: unbroken runs of releases, read from the tables.

A knob may have several runs, because some came back after they had gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from sweeper.knobs.names import is_variable
from sweeper.knobs.release_order import is_between, release_key, releases
from sweeper.knobs.tables import first_release, table


@dataclass(frozen=True, kw_only=True)
class Run:
    """An unbroken run of releases that have a flag, a variable or a value; None leaves an end open."""

    spelling: str
    first: str | None
    last: str | None
    kind: str = ""
    no_form_from: str | None = None
    source: str = "upstream"
    not_on: tuple[str, ...] = ()

    def holds(self, release: str) -> bool:
        """Return whether a release lies in this run."""
        return is_between(release, self.first, self.last)


@cache
def flags() -> Mapping[str, tuple[Run, ...]]:
    """Return the runs of every flag, by knob."""
    return _grouped(
        Run(
            spelling=row["name"],
            first=first_release(row["first_version"]),
            last=row["last_version"] or None,
            kind=row["kind"],
            no_form_from=row["no_form_from"] or None,
        )
        for row in table("vllm_flags.csv")
    )


@cache
def variables() -> Mapping[str, tuple[Run, ...]]:
    """Return the runs of every variable, by name."""
    return _grouped(
        Run(
            spelling=row["name"],
            first=first_release(row["first_version"]),
            last=row["last_version"] or None,
            source=row["source"],
        )
        for row in table("vllm_env_vars.csv")
    )


def _grouped(runs: Iterator[Run]) -> Mapping[str, tuple[Run, ...]]:
    groups: dict[str, tuple[Run, ...]] = {}
    for run in runs:
        name = _knob_name(run.spelling)
        groups[name] = (*groups.get(name, ()), run)
    return groups


def _knob_name(spelling: str) -> str:
    return spelling.removeprefix("--").replace("-", "_") if spelling.startswith("--") else spelling


@cache
def endings() -> Mapping[str, Mapping[str, str]]:
    """Return the story of each knob that went or moved, by knob: when, why, and what is nearest to it now."""
    return {_knob_name(row["knob"]): row for row in table("vllm_knob_history.csv")}


@cache
def listed_values() -> Mapping[str, Mapping[str, tuple[Run, ...]]]:
    """Return the runs of every listed value, by knob and then by value."""
    listed: dict[str, dict[str, tuple[Run, ...]]] = {}
    for row in table("vllm_values.csv"):
        run = Run(
            spelling=row["value"],
            first=first_release(row["first_version"]),
            last=row["last_version"] or None,
            not_on=tuple(row["not_on"].split()),
        )
        of_knob = listed.setdefault(row["knob"], {})
        of_knob[run.spelling] = (*of_knob.get(run.spelling, ()), run)
    return listed


def runs_of(knob: str) -> tuple[Run, ...]:
    """Return the runs of a flag or a variable, oldest first; empty when no release had it."""
    return (variables() if is_variable(knob) else flags()).get(knob, ())


def run_at(knob: str, release: str) -> Run | None:
    """Return the run that this release belongs to; None when it does not have the knob."""
    return next((run for run in runs_of(knob) if run.holds(release)), None)


def lost(names: Iterable[str], *, release: str) -> tuple[str, ...]:
    """Return the flags and variables that some earlier release had and this one has not, sorted."""
    return tuple(
        sorted(
            name
            for name in set(names)
            if run_at(name, release) is None
            and any(run.last and release_key(run.last) < release_key(release) for run in runs_of(name))
        )
    )


def first_with(names: Iterable[str], *, release: str) -> str | None:
    """Return the earliest release after this one that has all of the flags and variables that it lacks.

    Returns:
        The release; None where it lacks none of them that a later one has.
    """
    later = [
        min((str(run.first) for run in runs_of(name) if _comes_after(run, release)), key=release_key)
        for name in set(names)
        if run_at(name, release) is None and any(_comes_after(run, release) for run in runs_of(name))
    ]
    return max(later, key=release_key, default=None)


def _comes_after(run: Run, release: str) -> bool:
    return run.first is not None and release_key(run.first) > release_key(release)


def since_removed(names: Iterable[str], *, release: str) -> tuple[str | None, tuple[str, ...]]:
    """Return what of an assignment for one release the newest release no longer knows.

    Args:
        names: Knobs; one that the release itself does not have is passed over.
        release: The release that they are for.

    Returns:
        The last release that has all of them, None where the newest does; and the spellings of those that
        went after it, in order.
    """
    newest = releases()[-1]
    runs = [run_at(name, release) for name in names if run_at(name, newest) is None]
    gone = [run for run in runs if run is not None and run.last is not None]
    if not gone:
        return None, ()
    last = min((str(run.last) for run in gone), key=release_key)
    return last, tuple(sorted(run.spelling for run in gone))
