"""What an engine reports of its configuration: recorded from the real one, made up after other releases."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sweeper.engines.agreement import differences, not_compared
from sweeper.engines.reported_config import read_effective
from sweeper.records import Assignment

RECORDED = Path(__file__).resolve().parents[1] / "recorded" / "vllm_0.32.0_cpu"
ASKED: Assignment = {
    "compilation_config": '{"mode": 0}',
    "speculative_config": '{"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 3}',
    "override_generation_config": '{"temperature": 0.5}',
    "hf_overrides": '{"rope_theta": 20000.0}',
    "max_num_seqs": 8,
    "enable_prefix_caching": False,
}
LOG = (RECORDED / "engine.log").read_text(encoding="utf-8")
METRICS = (RECORDED / "metrics.txt").read_text(encoding="utf-8")
SERVER_INFO = json.loads((RECORDED / "server_info.json").read_text(encoding="utf-8"))

PREFIX = (
    "(EngineCore_DP0 pid=71) INFO 10-30 14:20:52 [core.py:93] Initializing a V1 LLM engine (v0.11.0) with "
    "config: "
)


@pytest.mark.parametrize(
    "server_info", [None, SERVER_INFO], ids=["without its endpoint", "with its endpoint"]
)
def test_real_engine_runs_what_it_was_asked(server_info: object) -> None:
    effective = read_effective(server_info=server_info, metrics=METRICS, log=LOG, asked=ASKED)
    assert differences(ASKED, effective) == {}
    assert not_compared(ASKED, effective) == {}
    assert effective["compilation_config"] == '{"mode": 0}'
    assert '"num_speculative_tokens": 2' in str(effective["speculative_config"])
    assert effective["block_size"] == 128
    assert effective["max_model_len"] == 1024


@pytest.mark.parametrize(
    "server_info", [None, SERVER_INFO], ids=["without its endpoint", "with its endpoint"]
)
def test_real_engine_is_found_out_where_it_runs_something_else(server_info: object) -> None:
    other = {
        "compilation_config": '{"mode": 3, "cudagraph_mode": "FULL"}',
        "speculative_config": '{"method": "ngram", "num_speculative_tokens": 4}',
        "hf_overrides": '{"rope_theta": 10000.0}',
    }
    effective = read_effective(server_info=server_info, metrics=METRICS, log=LOG, asked=other)
    assert set(differences(other, effective)) == {
        "compilation_config.mode",
        "compilation_config.cudagraph_mode",
        "speculative_config.num_speculative_tokens",
        "hf_overrides.rope_theta",
    }


def read(log: str, asked: Assignment) -> dict[str, object]:
    return dict(read_effective(server_info=None, metrics="", log=log, asked=asked))


def test_line_that_logger_cut_into_pieces_is_put_together() -> None:
    line = f'{PREFIX}model=\'m\', compilation_config={{"level":3,"cudagraph_capture_sizes":[8,4,2,1]}}'
    middle = line.index("capture")
    asked = {"compilation_config": '{"level": 3, "cudagraph_capture_sizes": [1, 2, 4, 8]}'}
    pieces = (
        f"{line[:middle]}\n{line[middle:]}\n(EngineCore_DP0 pid=71) INFO 10-30 14:20:53 [core.py:94] next\n"
    )
    for log in (line, pieces):
        effective = read(log, asked)
        assert json.loads(str(effective["compilation_config"]))["cudagraph_capture_sizes"] == [8, 4, 2, 1]


def test_of_line_that_is_cut_off_half_value_is_not_compared() -> None:
    log = f"{PREFIX}compilation_config={{'mode': <CompilationMode.NONE: 0>, 'max_capture_size': 25"
    asked = {"compilation_config": '{"mode": 0, "max_capture_size": 256}'}
    effective = read(log, asked)
    assert effective["compilation_config"] == '{"mode": 0}'
    assert differences(asked, {"compilation_config": str(effective["compilation_config"])}) == {}


def test_speculation_that_engine_left_off_is_difference() -> None:
    asked = {"speculative_config": '{"method": "ngram", "num_speculative_tokens": 2}'}
    effective = read(f"{PREFIX}model='m', speculative_config=None, max_seq_len=8", asked)
    assert effective["speculative_config"] == "None"
    assert "speculative_config" not in read(f"{PREFIX}model='m', max_seq_len=8", asked)


def test_object_in_line_tells_flags_in_it() -> None:
    log = (
        f"{PREFIX}model='m', observability_config=ObservabilityConfig(collect_detailed_traces='all', "
        "kv_cache_metrics=True), enforce_eager=False"
    )
    effective = read(log, {"collect_detailed_traces": "all", "kv_cache_metrics": True})
    assert effective == {"collect_detailed_traces": "all", "enforce_eager": False, "kv_cache_metrics": True}


def test_colour_in_line_is_no_part_of_it() -> None:
    log = f"\x1b[1;36m(EngineCore_0 pid=9)\x1b[0;0m {PREFIX.partition(') ')[2]}max_seq_len=1024\x1b[0m"
    assert read(log, {}) == {"max_model_len": 1024}


@pytest.mark.parametrize("label", ["", 'effective_attention_block_size="528",'], ids=["0.21", "0.32"])
def test_of_hybrid_model_block_that_engine_runs_counts(label: str) -> None:
    metrics = f'vllm:cache_config_info{{{label}block_size="16",engine="0"}} 1.0\n'
    log = (
        "(EngineCore pid=7) INFO 05-18 10:00:00 [config.py:504] Setting attention block size to 528 tokens "
        "to ensure that attention page size is >= mamba page size.\n"
    )
    info = {"vllm_config": {"cache_config": {"block_size": 16}}}
    asked = {"block_size": 16}
    effective = read_effective(server_info=info, metrics=metrics, log="" if label else log, asked=asked)
    assert effective["block_size"] == 528
    assert differences(asked, effective) == {"block_size": (16, 528)}


def test_block_that_ranks_of_context_share_is_told_for_one() -> None:
    metrics = 'vllm:cache_config_info{effective_attention_block_size="32",block_size="16"} 1.0\n'
    log = f"{PREFIX}decode_context_parallel_size=2, max_seq_len=8"
    assert read_effective(server_info=None, metrics=metrics, log=log, asked=())["block_size"] == 16


def test_key_can_be_knob_of_its_own() -> None:
    asked = {"compilation_config.mode": 0}
    effective = read(f"{PREFIX}compilation_config={{'mode': <CompilationMode.NONE: 0>}}", asked)
    assert effective == {"compilation_config.mode": 0}
    assert differences({"compilation_config.mode": 3}, effective) == {"compilation_config.mode": (3, 0)}
