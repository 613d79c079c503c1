"""The block that vLLM's serving benchmark prints, line by line as the guide shows it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from analysis import cli, guide
from analysis.study import Study
from sweeper.errors import ConfigError
from sweeper.records import LoadPoint, Provenance, TrialResult

MakeTrial = Callable[..., TrialResult]
MakeFolder = Callable[..., Path]

# The guide's own numbers: ShareGPT, 200 prompts, all at once.
NUMBERS = {
    "completed": 200,
    "duration_s": 8.63,
    "total_input_tokens": 42659,
    "total_output_tokens": 26776,
    "request_throughput_per_s": 23.18,
    "output_throughput_tok_per_s": 3103.24,
    "total_throughput_tok_per_s": 8047.27,
    "mean_ttft_ms": 1441.22,
    "median_ttft_ms": 2112.7,
    "p99_ttft_ms": 2134.04,
    "mean_tpot_ms": 9.74,
    "median_tpot_ms": 9.70,
    "p99_tpot_ms": 15.87,
    "mean_itl_ms": 9.49,
    "median_itl_ms": 9.38,
    "p99_itl_ms": 16.01,
    "mean_e2el_ms": 2297.19,
    "median_e2el_ms": 3386.84,
    "p99_e2el_ms": 8546.65,
}

BLOCK = """\
============ Serving Benchmark Result ============
Successful requests:                     200
Benchmark duration (s):                  8.63
Total input tokens:                      42659
Total generated tokens:                  26776
Request throughput (req/s):              23.18
Output token throughput (tok/s):         3103.24
Total Token throughput (tok/s):          8047.27
---------------Time to First Token----------------
Mean TTFT (ms):                          1441.22
Median TTFT (ms):                        2112.70
P99 TTFT (ms):                           2134.04
-----Time per Output Token (excl. 1st token)------
Mean TPOT (ms):                          9.74
Median TPOT (ms):                        9.70
P99 TPOT (ms):                           15.87
---------------Inter-token Latency----------------
Mean ITL (ms):                           9.49
Median ITL (ms):                         9.38
P99 ITL (ms):                            16.01
----------------End-to-end Latency----------------
Mean E2EL (ms):                          2297.19
Median E2EL (ms):                        3386.84
P99 E2EL (ms):                           8546.65
==================================================
"""


def test_block_is_guides_own() -> None:
    assert guide.block(NUMBERS) == BLOCK


def test_what_is_unknown_is_left_out_and_not_shown_as_nothing() -> None:
    written = guide.block({"completed": 3, "mean_ttft_ms": float("nan"), "mean_tpot_ms": 2.0})
    assert written.splitlines()[1:-1] == [
        "Successful requests:                     3",
        "-----Time per Output Token (excl. 1st token)------",
        "Mean TPOT (ms):                          2.00",
    ]


def test_every_measurement_gets_its_block_with_its_load_and_provenance(
    trial: MakeTrial, study_folder: MakeFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = study_folder(
        trial(
            series=("tuned",),
            knobs={"max_num_seqs": 1000},
            rates=(250.0, None),
            runs=[[NUMBERS]],
            provenance=Provenance.MEASURED,
            release="0.6.4",
        ),
        trial(knobs={"max_num_seqs": 1}, provenance=Provenance.MEASURED),
        about={"series": {"tuned": {"label": "As the guide"}}},
    )
    assert cli.main(["guide", str(folder)]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "benchmark_results.md")
    written = (folder / "benchmark_results.md").read_text()
    assert written.count(f"```\n{BLOCK}```") == 2
    first = written.partition("```")[0].splitlines()
    assert first == [
        "### Serving Benchmarks",
        "Measured.",
        "meta-llama/Llama-3.1-70B-Instruct, vLLM 0.6.4, 1000 prompts of sharegpt",
        "Series: As the guide",
        "Knobs: max_num_seqs=1000",
        "Engine start 0, run 0",
        "Traffic request rate: 250.0",
        "Maximum request concurrency: None",
        "",
    ]
    assert "Traffic request rate: inf" in written


def test_simulated_numbers_say_so(trial: MakeTrial, study_folder: MakeFolder) -> None:
    path = guide.write(Study.load(study_folder(trial(runs=[[NUMBERS]]))))
    assert "Simulated: no GPU was measured." in path.read_text()


def test_offline_measurements_have_no_block(trial: MakeTrial, study_folder: MakeFolder) -> None:
    batch = LoadPoint(dataset="latency", num_prompts=4, input_len=1, output_len=128)
    folder = study_folder(trial(points=(batch,), runs=[[{"mean_batch_latency_ms": 1.0}]]))
    with pytest.raises(ConfigError, match="no complete measurement of a serving benchmark"):
        guide.write(Study.load(folder))
