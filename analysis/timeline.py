"""Who ran on which devices, and when: a lane per device, a box per trial.

What is drawn is a table of its own, one row per trial and device. It comes from a study's stored rows, or
from the file that a plan writes (``plan=true plan_csv=FILE``), which has the same columns. The table is
written beside the picture and can be drawn again.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis import style
from analysis.figures import save
from analysis.lettering import drawn
from analysis.page import SIMULATED_BAND, Words, draw_legend, make_page
from analysis.study import Study
from sweeper.errors import ConfigError
from sweeper.records.plurals import amount, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = (
    *("setting", "trial_key", "node", "device", "gpu", "start_s", "end_s"),
    *("is_exclusive", "provenance", "basis"),
)
"""A row per trial and device it held. ``start_s`` and ``end_s`` count from the first start; ``basis`` says
what they rest on. A row without a trial is a device that none held."""

PREDICTED_BAND = "PREDICTED - nothing was run"
"""Stands in a time-line that comes from a plan."""

_WIDTH_IN = 10.5
_MOST_NAMED = 40
_MOST_NAMED_LANES = 24
_LABEL_CHARACTERS = 58


def table_of(study: Study) -> pd.DataFrame:
    """Return the time-line of a study from all that is stored, repeated attempts included.

    A measured trial begins with the start of its engine and ends when that is stopped. A simulated one takes
    no such time: shown is when the model was computed, in the seconds that this took.

    Raises:
        ConfigError: No stored trial held a device at a known time.
    """
    frame = study.attempts
    frame = frame[frame["devices"].notna() & frame["started_at"].notna() & frame["ended_at"].notna()]
    if frame.empty:
        raise ConfigError(
            f"{study.folder}: no stored trial says when it ran and on which devices; expected at least one. "
            "Run the study, or look in its report for why no trial began."
        )
    knobs = [name for name in map(str, frame.columns) if name.startswith("knob.")]
    varying = [name for name in knobs if frame[name].nunique(dropna=False) > 1]
    rows = [
        row
        for _, group in frame.groupby(["trial_key", "attempt"], sort=False)
        for row in _rows_of_trial(group, varying)
    ]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    first_s = table["start_s"].min()
    table[["start_s", "end_s"]] = (table[["start_s", "end_s"]] - first_s).round(3)
    return table.sort_values(["start_s", "device"], ignore_index=True)


def _rows_of_trial(group: pd.DataFrame, varying: Iterable[str]) -> Iterable[dict[str, Any]]:
    first = group.iloc[0]
    start_s = group["started_at"].min().timestamp()
    end_s = group["ended_at"].max().timestamp()
    is_measured = first["provenance"] == "measured"
    if is_measured and first["state"] == "complete":
        starts = group["restart"].nunique() or 1
        start_s -= (_known(first["engine_start_s"]) + _known(first["warmup_s"])) / starts
        end_s += _known(first["stop_s"]) / starts
    names = list(first["series"])
    knobs = [f"{name.removeprefix('knob.')}={first[name]}" for name in varying if not pd.isna(first[name])]
    columns = map(str, group.columns)
    host = [name for name in columns if name.startswith("knob.host_") and not pd.isna(first[name])]
    shares = len(first["devices"]) // max(len(first["parents"]), 1) or 1
    for place, device in enumerate(first["devices"]):
        yield {
            "setting": ", ".join(names) or " ".join(knobs) or "the only setting",
            "trial_key": first["trial_key"],
            "node": first["node"],
            "device": int(device),
            "gpu": int(first["parents"][min(place // shares, len(first["parents"]) - 1)]),
            "start_s": start_s,
            "end_s": max(end_s, start_s),
            "is_exclusive": bool(host) and is_measured,
            "provenance": first["provenance"],
            "basis": "wall clock" if is_measured else "wall clock of the simulation",
        }


def _known(value: Any) -> float:
    return 0.0 if pd.isna(value) else float(value)


def read_plan(path: Path) -> pd.DataFrame:
    """Read the file that a plan wrote.

    Raises:
        ConfigError: It is missing, or is not such a file.
    """
    if not path.is_file():
        raise ConfigError(
            f"{path}: no such file; expected a study's folder, or what plan=true plan_csv=FILE wrote."
        )
    try:
        table = pd.read_csv(path)
    except ValueError as exc:
        raise ConfigError(f"{path}: is not a table ({exc}); expected what plan_csv=FILE wrote.") from exc
    missing = [name for name in COLUMNS if name not in table]
    if missing or table["trial_key"].isna().all():
        what = f"has no column {', '.join(missing)}" if missing else "names no trial"
        raise ConfigError(f"{path}: {what}; expected what plan=true plan_csv=FILE wrote. Write it again.")
    return table[list(COLUMNS)]


def idle_share(table: pd.DataFrame) -> float:
    """Share of the lanes' time in which no trial held the device, 0 to 1, up to the last end."""
    lanes = len(table.drop_duplicates(["node", "device"]))
    held_s = float((table["end_s"] - table["start_s"]).sum())
    whole_s = lanes * float(table["end_s"].max())
    return 1 - held_s / whole_s if whole_s else 0.0


