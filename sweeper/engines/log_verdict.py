"""Why an engine ended, by its own log: class and line, from the last lines. Pure reading.

A dying engine says a lot. The cause is reported once, by the process that met it; then the others report that
they lost it, wrappers refer to "the above", the interpreter complains of what was not cleaned up, and the
server says that it shuts down. So a line is judged by what it says (``causes``) and not by its position;
lines that only refer to another are taken where there is nothing better.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from sweeper.engines.causes import (
    ABORTS,
    NOT_FOR_THIS_DEVICE,
    OUT_OF_MEMORY,
    OWN_TIME_LIMITS,
    PORT,
    STATED,
    STATED_OF_SURROUNDINGS,
    SURROUNDINGS,
    WEAK_ABORTS,
    Cause,
    classified,
    memory_shortage,
)
from sweeper.engines.log_lines import Line, last_that_says_anything, read_lines
from sweeper.records import FailureClass


@dataclass(frozen=True, kw_only=True)
class Death:
    """Why an engine ended: class, and its own line."""

    failure: FailureClass
    message: str


def why_it_ended(log: str, *, exit_code: int | None, was_ready: bool) -> Death:
    """Find class and cause in the last words of an engine.

    Args:
        log: What it wrote, or the end of it.
        exit_code: 128 + n, or -n, when signal n ended it; None when only a part of it has died.
        was_ready: It had served before, so its arguments were good.

    Returns:
        The cause that the others follow from; lines that only refer to another one are passed over.
    """
    lines = read_lines(log)
    statements = _statements(lines)
    death = _named_cause(statements, was_ready=was_ready, exit_code=exit_code)
    if death is None:
        # Some loggers call all that a program writes information.
        everything = _statements(lines, with_chatter=True)
        death = _named_cause(everything, was_ready=was_ready, exit_code=exit_code)
    if death is not None:
        return death
    wrappers = [statement.text for statement in statements if statement.is_exception]
    signal_number = _signal(exit_code)
    if wrappers and signal_number is None:
        return Death(failure=FailureClass.CRASH, message=wrappers[-1])
    return _silent_death(log, exit_code)


def known_cause(log: str) -> Death | None:
    """Find a cause that counts before the engine ends: of machine, memory or device; None without any.

    For an engine that still lives but does not proceed: one of its processes may have logged why.
    """
    return _strong_cause(_statements(read_lines(log)), was_ready=False)


def last_words(log: str) -> str:
    """Return the line of a log that says why its program ended, else the last one that says anything."""
    death = _named_cause(_statements(read_lines(log)), was_ready=False, exit_code=1)
    return last_line(log) if death is None else death.message


def last_line(log: str) -> str:
    """Return the last line of a log that says anything, without colours and noise."""
    return (last_that_says_anything(log) or "nothing in its log")[:_LONGEST]


@dataclass(frozen=True, kw_only=True)
class _Statement:
    """A line that may be a cause.

    Attributes:
        text: From the name of an exception on, where it has one.
        is_exception: It is an exception's own line, or an error that a program ends with.
        is_reference: It only points to another line.
    """

    text: str
    is_exception: bool = False
    is_reference: bool = False


_EXCEPTION = re.compile(
    r"(?<![\w.'\"`(\[])((?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?:Error|Exception|Interrupt|Exit|Expired)|"
    r"(?:[A-Za-z_]\w*\.)+(?:errors?|exc|exceptions?)\.\w+)(?=:\s+\S|:?\s*$)"
)
_PROGRAM_ERROR = re.compile(r"^(?:\S+ ){0,3}\S+: error: |^error: |^Error: |^\s*Value error, ")
# Not said by Python, and indented all the same.
_WHAT = re.compile(r"^\s*what\(\):\s*")
_SOURCE_LINE = re.compile(r"^\s{4,}")

# Lines that only point to the real cause, further up.
_REFERENCE = re.compile(
    r"see (?:root cause|stack ?trace|the stack|above|the above)|stack ?trace (?:above|for)|original error"
    r"|engine core initialization failed|Engine(?:Core)?DeadError|EngineDead|engine process failed to start"
    r"|EngineCore (?:failed|encountered)|Engine core proc\S* .*(?:died|dead)|Engine loop (?:is not|has)"
    r"|(?:workerproc|worker) initialization failed|Worker failed with error|died unexpectedly|RayTaskError"
    r"|Background loop (?:has errored|is not)|Task finished unexpectedly|\d+ validation errors? for"
    r"|ActorDiedError|RayActorError|The actor (?:died|is dead)|WorkerCrashedError|ChildFailedError"
    r"|ShardCannotStart|ShardFailed|Shard \S+ failed to start|BrokenProcessPool|EngineGenerateError"
    r"|failed to be inspected|Error raised in subprocess"
    r"|: cancelled$|Executor failed|Error in engine|Exception in worker|Failed core proc",
    re.IGNORECASE,
)
# What follows when a program is ended, or when its other end is gone.
_FAREWELL = re.compile(
    r"CancelledError|KeyboardInterrupt|SystemExit|BrokenPipeError|ConnectionResetError|ConnectionRefusedError"
    r"|EOFError|IncompleteReadError|ProcessLookupError|sys\.meta_path is None|ZMQError|zmq\.error"
    r"|Connection (?:reset by peer|closed by)|Broken pipe|recvValue failed|KeyError: '/(?:psm|mp|nccl|sem)"
    r"|ImportError: .*shutting down|remote process exited|StopAsyncIteration|GeneratorExit"
)
# What pydantic adds to a message for programmers: the type of the value and where to read about it.
_PYDANTIC_TAIL = re.compile(r"\s*\[type=.*$")
_PYDANTIC_HEAD = re.compile(r"\d+ validation errors? for (?P<model>[\w.]+)")
_IGNORED = re.compile(r"^Exception ignored in")
# What could have happened, in advice: it has not.
_ADVICE = re.compile(
    r"\b(?:avoid|prevents?|may|might|could|if|risk of)\b.{0,40}\bout of memory", re.IGNORECASE
)
# A line whose message is on the next one.
_OPEN_END = re.compile(r"(?:(?:Error|Exception)| panicked at .*):\s*$")
# A longer line is printed data; what matters of it stands at its beginning.
_LONGEST = 2000


def _statements(lines: Sequence[Line], *, with_chatter: bool = False) -> list[_Statement]:
    kept = [line for line in _without_ignored(lines) if with_chatter or not line.is_chatter]
    found: list[_Statement] = []
    field = model = None
    for line in kept:
        head = _PYDANTIC_HEAD.search(line.text)
        if head:
            model, field = head["model"], None
        detail = _pydantic_detail(line.text, model, field)
        if detail is not None:
            refers = _REFERENCE.search(detail) is not None
            found.append(_Statement(text=detail, is_exception=True, is_reference=refers))
            continue
        if model is not None and re.fullmatch(r"[\w.]+", line.text):
            field = line.text
            continue
        statement = _statement(line.text)
        if statement is None:
            continue
        if found and _OPEN_END.search(found[-1].text):
            # What it says stands on this line.
            found[-1] = replace(found[-1], text=f"{found[-1].text} {line.text.strip()[:_LONGEST]}")
        else:
            found.append(statement)
    return found


def _without_ignored(lines: Sequence[Line]) -> Iterable[Line]:
    """Leave out what the interpreter logs about exceptions that ended nothing, with their tracebacks."""
    is_ignored = False
    for line in lines:
        if _IGNORED.match(line.text):
            is_ignored = True
        elif is_ignored and (line.text[:1].isspace() or line.text.startswith("Traceback")):
            continue
        elif is_ignored:
            # The exception itself, where one is reported.
            is_ignored = False
            if not _EXCEPTION.match(line.text):
                yield line
        else:
            yield line


def _pydantic_detail(text: str, model: str | None, field: str | None) -> str | None:
    """A refusal of pydantic's: its own words, and of which field where they do not say."""
    if model is None or not text.startswith("  ") or text.startswith("   ") or "[type=" not in text:
        return None
    told = _PYDANTIC_TAIL.sub("", text).strip()
    return told if told.startswith(("Value error, ", "Assertion failed")) else f"{model}.{field}: {told}"


