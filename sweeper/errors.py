"""The exception tree: one class per reaction of the caller.

SweeperError
+-- ConfigError        fix the file or the command line; nothing ran
|   `-- KnobError      a knob does not exist in this release, or its value is not allowed
+-- PlacementError     this trial cannot fit on this node; go on with the others
+-- EngineError        this trial failed; record it and go on
+-- MeasurementError   a number cannot be trusted; record a failure, never the number
+-- StoreError         results are at risk; stop
`-- AnswerError        a report, chart or table cannot be written; results are safe, write it again elsewhere

Every message has the form "where: what is got; expected that. Do this."
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from sweeper.records import FailureClass


class SweeperError(Exception):
    """Base of everything this package raises on purpose."""


class ConfigError(SweeperError):
    """The configuration is wrong; nothing was started."""


class KnobError(ConfigError):
    """A knob is unknown to the engine's release, or has a value that it does not take."""


class PlacementError(SweeperError):
    """A trial cannot be placed on this node, now or ever."""


class EngineError(SweeperError):
    """An engine or its client failed; the trial is a failed row and the study goes on."""

    def __init__(self, message: str, *, failure: FailureClass, log_path: str | None = None) -> None:
        super().__init__(message)
        self.failure = failure
        self.log_path = log_path


class MeasurementError(EngineError):
    """Something was measured, but there is no proof that it is what it claims to be."""


class StoreError(SweeperError):
    """Stored results are unreadable, locked, or cannot be written."""


class AnswerError(SweeperError):
    """A report, chart or table cannot be written; what it is made from is stored and safe."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Say what an unknown name may have meant, for the end of a message.

    Returns:
        ``" Did you mean 'x'?"`` when a known name is close, else an empty text.
    """
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{match[0]}'?" if match else ""
