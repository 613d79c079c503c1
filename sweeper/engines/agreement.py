"""Does an engine run what was asked? Values are compared as what they are, structures by the keys asked for.

The same value has many spellings: ``half`` and ``torch.float16``, ``8k`` and 8000, a member of an enumeration
by its name or its number, JSON and Python's repr, a key before and after it was renamed. None of these is a
difference. Where the report is of another form than the question, a function for a number or a text for an
object, it is unknown whether they agree: that is reported as such, and is no difference either.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sweeper.engines.reported_values import Enumerated, Named, Unreadable, parse
from sweeper.knobs import LONGEST, WHAT_FITS
from sweeper.records import Assignment, Scalar

NOT_COMPARED = "not_compared"
"""Name among what an engine reports of the knobs whose report could not be compared with what was asked."""

# Keys of one meaning within a flag's object: renamed between releases, or shortened in what is reported.
# Source: vLLM 0.6.5 to 0.33.0, config/compilation.py and config/speculative.py with their __repr__.
_SAME_KEYS: Mapping[str, tuple[frozenset[str], ...]] = {
    "compilation_config": (frozenset({"mode", "level"}),),
    "speculative_config": (
        frozenset({"num_speculative_tokens", "num_spec_tokens"}),
        frozenset({"model", "draft_model"}),
    ),
}

# Members of enumerations, which JSON writes by value and people by name. Source: config/compilation.py.
_COMPILATION_MODES: Mapping[str, object] = {
    **{"none": 0, "stock_torch_compile": 1, "dynamo_trace_once": 2, "vllm_compile": 3},
    # Before 0.11.1 they were levels.
    **{"no_compilation": 0, "dynamo_as_is": 1, "dynamo_once": 2, "piecewise": 3},
}
_MEMBERS: Mapping[str, Mapping[str, object]] = {
    "compilation_config.mode": _COMPILATION_MODES,
    "compilation_config.level": _COMPILATION_MODES,
    "compilation_config.cudagraph_mode": {
        **{"none": 0, "piecewise": 1, "full": 2},
        **{"full_decode_only": [2, 0], "full_and_piecewise": [2, 1]},
    },
}

# Other spellings of the same value.
_SYNONYMS = {"half": "float16", "float": "float32", "bf16": "bfloat16"}

# What the engine itself puts first into a list of operators that it was given.
_LIST_DEFAULTS = frozenset({"all", "none"})

# vLLM's short form of the flag: -O3, and -O.mode=0 for one key.
_SHORT_LEVEL = re.compile(r"-{0,2}O?\s*=?\s*(\d)")
_SHORT_KEY = re.compile(r"-{0,2}(?:O|compilation[-_]config)\.([\w.]+)\s*[= ]\s*(.+)")

_LONGEST = 2000


@dataclass(frozen=True, kw_only=True)
class _Finding:
    """Two values that do not agree; ``is_difference`` is False where it is unknown whether they do."""

    path: str
    asked: object
    reported: object
    is_difference: bool


def differences(assignment: Assignment, effective: Mapping[str, Scalar]) -> dict[str, tuple[Scalar, Scalar]]:
    """Compare what was asked with what the engine reports.

    Args:
        assignment: What was asked; the value of a flag that takes JSON is a text.
        effective: What the engine reports, by knob name (``reported_config.read_effective``).

    Returns:
        Knob, or knob and key (``compilation_config.mode``), to (asked, reported) where the two differ. Knobs
        and keys the engine is silent about, ``auto``, which asks for whatever it chooses, and what is
        reported in a form that cannot be compared never differ.
    """
    return {
        finding.path: (written(finding.asked), written(finding.reported))
        for finding in _all_findings(assignment, effective)
        if finding.is_difference
    }


def not_compared(assignment: Assignment, effective: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Return which knobs are reported in a form that cannot be compared with what was asked.

    Returns:
        A sentence under ``NOT_COMPARED``, to be kept with what the engine reports; empty where there is none.
    """
    paths = sorted(f.path for f in _all_findings(assignment, effective) if not f.is_difference)
    return {NOT_COMPARED: f"reported in a form that cannot be compared: {', '.join(paths)}"} if paths else {}


def told(different: Mapping[str, tuple[Scalar, Scalar]]) -> str:
    """Write differences as a message lists them."""
    return "; ".join(f"{name}: asked {a}, runs {r}" for name, (a, r) in sorted(different.items()))


