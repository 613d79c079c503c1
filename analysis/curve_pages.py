"""The curve in a report: its picture, the sentence that it answers with, and the table of its frontier.

A study's report has it, and a comparison of studies: there each keeps its name, its frontier and its
provenance, and none is pooled with another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis import curve_chart, figures, serving, standings, style, tables
from analysis.curve import OVERALL, PER_GPU, STREAMING, Curve, curves
from analysis.markdown import code_block, escaped
from analysis.page import Words
from analysis.ratios import NOISE
from analysis.study import Study
from sweeper.records import users_text
from sweeper.records.plurals import amount, percent
from sweeper.text.numbers import number_text
from sweeper.text.printable import shortened

_SPEED_WORDS = (
    "Per user while the answer streams: 1000 / median time per output token, as InferenceX draws it; over "
    "the whole request: output tokens per second of the run / users, as vLLM does. Numbers at the points: "
    "users, the requests under way at once."
)
_LONGEST_ALTERNATIVE = 300
_BY_MEDIAN = "The shaded axis is of medians: near the edge of a bound on another statistic the marks decide."


def write(studies: Sequence[Study], *, folder: Path, names: Sequence[str] = ()) -> list[Path]:
    """Draw the curves of a study, or those that several share, with their data beside them.

    Args:
        studies: One, or those to be drawn into one chart.
        folder: Where the files go: ``curve.png``, ``.svg`` and ``.csv``; of several loads ``curve_1`` on.
        names: What to call the studies; by default as they are called.

    Returns:
        The files written; none where there is no curve (``curve.curves``).
    """
    written: list[Path] = []
    found = curves(studies, names=names)
    for place, curve in enumerate(found):
        with style.chart_style():
            figure = curve_chart.draw(curve, words=_words(curve, studies, names))
        written += figures.save(figure, curve.points, folder / _stem(found, place))
    return written


def section(
    studies: Sequence[Study], *, drawn: Sequence[Path], beside: Path, names: Sequence[str] = ()
) -> str:
    """Return the section on the curves as Markdown; nothing where there is none.

    Args:
        studies: As in ``write``.
        drawn: What ``write`` gave, perhaps among other files.
        beside: Folder of the report, for the links to the pictures.
        names: As in ``write``.
    """
    found = curves(studies, names=names)
    if not found:
        return ""
    pictures = {path.stem: path.relative_to(beside) for path in drawn if path.suffix == ".png"}
    parts = [f"## {title(found[0])}"]
    for place, curve in enumerate(found):
        picture = pictures.get(_stem(found, place))
        parts += [f"### {escaped(curve.load)}"] if curve.load else []
        parts += [f"![{escaped(alternative(curve))}]({picture.as_posix()})"] if picture else []
        parts += [sentence(curve, study) for study in dict.fromkeys(curve.points["study"])]
        parts += [_to_serve(curve, studies[0])] if len(studies) == 1 else []
        parts += [tables.to_markdown(frontier_table(curve)), _frontier_text(curve)]
        parts += [f"{bunched_text(curve)} Measure again on a machine that is less busy."] * (
            not curve.bunched.empty
        )
    return "\n\n".join(part for part in parts if part)


def title(curve: Curve) -> str:
    """Return the title of a curve's chart and section."""
    return f"Tokens per second: {_of(curve.unit)} against per user"


def alternative(curve: Curve) -> str:
    """Describe the picture to whom does not see it."""
    origin = "simulated" if curve.is_simulated else "measured"
    users = sorted(set(curve.known(OVERALL)["users"]))
    settings = ", ".join(dict.fromkeys(curve.points["setting"]))
    words = f"{title(curve)}, {origin}, {users[0]} to {amount(users[-1], 'user')}, for {settings}"
    return shortened(words, _LONGEST_ALTERNATIVE).replace("[", "(").replace("]", ")")


def sentence(curve: Curve, study: str) -> str:
    """Say which point gives the most per GPU within the bounds, and what its users get."""
    several = curve.points["study"].nunique() > 1
    where = f"`{study}`: " if several else ""
    bounds = curve_chart.bounds_text(curve.bounds)
    best = curve.best(study)
    if best is None:
        return f"{where}No point keeps {escaped(bounds)}." if bounds else ""
    within = f"within {escaped(bounds)}" if bounds else "without a bound on what a user waits"
    first = best["median_ttft_ms"]
    waits = "" if math.isnan(first) else f"; half of the first tokens come after {number_text(first)} ms"
    is_known = not best["is_bunched"] and not math.isnan(best[STREAMING])
    streams = f"{_number(best, STREAMING)} while the answer streams and " if is_known else ""
    return (
        f"{where}The most {_of(curve.unit)} {within} gives **{escaped(best['setting'])}** at "
        f"{_users(best)}: {_number(best, PER_GPU)} output tokens per second. A user gets {streams}"
        f"{_number(best, OVERALL)} over the whole request{waits}."
    )


