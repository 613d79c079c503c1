"""From rows to tables: one number per setting and load point, with the interval that repeats allow.

A *setting* is a line of these tables: a series, a series with the knobs that vary within it, or, where
nothing is named, the knobs that vary. Runs within one engine start are averaged first and count once:
restarts vary more than runs do, so an interval over runs would be too narrow. A run on an empty prefix cache
and a second one on what it left there are never averaged. Failed trials keep their place, with the reason
instead of a number.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis import load_names, markdown, predicted, starts
from analysis.records import records
from analysis.study import Series
from sweeper.intervals import Estimate, estimate
from sweeper.kinds import ENGINES
from sweeper.records import (
    MAX_USERS,
    SEARCH_SLOS,
    FailureClass,
    Scalar,
    TrialState,
)
from sweeper.text import reasons
from sweeper.text.numbers import number_text
from sweeper.text.tables import markdown_table

Row = load_names.Row
"""One row of a table, by column."""


def estimate_of(row: Row) -> Estimate:
    """Return a row of a summary as an estimate."""
    has_interval = not math.isnan(row["low"])
    return Estimate(
        mean=float(row["mean"]),
        low=float(row["low"]) if has_interval else None,
        high=float(row["high"]) if has_interval else None,
        n=int(row["n"]),
    )


def settings(frame: pd.DataFrame, series: Mapping[str, Series] | None = None) -> pd.DataFrame:
    """Name the setting and the load point of every row, and put both in order.

    Args:
        frame: Rows of the store, latest attempts.
        series: Labels and order of named series.

    Returns:
        The rows, once for each series that they serve, with ``setting`` (its label), ``series`` (a name or
        None), ``load_point`` and ``load_axis`` (title of the axis), ordered by series, knobs and load. Of
        several trials of one setting, as another engine version leaves them, the newest stays.
    """
    for asked, said, found in _NAMED:
        if asked is frame and said == (series or {}):
            return found.copy(deep=False)
    named = _settings(frame, series or {})
    _NAMED.appendleft((frame, dict(series or {}), named))
    return named.copy(deep=False)


_NAMED: deque[tuple[pd.DataFrame, Mapping[str, Series], pd.DataFrame]] = deque(maxlen=2)
"""The tables that were asked for last, with what was named in them: every section of a report asks for it."""


def _settings(frame: pd.DataFrame, known: Mapping[str, Series]) -> pd.DataFrame:
    rows = frame.explode("series", ignore_index=True)
    rows[load_names.RUN] = rows[load_names.RUN].astype("boolean").fillna(False).astype(bool)
    rows["series"] = [None if pd.isna(name) else str(name) for name in rows["series"]]
    order = {name: (entry.order, name) for name, entry in known.items()}
    after = (len(known), "")
    groups = []
    # A row of the store has two hundred columns: the steps below copy those that name a setting alone.
    naming = [name for name in rows if name in _NAMING or str(name).startswith("knob.")]
    narrow = rows[naming]
    for name in sorted(set(rows["series"]), key=lambda n: (n is None, order.get(n or "", after), n or "")):
        group = narrow[[other == name for other in narrow["series"]]]
        shown = group if name is None else _of_run(group, known[name].run if name in known else None)
        if not shown.empty:
            groups.append(_named_settings(shown, label=None if name is None else _label(name, known)))
    named = load_names.named(pd.concat(groups))
    new = {name: named[name] for name in ("setting", "load_point", "load_axis")}
    return rows.loc[named.index].assign(**new).reset_index(drop=True)


_NAMING = frozenset(
    {"series", "trial_key", "ended_at", load_names.RUN, *load_names.LOAD_POINT, *SEARCH_SLOS.values()}
)
"""What names settings and load points, beside the knobs."""


def of_metric(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Keep the rows that have a metric, of settings and load points that are named.

    The probes of a search lie at loads that differ from setting to setting: in a table of load points they
    have no place. They have what the search found alone, which has a load point of its own.
    """
    if metric in SEARCH_SLOS:
        slo = SEARCH_SLOS[metric]
        found = rows[rows[slo].notna()] if slo in rows else rows.iloc[:0]
        return found.assign(load_point=load_names.ANSWERS[metric], load_axis="")
    return rows[~load_names.is_probe(rows)]


