"""The model of a configuration: its name, its place, and its description.

``name`` and ``path`` say which model is meant; dtype, revision, ``is_dummy`` and shape describe it. They
travel together: where a file or the command line names another model than the files below it do, nothing of
the former one's description is kept. So no name carries another model's numbers, however Hydra merges keys.
A folder of this machine describes itself by its config.json.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sweeper.config.checks import check_choice, check_count, check_positive
from sweeper.config.layers import Layer
from sweeper.config.schema import ModelConfig, ShapeConfig
from sweeper.errors import ConfigError
from sweeper.models import config_json, tiny
from sweeper.records import Model, ModelShape
from sweeper.records.architecture import MOST_LAYERS

MADE_HERE = "tiny"
"""Path of the model that is made on this machine when it is first needed (``sweeper.models.tiny``)."""

_DTYPES = ("bfloat16", "float16", "float32", "fp8")
_USUAL_DTYPE = "bfloat16"


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


def is_preset(given: Mapping[str, Any], preset: Mapping[str, Any] | None) -> bool:
    """Whether a composed model is word for word what one file says, so that nothing was laid over it."""
    if preset is None:
        return False
    whole = {**asdict(ModelConfig()), **preset}
    shape = {**asdict(ShapeConfig()), **(preset.get("shape") or {})}
    return dict(given) == {**whole, "shape": shape}


def settled(given: Mapping[str, Any], layers: Sequence[Layer], *, place: str) -> dict[str, Any]:
    """Take out of a composed model what was said of another one.

    Args:
        given: The model as Hydra merged it, typed and resolved.
        layers: Of the whole configuration.
        place: Its dotted key.

    Returns:
        Its keys; ``shape`` is None where none was given for this model.

    Raises:
        ConfigError: A name comes without its model, a folder is no copy of the model it is to be, or a shape
            was changed under a name that stays.
    """
    told = _Told()
    for layer in layers:
        said = layer.at(place)
        if said:
            told = _laid_over(told, _resolved(said), place=place, where=layer.where)
    kept = {key: told.read.get(key, given.get(key)) for key in told.values}
    shape = kept.get("shape")
    if shape is not None and "shape" not in told.read:
        shape = {key: shape[key] for key in told.values["shape"]}
    return _as_its_folder_says({**asdict(ModelConfig()), **kept, "shape": shape})


def model(given: Mapping[str, Any], *, where: str = "model", needs_shape: bool = False) -> Model:
    """Make the model of a configuration, of a folder of this machine with what its config.json says.

    Args:
        given: Its keys, settled.
        where: Its dotted key.
        needs_shape: Whether nothing can be said without one, as on the simulated platform.

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
        shape=_shape(given["shape"], where),
    )
    made = _with_own_config(made, where=where)
    if made.shape is not None:
        return replace(made, dtype=made.dtype or _USUAL_DTYPE)
    if made.architecture is not None:
        if needs_shape:
            raise ConfigError(
                f"{where}.path: {made.path} is no dense decoder built as Llama is "
                f"({made.architecture.words}), and what a step of it takes is not "
                "modelled; expected a dense decoder on the simulated platform. Measure it: platform=mi300x, "
                "cuda or cpu."
            )
        return made
    why = config_json.why_no_shape(made.path)
    if needs_shape:
        raise ConfigError(
            f"{where}.shape: is not given for {made.name} ({why}); expected the numbers of its config.json, "
            f"from which a simulated number is computed. Set {where}.path to a folder that holds it, give "
            f"{where}.shape, or choose a model of conf/model."
        )
    return replace(made, no_shape_because=why)


# ---- which of the layers speak of the model that is meant ----


