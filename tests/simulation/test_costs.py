from __future__ import annotations

from dataclasses import replace

import pytest

from sweeper.errors import ConfigError
from sweeper.records import ModelShape
from sweeper.simulation.attention import PAGED_FRAC, reads_slowly
from sweeper.simulation.calibration import Calibration
from sweeper.simulation.communication import has_one_shot
from sweeper.simulation.costs import CostModel, Step
from sweeper.simulation.device import MI300X, Device, device_named, partition_of
from sweeper.simulation.matrices import has_skinny
from sweeper.simulation.precision import uniform

# Round numbers: 1 PFLOP/s, 1 TB/s, links of 10 GB/s.
DEVICE = Device(
    name="test",
    product="test",
    compute_units=1,
    memory_bytes=1e9,
    memory_bytes_per_s=1e12,
    bf16_flop_per_s=1e15,
    fp8_flop_per_s=2e15,
    link_bytes_per_s=1e10,
    gfx_target="gfx942",
)
NVIDIAS = replace(DEVICE, gfx_target=None)
# Matrices: 1000 x 100 x 2 x (10 + 2) = 2.4e6 and 3 x 1000 x 4000 = 12e6, so 14.4e6 in its one layer.
# The rest: 2 x 5000 x 1000 embeddings and head, 2 x 1000 + 1000 norms, so 10.003e6.
SHAPE = ModelShape(
    layers=1,
    hidden=1000,
    intermediate=4000,
    heads=10,
    kv_heads=2,
    head_dim=100,
    vocab=5000,
    max_positions=10_000,
)
# Everything at its peak and nothing on top.
BARE = Calibration(
    gemm_frac=1,
    fp8_gemm_frac=1,
    gemm_half_tokens=0,
    weight_read_frac=1,
    prefill_attention_frac=1,
    kv_read_frac=1,
    decode_head_s=0,
    kernel_layer_s=0,
    eager_layer_s=0,
    mixed_layer_s=0,
    sample_s=0,
    allreduce_s=0,
    link_frac=1,
    host_step_s=0,
    host_sequence_s=0,
    host_token_s=0,
    host_prefix_sequence_s=0,
    v1_host_frac=0.5,
    capture_s=0,
    fp8_kv_frac=0.5,
    channels_frac=0.25,
    numa_host_frac=0.2,
)
BASE = CostModel(device=DEVICE, devices=1, gpus=1, built=SHAPE.architecture, calibration=BARE)
ONE_DECODE = Step(decodes=1, samples=1)
READ_S = 48.806e-6  # 2 bytes x 24.403e6 weights at 1 TB/s


def with_fit(**changes: float) -> CostModel:
    return replace(BASE, calibration=replace(BARE, **changes))


def test_weights_are_shared_out_and_only_layers_are_quantized() -> None:
    assert BASE.weight_bytes == pytest.approx(48.806e6)
    assert replace(BASE, devices=2).weight_bytes == pytest.approx(24.403e6)
    # 14.4e6 x 1 byte + 10.003e6 x 2 bytes.
    assert replace(BASE, precision=uniform(8)).weight_bytes == pytest.approx(34.406e6)


def test_kv_cache_of_token_counts_kv_heads() -> None:
    # Key and value, 1 layer, 2 heads of 100, 2 bytes each.
    assert BASE.kv_token_bytes == 800
    assert replace(BASE, kv_bits=8).kv_token_bytes == 400
    assert replace(BASE, devices=2).kv_token_bytes == 400
    # More devices than KV heads: each keeps a whole one.
    assert replace(BASE, devices=5).kv_token_bytes == 400


def test_small_step_is_bound_by_reading_weights() -> None:
    assert BASE.step_s(ONE_DECODE) == pytest.approx(READ_S)


def test_large_step_is_bound_by_compute() -> None:
    # 2 x 14.4e6 x 10000 flops at 1e15 per second; no attention: no pairs given.
    assert BASE.step_s(Step(prefill_tokens=10_000)) == pytest.approx(288e-6)
    # At half size the efficiency is half: as long as 20000 rows.
    assert with_fit(gemm_half_tokens=10_000).step_s(Step(prefill_tokens=10_000)) == pytest.approx(576e-6)


def test_fp8_weights_double_peak() -> None:
    assert replace(BASE, precision=uniform(8)).step_s(Step(prefill_tokens=10_000)) == pytest.approx(144e-6)


