"""Measured numbers that somebody typed into a table: a blog post, a colleague's mail, a page of a vendor.

One number a row, all rows of one stack. Columns: ``model`` (a file of ``conf/model``), ``release`` (of
vLLM), ``device``, ``mode`` (of its partitions), ``knobs`` and ``load`` (``name=value``, separated by ``;``),
``metric`` (a metric column of the store), ``value`` (in its unit; empty where it is to be predicted).
``image``, ``date`` and ``source`` may stand beside them. docs/predictor.md shows one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeper import knobs
from sweeper.calibrate import public
from sweeper.calibrate.anchoring import FEWEST
from sweeper.calibrate.contradictions import contradictions
from sweeper.calibrate.figures import FIT, Figure, predict
from sweeper.config import groups
from sweeper.errors import ConfigError, SweeperError, nearest
from sweeper.kinds import DATASETS
from sweeper.records import PARTITIONS_PER_GPU, LoadPoint, Platform, Scalar
from sweeper.records.metrics import BY_NAME, is_reported_at
from sweeper.records.plurals import amount
from sweeper.records.text_rows import csv_rows
from sweeper.simulation.device import DEVICES, PARTITION_MODES, USUAL_DEVICE

COLUMNS = ("model", "release", "device", "mode", "knobs", "load", "metric", "value")
"""What every row has; ``device``, ``mode`` and ``knobs`` may be empty."""

BESIDE = ("image", "date", "source")
"""What may stand beside them."""

_COUNTED = (int, "a whole number from 1", lambda count: count >= 1)
_POSITIVE = (float, "a number above 0", lambda number: 0 < number < math.inf)
_LOAD: Mapping[str, tuple[type, str, Callable[[Any], bool]]] = {
    "dataset": (str, f"one of {', '.join(DATASETS)}", DATASETS.__contains__),
    "num_prompts": _COUNTED,
    "request_rate_per_s": _POSITIVE,
    "max_concurrency": _COUNTED,
    "input_len": _COUNTED,
    "output_len": _COUNTED,
    "range_ratio": (float, "a number from 0 to below 1", lambda ratio: 0 <= ratio < 1),
    "burstiness": _POSITIVE,
}
"""Of each entry of a load: its type, what is expected of it, and whether a value is that."""

_ALL_AT_ONCE = ("request_rate_per_s", "inf")
"""How vLLM's own benchmark says that everything is sent at once, which has no rate here."""

_THOUSANDS = re.compile(r"\d{1,3}(,\d{3})+(\.\d+)?")
_SHOWN = 60
"""Letters of a line that a message quotes."""

_GPUS = 8
"""GPUs of a node."""

_NEEDED = ("dataset", "num_prompts")


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table, read.

    Attributes:
        figures: Its numbers, each with the trial that models it.
        asked: Rows without a value, likewise; their values are NaN.
        image: As the table calls it; empty where it does not.
        date: Of the image or the measurement; empty where it is not told.
    """

    figures: tuple[Figure, ...]
    asked: tuple[Figure, ...]
    image: str
    date: str


def read(path: Path, *, fewest: int = FEWEST) -> Table:
    """Read a table of measured numbers.

    Args:
        path: A CSV file.
        fewest: Numbers that it has to hold.

    Raises:
        ConfigError: There is no such file, a row is wrong, or the rows are not of one stack.
    """
    rows = list(_rows(path))
    every = [_figure(path, line, row) for line, row in rows]
    figures = tuple(figure for figure in every if not math.isnan(figure.value))
    if len(figures) < fewest or not every:
        raise ConfigError(
            f"{path}: holds {'1 number' if figures else 'no numbers'}; expected at least {FEWEST}, of loads "
            "or metrics that differ. Add what the source says besides, or ask by --choose what to measure."
        )
    _refuse_twice(path, rows)
    for column in ("release", "device", "image"):
        _refuse_several(path, rows, column)
    for found in contradictions(figures):
        which = " and ".join(figure.series for figure in found.figures)
        raise ConfigError(f"{path}, {which}: cannot be right: {found.why}. Correct or remove what is wrong.")
    first = rows[0][1]
    return Table(
        figures=figures,
        asked=tuple(figure for figure in every if math.isnan(figure.value)),
        image=first.get("image", ""),
        date=first.get("date", ""),
    )


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    lines = _cells(path)
    header = [name.strip().lower() for name in next(lines, (1, []))[1]]
    _check_separator(path, header)
    _check_columns(path, header)
    for line, cells in lines:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) > len(header):
            raise ConfigError(
                f"{path}, line {line}: has {len(cells)} cells; expected {len(header)}, as the first line: "
                f"{_cut(','.join(cells[len(header) :]))} is too much. Write a cell with a comma in it in "
                "double quotes."
            )
        if len(cells) < len(header):
            raise ConfigError(
                f"{path}, line {line}: has {len(cells)} cells, none for {', '.join(header[len(cells) :])}; "
                f"expected {len(header)}, as the first line. A cell may be empty, but its comma has to stand."
            )
        row = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
        plain = {"release": row["release"].removeprefix("v"), "device": row["device"] or USUAL_DEVICE}
        yield line, row | plain


def _cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each line with its number.

    A row is a line: a double quote that is not closed in its line would swallow those after it in silence.
    """
    for line, text in enumerate(_text(path).split("\n"), start=1):
        try:
            yield from csv_rows([(line, text)], where=str(path))
        except ConfigError as exc:
            raise ConfigError(f"{exc} It reads {_cut(text)}.") from exc


