"""Which numbers of a source anchor a stack, and what these move."""

from dataclasses import replace

import pytest

from sweeper.calibrate import anchoring, public
from sweeper.calibrate.figures import Figure

METRICS = ("request_throughput_per_s", "output_throughput_tok_per_s", "mean_ttft_ms", "mean_tpot_ms")


def source(metrics: int, loads: int) -> list[Figure]:
    """Make a source of so many metrics at so many loads, load by load; values tell which is which."""
    like = public.figures_of("dstack_405b_amd_8")[0]
    return [
        replace(like, metric=METRICS[metric], value=10.0 * load + metric + 1)
        for load in range(loads)
        for metric in range(metrics)
    ]


@pytest.mark.parametrize(
    ("metrics", "loads", "values"),
    [
        # A single metric: as many loads, evenly far from each other.
        (1, 10, [1, 31, 61, 91]),
        (1, 3, [1, 21]),
        # Two: both ends of each, the first of the one and the last of the other before the others.
        (2, 10, [1, 92, 91, 2]),
        # More: each once, by turns from the first and from the last load.
        (4, 10, [1, 92, 3, 94]),
        (3, 2, [1, 12, 3, 11]),
    ],
)
def test_anchors_are_from_both_ends(metrics: int, loads: int, values: list[float]) -> None:
    figures = source(metrics, loads)
    anchors, rest = anchoring.split(figures)
    assert [figure.value for figure in anchors] == values
    assert len(anchors) + len(rest) == len(figures)
    assert not {figure.value for figure in anchors} & {figure.value for figure in rest}


def test_numbers_move_a_parameter_for_each_part_of_a_step_that_their_runs_have() -> None:
    eager_fp8 = anchoring.parameters_of(public.figures_of("dstack_405b_amd_8"))
    assert {"eager_layer_s", "fp8_gemm_frac", "allreduce_s", "host_step_s"} <= set(eager_fp8)
    # V1 on one GPU, weights in 16 bits.
    alone = anchoring.parameters_of(public.figures_of("recipes_qwen3guard_8b"))
    assert "v1_host_frac" in alone
    assert not {"eager_layer_s", "fp8_gemm_frac", "allreduce_s", "host_step_s"} & set(alone)
    assert {"gemm_frac", "kv_read_frac", "prefill_attention_frac"} <= set(alone) & set(eager_fp8)


def test_what_hardly_differs_from_stack_to_stack_moves_less() -> None:
    figures = public.figures_of("dstack_405b_amd_8")
    start = anchoring.basis_of(figures).calibration
    anchors, _ = anchoring.split(figures)
    # All a third slower: what moves is not the memory's rate for weights.
    slower = [replace(figure, value=figure.value / 1.5) for figure in anchors]
    values = anchoring.anchored(slower, {name: getattr(start, name) for name in start.__dataclass_fields__})
    moved = {name: abs(values[name] / getattr(start, name) - 1) for name in anchoring.parameters_of(figures)}
    assert moved["weight_read_frac"] < 0.5 * max(moved["gemm_frac"], moved["kernel_layer_s"])
