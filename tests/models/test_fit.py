"""Does it fit: the two worked examples of AMD's guide, published starts, and what one device then holds."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from sweeper.engines.vllm import VllmEngine
from sweeper.errors import PlacementError
from sweeper.models import config_json, published, tiny
from sweeper.models.fit import (
    Fit,
    activation_bytes,
    by_tensor_parallel,
    fit,
    kv_bytes_per_token,
    weight_bytes,
)
from sweeper.models.kv_cache import Group, Keeps, KvCache, Page
from sweeper.records import Assignment, Model, ModelShape, Placement, Scalar
from sweeper.simulation.calibration import Calibration
from sweeper.simulation.costs import CostModel
from sweeper.simulation.device import MI300X
from tests.real_engine import make_real_spec
from tests.standin_server import never

GIB = 2**30
DATA = Path(published.__file__).parent / "data"
CPX_GIB = 24.0

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
LLAMA_3_8B = ModelShape(
    layers=32,
    hidden=4096,
    intermediate=14336,
    heads=32,
    kv_heads=8,
    head_dim=128,
    vocab=128256,
    max_positions=131072,
)


def on_cpx(model: Model, release: str = "0.32.0", **knobs: bool | int | float | str) -> Fit:
    return fit(model, knobs, release=release, device_memory_gib=CPX_GIB)


@pytest.fixture
def llama_8b() -> Model:
    return Model(name="8b", path="8b", shape=LLAMA_3_8B)


# The guide's two examples


def test_kv_cache_per_token_is_guides_for_llama_2() -> None:
    # 2 x 32 x 4096 x 2 and 2 x 40 x 5120 x 2, as the guide works them out
    assert kv_bytes_per_token(LLAMA_2_7B, dtype="float16") == 524_288
    assert kv_bytes_per_token(LLAMA_2_13B, dtype="float16") == 819_200


def test_llama_2_7b_fits_one_cpx_partition_as_guide_says() -> None:
    found = on_cpx(Model(name="7b", path="7b", shape=LLAMA_2_7B, dtype="float16"))
    # The guide: 14 GB of weights and 2 GB of cache. 6.738e9 x 2 bytes are 12.6 GiB; 4096 x 524288 is 2 GiB.
    assert found.weights_gib == pytest.approx(12.55, abs=0.01)
    assert found.kv_cache_gib == 2.0
    assert found.is_feasible


def test_llama_2_13b_needs_two_cpx_partitions_though_guides_cache_is_too_large() -> None:
    model = Model(name="13b", path="13b", shape=LLAMA_2_13B, dtype="float16")
    found = on_cpx(model)
    # The guide says 3.6 GB and 29.6 GB in all. By its own formula 4096 x 819200 bytes are 3.36 GB, 3.125 GiB,
    # and 26 + 3.36 = 29.4 GB. Its conclusion stands: the weights alone are 24.2 GiB of 24.
    assert found.kv_cache_gib == 3.125
    assert found.kv_cache_gib * GIB == 4096 * 819_200
    assert found.weights_gib == pytest.approx(24.24, abs=0.01)
    assert not found.is_feasible
    assert on_cpx(model, tensor_parallel_size=2).is_feasible


# Weights and cache of one device


def test_kv_cache_counts_kv_heads_where_they_are_fewer(llama_70b: Model) -> None:
    # 2 x 80 layers x 8 KV heads x 128 x 2 bytes = 327 680, an eighth of what all 64 heads would take
    assert kv_bytes_per_token(llama_70b.shape) == 327_680
    assert kv_bytes_per_token(llama_70b.shape, dtype="fp8") == 163_840
    assert kv_bytes_per_token(llama_70b.shape, dtype="float32") == 655_360


def test_kv_heads_are_copied_where_there_are_more_devices(llama_70b: Model) -> None:
    # One of 8 KV heads on each of 8 devices; 16 devices hold one each as well, every head twice.
    assert kv_bytes_per_token(llama_70b.shape, tensor_parallel_size=8) == 40_960
    assert kv_bytes_per_token(llama_70b.shape, tensor_parallel_size=16) == 40_960


def test_pipeline_divides_layers_rounded_up(llama_70b: Model) -> None:
    # 27 of 80 layers: 2 x 27 x 8 x 128 x 2
    assert kv_bytes_per_token(llama_70b.shape, pipeline_parallel_size=3) == 110_592


def test_weights_are_those_that_vllms_log_says(llama_70b: Model, llama_8b: Model) -> None:
    # vllm-project/vllm pull 10511: "model weights take 14.96GiB", and 7.48 on two devices
    assert weight_bytes(llama_8b, {}) / GIB == pytest.approx(14.96, abs=0.005)
    assert weight_bytes(llama_8b, {"tensor_parallel_size": 2}) / GIB == pytest.approx(7.48, abs=0.005)
    # pull 12569, 70B in 8 bits: "Loading model weights took 67.7229 GB"; embeddings stay in 16 bits
    assert weight_bytes(llama_70b, {"quantization": "fp8"}) / GIB == pytest.approx(67.72, rel=0.001)
    assert weight_bytes(replace(llama_70b, dtype="fp8"), {}) == weight_bytes(
        llama_70b, {"quantization": "fp8"}
    )


def test_vocabulary_is_padded_and_divided() -> None:
    odd = replace(LLAMA_2_7B, vocab=32001)
    padded = replace(LLAMA_2_7B, vocab=32064)  # 501 x 64
    sizes = [
        weight_bytes(Model(name="m", path="m", shape=shape), {"tensor_parallel_size": 4})
        for shape in (LLAMA_2_7B, odd, padded)
    ]
    assert sizes[1] == sizes[2]
    # 64 more rows of 4096 in embeddings and head, 2 bytes each, on 4 devices
    assert sizes[1] - sizes[0] == 64 * 4096 * 2 * 2 / 4


def test_tied_embeddings_are_kept_once() -> None:
    apart = Model(name="m", path="m", shape=LLAMA_2_7B)
    tied = replace(apart, shape=replace(LLAMA_2_7B, tied_embeddings=True))
    assert weight_bytes(apart, {}) - weight_bytes(tied, {}) == 32000 * 4096 * 2


def test_simulated_devices_weights_are_same(llama_70b: Model) -> None:
    costs = CostModel(device=MI300X, devices=4, gpus=4, built=llama_70b.built, calibration=Calibration())
    # Norms, which are copied and not divided, are all that differs.
    assert weight_bytes(llama_70b, {"tensor_parallel_size": 4}) == pytest.approx(costs.weight_bytes, rel=1e-4)
    assert kv_bytes_per_token(llama_70b.shape, tensor_parallel_size=4) == costs.kv_token_bytes


@pytest.mark.parametrize(
    ("layers", "kv_heads", "head_dim", "dtype", "devices", "block", "blocks"),
    [
        (4, 1, 32, "bfloat16", 2, 128, 16_384),
        (4, 4, 32, "bfloat16", 1, 128, 4_096),
        (6, 2, 64, "float16", 1, 32, 10_922),
        (3, 4, 64, "float32", 1, 128, 1_365),
        (4, 4, 32, "fp8", 1, 128, 8_192),
    ],
)
def test_cache_of_one_gib_has_blocks_that_vllm_makes_of_it(
    layers: int, kv_heads: int, head_dim: int, dtype: str, devices: int, block: int, blocks: int
) -> None:
    # Read from the CPU build of vLLM 0.32.0, started with this shape.
    shape = replace(tiny.SHAPE, layers=layers, kv_heads=kv_heads, head_dim=head_dim)
    assert GIB // (block * kv_bytes_per_token(shape, dtype=dtype, tensor_parallel_size=devices)) == blocks


# Working memory, against vLLM's own profiles


def test_long_step_takes_what_vllms_profile_says() -> None:
    # vllm-project/vllm issue 10517, Llama 3.1 8B: peak_torch_memory less 14.99 GiB of weights is 2.07 GiB
    # at 20000 tokens and 2.99 at 29000. Here: 2 bytes x 3 x (4096 + 14336) = 110592 a token.
    sizes = [
        activation_bytes(LLAMA_3_8B, tokens=n, sampled=256, sampled_bytes=41) / GIB for n in (20_000, 29_000)
    ]
    assert sizes == pytest.approx([2.07, 2.99], abs=0.015)


def test_sampling_takes_more_than_short_step_and_is_not_divided() -> None:
    # pull 10511: "PyTorch activation peak memory 1.26GiB" on one device and on two
    for devices in (1, 2):
        size = activation_bytes(
            LLAMA_3_8B, tokens=8192, sampled=256, sampled_bytes=41, tensor_parallel_size=devices
        )
        assert size / GIB == pytest.approx(1.26, abs=0.01)


def test_v0_profiles_no_sampling_when_it_cuts_prompts(llama_8b: Model) -> None:
    # issue 10517 at 35000 tokens, where chunks of 512 are the default: 15.05 less 14.99 GiB is 0.06.
    cut, whole = (
        fit(llama_8b, {"max_model_len": n}, release="0.6.2", device_memory_gib=23.58, accelerator="cuda")
        for n in (35_000, 4096)
    )
    assert cut.activations_gib == pytest.approx(0.053, abs=0.001)  # 512 x 110592
    assert whole.activations_gib == pytest.approx(1.25, abs=0.01)


def test_early_profiles_on_rocm_count_working_memory_twice(llama_8b: Model) -> None:
    # dstack's 405B on 4 MI300X, 0.6.4.dev4: 34 GiB for 91680 tokens, by when sequences are preempted.
    knobs: Assignment = {"max_model_len": 91_680, "tensor_parallel_size": 4, "enable_chunked_prefill": False}
    shape = replace(LLAMA_3_8B, layers=126, hidden=16384, intermediate=53248, heads=128)
    large = Model(name="405b", path="405b", shape=shape, dtype="fp8")
    found = fit(large, knobs, release="0.6.4.dev4", device_memory_gib=192.0)
    assert found.activations_gib == pytest.approx(34.0, rel=0.12)
    # On 0.9.2 once: of an 8B with 131072 tokens 14.63 GiB are logged (cmontemuino/amd-mi300x-ml-benchmarks).
    long: Assignment = {"max_model_len": 131_072, "enable_chunked_prefill": False, "VLLM_USE_V1": 0}
    once = fit(llama_8b, long, release="0.9.2", device_memory_gib=191.98)
    assert once.activations_gib == pytest.approx(14.63, rel=0.1)


def test_published_cache_of_3090_is_met_within_five_percent(llama_8b: Model) -> None:
    # issue 10517: 23.58 GiB, 0.9, 20000 tokens: 1952 blocks. 29000 tokens: 1478 blocks and no start.
    knobs: Assignment = {"max_model_len": 20_000, "enable_chunked_prefill": False}
    found = fit(llama_8b, knobs, release="0.6.3", accelerator="cuda", device_memory_gib=23.58)
    assert found.blocks == pytest.approx(1952, rel=0.05)
    assert found.is_feasible
    longer = {**knobs, "max_model_len": 29_000}
    refused = fit(llama_8b, longer, release="0.6.3", accelerator="cuda", device_memory_gib=23.58)
    assert refused.blocks == pytest.approx(1478, rel=0.05)
    assert not refused.is_feasible


def test_releases_differ_by_their_defaults_and_by_what_they_count(llama_8b: Model) -> None:
    old, new = (on_cpx(llama_8b, release, max_model_len=8192) for release in ("0.10.0", "0.32.0"))
    assert (old.memory_frac, new.memory_frac) == (0.9, 0.92)
    # 1024 sequences: sorting holds 41 bytes a logit, what came after it 16.
    assert old.activations_gib == pytest.approx(1024 * 128256 * 41 / GIB)
    assert new.activations_gib == pytest.approx(1024 * 128256 * 16 / GIB)
    # Graphs are counted in advance since 0.21, unless there are none.
    eager = on_cpx(llama_8b, max_model_len=8192, enforce_eager=True)
    assert new.runtime_gib - eager.runtime_gib == pytest.approx(0.4)
    assert old.runtime_gib == eager.runtime_gib


# How many sequences then fit


CACHE_OF_ONE_MIB = KvCache(
    groups=(Group(page=Page(keeps=Keeps.ALL, tokens=16, bytes=2**20), layers=(0,)),), block_bytes=2**20
)


def plain(**changes: float) -> Fit:
    """A device of 10 GiB: 4 of weights, 1 of work, so 5 are left; a block of 16 tokens takes 1 MiB."""
    values: dict[str, object] = {
        "weights_gib": 4.0,
        "activations_gib": 0.75,
        "runtime_gib": 0.25,
        "cache": CACHE_OF_ONE_MIB,
        "memory_gib": 12.5,
        "memory_frac": 0.8,
        "max_model_len": 8000,
        "block_tokens": 16,
    }
    return Fit(**{**values, **changes})  # type: ignore[arg-type]


def test_what_is_left_becomes_blocks_and_blocks_become_sequences() -> None:
    found = plain()
    assert found.blocks == 5 * 1024
    assert found.tokens == 81_920
    # 8000 tokens are 500 blocks; 1000 are 62.5 and so 63; 5120 blocks hold 10 and 81 of them.
    assert (found.sequences(), found.sequences(1000)) == (10, 81)


def test_device_that_is_one_block_short_of_sequence_is_infeasible_and_keeps_its_arithmetic() -> None:
    # 499 blocks of 1 MiB are left of 500.
    found = plain(weights_gib=9.0 - 499 / 1024)
    assert (found.blocks, found.is_feasible) == (499, False)
    assert plain(weights_gib=9.0 - 500 / 1024).is_feasible
    assert str(found) == (
        "weights 8.5 GiB + working memory 1.0 GiB + KV cache of one sequence of 8000 tokens 0.5 GiB = "
        "10.0 GiB per device; 10.0 GiB available (12.5 GiB x gpu_memory_utilization 0.8)"
    )


def test_less_memory_or_longer_sequences_never_fit_more(llama_8b: Model) -> None:
    by_memory = [
        fit(llama_8b, {"max_model_len": 4096}, release="0.32.0", device_memory_gib=gib).blocks
        for gib in (192, 96, 48, 24, 12)
    ]
    assert by_memory == sorted(by_memory, reverse=True)
    assert by_memory[-1] == 0
    found = plain()
    counts = [found.sequences(tokens) for tokens in (1, 16, 17, 100, 8000)]
    assert counts == sorted(counts, reverse=True)


def test_70b_at_8k_needs_eight_cpx_partitions(llama_70b: Model) -> None:
    found = by_tensor_parallel(
        llama_70b, {"max_model_len": 8192}, release="0.32.0", device_memory_gib=CPX_GIB, devices=64
    )
    assert list(found) == [1, 2, 4, 8, 16, 32, 64]
    assert [size for size, one in found.items() if one.is_feasible] == [8, 16, 32, 64]
    # 22.08 available - 16.43 weights - 1.96 sampling (1024 x 128256 x 16) - 0.65 = 3.04 GiB;
    # a sequence takes 8192 x 40960 bytes = 0.3125 GiB
    assert found[8].sequences() == 9


def test_only_sizes_that_divide_heads_are_asked_about() -> None:
    model = Model(name="13b", path="13b", shape=LLAMA_2_13B, dtype="float16")  # 40 heads
    found = by_tensor_parallel(model, {}, release="0.32.0", device_memory_gib=CPX_GIB, devices=64)
    assert list(found) == [1, 2, 4, 8]
    with pytest.raises(
        PlacementError, match=r"tensor_parallel_size: is 3; expected a divisor of .* 40 attention heads"
    ):
        by_tensor_parallel(
            model, {"tensor_parallel_size": 3}, release="0.32.0", device_memory_gib=CPX_GIB, devices=64
        )


def test_knob_that_is_no_number_is_refused(llama_8b: Model) -> None:
    with pytest.raises(PlacementError, match=r"knobs.max_model_len: is 'long'; expected a whole number"):
        on_cpx(llama_8b, max_model_len="long")


# The real vLLM


@pytest.mark.vllm
@pytest.mark.slow
def test_real_vllm_has_as_many_cache_blocks_as_bytes_of_token_say(tmp_path: Path, vllm_python: str) -> None:
    made = tiny.describe(tmp_path / "models")
    shape = replace(made.shape, layers=6, kv_heads=2, head_dim=64)
    config = json.loads((Path(made.path) / "config.json").read_text())
    config |= {"num_hidden_layers": 6, "num_key_value_heads": 2, "head_dim": 64, "torch_dtype": "float16"}
    (Path(made.path) / "config.json").write_text(json.dumps(config))
    spec = make_real_spec(
        tmp_path,
        vllm_python,
        model=replace(made, shape=shape, dtype="float16"),
        assignment={"enforce_eager": True, "block_size": 32, "max_num_seqs": 8, "VLLM_CPU_KVCACHE_SPACE": 1},
    )
    placement = Placement(node="here", devices=(0,), parents=(0,))
    server = VllmEngine().start(spec, placement, restart=0, cancelled=never)
    try:
        assert server.effective["dtype"] == "float16"
        # 2 x 6 layers x 2 KV heads x 64 x 2 bytes = 3072; 1 GiB holds 10922 blocks of 32 tokens
        assert kv_bytes_per_token(shape, dtype="float16") == 3072
        assert server.effective["block_size"] == 32
        assert server.effective["num_gpu_blocks"] == GIB // (32 * 3072) == 10_922
    finally:
        server.stop()


# Builds other than Llama's


def of_published(folder: Path, name: str, **stored: object) -> Model:
    """A published model as its config.json describes it, with this ``quantization_config``."""
    rows = yaml.safe_load((DATA / "published_models.yaml").read_text(encoding="utf-8"))
    config = next(row["config"] for row in rows if row["name"] == name)
    written = {**config, **({"quantization_config": stored} if stored else {})}
    (folder / "config.json").write_text(json.dumps(written), encoding="utf-8")
    return config_json.read(folder)


def fitted(model: Model, **knobs: Scalar) -> Fit:
    return fit(model, knobs, release="0.11.0", device_memory_gib=192.0)


def test_checkpoint_of_gpt_oss_is_as_large_as_published(tmp_path: Path) -> None:
    """gpt-oss model card, arXiv:2508.10925, table 1: 60.8 GiB."""
    keeps = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "lm_head"]
    model = of_published(tmp_path, "openai/gpt-oss-120b", quant_method="mxfp4", modules_to_not_convert=keeps)
    assert fitted(model).weights_gib == pytest.approx(60.8, rel=0.005)


def test_latent_cache_is_on_every_device(tmp_path: Path) -> None:
    model = of_published(tmp_path, "deepseek-ai/DeepSeek-V3", quant_method="fp8")
    one, eight = fitted(model), fitted(model, tensor_parallel_size=8)
    assert one.cache.block_bytes == eight.cache.block_bytes == 61 * 576 * 2 * 16
    assert (one.is_feasible, eight.is_feasible) == (False, True)


def test_experts_are_shared_out_alike_whole_or_sliced(tmp_path: Path) -> None:
    model = of_published(tmp_path, "Qwen/Qwen3-235B-A22B")
    sliced = fitted(model, tensor_parallel_size=8)
    whole = fitted(model, tensor_parallel_size=8, enable_expert_parallel=True)
    assert whole.weights_gib == sliced.weights_gib
    wider = fitted(model, tensor_parallel_size=4, data_parallel_size=2, enable_expert_parallel=True)
    # Experts lie on all eight devices, attention on four.
    assert sliced.weights_gib < wider.weights_gib < fitted(model, tensor_parallel_size=4).weights_gib


def test_experts_that_cannot_be_shared_out_evenly_fill_one_device_more(tmp_path: Path) -> None:
    model = of_published(tmp_path, "Qwen/Qwen1.5-MoE-A2.7B-Chat")
    sliced = fitted(model, tensor_parallel_size=8)
    whole = fitted(model, tensor_parallel_size=8, enable_expert_parallel=True)
    # 60 experts on 8 devices: 8 on some, 7.5 in slices.
    experts = 24 * 3 * 2048 * 1408 * 0.5 * 2 / 2**30
    assert whole.weights_gib - sliced.weights_gib == pytest.approx(experts)


def test_redundant_experts_are_shared_out_too(tmp_path: Path) -> None:
    model = of_published(tmp_path, "Qwen/Qwen3-235B-A22B")
    knobs: dict[str, Scalar] = {"tensor_parallel_size": 8, "enable_expert_parallel": True}
    config = '{"num_redundant_experts": 32}'
    more = fitted(model, **knobs, enable_eplb=True, eplb_config=config)
    # 128 + 32 experts on 8 devices are 20 on each instead of 16, in 94 layers of 3 x 4096 x 1536 x 2 bytes.
    assert more.weights_gib - fitted(model, **knobs).weights_gib == pytest.approx(
        94 * 4 * 3 * 4096 * 1536 * 2 / 2**30
    )
    assert fitted(model, **knobs, eplb_config=config).weights_gib == fitted(model, **knobs).weights_gib


def test_window_bounds_cache_of_sequence(tmp_path: Path) -> None:
    model = of_published(tmp_path, "google/gemma-3-27b-it")
    found = fitted(model, max_model_len=32768, max_num_batched_tokens=1024, async_scheduling=False)
    # 10 whole layers are the group, so 52 windows of 1024 make 6 of it, of 10 pages of 128 KiB a block.
    assert len(found.cache.groups) == 7
    assert found.cache.block_bytes == 10 * 16 * (2 * 16 * 128 * 2)
    # A window keeps 1023 tokens and a step of 1024: 128 blocks, and one more, as it may begin inside one.
    assert found.cache.blocks_of(32768) == 32768 // 16 + 6 * (128 + 1)
    assert found.sequences(1024) > found.sequences(2048) > found.sequences(4096) > 0


def test_state_is_kept_whatever_length(tmp_path: Path) -> None:
    model = of_published(tmp_path, "Qwen/Qwen3-Next-80B-A3B-Instruct")
    found = fitted(model, tensor_parallel_size=2, max_model_len=8192, enable_prefix_caching=False)
    # A state takes 2 bytes x (16 heads x 128 x 128 + 3 inputs of (2 x 8 + 16) x 128) on each of two devices;
    # a token of a whole layer 2 x 1 head x 256 x 2 bytes: 536 tokens are as much, in sixteens 544.
    state, token = 2 * (16 * 128 * 128 + 3 * (2 * 8 + 16) * 128), 2 * 256 * 2
    assert (state, token) == (548_864, 1024)
    assert found.cache.block_bytes == 12 * 544 * token
    # 36 states make 3 groups of 12 layers; 8192 tokens take 16 blocks of 544 tokens.
    assert found.cache.blocks_of(8192) == 16 + 3
    assert found.cache.blocks_of(16) == 1 + 3


def test_four_bit_weights_fit_where_sixteen_do_not(tmp_path: Path) -> None:
    plain = fitted(of_published(tmp_path, "meta-llama/Llama-3.1-405B-Instruct"), tensor_parallel_size=2)
    packed = of_published(
        tmp_path, "meta-llama/Llama-3.1-405B-Instruct", quant_method="awq", bits=4, group_size=128
    )
    assert not plain.is_feasible
    assert fitted(packed, tensor_parallel_size=2).is_feasible


def test_fit_of_deep_stack_costs_trial_nothing(tmp_path: Path) -> None:
    """A plan works it out for each trial: a stack of 94 layers takes a fraction of a millisecond."""
    model = of_published(tmp_path, "Qwen/Qwen3-235B-A22B")
    fitted(model)
    start_s = time.process_time()
    for _ in range(100):
        fitted(model, tensor_parallel_size=8)
    assert time.process_time() - start_s < 1


def test_longest_sequence_of_minus_one_is_what_has_room(llama_8b: Model, llama_70b: Model) -> None:
    whole = on_cpx(llama_8b, max_model_len=-1)
    # 24 GiB hold the weights and less than the model's 131,072 tokens.
    assert 8192 < whole.max_model_len < 131072
    assert whole.is_feasible
    assert not on_cpx(llama_8b, max_model_len=whole.max_model_len + whole.block_tokens).is_feasible
    assert on_cpx(llama_8b, max_model_len=whole.max_model_len) == whole
    assert not on_cpx(llama_70b, max_model_len=-1).is_feasible