def summary(frame: pd.DataFrame, *, metric: str, series: Mapping[str, Series] | None = None) -> pd.DataFrame:
    """Return one row per setting and load point for a metric.

    Args:
        frame: Rows of the store, latest attempts.
        metric: A metric column of the store.
        series: Labels and order of named series.

    Returns:
        Columns ``setting``, ``series``, ``load_point``, ``load_axis``, those of ``LOAD_POINT``, ``mean``,
        ``low``, ``high`` (95 % interval over restarts; NaN with one restart), ``n`` (restarts), ``state``,
        ``reason`` (of a trial without numbers), ``trial_key``, ``provenance``, ``interval_80_low``,
        ``interval_80_high`` (what the model expects; NaN where measured).
    """
    for asked, name, said, found in _SUMMED:
        if asked is frame and name == metric and said == (series or {}):
            return found.copy()
    summed = _summary(frame, metric, series)
    _SUMMED.appendleft((frame, metric, dict(series or {}), summed))
    return summed.copy()


_SUMMED: deque[tuple[pd.DataFrame, str, Mapping[str, Series], pd.DataFrame]] = deque(maxlen=3)
"""The summaries that were asked for last: a chart, the report and its page ask for the same."""


def _summary(frame: pd.DataFrame, metric: str, series: Mapping[str, Series] | None) -> pd.DataFrame:
    rows = of_metric(settings(frame, series), metric)
    # Few columns: grouping copies all that are there.
    rows = rows[[name for name in dict.fromkeys((*_GROUPED, metric)) if name in rows]]
    # Groups in the order of first appearance keep settings and load points in their order.
    groups = starts.numbers_of(rows, ["setting", "load_point"])
    firsts = records(rows[~pd.Series(groups, index=rows.index).duplicated()])
    told = zip(firsts, starts.means(rows, groups, metric), predicted.ends(rows, groups, metric), strict=True)
    table = pd.DataFrame([_summary_row(*one) for one in told], columns=_SUMMARY)
    numbers = dict.fromkeys(("mean", "low", "high", predicted.LOW, predicted.HIGH), "float64")
    return table.astype({**numbers, "n": "int64"})


def spread(frame: pd.DataFrame, *, metric: str, series: Mapping[str, Series] | None = None) -> pd.DataFrame:
    """Return how far a metric moves from engine start to engine start, and from run to run within one.

    Args:
        frame: Rows of the store, latest attempts.
        metric: A metric column of the store.
        series: Labels and order of named series.

    Returns:
        A row per setting and load point that was run more than once: ``setting``, ``load_point``,
        ``load_axis``, ``request_rate_per_s``, ``starts``, ``runs`` (in all), ``between_starts_pct`` (standard
        deviation of the starts' means) and ``within_start_pct`` (of runs about their start's mean, pooled),
        both in percent of the mean; NaN where there is one start, or one run in each.
    """
    rows = of_metric(settings(frame, series), metric)
    if metric not in rows:
        return pd.DataFrame()
    rows = rows[rows["state"].eq(str(TrialState.COMPLETE)) & rows[metric].notna()]
    place = ["setting", "load_point"]
    repeated = rows.loc[
        rows.duplicated(place, keep=False),
        list(dict.fromkeys([*place, "load_axis", "request_rate_per_s", "restart", metric])),
    ]
    found = [_spread_row(group, metric) for _, group in repeated.groupby(place, sort=False)]
    return pd.DataFrame(found)


