"""The real SGLang on the cpu platform, where an environment has one: SWEEPER_SGLANG_PYTHON names it.

No package registry has a build of it for processors, so no environment is made for this.
"""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest

from sweeper import cli, knobs
from sweeper.engines import sglang_environment
from tests.standin_sglang import engine_spec

PYTHON = os.environ.get("SWEEPER_SGLANG_PYTHON", "")

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="SWEEPER_SGLANG_PYTHON names no environment of SGLang"),
]


def test_table_has_flags_of_real_parser() -> None:
    release = sglang_environment.probe(PYTHON).release
    if release not in knobs.sglang_releases():
        pytest.skip(f"the table was not made from SGLang {release}")
    table = knobs.sglang_flags(release)
    own = sglang_environment.flags_of(engine_spec(PYTHON, "0.4.10.post2"))
    given = {"help"}
    assert set(own) - given == set(table) - given
    assert {name: flag for name, flag in own.items() if name in table} == {
        name: flag for name, flag in table.items() if name in own
    }


def test_real_sglang_runs_what_was_asked(tmp_path: Path, vllm_python: str) -> None:
    words = (
        *("engine=sglang", "platform=cpu", "model=tiny_llama", "workload=smoke", "executor=inline"),
        *(f"engine.python={PYTHON}", f"client.python={vllm_python}"),
        *("knobs.max_total_tokens=20000", "knobs.mem_fraction_static=0.05", "study.name=study"),
        *("space.knobs.max_running_requests=[4]", "workload.request_rate_per_s=[null]"),
        *("workload.second_run=true", f"study.outputs={tmp_path}"),
    )
    assert cli.main(words) == cli.OK
    rows = pd.read_parquet(tmp_path / "study" / "measurements").set_index("keeps_prefix_cache")
    assert set(rows["state"]) == {"complete"}
    assert set(rows["effective.max_running_requests"]) == {4}
    assert set(rows["effective.max_total_num_tokens"]) == {20000}
    assert list(rows["completed"]) == list(rows["num_prompts"])
    assert set(rows["preemptions"]) == {0}
    # Emptied before the first run; kept for the second, which sends the same prompts.
    assert rows.loc[False, "prefix_cache_hit_rate"] < 0.1
    assert rows.loc[True, "prefix_cache_hit_rate"] > 0.9