def draw(table: pd.DataFrame, *, title: str, subtitle: str, origin: str) -> Figure:
    """Draw a time-line.

    Args:
        table: In ``COLUMNS``.
        title: Of the chart.
        subtitle: The question, under the title.
        origin: What was run where, the first sentence of the caption.

    Returns:
        The figure, with a band that says so when nothing was measured.
    """
    from matplotlib.patches import Patch

    trials = table.dropna(subset=["trial_key"]).sort_values(["start_s", "node", "device"])
    # Attempts of one trial share its number; boxes tell them apart.
    settings = list(dict.fromkeys(trials["setting"]))
    number = {setting: place + 1 for place, setting in enumerate(settings)}
    named = settings[:_MOST_NAMED]
    columns = 2 if len(named) > 4 else 1
    has_exclusive = bool((trials["is_exclusive"].astype("boolean").fillna(False)).any())
    lanes = _lanes(table)
    words = Words(
        title=title,
        note=f"devices idle {percent(idle_share(table), '.1')} of the time",
        subtitle=subtitle,
        caption=_caption(table, trials, origin=origin, left_out=len(settings) - len(named)),
        band=_band_text(table),
    )
    with style.chart_style():
        page = make_page(
            words,
            width_in=_WIDTH_IN,
            plot_in=max(2.2, min(0.42, 7.5 / len(lanes)) * len(lanes)),
            legend_rows=-(-(len(named) + has_exclusive) // columns),
            left_in=1.15,
        )
        axes = page.axes(1)[0]
        unit, seconds = _unit(float(table["end_s"].max()))
        _draw_lanes(axes, lanes, _lane_names(table), unit=unit)
        for (setting, _, node, _, _), rows in _boxes(trials):
            for low, high in _runs(lanes[node, device] for device in rows["device"]):
                _draw_box(
                    axes, rows.iloc[0].to_dict(), low=low, high=high, number=number[setting], seconds=seconds
                )
        axes.set_xlim(0, float(table["end_s"].max()) / seconds or 1)
        handles: list[Any] = [
            Patch(
                facecolor=_colour(number[setting]), edgecolor=style.INK, linewidth=0.6,
                label=f"{number[setting]}  {_shortened(setting)}",
            )
            for setting in named
        ]  # fmt: skip
        if has_exclusive:
            handles.append(
                Patch(facecolor="white", edgecolor=style.INK, hatch="////", label="alone on its node")
            )
        draw_legend(page, handles, columns)
    return page.figure


def write(source: Path | str) -> list[Path]:
    """Draw the time-line of a study's folder or results' URL, or of a plan's file; give the files written.

    A study's chart goes into its ``figures/`` folder, a plan's beside the plan.

    Raises:
        ConfigError: There is nothing to draw.
    """
    if isinstance(source, str) or source.is_dir():
        study = Study.load(source)
        table = table_of(study)
        origin = f"Study {study.name}, {'simulated' if study.is_simulated else 'measured'}"
        title = "Trials over time"
        figure = draw(table, title=title, subtitle=study.question or study.name, origin=origin)
        return save(figure, table, study.folder / "figures" / "timeline")
    table = read_plan(source)
    basis = ", ".join(sorted(set(table["basis"].dropna())))
    figure = draw(
        table, title="Trials over time, as planned", subtitle=source.stem, origin=f"Durations: {basis}"
    )
    return save(figure, table, source.with_name(f"{source.stem}-timeline"))


def _shortened(setting: str) -> str:
    return drawn(setting, most=_LABEL_CHARACTERS)


def _band_text(table: pd.DataFrame) -> str:
    provenances = set(table["provenance"].dropna())
    if "predicted" in provenances:
        return PREDICTED_BAND
    return SIMULATED_BAND if provenances - {"measured"} else ""


def _caption(table: pd.DataFrame, trials: pd.DataFrame, *, origin: str, left_out: int) -> str:
    lanes = table.drop_duplicates(["node", "device"])
    count = len(trials.drop_duplicates(["trial_key", "start_s"]))
    whose = "of the plan's nodes" if "predicted" in set(table["provenance"]) else "that were used"
    parts = [
        origin,
        f"{amount(count, 'trial')} on the {amount(len(lanes), 'device')} {whose} "
        f"({amount(lanes['node'].nunique(), 'node')}) in {_time_text(float(table['end_s'].max()))}; "
        f"{percent(idle_share(table), '.1')} of the devices' time was idle",
        "A number in a box names its setting",
    ]
    if "wall clock of the simulation" in set(table["basis"].dropna()):
        parts.append("Times are those of computing the model, not of serving")
    if left_out:
        parts.append(f"{left_out} more settings are named in the CSV beside this chart")
    return ". ".join(parts) + "."


def _lanes(table: pd.DataFrame) -> dict[tuple[str, int], int]:
    """Return each device its lane, GPU after GPU and node after node, from the top."""
    seats = table.drop_duplicates(["node", "device"]).sort_values(["node", "gpu", "device"])
    return {
        (str(node), int(device)): lane
        for lane, (node, device) in enumerate(zip(seats["node"], seats["device"], strict=True))
    }


def _boxes(trials: pd.DataFrame) -> Iterable[tuple[Any, pd.DataFrame]]:
    return trials.groupby(["setting", "trial_key", "node", "start_s", "end_s"], sort=False)


def _runs(lanes: Iterable[int]) -> list[tuple[int, int]]:
    """Join neighbouring lanes: the first and the last of each run."""
    runs: list[tuple[int, int]] = []
    for _, pairs in groupby(enumerate(sorted(lanes)), key=lambda pair: pair[1] - pair[0]):
        members = [lane for _, lane in pairs]
        runs.append((members[0], members[-1]))
    return runs


def _lane_names(table: pd.DataFrame) -> list[str]:
    """Name every lane by its device, or, where there are many, the first of each GPU."""
    seats = table.drop_duplicates(["node", "device"]).sort_values(["node", "gpu", "device"])
    names, last = [], None
    for row in seats.to_dict("records"):
        of_node = f"{row['node']}: " if seats["node"].nunique() > 1 else ""
        if len(seats) <= _MOST_NAMED_LANES:
            names.append(f"{of_node}device {row['device']}")
        else:
            names.append(f"{of_node}GPU {row['gpu']}" if (row["node"], row["gpu"]) != last else "")
        last = (row["node"], row["gpu"])
    return names


def _draw_lanes(axes: Axes, lanes: dict[tuple[str, int], int], names: list[str], *, unit: str) -> None:
    nodes = list(dict.fromkeys(node for node, _ in lanes))
    axes.set_yticks(list(lanes.values()), [drawn(name, most=40) for name in names], fontsize=7.5)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(lanes) - 0.5, -0.5)
    for lane in range(len(lanes) + 1):
        is_node_edge = lane in {min(lanes[seat] for seat in lanes if seat[0] == node) for node in nodes}
        axes.axhline(
            lane - 0.5, color=style.FAINT_INK if is_node_edge else style.GRID, linewidth=0.6, zorder=0
        )
    axes.grid(visible=True, axis="x")
    axes.set_xlabel(f"Time since the first start ({unit})")


