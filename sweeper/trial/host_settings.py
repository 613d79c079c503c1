"""Settings of the host that a trial asks for: changed before its engine starts, put back afterwards.

They belong to the whole machine, so a trial that has one runs alone (``TrialSpec.is_exclusive``). What held
before is written down first, in the outputs folder, with the process that has to put it back; a later run
that finds such a record of a process that has died puts it back instead. After a reboot nothing is to be put
back. Nodes of a cluster share that folder, so each has a record of its own, and leaves those of others alone.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from sweeper import knobs
from sweeper.errors import ConfigError, EngineError, PlacementError, nearest
from sweeper.processes import process
from sweeper.processes.process import Process
from sweeper.records import Assignment, FailureClass, Scalar
from sweeper.text import trial_files

PROC = Path("/proc")
"""Where the kernel shows its settings."""

FILES: Mapping[str, str] = MappingProxyType(
    {knob: f"sys/{name.replace('.', '/')}" for knob, name in knobs.HOST_SETTINGS.items()}
)
"""File of each setting, below ``/proc``. Source: Documentation/admin-guide/sysctl/kernel.rst of Linux."""

_RECORDS = "host-restore*.json"
# Of a boot, which no two machines share; the earliest versions wrote none.
_BOOT_LETTERS = 8


@dataclass(frozen=True, kw_only=True)
class _Record:
    """What held on a host before a trial changed it.

    Attributes:
        owner: Process that has to put it back.
        boot: Boot of the kernel that it changed.
        host: Name of that machine; None in a record from before there were several.
        before: Setting to its value.
    """

    owner: Process
    boot: str
    host: str | None
    before: Mapping[str, str]


def record_in(outputs: Path) -> Path:
    """Return where this machine's record lies, while there is one."""
    return outputs / _RECORDS.replace("*", f"-{process.boot_id()[:_BOOT_LETTERS]}")


def wanted(assignment: Assignment) -> dict[str, str]:
    """Return the settings of the host that an assignment asks for, as the kernel writes them.

    Raises:
        ConfigError: There is no such setting, or its value is neither 0 nor 1.
    """
    found = {}
    for knob, value in assignment.items():
        if not knobs.is_host_setting(knob):
            continue
        if knob not in FILES:
            raise ConfigError(
                f"knob '{knob}': is no setting of the host that can be changed; expected one of "
                f"{', '.join(FILES)}.{nearest(knob, FILES)}"
            )
        if value not in (0, 1):
            raise ConfigError(f"knob '{knob}' = {value!r}: expected 0 or 1. Write it without quotes.")
        found[knob] = str(int(value))
    return found


@contextmanager
def changed(assignment: Assignment, *, outputs: Path, proc: Path = PROC) -> Iterator[Mapping[str, Scalar]]:
    """Change the host as an assignment asks, and put it back at the end, whatever happens meanwhile.

    Args:
        assignment: Knob to value; those that are no settings of the host do not matter.
        outputs: Folder of all studies, for the record of what held before.
        proc: Where the kernel shows its settings.

    Yields:
        The settings as the kernel shows them after the change.

    Raises:
        ConfigError: As ``wanted``.
        EngineError: The host may not be changed; nothing was.
    """
    asked = wanted(assignment)
    if not asked:
        yield {}
        return
    # First, or what a killed trial left would be taken for what held before.
    restore_abandoned(outputs, proc=proc)
    before = {knob: _read(proc, knob) for knob in asked}
    _refuse_unwritable(proc, asked)
    record = record_in(outputs)
    _claim(record, before)
    try:
        for knob, value in asked.items():
            _write(proc, knob, value)
        yield {knob: int(_read(proc, knob)) for knob in asked}
    finally:
        for knob, value in before.items():
            _write(proc, knob, value)
        record.unlink()


def restore_abandoned(outputs: Path, *, proc: Path = PROC) -> dict[str, str]:
    """Put back what a trial changed whose process has died.

    Returns:
        Setting to the value that it has again; empty when there was nothing to do.

    Raises:
        PlacementError: The record cannot be read, or the host may not be changed.
    """
    restored: dict[str, str] = {}
    for path in sorted(outputs.glob(_RECORDS)):
        record = _parse(path)
        if record is not None:
            restored.update(_settled(path, record, proc=proc))
    return restored