def test_fp8_layers_reach_part_of_what_wide_ones_do() -> None:
    half = with_fit(fp8_gemm_frac=0.5)
    assert replace(half, precision=uniform(8)).step_s(Step(prefill_tokens=10_000)) == pytest.approx(288e-6)
    assert half.step_s(Step(prefill_tokens=10_000)) == BASE.step_s(Step(prefill_tokens=10_000))


def test_attention_of_prompts_is_compute() -> None:
    # 4 x 10 heads x 100 flops for each pair: 1e9 pairs take 4e12 / 1e15 s.
    more_s = BASE.step_s(Step(prefill_tokens=1, prefill_pairs=1e9)) - BASE.step_s(Step(prefill_tokens=1))
    assert more_s == pytest.approx(4e-3)


def test_piece_of_prompt_attends_slowly_to_what_came_before_and_not_to_itself() -> None:
    slow = replace(BASE, reads_slowly=True)

    def pairs_s(model: CostModel, pairs: float) -> float:
        nothing = model.step_s(Step(prefill_tokens=1000, prefill_sequences=1))
        return model.step_s(Step(prefill_tokens=1000, prefill_sequences=1, prefill_pairs=pairs)) - nothing

    own = 1000 * 1001 / 2
    assert pairs_s(slow, own) == pytest.approx(pairs_s(BASE, own))
    later_s = pairs_s(BASE, own + 1e9) - pairs_s(BASE, own)
    assert pairs_s(slow, own + 1e9) - pairs_s(slow, own) == pytest.approx(later_s / PAGED_FRAC)


def test_that_is_so_in_v0s_first_kernel_on_rocm_alone() -> None:
    cut = {"enable_chunked_prefill": True, "enable_prefix_caching": False}
    whole = {**cut, "enable_chunked_prefill": False}
    found = {**whole, "enable_prefix_caching": True}
    assert reads_slowly("0.6.3", DEVICE, is_v1=False, settings=cut)
    assert reads_slowly("0.6.3", DEVICE, is_v1=False, settings=found)
    assert not reads_slowly("0.6.3", DEVICE, is_v1=False, settings=whole)
    assert not reads_slowly("0.6.6", DEVICE, is_v1=False, settings=cut)
    assert not reads_slowly("0.6.3", DEVICE, is_v1=True, settings=cut)
    assert not reads_slowly("0.6.3", NVIDIAS, is_v1=False, settings=cut)


@pytest.mark.parametrize("half_tokens", [0, 1e6])
def test_up_to_four_rows_of_16_bits_take_a_fifth_less_by_their_own_kernel(half_tokens: float) -> None:
    # Once reading 14.4e6 weights is what takes long, once computing with them.
    plain = replace(BASE, calibration=replace(BARE, gemm_half_tokens=half_tokens))
    skinny = replace(plain, has_skinny=True)

    def saved_s(count: int) -> float:
        step = Step(decodes=count, samples=count)
        return plain.device_s(step) - skinny.device_s(step)

    whole_s = 14.4e6 * 2 / 1e12 if not half_tokens else 14.4e6 * 2 / 1e15 * half_tokens
    assert saved_s(1) == pytest.approx(0.19 * whole_s)
    assert saved_s(4) == pytest.approx(0.19 * whole_s)
    assert saved_s(5) == 0
    # Embeddings, head and norms alone have 16 bits in a checkpoint of 8.
    narrow = replace(plain, precision=uniform(8))
    assert replace(narrow, has_skinny=True).device_s(ONE_DECODE) == narrow.device_s(ONE_DECODE)


def test_kernel_for_few_rows_is_in_rocms_releases_since_0_8_5() -> None:
    assert has_skinny("0.8.5", DEVICE)
    assert has_skinny("0.32.0", DEVICE)
    assert not has_skinny("0.8.4", DEVICE)
    assert not has_skinny("0.32.0", NVIDIAS)


def test_attention_of_decodes_reads_cache() -> None:
    more_s = BASE.step_s(replace(ONE_DECODE, context_tokens=1e6)) - BASE.step_s(ONE_DECODE)
    # 1e6 tokens x 800 bytes at 1 TB/s.
    assert more_s == pytest.approx(800e-6)


def test_fp8_cache_is_half_as_large_and_costs_its_conversion() -> None:
    short = replace(BASE, kv_bits=8)
    more_s = short.step_s(replace(ONE_DECODE, context_tokens=1e6)) - short.step_s(ONE_DECODE)
    # 400 us to read, and half of that on top.
    assert more_s == pytest.approx(600e-6)


