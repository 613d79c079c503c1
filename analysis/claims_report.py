"""Claims as tables: one for reading, one for machines, and how they were judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import tables
from analysis.article_claims import CLAIMS, answers
from analysis.claims import Answer, Claim, ClaimKind, Finding
from analysis.markdown import escaped
from analysis.ratios import NOISE, Basis, Ratio, Verdict
from analysis.study import Study
from sweeper.errors import ConfigError
from sweeper.records.plurals import percent
from sweeper.text.numbers import number_text
from sweeper.text.writing import write_answer

METHOD = (
    "A number is the ratio that is claimed, above 1 where the first is more; of a number that the source "
    "states its multiple, of a hit rate the rate itself. A claim holds, or does not, only where its whole "
    "interval does, at every load point. With several engine starts on all sides the interval is Welch's, "
    "95 %, of the logarithm. One measured start has none, so nothing is concluded from it. Modelled and "
    f"published numbers have a margin of {percent(NOISE)} in its place (more where more than two meet, or "
    "where a chart was read). Where published numbers do not bear a claim out, the text and its own figures "
    "disagree; no data means that no figure shows it."
)
"""Said under every table of claims."""

_INTRODUCTION = "What the source says in words, held against its own figures and against runs."

ANOTHER_MODEL = "another model"
"""Said of numbers that test the tool and not the claim."""


def table(found: Sequence[Answer]) -> pd.DataFrame:
    """Return a row per claim, source and load point, for machines.

    Returns:
        Columns ``claim``, ``experiment``, ``statement``, ``where``, ``kind``, ``metric``, ``source``,
        ``of``, ``stands_in`` (of another model than the source's), ``load_point``, ``ratio``, ``low``,
        ``high``, ``basis``, ``verdict`` (at this load point), ``verdict_overall`` and ``note``. A claim
        without data has one row with empty numbers.
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
            "stands_in": answer.stands_in,
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
    """Write answers for reading: a row per claim, a column per source with verdict and ratios.

    What is the same of a whole column, such as its load points, stands in its head. An interval is shown
    where restarts gave it; ``table`` has the others.
    """
    sources = {source: _Shared.of(own) for source, own in _by_source(found).items()}
    rows = []
    for own in _by_claim(found):
        claim = own[0].claim
        cells = {
            shared.head(source): "<br>".join(
                _cell(answer, shared, among=own) for answer in own if answer.source == source
            )
            for source, shared in sources.items()
        }
        rows.append({"claim": f"{escaped(claim.id)}: {escaped(_statement(claim))}", **cells})
    return tables.to_markdown(pd.DataFrame(rows), is_text=True, formatted=list(rows[0]))


def text(studies: Sequence[Study], *, experiments: Path | None = None, earlier: Sequence[Answer] = ()) -> str:
    """Write the claims about the experiments of some studies; about all, on the figures, without any.

    Args:
        studies: Whose numbers are judged.
        experiments: Folder of experiments; None takes the one of this installation.
        earlier: Answers of studies that are not here (``kept``).
    """
    found = with_earlier(answers(studies, experiments=experiments), earlier)
    if not found:
        names = ", ".join(sorted({study.experiment or study.name for study in studies}))
        return f"# Claims\n\nNobody's claims about {names} are on record.\n"
    return page(found) if studies else page(found, data=None)


def page(found: Sequence[Answer], *, data: str | None = "claims.csv") -> str:
    """Write answers as a page: how many claims hold, which, how that was judged, where they are made.

    Args:
        found: The answers; at least one.
        data: File beside the page with ``table``; None where there is none.
    """
    beside = f"Intervals, and each load point's own verdict, are in [{data}]({data})." if data else ""
    parts = (
        "# Claims",
        _INTRODUCTION,
        counts(found),
        beside,
        markdown(found),
        METHOD,
        "## Where they are made",
        wheres(found),
    )
    return "\n\n".join(filter(None, parts)) + "\n"


def counts(found: Sequence[Answer]) -> str:
    """Write how many claims each source's numbers bear out."""
    rows = []
    for source, own in _by_source(found).items():
        of = dict.fromkeys(name for answer in own if answer.findings for name in _of(answer))
        numbers = {str(verdict): sum(answer.verdict is verdict for answer in own) for verdict in Verdict}
        rows.append({"numbers": source, "of": ", ".join(of), **numbers})
    return tables.to_markdown(pd.DataFrame(rows), is_text=True)


def wheres(found: Sequence[Answer]) -> str:
    """List where in the source claims are made, once for those that rest on the same words."""
    alike: dict[str, list[str]] = {}
    for own in _by_claim(found):
        alike.setdefault(own[0].claim.where, []).append(own[0].claim.id)
    return "\n".join(f"- {', '.join(ids)}: {where}" for where, ids in alike.items())


def write(
    studies: Sequence[Study], *, out: Path, experiments: Path | None = None, earlier: Sequence[Answer] = ()
) -> list[Path]:
    """Write ``claims.md`` and ``claims.csv`` into a folder; return both files."""
    reading, data = out / "claims.md", out / "claims.csv"
    write_answer(reading, text(studies, experiments=experiments, earlier=earlier))
    found = with_earlier(answers(studies, experiments=experiments), earlier)
    write_answer(data, table(found).to_csv(index=False, float_format="%.6g"))
    return [reading, data]


def kept(path: Path) -> list[Answer]:
    """Read answers from a ``claims.csv`` that was written before, of studies that may be gone.

    Raises:
        ConfigError: It cannot be read as one. Claims that are on record no more are passed over.
    """
    try:
        rows = pd.read_csv(path, dtype={"load_point": str}, keep_default_na=False, na_values={"low": [""]})
        numbers = rows.assign(**{name: pd.to_numeric(rows[name]) for name in ("ratio", "low", "high")})
        claims = {claim.id: claim for claim in CLAIMS}
        found = []
        for (name, source, of), own in numbers.groupby(["claim", "source", "of"], sort=False):
            if name in claims:
                first = own.iloc[0]
                found.append(
                    Answer(
                        claim=claims[name],
                        source=str(source),
                        of=str(of),
                        verdict=Verdict(first["verdict_overall"]),
                        findings=tuple(_finding(row) for row in own.to_dict("records") if row["load_point"]),
                        note=first["note"],
                        stands_in=bool(first["stands_in"]),
                    )
                )
    except (OSError, KeyError, ValueError) as exc:
        raise ConfigError(
            f"--with: {path} cannot be read as answers ({type(exc).__name__}: {exc}); expected a claims.csv "
            "that 'python -m analysis claims' wrote. Name such a file."
        ) from exc
    return found


def with_earlier(found: Sequence[Answer], earlier: Sequence[Answer]) -> list[Answer]:
    """Return answers claim by claim, with earlier ones where a claim has none from their source."""
    merged = []
    for own in _by_claim(found):
        sources = {answer.source for answer in own}
        claim = own[0].claim.id
        merged += [*own, *(one for one in earlier if one.claim.id == claim and one.source not in sources)]
    return merged


def _finding(row: Mapping[Hashable, Any]) -> Finding:
    value, low, high = (float(row[name]) for name in ("ratio", "low", "high"))
    return Finding(
        load_point=row["load_point"],
        ratio=Ratio(value=value, low=low, high=high, basis=Basis(row["basis"])),
        verdict=Verdict(row["verdict"]),
    )


@dataclass(frozen=True, kw_only=True)
class _Shared:
    """What all answers of a column have in common.

    Attributes:
        marks: What limits them.
        load_points: Of most of them.
    """

    marks: frozenset[str]
    load_points: tuple[str, ...]

    @classmethod
    def of(cls, found: Sequence[Answer]) -> _Shared:
        """Find it; answers without data say nothing."""
        told = [answer for answer in found if answer.findings]
        points = Counter(_load_points(answer) for answer in told)
        return cls(
            marks=frozenset.intersection(*map(_marks, told)) if told else frozenset(),
            load_points=points.most_common(1)[0][0] if points else (),
        )

    def head(self, source: str) -> str:
        """Return the column's head."""
        points = f" at {', '.join(self.load_points)}" if self.load_points else ""
        return ", ".join([source, *sorted(self.marks)]) + points


def _cell(answer: Answer, shared: _Shared, *, among: Sequence[Answer]) -> str:
    """Write an answer; with its study's name where another one of the same source stands beside it."""
    alone = sum(other.source == answer.source for other in among) == 1
    name = "" if alone else f"{escaped(answer.of.rpartition(', study ')[2])}: "
    marks = sorted(_marks(answer) - shared.marks)
    told = f"{name}**{answer.verdict}**" + (f" ({', '.join(marks)})" if marks else "")
    if answer.findings:
        is_plain = _load_points(answer) == shared.load_points
        return f"{told} {', '.join(_number_text(one, is_plain=is_plain) for one in answer.findings)}"
    is_own_reason = answer.note and answer.source != "published" and answer.claim.open_reason is None
    return f"{told}: {escaped(answer.note)}" if is_own_reason else told


def _marks(answer: Answer) -> frozenset[str]:
    bases = {finding.ratio.basis for finding in answer.findings}
    single = {str(Basis.SINGLE_START)} if Basis.SINGLE_START in bases else set()
    return frozenset(single | ({ANOTHER_MODEL} if answer.stands_in else set()))


def _load_points(answer: Answer) -> tuple[str, ...]:
    return tuple(finding.load_point for finding in answer.findings)


def _number_text(finding: Finding, *, is_plain: bool) -> str:
    found = finding.ratio
    interval = f" ({_number(found.low)} to {_number(found.high)})" if found.basis is Basis.RESTARTS else ""
    return ("" if is_plain else f"{finding.load_point}: ") + _number(found.value) + interval


def _statement(claim: Claim) -> str:
    reading = " (our reading)" if claim.kind is ClaimKind.READING else ""
    return claim.statement + reading + (f" ({claim.open_reason})" if claim.open_reason else "")


def _of(answer: Answer) -> Sequence[str]:
    of = answer.of.partition(", study ")[0]
    return [f"{of} (not what the source measured)"] if answer.stands_in else of.split(", ")


def _by_source(found: Sequence[Answer]) -> dict[str, list[Answer]]:
    by_source: dict[str, list[Answer]] = {}
    for answer in found:
        by_source.setdefault(answer.source, []).append(answer)
    return by_source


def _by_claim(found: Sequence[Answer]) -> list[list[Answer]]:
    by_claim: dict[str, list[Answer]] = {}
    for answer in found:
        by_claim.setdefault(answer.claim.id, []).append(answer)
    return list(by_claim.values())


def _number(value: float) -> str:
    return f"{value:.3f}" if value < 10 else number_text(value)