def by_load_point(table: pd.DataFrame, cell: Callable[[Row], str] | None = None) -> pd.DataFrame:
    """Lay a summary out for reading: a line per setting, a column per load point.

    Args:
        table: What ``summary`` gave.
        cell: Writes one row of it as text; None writes mean, half of the interval and n, or why there
            is no number.
    """
    write = cell or cell_text
    cells: dict[str, dict[str, str]] = {}
    for row in table.to_dict("records"):
        cells.setdefault(row["setting"], {})[load_names.load_point_text(row)] = write(row)
    points = list(dict.fromkeys(point for line in cells.values() for point in line))
    return pd.DataFrame(
        [
            {"setting": setting} | {point: line.get(point, "not run") for point in points}
            for setting, line in cells.items()
        ]
    )


def release_of(row: Row | Mapping[str, Any] | pd.Series[Any]) -> str:
    """Return the release that a row's engine was taken for: the version it reported, if any."""
    if not pd.isna(row.get("engine_build")):
        return str(row["engine_release"])
    # A modelled release is stored as "0.6.2 (modelled)".
    return str(row["version.vllm"]).split()[0]


def other_engine(row: Mapping[str, Any] | pd.Series[Any]) -> str:
    """Name the engine of a row and its version, such as ``SGLang 0.5.9``; empty where it is vLLM or none."""
    kind = ENGINES.get(str(row["engine"]))
    if kind is None or kind.takes_vllm_flags or not kind.is_started_by_us:
        return ""
    version = row.get(f"version.{kind.name}")
    return kind.title if version is None or pd.isna(version) else f"{kind.title} {version}"


def plain(value: Any) -> Scalar:
    """Take a value out of numpy and pandas."""
    plain: Scalar = value.item() if isinstance(value, np.generic) else value
    return plain


def failures(frame: pd.DataFrame, series: Mapping[str, Series] | None = None) -> pd.DataFrame:
    """List the trials without numbers: setting, state, class, message, log; one row per trial."""
    rows = settings(frame, series)
    failed = rows[rows["state"] != str(TrialState.COMPLETE)].drop_duplicates(["setting", "trial_key"])
    columns = ["setting", "state", "failure_class", "failure_message", "log_path", "trial_key"]
    return failed[columns].reset_index(drop=True)


def folded(failed: pd.DataFrame) -> pd.DataFrame:
    """Keep the first of trials that say the same of other numbers, where they are many, and count the others.

    Args:
        failed: What ``failures`` gave.
    """
    kinds = [
        (row["state"], row["failure_class"], reasons.kind_of(row["failure_message"]))
        for row in failed.to_dict("records")
    ]
    counts = Counter(kinds)
    first = {kind: place for place, kind in reversed(list(enumerate(kinds)))}
    kept = [
        place for place, kind in enumerate(kinds) if counts[kind] <= reasons.SHOWN or first[kind] == place
    ]
    found = failed.iloc[kept].reset_index(drop=True)
    others = [counts[kinds[place]] - 1 if counts[kinds[place]] > reasons.SHOWN else 0 for place in kept]
    told = zip(found["failure_message"], others, strict=True)
    found["failure_message"] = [reasons.and_more(text, more) if more else text for text, more in told]
    return found


def to_markdown(table: pd.DataFrame, *, is_text: bool = False, formatted: Collection[str] = ()) -> str:
    """Write a table as Markdown; all but the first column stand right, unless the table is text.

    Args:
        table: What is written; its texts are shown as they are.
        is_text: All columns stand left.
        formatted: Columns that hold Markdown themselves.
    """
    heads = [markdown.escaped(name) for name in table.columns]
    is_markdown = [name in formatted for name in table.columns]
    rule = ["---"] + ["---" if is_text else "---:"] * (len(heads) - 1)
    rows = (list(map(_cell, row, is_markdown)) for row in table.itertuples(index=False))
    return markdown_table(heads, rows, rule=rule)


