"""What an answer costs: the price of the GPUs over what they serve, and the energy of a token.

A GPU is paid for by the hour, busy or not. At a load point a setting serves so many tokens and requests per
second; what its GPUs cost in that time, divided by them, is the cost of one. It holds for that load: at less
the same GPUs cost as much and serve less.
"""

from __future__ import annotations

import pandas as pd

from analysis import bests, load_names, tables
from analysis.records import records
from analysis.standings import Standings
from analysis.study import Study
from sweeper.records import gpus_of_row
from sweeper.records.derived import ENERGY, cost
from sweeper.text.numbers import number_text
from sweeper.text.output import json_answer

_HELD = ("setting", "devices", "partition_mode", "partitions_per_gpu")

_COSTS = {
    "output_throughput_tok_per_s": ("per million output tokens", 1_000_000),
    "total_throughput_tok_per_s": ("per million tokens", 1_000_000),
    "request_throughput_per_s": ("per 1000 requests", 1_000),
}


def costs(study: Study) -> pd.DataFrame:
    """Return the cost of a setting at each load point.

    Returns:
        Columns ``setting``, ``load point``, ``GPUs``, ``per million output tokens``, ``per million tokens``
        (input and output) and ``per 1000 requests``, in the study's currency and NaN where it was not
        measured; those that no setting has are left out. Empty where the study names no price.
    """
    price = study.price_per_gpu_hour
    if price is None:
        return pd.DataFrame()
    gpus = gpus_of(study)
    found: dict[tuple[str, str], dict[str, object]] = {}
    for metric, (words, many) in _COSTS.items():
        for row in tables.summary(study.frame, metric=metric, series=study.series).to_dict("records"):
            setting, point = str(row["setting"]), load_names.load_point_text(row)
            used = gpus.get(setting)
            if used is None or row["n"] == 0:
                continue
            line = found.setdefault((setting, point), {"setting": setting, "load point": point, "GPUs": used})
            mean = row["mean"]
            line[words] = cost(price, gpus=used, per_s=mean, many=many) if mean > 0 else float("nan")
    columns = ["setting", "load point", "GPUs", *(words for words, _ in _COSTS.values())]
    table = pd.DataFrame(list(found.values()), columns=columns)
    return table.drop(columns=[words for words, _ in _COSTS.values() if table[words].isna().all()])


def energy(study: Study) -> pd.DataFrame:
    """Return the energy of an output token, by setting and load point.

    Returns:
        Columns ``setting``, ``load point``, ``mean power (W)`` and ``J per output token``, a row where the
        platform told the power; empty where it never did.
    """
    rows = records(tables.summary(study.frame, metric=ENERGY, series=study.series))
    power = {
        (str(row["setting"]), load_names.load_point_text(row)): row["mean"]
        for row in records(tables.summary(study.frame, metric="gpu_power_w", series=study.series))
    }
    found = [
        {
            "setting": str(row["setting"]),
            "load point": load_names.load_point_text(row),
            "mean power (W)": power.get((str(row["setting"]), load_names.load_point_text(row))),
            "J per output token": row["mean"],
        }
        for row in rows
        if row["n"] > 0
    ]
    return pd.DataFrame(found)


def energy_section(study: Study, stand: Standings) -> str:
    """Return the report's section on energy, in the order of the standings; nothing without power."""
    table = energy(study)
    if table.empty:
        return ""
    return (
        f"## Energy\n\n{tables.to_markdown(_ordered(table, stand))}\n\nMean power of the GPUs that a setting "
        "holds over the output tokens it makes per second; host and cooling are not in it. 3.6 million J are "
        "1 kWh."
    )


def section(study: Study, stand: Standings) -> str:
    """Return the report's section on costs, in the order of the standings; nothing without a price."""
    table = costs(study)
    if table.empty:
        return ""
    shown = _ordered(table, stand)
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
            f"{number_text(row[words])} {words}"
            for words, _ in _COSTS.values()
            if not pd.isna(row.get(words))
        ]
        told = " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))
        texts.append(f"{told} {bests.at_text(row['load point'])}")
    return f"cost in {_unit(study)}: {'; '.join(texts)}" if texts else ""


def _ordered(table: pd.DataFrame, stand: Standings) -> pd.DataFrame:
    place = {setting: number for number, setting in enumerate(stand.order)}
    return table.sort_values("setting", key=lambda names: names.map(place), kind="stable")


def _unit(study: Study) -> str:
    return study.currency or "the currency of study.price_per_gpu_hour"


def gpus_of(study: Study) -> dict[str, float]:
    """Return how many GPUs each setting holds; one that never held any is not there."""
    settings = tables.settings(study.frame, study.series).drop_duplicates("setting")
    rows = records(settings[[name for name in _HELD if name in settings]])
    return {str(row["setting"]): gpus_of_row(row) for row in rows if row["devices"] is not None}


def nothing_known(study: Study) -> str:
    """Explain why nothing is said of costs."""
    return (
        f"{study.name}: names no price and tells no power; expected study.price_per_gpu_hour when it was "
        "run, or --price now. Give --price."
    )


def as_json(study: Study) -> str:
    """Return costs and energy for programs; what is not known is left out of a row."""
    found = {
        "study": study.name,
        "provenance": "simulated" if study.is_simulated else "measured",
        "price_per_gpu_hour": study.price_per_gpu_hour,
        "currency": study.currency,
        "costs": _records(costs(study)),
        "energy": _records(energy(study)),
    }
    return json_answer(found)


def _records(table: pd.DataFrame) -> list[dict[str, object]]:
    return [
        {str(name): value for name, value in row.items() if not pd.isna(value)}
        for row in table.to_dict("records")
    ]