def _text(path: Path) -> str:
    try:
        # A spreadsheet begins its files with a mark of their encoding.
        return path.read_text(encoding="utf-8-sig")
    except OSError as exc:
        raise ConfigError(
            f"--table: {path} cannot be read ({exc.strerror}); expected a CSV of measured numbers. Correct "
            "the path."
        ) from exc
    except UnicodeDecodeError as exc:
        line = exc.object.count(b"\n", 0, exc.start) + 1
        raise ConfigError(
            f"{path}, line {line}: has byte 0x{exc.object[exc.start]:02x}, which is no text in UTF-8; "
            "expected a CSV of measured numbers. Save it as a CSV in UTF-8."
        ) from exc


def _cut(text: str) -> str:
    return f"'{text}'" if len(text) <= _SHOWN else f"'...{text[-_SHOWN:]}'"


def _check_columns(path: Path, header: Sequence[str]) -> None:
    missing = [name for name in COLUMNS if name not in header]
    for name in header:
        if name not in (*COLUMNS, *BESIDE) and nearest(name, missing):
            raise _unknown_column(path, name, missing)
    if missing:
        raise ConfigError(
            f"{path}, line 1: has no column {missing[0]}; expected {', '.join(COLUMNS)}. Write that line "
            "first."
        )
    for number, name in enumerate(header):
        if name in header[:number]:
            raise ConfigError(f"{path}, line 1: has column {name} twice; expected each once. Remove one.")
        if name not in (*COLUMNS, *BESIDE):
            raise _unknown_column(path, name, (*COLUMNS, *BESIDE))


def _unknown_column(path: Path, name: str, known: Iterable[str]) -> ConfigError:
    return ConfigError(
        f"{path}, line 1: got column '{name}'; expected {', '.join((*COLUMNS, *BESIDE))}. Rename or "
        f"remove it.{nearest(name, known)}"
    )


def _check_separator(path: Path, header: Sequence[str]) -> None:
    """Refuse a file that separates its cells as spreadsheets of some countries do."""
    for separator, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and separator in header[0]:
            raise ConfigError(
                f"{path}, line 1: separates its cells with {name}; expected commas, since a semicolon "
                "separates knobs and loads inside a cell. Save it as a CSV with commas."
            )


def _figure(path: Path, line: int, row: Mapping[str, str]) -> Figure:
    where = f"{path}, line {line}"
    known = groups()["model"]
    if row["model"] not in known:
        raise _wrong(where, "model", row["model"], "a file of conf/model", known)
    try:
        knobs.release_key(row["release"])
    except SweeperError as exc:
        raise ConfigError(
            f"{where}, release: got '{row['release']}'; expected a release of vLLM such as 0.9.1. Correct it."
        ) from exc
    device = row["device"]
    if device not in DEVICES:
        raise _wrong(where, "device", device, f"one of {', '.join(DEVICES)}", DEVICES)
    mode = row["mode"] or None
    if mode is not None and mode not in PARTITION_MODES:
        raise _wrong(where, "mode", mode, f"one of {', '.join(PARTITION_MODES)}", PARTITION_MODES)
    load = _load(where, row["load"])
    _check_metric(where, row["metric"], load)
    assignment = {"tensor_parallel_size": 1, **_knobs(where, row["knobs"], release=row["release"])}
    _check_knobs(where, assignment, release=row["release"], device=device, mode=mode)
    try:
        spec = public.trial_of(
            model=row["model"],
            device=device,
            release=row["release"],
            knobs=assignment,
            load=load,
            mode=mode,
        )
        figure = Figure(
            experiment=path.stem,
            series=f"line {line}",
            metric=row["metric"],
            value=_value(where, row["value"]),
            point=load,
            spec=spec,
            placement=public.block_of(spec),
            role=FIT,
        )
        predict([figure], {})
    except SweeperError as exc:
        if str(exc).startswith(where):
            raise
        raise ConfigError(f"{where}: cannot be modelled: {exc}") from exc
    return figure


