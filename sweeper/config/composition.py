"""From files and the command line to checked plain data, by Hydra's compose interface.

Composition is Hydra's; what it is given and what it answers is looked at here, so that every mistake of
a user ends in one sentence that names file, key, value and remedy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError, safe_load

from sweeper import knobs
from sweeper.config import model, model_layers, named_workload, own_files
from sweeper.config.layers import Layer, Layers, choice_content
from sweeper.config.schema import RootConfig, key_types
from sweeper.config.unused import flat
from sweeper.config.yaml_aliases import check_aliases
from sweeper.errors import ConfigError, nearest, nearest_name

_TYPES = dict(key_types())
_KEYS = tuple(_TYPES)
# Each is a folder of conf/ whose file lands at the key of its name.
TODAY = "today"
"""The group of what experiments become on a release that lacks their knobs."""
_EXPERIMENTS = "/experiment/"
_GROUPS = ("platform", "engine", "model", "workload", "client", "search", "objective", "executor")
# Below these, names are the user's own; whether a knob exists is asked of the engine's release.
_FREE_KEYS = (
    *("knobs.", "space.knobs.", "space.series.", "objective.", "calibration."),
    *("workload.goodput.", "workload.max_rate.", "workload.max_users.", "workload.options."),
    *("workload.ramp_up.", "workload.sampling.", "workload.extra_body.", "client.arguments."),
    "model.config.",
)
# Entries with keys of their own, which Hydra cannot add to: they are merged behind it.
_ENTRIES = tuple(
    f"{sign}{key}."
    for sign in ("", "+", "++")
    for key in ("objective", "space.series", "workload.max_rate", "workload.max_users", "workload.ramp_up")
)
# A whole one in place of none is merged so, too: OmegaConf 2.3 breaks off at it without a sentence.
_WHOLE = tuple(f"{entry.removesuffix('.')}={{" for entry in _ENTRIES if "workload." in entry)


def conf_folder() -> Path:
    """Find the shipped configuration: inside the installed package, or next to it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def groups(config_dir: Path | None = None) -> dict[str, tuple[str, ...]]:
    """List the configuration groups and the names in each, the user's own folder included."""
    found: dict[str, set[str]] = {}
    for root in filter(None, (conf_folder(), config_dir)):
        for path in sorted(root.glob("*/*.yaml")):
            found.setdefault(path.parent.name, set()).add(path.stem)
    return {group: tuple(sorted(names)) for group, names in found.items()}


def about(experiment: str, config_dir: Path | None = None) -> str:
    """Return what an experiment's file says of itself in its first lines."""
    roots = (root for root in (conf_folder(), config_dir) if root is not None)
    paths = (root / "experiment" / f"{experiment}.yaml" for root in roots)
    return next((own_files.head_of(path) for path in paths if path.is_file()), "")


def bases(experiment: str, config_dir: Path) -> tuple[str, ...]:
    """Return the experiments that one of the user's own is built on: those in its defaults list."""
    path = config_dir / "experiment" / f"{experiment}.yaml"
    try:
        content = safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, YAMLError):
        return ()
    listed = content.get("defaults") if isinstance(content, dict) else None
    texts = map(str, listed) if isinstance(listed, list) else ()
    return tuple(text.removeprefix(_EXPERIMENTS) for text in texts if text.startswith(_EXPERIMENTS))


