"""An article from studies: a folder that a site generator takes as it is.

``index.md`` has front matter, the question, the environment, the figures with alternative text, the tables,
the claims and the commands to repeat it all; links are relative and figures are copied in. What the numbers
mean is left to its author.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from analysis import best_section, curve_pages, figures, origins, report, serving, standings, tables
from analysis.markdown import code_block, escaped
from analysis.study import Study, distinct_names
from sweeper.text.printable import shortened
from sweeper.text.writing import write_answer

# Overrides that name places on the machine of the user who ran it: of no use to a reader.
_PRIVATE = {"engine.python": "engine.python=/path/to/vllm/bin/python"}
_LONGEST_ALTERNATIVE = 300
_LEFT_OUT = ("study.outputs", "hydra.")


def write(studies: Sequence[Study], *, out: Path) -> list[Path]:
    """Draw the charts of some studies and write an article about them.

    Args:
        studies: A section each, in this order.
        out: Folder of the article.

    Returns:
        The files written: the figures, then ``index.md``.
    """
    written: list[Path] = []
    for study, name in zip(studies, distinct_names(studies), strict=True):
        drawn = report.draw(study)
        folder = out / "figures" / name
        written += [write_answer(folder / path.name, path.read_bytes()) for path in drawn]
    index = write_answer(out / "index.md", text(studies, pictures=_relative(written, out)))
    return [*written, index]


def text(studies: Sequence[Study], *, pictures: Sequence[Path]) -> str:
    """Return the article as Markdown.

    Args:
        studies: A section each.
        pictures: Charts relative to the article, ``figures/<study>/<metric>.png``, by ``distinct_names``.
    """
    title = studies[0].question or studies[0].name
    if len(studies) > 1:
        title = f"{title} And {len(studies) - 1} more {'question' if len(studies) == 2 else 'questions'}"
    parts = [_front_matter(studies, title)]
    for study, name in zip(studies, distinct_names(studies), strict=True):
        parts += _section(study, [path for path in pictures if path.parent.name == name])
    return "\n\n".join(part for part in parts if part) + "\n"


def repeat_command(study: Study) -> str:
    """Return the command that runs a study again, without the paths of the machine where it was run.

    Returns:
        The command with the overrides of the latest invocation; with experiment and platform alone where
        no invocation was recorded; empty for a study that belongs to no experiment.
    """
    runs = sorted((study.folder / "runs").glob("*/.hydra/overrides.json"))
    if runs:
        overrides = [_public(str(item)) for item in json.loads(runs[-1].read_text(encoding="utf-8"))]
        return shlex.join(["python", "-m", "sweeper", *(item for item in overrides if item)])
    if study.experiment is None:
        return ""
    platform = str(study.frame["platform"].iloc[0])
    return shlex.join(["python", "-m", "sweeper", f"+experiment={study.experiment}", f"platform={platform}"])


def _public(override: str) -> str:
    key = override.partition("=")[0].lstrip("+~")
    return "" if key.startswith(_LEFT_OUT) else _PRIVATE.get(key, override)


def _relative(written: Sequence[Path], out: Path) -> list[Path]:
    return [path.relative_to(out) for path in written if path.suffix == ".png"]


def _front_matter(studies: Sequence[Study], title: str) -> str:
    """YAML between dashes; JSON strings are YAML strings, whatever they hold."""
    origins = sorted({str(value) for study in studies for value in study.frame["provenance"]})
    ended = max((study.frame["ended_at"].max() for study in studies), default=None)
    lines = [
        "---",
        f"title: {json.dumps(title, ensure_ascii=False)}",
        *([] if ended is None or ended != ended else [f"date: {ended:%Y-%m-%d}"]),
        f"provenance: {json.dumps(origins)}",
        f"studies: {json.dumps([study.name for study in studies])}",
        "---",
    ]
    return "\n".join(lines)


def _section(study: Study, pictures: Sequence[Path]) -> list[str]:
    parts = [f"## {escaped(study.question or study.name)}", origins.provenance_sentence(study)]
    if study.source:
        parts.append(f"The question is from: {escaped(study.source)}.")
    parts += ["### Environment", report.environment(study.frame)]
    parts.append(_lowered(curve_pages.section([study], drawn=pictures, beside=Path())))
    parts += best_section.ranking(study)
    by_metric = {path.stem: path for path in pictures}
    for metric in figures.metrics_of(study):
        if metric.column in by_metric:
            parts += _figure(study, metric, by_metric[metric.column])
    parts += [
        _lowered(report.costs_section(study)),
        _lowered(report.hit_rates(study)),
        _lowered(report.claims_section(study)),
    ]
    return [*parts, "### Repeat it", *_commands(study)]


def _figure(study: Study, metric: figures.Metric, picture: Path) -> list[str]:
    table = figures.chart_table(study, metric)
    note = report.predicted_note(table)
    settings = ", ".join(dict.fromkeys(table["setting"]))
    origin = "simulated" if study.is_simulated else "measured"
    words = shortened(f"{metric.title}, {origin}, for {settings}", _LONGEST_ALTERNATIVE)
    alternative = escaped(words.replace("[", "(").replace("]", ")"))
    return [
        f"### {metric.title}",
        f"![{alternative}]({picture.as_posix()})",
        tables.to_markdown(best_section.table_of(study, table)),
        *([note] if note else []),
    ]


def _commands(study: Study) -> list[str]:
    parts = []
    command = repeat_command(study)
    if command:
        parts.append(code_block(command))
    best = standings.best(study)
    for answer in best.to_dict("records"):
        line = serving.serve_line(study.frame, str(answer["trial_key"]))
        why = serving.why_no_line(study.frame, str(answer["trial_key"]))
        if line:
            parts.append(
                f"To serve with the {answer['objective']} ({escaped(answer['setting'])}; verdict: "
                f"{answer['verdict']}):\n\n{code_block(line)}"
            )
            today = serving.today(study.frame, str(answer["trial_key"]))
            if today is not None:
                parts += [escaped(today.about), *([code_block(today.line)] if today.line else [])]
        elif why:
            parts.append(f"The {answer['objective']} ({escaped(answer['setting'])}): {escaped(why)}")
    if not command:
        parts.append("No command was recorded.")
    if best.empty:
        parts += [f"{escaped(line[0].upper() + line[1:])}." for line in standings.no_best_lines(study)]
    return parts


def _lowered(section: str) -> str:
    """Make a report's section one of an article's: its headings are one level lower."""
    return re.sub(r"^(?=##+ )", "#", section, flags=re.MULTILINE)
