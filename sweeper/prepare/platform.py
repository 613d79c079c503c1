"""Which platform a run is on, and its configuration composed for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeper import config, topology
from sweeper.errors import ConfigError
from sweeper.records import Platform
from sweeper.topology import Node

_ASKED_FOR = "asked for"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which platform a run is on, and why."""

    platform: Platform
    reason: str
    node: Node | None

    @property
    def was_asked_for(self) -> bool:
        """Whether the user named the platform, and not this machine."""
        return self.reason == _ASKED_FOR


def choose_platform(wanted: str) -> Choice:
    """Take the platform that was asked for, or look at the machine.

    Raises:
        ConfigError: There is no such platform.
    """
    if wanted != "auto":
        try:
            return Choice(platform=Platform(wanted), reason=_ASKED_FOR, node=None)
        except ValueError as exc:
            known = ", ".join(["auto", *Platform])
            raise ConfigError(
                f"platform.name: '{wanted}' is not a platform; expected one of {known}."
            ) from exc
    found = topology.detect()
    return Choice(platform=found.platform, reason=found.reason, node=found.node)


def compose_for_platform(
    overrides: list[str], *, config_dir: Path | None
) -> tuple[Mapping[str, Any], Choice]:
    """Compose a run's configuration for the machine that it is on.

    ``platform=auto`` becomes what the machine is; an experiment that was written for a large node is
    overlaid with what it becomes on a small one, where the platform says so.
    """
    composed = config.compose_run(overrides, config_dir=config_dir)
    choice = choose_platform(composed["platform"]["name"])
    again = list(overrides)
    if composed["platform"]["name"] == "auto":
        again = [text for text in again if not text.startswith("platform=")] + [f"platform={choice.platform}"]
    overlaid = [text for text in again if text.startswith(("+overlay=", "overlay="))]
    if again != overrides:
        composed = config.compose_run(again, config_dir=config_dir)
    overlay = _overlay_of(composed, config_dir)
    # A model that is made here is one that this platform was meant for: nothing to scale down, unless the
    # experiment itself is for any model and says what it becomes here.
    is_needed = composed["model"]["path"] != "tiny" or _is_for_any_model(composed, overlay)
    if overlay and not overlaid and is_needed:
        composed = config.compose_run(again, config_dir=config_dir, overlay=overlay)
    return composed, choice


def _is_for_any_model(composed: Mapping[str, Any], overlay: str | None) -> bool:
    """Whether an experiment that leaves its parallel sizes to the model has an overlay of its own."""
    own = f"{composed['platform']['overlay']}_{composed['study']['experiment']}"
    return overlay == own and any(
        given == "fits" or (isinstance(given, dict) and given.get("fits"))
        for given in composed["space"]["knobs"].values()
    )


def _overlay_of(composed: Mapping[str, Any], config_dir: Path | None) -> str | None:
    """Return what an experiment becomes on this platform: its own overlay where it has one."""
    general: str | None = composed["platform"]["overlay"]
    study = composed["study"]
    own = f"{general}_{study['counterpart_of'] or study['experiment']}"
    return own if own in config.groups(config_dir).get("overlay", ()) else general