def reported_text(knob: str, asked: Scalar | None, reported: object) -> Scalar:
    """Write what is reported of a knob as one value of a row.

    An object can be long, with much that was not asked for: of it the keys asked for are kept, under the
    names they were asked by. Members of enumerations are written as they were asked for, by name or by value.
    """
    wanted = None if asked is None else _asked_value(knob, asked)
    chosen = _chosen(knob, wanted, reported)
    if isinstance(chosen, str) and not isinstance(wanted, str):
        return _scalar(chosen)
    return written(chosen)


def written(value: object) -> Scalar:
    """Write a value as one of a row: what is no number and no text becomes JSON."""
    match value:
        case bool() | int() | float() | str():
            return value
        case Unreadable():
            return value.text[:_LONGEST]
        case _:
            return json.dumps(_plain_data(value), ensure_ascii=False)[:_LONGEST]


def _all_findings(assignment: Assignment, effective: Mapping[str, Scalar]) -> Iterator[_Finding]:
    for knob, asked in assignment.items():
        if knob in effective and (knob, asked) != (LONGEST, WHAT_FITS):
            yield from _findings(knob, _asked_value(knob, asked), _reported_value(effective[knob]))


def _findings(path: str, asked: object, reported: object) -> Iterator[_Finding]:
    """Compare one value, and whatever is in it."""
    reported = reported.fields if isinstance(reported, Named) else reported
    if asked is None or reported is None or asked == "auto":
        return
    if isinstance(asked, Mapping) and isinstance(reported, Mapping):
        pairs = [(key, value, _at_key(path, reported, key)) for key, value in asked.items()]
        known = [pair for pair in pairs if pair[2] is not None]
        for key, value, found in known:
            yield from _findings(f"{path}.{key}", value, found)
        if known or not asked:
            return
    agree = _agree(path, asked, reported)
    if not agree:
        yield _Finding(path=path, asked=asked, reported=reported, is_difference=agree is False)


def _agree(path: str, asked: object, reported: object) -> bool | None:
    """Whether two values mean the same; None where that is unknown."""
    if isinstance(reported, Enumerated):
        by_value = None if reported.value is None else _agree(path, asked, reported.value)
        return bool(_agree(path, asked, reported.name) or by_value)
    match asked, reported:
        case _, Unreadable():
            return None
        case Mapping(), str() if reported == "None":
            # Asked for, and left off.
            return False
        case (Mapping(), _) | (_, Mapping()):
            return None
        case list(), list():
            return _lists_agree(asked, reported)
        case list(), _:
            return _by_value(path, reported, asked) if isinstance(reported, str) else _in_one(asked, reported)
        case str(), list():
            by_value = _by_value(path, asked, reported)
            return _lists_agree(_listed(asked), reported) if by_value is None else by_value
        case _, list():
            return _in_one(reported, asked)
        case _:
            return _scalars_agree(path, asked, reported)


def _scalars_agree(path: str, asked: object, reported: object) -> bool | None:
    wanted, got = _plain(asked), _plain(reported)
    if wanted == got:
        return True
    if isinstance(wanted, float) and isinstance(got, float):
        if math.isnan(wanted) or math.isnan(got):
            return math.isnan(wanted) and math.isnan(got)
        return (
            abs(wanted - got) <= 1e-6 * max(abs(wanted), abs(got)) if math.isfinite(wanted - got) else False
        )
    if isinstance(wanted, str) and isinstance(got, str):
        return _texts_agree(path, wanted, got)
    name, value = (wanted, reported) if isinstance(wanted, str) else (got, asked)
    return _by_value(path, str(name), value)


def _texts_agree(path: str, asked: str, reported: str) -> bool:
    values = _MEMBERS.get(path, {})
    if asked in values and values.get(asked) == values.get(reported):
        return True
    # "fp8" is short for the variant that the platform prefers, such as fp8_e4m3.
    if asked == "fp8" and reported.startswith("fp8_"):
        return True
    # All ways of predicting several tokens are one method since 0.11.1.
    if path.endswith(".method") and asked.endswith("_mtp") and reported == "mtp":
        return True
    # A model of the hub, where the engine reports the folder of its copy.
    return f"models--{asked.replace('/', '--')}/snapshots/" in reported


def _by_value(path: str, name: str, value: object) -> bool | None:
    """Compare a member's name with a value; None where the enumeration is not known."""
    known = _MEMBERS.get(path, {}).get(name.lower())
    return None if known is None else known == value