def no_number_text(row: Row) -> str:
    """Explain why a row of a summary has no number."""
    if row["state"] == str(TrialState.COMPLETE):
        return "no value"
    reason = row["reason"]
    if reason == FailureClass.NOT_MODELLED or not isinstance(reason, str):
        return short_state(row)
    return f"{row['state']}: {reason}"


def short_state(row: Row) -> str:
    """Describe in a word why a row of a summary has no number."""
    if row["state"] == str(TrialState.COMPLETE):
        return "no value"
    return "not modelled" if row["reason"] == FailureClass.NOT_MODELLED else str(row["state"])


# ---- settings and load points ----


def _of_run(group: pd.DataFrame, run: str | None) -> pd.DataFrame:
    """Keep the run that a series shows: rows of the other one would be averaged with it."""
    if run == "second":
        return group[group[load_names.RUN]]
    has_fresh = ~group.groupby("trial_key")[load_names.RUN].transform("all")
    return group[~group[load_names.RUN] | (~has_fresh if run is None else False)]


def _label(name: str, series: Mapping[str, Series]) -> str:
    return series[name].label if name in series else name


def _named_settings(group: pd.DataFrame, *, label: str | None) -> pd.DataFrame:
    """Label the trials of one series by what varies among them, keep the newest of each, order by knobs."""
    varying = [
        column
        for column in group.columns
        if column.startswith("knob.") and group[column].nunique(dropna=False) > 1
    ]
    ordered = group.sort_values(varying, kind="stable") if varying else group
    names = [_setting_name(label, row, varying) for row in _records(ordered, varying)]
    return _newest(ordered.assign(setting=names))


def _setting_name(label: str | None, row: Row, varying: Sequence[str]) -> str:
    values = ", ".join(f"{column.removeprefix('knob.')}={value_text(row[column])}" for column in varying)
    if label is None:
        return values or "the one setting"
    return f"{label} ({values})" if values else label


def _records(rows: pd.DataFrame, names: Iterable[str]) -> list[dict[Hashable, Any]]:
    """Return the rows by column, of these columns alone: a table of the store has two hundred."""
    return rows[list(dict.fromkeys(names))].to_dict("records")


def _newest(rows: pd.DataFrame) -> pd.DataFrame:
    """Keep one trial per setting: the one that ended last."""
    ended = rows["ended_at"].fillna(pd.Timestamp(0, tz="UTC"))
    last = (
        rows.assign(_ended=ended).groupby(["setting", "trial_key"], sort=False)["_ended"].max().reset_index()
    )
    keep = last.sort_values("_ended", kind="stable").drop_duplicates("setting", keep="last")
    chosen = set(zip(keep["setting"], keep["trial_key"], strict=True))
    return rows[[pair in chosen for pair in zip(rows["setting"], rows["trial_key"], strict=True)]]


def value_text(value: Any) -> str:
    """Write a knob's value; ``default`` where it is not set."""
    if pd.isna(value):
        return "default"
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


# ---- numbers ----


def spent_time(frame: pd.DataFrame) -> pd.DataFrame:
    """Add up where the time of all trials went; trials that ran side by side both count.

    Returns:
        Columns ``part``, ``seconds`` and ``share`` (of all seconds, 0 to 1), a row per kind of time. Waiting,
        start, warm-up and stop are stored with every row of a trial and count once for it.
    """
    trials = frame.drop_duplicates(["trial_key", "attempt"])
    seconds = {
        words: float((trials if is_of_trial else frame)[column].sum())
        for column, (words, is_of_trial) in _TIME_PARTS.items()
    }
    whole = math.fsum(seconds.values())
    return pd.DataFrame(
        [
            {"part": words, "seconds": value, "share": value / whole if whole else math.nan}
            for words, value in seconds.items()
        ]
    )


