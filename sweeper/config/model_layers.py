"""Which layers of a configuration speak of the model that is meant, and what they say of it.

``name`` and ``path`` say which model is meant; dtype, revision, ``is_dummy``, ``config`` and shape describe
it. They travel together: where a file or the command line names another model than the files below it do,
nothing of the former one's description is kept. So no name carries another model's numbers, however Hydra
merges keys. An ``is_dummy`` in a file that names no model describes none: it holds for whichever follows. A
folder of this machine describes itself by its config.json, and an id of the hub that a file of conf/model
has is described by that file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sweeper.config import description, presets
from sweeper.config.description import is_folder, keys_of_shape
from sweeper.config.layers import Layer
from sweeper.config.schema import ModelConfig, ShapeConfig
from sweeper.errors import ConfigError
from sweeper.models import config_json
from sweeper.records import Model

_NAMES = ("name", "path")
_IS_DUMMY = "is_dummy"


@dataclass(frozen=True, kw_only=True)
class Settled:
    """A model as a configuration means it.

    Attributes:
        values: Its keys; ``config`` and ``shape`` are None where they were not given for this model.
        preset: The file of conf/model that describes it by its id, where nothing else does.
    """

    values: Mapping[str, Any]
    preset: str | None = None


def is_preset(given: Mapping[str, Any], preset: Mapping[str, Any] | None) -> bool:
    """Whether a composed model is word for word what one file says, so that nothing was laid over it."""
    if preset is None:
        return False
    shape = {**asdict(ShapeConfig()), **(preset.get("shape") or {})}
    return dict(given) == {**asdict(ModelConfig()), **preset, "shape": shape}


def as_preset(given: Mapping[str, Any], *, place: str, folders: Sequence[Path] = ()) -> dict[str, Any]:
    """Return the keys of a model that is word for word a file of conf/model.

    Raises:
        ConfigError: It is a user's own file, and has the name of another model.
    """
    has_shape = bool(given["shape"] and given["shape"]["layers"])
    whole = _with_dtype({**given, "shape": given["shape"] if has_shape else None})
    _refuse_borrowed_name(whole, folders, place=place)
    return whole


def settled(
    given: Mapping[str, Any], layers: Sequence[Layer], *, place: str, folders: Sequence[Path] = ()
) -> Settled:
    """Take out of a composed model what was said of another one.

    Args:
        given: The model as Hydra merged it, typed and resolved.
        layers: Of the whole configuration.
        place: Its dotted key.
        folders: Those of conf/, whose models are known by their ids, the shipped one first.

    Raises:
        ConfigError: A name comes without its model, or what describes a model was changed under a name that
            stays, or is not what conf/model says of the model of that name.
    """
    told, is_dummy = _Told(), None
    for layer in layers:
        said = layer.at(place)
        if said:
            told = _laid_over(told, _resolved(said), place=place, where=layer.where)
        if _IS_DUMMY in said and not any(said.get(key) for key in _NAMES):
            is_dummy = said[_IS_DUMMY]
    kept = {key: told.read.get(key, given.get(key)) for key in told.values}
    if is_dummy is not None and _IS_DUMMY not in told.values:
        # Asked of whatever model is served, as an experiment does that measures speed alone.
        kept[_IS_DUMMY] = is_dummy
    for key in ("shape", "config"):
        # Hydra merged the former model's into it.
        if kept.get(key) is not None and key not in told.read:
            kept[key] = _only(given[key], told.values[key])
    whole = _whole(kept)
    _refuse_choice(whole["path"], folders, place=place)
    preset = _preset_of(whole, folders)
    if preset is not None:
        whole = {**whole, **preset.description, "is_dummy": whole["is_dummy"]}
    whole = _with_dtype(_as_its_folder_says(whole))
    _refuse_borrowed_name(whole, folders, place=place)
    return Settled(values=whole, preset=None if preset is None else preset.choice)


def _only(merged: Any, told: Any) -> Any:
    """Return of a merged value what was told of it."""
    if not isinstance(told, Mapping) or not isinstance(merged, Mapping):
        return merged
    return {key: _only(merged[key], value) for key, value in told.items() if key in merged}


# ---- layer by layer ----


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
    names = {key: said[key] for key in _NAMES if said.get(key)}
    if below.values and all(below.values.get(key) == value for key, value in names.items()):
        _refuse_other_description(below, said, place=place, where=where)
        return _merged(below, said)
    if len(names) == 2 or not names:
        return _Told(values=said)
    if "name" in names:
        return _with(said, path=_path_of(said["name"], place=place, where=where))
    if is_folder(said["path"]):
        return _folder(below, said)
    return _with(said, name=_name_of(said["path"]))


def _with(said: Mapping[str, Any], **read: Any) -> _Told:
    return _Told(values={**said, **read}, read=read)


def _merged(below: _Told, said: Mapping[str, Any]) -> _Told:
    values = {**below.values, **said}
    for key in ("shape", "config"):
        if said.get(key) and below.values.get(key):
            values[key] = {**below.values[key], **said[key]}
    # What is said outright is no longer what was read.
    return _Told(values=values, read={key: below.read[key] for key in below.read if key not in said})


def _path_of(name: str, *, place: str, where: str) -> str:
    """Return what is served under a name alone: the name itself, where it can be an address."""
    if "/" in name or is_folder(name):
        return name
    raise ConfigError(
        f"{where}: {place}.name is '{name}', and {place}.path is not given with it; expected both, or a name "
        f"that is a hub id or a folder, since a name alone would go to the model that was there before. Set "
        f"{place}.path to what is served under this name; a file of conf/model is chosen by model=NAME."
    )


def _name_of(path: str) -> str:
    """Return what a path alone is called: a hub id by itself, a folder by its own name."""
    is_local = path.startswith(("/", ".", "~")) or is_folder(path)
    return (Path(path).resolve().name or path) if is_local else path


def _folder(below: _Told, said: Mapping[str, Any]) -> _Told:
    """Keep the name for a folder that says of itself all that is known of the model of that name."""
    own_name = {"name": _name_of(said["path"])}
    try:
        known = description.described(_whole(below.values), where="model")
        found = config_json.read(Path(said["path"]))
    except ConfigError:
        return _with(said, **own_name)
    if known is None or _substance(found) != _substance(known):
        return _with(said, **own_name)
    described = {"dtype": found.dtype, "shape": keys_of_shape(found)} if found.shape is not None else {}
    return _with(said, name=below.values["name"], **described)


def _whole(values: Mapping[str, Any]) -> dict[str, Any]:
    return {**asdict(ModelConfig()), "shape": None, **values}


def _substance(model: Model) -> tuple[object, ...]:
    """Return what makes two models the same in all that is worked out of them."""
    return model.shape, model.architecture, model.quantization, model.dtype


def _refuse_other_description(below: _Told, said: Mapping[str, Any], *, place: str, where: str) -> None:
    for key in ("shape", "config"):
        asked = said.get(key) or {}
        known = (below.values.get(key) or _shape_told(below)) if asked else {}
        for name, was, now in _changes(known, asked) if known else ():
            raise ConfigError(
                f"{where}: {place}.{key}: is given {name}={now}, and {place}.name is still "
                f"{below.values.get('name')}, which has {name}={was}; expected a name of its own for "
                f"another model. Set {place}.name and {place}.path beside its whole {key}."
            )


def _shape_told(below: _Told) -> Mapping[str, Any]:
    """Return the shape that follows from what was told, empty where none does."""
    try:
        known = description.described(_whole(below.values), where="model")
    except ConfigError:
        return {}
    return {} if known is None else keys_of_shape(known)


def _changes(
    known: Mapping[str, Any], asked: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Yield each key that is asked for otherwise than it is known, a missing one as null."""
    defaults = {"tied_embeddings": False}
    for name, value in asked.items():
        was = known.get(name, defaults.get(name))
        if isinstance(value, Mapping) and isinstance(was, Mapping):
            yield from _changes(was, value, f"{prefix}{name}.")
        elif was != value:
            yield f"{prefix}{name}", "null" if was is None else was, value


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


