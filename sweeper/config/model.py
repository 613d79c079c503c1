"""The model of a configuration, made out of its keys.

Which keys speak of it is settled before (``model_layers``). It is described by ``config``, which holds fields
of its config.json, by ``shape``, or by the config.json of its folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sweeper.config.checks import check_choice
from sweeper.config.description import MADE_HERE, USUAL_DTYPE, described, is_folder, keys_of_shape
from sweeper.errors import ConfigError
from sweeper.models import config_json, tiny
from sweeper.records import Model
from sweeper.records.model import DESCRIBES

_DTYPES = ("bfloat16", "float16", "float32", "fp8")


def places(composed: Mapping[str, Any]) -> list[str]:
    """List where a composed configuration has a model, as dotted keys."""
    series = composed["space"]["series"]
    return ["model", *(f"space.series.{name}.model" for name, item in series.items() if item["model"])]


def at(composed: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return the model at a dotted key of a composed configuration."""
    found: Any = composed
    for key in place.split("."):
        found = found[key]
    return dict(found)


def model(
    given: Mapping[str, Any], *, where: str = "model", needs_shape: bool = False, preset: str | None = None
) -> Model:
    """Make the model of a configuration, of a folder of this machine with what its config.json says.

    Args:
        given: Its keys, settled.
        where: Its dotted key.
        needs_shape: Whether nothing can be said without one, as on the simulated platform.
        preset: The file of conf/model that describes it by its id, if one does.

    Raises:
        ConfigError: A value is missing, not allowed, or not what the folder's config.json says.
    """
    for key in ("name", "path"):
        if not given[key]:
            raise ConfigError(f"{where}.{key}: is empty; expected the model's hub id or folder.")
    if given["dtype"] is not None:
        check_choice(f"{where}.dtype", given["dtype"], _DTYPES)
    made = Model(
        name=given["name"],
        path=given["path"],
        dtype=given["dtype"],
        is_dummy=given["is_dummy"],
        revision=given["revision"],
        shape=None,
    )
    try:
        said = described(given, where=where)
    except ConfigError:
        if needs_shape or not config_json.is_unknown_build(given["config"]):
            raise
        return replace(made, no_shape_because=config_json.why_unknown(given["config"]))
    if said is not None:
        made = _as_described(made, said, where=where)
    made = _with_own_config(made, where=where)
    if preset is not None:
        looked_up = () if needs_shape else DESCRIBES
        made = replace(made, described_by=f"conf/model/{preset}.yaml", looked_up=looked_up)
    if made.shape is not None:
        return replace(made, dtype=made.dtype or USUAL_DTYPE)
    if made.architecture is not None:
        return made
    why = config_json.why_no_shape(made.path)
    if needs_shape:
        raise ConfigError(
            f"{where}.config: is not given for {made.name} ({why}); expected the fields of its config.json, "
            f"from which a simulated number is computed. Set {where}.path to a folder that holds it, give "
            f"{where}.config, or choose a model of conf/model."
        )
    return replace(made, no_shape_because=why)


def _as_described(made: Model, said: Model, *, where: str) -> Model:
    """Take over what ``config`` or ``shape`` says; a dtype that is given beside it is that of the weights."""
    if said.quantization is not None and made.dtype not in (None, said.dtype):
        raise ConfigError(
            f"{where}.dtype: is {made.dtype}, and {where}.config says how the weights are stored "
            f"({said.quantization.method}, and {said.dtype} for the others); expected the one or the other. "
            f"Leave {where}.dtype out."
        )
    return replace(
        made,
        shape=said.shape,
        dtype=made.dtype or said.dtype,
        architecture=said.architecture,
        quantization=said.quantization,
        scaled_by=said.scaled_by,
    )


def _with_own_config(made: Model, *, where: str) -> Model:
    """Take the shape from the folder's config.json, and see that what was given agrees with it."""
    if made.path == MADE_HERE:
        return replace(made, shape=tiny.SHAPE, dtype=made.dtype or USUAL_DTYPE, is_dummy=True)
    if not is_folder(made.path) or not (Path(made.path) / "config.json").exists():
        return made
    made = replace(made, is_dummy=made.is_dummy or tiny.has_random_weights(Path(made.path)))
    try:
        own = config_json.read(Path(made.path))
    except ConfigError as exc:
        if made.shape is None:
            return made
        raise ConfigError(
            f"{where}: is described beside its path, whose own file cannot be read: {exc} Leave that out."
        ) from exc
    differ = list(_differences(made, own))
    if differ:
        raise ConfigError(
            f"{where}: is given {', '.join(differ)}; expected what {made.path}/config.json says. "
            "Leave out what is given, or correct the path."
        )
    return replace(
        made,
        shape=own.shape,
        dtype=own.dtype,
        architecture=own.architecture,
        quantization=own.quantization,
        scaled_by=own.scaled_by,
    )


def _differences(made: Model, own: Model) -> Iterator[str]:
    if made.shape is not None and own.shape is None:
        yield "a shape of a dense decoder where the file has another build"
    elif made.shape is not None:
        for key, value in keys_of_shape(own).items():
            asked = getattr(made.shape, key)
            if asked != value:
                yield f"shape.{key}={asked} where the file has {value}"
    if made.dtype not in (None, own.dtype):
        yield f"dtype={made.dtype} where the file has {own.dtype}"