def _statement(text: str) -> _Statement | None:
    text = text[:_LONGEST]
    found = _WHAT.match(text)
    if found and text[found.end() :].strip():
        return _Statement(text=text[found.end() :].strip(), is_exception=True)
    stripped = _PYDANTIC_TAIL.sub("", text).strip()
    if not stripped or not Line(text=text).says_anything:
        return None
    exception = _EXCEPTION.search(stripped)
    if _SOURCE_LINE.match(text) and (exception is None or exception.start() > 0):
        return None
    if exception:
        stripped = stripped[exception.start() :]
    is_exception = exception is not None or _PROGRAM_ERROR.search(stripped) is not None
    return _Statement(
        text=stripped,
        is_exception=is_exception,
        is_reference=_REFERENCE.search(stripped) is not None,
    )


def _named_cause(statements: Sequence[_Statement], *, was_ready: bool, exit_code: int | None) -> Death | None:
    strong = _strong_cause(statements, was_ready=was_ready)
    if strong is not None:
        return strong
    exceptions = [s for s in statements if s.is_exception and not s.is_reference]
    told = [s for s in exceptions if not _FAREWELL.search(s.text)] or exceptions
    weak = _first(statements, WEAK_ABORTS)
    signal_number = _signal(exit_code)
    if weak is not None and (
        not told
        or was_ready
        or signal_number is not None
        or _is_before(weak.message, told[0].text, statements)
    ):
        return weak
    if not told or (was_ready and signal_number == signal.SIGKILL):
        # What a server logged about single requests did not end it, if it was killed.
        return None
    message = told[-1].text
    known = STATED_OF_SURROUNDINGS if was_ready else (*STATED_OF_SURROUNDINGS, *STATED)
    stated = classified(message, known)
    return Death(failure=stated.failure if stated else FailureClass.CRASH, message=message)