def _lists_agree(asked: Sequence[object], reported: Sequence[object]) -> bool | None:
    """Compare lists: of numbers in any order, of texts with what the engine adds by itself."""
    values = (*asked, *reported)
    if any(not isinstance(value, bool | int | float | str) for value in values):
        return True if list(asked) == list(reported) else None
    wanted, got = {_plain(value) for value in asked}, {_plain(value) for value in reported}
    if wanted == got:
        return True
    if all(isinstance(value, str) for value in (*wanted, *got)):
        return wanted <= got and (bool(wanted) or got <= _LIST_DEFAULTS)
    are_numbers = all(isinstance(value, float) for value in (*wanted, *got))
    return False if are_numbers else None


def _in_one(values: Sequence[object], single: object) -> bool | None:
    return _lists_agree(values, [single]) if len(values) == 1 else None


def _listed(text: str) -> list[object]:
    return [parse(word) for word in re.split(r"[\s,]+", text.strip("[] \t")) if word]


def _plain(value: object) -> float | str:
    """One form for a value whatever way it was written: a number (true is 1), or lower-case text."""
    if isinstance(value, bool | int | float):
        return float(value)
    text = str(value).strip().strip("'\"").removeprefix("torch.").lower()
    if text in ("true", "false"):
        return float(text == "true")
    number = re.fullmatch(r"([+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?)([kmg]?)", text)
    if number is None:
        return _SYNONYMS.get(text, text)
    # vLLM reads 8k as 8000 and 8K as 8192 (its human_readable_int).
    base = 1000 if str(value).strip().strip("'\"")[-1:].islower() else 1024
    power = {"": 0, "k": 1, "m": 2, "g": 3}[number[2]]
    return float(number[1]) * float(base**power)


def _asked_value(knob: str, asked: Scalar) -> object:
    """What a knob's value means: the object that a text in JSON stands for, or the value itself."""
    if knob == "compilation_config" and (short := _short_form(asked)) is not None:
        return short
    if not isinstance(asked, str):
        return asked
    text = asked.strip()
    if knob == "optimization_level" and (level := _SHORT_LEVEL.fullmatch(text)):
        return int(level[1])
    if not text.startswith(("{", "[")):
        return asked
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        value = parse(text)
        return value if isinstance(value, dict | list) else asked


def _short_form(asked: Scalar) -> Mapping[str, object] | None:
    if isinstance(asked, bool | float):
        return None
    level = _SHORT_LEVEL.fullmatch(str(asked).strip())
    if level:
        return {"mode": int(level[1])}
    one_key = _SHORT_KEY.fullmatch(str(asked).strip())
    return None if one_key is None else _nested(one_key[1].split("."), parse(one_key[2]))


def _nested(keys: Sequence[str], value: object) -> Mapping[str, object]:
    return {keys[0]: value if len(keys) == 1 else _nested(keys[1:], value)}


def _reported_value(reported: Scalar) -> object:
    if isinstance(reported, str) and re.match(r"[{\[(<]|[A-Za-z_][\w.]*\(", reported.strip()):
        return parse(reported)
    return reported


def _at_key(path: str, reported: Mapping[str, object], key: str) -> object:
    """What is reported under a key, or under another name of it; None where it is not reported."""
    names = next((same for same in _SAME_KEYS.get(path, ()) if key in same), frozenset({key}))
    found = [reported[name] for name in (key, *sorted(names - {key})) if reported.get(name) is not None]
    return found[0] if found else None


def _chosen(path: str, asked: object, reported: object) -> object:
    """Leave of what is reported what was asked for, in the form it was asked for."""
    reported = reported.fields if isinstance(reported, Named) else reported
    if isinstance(reported, Enumerated):
        is_by_value = reported.value is not None and not isinstance(asked, str)
        return reported.value if is_by_value and asked is not None else reported.name
    if not isinstance(asked, Mapping) or not isinstance(reported, Mapping):
        return reported
    found = {key: _at_key(path, reported, key) for key in asked}
    kept = {k: _chosen(f"{path}.{k}", asked[k], v) for k, v in found.items() if v is not None}
    return kept or reported


def _plain_data(value: object) -> object:
    match value:
        case Mapping():
            return {str(key): _plain_data(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain_data(item) for item in value]
        case Named():
            return _plain_data(value.fields)
        case Enumerated():
            return value.name
        case Unreadable():
            return value.text
        case _:
            return value


def _scalar(text: str) -> Scalar:
    """A value as Python means it; numbers and truth are often written as text."""
    text = text.removeprefix("torch.")
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
