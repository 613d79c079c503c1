"""Does an engine run what was asked? Other spellings are no difference, differences are none other."""

from __future__ import annotations

import json

import pytest

from sweeper.engines.agreement import NOT_COMPARED, differences, not_compared, reported_text
from sweeper.engines.reported_values import parse
from sweeper.records import Scalar


def compare(knob: str, asked: Scalar, reported: str) -> tuple[dict[str, object], bool]:
    """What differs, and whether something could not be compared, after the way through a row."""
    effective = {knob: reported_text(knob, asked, parse(reported))}
    return dict(differences({knob: asked}, effective)), bool(not_compared({knob: asked}, effective))


SAME = [
    ("compilation_config", '{"mode": 0}', "{'mode': <CompilationMode.NONE: 0>, 'backend': ''}"),
    ("compilation_config", '{"mode": "NONE"}', "{'mode': <CompilationMode.NONE: 0>}"),
    ("compilation_config", '{"mode": "vllm_compile"}', '{"mode": 3}'),
    ("compilation_config", '{"level": 3}', "{'level': None, 'mode': <CompilationMode.VLLM_COMPILE: 3>}"),
    ("compilation_config", '{"mode": 3}', '{"level":3}'),
    ("compilation_config", "3", '{"level":3,"splitting_ops":[]}'),
    ("compilation_config", 3, '{"level":3}'),
    ("compilation_config", "-O3", '{"level":3}'),
    ("compilation_config", "-O.mode=0", "{'mode': <CompilationMode.NONE: 0>}"),
    (
        "compilation_config",
        "-O.pass_config.enable_fusion=true",
        "{'pass_config': PassConfig(enable_fusion=True)}",
    ),
    ("compilation_config", '{"cudagraph_mode": "FULL_AND_PIECEWISE"}', '{"cudagraph_mode":[2,1]}'),
    ("compilation_config", '{"cudagraph_mode": "full"}', "{'cudagraph_mode': <CUDAGraphMode.FULL: 2>}"),
    ("compilation_config", '{"cudagraph_mode": "PIECEWISE"}', '{"cudagraph_mode": 1}'),
    (
        "compilation_config",
        '{"cudagraph_mode": [2, 0]}',
        "{'cudagraph_mode': <CUDAGraphMode.FULL_DECODE_ONLY: (2, 0)>}",
    ),
    (
        "compilation_config",
        '{"cudagraph_capture_sizes": [1, 2, 4]}',
        "{'cudagraph_capture_sizes': [4, 2, 1]}",
    ),
    ("compilation_config", '{"custom_ops": ["+rms_norm"]}', "{'custom_ops': ['none', '+rms_norm']}"),
    ("compilation_config", '{"custom_ops": []}', "{'custom_ops': ['all']}"),
    (
        "compilation_config",
        '{"pass_config": {"enable_fusion": true}}',
        "{'pass_config': PassConfig(enable_fusion=True)}",
    ),
    (
        "speculative_config",
        '{"method": "ngram", "num_speculative_tokens": 2}',
        "Spec(method='ngram', num_spec_tokens=2)",
    ),
    (
        "speculative_config",
        '{"model": "/m/draft, a"}',
        "SpeculativeConfig(draft_model='/m/draft, a', num_spec_tokens=7)",
    ),
    ("speculative_config", '{"method": "deepseek_mtp"}', "SpeculativeConfig(method='mtp', model=None)"),
    ("speculative_config", '{"num_speculative_tokens": "3"}', "{'num_speculative_tokens': 3}"),
    ("speculative_config", "{'method': 'ngram'}", "SpeculativeConfig(method='ngram')"),
    ("hf_overrides", '{"rope_theta": 20000, "x": null}', "{'rope_theta': 20000.0, 'x': 3}"),
    ("hf_overrides", '{"limit": Infinity}', "{'limit': inf}"),
    ("override_generation_config", '{"top_p": 1}', "{'temperature': 0.0, 'top_p': 1.0}"),
    ("limit_mm_per_prompt", '{"image": 2}', "mappingproxy({'image': 2})"),
    ("cuda_graph_sizes", "512", "[512]"),
    ("cuda_graph_sizes", 512, "[512]"),
    ("cuda_graph_sizes", "1, 2 4", "(4, 2, 1)"),
    ("optimization_level", "O3", "<OptimizationLevel.O3: 3>"),
    ("optimization_level", 3, "<OptimizationLevel.O3: 3>"),
    ("load_format", "dummy", "LoadFormat.DUMMY"),
    ("dtype", "half", "torch.float16"),
    ("attention_backend", "TRITON_ATTN", "<AttentionBackendEnum.TRITON_ATTN: 'vllm.v1.x.Y'>"),
    ("model", "meta-llama/Llama", "/hub/models--meta-llama--Llama/snapshots/0e9e"),
]


