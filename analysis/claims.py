"""Claims of a source, checked against numbers: do they hold, for whom, and by how much.

A claim is data: a product of powers of series' means, and the bounds within which it should lie. The same
check runs on three kinds of numbers: the source's own figures, a simulated study, a measured one. Where a
text and the figures next to it disagree, the check of the figures says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import pandas as pd

from analysis import load_names, tables
from analysis.ratios import Factor, Ratio, Verdict, combine, judge, ratio
from analysis.study import Study
from sweeper import published
from sweeper.intervals import Estimate
from sweeper.records import users_text


class ClaimKind(StrEnum):
    """How a claim is made in its source."""

    STATED = "stated"
    """The text says it in words."""
    READING = "reading"
    """The text implies it; that it is meant so, or the bound, is our reading."""
    CONDITION = "condition"
    """Under which a number was made; no result."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One statement that numbers can support or refute.

    Attributes:
        id: Short name, unique; ``case1-a``, or ``C01`` as in a list of a source's stated numbers.
        experiment: Whose series it speaks about.
        statement: What is claimed, in one sentence that names the bounds.
        where: Where in the source it is made, with its words.
        kind: How it is made there.
        metric: Column of the store.
        powers: Series to power: ``{"a": 1, "b": -1}`` is a / b. A series is named as in the experiment's
            ``published.csv``, or by its own name where nothing was published for it.
        low: The ratio lies above this; None leaves that side open.
        high: The ratio lies below this; None leaves that side open.
        request_rate_per_s: Rate of the load point that counts; None means every one of them.
        max_concurrency: Users of the load point that counts; None as above.
        stated: What one ratio of 1 stands for, where the source states a number; 1 otherwise.
        open_reason: Why no measurement of this experiment can decide it; None where one can.
    """

    id: str
    experiment: str
    statement: str
    where: str
    kind: ClaimKind = ClaimKind.STATED
    metric: str = "request_throughput_per_s"
    powers: Mapping[str, int]
    low: float | None = None
    high: float | None = None
    request_rate_per_s: float | None = None
    max_concurrency: int | None = None
    stated: float = 1.0
    open_reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What the numbers of one source say about a claim at one load point."""

    load_point: str
    ratio: Ratio
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the numbers of one source say about a claim.

    Attributes:
        source: Whose numbers: ``published``, ``simulated`` or ``measured``.
        of: What they were made on or with.
        findings: One per load point that has all numbers; what the claim needs and is missing has none.
        note: What a reader must know besides the verdict; may be empty.
        stands_in: The numbers are of another model than the source's: they test the tool, not the claim.
    """

    claim: Claim
    source: str
    of: str
    verdict: Verdict
    findings: tuple[Finding, ...]
    note: str
    stands_in: bool = False


Numbers = Mapping[tuple[str, str], Factor]
"""Series and load point to a mean, of one metric; powers are set by the claim."""


def check(claim: Claim, numbers: Numbers, *, source: str, of: str) -> Answer:
    """Judge a claim on numbers, load point by load point.

    Args:
        claim: The claim.
        numbers: Means of its metric, by series and load point.
        source: Whose numbers they are.
        of: What they were made on or with.

    Returns:
        The answer: ``no data`` where no load point has all the series, or nothing could decide.
    """
    if claim.open_reason is not None:
        return _answer(claim, (), source=source, of=of, note=claim.open_reason)
    findings = []
    load = (claim.request_rate_per_s, claim.max_concurrency)
    for point in dict.fromkeys(point for _, point in numbers):
        if load != (None, None) and point != _load_text(*load):
            continue
        factors = [
            Factor(
                estimate=known.estimate,
                power=power,
                reading=known.reading,
                is_published=known.is_published,
                is_measured=known.is_measured,
            )
            for name, power in claim.powers.items()
            if (known := numbers.get((name, point))) is not None
        ]
        # A mean of zero has no logarithm; alone it still compares with a bound.
        is_comparable = len(factors) == 1 or all(factor.estimate.mean > 0 for factor in factors)
        if len(factors) == len(claim.powers) and is_comparable:
            found = _scaled(ratio(factors), claim.stated)
            findings.append(
                Finding(load_point=point, ratio=found, verdict=judge(found, low=claim.low, high=claim.high))
            )
    missing = [name for name in claim.powers if name not in {known for known, _ in numbers}]
    note = f"no numbers of {', '.join(missing)}" if missing else ""
    return _answer(claim, tuple(findings), source=source, of=of, note=note)


def check_published(claim: Claim, *, experiments: Path | None = None) -> Answer:
    """Judge a claim on the source's own figures.

    Args:
        claim: The claim.
        experiments: Folder of experiments; None takes the one of this installation.
    """
    frame = published.load(claim.experiment, root=experiments)
    here = frame[frame["metric"] == claim.metric]
    numbers = {
        (
            str(row["series"]),
            _load_text(row["request_rate_per_s"], row["max_concurrency"]),
        ): _published_factor(row)
        for row in here.to_dict("records")
    }
    of = ", ".join(dict.fromkeys(str(system) for system in here["system"])) or "no figure"
    answer = check(claim, numbers, source="published", of=of)
    if claim.open_reason is not None:
        return answer
    notes = {
        Verdict.FAILS: "the text and its own figures disagree"
        if claim.kind is ClaimKind.STATED
        else "the figures do not bear out this reading of the text",
        Verdict.INCONCLUSIVE: "the figures alone do not settle what the text says",
        Verdict.NO_DATA: "stated, but no figure shows it",
    }
    return _answer(claim, answer.findings, source="published", of=of, note=notes.get(answer.verdict, ""))


def check_study(claim: Claim, study: Study, *, experiments: Path | None = None) -> Answer:
    """Judge a claim on a study's own numbers; the note says when they are of another model."""
    table = tables.summary(study.frame, metric=claim.metric, series=study.series)
    numbers: dict[tuple[str, str], Factor] = {}
    for row in table[table["n"] > 0].to_dict("records"):
        factor = Factor(
            estimate=tables.estimate_of(row), power=1, is_measured=row["provenance"] == "measured"
        )
        for name in _names(study, row["series"]):
            numbers.setdefault((name, _point_text(row)), factor)
    models = ", ".join(dict.fromkeys(study.frame["model"]))
    platforms = ", ".join(dict.fromkeys(study.frame["platform"]))
    answer = check(
        claim,
        numbers,
        source="simulated" if study.is_simulated else "measured",
        of=f"{models} on {platforms}, study {study.name}",
    )
    if not answer.findings or _is_of_the_claims_model(study, experiments):
        return answer
    # A tiny model on cores may stand in for TP 4 and 8: that tests the tool and says nothing of the claim.
    note = f"of {models} on {platforms}, not what the source measured"
    return replace(answer, note="; ".join(filter(None, (note, answer.note))), stands_in=True)


