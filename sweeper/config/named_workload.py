"""What ``workload=NAME`` means beside an experiment that says something of its load itself.

Hydra lays an experiment over the files of the groups, so that the lengths of an experiment would replace
those of a workload that the user chose by name. Here that workload is served as its file says. What an
experiment asks of whatever load it is given stays: a second run, bounds of goodput, a search for a rate. The
rates and users that an objective names stay as well, since it could not be judged without them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from omegaconf import OmegaConf

from sweeper.config.layers import COMMAND_LINE, Layer
from sweeper.config.schema import WorkloadConfig

GROUP = "workload"
_EXPERIMENTS = ("experiment/", "setting/", "today/")
_LOADS = ("request_rate_per_s", "max_concurrency")
_OF_THE_QUESTION = ("second_run", "goodput", "max_rate", "max_users", "prompts_per_user", "warmup_per_user")
_OF_HOW_IT_ARRIVES = (*_LOADS, "burstiness", "ramp_up", "warmup_prompts", "client_seed")
_OF_WHAT_IS_SENT = frozenset(item.name for item in fields(WorkloadConfig)) - {
    *_OF_THE_QUESTION,
    *_OF_HOW_IT_ARRIVES,
}


@dataclass(frozen=True, kw_only=True)
class Replaced:
    """What a workload that was chosen by name takes the place of.

    Attributes:
        values: Keys of the workload, with what they are instead.
        words: The same in one sentence; empty where nothing is replaced.
    """

    values: Mapping[str, Any]
    words: str = ""


def replaced(
    name: str, layers: Sequence[Layer], *, objectives: Mapping[str, Any], yields: Iterable[str] = ()
) -> Replaced:
    """Work out what an experiment says of its load and has to yield to a workload chosen by name.

    Args:
        name: Of the workload, as the user gave it.
        layers: Of the whole configuration.
        objectives: Entries of ``objective``, as composed.
        yields: Overlays that nobody asked for, which yield like the experiment.
    """
    chosen = next((layer for layer in layers if layer.where == f"{GROUP}/{name}.yaml"), None)
    if chosen is None:
        return Replaced(values={})
    yielding = (*_EXPERIMENTS, *(f"overlay/{overlay}.yaml" for overlay in yields))
    own = [layer for layer in layers if layer.where.startswith(yielding) and layer.at(GROUP)]
    over = [
        layer
        for layer in layers
        if layer.where == COMMAND_LINE or (layer.where.startswith("overlay/") and layer not in own)
    ]
    kept = _LOADS if any(_names_load(entry) for entry in objectives.values()) else ()
    said = {key: layer.where for layer in own for key in layer.at(GROUP)}
    contested = {
        key: where
        for key, where in said.items()
        if key not in kept and (key in chosen.at(GROUP) or key in _OF_WHAT_IS_SENT)
    }
    merged = OmegaConf.structured(WorkloadConfig)
    merged.merge_with(*(dict(layer.at(GROUP)) for layer in (chosen, *over)))
    return Replaced(
        values={key: merged[key] for key in contested},
        words=_words(name, contested, [key for key in kept if key in said]),
    )


def _names_load(entry: Any) -> bool:
    return isinstance(entry, Mapping) and any(entry.get(key) is not None for key in _LOADS)


def _words(name: str, contested: Mapping[str, str], kept: Sequence[str]) -> str:
    parts = []
    if contested:
        parts.append(f"in place of {', '.join(contested)} of {' and '.join(sorted(set(contested.values())))}")
    if kept:
        parts.append(f"with the experiment's {' and '.join(kept)}, which the objective names")
    return f"workload={name}: {', '.join(parts)}" if parts else ""
