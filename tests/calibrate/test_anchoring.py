"""Which numbers of a source anchor a stack, and what these move."""

import math
from dataclasses import asdict, replace

import pytest

from sweeper.calibrate import anchoring, public
from sweeper.calibrate.figures import Figure, predict
from sweeper.calibrate.fitting import alike

NAME = "recipes_qwen3guard_8b"


def source() -> list[Figure]:
    """Make a source of three metrics at three loads; values are what the nearest stack says of it."""
    like = public.figures_of(NAME)
    points = [replace(like[0].point, num_prompts=64, max_concurrency=users) for users in (1, 8, 32)]
    asked = [
        replace(figure, point=point, spec=replace(figure.spec, load_points=tuple(points)))
        for point in points
        for figure in like
    ]
    told = predict(asked, asdict(anchoring.basis_of(asked).calibration))
    return [replace(figure, value=value) for figure, value in zip(asked, told, strict=True)]


def places(figures: list[Figure], chosen: list[Figure]) -> list[int]:
    return [next(place for place, each in enumerate(figures) if each is figure) for figure in chosen]


def test_four_anchors_are_chosen_without_the_values_of_the_rest() -> None:
    figures = source()
    start = asdict(anchoring.basis_of(figures).calibration)
    anchors, rest = anchoring.split(figures, start)
    chosen = places(figures, anchors)
    assert len(set(chosen)) == len(anchors) == anchoring.MOST_ANCHORS
    assert sorted([*chosen, *places(figures, rest)]) == list(range(len(figures)))
    # Of each metric one stays to be predicted.
    assert {figure.metric for figure in rest} == {figure.metric for figure in figures}
    # Both ends of what was run are among them: they differ most.
    assert {1, 32} <= {figure.point.max_concurrency for figure in anchors}
    others = [
        replace(figure, value=figure.value * (1.0 if place in chosen else 3.0))
        for place, figure in enumerate(figures)
    ]
    assert places(others, anchoring.split(others, start)[0]) == chosen
    # Two are chosen before any value is known.
    unknown = [replace(figure, value=math.nan) for figure in figures]
    first = anchoring.worth_measuring(unknown, start, most=2)
    assert first.chosen == chosen[:2]
    assert 0 < first.open_after < first.open_before / 2


def test_what_is_measured_already_is_not_chosen_again_and_changes_what_is() -> None:
    figures = source()
    start = asdict(anchoring.basis_of(figures).calibration)
    first = anchoring.worth_measuring(figures, start, most=1).chosen
    known = anchoring.worth_measuring(figures, start, most=2, known=first)
    assert not set(first) & set(known.chosen)
    alone = anchoring.worth_measuring(figures, start, most=2)
    assert known.open_before < alone.open_before
    assert known.open_after < alone.open_after


def test_wrong_first_token_bends_a_fit_less_than_as_a_number_that_counts_fully(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    figures = source()[-3:]
    start = asdict(anchoring.basis_of(figures).calibration)
    (place,) = (place for place, figure in enumerate(figures) if figure.metric == "mean_ttft_ms")
    figures[place] = replace(figures[place], value=2 * figures[place].value)

    def reached() -> float:
        return predict(figures, anchoring.anchored(figures, start))[place] / figures[place].value

    half = reached()
    monkeypatch.setattr(anchoring, "_count", alike)
    assert 0.5 < half < reached() < 1.01


def test_numbers_move_a_parameter_for_each_part_of_a_step_that_their_runs_have() -> None:
    eager_fp8 = anchoring.parameters_of(public.figures_of("dstack_405b_amd_8"))
    assert {"eager_layer_s", "fp8_gemm_frac", "allreduce_s", "host_step_s"} <= set(eager_fp8)
    # V1 on one GPU, weights in 16 bits.
    alone = anchoring.parameters_of(public.figures_of("recipes_qwen3guard_8b"))
    assert "v1_host_frac" in alone
    assert not {"eager_layer_s", "fp8_gemm_frac", "allreduce_s", "host_step_s"} & set(alone)
    shared = {"gemm_frac", "kv_read_frac", "prefill_attention_frac", "decode_head_s"}
    assert shared <= set(alone) & set(eager_fp8)


def test_what_hardly_differs_from_stack_to_stack_moves_less() -> None:
    figures = public.figures_of("dstack_405b_amd_8")
    start = anchoring.basis_of(figures).calibration
    anchors = figures[:: len(figures) // 4]
    # All a third slower: what moves is not the memory's rate for weights.
    slower = [replace(figure, value=figure.value / 1.5) for figure in anchors]
    values = anchoring.anchored(slower, {name: getattr(start, name) for name in start.__dataclass_fields__})
    moved = {name: abs(values[name] / getattr(start, name) - 1) for name in anchoring.parameters_of(figures)}
    assert moved["weight_read_frac"] < 0.5 * max(moved["gemm_frac"], moved["kernel_layer_s"])


def test_200_requests_at_once_begin_in_one_step_of_v0_as_published() -> None:
    # AMD's guide: 2113 ms in the middle, and 1441 ms in the mean with the 31.8 % that got none counted as 0.
    middle = next(f for f in public.figures_of("amd_guide_8b") if f.metric == "median_ttft_ms")
    mean = replace(middle, metric="mean_ttft_ms")
    start = anchoring.basis_of([middle]).calibration
    told = predict([middle, mean], asdict(start))
    assert told[1] / told[0] == pytest.approx(1441.22 / (1 - 0.318) / middle.value, rel=0.01)
