"""Where each value of a configuration was said: a layer for each file that takes part, the command line last.

Hydra merges files key by key, and afterwards nothing shows which file a value came from. For most keys that
is as it should be. Where some keys describe what others name, it is not (``config.model``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import OmegaConf

from sweeper.errors import ConfigError

COMMAND_LINE = "command line"
_NOT_FILES = ("schema", "hydra/")


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What one file says, or the command line.

    Attributes:
        where: ``experiment/own_model.yaml``, or the words ``command line``.
        content: Its keys, nested from the root of the configuration, interpolations as written.
    """

    where: str
    content: Mapping[str, Any]

    def at(self, place: str) -> Mapping[str, Any]:
        """Return what it says below a dotted key; empty where it says nothing there."""
        found: Any = self.content
        for key in place.split("."):
            found = found.get(key) if isinstance(found, Mapping) else None
        return found if isinstance(found, Mapping) else {}


def layers(overrides: Sequence[str | Override], folders: Sequence[Path]) -> list[Layer]:
    """List the layers of a configuration in the order in which Hydra merges them; Hydra is initialised.

    Args:
        overrides: As they are given to Hydra, and those that are merged after it, parsed.
        folders: Where Hydra found its files, the first ones first.
    """
    loader = GlobalHydra.instance().config_loader()
    of_hydra = [text for text in overrides if isinstance(text, str)]
    found = loader.compute_defaults_list("config", of_hydra, RunMode.RUN)
    files = [
        Layer(
            where=f"{default.config_path}.yaml",
            content=_below(default.package, _content(str(default.config_path), folders)),
        )
        for default in found.defaults
        if not str(default.config_path).startswith(_NOT_FILES)
    ]
    said = OmegaConf.create({})
    later = [override for override in overrides if not isinstance(override, str)]
    for override in [*found.config_overrides, *later]:
        if not override.is_delete():
            OmegaConf.update(said, override.key_or_group, override.value(), merge=True)
    return [*files, Layer(where=COMMAND_LINE, content=_plain(said))]


def choice_content(choice: str, folders: Sequence[Path]) -> Mapping[str, Any] | None:
    """Return the keys of one file of a group, such as ``model/qwen3_8b``; None where it takes others in."""
    content = _content(choice, folders, with_defaults=True)
    return None if "defaults" in content else content


def _content(path: str, folders: Sequence[Path], *, with_defaults: bool = False) -> dict[str, Any]:
    """Return what the file of this name holds, in the first folder that has it, as Hydra takes it."""
    for folder in folders:
        file = folder / (path if path.endswith((".yaml", ".yml")) else f"{path}.yaml")
        if file.is_file():
            content = _plain(OmegaConf.load(file))
            return {key: value for key, value in content.items() if with_defaults or key != "defaults"}
    raise ConfigError(f"{path}.yaml: was read and is not there any more. Start again.")


def _below(package: str | None, content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Nest the keys of a file below its package."""
    for key in reversed([name for name in (package or "").split(".") if name]):
        content = {key: content}
    return content


def _plain(config: Any) -> dict[str, Any]:
    found = OmegaConf.to_container(config, resolve=False)
    if not isinstance(found, dict):
        raise ConfigError("configuration: a file holds a list; expected keys and values. Correct it.")
    return {str(key): value for key, value in found.items()}