def test_all_reduce_is_ring_over_links() -> None:
    pair = replace(BASE, devices=2, gpus=2)
    tokens = 10_000
    # Compute 144 us. Twice in the layer: 2 x 1/2 x 10000 x 1000 x 2 bytes = 20 MB at 10 GB/s, 2 ms.
    assert pair.step_s(Step(prefill_tokens=tokens)) == pytest.approx(144e-6 + 4e-3)
    # A quarter more bandwidth.
    faster = replace(pair, has_more_channels=True)
    assert faster.step_s(Step(prefill_tokens=tokens)) == pytest.approx(144e-6 + 3.2e-3)


def test_group_of_steps_pays_host_once_but_every_token() -> None:
    model = with_fit(host_step_s=1.0, host_sequence_s=0.1, host_token_s=0.01)
    # 3 sequences, 5 steps: 1 + 3 x 0.1 + 15 x 0.01, and five times the weights.
    group_s = model.groups_s(Step(decodes=3, samples=3), steps=5, groups=1)[0]
    assert group_s == pytest.approx(1.45 + 5 * READ_S + 800e-12 * 3 * (0 + 1 + 2 + 3 + 4))


def test_groups_at_once_take_as_long_as_step_by_step() -> None:
    model = replace(with_fit(host_step_s=0.001, decode_head_s=1e-6), slowdown=1.5)
    one_by_one = [
        model.step_s(Step(decodes=3, samples=3, context_tokens=100.0 + 3 * step)) for step in range(12)
    ]
    at_once = model.groups_s(Step(decodes=3, samples=3, context_tokens=100.0), steps=1, groups=12)
    assert at_once.tolist() == pytest.approx(one_by_one)
    in_groups = model.groups_s(Step(decodes=3, samples=3, context_tokens=100.0), steps=4, groups=3)
    # A group of 4 saves 3 of 4 times the host's 1 ms, at 1.5 times the time.
    assert in_groups.sum() == pytest.approx(sum(one_by_one) - 9 * 1.5e-3)


def test_hidden_host_costs_only_what_it_takes_longer_than_device() -> None:
    model = replace(with_fit(host_step_s=1.0), is_v1=True, hides_host=True)
    # Half a second of host work in V1, far longer than the device.
    assert model.step_s(ONE_DECODE) == pytest.approx(0.5)
    assert replace(model, hides_host=False).step_s(ONE_DECODE) == pytest.approx(0.5 + READ_S)


def test_host_work_depends_on_engine_prefix_cache_and_numa_balancing() -> None:
    model = with_fit(host_step_s=1.0, host_sequence_s=0.1, host_prefix_sequence_s=0.2)
    assert model.host_s(sequences=2, tokens=0) == pytest.approx(1.2)
    assert replace(model, has_prefix_cache=True).host_s(sequences=2, tokens=0) == pytest.approx(1.6)
    assert replace(model, has_prefix_cache=True, is_v1=True).host_s(sequences=2, tokens=0) == pytest.approx(
        0.6
    )
    # A fifth is saved.
    assert replace(model, has_numa_balancing=False).host_s(sequences=2, tokens=0) == pytest.approx(0.96)


def test_launches_without_graph_run_beside_device_and_hold_it_up_where_both_take_as_long() -> None:
    model = with_fit(kernel_layer_s=1.0, eager_layer_s=2.0)
    prompt = Step(prefill_tokens=1)
    # One layer: a second of the device with a graph, and 1 + 2 of launches without one.
    assert model.device_s(ONE_DECODE) == pytest.approx(1, rel=1e-3)
    assert replace(model, uses_graphs=False).device_s(ONE_DECODE) == pytest.approx(
        (1 + 27) ** (1 / 3), rel=1e-3
    )
    assert model.device_s(prompt) == pytest.approx((1 + 27) ** (1 / 3), rel=1e-3)
    # V1 replays graphs around attention whatever is in the step.
    assert replace(model, is_v1=True).device_s(prompt) == pytest.approx(1, rel=1e-3)
    # 4 x 1000 flops for each of 1e12 pairs take 4 s, in which most of 3 s of launches is hidden.
    long = Step(prefill_tokens=1, prefill_pairs=1e12)
    assert model.device_s(long) == pytest.approx((125 + 27) ** (1 / 3), rel=1e-3)
    assert model.step_s(long) == model.device_s(long)
    # Of a hundred times as much next to all.
    longest = Step(prefill_tokens=1, prefill_pairs=1e14)
    assert model.device_s(longest) == pytest.approx(1 + 400, rel=1e-3)