@pytest.mark.parametrize(("knob", "asked", "reported"), SAME)
def test_what_was_asked_is_recognised_however_it_is_reported(knob: str, asked: Scalar, reported: str) -> None:
    assert compare(knob, asked, reported) == ({}, False)


DIFFERENT = [
    ("compilation_config", '{"mode": 0}', "{'mode': <CompilationMode.VLLM_COMPILE: 3>}", "mode"),
    ("compilation_config", '{"mode": "NONE"}', '{"mode": 3}', "mode"),
    ("compilation_config", '{"level": 3}', "{'mode': <CompilationMode.NONE: 0>}", "level"),
    ("compilation_config", "O2", '{"level":3}', "mode"),
    ("compilation_config", '{"cudagraph_mode": "FULL"}', '{"cudagraph_mode":[2,1]}', "cudagraph_mode"),
    ("compilation_config", '{"cudagraph_capture_sizes": [1, 2]}', "{'cudagraph_capture_sizes': [1, 2, 4]}",
     "cudagraph_capture_sizes"),
    ("compilation_config", '{"custom_ops": ["+rms_norm"]}', "{'custom_ops': ['none']}", "custom_ops"),
    ("compilation_config", '{"splitting_ops": []}', "{'splitting_ops': ['vllm.attention']}", "splitting_ops"),
    ("compilation_config", '{"pass_config": {"fuse": true}}', "{'pass_config': P(fuse=False)}",
     "pass_config.fuse"),
    ("speculative_config", '{"num_speculative_tokens": 2}', "SpeculativeConfig(num_spec_tokens=3)",
     "num_speculative_tokens"),
    ("speculative_config", '{"method": "ngram"}', "SpeculativeConfig(method='eagle')", "method"),
    ("hf_overrides", '{"rope_theta": 20000.0}', "{'rope_theta': 10000.0}", "rope_theta"),
]  # fmt: skip


@pytest.mark.parametrize(("knob", "asked", "reported", "key"), DIFFERENT)
def test_real_difference_is_named_with_its_key(knob: str, asked: Scalar, reported: str, key: str) -> None:
    different, is_unclear = compare(knob, asked, reported)
    assert list(different) == [f"{knob}.{key}"]
    assert not is_unclear


def test_object_that_was_asked_for_and_is_left_off_is_difference() -> None:
    asked = {"speculative_config": '{"method": "ngram"}'}
    assert differences(asked, {"speculative_config": "None"}) == {
        "speculative_config": ('{"method": "ngram"}', "None")
    }


UNCLEAR = [
    ("hf_overrides", '{"rope_theta": 1.0}', "<function override at 0x7f>"),
    ("limit_mm_per_prompt", '{"image": 2}', "{'image': ImageLimit(count=2)}"),
    ("lora_modules", "name=/path", "[LoRAModulePath(name='name', path='/path')]"),
    ("compilation_config", '{"backend": 3}', "{'backend': 'inductor'}"),
    ("compilation_config", '{"brand_new_key": 3}', "{'mode': 0}"),
    ("speculative_config", '{"method": "ngram"}', "on"),
    ("cuda_graph_sizes", "[1, 2]", "2"),
    ("distributed_executor_backend", "ray", "<class 'vllm.executor.Ray'>"),
]


@pytest.mark.parametrize(("knob", "asked", "reported"), UNCLEAR)
def test_what_cannot_be_compared_is_told_and_is_no_difference(
    knob: str, asked: Scalar, reported: str
) -> None:
    assert compare(knob, asked, reported) == ({}, True)


def test_what_cannot_be_compared_is_named() -> None:
    asked = {"hf_overrides": '{"a": 1}', "max_num_seqs": 8}
    effective = {"hf_overrides": "<function f at 0x7f>", "max_num_seqs": 8}
    assert not_compared(asked, effective) == {
        NOT_COMPARED: "reported in a form that cannot be compared: hf_overrides"
    }
    assert not_compared(asked, {"max_num_seqs": 8}) == {}


def test_of_object_row_holds_what_was_asked_for() -> None:
    reported = parse("{'mode': <CompilationMode.NONE: 0>, 'backend': 'inductor', 'sizes': [1, 2]}")
    assert reported_text("compilation_config", '{"level": 0}', reported) == '{"level": 0}'
    assert reported_text("compilation_config", '{"mode": "none"}', reported) == '{"mode": "NONE"}'
    whole = reported_text("compilation_config", None, reported)
    assert json.loads(str(whole)) == {"mode": "NONE", "backend": "inductor", "sizes": [1, 2]}


def test_longest_sequence_that_has_room_is_what_was_asked_for() -> None:
    assert differences({"max_model_len": -1}, {"max_model_len": 4096}) == {}
    assert differences({"max_num_seqs": -1}, {"max_num_seqs": 4096}) == {"max_num_seqs": (-1, 4096)}
