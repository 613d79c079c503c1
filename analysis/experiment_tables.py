"""The simulated figures on the pages of ``experiments/``: a table of requests per second, and mean errors.

Both are written anew in place, from the model as it is; what people wrote around them is kept.
"""

from __future__ import annotations

import re
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sweeper import published
from sweeper.calibrate import article
from sweeper.errors import ConfigError, EngineError, nearest
from sweeper.records import LoadPoint
from sweeper.records.metrics import BY_NAME
from sweeper.simulation import calibration
from sweeper.text.tables import markdown_table
from sweeper.text.writing import write_answer
from sweeper.trial import trial

_TABLE = re.compile(r"^\| simulated, requests/s \|.*?(?=\n\n)", re.DOTALL | re.MULTILINE)
_ERRORS = "Mean error of the simulated figures against the published ones: "
_PARAGRAPH = re.compile(rf"^{_ERRORS}(?P<told>.*?\)\.)(?P<rest>.*?)(?=\n\n)", re.DOTALL | re.MULTILINE)
_WIDTH = 112

_WORDS = {
    **calibration.METRICS,
    **{
        name: BY_NAME[name].words
        for name in ("total_throughput_tok_per_s", "output_throughput_tok_per_s", "mean_e2el_ms")
    },
}

Told = Mapping[tuple[str, LoadPoint], Mapping[str, float | None]]
"""Metrics by trial key and load point."""


def renew(names: Sequence[str] = (), *, root: Path | None = None) -> list[Path]:
    """Run experiments on the model and write their simulated figures into their pages.

    Args:
        names: Of experiments; none takes every one whose page has such figures.
        root: Folder of experiments; None takes the one of this installation.

    Returns:
        The pages that were written.

    Raises:
        ConfigError: An experiment has no page with such figures.
    """
    folder = root or published.experiments_folder()
    known = [path.parent.name for path in sorted(folder.glob("*/README.md")) if _has_figures(path)]
    for name in names:
        if name not in known:
            raise ConfigError(
                f"experiment-tables: '{name}' has no page with simulated figures.{nearest(name, known)} "
                f"Known: {', '.join(known)}."
            )
    written = []
    for name in names or known:
        page = folder / name / "README.md"
        told = run(name)
        text = page.read_text(encoding="utf-8")
        new = renewed(text, table=table(name, told), errors=errors(name, told))
        written.append(write_answer(page, new))
    return written


def renewed(text: str, *, table: str, errors: str) -> str:
    """Return a page with its simulated figures exchanged.

    Args:
        text: The page, in Markdown.
        table: The new table.
        errors: The new sentence of errors, from its first metric to its full stop.
    """
    text = _TABLE.sub(lambda _: table, text)
    return _PARAGRAPH.sub(lambda old: _paragraph(old, errors), text)


def run(name: str) -> Told:
    """Run every trial of an experiment that can be modelled, as a study does, with the default calibration.

    Raises:
        EngineError: A trial failed.
    """
    told: dict[tuple[str, LoadPoint], Mapping[str, float | None]] = {}
    with tempfile.TemporaryDirectory(prefix="sweeper-tables-") as folder:
        for job, placement in article.jobs(name):
            result = trial.run(replace(job.spec, folder=folder), placement, cancelled=lambda: False)
            if result.failure_class is not None:
                raise EngineError(
                    f"{name}: {job.spec.label} failed: {result.failure_message}", failure=result.failure_class
                )
            told |= {(job.spec.key, m.load_point): m.metrics for m in result.measurements}
    return told


def table(name: str, told: Told) -> str:
    """Return requests per second of each series at each rate, as a table in Markdown."""
    rows: dict[str, list[str]] = {}
    rates: list[str] = []
    for spec, _, series in article.modelled_series(name):
        points = [p for p in spec.load_points if p.keeps_prefix_cache == (series.run == "second")]
        values = [told[spec.key, point]["request_throughput_per_s"] or 0.0 for point in points]
        rows[series.name] = [f"`{series.name}`", *(f"{value:.2f}" for value in values)]
        rates = [_rate_text(point) for point in points]
    order = [series.name for series in article.composed(name).space.series]
    return markdown_table(
        ["simulated, requests/s", *rates], [rows[name] for name in sorted(rows, key=order.index)]
    )


def errors(name: str, told: Told) -> str:
    """Say the mean and the largest error of each published metric; empty where nothing is to be compared."""
    figures = article.experiment_figures(name, metrics=_WORDS)
    parts = []
    for metric, words in _WORDS.items():
        off = [
            abs((told[figure.spec.key, figure.point][metric] or 0.0) / figure.value - 1)
            for figure in figures
            if figure.metric == metric
        ]
        if off:
            mean, most = 100 * sum(off) / len(off), 100 * max(off)
            count = "1 figure" if len(off) == 1 else f"{len(off)} figures"
            parts.append(f"{words} {mean:.1f} % (of {count}, at most {most:.0f} %)")
    return f"{'; '.join(parts)}." if parts else ""


def _paragraph(old: re.Match[str], told: str) -> str:
    whole = " ".join((_ERRORS + told + old["rest"]).split())
    return textwrap.fill(whole, _WIDTH, break_on_hyphens=False, break_long_words=False)


def _rate_text(point: LoadPoint) -> str:
    return "all at once" if point.request_rate_per_s is None else f"{point.request_rate_per_s:g} QPS"


def _has_figures(page: Path) -> bool:
    text = page.read_text(encoding="utf-8")
    return bool(_TABLE.search(text) or _PARAGRAPH.search(text))