class _Refused(Exception):
    """Hydra, OmegaConf or YAML would not have it."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Composed(dict[str, Any]):
    """A composed configuration as plain data.

    Attributes:
        presets: What the shipped files of the chosen groups say, by dotted path: the user did not ask for it.
        typed: Dotted keys that the command line gives a value.
        described: The file of conf/model that describes a model by its id alone, by the model's dotted key.
        replaced: What ``workload=NAME`` took the place of, in a sentence; empty where nothing.
    """

    presets: Mapping[str, Any] = MappingProxyType({})
    typed: frozenset[str] = frozenset()
    described: Mapping[str, str] = MappingProxyType({})
    replaced: str = ""


def compose_run(
    overrides: Sequence[str], *, config_dir: Path | None = None, overlay: str | None = None
) -> Composed:
    """Compose the configuration of one run as plain data, not yet checked beyond types and names.

    Args:
        overrides: Hydra's override syntax, as on the command line.
        config_dir: A folder of the user's own groups, searched besides the shipped ones.
        overlay: One that the platform lays over the experiment, and that the user did not ask for.

    Raises:
        ConfigError: A name, key, type or file is wrong.
    """
    if config_dir is not None:
        own_files.check_folder(config_dir)
    checked, entries, known = list[str](), list[Override](), groups(config_dir)
    for text in map(_quoted, overrides):
        word = _checked_override(text, known, config_dir)
        if text.startswith((*_ENTRIES, *_WHOLE)):
            entries.append(OverridesParser.create().parse_override(word))
        else:
            checked.append(word)
    if config_dir is not None:
        check_aliases(config_dir)
        # Quoted: a path may hold blanks, commas and letters that Hydra's grammar has no place for.
        quoted = f"file://{config_dir.resolve()}".replace("\\", "\\\\").replace('"', '\\"')
        checked.append(f'hydra.searchpath=["{quoted}"]')
    try:
        return _compose(checked, entries, overlay=overlay)
    except _Refused as exc:
        if config_dir is not None:
            own_files.check_all(config_dir)
        raise ConfigError(_explain(exc.cause)) from exc.cause
    except (OSError, ValueError, RecursionError) as exc:
        # A ValueError: text that is no UTF-8, or a number of more digits than Python reads.
        if config_dir is not None:
            own_files.check_all(config_dir)
        raise ConfigError(
            f"{_unreadable_file(config_dir)}: cannot be read as configuration: {exc}. Correct the file."
        ) from exc


def _unreadable_file(config_dir: Path | None) -> str:
    """Name the file that Hydra stumbled over without saying so: one that holds no mapping in UTF-8."""
    for path in sorted(config_dir.rglob("*.yaml")) if config_dir is not None else ():
        try:
            content = safe_load(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError, YAMLError):
            return str(path)
        if not isinstance(content, dict):
            return str(path)
    return "a configuration file"


def _compose(
    overrides: Sequence[str], entries: Sequence[Override] = (), *, overlay: str | None = None
) -> Composed:
    if overlay is not None:
        overrides = [*overrides, f"+overlay={overlay}"]
    _register_schema()
    try:
        # Hydra keeps one global state; a run that failed half-way must not stop the next one.
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(conf_folder()), version_base="1.3", job_name="sweeper"):
            composed = compose("config", overrides=list(overrides), return_hydra_config=True)
            runtime = composed.hydra.runtime
            choices = {str(key): str(name) for key, name in runtime.choices.items()}
            folders = [Path(source.path) for source in runtime.config_sources if source.schema == "file"]
            OmegaConf.set_struct(composed, False)
            del composed["hydra"]
            layers = Layers(overrides, folders)
            replaced = _replace_load(composed, overrides, layers, overlay)
            plain = _merged(composed, entries)
            found = _with_own_models(plain, layers, entries, choices, folders)
    except (HydraException, OmegaConfBaseException, YAMLError) as exc:
        raise _Refused(exc) from exc
    found.presets = dict(_presets(tuple((group, choices.get(group)) for group in _GROUPS)))
    found.replaced = replaced
    found.typed = frozenset(text.partition("=")[0].lstrip("+") for text in overrides)
    return found


def _replace_load(composed: Any, overrides: Sequence[str], layers: Layers, overlay: str | None) -> str:
    """Let a workload that was chosen by name be what its file says; return in words what it replaced."""
    names = [text.partition("=")[2] for text in overrides if text.startswith(f"{named_workload.GROUP}=")]
    if not names:
        return ""
    objectives: Any = OmegaConf.to_container(composed.objective, resolve=False)
    found = named_workload.replaced(
        names[-1],
        layers.listed(),
        objectives=objectives,
        yields=() if overlay is None else (overlay,),
    )
    for key, value in found.values.items():
        composed.workload[key] = value
    return found.words


def _merged(composed: Any, entries: Sequence[Override]) -> dict[str, Any]:
    # '+engine.gpuz=3' slips into a structured config without a word; merging once more refuses it.
    merged = OmegaConf.merge(
        _schema(),
        OmegaConf.create(OmegaConf.to_container(composed, resolve=False)),
        *(OmegaConf.create(_nested(entry)) for entry in entries),
    )
    plain = OmegaConf.to_container(merged, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


@cache
def _schema() -> DictConfig:
    """Return the typed configuration before anything is laid over it; merging copies it."""
    schema: DictConfig = OmegaConf.structured(RootConfig)
    return schema


@cache
def _register_schema() -> None:
    """Let Hydra find the typed configuration, which conf/config.yaml begins with."""
    ConfigStore.instance().store(name="schema", node=RootConfig)


@cache
def _presets(choices: tuple[tuple[str, str | None], ...]) -> Mapping[str, Any]:
    """Read what the chosen files of the groups bring along; an experiment's own keys count as asked for."""
    files = ((group, conf_folder() / group / f"{choice}.yaml") for group, choice in choices)
    said = {group: safe_load(path.read_text(encoding="utf-8")) for group, path in files if path.is_file()}
    typed = OmegaConf.to_container(OmegaConf.merge(_schema(), said))
    assert isinstance(typed, dict)
    return flat({str(key): value for key, value in typed.items()})