def _check_knobs(
    where: str, assignment: Mapping[str, Scalar], *, release: str, device: str, mode: str | None
) -> None:
    """Refuse what the release does not take, and more devices than a node has."""
    accelerator = knobs.accelerator_of(Platform.SIMULATED, modelled_device=device)
    for refusal in knobs.check(assignment, release=release, accelerator=accelerator):
        if refusal.kind != "no_effect":
            raise ConfigError(f"{where}, knobs: {refusal.message}")
    wanted, there = knobs.devices(assignment), _GPUS * PARTITIONS_PER_GPU[mode or "SPX"]
    if wanted > there:
        raise ConfigError(
            f"{where}, knobs: take {amount(wanted, 'device')}; expected at most {there}, those of a "
            "node. Correct the parallel sizes."
        )


def _pairs(where: str, column: str, text: str) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, sign, value = part.partition("=")
        if not sign or not name.strip() or not value.strip():
            raise ConfigError(
                f"{where}, {column}: got '{part}'; expected name=value, separated by ';'. Correct it."
            )
        if name.strip() in seen:
            raise ConfigError(
                f"{where}, {column}: gives {name.strip()} twice; expected each once. Remove one of them."
            )
        seen.add(name.strip())
        yield name.strip(), value.strip()


def _knobs(where: str, text: str, *, release: str) -> dict[str, Scalar]:
    found: dict[str, Scalar] = {}
    known = knobs.every_name()
    for name, value in _pairs(where, "knobs", text):
        if name not in known:
            raise _wrong(where, "knobs", name, f"a knob of vLLM {release}", known)
        found[name] = _scalar(value)
    return found


def _scalar(text: str) -> Scalar:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _load(where: str, text: str) -> LoadPoint:
    found: dict[str, object] = {}
    for name, value in _pairs(where, "load", text):
        if name not in _LOAD:
            raise _wrong(where, "load", name, f"one of {', '.join(_LOAD)}", _LOAD)
        if (name, value.lower()) == _ALL_AT_ONCE:
            continue
        kind, expected, is_right = _LOAD[name]
        try:
            found[name] = kind(value)
        except ValueError:
            found[name] = math.nan
        if not is_right(found[name]):
            known = DATASETS if name == "dataset" else ()
            raise ConfigError(
                f"{where}, load: {name} is '{value}'; expected {expected}. Correct it.{nearest(value, known)}"
            )
    for name in _NEEDED:
        if name not in found:
            raise ConfigError(
                f"{where}, load: has no {name}; expected such as dataset=random;num_prompts=100;"
                "input_len=1024;output_len=1024. Add it."
            )
    return LoadPoint(**found)  # type: ignore[arg-type]


def _check_metric(where: str, metric: str, load: LoadPoint) -> None:
    known = [name for name, each in BY_NAME.items() if each.fit is not None]
    known += ["median_tpot_ms", "median_ttft_ms"]
    if metric not in known:
        raise _wrong(where, "metric", metric, f"one of {', '.join(known)}", known)
    if not is_reported_at(metric, load.dataset):
        raise ConfigError(
            f"{where}, metric: {metric} is not reported at a load of dataset {load.dataset}; expected one "
            "that its benchmark reports. Correct the metric or the load."
        )


def _value(where: str, text: str) -> float:
    """Return the number, or NaN where the cell is empty."""
    if not text:
        return math.nan
    try:
        # A comma is taken between thousands only: 9,42 may mean 9.42.
        value = float(text.replace(",", "") if _THOUSANDS.fullmatch(text) else text)
    except ValueError:
        value = math.nan
    if not (0 < value < math.inf):
        raise ConfigError(
            f"{where}, value: got '{text}'; expected a number above 0 such as 1234.5, in the metric's unit "
            "and without it. Correct it."
        )
    return value


def _refuse_twice(path: Path, rows: Iterable[tuple[int, Mapping[str, str]]]) -> None:
    seen: dict[tuple[str, ...], int] = {}
    for line, row in rows:
        what = tuple(row[name] for name in COLUMNS if name != "value")
        if what in seen:
            raise ConfigError(
                f"{path}, line {line}: gives again what line {seen[what]} gives; expected each number once. "
                "Remove one, or write their mean."
            )
        seen[what] = line


def _refuse_several(path: Path, rows: Sequence[tuple[int, Mapping[str, str]]], column: str) -> None:
    first_line, first = rows[0]
    stack = first.get(column, "")
    for line, row in rows:
        if row.get(column, "") != stack:
            raise ConfigError(
                f"{path}, line {line}, {column}: got '{row[column]}', and '{stack}' in line {first_line}; "
                "expected one stack. Write a table for each."
            )


def _wrong(where: str, column: str, got: str, expected: str, known: Iterable[str]) -> ConfigError:
    return ConfigError(
        f"{where}, {column}: got '{got}'; expected {expected}. Correct it.{nearest(got, known)}"
    )
