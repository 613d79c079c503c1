"""Asking the kernel's files and amd-smi for an audit; what does not answer says why and what to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from sweeper.audit.findings import Reading, Verdict
from sweeper.errors import PlacementError
from sweeper.topology.amd import read_amd
from sweeper.topology.amd_smi import AMD_ADVICE, json_rows
from sweeper.topology.node import Node
from sweeper.topology.probes import Absent, Runner, ask, contents

T = TypeVar("T")

INSTALL_AMD_SMI = "Install ROCm's amd-smi (package amd-smi-lib) or put it on PATH, then run this again."


class UnreadableError(Exception):
    """A check's value cannot be read here; it becomes a finding and is raised no further."""

    def __init__(self, reason: str, *, remedy: str) -> None:
        super().__init__(reason)
        self.remedy = remedy


class NodeReader:
    """Reads one node: files below a root, and amd-smi, each of whose answers is asked for once."""

    def __init__(self, *, run: Runner, root: Path) -> None:
        """Name the runner of amd-smi and the folder in which ``proc`` and ``sys`` lie."""
        self.run = run
        self.root = root
        self._node: Node | None = None
        self._rows: dict[tuple[str, ...], list[dict[str, object]]] = {}

    def text(self, path: str, *, remedy: str) -> str:
        """Read a file of the kernel.

        Raises:
            UnreadableError: There is none, or it may not be read.
        """
        told = contents(self.root / path)
        if told is None:
            raise UnreadableError(f"/{path} is not there or may not be read", remedy=remedy)
        return told

    def texts(self, pattern: str) -> dict[str, str]:
        """Read the files of a pattern, by path below the root; those that cannot be read are left out."""
        paths = sorted(self.root.glob(pattern))
        told = {str(path.relative_to(self.root)): contents(path) for path in paths}
        return {path: text for path, text in told.items() if text is not None}

    def rows(self, *arguments: str) -> list[dict[str, object]]:
        """Ask amd-smi for one row per device.

        Raises:
            UnreadableError: It is not installed, does not answer, or answers no JSON.
        """
        if arguments not in self._rows:
            self._rows[arguments] = self._asked(("amd-smi", *arguments, "--json"))
        return self._rows[arguments]

    def amd_node(self) -> Node:
        """Read its devices, modes and versions, once.

        Raises:
            UnreadableError: amd-smi is not installed or does not answer.
        """
        if self._node is None:
            try:
                found = read_amd(self.run, root=self.root)
            except PlacementError as exc:
                raise UnreadableError(str(exc), remedy=AMD_ADVICE) from exc
            if isinstance(found, Absent):
                raise UnreadableError(found.reason, remedy=INSTALL_AMD_SMI)
            self._node = found
        return self._node

    def _asked(self, command: tuple[str, ...]) -> list[dict[str, object]]:
        try:
            answer = ask(self.run, command)
        except PlacementError as exc:
            raise UnreadableError(str(exc), remedy="Look into the driver's messages: sudo dmesg.") from exc
        if isinstance(answer, Absent):
            raise UnreadableError(answer.reason, remedy=INSTALL_AMD_SMI)
        rows = json_rows(answer.stdout)
        if not rows:
            reason = f"`{' '.join(command)}` ended with status {answer.exit_status}: {answer.last_line}"
            raise UnreadableError(reason, remedy=AMD_ADVICE)
        return rows


def judged(values: Mapping[str, T | None], is_good: Callable[[T], bool], *, remedy: str) -> Reading:
    """Judge one value per GPU or processor: one that is not good decides, and good are only all of them.

    Raises:
        UnreadableError: None is known, or those that are known are good and others are not known.
    """
    known = {name: value for name, value in values.items() if value is not None}
    if not known:
        raise UnreadableError("not told", remedy=remedy)
    found = in_words(known)
    missing = [name for name in values if name not in known]
    if missing:
        found = f"{found}; not told for {', '.join(missing)}"
    if not all(map(is_good, known.values())):
        return Reading(verdict=Verdict.DIFFERS, found=found)
    if missing:
        raise UnreadableError(found, remedy=remedy)
    return Reading(verdict=Verdict.GOOD, found=found)


def verdict_of(is_good: bool) -> Verdict:
    """Return good or differs."""
    return Verdict.GOOD if is_good else Verdict.DIFFERS


def in_words(values: Mapping[str, T]) -> str:
    """Return values with who has them, the most common one first: ``16 on 7, 8 on GPU 3``."""
    owners: dict[str, list[str]] = {}
    for name, value in values.items():
        owners.setdefault(str(value), []).append(name)
    if len(owners) == 1:
        return f"{next(iter(owners))} on {'all ' if len(values) > 1 else ''}{len(values)}"
    groups = sorted(owners.items(), key=lambda group: -len(group[1]))
    few = 4
    return ", ".join(
        f"{value} on {', '.join(names) if len(names) <= few and place else len(names)}"
        for place, (value, names) in enumerate(groups)
    )