def test_launches_of_each_step_of_a_group_hold_it_up() -> None:
    eager = replace(with_fit(kernel_layer_s=1.0, eager_layer_s=2.0), uses_graphs=False)
    one = eager.step_s(ONE_DECODE)
    assert eager.groups_s(ONE_DECODE, steps=5, groups=2).tolist() == pytest.approx([5 * one] * 2, rel=1e-3)


def test_mixed_step_costs_device_more() -> None:
    model = with_fit(kernel_layer_s=1.0, eager_layer_s=2.0, mixed_layer_s=4.0)
    mixed = Step(prefill_tokens=1, decodes=1)
    assert model.device_s(mixed) == pytest.approx(((1 + 4) ** 3 + 27) ** (1 / 3), rel=1e-3)
    assert replace(model, is_v1=True).device_s(mixed) == pytest.approx(1 + 4, rel=1e-3)
    assert replace(model, device=NVIDIAS, is_v1=True).device_s(mixed) == pytest.approx(1, rel=1e-3)


def test_longer_capture_length_costs_every_decoding_sequence_in_v0() -> None:
    model = replace(with_fit(capture_s=1e-6), capture_tokens=8192)
    longer = replace(model, capture_tokens=131072)
    step = Step(decodes=10, samples=10)
    # 10 sequences x 1 layer x (131072 - 8192) tokens x 1 us.
    assert longer.step_s(step) - model.step_s(step) == pytest.approx(1.2288)
    assert replace(longer, is_v1=True).step_s(step) == pytest.approx(replace(model, is_v1=True).step_s(step))
    assert replace(longer, uses_graphs=False).step_s(step) == pytest.approx(READ_S)


def test_decode_heads_and_samples_cost_per_sequence_and_only_heads_are_shared_out() -> None:
    model = replace(with_fit(decode_head_s=1.0, sample_s=3.0), devices=2, gpus=2)
    # 4 sequences x (10 heads x 1 layer / 2 devices x 1 s + 3 s).
    assert model.device_s(Step(decodes=4, samples=4)) == pytest.approx(32, rel=1e-3)


def test_slowdown_stretches_everything() -> None:
    assert replace(BASE, slowdown=2.0).step_s(ONE_DECODE) == pytest.approx(2 * READ_S)


def test_calibration_takes_overrides_by_name() -> None:
    changed = Calibration().override({"host_step_s": 0.5})
    assert changed.host_step_s == 0.5
    assert replace(changed, host_step_s=Calibration().host_step_s) == Calibration()


def test_unknown_parameter_is_refused_with_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"calibration: got 'host_steps'; expected one of .*'host_step_s'\?"
    ):
        Calibration().override({"host_steps": 0.5})


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), [], True, "fast"])
def test_parameter_that_is_no_amount_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="expected a number, 0 or more"):
        Calibration().override({"host_step_s": value})  # type: ignore[dict-item]


def test_rows_of_step_are_prompt_tokens_and_decodes() -> None:
    assert Step(prefill_tokens=5, decodes=3).tokens == 8


def test_all_reduce_of_few_tokens_saves_a_latency_that_its_data_use_up() -> None:
    group = replace(BASE, devices=8, gpus=8, device=MI300X, calibration=Calibration())
    at_once = replace(group, has_one_shot=True)
    tokens = -(-256 * 1024 // (2 * group.built.hidden))

    def saved_s(count: int) -> float:
        step = Step(decodes=count, samples=count)
        return group.device_s(step) - at_once.device_s(step)

    savings = [saved_s(count) for count in range(1, tokens + 2)]
    assert savings == sorted(savings, reverse=True)
    assert savings[0] > 0
    # Where vLLM changes over to two exchanges both take as long.
    assert savings[-3:] == pytest.approx([savings[-3], 0, 0], abs=1e-12)
    # No more is saved than the latencies that there are, and two devices have the same traffic both ways.
    assert savings[0] < 2 * len(group.built.layers) * group.calibration.allreduce_s
    pair = replace(group, devices=2, gpus=2)
    step = Step(decodes=1, samples=1)
    assert replace(pair, has_one_shot=True).device_s(step) == pair.device_s(step)


@pytest.mark.parametrize(
    ("release", "device", "expected"),
    [
        ("0.6.2", MI300X, False),
        ("0.7.3", MI300X, True),
        ("0.32.0", MI300X, True),
        ("0.6.2", device_named("h100"), True),
        ("0.32.0", partition_of("CPX"), False),
    ],
)
def test_vllms_own_all_reduce_is_that_of_its_release_on_whole_gpus(
    release: str, device: Device, expected: bool
) -> None:
    assert has_one_shot(release, device) == expected
