"""Refuses what is set and would do nothing, with the reason; or says it, where a run stands in for another.

A key counts as set where its value is neither the schema's default nor what the shipped file of a chosen
group says (``workload=random`` brings eight warm-up prompts along; no user asked for them). Where each key
acts is declared in ``effect_table``.

A simulated run stands in for a measured one and takes its configuration as it is; likewise an endpoint that
already runs, and a search that chooses its first trials by itself. What they have no use for is said in one
line. Everything else that would be ignored is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from sweeper.config.effect import Effect, Run
from sweeper.config.effect_table import EFFECTS
from sweeper.config.schema import RootConfig, WorkloadConfig
from sweeper.config.workload import POINT_KEYS
from sweeper.errors import ConfigError
from sweeper.knobs import LONGEST
from sweeper.records import Platform

_POINTS = "workload.points"

_Value = tuple[str, str, Any]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A key that is not at its default, with the run that it is for."""

    path: str
    pattern: str
    value: Any
    run: Run


def check(
    root: Mapping[str, Any],
    *,
    platform: Platform,
    presets: Mapping[str, Any],
    typed: frozenset[str] = frozenset(),
) -> tuple[str, ...]:
    """Refuse what is set and does nothing.

    Args:
        root: The composed configuration; its single values are checked.
        platform: The machine.
        presets: Values by dotted path that shipped files of the chosen groups bring along.
        typed: Dotted keys that the command line gives a value.

    Returns:
        Sentences about what is left out because of what the run stands in for.

    Raises:
        ConfigError: A key is set to something and has no effect; the message says why.
    """
    left_out: dict[str, list[str]] = {}
    for setting in settings_of(root, platform=platform):
        effect = effect_of(setting.pattern)
        is_preset = setting.path in presets and presets[setting.path] == setting.value
        for idle in effect.idle_in(setting.run):
            if is_preset and not idle.heeds_presets:
                continue
            because = idle.because.format(**setting.run.words)
            if not idle.is_said:
                shown = f"is {setting.value!r}" if effect.is_shown else "is given"
                raise ConfigError(f"{setting.path}: {shown}, and {because}. {idle.remedy}")
            left_out.setdefault(because, []).append(setting.path)
    for path, because in _superseded(root):
        if path in typed:
            left_out.setdefault(because, []).append(path)
    return tuple(f"left out: {', '.join(paths)}: {because}" for because, paths in left_out.items())


def _superseded(root: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each knob of all settings that none has, since the space gives it another value, and why."""
    space = root["space"]
    series = [item["knobs"] for item in space["series"].values()]
    for name, value in root["knobs"].items():
        domain = None if value is None else space["knobs"].get(name)
        marks = domain if isinstance(domain, Mapping) else ()
        if domain is not None and "when" not in marks and not (name == LONGEST and "fits" in marks):
            yield f"knobs.{name}", f"space.knobs.{name} varies it. Pin it with '~space.knobs.{name}'"
        elif value is not None and series and all(name in own for own in series):
            yield f"knobs.{name}", "each series has its own"


def settings_of(root: Mapping[str, Any], *, platform: Platform) -> Iterator[Setting]:
    """Return every key whose value is not its default."""
    points = root["workload"]["points"] or []
    sent = [{**root["workload"], **point} for point in points] or [root["workload"]]
    whole = Run(root=root, platform=platform, datasets=frozenset(one["dataset"] for one in sent))
    for path, pattern, value in _values(RootConfig, root):
        if not _is_default(pattern, value) and pattern != _POINTS:
            yield Setting(path=path, pattern=pattern, value=value, run=_run_of(path, whole, points))
    for number, (one, point) in enumerate(zip(sent, points, strict=False)):
        run = replace(whole, datasets=frozenset({one["dataset"]}))
        for path, pattern, value in _values(WorkloadConfig, point, f"{_POINTS}[{number}].", "workload."):
            if not _is_default(pattern, value):
                yield Setting(path=path, pattern=pattern, value=value, run=run)


def effect_of(pattern: str) -> Effect:
    """Return where a key acts.

    Raises:
        KeyError: It is not placed in the table.
    """
    return _by_key()[pattern]


def patterns() -> tuple[str, ...]:
    """Return every key that holds a value as a dotted path, ``*`` in place of names of the user's own."""
    return tuple(defaults())


def flat(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a part of a configuration by their dotted paths."""
    return {path: value for path, _, value in _values(RootConfig, node)}


def _run_of(path: str, whole: Run, points: list[Mapping[str, Any]]) -> Run:
    """Return the run that a key is for; one of the workload is for load points that do not say their own."""
    group, _, rest = path.partition(".")
    key = rest.partition(".")[0]
    if group != "workload" or key not in POINT_KEYS or not points:
        return whole
    heirs = [{**whole.root["workload"], **point}["dataset"] for point in points if key not in point]
    return replace(whole, datasets=frozenset(heirs))


def _is_default(pattern: str, value: Any) -> bool:
    default = defaults()[pattern]
    # A list of one value is that value; a knob that is null was taken away.
    return value in (default, [default]) or (default is MISSING and value is None)


def _values(node: Any, given: Mapping[str, Any], path: str = "", pattern: str = "") -> Iterator[_Value]:
    """Return path, pattern and value of what a composed configuration holds of a part of the schema."""
    for name, inner, is_named in _parts(node):
        if name not in given:
            continue
        value, below, pattern_below = given[name], f"{path}{name}", f"{pattern}{name}"
        if is_named:
            for own, one in value.items():
                if inner is None:
                    yield f"{below}.{own}", f"{pattern_below}.*", one
                else:
                    yield from _values(inner, one, f"{below}.{own}.", f"{pattern_below}.*.")
        elif inner is None:
            yield below, pattern_below, value
        elif value is not None:
            yield from _values(inner, value, f"{below}.", f"{pattern_below}.")


def _declared(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Return every key that holds a value, with its default."""
    made = node()
    for name, inner, is_named in _parts(node):
        path = f"{prefix}{name}"
        if inner is not None:
            yield from _declared(inner, f"{path}.*." if is_named else f"{path}.")
        elif is_named:
            yield f"{path}.*", MISSING
        else:
            yield path, getattr(made, name)


@cache
def _parts(node: Any) -> tuple[tuple[str, Any, bool], ...]:
    """Return each field of a part of the schema: its name, what lies below it, and whether names are free."""
    hints = get_type_hints(node)
    found = []
    for item in fields(node):
        hint = hints[item.name]
        inner = next((part for part in (hint, *get_args(hint)) if is_dataclass(part)), None)
        found.append((item.name, inner, get_origin(hint) is dict))
    return tuple(found)


@cache
def defaults() -> Mapping[str, Any]:
    """Return the schema's default of every key that holds a value; MISSING where names are the user's own."""
    return dict(_declared(RootConfig, ""))


@cache
def _by_key() -> Mapping[str, Effect]:
    return {key: effect for effect in EFFECTS for key in effect.keys}
