"""What an answer costs: the price of the GPUs over what they serve, where a study names a price.

A GPU is paid for by the hour, busy or not. At a load point a setting serves so many tokens and requests per
second; what its GPUs cost in that time, divided by them, is the cost of one. It holds for that load: at less
the same GPUs cost as much and serve less.
"""

from __future__ import annotations

import pandas as pd

from analysis import bests, tables
from analysis.standings import Standings
from analysis.study import Study
from sweeper.records import gpus_of_row

_COSTS = {
    "output_throughput_tok_per_s": ("per million output tokens", 1_000_000),
    "request_throughput_per_s": ("per 1000 requests", 1_000),
}


def costs(study: Study) -> pd.DataFrame:
    """Return the cost of a setting at each load point.

    Returns:
        Columns ``setting``, ``load point``, ``GPUs``, ``per million output tokens`` and ``per 1000 requests``
        (in the study's currency; NaN where it was not measured); empty where the study names no price.
    """
    price = study.price_per_gpu_hour
    if price is None:
        return pd.DataFrame()
    gpus = gpus_of(study)
    found: dict[tuple[str, str], dict[str, object]] = {}
    for metric, (words, many) in _COSTS.items():
        for row in tables.summary(study.frame, metric=metric, series=study.series).to_dict("records"):
            setting, point = str(row["setting"]), tables.load_point_text(row)
            used = gpus.get(setting)
            if used is None or row["n"] == 0:
                continue
            line = found.setdefault((setting, point), {"setting": setting, "load point": point, "GPUs": used})
            line[words] = price * used / 3600 / row["mean"] * many if row["mean"] > 0 else float("nan")
    columns = ["setting", "load point", "GPUs", *(words for words, _ in _COSTS.values())]
    return pd.DataFrame(list(found.values()), columns=columns)


def section(study: Study, stand: Standings) -> str:
    """Return the report's section on costs, in the order of the standings; nothing without a price."""
    table = costs(study)
    if table.empty:
        return ""
    place = {setting: number for number, setting in enumerate(stand.order)}
    shown = table.sort_values("setting", key=lambda names: names.map(place), kind="stable")
    shown["GPUs"] = [f"{used:g}" for used in shown["GPUs"]]
    return (
        f"## Cost\n\n{tables.to_markdown(shown)}\n\nIn {_unit(study)}, at {study.price_per_gpu_hour:,.2f} "
        "per GPU and hour: the price of the GPUs that a setting holds, over what it serves at that load. At "
        "a lower load the same GPUs cost as much and serve less."
    )


def line(study: Study, setting: str) -> str:
    """Describe in a line what a setting costs, at each load point; empty without a price."""
    table = costs(study)
    mine = table[table["setting"] == setting] if not table.empty else table
    texts = []
    for row in mine.to_dict("records"):
        parts = [
            f"{tables.number_text(row[words])} {words}"
            for words, _ in _COSTS.values()
            if not pd.isna(row[words])
        ]
        texts.append(f"{' and '.join(parts)} {bests.at_text(row['load point'])}")
    return f"cost in {_unit(study)}: {'; '.join(texts)}" if texts else ""


def _unit(study: Study) -> str:
    return study.currency or "the currency of study.price_per_gpu_hour"


def gpus_of(study: Study) -> dict[str, float]:
    """Return how many GPUs each setting holds; one that never held any is not there."""
    rows = tables.settings(study.frame, study.series).drop_duplicates("setting").to_dict("records")
    return {str(row["setting"]): gpus_of_row(row) for row in rows if row["devices"] is not None}
