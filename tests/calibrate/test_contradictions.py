"""Numbers of one run that cannot all be right are refused; what public sources say is not, but for one."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeper.calibrate import public, table
from sweeper.calibrate.contradictions import contradictions
from sweeper.errors import ConfigError
from tests.calibrate.test_table import row, written

SERVED = "dataset=random;num_prompts=512;input_len=1024;output_len=128"


def served(metric: str, value: str, *, load: str = SERVED, knobs: str = "") -> str:
    return row(load=load, metric=metric, value=value, knobs=f"tensor_parallel_size=1;{knobs}")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [
                served("output_throughput_tok_per_s", "3958", knobs="max_num_seqs=128"),
                served("mean_tpot_ms", "196", knobs="max_num_seqs=128"),
            ],
            r"line 2 and line 3: cannot be right: 3,958 output tokens/s at 196 ms each are 776 requests at a "
            r"time; expected at most 128, by max_num_seqs\. Correct or remove what is wrong\.",
        ),
        (
            [
                served("output_throughput_tok_per_s", "1000", load=f"{SERVED};max_concurrency=16"),
                served("median_tpot_ms", "40", load=f"{SERVED};max_concurrency=16"),
            ],
            "are 40 requests at a time; expected at most 16, by max_concurrency",
        ),
        (
            [
                served("request_throughput_per_s", "9", load=f"{SERVED};request_rate_per_s=4"),
                served("mean_ttft_ms", "100", load=f"{SERVED};request_rate_per_s=4"),
            ],
            r"line 2: cannot be right: 9 requests/s were answered; expected at most those sent, 4 by request",
        ),
        (
            [
                served("output_throughput_tok_per_s", "11520"),
                served("request_throughput_per_s", "10"),
            ],
            "in 10 requests/s are answers of 1,152 tokens; expected at most 128, by output_len",
        ),
    ],
)
def test_numbers_that_cannot_all_be_right_are_refused(tmp_path: Path, rows: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        table.read(written(tmp_path, *rows))


def test_what_is_possible_and_what_is_of_two_runs_is_read(tmp_path: Path) -> None:
    rows = [
        served("output_throughput_tok_per_s", "1000", load=f"{SERVED};max_concurrency=16"),
        served("mean_tpot_ms", "15", load=f"{SERVED};max_concurrency=16"),
        served("mean_tpot_ms", "196", load=f"{SERVED};max_concurrency=256"),
        served("request_throughput_per_s", "7.5", load=f"{SERVED};max_concurrency=16"),
    ]
    assert len(table.read(written(tmp_path, *rows)).figures) == 4


def test_of_public_sources_one_contradicts_itself() -> None:
    found = {
        source["name"]: [each.why for each in contradictions(public.source_figures(source))]
        for source in public.sources()
    }
    assert {name for name, why in found.items() if why} == {"lambda_8b_h100"}
    (why,) = found["lambda_8b_h100"]
    assert why == (
        "3,958.4 output tokens/s at 196.24 ms each are 777 requests at a time; expected at most 256, by "
        "max_num_seqs"
    )
