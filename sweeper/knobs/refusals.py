"""What a refusal is: why a knob cannot be used as asked, as data and as one line to read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sweeper.records import Scalar

RefusalKind = Literal["unknown", "not_yet", "removed", "no_effect", "bad_value", "conflict"]


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why a knob cannot be used as asked.

    Attributes:
        knob: Its name as it was given.
        value: Its value as it was given.
        kind: ``unknown``, ``not_yet``, ``removed``, ``no_effect``, ``bad_value`` or ``conflict``.
        reason: Full sentences: what is wrong, since which release, and what to do.
        is_mistake: Whether no value and no company could make it right, so that nothing is to be started.
        is_fact: Whether it rests on what a release is known to do, which a build of another state may not.
    """

    knob: str
    value: Scalar
    kind: RefusalKind
    reason: str
    is_mistake: bool = False
    is_fact: bool = False

    @property
    def message(self) -> str:
        """The refusal as one line of an error or a report."""
        return f"knob '{self.knob}' = {self.value!r}: {self.reason}"