def _settled(path: Path, record: _Record, *, proc: Path) -> Mapping[str, str]:
    """Put back what a record of this boot tells, if its process has died; drop what nobody needs any more."""
    is_ours = record.boot == process.boot_id()
    if is_ours and process.is_alive(record.owner):
        return {}
    if not is_ours and record.host not in (None, socket.gethostname()):
        return {}  # Another node's, whose trial may still run; whoever next runs there sees to it.
    if is_ours:
        try:
            for knob, value in record.before.items():
                _write(proc, knob, value)
        except EngineError as exc:
            raise PlacementError(
                f"{path}: an earlier run changed the host and died; {exc} Put it back as root: "
                "python -m sweeper cleanup"
            ) from exc
    path.unlink(missing_ok=True)
    return record.before if is_ours else {}


def _claim(record: Path, before: Mapping[str, str]) -> None:
    """Write down what held before; one trial at a time, and never over what is still to be put back."""
    content = {
        "owner": str(process.current()),
        "boot_id": process.boot_id(),
        "host": socket.gethostname(),
        "before": dict(before),
    }
    trial_files.make_folder(record.parent)
    aside = record.with_name(f".{record.name}.{os.getpid()}")
    with trial_files.failing_at(record), aside.open("w", encoding="utf-8") as file:
        json.dump(content, file)
        file.flush()
        # Before the change, on the disk itself: a crash of the machine's power is the point of a record.
        os.fsync(file.fileno())
    try:
        # Fails where there is one, unlike a rename.
        os.link(aside, record)
    except FileExistsError as exc:
        raise EngineError(
            f"{record}: another trial has changed the host and still runs; expected to be alone. It is tried "
            "again when that one has ended.",
            failure=FailureClass.INFRASTRUCTURE,
        ) from exc
    finally:
        aside.unlink()


def _parse(record: Path) -> _Record | None:
    """Read a record; None where its trial has just ended and taken it away."""
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        before = {str(knob): str(value) for knob, value in content["before"].items()}
        if not set(before) <= set(FILES):
            raise ValueError(f"settings {sorted(before)}")
        return _Record(
            owner=Process.parse(content["owner"]),
            boot=str(content["boot_id"]),
            host=content.get("host"),
            before=before,
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise PlacementError(
            f"{record}: is no record of ours ({exc}); expected what the host's settings were before a trial "
            "changed them. Look at the settings (sysctl kernel.numa_balancing), then delete the file."
        ) from exc


def _refuse_unwritable(proc: Path, asked: Mapping[str, str]) -> None:
    for knob in asked:
        if not os.access(proc / FILES[knob], os.W_OK):
            raise EngineError(
                f"knob '{knob}': {proc / FILES[knob]} may not be written; expected the right to change the "
                "host. Run as root (in a container: privileged), or leave the knob out.",
                failure=FailureClass.UNSUPPORTED,
            )


def _read(proc: Path, knob: str) -> str:
    try:
        return (proc / FILES[knob]).read_text(encoding="ascii").strip()
    except (OSError, ValueError) as exc:
        raise EngineError(
            f"knob '{knob}': {proc / FILES[knob]} cannot be read ({exc}); expected a kernel that has this "
            "setting. Leave the knob out.",
            failure=FailureClass.UNSUPPORTED,
        ) from exc


def _write(proc: Path, knob: str, value: str) -> None:
    path = proc / FILES[knob]
    try:
        path.write_text(value + "\n", encoding="ascii")
    except OSError as exc:
        raise EngineError(
            f"knob '{knob}': {path} could not be set to {value} ({exc}); expected the right to change the "
            "host. Run as root.",
            failure=FailureClass.UNSUPPORTED,
        ) from exc
    if _read(proc, knob) != value:
        raise EngineError(
            f"knob '{knob}': {path} does not keep the value {value}; expected the kernel to take it. "
            "Look for a program that sets it back (tuned, numad).",
            failure=FailureClass.UNSUPPORTED,
        )
