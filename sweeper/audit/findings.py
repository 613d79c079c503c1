"""A check of the node, what was read for it, and the audit made of all of them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What became of a check."""

    GOOD = "good"
    DIFFERS = "differs"
    UNREADABLE = "unreadable"


class Scope(StrEnum):
    """Where a check applies: on any node that serves, or where there are MI300X; and what it reads."""

    ANY_HOST = "any host"
    MI300X_HOST = "host of MI300X"
    MI300X_GPUS = "GPUs"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that is compared with a guide.

    Attributes:
        name: Its name in JSON and in the digest.
        expected: What the guide asks, in words.
        why: What it does to a measurement.
        command: What an administrator types to change it; nothing here runs it.
        source: Document that asks it, or the reason where no guide of AMD does.
        is_setting: Whether it stays as it is until somebody changes it; a counter or a process does not, and
            is no part of the digest.
    """

    name: str
    scope: Scope
    expected: str
    why: str
    command: str
    source: str
    is_setting: bool = True


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What was read for a check.

    Attributes:
        found: In words; for one that is unreadable, the reason.
        remedy: What makes it readable; None where it was read.
    """

    verdict: Verdict
    found: str
    remedy: str | None = None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A check with what was read for it."""

    check: Check
    reading: Reading

    @property
    def verdict(self) -> Verdict:
        """What became of the check."""
        return self.reading.verdict

    @property
    def to_do(self) -> str | None:
        """What to type or do about it; None where it is good."""
        if self.verdict is Verdict.DIFFERS:
            return self.check.command
        return self.reading.remedy

    def as_json(self) -> dict[str, str | bool | None]:
        """Return all of it by name, for ``--json``."""
        return {
            "name": self.check.name,
            "verdict": str(self.verdict),
            "found": self.reading.found,
            "expected": self.check.expected,
            "why": self.check.why,
            "command": self.check.command,
            "remedy": self.reading.remedy,
            "source": self.check.source,
            "is_setting": self.check.is_setting,
        }


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Every finding of one look at a node, in the order of the catalogue."""

    findings: tuple[Finding, ...]

    def names(self, verdict: Verdict) -> tuple[str, ...]:
        """Return the names of the checks with this verdict."""
        return tuple(finding.check.name for finding in self.findings if finding.verdict is verdict)

    @property
    def digest(self) -> str:
        """Its settings in one line: equal where, and only where, all that was read of them is equal.

        Counters and processes are left out: they change while nobody changes the node.

        Returns:
            Twelve digits of a hash, then the names of what differs and of what was unreadable, such as
            ``1f0c52d2a9b7 differs: cpu_governor, numa_balancing; unreadable: power_cap``.
        """
        settings = Audit(findings=tuple(each for each in self.findings if each.check.is_setting))
        told = [[each.check.name, str(each.verdict), each.reading.found] for each in settings.findings]
        number = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]
        parts = [
            f"{verdict}: {', '.join(sorted(names))}"
            for verdict in (Verdict.DIFFERS, Verdict.UNREADABLE)
            if (names := settings.names(verdict))
        ]
        return f"{number} {'; '.join(parts) or 'good'}"