def _is_of_the_claims_model(study: Study, experiments: Path | None) -> bool:
    theirs = set(published.load(study.experiment, root=experiments)["model"].dropna())
    ours = set(study.frame["model"].dropna())
    return not theirs or any(published.is_same_model(one, other) for one in theirs for other in ours)


def _answer(claim: Claim, findings: tuple[Finding, ...], *, source: str, of: str, note: str) -> Answer:
    verdict = combine([finding.verdict for finding in findings])
    return Answer(claim=claim, source=source, of=of, verdict=verdict, findings=findings, note=note)


def _scaled(found: Ratio, unit: float) -> Ratio:
    return Ratio(value=found.value / unit, low=found.low / unit, high=found.high / unit, basis=found.basis)


def _published_factor(row: tables.Row) -> Factor:
    value = float(row["value"])
    low, high = float(row["low"]), float(row["high"])
    return Factor(
        estimate=Estimate(mean=value, low=None, high=None, n=1),
        power=1,
        reading=0.0 if math.isnan(low) or math.isnan(high) else (high - low) / 2 / value,
        is_published=True,
    )


def _names(study: Study, series: str | None) -> tuple[str, ...]:
    """Names under which a claim may speak of a series: the published one goes first."""
    if series is None:
        return ()
    known = study.series.get(series)
    return tuple(name for name in (known.published if known else None, series) if name is not None)


def _point_text(row: tables.Row) -> str:
    """Name the load point of a row of a summary; a bare number is a rate."""
    return (
        load_names.load_point_text(row)
        if row["load_axis"] == load_names.USERS_AXIS
        else str(row["load_point"])
    )


def _load_text(rate: float | None, users: float | None) -> str:
    if rate is not None and not pd.isna(rate):
        return f"{rate:g}"
    return "all at once" if users is None or pd.isna(users) else users_text(int(users))