def _strong_cause(statements: Sequence[_Statement], *, was_ready: bool) -> Death | None:
    """Find a cause that shows in one process and as some other error in the rest, wherever it is."""
    by_numbers = [(memory_shortage(s.text), s) for s in statements if not s.is_reference]
    shortages = [(failure, s) for failure, s in by_numbers if failure is not None]
    for failure in (FailureClass.INFRASTRUCTURE, FailureClass.OUT_OF_MEMORY):
        told = [s for found, s in shortages if found is failure]
        if told:
            return Death(failure=failure, message=told[-1].text)
    for causes, may_be_at_work in (
        (SURROUNDINGS, True),
        (OUT_OF_MEMORY, True),
        (PORT, True),
        (OWN_TIME_LIMITS, False),
        (NOT_FOR_THIS_DEVICE, False),
        (ABORTS, True),
    ):
        found = _last_of_first(statements, causes) if causes is OUT_OF_MEMORY else _first(statements, causes)
        if found is not None and (may_be_at_work or not was_ready):
            return found
    return None


def _first(statements: Sequence[_Statement], causes: tuple[Cause, ...]) -> Death | None:
    """The first line of the surest cause; of a line that refers to others, only where no other has it."""
    for cause in causes:
        having = [s for s in statements if cause.pattern.search(s.text)]
        chosen = next((s for s in having if not s.is_reference), having[0] if having else None)
        if chosen is not None:
            return Death(failure=cause.failure, message=_from_cause(chosen, cause))
    return None


def _last_of_first(statements: Sequence[_Statement], causes: tuple[Cause, ...]) -> Death | None:
    for cause in causes:
        having = [s for s in statements if cause.pattern.search(s.text) and not _ADVICE.search(s.text)]
        chosen = [s for s in having if not s.is_reference] or having
        if chosen:
            return Death(failure=cause.failure, message=_from_cause(chosen[-1], cause))
    return None


def _from_cause(statement: _Statement, cause: Cause) -> str:
    """A line from its exception or, behind an unknown prefix, from what the runtime said."""
    match = cause.pattern.search(statement.text)
    is_behind_prefix = cause.begins and not statement.is_exception and match is not None
    return statement.text[match.start() :] if match is not None and is_behind_prefix else statement.text


def _is_before(first: str, second: str, statements: Sequence[_Statement]) -> bool:
    texts = [statement.text for statement in statements]
    places = [
        next((i for i, text in enumerate(texts) if wanted in text), len(texts)) for wanted in (first, second)
    ]
    return places[0] < places[1]


def _signal(exit_code: int | None) -> int | None:
    """The signal that ended a process, by its exit code."""
    if exit_code is None:
        return None
    number = -exit_code if exit_code < 0 else exit_code - 128
    return number if 0 < number < signal.NSIG else None


def _silent_death(log: str, exit_code: int | None) -> Death:
    last, number = last_line(log), _signal(exit_code)
    failure = FailureClass.CRASH
    if number == signal.SIGKILL:
        said = "killed (signal 9), by the kernel for want of memory or by somebody"
    elif exit_code is None:
        said = "a process of the engine is gone"
    elif number == signal.SIGBUS:
        failure = FailureClass.INFRASTRUCTURE
        said = (
            "ended by signal 7 (SIGBUS), as where shared memory (/dev/shm) or the disk below a file is full"
        )
    elif number is not None and number not in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        said = f"ended by signal {number} ({signal.Signals(number).name})"
    else:
        said = f"ended with exit code {exit_code}"
    return Death(failure=failure, message=f"{said}; last line: {last}")
