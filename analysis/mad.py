"""AMD's validation report: the two CSV files that its benchmark scripts write, from the results of a study.

Users of ``vllm_benchmark_report.sh`` find files, columns and formulas unchanged. What is known
besides (percentiles, placement, versions) stays in ``measurements/``. A file of AMD's has no column for it,
so the model's name itself says where numbers are simulated, and which setting they are of where several
differ in what has no column either.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import tables
from analysis.study import Study
from sweeper.errors import ConfigError
from sweeper.text.writing import write_answer

LATENCY_COLUMNS = (
    *("model", "latency (ms)", "latency_per_tkn (ms)", "tp", "batch_size"),
    *("input_len", "output_len", "dtype"),
)
THROUGHPUT_COLUMNS = (
    *("model", "throughput_tot (tok/sec)", "throughput_gen (tok/sec)", "tp", "requests"),
    *("input_len", "output_len", "dtype"),
)
_LENGTHS = ("num_prompts", "input_len", "output_len")
_FP8_QUANTIZATIONS = ("fp8", "fbgemm_fp8", "compressed-tensors")


def write(study: Study) -> list[Path]:
    """Write ``reports_<dtype>/<model>_latency_report.csv`` and ``..._throughput_report.csv``.

    Args:
        study: Of load points of dataset latency or throughput; others are left out.

    Returns:
        The files, below the study's folder.

    Raises:
        ConfigError: Nothing of the kind was measured.
    """
    written = []
    for dataset, table in (("latency", latency_table(study)), ("throughput", throughput_table(study))):
        for (dtype, model), rows in table.groupby(["dtype", "file"], sort=False):
            path = study.folder / f"reports_{dtype}" / f"{model}_{dataset}_report.csv"
            write_answer(path, rows.drop(columns="file").to_csv(index=False))
            written.append(path)
    if not written:
        raise ConfigError(
            f"{study.folder}: no complete measurement of dataset latency or throughput; expected some for "
            "AMD's report. Run an experiment with client=offline, such as mad_report."
        )
    return written


def latency_table(study: Study) -> pd.DataFrame:
    """Return the latency report: a row per batch, means over restarts and repeats.

    Returns:
        ``LATENCY_COLUMNS``, and ``file``, the model's part of a file name.

    Source:
        latency_per_tkn = latency / output length, as the script's report parser computes it.
    """
    rows = _rows(study, "latency", {"latency (ms)": "mean_batch_latency_ms"})
    rows["latency_per_tkn (ms)"] = rows["latency (ms)"] / rows["output_len"]
    return rows.rename(columns={"num_prompts": "batch_size"})[[*LATENCY_COLUMNS, "file"]]


def throughput_table(study: Study) -> pd.DataFrame:
    """Return the throughput report: a row per load, computed from the mean time over restarts and repeats.

    Returns:
        ``THROUGHPUT_COLUMNS``, and ``file``, the model's part of a file name.

    Source:
        AMD's document: throughput_tot = requests * (input lengths + output lengths) / elapsed_time,
        throughput_gen = requests * output lengths / elapsed_time.
    """
    rows = _rows(study, "throughput", {"elapsed_s": "duration_s"})
    generated = rows["num_prompts"] * rows["output_len"]
    everything = generated + rows["num_prompts"] * rows["input_len"]
    rows["throughput_tot (tok/sec)"] = everything / rows["elapsed_s"]
    rows["throughput_gen (tok/sec)"] = generated / rows["elapsed_s"]
    return rows.rename(columns={"num_prompts": "requests"})[[*THROUGHPUT_COLUMNS, "file"]]


def _rows(study: Study, dataset: str, wanted: dict[str, str]) -> pd.DataFrame:
    """Return one row per setting and load: its engine starts and runs are averaged, and no two settings."""
    chosen = study.frame[(study.frame["state"] == "complete") & (study.frame["dataset"] == dataset)]
    models = chosen.groupby(["model", "model_dtype"], dropna=False, sort=False)
    named = [tables.settings(group.reset_index(drop=True), study.series) for _, group in models]
    complete = pd.concat(named, ignore_index=True) if named else chosen.assign(setting="", load_point="")
    # A trial of several series is one.
    complete = complete.drop_duplicates(["trial_key", "load_point", "restart", "repeat"])
    names = [str(model).rstrip("/").rpartition("/")[2] for model in complete["model"]]
    mark = " (simulated)" if study.is_simulated else ""
    table = pd.DataFrame(
        {
            "model": names,
            "setting": complete["setting"].to_numpy(),
            "file": names,
            "tp": [_parallel(value) for value in _column(complete, "knob.tensor_parallel_size")],
            "dtype": [_dtype(row) for row in complete.to_dict("records")],
            **{name: complete[name].astype("int64").to_numpy() for name in _LENGTHS},
            **{name: complete[source].astype("float64").to_numpy() for name, source in wanted.items()},
        }
    )
    told = [name for name in table.columns if name not in (*wanted, "setting")]
    is_one = table.groupby(told)["setting"].transform("nunique").le(1)
    table["model"] = [
        f"{name}{'' if one else f' ({setting})'}{mark}"
        for name, setting, one in zip(table["model"], table["setting"], is_one, strict=True)
    ]
    keys = [name for name in table.columns if name not in wanted]
    grouped = table.groupby(keys, sort=False, as_index=False).mean()
    # The script's order: prefill (one output token) before decoding, then by length and batch.
    order = ["file", "dtype", "tp", "output_len", "input_len", "num_prompts"]
    found: pd.DataFrame = grouped.sort_values(order, ignore_index=True)
    return found


def _column(frame: pd.DataFrame, name: str) -> list[Any]:
    return list(frame[name]) if name in frame.columns else [None] * len(frame)


def _parallel(value: Any) -> int:
    return 1 if pd.isna(value) else int(value)


def _dtype(row: Mapping[Hashable, Any]) -> str:
    """Name the type of numbers as the script's users do: float8 for fp8 weights, else the activations'."""
    is_fp8 = row["model_dtype"] == "fp8" or row.get("knob.quantization") in _FP8_QUANTIZATIONS
    asked = row.get("knob.dtype")
    known = asked if isinstance(asked, str) and asked != "auto" else row["model_dtype"]
    return "float8" if is_fp8 else str(known).replace("half", "float16")