@dataclass(frozen=True, kw_only=True)
class _Told:
    """What the layers so far say of the model that they mean.

    Attributes:
        values: Key to value as written.
        read: Those keys whose value no layer gives: they were read from a folder, or follow from the others.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    read: Mapping[str, Any] = field(default_factory=dict)


def _laid_over(below: _Told, said: Mapping[str, Any], *, place: str, where: str) -> _Told:
    names = {key: said[key] for key in ("name", "path") if said.get(key)}
    if below.values and all(below.values.get(key) == value for key, value in names.items()):
        _refuse_other_shape(below, said, place=place, where=where)
        return _merged(below, said)
    if len(names) == 2 or not names:
        return _Told(values=said)
    if "name" in names:
        return _with(said, path=_path_of(said["name"], place=place, where=where))
    if below.values.get("shape") and _is_folder(said["path"]):
        return _copy(below, said, place=place, where=where)
    return _with(said, name=_name_of(said["path"]))


def _with(said: Mapping[str, Any], **read: Any) -> _Told:
    return _Told(values={**said, **read}, read=read)


def _merged(below: _Told, said: Mapping[str, Any]) -> _Told:
    values = {**below.values, **said}
    if said.get("shape") and below.values.get("shape"):
        values["shape"] = {**below.values["shape"], **said["shape"]}
    # What is said outright is no longer what was read.
    return _Told(values=values, read={key: below.read[key] for key in below.read if key not in said})


def _path_of(name: str, *, place: str, where: str) -> str:
    """Return what is served under a name alone: the name itself, where it can be an address."""
    if "/" in name or _is_folder(name):
        return name
    raise ConfigError(
        f"{where}: {place}.name is '{name}', and {place}.path is not given with it; expected both, or a name "
        f"that is a hub id or a folder, since a name alone would go to the model that was there before. Set "
        f"{place}.path to what is served under this name."
    )


def _name_of(path: str) -> str:
    """Return what a path alone is called: a hub id by itself, a folder by its own name."""
    is_local = path.startswith(("/", ".", "~")) or _is_folder(path)
    return (Path(path).name or path) if is_local else path


def _copy(below: _Told, said: Mapping[str, Any], *, place: str, where: str) -> _Told:
    """Keep the name for a folder that says of itself what is known of the model of that name."""
    name, path = below.values["name"], said["path"]
    remedy = f"Give the model a name of its own: {place}.name=NAME."
    try:
        found = config_json.read(Path(path))
    except ConfigError as exc:
        raise ConfigError(
            f"{where}: {place}.path: cannot be seen to be a copy of {name}: {exc} {remedy}"
        ) from exc
    if found.shape is None:
        built = "" if found.architecture is None else f" ({found.architecture.words})"
        raise ConfigError(
            f"{where}: {place}.path: {path}/config.json describes another build than {name}{built}; expected "
            f"a copy of {name}, since its name is kept. {remedy}"
        )
    known = {
        **asdict(ShapeConfig()),
        **below.values["shape"],
        "dtype": below.values.get("dtype") or _USUAL_DTYPE,
    }
    own = {**_shape_of(found), "dtype": found.dtype}
    differ = [f"{key} {own[key]} where {name} has {known[key]}" for key in own if own[key] != known[key]]
    if differ:
        raise ConfigError(
            f"{where}: {place}.path: {path}/config.json says {', '.join(differ)}; expected a copy of {name}, "
            f"since its name is kept. {remedy}"
        )
    return _with(said, name=name, dtype=found.dtype, shape=_shape_of(found))


def _refuse_other_shape(below: _Told, said: Mapping[str, Any], *, place: str, where: str) -> None:
    known, asked = below.values.get("shape") or {}, said.get("shape") or {}
    changed = [f"{key}={value}" for key, value in asked.items() if known.get(key, value) != value]
    if changed:
        key = changed[0].partition("=")[0]
        raise ConfigError(
            f"{where}: {place}.shape: is given {', '.join(changed)}, and {place}.name is still "
            f"{below.values.get('name')}, which has {key}={known[key]}; expected a name of its own for "
            f"another model. Set {place}.name and {place}.path beside its whole shape."
        )


def _resolved(said: Mapping[str, Any]) -> dict[str, Any]:
    """Resolve what is written as an interpolation, so that it can be compared."""
    return {key: _value(value) if isinstance(value, str) else value for key, value in said.items()}


def _value(text: str) -> str:
    if "${" not in text:
        return text
    try:
        return str(OmegaConf.create({"value": text})["value"])
    except OmegaConfBaseException:
        # It names another key: as written it differs from every other name, and nothing is taken over.
        return text


# ---- what a folder says of itself ----


def _as_its_folder_says(given: dict[str, Any]) -> dict[str, Any]:
    """Fill in what was not given, so that the configuration that is stored has it."""
    if given["shape"] is not None or not _is_folder(given["path"]):
        return given
    try:
        own = config_json.read(Path(given["path"]))
    except ConfigError:
        return given
    return {**given, "shape": _shape_of(own) or None, "dtype": given["dtype"] or own.dtype}


def _is_folder(path: object) -> bool:
    return isinstance(path, str) and path != MADE_HERE and Path(path).is_dir()


def _with_own_config(made: Model, *, where: str) -> Model:
    """Take the shape from the folder's config.json, and see that what was given agrees with it."""
    if made.path == MADE_HERE:
        return replace(made, shape=tiny.SHAPE, dtype=made.dtype or _USUAL_DTYPE, is_dummy=True)
    if not _is_folder(made.path) or not (Path(made.path) / "config.json").exists():
        return made
    made = replace(made, is_dummy=made.is_dummy or tiny.has_random_weights(Path(made.path)))
    try:
        own = config_json.read(Path(made.path))
    except ConfigError as exc:
        if made.shape is None:
            return made
        raise ConfigError(f"{where}.shape: is given, and cannot describe it: {exc} Leave it out.") from exc
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
    )


def _differences(made: Model, own: Model) -> Iterator[str]:
    if made.shape is not None and own.shape is None:
        yield "a shape of a dense decoder where the file has another build"
    elif made.shape is not None:
        for key, value in _shape_of(own).items():
            asked = getattr(made.shape, key)
            if asked != value:
                yield f"shape.{key}={asked} where the file has {value}"
    if made.dtype not in (None, own.dtype):
        yield f"dtype={made.dtype} where the file has {own.dtype}"


def _shape_of(found: Model) -> dict[str, Any]:
    return {} if found.shape is None else asdict(found.shape)


def _shape(given: Mapping[str, Any] | None, where: str) -> ModelShape | None:
    if given is None:
        return None
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
