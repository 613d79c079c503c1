"""A regression check for machines and for the page of a CI run: JSON, JUnit XML and Markdown."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any
from xml.etree import ElementTree

from analysis import compare, origins, tables
from analysis.markdown import escaped
from analysis.ratios import NOISE, Basis
from analysis.regression import EXIT_CODES, Check, Outcome, Point, worst
from analysis.study import Study
from sweeper.records.plurals import percent
from sweeper.text.numbers import number_text
from sweeper.text.tables import markdown_table

MOST_ROWS = 20
"""Points that a Markdown summary lists of one check, the worst first."""


def as_json(studies: Sequence[Study], checks: Sequence[Check]) -> str:
    """Write a comparison as JSON: the studies, what differs, every number of both, and the checks.

    Args:
        studies: The first, and those that are compared with it.
        checks: Conditions held against them; none where none were asked for.

    Returns:
        An object of ``first``, ``others`` (with ``differences`` and ``metrics``: rows of ``compare.paired``),
        ``checks``, ``outcome`` and ``exit_code``; null where there are no checks or no number.
    """
    first, *others = studies
    outcome = worst([each.outcome for each in checks]) if checks else None
    told = {
        "first": _study(first),
        "others": [
            {
                **_study(other),
                "differences": compare.environment_differences(first, other).to_dict("records"),
                "metrics": compare.all_paired(first, other),
            }
            for other in others
        ],
        "checks": [_check(each) for each in checks],
        "outcome": outcome,
        "exit_code": 0 if outcome is None else EXIT_CODES[outcome],
    }
    return json.dumps(_plain(told), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _study(study: Study) -> dict[str, Any]:
    return {"name": study.name, "provenance": "simulated" if study.is_simulated else "measured"}


def _check(check: Check) -> dict[str, Any]:
    metric = check.condition.metric
    return {
        "condition": check.condition.text,
        "metric": metric.column,
        "higher_is_better": metric.is_higher_better,
        "margin": check.condition.margin,
        "first": check.first.name,
        "second": check.second.name,
        "outcome": check.outcome,
        "points": [
            {field.name: getattr(point, field.name) for field in fields(Point)} for point in check.points
        ],
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, str):
        return str(value)
    found = tables.plain(value)
    return None if isinstance(found, float) and not math.isfinite(found) else found


def as_junit(checks: Sequence[Check]) -> str:
    """Write checks as JUnit XML: a suite each, a case for each setting and load point.

    What is worse is a failure; what is inconclusive is an error, for the case could not be decided.
    """
    root = ElementTree.Element("testsuites", {"name": "regression check"} | _counts(checks))
    for each in checks:
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            {"name": _xml(f"{each.condition.text}: {each.second.name} against {each.first.name}")}
            | _counts([each]),
        )
        for point in each.points:
            case = ElementTree.SubElement(
                suite,
                "testcase",
                classname=_xml(f"{each.second.name}.{each.condition.metric.column}"),
                name=_xml(f"{point.setting} at {point.load_point}"),
            )
            kind = _JUNIT.get(point.outcome)
            if kind is not None:
                told = ElementTree.SubElement(
                    case, kind, type=str(point.outcome), message=_xml(_sentence(each, point))
                )
                told.text = _xml(origins.provenance_sentence(each.second))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


_JUNIT = {Outcome.WORSE: "failure", Outcome.INCONCLUSIVE: "error"}


def _xml(text: str) -> str:
    """Leave out what XML 1.0 cannot hold."""
    return "".join(sign for sign in text if sign in "\t\n\r" or (sign >= " " and sign not in "\ufffe\uffff"))


def _counts(checks: Sequence[Check]) -> dict[str, str]:
    outcomes = [point.outcome for each in checks for point in each.points]
    return {
        "tests": str(len(outcomes)),
        "failures": str(outcomes.count(Outcome.WORSE)),
        "errors": str(outcomes.count(Outcome.INCONCLUSIVE)),
        "skipped": "0",
    }


def _sentence(check: Check, point: Point) -> str:
    numbers = f"{_number(point.first)} to {_number(point.second)}"
    change = f"; {point.change_text}" if point.change_text else ""
    return f"{check.condition.metric.title}: {numbers}{change}; {point.reason}"


def _number(value: float) -> str:
    return "no number" if math.isnan(value) else number_text(value)


def as_markdown(checks: Sequence[Check]) -> str:
    """Write checks as a Markdown summary, as the page of a CI run shows it: the worst points first."""
    outcome = worst([each.outcome for each in checks])
    first = checks[0].first
    others = list({each.second.folder: each.second for each in checks}.values())
    parts = [
        f"## Regression check: {outcome}",
        f"- First, `{first.name}`: {origins.provenance_sentence(first)}",
    ]
    parts[-1] += "".join(f"\n- `{other.name}`: {origins.provenance_sentence(other)}" for other in others)
    for other in others:
        differing = compare.environment_differences(first, other)
        if not differing.empty:
            parts.append(f"What differs:\n\n{tables.to_markdown(differing, is_text=True)}")
    for each in checks:
        parts += [f"### {escaped(each.sentence)}", _table(each)]
    parts.append(
        "A change is of the second study against the first, with its 95 % interval. Worse: the whole "
        "interval lies beyond the margin. Inconclusive: it reaches across the margin, or there is none."
    )
    bases = {point.basis for each in checks for point in each.points}
    if bases - {Basis.RESTARTS, None}:
        parts.append(
            f"Simulated numbers are the same at every start: theirs is a stated margin of {percent(NOISE)}, "
            "no interval of starts. A measured side that was started once has none."
        )
    return "\n\n".join(parts) + "\n"


def _table(check: Check) -> str:
    shown = check.points[:MOST_ROWS]
    rows = [
        [
            escaped(text)
            for text in (
                point.setting,
                point.load_point,
                f"{_number(point.first)} (n={point.first_n})",
                f"{_number(point.second)} (n={point.second_n})",
                point.change_text,
                f"{point.outcome}: {point.reason}" if point.outcome in _JUNIT else str(point.outcome),
            )
        ]
        for point in shown
    ]
    heads = ["setting", "load point", "first", "second", "change", "outcome"]
    table = markdown_table(heads, rows, rule=["---", "---", "---:", "---:", "---:", "---"])
    left = len(check.points) - len(shown)
    return f"{table}\n\nAnd {left} more, none of them worse than these." if left else table
