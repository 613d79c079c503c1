"""Domains of knobs, as people write them: lists, ranges, and Hydra's own sweep syntax; conditions; rules."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, RangeSweep
from hydra.errors import HydraException

from sweeper import knobs
from sweeper.config.checks import check_choice, nonempty, scalar
from sweeper.errors import ConfigError, nearest
from sweeper.records.kinds import NEEDS
from sweeper.space.domains import Choice, Domain, Fitting, Range
from sweeper.space.rules import Rule

# Stored as 64-bit numbers, and a search computes with them.
_LARGEST = 1e18


def parse_domain(key: str, value: Any) -> Domain:
    """Read one domain of a space, in YAML's form or in Hydra's sweep syntax.

    Args:
        key: Its dotted path, for messages.
        value: A list of choices, a mapping with ``low`` and ``high``, a text such as
            ``choice(8,32)``, ``range(1,16)``, ``tag(log,int(interval(1,1024)))``, or a single value.

    Raises:
        ConfigError: The value is not one of these, or its bounds are wrong.
    """
    match value:
        case list():
            return Choice(values=tuple(scalar(key, item) for item in nonempty(key, value)))
        case {"choices": list() as choices, **rest} if not rest:
            return parse_domain(key, choices)
        case dict() if knobs.takes_json(key.rpartition(".")[2]):
            return Choice(values=(scalar(key, value),))
        case dict():
            return _range(key, value)
        case str() if "(" in value or "," in value:
            return _from_sweep_syntax(key, value)
        case _:
            return Choice(values=(scalar(key, value),))


def parse_condition(key: str, value: Any) -> tuple[Any, Rule | None]:
    """Take the condition off a domain that has one: ``{choices: [256, 512], when: ...}``.

    Args:
        key: Its dotted path, for messages.
        value: A domain as composed.

    Returns:
        The domain without it, and the condition or None.

    Raises:
        ConfigError: The condition is no text, or no comparison of knobs.
    """
    if not isinstance(value, dict) or "when" not in value:
        return value, None
    where, condition = f"{key}.when", value["when"]
    if not isinstance(condition, str) or not condition.strip():
        raise ConfigError(
            f"{where}: is {condition!r}; expected a comparison of other knobs, such as "
            "'enable_chunked_prefill == true'."
        )
    rest = {name: item for name, item in value.items() if name != "when"}
    return rest, Rule(text=condition, where=where)


def parse_fitting(key: str, value: Any) -> tuple[Domain, Fitting | None]:
    """Read a domain, and whether its values are those that model, devices and release have room for.

    Args:
        key: Its dotted path, for messages.
        value: A domain as composed, its condition taken off: ``fits``, or ``{fits: true, choices: [...],
            needs: experts}``. A parallel size without choices takes the sizes that the devices allow.

    Returns:
        The domain, without values where the devices say them, and the fitting or None.

    Raises:
        ConfigError: It is no domain, says what is not part of a fitting, or has no choices to take from.
    """
    if value == "fits":
        value = {"fits": True}
    if not isinstance(value, dict) or not {"fits", "needs"} & set(value):
        return parse_domain(key, value), None
    needs, rest = value.get("needs"), {k: v for k, v in value.items() if k not in ("fits", "needs")}
    if value.get("fits") is not True:
        raise ConfigError(f"{key}.fits: is {value.get('fits')!r}; expected true. Set it, or leave needs out.")
    needed = needs if isinstance(needs, list) else [] if needs is None else [needs]
    for one in needed:
        check_choice(f"{key}.needs", one, NEEDS)
    name = key.rpartition(".")[2]
    if not rest and name not in knobs.PARALLEL_SIZES:
        raise ConfigError(
            f"{key}: says fits and no values; expected choices to take from, such as "
            "{fits: true, choices: [auto, fp8]}, since only parallel sizes "
            f"({', '.join(knobs.PARALLEL_SIZES)}) follow from the devices. Give them."
        )
    return parse_domain(key, rest) if rest else Choice(values=()), Fitting(needs=tuple(needed))


def parse_rule(key: str, value: Any) -> Rule:
    """Read a rule: a comparison, or ``{rule: ..., message: ...}``.

    Raises:
        ConfigError: It is neither.
    """
    match value:
        case {"rule": str() as text, "message": str() as message, **rest} if not rest:
            return Rule(text=text, message=message, where=f"{key}.rule")
        case dict():
            raise ConfigError(
                f"{key}: has {', '.join(map(str, value)) or 'nothing'}; expected a rule and a message, "
                "such as {rule: a >= b, message: why it must be so}."
            )
        case None | list():
            raise ConfigError(f"{key}: is {value!r}; expected a comparison of knobs, or rule and message.")
        case _:
            return Rule(text=str(value))


def _range(key: str, given: Mapping[str, Any]) -> Range:
    known = {"low", "high", "step", "log", "type"}
    for name in given:
        if name not in known:
            raise ConfigError(
                f"{key}: '{name}' is not part of a range; expected low, high, and step, log or type."
                f"{nearest(str(name), known)}"
            )
    low, high, step = given.get("low"), given.get("high"), given.get("step")
    for name, value in (("low", low), ("high", high), ("step", step)):
        needed = name != "step"
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if (value is None and needed) or (value is not None and not is_number):
            raise ConfigError(f"{key}: {name} is {value!r}; expected a number.")
    assert low is not None and high is not None
    kind = given.get("type") or (
        "int" if all(isinstance(v, int) for v in (low, high, step or 1)) else "float"
    )
    check_choice(f"{key}.type", kind, ("int", "float"))
    log = given.get("log", False)
    if not isinstance(log, bool):
        raise ConfigError(f"{key}: log is {log!r}; expected true or false.")
    return _checked_range(key, Range(low=low, high=high, step=step, log=log, is_int=kind == "int"))


def _checked_range(key: str, found: Range) -> Range:
    for name, value in (("low", found.low), ("high", found.high), ("step", found.step)):
        if value is not None and not abs(value) < _LARGEST:
            raise ConfigError(f"{key}: {name} is {value}; expected a number between -1e18 and 1e18.")
        if found.is_int and value is not None and value != int(value):
            raise ConfigError(
                f"{key}: {name} is {value:g}, and its values are whole numbers; expected one, too. "
                "Correct it, or set type: float."
            )
    if found.low > found.high:
        raise ConfigError(
            f"{key}: has low={found.low:g} above high={found.high:g}; expected low <= high. "
            "Swap them, or give a single choice to pin the knob."
        )
    if found.log and found.low <= 0:
        raise ConfigError(f"{key}: has low={found.low:g} with log; expected low > 0, a logarithm needs it.")
    if found.step is not None and found.step <= 0:
        raise ConfigError(f"{key}: has step={found.step:g}; expected a step above 0.")
    if found.log and found.step is not None:
        raise ConfigError(f"{key}: has both log and step; expected one of them. Remove the step.")
    return found


def _from_sweep_syntax(key: str, text: str) -> Domain:
    try:
        override = OverridesParser.create().parse_override(f"x={text}")
    except HydraException as exc:
        raise ConfigError(
            f"{key}: '{text}' is not in Hydra's sweep syntax; expected such as choice(8,32), range(1,16) or "
            "tag(log,int(interval(1,1024))). Or write it as a list or as low and high."
        ) from exc
    value = override.value()
    match value:
        case ChoiceSweep(list=choices):
            return parse_domain(key, [_unquoted(item) for item in choices])
        case RangeSweep(start=start, stop=stop, step=step):
            # Hydra's range leaves its end out, as Python's does.
            assert start is not None and stop is not None
            if step == 0:
                raise ConfigError(f"{key}: '{text}' has step 0; expected another step, such as 1.")
            # In decimal numbers: in binary ones 0.5 and three steps of 0.1 stay below 0.8, the end.
            low, end, width = (Decimal(str(each)) for each in (start, stop, step))
            last = low + (math.ceil((end - low) / width) - 1) * width
            is_int = all(isinstance(v, int) for v in (start, stop, step))
            high = int(last) if is_int else float(last)
            return _checked_range(key, Range(low=start, high=high, step=step, is_int=is_int))
        case IntervalSweep(start=start, end=end, tags=tags):
            assert start is not None and end is not None
            is_int = isinstance(start, int) and isinstance(end, int)
            return _checked_range(key, Range(low=start, high=end, log="log" in tags, is_int=is_int))
        case _:
            return Choice(values=(scalar(key, text),))


def _unquoted(item: Any) -> Any:
    return item.text if hasattr(item, "text") else item
