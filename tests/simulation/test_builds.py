"""Steps of other builds than Llama's: hand checks, and laws that hold whatever the parameters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.models import published
from sweeper.records import Model, Quantization
from sweeper.records.architecture import (
    AnyAttention,
    Architecture,
    Attention,
    DeltaAttention,
    Experts,
    LatentAttention,
    Layer,
    Mlp,
)
from sweeper.simulation.attention import SERIAL_TOKEN_S, context_in, decodes_serially, pairs_in
from sweeper.simulation.builds import kinds_of
from sweeper.simulation.calibration import Calibration, parameters
from sweeper.simulation.communication import Sharing
from sweeper.simulation.costs import CostModel, Step
from sweeper.simulation.device import MI300X, device_named
from sweeper.simulation.experts import Routing, busiest, chances, touched
from sweeper.simulation.precision import Precision, Stored, precision_of, uniform

V1 = parameters({}, generation="v1")
GROUPED = Attention(heads=64, kv_heads=8, head_dim=128)
LATENT = LatentAttention(heads=128, query_rank=1536, kv_rank=512, rope_dim=64, plain_dim=128, value_dim=128)
DELTA = DeltaAttention(key_heads=16, value_heads=32, key_dim=128, value_dim=128, kernel=4)
EXPERTS = Experts(count=128, per_token=8, intermediate=1536)
FREE_LINKS = replace(MI300X, link_bytes_per_s=1e30)
DECODES = st.integers(1, 600)
ROUTINGS = st.builds(
    Routing,
    count=st.integers(8, 256),
    per_token=st.integers(1, 8),
    skew=st.floats(0, 3),
)


def built(
    *, attention: AnyAttention = GROUPED, mlp: Mlp | Experts = EXPERTS, layers: int = 4
) -> Architecture:
    return Architecture(
        model_type="test",
        hidden=4096,
        vocab=1000,
        max_positions=131072,
        layers=(Layer(attention=attention, mlp=mlp),) * layers,
    )


def costs(architecture: Architecture, **changes: object) -> CostModel:
    plain = CostModel(device=MI300X, devices=1, gpus=1, built=architecture, calibration=V1, is_v1=True)
    return replace(plain, **changes)  # type: ignore[arg-type]


def decode(count: int, context: int = 1000) -> Step:
    return Step(decodes=count, context_tokens=float(count * context), samples=count)


# --- heads that are read from first to last ---


@pytest.mark.parametrize(
    ("attention", "is_serial"),
    [
        (GROUPED, False),
        (replace(GROUPED, heads=16, kv_heads=2, head_dim=256), True),
        (replace(GROUPED, heads=64, kv_heads=2), True),
        (replace(GROUPED, heads=16, kv_heads=2, head_dim=256, window=4096), False),
        (LATENT, False),
    ],
)
def test_heads_that_rocms_own_kernel_does_not_take_are_read_from_first_to_last(
    attention: AnyAttention, is_serial: bool
) -> None:
    plain = costs(built(attention=attention))
    serial = replace(plain, decodes_serially=True)
    longer_s = serial.device_s(decode(1, 50_000)) - serial.device_s(decode(1, 10_000))
    if not is_serial:
        assert serial.device_s(decode(1, 50_000)) == plain.device_s(decode(1, 50_000))
        return
    # Four layers; as long for eight sequences that are read side by side.
    assert longer_s == pytest.approx(4 * 40_000 * SERIAL_TOKEN_S)
    together_s = serial.device_s(decode(8, 50_000)) - serial.device_s(decode(8, 10_000))
    assert together_s == pytest.approx(longer_s)
    grown = serial.groups_s(decode(1, 10_000), steps=1, groups=101)
    assert grown[100] - grown[0] == pytest.approx(4 * 100 * SERIAL_TOKEN_S)


def test_that_is_so_in_v1_on_rocm_without_aiter() -> None:
    nvidias = device_named("h100")
    assert decodes_serially(MI300X, is_v1=True, has_aiter=False)
    assert not decodes_serially(MI300X, is_v1=True, has_aiter=True)
    assert not decodes_serially(MI300X, is_v1=False, has_aiter=False)
    assert not decodes_serially(nvidias, is_v1=True, has_aiter=False)


# --- which experts a batch reaches ---


def test_uniform_routing_reaches_as_many_experts_as_drawing_does() -> None:
    # 128 experts, 4 a token, 64 tokens: 128 x (1 - (1 - 4 / 128) ** 64).
    assert touched(Routing(count=128, per_token=4), 64) == pytest.approx(111.22, abs=0.01)


@given(ROUTINGS)
def test_one_token_reaches_exactly_its_own_experts(routing: Routing) -> None:
    assert touched(routing, 1) == pytest.approx(min(routing.per_token, routing.count))
    assert chances(routing).max() <= 1 + 1e-12


@given(ROUTINGS, DECODES)
def test_more_tokens_reach_no_fewer_experts_and_never_more_than_there_are(
    routing: Routing, tokens: int
) -> None:
    now, later = touched(routing, tokens), touched(routing, tokens + 1)
    assert now <= later + 1e-9
    assert later <= min(routing.count, (tokens + 1) * routing.per_token) + 1e-9


@given(ROUTINGS, DECODES, st.floats(0, 2))
def test_more_skew_reaches_no_more_experts(routing: Routing, tokens: int, more: float) -> None:
    skewed = replace(routing, skew=routing.skew + more)
    assert touched(skewed, tokens) <= touched(routing, tokens) * (1 + 1e-9)


@given(ROUTINGS, DECODES, st.sampled_from([1, 2, 4, 8]))
def test_busiest_device_has_its_mean_share_at_least_and_all_at_most(
    routing: Routing, tokens: int, ranks: int
) -> None:
    share = busiest(routing, tokens, ranks=ranks)
    rows = tokens * min(routing.per_token, routing.count)
    assert rows / ranks * (1 - 1e-9) <= share.rows <= rows * (1 + 1e-9)
    assert share.experts <= share.rows * (1 + 1e-9)
    if ranks == 1:
        assert share.experts == pytest.approx(touched(routing, tokens))


def test_busiest_of_eight_devices_is_what_drawing_shows() -> None:
    routing, tokens, ranks = Routing(count=64, per_token=4, skew=0.5), 200, 8
    rng = np.random.default_rng(0)
    found = []
    for _ in range(300):
        drawn = rng.random((tokens, 64)) < chances(routing)
        by_device = rng.permutation(64).reshape(ranks, 8)
        found.append(max(int(drawn[:, experts].sum()) for experts in by_device))
    assert busiest(routing, tokens, ranks=ranks).rows == pytest.approx(np.mean(found), rel=0.2)


# --- a step of a mixture of experts ---


def test_small_batch_reads_the_experts_of_its_tokens_and_no_others() -> None:
    one, all_experts = (costs(built(mlp=replace(EXPERTS, count=count, per_token=8))) for count in (128, 8))
    # The other 120 experts of each layer are kept and not read; only the router is wider.
    assert one.weight_bytes > 10 * all_experts.weight_bytes
    assert one.device_s(decode(1)) == pytest.approx(all_experts.device_s(decode(1)), rel=0.01)


@given(DECODES, st.integers(1, 16))
def test_more_experts_to_reach_are_never_faster(count: int, times: int) -> None:
    few, many = (costs(built(mlp=replace(EXPERTS, count=8 * n))) for n in (times, times + 1))
    assert few.device_s(decode(count)) <= many.device_s(decode(count)) * (1 + 1e-9)


@given(DECODES, st.integers(1, 7))
def test_more_experts_for_each_token_are_never_faster(count: int, per_token: int) -> None:
    few, many = (costs(built(mlp=replace(EXPERTS, per_token=n))) for n in (per_token, per_token + 1))
    assert few.device_s(decode(count)) <= many.device_s(decode(count)) * (1 + 1e-9)


@given(DECODES, st.sampled_from([1, 2, 8]))
def test_one_expert_for_all_is_a_dense_model(count: int, devices: int) -> None:
    dense = costs(built(mlp=Mlp(intermediate=14336)), devices=devices, gpus=devices)
    single = replace(dense, built=built(mlp=Experts(count=1, per_token=1, intermediate=14336)))
    without = Calibration(kernel_layer_s=0.0)
    dense, single = (replace(each, calibration=without) for each in (dense, single))
    # But for a router of one column.
    assert single.device_s(decode(count)) == pytest.approx(dense.device_s(decode(count)), rel=1e-3)
    assert single.weight_bytes == pytest.approx(dense.weight_bytes, rel=1e-3)


@given(DECODES, st.floats(0, 2), st.floats(0, 2))
def test_slices_of_experts_are_never_slower_with_more_skew(count: int, skew: float, more: float) -> None:
    even, uneven = (
        costs(built(), calibration=replace(V1, expert_skew=value)) for value in (skew, skew + more)
    )
    assert uneven.device_s(decode(count)) <= even.device_s(decode(count)) * (1 + 1e-9)


def test_whole_experts_are_slower_with_skew_where_devices_compute() -> None:
    step = Step(prefill_tokens=16384, prefill_sequences=8, samples=8)
    even, uneven = (
        costs(
            built(),
            devices=8,
            gpus=8,
            sharing=Sharing(has_whole_experts=True),
            calibration=replace(V1, expert_skew=value),
        )
        for value in (0.0, 1.0)
    )
    assert uneven.device_s(step) > 1.2 * even.device_s(step)


# --- parallelism ---


@given(DECODES)
def test_whole_experts_and_slices_agree_on_one_device(count: int) -> None:
    sliced = costs(built())
    whole = replace(sliced, sharing=Sharing(has_whole_experts=True))
    assert whole.device_s(decode(count)) == pytest.approx(sliced.device_s(decode(count)))
    assert whole.weight_bytes == pytest.approx(sliced.weight_bytes)


@given(DECODES, st.sampled_from([2, 4, 8]))
def test_whole_experts_are_as_fast_as_slices_at_best(count: int, devices: int) -> None:
    """Without data parallelism both send the same, so only the unevenness is between them."""
    sliced = costs(built(), devices=devices, gpus=devices)
    whole = replace(sliced, sharing=Sharing(has_whole_experts=True))
    assert whole.device_s(decode(count)) >= sliced.device_s(decode(count)) * (1 - 1e-9)
    assert whole.weight_bytes == pytest.approx(sliced.weight_bytes)


def test_whole_experts_and_slices_agree_where_every_expert_is_reached() -> None:
    sliced = costs(built(), devices=8, gpus=8)
    whole = replace(sliced, sharing=Sharing(has_whole_experts=True))
    # 3000 tokens: every expert is read on either way; rows scatter by some percent.
    assert whole.device_s(decode(3000)) == pytest.approx(sliced.device_s(decode(3000)), rel=0.1)


@pytest.mark.parametrize("backend", ["allgather_reducescatter", "mori_high_throughput"])
def test_replicas_that_share_experts_pay_for_the_way_and_hold_a_part(backend: str) -> None:
    alone = costs(built())
    sharing = Sharing(replicas=8, has_whole_experts=True, backend=backend)
    shared, free = (replace(alone, device=device, sharing=sharing) for device in (MI300X, FREE_LINKS))
    assert shared.weight_bytes < alone.weight_bytes / 4
    assert shared.device_s(decode(64)) > free.device_s(decode(64))
    # Eight times the tokens meet an eighth of the experts.
    assert free.device_s(decode(1)) < alone.device_s(decode(64))


def test_all_to_all_sends_less_than_gathering_where_tokens_have_few_experts() -> None:
    sharing = Sharing(replicas=8, has_whole_experts=True)
    architecture = built(mlp=replace(EXPERTS, per_token=1))
    gathered = costs(architecture, sharing=sharing)
    sent = replace(gathered, sharing=replace(sharing, backend="mori_high_throughput"))
    assert sent.device_s(decode(256)) < gathered.device_s(decode(256))


def test_dense_layers_know_nothing_of_replicas() -> None:
    alone = costs(built(mlp=Mlp(intermediate=14336)))
    assert replace(alone, sharing=Sharing(replicas=8)).device_s(decode(9)) == alone.device_s(decode(9))


@given(st.sampled_from([1, 2, 4]), st.booleans(), st.sampled_from([GROUPED, LATENT, DELTA]))
def test_more_devices_never_hold_more_weights_each(
    devices: int, whole: bool, attention: AnyAttention
) -> None:
    few, many = (
        costs(
            built(attention=attention), devices=n, gpus=n, sharing=Sharing(has_whole_experts=whole)
        ).weight_bytes
        for n in (devices, 2 * devices)
    )
    assert many < few


# --- latent attention, windows, states ---


def test_latent_cache_is_whole_on_every_device() -> None:
    # 4 layers x (512 + 64) numbers x 2 bytes.
    for devices in (1, 8):
        model = costs(built(attention=LATENT), devices=devices, gpus=devices)
        assert model.kv_token_bytes == 4 * 576 * 2


def test_latent_decode_reads_vectors_or_computes_with_them_if_that_is_longer() -> None:
    bare = replace(V1, kv_read_frac=1.0, prefill_attention_frac=1.0)
    model = costs(built(attention=LATENT), calibration=bare, devices=8, gpus=8)
    more_s = model.device_s(decode(1, 200_000)) - model.device_s(decode(1, 100_000))
    # 100,000 tokens x 4 layers x 576 x 2 bytes at 5.3 TB/s.
    assert more_s == pytest.approx(100_000 * 4 * 1152 / 5.3e12)
    slow = replace(model, device=replace(MI300X, bf16_flop_per_s=1e12))
    more_s = slow.device_s(decode(1, 200_000)) - slow.device_s(decode(1, 100_000))
    # 16 heads compare 576 numbers and sum 512, two operations each.
    assert more_s == pytest.approx(100_000 * 4 * 16 * 2 * 1088 / 1e12)


def test_latent_prompts_compute_with_keys_and_values_of_every_head() -> None:
    bare = replace(V1, prefill_attention_frac=1.0)
    model = costs(built(attention=LATENT), calibration=bare)
    prompt = Step(prefill_tokens=100, prefill_sequences=1)
    more_s = model.device_s(replace(prompt, prefill_pairs=1e9)) - model.device_s(prompt)
    # 128 heads: 192 numbers compared and 128 summed.
    assert more_s == pytest.approx(1e9 * 4 * 128 * 2 * (192 + 128) / MI300X.bf16_flop_per_s)


@given(DECODES, st.integers(1, 100_000), st.integers(1, 10_000), st.sampled_from([None, 1024]))
def test_longer_context_is_never_faster(count: int, context: int, more: int, window: int | None) -> None:
    for attention in (replace(GROUPED, window=window), LATENT, DELTA):
        model = costs(built(attention=attention))
        short, long = model.device_s(decode(count, context)), model.device_s(decode(count, context + more))
        assert short <= long * (1 + 1e-12)


@given(DECODES, st.integers(1024, 100_000))
def test_window_bounds_what_context_costs(count: int, context: int) -> None:
    model = costs(built(attention=replace(GROUPED, window=1024)))
    assert model.device_s(decode(count, context)) == pytest.approx(model.device_s(decode(count, 1024)))
    whole = costs(built())
    assert model.device_s(decode(count, context)) <= whole.device_s(decode(count, context)) * (1 + 1e-12)


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=20), st.integers(1, 300))
def test_contexts_in_window_are_those_counted_one_by_one(contexts: list[int], steps: int) -> None:
    found = context_in(1024, np.array(contexts), steps=steps)
    assert found.tolist() == [sum(min(each + step, 1024) for each in contexts) for step in range(steps)]


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 2000)), min_size=1, max_size=5))
def test_pairs_in_window_are_those_counted_one_by_one(pieces: list[tuple[int, int]]) -> None:
    before, chunks = np.array(pieces).T
    counted = sum(min(place + 1, 1024) for start, chunk in pieces for place in range(start, start + chunk))
    assert pairs_in(1024, before=before, chunks=chunks) == counted


@pytest.mark.parametrize("attention", [replace(GROUPED, window=1024), LATENT, DELTA])
def test_groups_of_any_attention_take_as_long_as_step_by_step(attention: AnyAttention) -> None:
    model = costs(built(attention=attention))
    contexts = np.array([10, 1015, 5000])
    step = Step(decodes=3, samples=3, context_tokens=float(contexts.sum()), contexts=contexts)
    one_by_one = [
        model.step_s(replace(step, context_tokens=step.context_tokens + 3 * n, contexts=contexts + n))
        for n in range(20)
    ]
    assert model.groups_s(step, steps=1, groups=20).tolist() == pytest.approx(one_by_one)


def test_state_is_read_and_written_whatever_the_length() -> None:
    bare = replace(V1, kv_read_frac=1.0, decode_head_s=0.0, sample_s=0.0)
    model = costs(built(attention=DELTA, mlp=Mlp(intermediate=64)), calibration=bare)
    weights_s = costs(
        built(attention=replace(DELTA, key_dim=128), mlp=Mlp(intermediate=64)), calibration=bare
    )
    assert model.kv_token_bytes == 0
    assert model.device_s(decode(1, 10)) == weights_s.device_s(decode(1, 100_000))
    # 4 layers x (32 x 128 x 128 + 8192 x 3) numbers x 2 bytes, twice, at 5.3 TB/s.
    more_s = model.device_s(decode(11)) - model.device_s(decode(1))
    compute_s = model._matrices.seconds(11) - model._matrices.seconds(1)
    assert more_s - compute_s == pytest.approx(10 * 2 * 4 * 548_864 * 2 / 5.3e12)


# --- stored types ---


@given(st.floats(3, 8), st.floats(0, 7))
def test_fewer_bits_of_converted_weights_are_never_more_bytes_nor_slower_to_read(
    bits: float, more: float
) -> None:
    narrow, wide = (
        costs(built(), precision=replace(Precision(), experts=Stored(bits=each)))
        for each in (bits, bits + more)
    )
    assert narrow.weight_bytes <= wide.weight_bytes
    assert narrow._matrices.seconds(1) <= wide._matrices.seconds(1) * (1 + 1e-9)


def test_weights_that_are_converted_are_faster_for_few_rows_and_slower_for_many() -> None:
    plain = costs(built(mlp=Mlp(intermediate=14336)))
    four = Stored(bits=4.25)
    converted = replace(plain, precision=Precision(attention=four, mlp=four))
    assert converted.device_s(decode(1)) < 0.5 * plain.device_s(decode(1))
    prompt = Step(prefill_tokens=16384, prefill_sequences=1)
    assert converted.device_s(prompt) > 1.5 * plain.device_s(prompt)


@pytest.mark.parametrize(
    ("method", "bits", "compute_bits", "is_slow"),
    [
        ("fp8", 8.0, 8, False),
        ("compressed-tensors", 8.0, 8, False),
        ("compressed-tensors", 4.5, 16, True),
        ("awq", 4.15, 16, True),
        ("mxfp4", 4.25, 16, False),
        ("gptq", 8.0, 16, False),
    ],
)
def test_method_says_what_is_multiplied(method: str, bits: float, compute_bits: int, is_slow: bool) -> None:
    stored = Quantization(method=method, bits=bits, parts=frozenset({"experts", "mlp"}))
    found = precision_of({"quantization": "none"}, stored)
    # On ROCm experts of four-bit integers are converted slowly; of other matrices that is not known.
    assert found.experts == Stored(bits=bits, compute_bits=compute_bits, is_slow_to_convert=is_slow)
    assert found.mlp == Stored(bits=bits, compute_bits=compute_bits)
    assert found.attention == Stored()
    assert not precision_of({"quantization": "none"}, stored, has_rocm=False).experts.is_slow_to_convert


def test_small_batch_gains_nothing_by_experts_that_are_slow_to_convert() -> None:
    four = Stored(bits=4.25)
    fast = replace(costs(built(layers=40)), precision=Precision(experts=four))
    slow = replace(fast, precision=Precision(experts=replace(four, is_slow_to_convert=True)))
    assert slow.device_s(decode(16)) > 1.2 * fast.device_s(decode(16))
    assert slow.weight_bytes == fast.weight_bytes


def test_checkpoint_without_method_is_as_wide_as_its_setting() -> None:
    assert precision_of({"quantization": "fp8"}, None) == uniform(8)
    assert precision_of({"quantization": "none"}, None) == uniform(16)


# --- what was never compared ---


def model_of(architecture: Architecture, quantization: Quantization | None = None) -> Model:
    return Model(name="x/y", path="x/y", shape=None, architecture=architecture, quantization=quantization)


def test_kinds_of_trial_name_layers_weights_and_sharing() -> None:
    assert kinds_of(model_of(built(mlp=Mlp(intermediate=64))), {"data_parallel_size": 8}) == ()
    mxfp4 = Quantization(method="mxfp4", bits=4.25)
    knobs = {"enable_expert_parallel": True, "data_parallel_size": 2}
    assert kinds_of(model_of(built(attention=LATENT), mxfp4), knobs) == (
        "latent attention",
        "a mixture of experts",
        "mxfp4 weights of 4.25 bits",
        "expert parallelism",
        "replicas that share experts",
    )
    assert kinds_of(model_of(built(attention=DELTA, mlp=Mlp(intermediate=64))), {}) == (
        "layers with a state",
    )
    assert kinds_of(model_of(built(attention=replace(GROUPED, window=9))), {})[0] == "attention over a window"


# --- every published model ---


@pytest.mark.parametrize("model", published.published_models(), ids=lambda model: model.name)
def test_every_published_model_has_a_step_time(model: published.PublishedModel) -> None:
    eight = costs(model.architecture, devices=8, gpus=8)
    one, many = eight.step_s(decode(1)), eight.step_s(decode(100))
    assert 0 < one < many < 1