def bunched_text(curve: Curve) -> str:
    """Say which points are left out of the stream's panel; empty where none is."""
    where = [f"{row['setting']} at {_users(row)}" for row in curve.bunched.to_dict("records")]
    if not where:
        return ""
    return f"Left out while streaming, for the tokens reached the client in bunches: {', '.join(where)}."


def _to_serve(curve: Curve, study: Study) -> str:
    """Return the command of the named setting, where it is not the best one, whose command is told there."""
    point = curve.best(curve.points["study"].iloc[0])
    if point is None or point["trial_key"] in set(standings.best(study)["trial_key"]):
        return ""
    line = serving.serve_line(study.frame, str(point["trial_key"]))
    return f"To serve with it:\n\n{code_block(line)}" if line else ""


def frontier_table(curve: Curve) -> pd.DataFrame:
    """Lay the frontier over the whole request out, the most per GPU first; equal points share a line."""
    found = curve.frontier(OVERALL)
    several = found["study"].nunique() > 1
    lines = []
    for _, group in found.groupby(["study", "users", PER_GPU, OVERALL], sort=False):
        row = group.iloc[0].to_dict()
        others = len(group) - 1
        lines.append(
            {
                **({"study": row["study"]} if several else {}),
                "setting": f"{row['setting']}{f' (and {others} equal to it)' if others else ''}",
                "users": str(row["users"]),
                _of(curve.unit): _number(row, PER_GPU),
                "per user, streaming": "in bunches" if row["is_bunched"] else _number(row, STREAMING),
                "per user, whole request": _number(row, OVERALL),
                "median TTFT (ms)": _number(row, "median_ttft_ms"),
                "breaks": row["breaks"],
            }
        )
    shown = pd.DataFrame(lines)
    return shown if (shown["breaks"] != "").any() else shown.drop(columns="breaks")


def _frontier_text(curve: Curve) -> str:
    several = curve.points["study"].nunique() > 1
    starts = curve.frontier(OVERALL)["n"]
    once = (
        " Started once each, so there is no interval: neighbours may change places when measured again."
        if (starts == 1).all() and not curve.is_simulated
        else ""
    )
    held = (
        f" Each point is held against the bounds by itself; of those within {percent(NOISE)} of the most "
        f"{_of(curve.unit)} the one is named whose users get the most."
        if curve.bounds
        else ""
    )
    return (
        f"The frontier: no other point{' of the same study' if several else ''} gives both a {curve.unit} "
        f"and a user as much, waiting included. Tokens are output tokens per second.{held}{once}"
    )


def _number(row: tables.Row, name: str) -> str:
    if math.isnan(row[name]):
        return "no value"
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    has_interval = low is not None and not math.isnan(low) and high is not None
    spread = f" ± {number_text((high - low) / 2)}" if has_interval and high is not None else ""
    return f"{number_text(row[name])}{spread}"


def _users(row: tables.Row) -> str:
    return users_text(int(row["users"]))


def _of(unit: str) -> str:
    return "of the endpoint" if unit == "endpoint" else f"per {unit}"


def _stem(found: Sequence[Curve], place: int) -> str:
    return "curve" if len(found) == 1 else f"curve_{place + 1}"


# ---- words around the picture ----


def _words(curve: Curve, studies: Sequence[Study], names: Sequence[str]) -> Words:
    shaded = [bound for bound in curve.bounds if curve_chart.area_of(bound, unit=curve.unit)]
    is_other = any(not bound.metric.startswith(("median_", "p50_", "output_")) for bound in shaded)
    captions = [_caption(curve, study, name) for study, name in _named(studies, names)]
    subtitle = studies[0].question or studies[0].name if len(studies) == 1 else "Studies side by side"
    return Words(
        title=title(curve),
        note="up and to the right is better",
        subtitle=f"{subtitle} ({curve.load})" if curve.load else subtitle,
        caption=" ".join(
            filter(
                None,
                [
                    *captions,
                    _SPEED_WORDS,
                    is_other * _BY_MEDIAN,
                    bunched_text(curve),
                    curve_chart.predicted_text(curve),
                ],
            )
        ),
        band=_band(studies, names),
    )


def _caption(curve: Curve, study: Study, name: str) -> str:
    mine = curve.points[curve.points["study"] == name].assign(published_value=math.nan, load_point="")
    if mine.empty:
        return ""
    text = figures.caption_of(study, mine)
    return text.replace(f"Study {study.name},", f"Study {name},", 1)


def _band(studies: Sequence[Study], names: Sequence[str]) -> str:
    simulated = [name for study, name in _named(studies, names) if study.is_simulated]
    if len(simulated) == len(studies):
        return figures.SIMULATED_BAND
    are = "is" if len(simulated) == 1 else "are"
    return f"{', '.join(simulated)} {are} SIMULATED - no GPU was measured for it" if simulated else ""


def _named(studies: Sequence[Study], names: Sequence[str]) -> list[tuple[Study, str]]:
    return list(zip(studies, names or [study.name for study in studies], strict=True))
