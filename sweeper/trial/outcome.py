"""How a trial ended, as its result: complete, skipped, failed with a class and a reason, or lost.

Each result is made from the trial's record. What others said (a message, an answer, a value that an engine
reports) is kept at some length, as Unicode, and without secrets.
"""

from __future__ import annotations

import contextlib
import os
import time
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path

from sweeper.clients.program import last_line
from sweeper.engines import Server
from sweeper.engines.endpoint import fingerprint, joined
from sweeper.errors import EngineError, Stopped, SweeperError, first_line, told_by
from sweeper.kinds import ENGINES
from sweeper.records import FailureClass, Placement, Scalar, TrialResult, TrialSpec, TrialState
from sweeper.text import confidential
from sweeper.trial import kernels, surroundings
from sweeper.trial.record import TrialRecord

_LONGEST_TEXT = 20_000
"""Characters of a message or an answer that are kept."""


def complete(record: TrialRecord) -> TrialResult:
    """Return the result of a trial that measured all of its load points."""
    return _result(record, TrialState.COMPLETE)


def skipped(record: TrialRecord, *, reason: str) -> TrialResult:
    """Return the result of a trial that ended early because the rest of it cannot matter."""
    return _result(record, TrialState.SKIPPED, message=reason)


def failed(record: TrialRecord, error: BaseException) -> TrialResult:
    """Return the result of a trial that an error ended, with the error's class and words.

    The traceback of an error that is no engine's is written next to the trial's other files.
    """
    if isinstance(error, KeyboardInterrupt):
        error = Stopped()
    if isinstance(error, EngineError):
        message = _with_engines_word(error, record.server)
        return _failed(record, error.failure, message=message, log=error.log_path)
    log = _write_traceback(record.spec, error)
    if isinstance(error, SweeperError):
        return _failed(record, FailureClass.BAD_ARGUMENT, message=str(error), log=log)
    message = f"{type(error).__name__}: {error}"
    return _failed(record, FailureClass.INFRASTRUCTURE, message=message, log=log)


def lost(
    spec: TrialSpec,
    placement: Placement,
    error: BaseException,
    *,
    failure: FailureClass = FailureClass.INFRASTRUCTURE,
) -> TrialResult:
    """Return the result of a trial whose worker cannot report by itself: it died, or never began."""
    error = told_by(error)
    kind, reason = type(error).__name__, first_line(error)
    message = f"the worker of this trial was lost: {kind}{f': {reason}' if reason != kind else ''}"
    return TrialResult(
        spec=spec,
        placement=placement,
        state=TrialState.FAILED,
        provenance=spec.provenance,
        failure_class=failure,
        failure_message=_kept(
            str(Stopped()) if failure is FailureClass.INTERRUPTED else message,
            _secrets(spec),
        ),
    )


def _failed(record: TrialRecord, failure: FailureClass, *, message: str, log: str | None) -> TrialResult:
    return _result(record, TrialState.FAILED, failure=failure, message=message, log=log)


def _result(
    record: TrialRecord,
    state: TrialState,
    *,
    failure: FailureClass | None = None,
    message: str | None = None,
    log: str | None = None,
) -> TrialResult:
    spec, server, answer = record.spec, record.server, joined(record.answers)
    secrets = _secrets(spec, [] if server is None else [server.api_key])
    record.end()
    return TrialResult(
        spec=spec,
        placement=record.placement,
        state=state,
        provenance=server.provenance if server else spec.provenance,
        # A failed trial keeps no numbers: part of a measurement is not a measurement. What was left out
        # because it cannot matter is another thing: the load points before it were measured whole.
        measurements=() if state is TrialState.FAILED else tuple(record.measurements),
        failure_class=failure,
        failure_message=None if message is None else _kept(message, secrets),
        log_path=log or (server.log_path if server else None),
        effective={
            **_kept_values(server.effective if server else {}, secrets),
            **record.host,
            **({} if record.numa_binding is None else {"numa_binding": record.numa_binding}),
        },
        kernels=_kept_values(kernels.together(record.kernels), secrets),
        # A modelled trial does not depend on this machine.
        versions={
            **({} if spec.is_modelled else surroundings.versions()),
            **(server.versions if server else {}),
        },
        surroundings={
            **({} if spec.is_modelled else surroundings.surroundings(os.environ)),
            **({} if record.audit is None else {"audit": record.audit}),
        },
        phases=record.phases,
        accuracy=_kept_values(record.accuracy, secrets),
        sanity_fingerprint=None if answer is None else fingerprint(answer),
        sanity_text=None if answer is None else _kept(answer, secrets),
        command=server.command if server else (),
        started_at=record.started_at,
        ended_at=time.time(),
    )


def _secrets(spec: TrialSpec, known: Iterable[str] = ()) -> tuple[str, ...]:
    """Return what is masked: secrets of the environment, and the key of an endpoint, whatever names that."""
    is_endpoint = not ENGINES[spec.engine.kind].is_started_by_us
    keys = [os.environ.get(spec.engine.api_key_env or "", "")] if is_endpoint else []
    return confidential.secrets_of(os.environ, known=[*known, *keys])


def _kept(text: str, secrets: Iterable[str]) -> str:
    """Return another program's text as it may be kept: of some length, Unicode, and without secrets."""
    # Cut twice: a secret that the first cut leaves in part lies in what the second one takes away.
    text = confidential.without(
        _cut(text, 2 * _LONGEST_TEXT).encode("utf-8", "backslashreplace").decode(), secrets
    )
    return _cut(text, _LONGEST_TEXT)


def _cut(text: str, most: int) -> str:
    """Leave out the middle of a text that is longer."""
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 2 :]}"


def _kept_values(values: Mapping[str, Scalar], secrets: Iterable[str]) -> dict[str, Scalar]:
    return {
        name: _kept(value, secrets) if isinstance(value, str) else value for name, value in values.items()
    }


def _write_traceback(spec: TrialSpec, error: BaseException) -> str | None:
    """Write the traceback of an error next to the trial's other files; None where it cannot be written."""
    path = Path(spec.folder) / "traceback.txt"
    text = confidential.without("".join(traceback.format_exception(error)), _secrets(spec))
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return str(path)
    return None


def _with_engines_word(error: EngineError, server: Server | None) -> str:
    """Add the engine's last line to what a client says of a load that never ended: it only saw silence."""
    if error.failure is not FailureClass.HANG or server is None or server.log_path is None:
        return str(error)
    return f"{error}; the engine's last line: {last_line(Path(server.log_path))}"