def _draw_box(
    axes: Axes, row: dict[Hashable, Any], *, low: int, high: int, number: int, seconds: float
) -> None:
    from matplotlib.patches import Rectangle

    start, width = row["start_s"] / seconds, (row["end_s"] - row["start_s"]) / seconds
    is_exclusive = str(row["is_exclusive"]) == "True"
    axes.add_patch(
        Rectangle(
            (start, low - 0.46), width, high - low + 0.92, facecolor=_colour(number), edgecolor=style.INK,
            linewidth=0.6, hatch="////" if is_exclusive else None, zorder=2,
        )
    )  # fmt: skip
    axes.text(
        start + width / 2, (low + high) / 2, str(number), ha="center", va="center", fontsize=8,
        weight="bold", zorder=3, clip_on=True,
        bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
    )  # fmt: skip


def _colour(number: int) -> str:
    return style.COLOURS[(number - 1) % len(style.COLOURS)]


def _unit(longest_s: float) -> tuple[str, float]:
    """Choose the unit of the axis, and its length in seconds."""
    if longest_s > 3 * 3600:
        return "hours", 3600.0
    return ("minutes", 60.0) if longest_s > 180 else ("seconds", 1.0)


def _time_text(seconds: float) -> str:
    unit, length = _unit(seconds)
    return f"{seconds / length:.3g} {unit}"
