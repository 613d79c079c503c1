"""The audit of a node: every check of the catalogue with what was read for it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from sweeper.audit.catalogue import CATALOGUE
from sweeper.audit.findings import Audit, Check, Finding, Reading, Scope, Verdict
from sweeper.audit.gpus import GPU_READINGS
from sweeper.audit.host import HOST_READINGS
from sweeper.audit.reading import NodeReader, UnreadableError
from sweeper.records import Platform
from sweeper.topology.probes import Runner, run_command

_REPORT = "Look at it by hand, and report the releases of kernel and amd-smi."
_READINGS = {**HOST_READINGS, **GPU_READINGS}


def audit_node(
    run: Runner = run_command,
    *,
    root: Path = Path("/"),
    scopes: Collection[Scope] = tuple(Scope),
    has_counters: bool = True,
) -> Audit:
    """Read a node and compare it with AMD's guides for MI300X; nothing is changed.

    Args:
        run: Runs amd-smi.
        root: Where /proc and /sys lie.
        scopes: Which kinds of checks; all unless given.
        has_counters: Whether counters and processes are read too, which are no settings.

    Returns:
        A finding for each check, also for one that cannot be read.
    """
    node = NodeReader(run=run, root=root)
    checks = [check for check in CATALOGUE if check.scope in scopes and (has_counters or check.is_setting)]
    return Audit(findings=tuple(Finding(check=check, reading=_reading(check, node)) for check in checks))


def digest_for(platform: Platform, run: Runner = run_command, *, root: Path = Path("/")) -> str:
    """Return the digest of the settings that matter on a platform, for the rows of a trial.

    Args:
        platform: Only a node of MI300X is compared with what holds for those; another one with what holds for
            any host.
        run: Runs amd-smi.
        root: Where /proc and /sys lie.
    """
    scopes = tuple(Scope) if platform is Platform.MI300X else (Scope.ANY_HOST,)
    return audit_node(run, root=root, scopes=scopes, has_counters=False).digest


def _reading(check: Check, node: NodeReader) -> Reading:
    try:
        return _READINGS[check.name](node)
    except UnreadableError as exc:
        return Reading(verdict=Verdict.UNREADABLE, found=str(exc), remedy=exc.remedy)
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        # Another release's form: a trial or the other checks must not fail for it.
        found = f"has a form that is not known here ({type(exc).__name__}: {exc})"
        return Reading(verdict=Verdict.UNREADABLE, found=found, remedy=_REPORT)
