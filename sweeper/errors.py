"""The exception tree: one class per reaction of the caller.

SweeperError
+-- ConfigError        fix the file or the command line; nothing ran
|   |-- KnobError      a knob does not exist in this release, or its value is not allowed
|   `-- MissingFileError   a file is not there yet; a run is refused, a plan needs none
+-- PlacementError     this trial cannot fit on this node; go on with the others
+-- EngineError        this trial failed; record it and go on
|   +-- MeasurementError   a number cannot be trusted; record a failure, never the number
|   `-- Stopped          somebody asked for a stop; the trial is interrupted
+-- NothingCompleteError   a sweep ended without a complete trial; its rows say why
+-- StoreError         results are at risk; stop
`-- AnswerError        a report, chart or table cannot be written; results are safe, write it again elsewhere

Every message has the form "where: what is got; expected that. Do this."
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections import Counter
from collections.abc import Iterable
from enum import StrEnum


class FailureClass(StrEnum):
    """Why a trial has no numbers; the caller's reaction depends on it."""

    OUT_OF_MEMORY = "out_of_memory"
    BAD_ARGUMENT = "bad_argument"
    UNSUPPORTED = "unsupported"
    PORT = "port"
    START_TIMEOUT = "start_timeout"
    HANG = "hang"
    CRASH = "crash"
    WRONG_ANSWER = "wrong_answer"
    WRONG_ENGINE = "wrong_engine"
    NOT_MODELLED = "not_modelled"
    CLIENT = "client"
    INFRASTRUCTURE = "infrastructure"
    INTERRUPTED = "interrupted"

    @property
    def is_transient(self) -> bool:
        """Whether the same trial may well succeed when it is repeated."""
        return self in (FailureClass.PORT, FailureClass.INFRASTRUCTURE, FailureClass.INTERRUPTED)

    @property
    def meaning(self) -> str:
        """What happened, in a sentence without a full stop."""
        return _MEANINGS[self]

    @property
    def remedy(self) -> str:
        """What to do about it, in a sentence without a full stop."""
        return _REMEDIES[self]


_MEANINGS = {
    FailureClass.OUT_OF_MEMORY: "memory of the device or the host was too small for this setting; a search "
    "keeps away from settings that need as much",
    FailureClass.BAD_ARGUMENT: "the engine refused an argument, or the model is not there or not to be read",
    FailureClass.UNSUPPORTED: "the engine has no code for this on this device, or lacks a module",
    FailureClass.PORT: "the port was in use",
    FailureClass.START_TIMEOUT: "not ready within engine.start_timeout_s or a limit of its own",
    FailureClass.HANG: "the engine served and then answered no more",
    FailureClass.CRASH: "the engine ended: a fault of the GPU, a signal, or another exception",
    FailureClass.WRONG_ANSWER: "what it answered cannot be right: no text, or too few tokens",
    FailureClass.WRONG_ENGINE: "what answered was not proven to be the engine of this trial with its "
    "settings (docs/proof.md)",
    FailureClass.NOT_MODELLED: "the model of vLLM does not know this setting; on a GPU it may well run",
    FailureClass.CLIENT: "what loads the engine failed",
    FailureClass.INFRASTRUCTURE: "the machine or a neighbour: a device that was busy or gone, a full disk, a "
    "worker that was lost",
    FailureClass.INTERRUPTED: "a stop was asked for while the trial ran",
}

_REMEDIES = {
    FailureClass.OUT_OF_MEMORY: "lower max_num_batched_tokens, max_num_seqs or max_model_len, or raise "
    "tensor_parallel_size; where the KV cache had no room, raise gpu_memory_utilization, and where anything "
    "else had none, lower it (what a setting holds: python -m sweeper fit)",
    FailureClass.BAD_ARGUMENT: "correct what the message names (which releases have a knob: python -m "
    "sweeper explain KNOB)",
    FailureClass.UNSUPPORTED: "leave the setting out of the space, or name a release or image that has it",
    FailureClass.PORT: "look what else listens there, if it happens again",
    FailureClass.START_TIMEOUT: "raise the limit that the message names, or look in the engine's log for "
    "what took so long",
    FailureClass.HANG: "look at the engine's log and at the kernel's (dmesg), and keep to a lighter load "
    "until the cause is known",
    FailureClass.CRASH: "look at the end of the engine's log, and at the kernel's (dmesg) for faults "
    "of the GPU",
    FailureClass.WRONG_ANSWER: "do not use the setting; look for what may change answers (docs/accuracy.md)",
    FailureClass.WRONG_ENGINE: "end what else answers there, or correct engine.python, engine.image or the "
    "knobs that the message names",
    FailureClass.NOT_MODELLED: "leave the setting out of the space, or measure it (platform=mi300x)",
    FailureClass.CLIENT: "look at the client's log, and correct the workload or the client that the message "
    "names",
    FailureClass.INFRASTRUCTURE: "free or mend what the message names; the same command runs the trial again",
    FailureClass.INTERRUPTED: "start the same command again: it goes on where it was stopped",
}


