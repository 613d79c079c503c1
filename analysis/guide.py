"""The block of text that vLLM's serving benchmark prints, from the results of a study.

The serving benchmark guide collects these blocks in ``benchmark_results.md``; a reader who keeps such a file
can go on with it, and compare line by line. Above each block is what the guide has there, and where the
numbers come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import tables
from analysis.study import Study
from sweeper.errors import ConfigError
from sweeper.kinds import DATASETS
from sweeper.records.metrics import BY_NAME, REQUEST_LATENCIES
from sweeper.records.plurals import amount
from sweeper.text.writing import write_answer

FILE_NAME = "benchmark_results.md"

_WIDTH = 50
_LINES = (
    *("completed", "duration_s", "total_input_tokens", "total_output_tokens"),
    *("request_throughput_per_s", "output_throughput_tok_per_s", "total_throughput_tok_per_s"),
)


def write(study: Study) -> Path:
    """Write the blocks of all measurements of a serving benchmark into the study's folder.

    Raises:
        ConfigError: There is no such measurement.
    """
    is_serving = (study.frame["state"] == "complete") & study.frame["dataset"].map(_is_of_a_server)
    rows = [
        {str(name): value for name, value in row.items()}
        for row in study.frame[is_serving].to_dict("records")
    ]
    if not rows:
        raise ConfigError(
            f"{study.folder}: no complete measurement of a serving benchmark; expected some to show. "
            "Run the study first, or look into report.md for why there are none."
        )
    return write_answer(study.folder / FILE_NAME, "\n".join(_entry(study, row) for row in rows))


def _is_of_a_server(dataset: object) -> bool:
    """Return whether a dataset is one that is sent to a server; unknown ones of other packages are."""
    kind = DATASETS.get(str(dataset))
    return kind is None or kind.needs_server


def block(row: Mapping[str, Any]) -> str:
    """Write one measurement as vLLM's benchmark prints it; a line whose number is unknown is left out.

    Args:
        row: Metric columns of the store; missing values are None or NaN.

    Source:
        vLLM, benchmarks/benchmark_serving.py 0.6.4: labels, widths and two decimals.
    """
    lines = [_rule(" Serving Benchmark Result ", "=")]
    lines += [
        _line(metric.printed_as, row.get(metric.name), "d" if metric.is_whole else ".2f")
        for metric in map(BY_NAME.__getitem__, _LINES)
    ]
    for latency in REQUEST_LATENCIES:
        figures = [
            _line(f"{word} {latency.name.upper()} (ms):", row.get(f"{statistic}_{latency.name}_ms"), ".2f")
            for word, statistic in (("Mean", "mean"), ("Median", "median"), ("P99", "p99"))
        ]
        lines += [_rule(latency.heading, "-"), *figures] if any(figures) else []
    lines.append("=" * _WIDTH)
    return "\n".join(line for line in lines if line) + "\n"


def _entry(study: Study, row: Mapping[str, Any]) -> str:
    rate, most = row["request_rate_per_s"], row["max_concurrency"]
    knobs = {name.removeprefix("knob."): value for name, value in row.items() if name.startswith("knob.")}
    chosen = ", ".join(f"{name}={value}" for name, value in knobs.items() if not pd.isna(value))
    labels = ", ".join(study.series[name].label for name in row["series"] if name in study.series)
    return "\n".join(
        [
            "### Serving Benchmarks",
            "Simulated: no GPU was measured." if row["provenance"] != "measured" else "Measured.",
            f"{row['model']}, {tables.other_engine(row) or 'vLLM ' + str(row['version.vllm'])}, "
            f"{amount(row['num_prompts'], 'prompt')} of {row['dataset']}",
            *([f"Series: {labels}"] if labels else []),
            f"Knobs: {chosen or 'none'}",
            f"Engine start {row['restart']}, run {row['repeat']}",
            f"Traffic request rate: {'inf' if pd.isna(rate) else rate}",
            f"Maximum request concurrency: {None if pd.isna(most) else most}",
            "",
            f"```\n{block(row)}```",
            "",
        ]
    )


def _line(label: str, value: Any, form: str) -> str:
    if pd.isna(value):
        return ""
    number = int(value) if form == "d" else float(value)
    # Padded on both sides there; what trails in the guide's file is blank and is not kept.
    return f"{label:<40} {number:{form}}"


def _rule(title: str, filling: str) -> str:
    return f"{title:{filling}^{_WIDTH}}"