# Column to its words, and whether it belongs to the trial or to the row.
_TIME_PARTS = {
    "queued_s": ("waiting for devices", True),
    "free_wait_s": ("waiting until devices were free", True),
    "engine_start_s": ("engine start", True),
    "warmup_s": ("warm-up", True),
    "measured_s": ("measuring", False),
    "client_overhead_s": ("around the client's runs", False),
    "stop_s": ("engine stop", True),
}


_SUMMARY = [
    *("setting", "series", "load_point", "load_axis", *load_names.LOAD_POINT),
    *("mean", "low", "high", "n", "state", "reason", "trial_key", "provenance"),
    *(predicted.LOW, predicted.HIGH),
]


_GROUPED = (
    *("setting", "series", "load_point", "load_axis", *load_names.LOAD_POINT),
    *("state", "restart", "failure_class", "trial_key", "provenance", "interval_80"),
)


def restart_means(rows: pd.DataFrame, metric: str) -> list[float]:
    """Average the runs within each engine start; a start without a number gives none."""
    return next(iter(starts.means(rows, np.zeros(len(rows), dtype=int), metric)), [])


def _spread_row(group: pd.DataFrame, metric: str) -> dict[str, object]:
    by_start = group.groupby("restart", sort=True)[metric].agg(["mean", "count", "var"])
    # Of nothing there is no percentage.
    mean = float(by_start["mean"].mean()) or math.nan
    degrees = by_start["count"] - 1
    within = float((by_start["var"].fillna(0.0) * degrees).sum())
    pooled = within / degrees.sum() if degrees.sum() else math.nan
    first = group.iloc[0]
    return {
        **{name: first[name] for name in ("setting", "load_point", "load_axis", "request_rate_per_s")},
        "starts": len(by_start),
        "runs": len(group),
        "between_starts_pct": 100 * float(by_start["mean"].std(ddof=1)) / mean,
        "within_start_pct": 100 * math.sqrt(pooled) / mean,
    }


def _summary_row(first: Row, values: Sequence[float], ends: tuple[float, float]) -> dict[str, object]:
    number = estimate(values) if values else Estimate(mean=math.nan, low=None, high=None, n=0)
    return {
        "setting": first["setting"],
        "series": first["series"],
        "load_point": first["load_point"],
        "load_axis": first["load_axis"],
        **{name: first[name] for name in load_names.LOAD_POINT},
        "mean": number.mean,
        "low": number.low,
        "high": number.high,
        "n": number.n,
        "state": first["state"],
        "reason": None if pd.isna(first["failure_class"]) else first["failure_class"],
        "trial_key": first["trial_key"],
        "provenance": first["provenance"],
        **dict(zip((predicted.LOW, predicted.HIGH), ends, strict=True)),
    }


def cell_text(row: Row) -> str:
    """Write a row of a summary: mean, half of its interval and n; or why there is no number."""
    if row["n"] == 0:
        return no_number_text(row)
    spread = "" if math.isnan(row["low"]) else f" ± {number_text((row['high'] - row['low']) / 2)}"
    return f"{mean_text(row)}{spread} (n={row['n']})"


def predicted_text(row: Row) -> str:
    """Write the interval that the model expects of a number as ``[103 to 205]``; empty where it has none."""
    low, high = row[predicted.LOW], row[predicted.HIGH]
    return "" if math.isnan(high) else f"[{number_text(low)} to {number_text(high)}]"


def mean_text(row: Row) -> str:
    """Write the mean of a row of a summary."""
    return metric_text(row["mean"], MAX_USERS if row["load_point"] == load_names.MOST_USERS else "")


def metric_text(value: float, metric: str) -> str:
    """Write a value of a metric; users are counted, so a whole number of them stays whole."""
    is_whole = metric == MAX_USERS and value == round(value)
    return f"{value:,.10g}" if is_whole else number_text(value)


def _cell(value: object, is_markdown: bool) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    text = number_text(value) if isinstance(value, float) else str(value)
    # A message of several lines is one cell.
    return text if is_markdown else markdown.escaped(text.replace("\n", " "))
