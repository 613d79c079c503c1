"""Runs inside vLLM's own environment: what its functions make of the layers of each case.

Reads a list of cases from standard input; writes for each the blocks, groups and logged tokens, or the error.
"""

import json
import sys
from types import SimpleNamespace as Stub

import torch
from vllm.v1 import kv_cache_interface as specs
from vllm.v1.core import kv_cache_utils
from vllm.v1.kv_cache_layout import KVCacheLayout

SPECS = {
    "all tokens": specs.FullAttentionSpec,
    "a window": specs.SlidingWindowSpec,
    "a chunk": specs.ChunkedLocalAttentionSpec,
}


def spec(layer, mode):
    if layer["keeps"] == "a state":
        return specs.MambaSpec(
            block_size=layer["tokens"],
            shapes=((layer["bytes"],),),
            dtypes=(torch.int8,),
            mamba_cache_mode=mode,
            num_prefill_checkpoint_blocks=max(0, layer["states"] - 2),
        )
    if layer["heads"] == 0:
        return specs.MLAAttentionSpec(
            block_size=layer["tokens"], num_kv_heads=1, head_size=layer["width"], dtype=torch.bfloat16
        )
    kind = SPECS[layer["keeps"]]
    window = {"a window": "sliding_window", "a chunk": "attention_chunk_size"}.get(layer["keeps"])
    return kind(
        block_size=layer["tokens"],
        num_kv_heads=layer["heads"],
        head_size=layer["width"],
        dtype=torch.bfloat16,
        **({window: layer["window"]} if window else {}),
    )


def config(case):
    return Stub(
        scheduler_config=Stub(disable_hybrid_kv_cache_manager=case["is_off"]),
        attention_config=Stub(hisparse_config=None),
        cache_config=Stub(
            num_gpu_blocks_override=None,
            get_resolved_kv_cache_layout=lambda: KVCacheLayout.LBNHC,
            prefix_cache_retention_interval=None,
            mamba_cache_mode=case["mode"],
        ),
        model_config=Stub(max_model_len=case["length"], original_max_model_len=case["length"]),
        parallel_config=Stub(decode_context_parallel_size=1, tensor_parallel_size=1),
        num_prefill_lookahead_tokens=0,
        max_in_flight_tokens=case["flight"],
        speculative_config=None,
        num_speculative_tokens=0,
    )


def made_of(case):
    stages = [
        {f"layer.{place}.{number}": spec(layer, case["mode"]) for number, (place, layer) in enumerate(stage)}
        for stage in case["stages"]
    ]
    stub = config(case)
    try:
        found = kv_cache_utils.get_kv_cache_configs(stub, stages, [case["memory"]] * len(stages))
    except ValueError as exc:
        return str(exc)
    tokens, _ = kv_cache_utils.get_kv_cache_capacity(stub, found[0])
    return [found[0].num_blocks, len(found[0].kv_cache_groups), tokens]


json.dump([made_of(case) for case in json.load(sys.stdin)], sys.stdout)
