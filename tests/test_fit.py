"""Does it fit: the two worked examples of AMD's guide, and grouped-query models done right."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sweeper.fit import fit, kv_bytes_per_token, weight_bytes
from sweeper.records import Model, ModelShape

LLAMA_2_7B = ModelShape(
    layers=32,
    hidden=4096,
    intermediate=11008,
    heads=32,
    kv_heads=32,
    head_dim=128,
    vocab=32000,
    max_positions=4096,
)
LLAMA_2_13B = ModelShape(
    layers=40,
    hidden=5120,
    intermediate=13824,
    heads=40,
    kv_heads=40,
    head_dim=128,
    vocab=32000,
    max_positions=4096,
)


def test_kv_cache_per_token_is_the_guides_for_llama_2() -> None:
    # 2 x 32 x 4096 x 2 and 2 x 40 x 5120 x 2, as the guide works them out
    assert kv_bytes_per_token(LLAMA_2_7B, dtype="float16") == 524_288
    assert kv_bytes_per_token(LLAMA_2_13B, dtype="float16") == 819_200


def test_kv_cache_counts_kv_heads_where_they_are_fewer(llama_70b: Model) -> None:
    # 2 x 80 layers x 8 KV heads x 128 x 2 bytes = 327 680, an eighth of what all 64 heads would take
    assert kv_bytes_per_token(llama_70b.shape) == 327_680
    assert kv_bytes_per_token(llama_70b.shape, dtype="fp8") == 163_840


def test_llama_2_7b_fits_one_cpx_partition_and_13b_does_not() -> None:
    small = Model(name="7b", path="7b", shape=LLAMA_2_7B, dtype="float16")
    large = Model(name="13b", path="13b", shape=LLAMA_2_13B, dtype="float16")
    assert fit(small, {}, device_memory_gib=24.0).is_feasible
    assert not fit(large, {}, device_memory_gib=24.0).is_feasible


def test_tensor_parallelism_divides_weights_and_cache(llama_70b: Model) -> None:
    whole = fit(llama_70b, {"max_model_len": 8192}, device_memory_gib=192.0)
    quarter = fit(llama_70b, {"max_model_len": 8192, "tensor_parallel_size": 4}, device_memory_gib=192.0)
    assert quarter.weights_gib == pytest.approx(whole.weights_gib / 4)
    assert quarter.kv_cache_gib == pytest.approx(whole.kv_cache_gib / 4)
    # 8192 x 327 680 bytes = 2.5 GiB
    assert whole.kv_cache_gib == pytest.approx(2.5)


def test_fp8_halves_weights(llama_70b: Model) -> None:
    assert weight_bytes(llama_70b, quantization="fp8") == weight_bytes(llama_70b) / 2
    assert weight_bytes(replace(llama_70b, dtype="fp8")) == weight_bytes(llama_70b) / 2


def test_the_arithmetic_reads_as_a_sentence(llama_70b: Model) -> None:
    found = fit(llama_70b, {"max_model_len": 8192}, device_memory_gib=24.0)
    assert str(found) == (
        "weights 131.4 GiB + KV cache of one sequence of 8192 tokens 2.5 GiB = 133.9 GiB per device; "
        "21.6 GiB available"
    )
