"""How far simulated numbers are expected to be off, of several settings told together."""

from __future__ import annotations

from collections.abc import Sequence

NEVER_COMPARED = "unknown: never compared with a measurement"
"""How an expected error begins of what a calibration has no data of; of what follows, set apart by commas."""


def told_once(errors: Sequence[str | None]) -> list[str]:
    """Say of settings that were never compared in several respects each respect once."""
    never = f"{NEVER_COMPARED} "
    known = [text for text in errors if text is not None]
    alike = [text.removeprefix(never) for text in known if text.startswith(never)]
    respects = dict.fromkeys(respect for text in alike for respect in text.split(", "))
    others = [text for text in known if not text.startswith(never)]
    return [*others, never + ", ".join(respects)] if respects else others