def _nested(entry: Override) -> dict[str, Any]:
    """Return an override as a mapping, ``objective.wait.at_most=5`` as three of one key each."""
    names = str(entry.key_or_group).split(".")
    found: Any = entry.value()
    for name in reversed(names):
        found = {name: found}
    return dict(found)


def _quoted(text: str) -> str:
    """Quote the value of a key that holds a text, where Hydra would take it for anything else.

    A URL with a query or a path with a space is written as it is everywhere else.
    """
    key, is_assignment, value = text.partition("=")
    if not is_assignment or _TYPES.get(key.lstrip("+")) not in (str, str | None) or value[:1] in ("'", '"'):
        return text
    try:
        OverridesParser.create().parse_override(text)
    except HydraException:
        escaped = value.replace("\\'", "\\\\'").replace("'", "\\'")
        return f"{key}='{escaped}'"
    except ValueError:
        pass
    return text


def _with_own_models(
    plain: dict[str, Any],
    layers: Layers,
    entries: Sequence[Override],
    choices: Mapping[str, str],
    folders: Sequence[Path],
) -> Composed:
    """Leave to each model only what was said of it, and nothing of one that it took the place of."""
    found: list[Layer] | None = None
    described: dict[str, str] = {}
    for place in model.places(plain):
        given = model.at(plain, place)
        choice = choices.get("model" if place == "model" else f"model@{place}")
        *path, last = place.split(".")
        parent: Any = plain
        for key in path:
            parent = parent[key]
        if choice is not None and model_layers.is_preset(given, choice_content(f"model/{choice}", folders)):
            parent[last] = model_layers.as_preset(given, place=place, folders=folders)
            continue
        found = layers.listed(entries) if found is None else found
        settled = model_layers.settled(given, found, place=place, folders=folders)
        parent[last] = dict(settled.values)
        if settled.preset is not None:
            described[place] = settled.preset
    composed = Composed(plain)
    composed.described = described
    return composed


def _checked_override(text: str, known: Mapping[str, Sequence[str]], config_dir: Path | None) -> str:
    """Check one override's name before Hydra sees it, and widen what it accepts where that is harmless.

    Args:
        text: The override.
        known: The groups, and the names in each.
        config_dir: The user's own folder of groups.
    """
    try:
        override = OverridesParser.create().parse_override(text)
    except ValueError as exc:
        # Python reads no number of more than 4,300 digits.
        raise ConfigError(
            f"command line: '{text[:60]}...' holds a number of more than 4,300 digits; expected a "
            "shorter one. Correct it, or quote it as a text."
        ) from exc
    except HydraException as exc:
        raise ConfigError(
            f"command line: '{text}' cannot be read; expected key=value, such as workload.num_prompts=200 or "
            "+experiment=case2_sched_steps. Quote values with spaces or brackets."
        ) from exc
    key = override.key_or_group
    if key in known:
        return _checked_choice(override, key, known[key], config_dir)
    if key.startswith("hydra."):
        raise ConfigError(f"command line: '{text}' is a setting of Hydra; this program has no use for it.")
    if override.is_delete():
        return text
    # Such names are free, too, where they are given all at once.
    if not f"{key}.".startswith(_FREE_KEYS):
        if key not in _KEYS:
            hint = _knob_hint(key, text) or nearest(key, [*_KEYS, *known])
            raise ConfigError(
                f"command line: '{key}' is not a key of the configuration.{hint} "
                "See them all with: python -m sweeper --cfg job"
            )
        return _checked_value(override, text)
    value = text.split("=", 1)[1]
    if override.is_sweep_override():
        if not key.startswith("space.knobs."):
            return _checked_value(override, text)
        quoted = value.replace("'", "\\'")
        return f"++{key}='{quoted}'"
    return f"++{key}={value}"


def _knob_hint(key: str, text: str = "") -> str:
    """Describe where knobs belong, to a user who wrote one, or nearly one, without its group."""
    every = knobs.every_name()
    name = key if key in every else nearest_name(key, every)
    # A key of ours that is as close is what was meant.
    if name is None or "." in key or (name != key and nearest_name(key, [*_KEYS, name]) != name):
        return ""
    value = text.partition("=")[2] or "VALUE"
    group = "space.knobs" if "," in value and value[0] not in "[{'\"" else "knobs"
    return f" Knobs stand below {group}: {group}.{name}={value}."