def remedy_of(failure: str) -> str:
    """Return what to do about a class of failures by its name; nothing of one that is not known."""
    return FailureClass(failure).remedy if failure in {*map(str, FailureClass)} else ""


class SweeperError(Exception):
    """Base of everything this package raises on purpose."""


class ConfigError(SweeperError):
    """The configuration is wrong; nothing was started."""


class KnobError(ConfigError):
    """A knob is unknown to the engine's release, or has a value that it does not take."""


class MissingFileError(ConfigError):
    """A file that a run sends is not there yet; the message holds the command that makes it."""


class PlacementError(SweeperError):
    """A trial cannot be placed on this node, now or ever."""


class EngineError(SweeperError):
    """An engine or its client failed; the trial is a failed row and the study goes on."""

    def __init__(self, message: str, *, failure: FailureClass, log_path: str | None = None) -> None:
        super().__init__(message)
        self.failure = failure
        self.log_path = log_path


class Stopped(EngineError):
    """A stop was asked for while the trial ran; it did not fail by itself."""

    def __init__(self, *, log_path: str | None = None) -> None:
        super().__init__("stopped on request", failure=FailureClass.INTERRUPTED, log_path=log_path)


class MeasurementError(EngineError):
    """Something was measured, but there is no proof that it is what it claims to be."""


class NothingCompleteError(SweeperError):
    """A sweep ended and no trial of it is complete; each is a failed row with its reason."""


class StoreError(SweeperError):
    """Stored results are unreadable, locked, or cannot be written."""


class AnswerError(SweeperError):
    """A report, chart or table cannot be written; what it is made from is stored and safe."""


def told_by(exc: BaseException) -> BaseException:
    """Return what an exception carries, as Ray's of a task does, whose text is a traceback; else itself."""
    cause = getattr(exc, "cause", None)
    return told_by(cause) if isinstance(cause, BaseException) else exc


def first_line(exc: BaseException) -> str:
    """Return what an exception says in one line, or the one that it carries, without its full stop.

    Messages quote it amid a sentence of their own.
    """
    exc = told_by(exc)
    said = next(iter(str(exc).strip().splitlines()), "")
    return said.rstrip(" .") or type(exc).__name__


def nearest(name: str, known: Iterable[str]) -> str:
    """Describe what an unknown name may have meant, for the end of a message.

    Returns:
        ``" Did you mean 'x'?"`` when a known name is close, else an empty text.
    """
    best = nearest_name(name, known)
    return f" Did you mean '{best}'?" if best is not None else ""


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """Find the known name that an unknown one may have meant; None where nothing is close.

    A name that holds the same numbers comes first (a 70B is not an 8B), then one that only goes on where the
    unknown one ends, then the one with the fewest letters changed. A short name with another first letter is
    another word (gpu, cpu).
    """
    close = [(_closeness(name, other), other) for other in dict.fromkeys(known) if _is_close(name, other)]
    return max(close, key=lambda pair: pair[0])[1] if close else None


_SHORT = 4
_CLOSE = 0.6


def _closeness(name: str, other: str) -> tuple[float, ...]:
    plain, theirs = _plain(name), _plain(other)
    return (*_shared_numbers(plain, theirs), theirs.startswith(plain), _similarity(plain, theirs))


def _is_close(name: str, other: str) -> bool:
    plain, theirs = _plain(name), _plain(other)
    if len(plain) >= _SHORT and theirs.startswith(plain):
        return True
    is_other_word = max(len(plain), len(theirs)) <= _SHORT and plain[:1] != theirs[:1]
    return _similarity(plain, theirs) >= _CLOSE and not is_other_word


def _shared_numbers(plain: str, theirs: str) -> tuple[int, int]:
    """Count the numbers by which two names begin alike, and all that they share."""
    wanted, there = _NUMBER.findall(plain), _NUMBER.findall(theirs)
    alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(wanted, there, strict=False))
    return (len(list(alike)), (Counter(wanted) & Counter(there)).total())


def _plain(name: str) -> str:
    return _SEPARATORS.sub("_", name.lower())


def _similarity(plain: str, theirs: str) -> float:
    return difflib.SequenceMatcher(None, plain, theirs).ratio()


_NUMBER = re.compile(r"\d+")
_SEPARATORS = re.compile(r"[\s._/-]+")
