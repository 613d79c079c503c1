"""Everything that rules out an assignment in one release, found before anything is started.

The questions are asked knob by knob (``presence``, then ``values``), and then of all knobs together
(``conflicts``).
"""

from __future__ import annotations

from sweeper.kinds import DEFAULT_ENGINE, ENGINES
from sweeper.knobs.conflicts import find_conflicts
from sweeper.knobs.generations import Accelerator
from sweeper.knobs.launcher import refuse_given
from sweeper.knobs.names import is_of_sweeper
from sweeper.knobs.presence import refuse_absent, refuse_idle
from sweeper.knobs.refusals import Refusal
from sweeper.knobs.values import refuse_dated, refuse_form, refuse_unlisted
from sweeper.records import Assignment


def check(
    assignment: Assignment,
    *,
    release: str,
    engine: str = DEFAULT_ENGINE,
    allow_unknown: bool = False,
    accelerator: Accelerator = "rocm",
    build: str | None = None,
) -> tuple[Refusal, ...]:
    """Find what this release would not take, would misread, or would take and ignore.

    Args:
        assignment: Knob to value.
        release: Release of vLLM that runs, or that is modelled.
        engine: One of ``kinds.ENGINES``; flags of any other engine than vLLM are not known here and pass.
        allow_unknown: Let pass what the tables alone refuse, for a fork or a patched build: kinds
            ``unknown``, ``not_yet``, ``removed`` and ``no_effect``, values that are not listed, and, where
            the build is no release, conflicts that releases are known to have.
        accelerator: What it runs on.
        build: Version of a build that is taken for that release without being stated to be it, or None.

    Returns:
        Refusals in the order of the assignment, then conflicts; empty when all is well.

    Raises:
        ConfigError: The text is not a release.
    """
    if not ENGINES[engine].takes_vllm_flags:
        return ()
    found: list[Refusal] = []
    for knob, value in assignment.items():
        if is_of_sweeper(knob):
            continue
        by_table = (
            refuse_given(knob, value)
            or refuse_absent(knob, value, release=release)
            or refuse_idle(knob, value, assignment=assignment, release=release, accelerator=accelerator)
            or refuse_unlisted(knob, value, release=release, accelerator=accelerator)
            or refuse_dated(knob, value, release=release)
        )
        if by_table is None or (allow_unknown and not by_table.is_mistake):
            by_table = refuse_form(knob, value, release=release)
        if by_table:
            found.append(by_table)
    conflicts = find_conflicts(assignment, release=release, accelerator=accelerator, build=build)
    return (*found, *(refusal for refusal in conflicts if not (allow_unknown and refusal.is_fact)))


def check_conflicts(
    assignment: Assignment,
    *,
    release: str,
    engine: str = DEFAULT_ENGINE,
    accelerator: Accelerator = "rocm",
) -> tuple[Refusal, ...]:
    """Find the refusals of kind ``conflict`` that ``check`` finds, without looking at each value's form.

    Args:
        assignment: Knob to value; all of an engine's settings may be among them.
        release: As for ``check``, like the others.
        engine: One of ``kinds.ENGINES``.
        accelerator: What it runs on.
    """
    if not ENGINES[engine].takes_vllm_flags:
        return ()
    given = [refuse_given(knob, value) for knob, value in assignment.items() if not is_of_sweeper(knob)]
    found = find_conflicts(assignment, release=release, accelerator=accelerator)
    return (*(refusal for refusal in given if refusal is not None), *found)
