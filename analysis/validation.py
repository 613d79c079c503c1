"""The validation page: what the simulated MI300X says of every published figure, and how far off it is.

Fitted figures and others are kept apart throughout; only the latter say how far to trust a number that was
not measured. The page is made from the model itself, so it is true of the parameters that a study gets today.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path

import pandas as pd

from analysis import validation_chart
from sweeper.calibrate import article
from sweeper.calibrate.figures import FIT, VALIDATION, Figure, predict
from sweeper.calibrate.judging import LONG_TTFT_MS, counts
from sweeper.errors import EngineError
from sweeper.records.metrics import Kind, fitted
from sweeper.records.plurals import percent
from sweeper.simulation import calibration
from sweeper.simulation.calibration import METRICS, WORDS, NamedCalibration
from sweeper.text.numbers import number_text
from sweeper.text.tables import markdown_table
from sweeper.text.writing import write_answer

BARS_PCT = {
    metric.name: metric.fit.bar_pct
    for metric in fitted(Kind.SERVER)
    if metric.fit is not None and metric.fit.bar_pct is not None
}
"""Mean absolute error on figures not fitted that the model is meant to stay below."""

ORDER_BAR = 0.9
"""Share of pairs of series whose order is meant to be right."""

CLEARLY_APART = 0.05
"""Relative difference from which on the order of two published series says something."""

_SEEDS = (0, 1, 2)
_WORST = 6

_HEAD = """\
# How good the simulated MI300X is

{verdict}

Written by `python -m analysis validation` from the model and the published figures; nothing here was
measured by this project. Calibration: `{name}`, of {made}. {about}

{fitted} figures of Cases 1 to 3, and for each of {effects} single effects those of one request rate, were
used to fit the parameters. The {others} not fitted are Cases 4 to 8 at the other rates and the
introduction. It is no blind test: the figures were known when the form of the model was chosen. A
configuration that several cases repeat counts once.
"""

_REASONS = (
    (
        "case4_capture_len",
        "A long capture length costs along one straight line, fitted at 1000 QPS; the article sees 4096 to "
        "16384 alike.",
    ),
    ("case5_amd_env", "In the article it is 1 %, within what a restart moves."),
    ("case6_kv_cache_dtype", "The cost is one factor on decode attention."),
    (
        "case7_tensor_parallel",
        "Matrix times halve with twice the GPUs, and a step on more processes costs nothing to start: the "
        "article's 8 GPUs wait longer for the first token.",
    ),
    (
        "case8_max_num_seqs",
        "With 512 and 1024 places a run is one wave of decodes: it depends on the dataset's longest answers, "
        "which are not published, and on batches that nothing was fitted to.",
    ),
    (
        "intro_405b",
        "Another model on 8 GPUs, with the efficiencies of the 70B; FP8 kernels have one factor, from 1000 "
        "QPS. No TPOT was published.",
    ),
    (
        "intro_70b",
        "Caption (8 GPUs, followed here) and quick start (4 GPUs) disagree; 13.3 requests/s are close to "
        "Case 8's on 4.",
    ),
)

_NOT_EXPECTED = """\
## What it does not know

- The article's default is slower at 16 QPS than at 32 and 1000, which a steady server cannot be; it may
  have been the first run after a start. Its 16 QPS figures count as fitted, and are not fitted to.
