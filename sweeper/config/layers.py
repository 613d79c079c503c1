"""Where each value of a configuration was said: a layer for each file that takes part, the command line last.

Hydra merges files key by key, and afterwards nothing shows which file a value came from. For most keys that
is as it should be. Where some keys describe what others name, it is not (``config.model``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, cached_property
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


class Layers:
    """The layers of one configuration, read when they are first asked for, while Hydra is initialised."""

    def __init__(self, overrides: Sequence[str], folders: Sequence[Path]) -> None:
        """Read nothing yet.

        Args:
            overrides: As they are given to Hydra.
            folders: Where Hydra found its files, the first ones first.
        """
        self._overrides = list(overrides)
        self._folders = folders

    def listed(self, later: Sequence[Override] = ()) -> list[Layer]:
        """List the layers in the order in which Hydra merges them.

        Args:
            later: What the command line says and is merged after Hydra's work.
        """
        said = OmegaConf.create({})
        for override in [*self._defaults.config_overrides, *later]:
            if not override.is_delete():
                OmegaConf.update(said, override.key_or_group, override.value(), merge=True)
        return [*self._files, Layer(where=COMMAND_LINE, content=_plain(said))]

    @cached_property
    def _defaults(self) -> Any:
        """What Hydra takes in: ``defaults``, a file each, and ``config_overrides`` of the command line."""
        loader = GlobalHydra.instance().config_loader()
        return loader.compute_defaults_list("config", self._overrides, RunMode.RUN)

    @cached_property
    def _files(self) -> list[Layer]:
        return [
            Layer(
                where=f"{default.config_path}.yaml",
                content=_below(default.package, _content(str(default.config_path), self._folders)),
            )
            for default in self._defaults.defaults
            if not str(default.config_path).startswith(_NOT_FILES)
        ]


def choice_content(choice: str, folders: Sequence[Path]) -> Mapping[str, Any] | None:
    """Return the keys of one file of a group, such as ``model/qwen3_8b``; None where it takes others in."""
    content = _content(choice, folders, with_defaults=True)
    return None if "defaults" in content else content


def _content(path: str, folders: Sequence[Path], *, with_defaults: bool = False) -> dict[str, Any]:
    """Return what the file of this name holds, in the first folder that has it, as Hydra takes it."""
    for folder in folders:
        file = folder / (path if path.endswith((".yaml", ".yml")) else f"{path}.yaml")
        if file.is_file():
            content = _loaded(file, file.stat().st_mtime_ns)
            return {
                key: deepcopy(value) for key, value in content.items() if with_defaults or key != "defaults"
            }
    raise ConfigError(f"{path}.yaml: was read and is not there any more. Start again.")


@cache
def _loaded(file: Path, changed_ns: int) -> Mapping[str, Any]:
    """Return what a file holds that was last changed then: one process reads the same files many times."""
    return _plain(OmegaConf.load(file))


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
