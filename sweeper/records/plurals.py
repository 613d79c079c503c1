"""How numbers and names stand in a sentence: 1 trial, 2 trials; 17 %; a, b and c."""

from __future__ import annotations

from collections.abc import Sequence


def amount(count: float, noun: str, spec: str = "") -> str:
    """Return a number with its noun.

    Args:
        count: How many there are.
        noun: In the singular, such as ``load point`` or ``process``.
        spec: How the number is written, such as ``,`` for thousands or ``g``.
    """
    return f"{count:{spec}} {plural(count, noun)}"


def plural(count: float, noun: str) -> str:
    """Return a noun as it stands behind a number; only one of it takes the singular.

    Args:
        count: How many there are.
        noun: In the singular.
    """
    if count == 1:
        return noun
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("s", "x", "ch", "sh")) else f"{noun}s"


def percent(share: float, spec: str = ".0") -> str:
    """Return a share in percent, the sign a space behind the number: ``17 %``.

    Args:
        share: Of one, such as 0.17.
        spec: How the number is written, such as ``.1`` or ``+,.0``.
    """
    return f"{share:{spec}%}".replace("%", " %")


def listed(names: Sequence[str], last: str = "and") -> str:
    """Return names as a sentence has them: ``a``, ``a and b``, ``a, b and c``."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} {last} {names[-1]}"