# ---- what a folder says of itself, and conf/model of an id ----


def _as_its_folder_says(given: dict[str, Any]) -> dict[str, Any]:
    """Fill in what was not given, so that the configuration that is stored has it."""
    if given["shape"] is not None or given["config"] is not None or not is_folder(given["path"]):
        return given
    try:
        own = config_json.read(Path(given["path"]))
    except ConfigError:
        return given
    return {**given, "shape": keys_of_shape(own) or None, "dtype": given["dtype"] or own.dtype}


def _with_dtype(given: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in the type of the weights that ``config`` says."""
    if given["config"] is None or given["dtype"] is not None:
        return dict(given)
    try:
        found = description.described(given, where="model")
    except ConfigError:
        return dict(given)  # it is refused with the key's own name where the model is made
    return {**given, "dtype": None if found is None else found.dtype}


def _refuse_choice(path: str, folders: Sequence[Path], *, place: str) -> None:
    """Refuse as a path what is the name of a file of conf/model."""
    is_choice = any((folder / "model" / f"{path}.yaml").is_file() for folder in folders)
    if is_choice and "/" not in path and not is_folder(path):
        raise ConfigError(
            f"{place}.path: is {path}, which is a file of conf/model; expected an id of the hub or a folder. "
            f"Choose the file by model={path}."
        )


def _preset_of(given: Mapping[str, Any], folders: Sequence[Path]) -> presets.Preset | None:
    """Return the file of conf/model that describes an id of which nothing else is said.

    Another revision may be another build, and another dtype is another checkpoint.
    """
    said = (given[key] for key in ("config", "shape", "dtype", "revision"))
    if any(value is not None for value in said) or not given["path"] or is_folder(given["path"]):
        return None
    found = presets.of_id(given["path"], folders)
    return next((preset for preset in found if preset.content.get("path") == given["path"]), None)


def _preset_model(preset: presets.Preset) -> Model | None:
    try:
        return description.described(_whole(preset.content), where=f"model/{preset.choice}.yaml")
    except ConfigError:
        return None


def _refuse_borrowed_name(given: Mapping[str, Any], folders: Sequence[Path], *, place: str) -> None:
    try:
        own = description.of_whatever(given, where=place)
    except ConfigError:
        return  # it is refused with its reason where the model is made, or nothing is worked out of it
    if own is not None:
        refuse_borrowed_name(own, folders[:1], name=str(given["name"]), place=place)


def refuse_borrowed_name(own: Model, folders: Sequence[Path], *, name: str, place: str = "model") -> None:
    """Refuse the name that conf/model has for a model of another build.

    Args:
        own: What is known of the model.
        folders: Those of conf/.
        name: What it is to be served as.
        place: Its dotted key.

    Raises:
        ConfigError: It is the name of another model.
    """
    known = [(preset.choice, _preset_model(preset)) for preset in presets.of_id(name, folders)]
    others = [choice for choice, model in known if model is not None and _decoder(model) != _decoder(own)]
    if not others or len(others) < len(known):
        return
    raise ConfigError(
        f"{place}.name: is {name}, and what is served is another model than conf/model/{others[0]}.yaml, "
        f"which has that name; expected a name of its own, so that no number is taken for that model's. Set "
        f"{place}.name."
    )


def _decoder(model: Model) -> tuple[object, ...] | None:
    """Return what a model is built of, whatever type its weights have."""
    built = model.built
    return None if built is None else (built.hidden, built.vocab, built.is_tied, built.layers)