def _checked_choice(override: Override, group: str, names: Sequence[str], config_dir: Path | None) -> str:
    value = override.value()
    if override.is_delete() or not isinstance(value, str):
        raise ConfigError(
            f"command line: '{override.input_line}': the group '{group}' takes one name; "
            f"expected one of {', '.join(names)}."
        )
    if value not in names:
        hint = own_files.elsewhere(config_dir, group, value) or nearest(value, names)
        listed = _with_purposes(group, names) if group == "platform" and not hint else ", ".join(names)
        raise ConfigError(f"command line: {group}={value}: there is no such {group}.{hint} Known: {listed}.")
    if config_dir is not None:
        own_files.check(config_dir, group, value)
    # The documented form is +experiment=NAME; without the plus it can mean nothing else.
    return f"+{group}={value}" if group in ("experiment", "setting", "overlay", TODAY) else f"{group}={value}"


def _with_purposes(group: str, names: Sequence[str]) -> str:
    """List the names of a group, each with the first sentence of its file."""
    listed = []
    for name in names:
        path = conf_folder() / group / f"{name}.yaml"
        first = own_files.head_of(path).partition(". ")[0].partition("\n")[0] if path.is_file() else ""
        listed.append(f"{name} ({first.rstrip('.')})" if first else name)
    return "; ".join(listed)


def _checked_value(override: Override, text: str) -> str:
    if override.is_sweep_override():
        key, value = text.split("=", 1)
        key = key.lstrip("+")
        hint = (
            f"To vary a knob write space.{key}={value}"
            if key.startswith("knobs.")
            else f"For a list write '{key}=[{value}]'"
        )
        raise ConfigError(f"command line: '{text}' gives several values; expected one. {hint}.")
    return text


def _explain(exc: Exception) -> str:
    """Turn an error of Hydra, OmegaConf or YAML into one sentence that names file, key and remedy."""
    if isinstance(exc, YAMLError):
        mark = getattr(exc, "problem_mark", None)
        name = getattr(mark or exc, "name", "a configuration file")
        where = f"{name}, line {mark.line + 1}" if mark else str(name)
        reason = getattr(exc, "problem", None) or getattr(exc, "reason", None) or exc
        return f"{where}: is not YAML: {reason}. Correct the file."
    text = str(exc)
    cause = _cause(exc)
    file = _file_of(text)
    full_key = getattr(cause, "full_key", None) or _search(r"full_key: (\S+)", text)
    if isinstance(exc, MissingConfigException):
        missing = exc.missing_cfg_file or ""
        group, _, name = str(missing).rpartition("/")
        options = exc.options or ()
        known = f" Known: {', '.join(options)}." if options else ""
        return f"{file}{group or 'config'}: there is no '{name}'.{nearest(name, options)}{known}"
    unknown = _search(r"Key '([^']+)' (?:not in|is not in struct)", text)
    if unknown:
        key = str(full_key or unknown)
        return (
            f"{file}'{key}' is not a key of the configuration.{_knob_hint(key) or nearest(key, _KEYS)} "
            "See them all with: python -m sweeper --cfg job"
        )
    if "Missing mandatory value" in text:
        return f"{file}'{full_key}' has no value (???). Give it one."
    absent = _search(r"Could not delete from config\. '([^']+)' does not exist", text)
    if absent:
        return (
            f"command line: '~{absent}': there is no such key to leave out; expected one that is there."
            f"{nearest(absent, _KEYS)} See them all with: python -m sweeper --cfg job"
        )
    if "does not support deletion" in str(cause):
        return (
            f"command line: '~{full_key}': every configuration has this key; expected a value. To empty it: "
            f"{full_key}=[] of a list, {full_key}=null of a single value."
        )
    reason = _first_sentence(str(cause))
    if "is not a subclass of" in reason or "Cannot merge" in reason or "is not Optional" in reason:
        key = full_key or _search(r"field '([^']+)'", reason) or "a part of the configuration"
        return (
            f"{file}{key}: is of another kind than its place; expected keys with values below it ({reason})."
        )
    return f"{file}{full_key or 'configuration'}: {reason}. Correct the value."


def _cause(exc: BaseException) -> BaseException:
    while exc.__cause__ is not None:
        exc = exc.__cause__
    return exc


def _file_of(text: str) -> str:
    name = _search(r"In '([^']+)'", text)
    return f"{name}.yaml: " if name else ""


def _search(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text)
    return found.group(1) if found else None


def _first_sentence(text: str) -> str:
    lines = (line.strip() for line in text.splitlines())
    # Hydra heads what went wrong with a line of its own.
    return next((line for line in lines if line and not line.startswith("In '")), "cannot be read").rstrip(
        "."
    )
