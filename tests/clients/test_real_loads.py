"""Every kind of load of vLLM's own client, on the real vLLM (CPU build): requests and lengths as asked."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from sweeper import cli

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

CHUNK_TOKENS = 128


def write_files(folder: Path) -> None:
    """Write a file of each kind that a user might bring."""
    chosen = random.Random(0)
    prompts = [
        {
            "prompt": f"question {number} " + "word " * chosen.randint(20, 60),
            "output_tokens": chosen.randint(4, 12),
        }
        for number in range(16)
    ]
    write_lines(folder / "prompts.jsonl", prompts)
    template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    (folder / "template.jinja").write_text(template, encoding="utf-8")
    trace = [
        {"timestamp": 300 * number, "input_length": 300 + number, "output_length": 8}
        | {"hash_ids": [7, 100 + number, 200 + number]}
        for number in range(30)
    ]
    write_lines(folder / "trace.jsonl", trace)
    with (folder / "burst.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["Timestamp", "Model", "Request tokens", "Response tokens", "Total tokens", "Log Type"])
        rows.writerows([number, "GPT-4", 40 + number, 6, 46 + number, "API log"] for number in range(40))


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def points(folder: Path) -> dict[str, dict[str, Any]]:
    """The load points by name, each as a user writes it."""
    own = {"input_len": None, "output_len": None}
    short = {"dataset": "random", "input_len": 64, "output_len": 8}
    named = {
        "prefixes": {
            **{"dataset": "prefix_repetition", "input_len": None, "output_len": 8},
            "options": {"num_prefixes": 4, "prefix_len": 256, "suffix_len": 32},
        },
        "random_prefix": {**short, "options": {"prefix_len": 256}},
        "custom": {"dataset": "custom", "dataset_path": str(folder / "prompts.jsonl"), **own},
        "burst": {"dataset": "burstgpt", "dataset_path": str(folder / "burst.csv"), **own},
        "timed": {
            **{"dataset": "timed_trace", "dataset_path": str(folder / "trace.jsonl"), **own},
            "options": {"chunk_len": CHUNK_TOKENS},
        },
        "chat": {**short, "endpoint": "chat", "sampling": {"top_p": 0.9}, "extra_body": {"min_tokens": 2}},
        "ramp": {**short, "ramp_up": {"strategy": "linear", "start_per_s": 2, "end_per_s": 6}},
        "bursty": {**short, "request_rate_per_s": 4, "burstiness": 0.5},
        **{f"users_{users}": {**short, "max_concurrency": users} for users in (1, 2, 4, 8)},
    }
    # Each has a number of prompts of its own, by which its row is found; of the file of 16 all are sent.
    return {
        name: {**point, "num_prompts": 8 + 4 * number} for number, (name, point) in enumerate(named.items())
    }


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory, vllm_python: str) -> Mapping[str, pd.Series]:
    """Rows of one engine that had all loads one after the other, by the names of the loads."""
    folder = tmp_path_factory.mktemp("loads")
    write_files(folder)
    named = points(folder)
    experiment = {
        "defaults": [{"override /model": "tiny_llama"}, {"override /workload": "smoke"}],
        "study": {"experiment": "loads", "outputs": str(folder / "outputs")},
        "knobs": {
            "enforce_eager": True,
            "max_model_len": 1024,
            "max_num_seqs": 8,
            "enable_prefix_caching": True,
            "chat_template": str(folder / "template.jinja"),
        },
        "workload": {"request_rate_per_s": None, "points": list(named.values())},
    }
    path = folder / "conf" / "experiment" / "loads.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(f"# @package _global_\n{yaml.safe_dump(experiment, sort_keys=False)}", encoding="utf-8")
    words = ["--config-dir", str(folder / "conf"), "+experiment=loads", "platform=cpu", "executor=inline"]
    assert cli.main([*words, f"engine.python={vllm_python}"]) == cli.OK
    frame = pd.read_parquet(folder / "outputs" / "loads-cpu" / "measurements").set_index("num_prompts")
    assert len(frame) == len(named)
    return {name: frame.loc[point["num_prompts"]] for name, point in named.items()}


def test_each_load_is_complete_and_measured(rows: Mapping[str, pd.Series], tmp_path: Path) -> None:
    for name, point in points(tmp_path).items():
        row = rows[name]
        assert (row["state"], row["provenance"]) == ("complete", "measured"), name
        assert (row["completed"], row["failed"]) == (point["num_prompts"], 0), name
        assert row["dataset"] == point["dataset"], name


def test_lengths_are_those_of_the_files_and_of_what_was_asked(
    rows: Mapping[str, pd.Series], tmp_path: Path
) -> None:
    write_files(tmp_path)
    lines = (tmp_path / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    answers = [json.loads(line)["output_tokens"] for line in lines]
    custom, burst, timed = rows["custom"], rows["burst"], rows["timed"]
    assert custom["total_output_tokens"] == sum(answers)
    assert burst["total_output_tokens"] == 6 * burst.name
    assert timed["total_input_tokens"] == sum(300 + number for number in range(timed.name))
    for name in ("prefixes", "random_prefix", "timed", "ramp", "bursty", "chat"):
        assert rows[name]["total_output_tokens"] == 8 * rows[name].name, name
    for name, tokens in (("prefixes", 256 + 32), ("random_prefix", 256 + 64), ("ramp", 64), ("users_4", 64)):
        # The client makes a text of its tokens, which may come back as one or two more or fewer.
        assert rows[name]["total_input_tokens"] == pytest.approx(tokens * rows[name].name, rel=0.01), name


def test_requests_of_a_trace_leave_at_their_times(rows: Mapping[str, pd.Series]) -> None:
    # The last one leaves that long after the first, whatever the engine's speed.
    assert rows["timed"]["duration_s"] >= 0.3 * (rows["timed"].name - 1)


def test_hit_rates_of_shared_prefixes_are_what_the_engine_counted(rows: Mapping[str, pd.Series]) -> None:
    prefixes, shared, timed = rows["prefixes"], rows["random_prefix"], rows["timed"]
    # Blocks of 128 tokens. The first with each beginning finds nothing, each later one finds it whole.
    asked = {
        "prefixes": (prefixes.name - 4) * 256 / (prefixes.name * 288),
        "random_prefix": (shared.name - 1) * 256 / (shared.name * 320),
        "timed": (timed.name - 1) * 128 / timed["total_input_tokens"],
        "burst": 0.0,
        "ramp": 0.0,
    }
    for name, expected in asked.items():
        # Within the few tokens that a client sends first to see whether the server answers.
        assert rows[name]["prefix_cache_hit_rate"] == pytest.approx(expected, abs=0.01), name
