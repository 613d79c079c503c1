"""AITER's switches as a release's defaults and the environment make them: which of AMD's kernels may run.

``VLLM_ROCM_USE_AITER`` is the switch of all; the others act only where it is on, and most of them are on then
unless said otherwise. Whether a kernel that is allowed also runs, the engine's log tells.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from sweeper.knobs.generations import is_set
from sweeper.knobs.history import endings, run_at, variables
from sweeper.knobs.release_order import is_between

MASTER = "VLLM_ROCM_USE_AITER"
"""The variable without which none of the others acts."""


@dataclass(frozen=True, kw_only=True)
class AiterSwitches:
    """What is allowed to run.

    Attributes:
        is_on: Whether AITER is used at all.
        on: Sub-switches that are on by default or by the environment, without their common beginning, in
            order of the alphabet; empty where AITER is off.
    """

    is_on: bool
    on: tuple[str, ...] = ()


def aiter_switches(release: str, environment: Mapping[str, str]) -> AiterSwitches | None:
    """Return AITER's switches in an engine's environment; None where the release has no AITER.

    Args:
        release: Release of vLLM.
        environment: The variables that the engine is given.

    Source:
        Defaults: ``vllm_knob_history.csv``; vLLM 0.32.0, ``envs.py``, reads ``1`` and ``true`` as yes.
    """
    if run_at(MASTER, release) is None:
        return None
    if not _is_on(MASTER, release, environment):
        return AiterSwitches(is_on=False)
    names = [name for name in variables() if name.startswith(f"{MASTER}_") and run_at(name, release)]
    on = sorted(name.removeprefix(f"{MASTER}_") for name in names if _is_on(name, release, environment))
    return AiterSwitches(is_on=True, on=tuple(on))


def default_at(history: str, release: str) -> str:
    """Return the default that held in a release, out of the history of a variable's default.

    Args:
        history: ``0``, or parts such as ``1 through 0.32.0; 0 in 0.33.0``, ``1 in 0.11.1-0.11.2``,
            ``0 from 0.12.0``.
        release: Release of vLLM.

    Returns:
        The value of the first part that the release lies in; empty where it lies in none.
    """
    for part in history.split(";"):
        match = _PART.fullmatch(part.strip())
        if match is None:
            continue
        first, last = match["first"] or match["one"], match["last"] or match["through"] or match["one"]
        if is_between(release, first or match["since"], last):
            return match["value"]
    return ""


_PART = re.compile(
    r"(?P<value>\S+)(?: through (?P<through>[\d.]+)| from (?P<since>[\d.]+)"
    r"| in (?P<first>[\d.]+)-(?P<last>[\d.]+)| in (?P<one>[\d.]+))?"
)


def _is_on(name: str, release: str, environment: Mapping[str, str]) -> bool:
    default = default_at(endings().get(name, {}).get("default_history", ""), release)
    return is_set(environment.get(name, default))
