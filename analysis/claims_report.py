"""Claims as tables: one for reading, one for machines, and how they were judged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis import tables
from analysis.article_claims import answers
from analysis.claims import Answer
from analysis.ratios import NOISE, Basis, Ratio
from analysis.study import Study
from sweeper.text.writing import write_answer

METHOD = (
    "How to read it: the ratio is what the claim compares, above 1 where the first is more; of a number that "
    "the source states it is the multiple; of a hit rate the rate itself. A claim holds, or does not, only "
    "where its whole interval does, and for every load point. With several engine starts on all sides the "
    "interval is Welch's, 95 %, of the logarithm of the ratio. One measured start has none, so nothing is "
    f"concluded from it; of modelled and published numbers a margin of {NOISE:.0%} stands for it (more where "
    "more than two meet). 'single start' says so of all three. "
    "Published values are single starts of which no spread is known; where they were read off a chart, the "
    "uncertainty of reading is added."
)
"""Said under every table of claims."""


def table(found: Sequence[Answer]) -> pd.DataFrame:
    """Return a row per claim, source and load point, for machines.

    Returns:
        Columns ``claim``, ``experiment``, ``statement``, ``where``, ``kind``, ``metric``, ``source``,
        ``of``, ``load_point``, ``ratio``, ``low``, ``high``, ``basis``, ``verdict`` (at this load point),
        ``verdict_overall`` and ``note``. A claim without data has one row with empty numbers.
    """
    rows = []
    for answer in found:
        shared = {
            "claim": answer.claim.id,
            "experiment": answer.claim.experiment,
            "statement": answer.claim.statement,
            "where": answer.claim.where,
            "kind": str(answer.claim.kind),
            "metric": answer.claim.metric,
            "source": answer.source,
            "of": answer.of,
        }
        closing = {"verdict_overall": str(answer.verdict), "note": answer.note}
        for finding in answer.findings:
            numbers = {
                "load_point": finding.load_point,
                "ratio": finding.ratio.value,
                "low": finding.ratio.low,
                "high": finding.ratio.high,
                "basis": str(finding.ratio.basis),
                "verdict": str(finding.verdict),
            }
            rows.append(shared | numbers | closing)
        if not answer.findings:
            empty = dict.fromkeys(("load_point", "ratio", "low", "high", "basis"))
            rows.append(shared | empty | {"verdict": str(answer.verdict)} | closing)
    return pd.DataFrame(rows)


def markdown(found: Sequence[Answer]) -> str:
    """Write answers for reading: per claim a line for each source."""
    lines = [
        {
            "claim": f"{answer.claim.id}: {answer.claim.statement}",
            "numbers": answer.source,
            "verdict": f"**{answer.verdict}**{_basis(answer)}",
            "ratio (interval) per load point": _ratios(answer),
            "note": answer.note,
        }
        for answer in found
    ]
    return tables.to_markdown(pd.DataFrame(lines), is_text=True, formatted=["verdict"])


def text(studies: Sequence[Study], *, experiments: Path | None = None) -> str:
    """Write the claims about the experiments of some studies; about all, on the figures, without any."""
    found = answers(studies, experiments=experiments)
    if not found:
        names = ", ".join(sorted({study.experiment or study.name for study in studies}))
        return f"# Claims\n\nNobody's claims about {names} are on record.\n"
    sources = dict.fromkeys(f"- {answer.source}: {answer.of}" for answer in found if answer.findings)
    return "\n\n".join(("# Claims", "\n".join(sources), markdown(found), METHOD, wheres(found))) + "\n"


def wheres(found: Sequence[Answer]) -> str:
    """List where in the source each claim is made."""
    unique = {answer.claim.id: answer.claim for answer in found}
    return "\n".join(f"- {claim.id}: {claim.where}" for claim in unique.values())


def write(studies: Sequence[Study], *, out: Path, experiments: Path | None = None) -> list[Path]:
    """Write ``claims.md`` and ``claims.csv`` into a folder; return both files."""
    reading, data = out / "claims.md", out / "claims.csv"
    write_answer(reading, text(studies, experiments=experiments))
    write_answer(data, table(answers(studies, experiments=experiments)).to_csv(index=False))
    return [reading, data]


def _basis(answer: Answer) -> str:
    bases = {finding.ratio.basis for finding in answer.findings}
    return f" ({Basis.SINGLE_START})" if Basis.SINGLE_START in bases else ""


def _ratios(answer: Answer) -> str:
    return "; ".join(
        f"{finding.load_point}: {_number(finding.ratio.value)} ({_interval(finding.ratio)})"
        for finding in answer.findings
    )


def _interval(ratio: Ratio) -> str:
    return f"{_number(ratio.low)} to {_number(ratio.high)}" if ratio.has_interval else "no interval"


def _number(value: float) -> str:
    return f"{value:.3f}" if value < 10 else tables.number_text(value)
