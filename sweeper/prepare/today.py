"""What an experiment becomes on a release of vLLM that lacks its knobs: its counterpart there.

``conf/today/<experiment>.yaml`` takes the place of ``conf/experiment/<experiment>.yaml`` where the release
that is found lacks a knob of the experiment and has all of the counterpart's. What the user wrote on the
command line is laid over either, and a knob that is gone is refused there as ever. The simulated platform
models whatever release an experiment names, so nothing is exchanged on it; nor of an endpoint, whose knobs
are its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sweeper import config, knobs
from sweeper.errors import ConfigError
from sweeper.kinds import ENGINES
from sweeper.prepare.planner import found_engine
from sweeper.prepare.platform import Choice, compose_for_platform

_COUNTERPARTS: Mapping[str, str] = MappingProxyType(
    {
        "num_scheduler_steps": "case2_async_scheduling",
        "max_seq_len_to_capture": "case4_cudagraph_sizes",
    }
)
"""Knob that went to the experiment that asks for the same today."""


@dataclass(frozen=True, kw_only=True)
class Release:
    """What the release that was found means for an experiment.

    Attributes:
        composed: The configuration to run: the experiment's, or its counterpart's.
        lines: What to tell the user first; empty where the experiment runs as it is written.
        remedy: Sentence for a refusal of knobs; empty where nothing helps.
    """

    composed: Mapping[str, Any]
    lines: tuple[str, ...] = ()
    remedy: str = ""


def fitted(
    overrides: Sequence[str], composed: Mapping[str, Any], choice: Choice, *, config_dir: Path | None
) -> Release:
    """Exchange an experiment for its counterpart where the release that was found lacks its knobs.

    Args:
        overrides: As on the command line.
        composed: The configuration that they make on this platform.
        choice: The platform.
        config_dir: The folder of the user's own groups.

    Returns:
        The configuration to run. What is wrong with the given one is not said here: it is returned as it is,
        and refused where it is read.
    """
    asked = _experiment(overrides)
    stated_by = config.release_stated_by(overrides, config_dir=config_dir)
    found = _Found.of(composed, choice, stated_by)
    if found is None or asked is None:
        return Release(composed=composed)
    names = found.names - _said(overrides)
    gone = knobs.lost(names, release=found.release)
    if not gone:
        return Release(composed=composed)
    if asked not in config.groups(config_dir).get(config.TODAY, ()):
        return Release(composed=composed, remedy=_remedy(gone, asked, config_dir))
    if composed["strict"]:
        remedy = f"Without strict=true, {asked} runs on this release as its counterpart."
        return Release(composed=composed, remedy=remedy)
    again = [f"+{config.TODAY}={asked}" if _names_experiment(text) else text for text in overrides]
    exchanged, _ = compose_for_platform(again, config_dir=config_dir)
    counterpart = _Found.of(exchanged, choice, stated_by) or found
    if knobs.lost(counterpart.names - _said(overrides), release=found.release):
        return Release(composed=composed)
    needed = knobs.first_with(counterpart.names - _said(overrides), release=found.release)
    if needed is not None:
        remedy = f"{asked} has a counterpart without these knobs, for vLLM {needed} or later."
        return Release(composed=composed, remedy=remedy)
    return Release(composed=exchanged, lines=_lines(exchanged, asked, gone, found.release))


@dataclass(frozen=True, kw_only=True)
class _Found:
    """A release of vLLM that is started here, and the knobs that a configuration would give it."""

    release: str
    names: frozenset[str]

    @classmethod
    def of(
        cls, composed: Mapping[str, Any], choice: Choice, stated_by: config.Stated | None
    ) -> _Found | None:
        """Look up the release; None where none is started here, or the configuration cannot be read."""
        try:
            settings = config.settings(composed, platform=choice.platform, release_stated_by=stated_by)
            if not ENGINES[settings.engine.kind].lies_with_vllm:
                return None
            release = found_engine(settings).release
        except ConfigError:
            return None
        given = [*settings.space.base, *settings.space.domains]
        for series in settings.space.series:
            given += series.knobs if ENGINES[series.engine].takes_vllm_flags else ()
        return cls(release=release, names=frozenset(given))


def _experiment(overrides: Sequence[str]) -> str | None:
    """Return the experiment that the command line chooses."""
    chosen = [text.partition("=")[2] for text in overrides if _names_experiment(text)]
    return chosen[-1] if chosen else None


def _names_experiment(override: str) -> bool:
    return override.lstrip("+").startswith("experiment=")


def _said(overrides: Sequence[str]) -> set[str]:
    """Return the knobs that the command line names: the user asks for them, whatever the release."""
    keys = [text.lstrip("+").partition("=")[0].split(".") for text in overrides]
    return {key[-1] for key in keys if len(key) > 1 and key[-2] == "knobs"}


def _lines(composed: Mapping[str, Any], asked: str, gone: Sequence[str], release: str) -> tuple[str, ...]:
    """Describe the exchange: first the release and the counterpart, then what became of each knob."""
    study = composed["study"]
    own = study["experiment"]
    changes = {knob: study["changes"].get(knob, "left out") for knob in gone}
    return (
        f"today: vLLM {release} has no {', '.join(gone)}: {asked} runs as its counterpart"
        + (f" {own}" if own != asked else "")
        + f" (conf/{config.TODAY}/{asked}.yaml); strict=true refuses instead",
        *(f"       {knob}: {became}" for knob, became in changes.items()),
    )


def _remedy(gone: Sequence[str], asked: str, config_dir: Path | None) -> str:
    """Name the counterpart of an experiment of ours that a user's own one rests on."""
    under = () if config_dir is None else config.bases(asked, config_dir)
    known = config.groups(config_dir).get(config.TODAY, ())
    base = next((name for name in under if name in known), None)
    if base is not None:
        return (
            f"{base}, which {asked} is built on, has a counterpart for this release: take "
            f"/{config.TODAY}/{base} into its defaults in place of /experiment/{base}."
        )
    return " ".join(
        f"What {knob} was for is asked on this release by +experiment={_COUNTERPARTS[knob]}."
        for knob in gone
        if knob in _COUNTERPARTS
    )
