"""Which knobs a setting changes, among those that its rows name: not what is known to hold unsaid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sweeper import knobs
from sweeper.errors import ConfigError
from sweeper.records import Scalar
from sweeper.store.store import knobs_of


def overridden(row: Mapping[str, Any]) -> dict[str, Scalar]:
    """Return the knobs that a setting changes, with their values.

    Args:
        row: Columns ``knob.*``, ``version.vllm``, ``platform`` and ``modelled_device``; missing ones are
            None or NaN.
    """
    assignment = knobs_of(row)
    unsaid: Mapping[str, Scalar] = {}
    release, device = row.get("version.vllm"), row.get("modelled_device")
    if isinstance(release, str):
        accelerator = knobs.accelerator_of(
            str(row.get("platform")), modelled_device=device if isinstance(device, str) else None
        )
        try:
            unsaid = knobs.defaults(release.split()[0], accelerator=accelerator, assignment=assignment)
        except ConfigError:
            unsaid = {}
    unsaid = {**knobs.NEVER_MOVED, **unsaid}
    return {name: value for name, value in assignment.items() if not _is_same(value, unsaid.get(name))}


def _is_same(value: Scalar, unsaid: Scalar | None) -> bool:
    """Return whether a value is the one that holds unsaid; a variable is text where a flag is a number."""
    return unsaid is not None and (value == unsaid or str(value).lower() == str(unsaid).lower())
