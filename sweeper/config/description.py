"""What a configuration says of a model's build: ``config``, ``shape``, or the config.json of its folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sweeper.config.checks import check_count, check_positive
from sweeper.config.schema import ShapeConfig
from sweeper.errors import ConfigError
from sweeper.models import config_json
from sweeper.records import Model, ModelShape
from sweeper.records.architecture import MOST_LAYERS

MADE_HERE = "tiny"
"""Path of the model that is made on this machine when it is first needed (``sweeper.models.tiny``)."""

USUAL_DTYPE = "bfloat16"


def described(given: Mapping[str, Any], *, where: str) -> Model | None:
    """Return the model that ``config`` or ``shape`` describes; None where neither is given.

    Args:
        given: The keys of a model.
        where: Its dotted key, or its file.

    Raises:
        ConfigError: Both are given, or one is incomplete, or of a build that is not known.
    """
    config, shape = given["config"], given["shape"]
    if config and shape:
        raise ConfigError(
            f"{where}: has both config and shape; expected one of them. Leave shape out: config says it all."
        )
    if config:
        key = f"{where}.config"
        return config_json.describe(config, where=key, name=given["name"], path=given["path"])
    if shape is None:
        return None
    return Model(
        name=given["name"],
        path=given["path"],
        dtype=given["dtype"] or USUAL_DTYPE,
        shape=_shape(shape, where),
    )


def of_whatever(given: Mapping[str, Any], *, where: str) -> Model | None:
    """Return the same, or what the config.json of its folder says; None where nothing does."""
    found = described(given, where=where)
    if found is not None or not is_folder(given["path"]):
        return found
    return config_json.read(Path(given["path"]))


def is_folder(path: object) -> bool:
    """Whether a model's path is a folder of this machine."""
    return isinstance(path, str) and path != MADE_HERE and Path(path).is_dir()


def keys_of_shape(found: Model) -> dict[str, Any]:
    """Return the keys of ``shape``; empty for a model of another build."""
    return {} if found.shape is None else asdict(found.shape)


def _shape(given: Mapping[str, Any], where: str) -> ModelShape:
    whole = {**asdict(ShapeConfig()), **given}
    missing = [key for key, value in whole.items() if key not in given and not isinstance(value, bool)]
    if missing:
        raise ConfigError(
            f"{where}.shape: lacks {', '.join(missing)}; expected every number of the model's config.json. "
            "Add them."
        )
    for name, value in whole.items():
        if not isinstance(value, bool):
            check_positive(f"{where}.shape.{name}", value)
    check_count(f"{where}.shape.layers", whole["layers"], most=MOST_LAYERS)
    return ModelShape(**whole)