- The article states no restarts, spread or number of prompts (the script's default is taken). Each figure
  is one run; Case 2's 10 steps and Case 4's 8192 are the same numbers.
- ShareGPT's lengths are a distribution, not the file.
- No run of a partitioned GPU has been compared, none of a mixture of experts was fitted to, and of V1
  hardly one was online ([predictions](predictions.md)).
"""


def write(out: Path, *, name: str | None = None) -> list[Path]:
    """Write ``validation.md``, its chart (PNG, SVG) and its data (CSV) into a folder.

    Args:
        out: The folder.
        name: Calibration to judge; None is the one that studies get.

    Raises:
        ConfigError: There is no such calibration.
        StoreError: A ``published.csv`` cannot be read.
    """
    chosen = calibration.load(name)
    figures = article.article_figures()
    table = compared(figures, chosen)
    data = write_answer(
        out / "validation.csv", table.drop(columns="identity").to_csv(index=False, float_format="%.6g")
    )
    drawn = validation_chart.write(table, out, name=chosen.name)
    page = write_answer(out / "validation.md", text(chosen, figures, table))
    return [page, data, *drawn]


def compared(figures: Sequence[Figure], chosen: NamedCalibration, *, seed: int | None = None) -> pd.DataFrame:
    """Return a row per figure: where it stands, its role, what was published and what the model says."""
    rows = [
        {
            "experiment": figure.experiment,
            "series": figure.series,
            "request_rate_per_s": figure.point.request_rate_per_s,
            "metric": figure.metric,
            "published": figure.value,
            "low": figure.low,
            "high": figure.high,
            "predicted": value,
            "error": value / figure.value - 1,
            "role": figure.role,
            "fitted_parameter": figure.parameter,
            "counts": counts(figure),
            "identity": article.identity(figure),
        }
        for figure, value in zip(figures, predict(figures, chosen.values, seed=seed), strict=True)
    ]
    return pd.DataFrame(rows)


def mean_errors_pct(table: pd.DataFrame, role: str) -> dict[str, float]:
    """Return the mean absolute error of each metric, percent; a short TTFT does not take part."""
    own = table[(table["role"] == role) & table["counts"]]
    means = own["error"].abs().groupby(own["metric"]).mean() * 100
    return {metric: float(means[metric]) for metric in METRICS if metric in means}


def pairs(
    table: pd.DataFrame, *, experiments: Sequence[str] = (*article.FITTED, *article.VALIDATED)
) -> pd.DataFrame:
    """Return each pair of series of a chart and rate that clearly differ, and whether their order is right.

    Recurring series stand in every chart that shows them. A pair of which one series was not fitted counts
    as validation.
    """
    known = table.set_index("identity")
    rows = []
    for name in experiments:
        charts: dict[tuple[str, float | None], list[Figure]] = {}
        for figure in article.experiment_figures(name):
            charts.setdefault((figure.metric, figure.point.request_rate_per_s), []).append(figure)
        for (metric, rate), shown in charts.items():
            asked = [(figure, article.identity(figure)) for figure in shown]
            found = [(figure, known.loc[key]) for figure, key in asked if key in known.index]
            for (one, ours), (other, theirs) in combinations(found, 2):
                if abs(one.value / other.value - 1) <= CLEARLY_APART:
                    continue
                is_right = (one.value > other.value) == bool(ours["predicted"] > theirs["predicted"])
                rows.append(
                    {
                        "experiment": name,
                        "metric": metric,
                        "request_rate_per_s": rate,
                        "one": one.series,
                        "other": other.series,
                        "is_right": is_right,
                        "role": VALIDATION if VALIDATION in (ours["role"], theirs["role"]) else FIT,
                    }
                )
    return pd.DataFrame(rows)


def text(chosen: NamedCalibration, figures: Sequence[Figure], table: pd.DataFrame) -> str:
    """Return the page as Markdown."""
    together = [figure for figure in figures if figure.role == FIT and not figure.parameter]
    others = [figure for figure in figures if figure.role == VALIDATION]
    parts = [
        _HEAD.format(
            verdict=_verdict(table),
            name=chosen.name,
            made=chosen.made,
            about=chosen.about,
            fitted=len(together),
            effects=len(article.EFFECTS),
            others=len(others),
        ),
        _summary(table),
        "![Predicted against published figures](validation.png)\n\n"
        "Every figure, published and predicted: [validation.csv](validation.csv).",
        _seeds(figures, chosen, table),
        _order(table),
        _failures(table),
        _NOT_EXPECTED.strip(),
        _parameters(chosen),
        _other_engine(),
        _beyond(chosen),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _other_engine() -> str:
    other = calibration.load(generation="v1")
    rows = [
        [WORDS[metric], *(f"{other.errors_pct[role][metric]:.1f} %" for role in (FIT, VALIDATION))]
        for metric in other.errors_pct[VALIDATION]
    ]
    head = ["mean absolute error", "fitted: 70B and 405B FP8", "not fitted: 405B, from 70B alone"]
    return (
        "## Other stacks\n\nA calibration is of a stack, and a run gets the nearest ([all of "
        f"them](predictions.md)). For V1 on an MI300X that is `{other.name}`: {other.about} Nothing served "
        f"online was fitted to.\n\n{_table(head, rows)}"
    )


def _verdict(table: pd.DataFrame) -> str:
    """Say in a sentence how far the model is off where nothing was fitted to it."""
    errors, found = mean_errors_pct(table, VALIDATION), pairs(table)
    told = ", ".join(f"{errors[metric]:.1f} % in {words}" for metric, words in METRICS.items())
    right = found[found["role"] == VALIDATION]["is_right"].mean()
    return (
        f"On figures of the article that it was not fitted to, the model is off by {told} on average, and "
        f"orders {percent(right)} of clearly different settings as the article does. Beyond the article, see "
        "[predictions](predictions.md)."
    )


def _summary(table: pd.DataFrame) -> str:
    rows = []
    for metric, words in METRICS.items():
        own = table[(table["metric"] == metric) & table["counts"]]
        by_role = own["role"].value_counts()
        fit, other = (mean_errors_pct(table, role)[metric] for role in (FIT, VALIDATION))
        verdict = "kept" if other <= BARS_PCT[metric] else "missed"
        rows.append(
            [
                words,
                f"{fit:.1f} % ({by_role[FIT]})",
                f"**{other:.1f} %** ({by_role[VALIDATION]})",
                f"{BARS_PCT[metric]:.0f} %: {verdict}",
            ]
        )
    head = ["mean absolute error", "fitted (figures)", "not fitted (figures)", "bar"]
    return (
        f"{_table(head, rows)}\n\nA mean TTFT counts from {LONG_TTFT_MS / 1000:.0f} s on: shorter ones were "
        "read off charts of half a minute, with errors of a tenth to a half."
    )


def _seeds(figures: Sequence[Figure], chosen: NamedCalibration, table: pd.DataFrame) -> str:
    rows = []
    for seed in _SEEDS:
        drawn = table if seed == 0 else compared(figures, chosen, seed=seed)
        errors = [mean_errors_pct(drawn, role) for role in (FIT, VALIDATION)]
        rows.append([str(seed), *(f"{error[metric]:.1f} %" for error in errors for metric in METRICS)])
    head = ["seed", *(f"{role}: {words}" for role in ("fitted", "not fitted") for words in METRICS.values())]
    return (
        "## Other samples of requests\n\nFitted at seed 0; another seed draws other lengths and arrivals.\n\n"
        f"{_table(head, rows)}"
    )


def _order(table: pd.DataFrame) -> str:
    found = pairs(table)
    rows = []
    for name in (*article.FITTED, *article.VALIDATED):
        own = found[found["experiment"] == name]
        if own.empty:
            continue
        wrong = own[~own["is_right"]]
        named = ", ".join(dict.fromkeys(f"{row.one}/{row.other}" for row in wrong.itertuples()))
        rows.append([f"`{name}`", percent(own["is_right"].mean()), str(len(own)), named])
    shares = {role: found[found["role"] == role]["is_right"] for role in (FIT, VALIDATION)}
    verdict = "kept" if shares[VALIDATION].mean() >= ORDER_BAR else "missed"
    return (
        f"## Order of series\n\nOf the pairs of series of one chart and rate that differ by more than "
        f"{percent(CLEARLY_APART)}, the order is right in {percent(shares[FIT].mean(), '.1')} of "
        f"{len(shares[FIT])} fitted and **{percent(shares[VALIDATION].mean(), '.1')}** of "
        f"{len(shares[VALIDATION])} others, where at least one of the two was not fitted "
        f"(bar {percent(ORDER_BAR)}: {verdict}).\n\n"
        f"{_table(['chart', 'right', 'pairs', 'wrong'], rows)}"
    )


def _failures(table: pd.DataFrame) -> str:
    others = table[(table["role"] == VALIDATION) & table["counts"]]
    rows = []
    for name, reason in _REASONS:
        own = others[others["experiment"] == name]
        errors, errors_of = own["error"], own["metric"]
        spans = [_span(errors[errors_of == metric].tolist()) for metric in METRICS]
        rows.append([f"`{name}`", *spans, reason])
    worst = others.reindex(others["error"].abs().sort_values(ascending=False).index).head(_WORST)
    lines = [
        [
            f"`{row['experiment']}`",
            row["series"],
            f"{row['request_rate_per_s']:g}",
            METRICS[row["metric"]],
            number_text(row["published"]),
            number_text(row["predicted"]),
            percent(row["error"], "+.0"),
        ]
        for row in worst.to_dict("records")
    ]
    head = ["experiment", "series", "QPS", "metric", "published", "predicted", "error"]
    return (
        "## Where it fails, and why\n\nErrors of the figures that were not fitted, lowest to highest.\n\n"
        f"{_table(['experiment', *METRICS.values(), 'why'], rows)}\n\nThe {_WORST} worst of them:\n\n"
        f"{_table(head, lines)}"
    )


def _parameters(chosen: NamedCalibration) -> str:
    values: dict[str, list[str]] = {}
    for name, value in asdict(chosen.calibration).items():
        values.setdefault(chosen.fitted.get(name, "assumed"), []).append(f"`{name}` {value:.4g}")
    told = "\n".join(f"- {source}: {', '.join(own)}" for source, own in values.items())
    return (
        "## Parameters, by what they were fitted to\n\nTheir meaning stands in "
        f"`sweeper/simulation/calibration.py`; what is assumed was compared with nothing.\n\n{told}"
    )


def _beyond(chosen: NamedCalibration) -> str:
    """Compare with figures of others, which no part of the model was made for."""
    rows = []
    for name in article.BEYOND:
        figures = article.experiment_figures(name)
        for metric, words in METRICS.items():
            own = [figure for figure in figures if figure.metric == metric]
            if not own:
                continue
            try:
                predicted = predict(own, chosen.values)
            except EngineError as exc:
                rows.append([f"`{name}`", words, str(len(own)), f"cannot be modelled: {exc}", ""])
                continue
            errors = [value / figure.value - 1 for figure, value in zip(own, predicted, strict=True)]
            mean = sum(map(abs, errors)) / len(errors)
            rows.append([f"`{name}`", words, str(len(own)), percent(mean), _span(errors)])
    return (
        "## Beyond the article\n\nFigures of another model, release, dataset or attention kernel, to which "
        "nothing was fitted: do not trust the model there. Rows of such a study say that their error is "
        f"unknown.\n\n{_table(['experiment', 'metric', 'figures', 'mean absolute error', 'errors'], rows)}"
    )


def _span(errors: Sequence[float]) -> str:
    """Write the lowest and the highest error, and one only where they read alike."""
    return " to ".join(dict.fromkeys(percent(end(errors), "+.0") for end in (min, max))) if errors else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return markdown_table(head, rows, rule=["---"] * len(head))
