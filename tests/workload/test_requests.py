from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sweeper.errors import ConfigError
from sweeper.records import LoadPoint
from sweeper.workload.drawing import arrivals_s, random_lengths, sharegpt_lengths
from sweeper.workload.requests import Workload, make_workload

SHAREGPT = LoadPoint(dataset="sharegpt", num_prompts=1000, request_rate_per_s=16)
RANDOM = LoadPoint(dataset="random", num_prompts=50, input_len=100, output_len=20)


def equal(one: Workload, other: Workload) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in vars(one))


def test_same_seed_gives_same_requests() -> None:
    assert equal(make_workload(SHAREGPT, seed=3), make_workload(SHAREGPT, seed=3))


def test_another_seed_gives_other_requests_and_other_prompts() -> None:
    one, other = make_workload(SHAREGPT, seed=3), make_workload(SHAREGPT, seed=4)
    assert not np.array_equal(one.input_tokens, other.input_tokens)
    assert not set(one.prompt_ids) & set(other.prompt_ids)


def test_load_points_of_one_seed_differ_in_arrivals_only() -> None:
    slow = make_workload(SHAREGPT, seed=0)
    fast = make_workload(replace(SHAREGPT, request_rate_per_s=32), seed=0)
    assert equal(replace(slow, arrival_s=fast.arrival_s), fast)
    # Twice the rate: the same gaps, half as long.
    assert fast.arrival_s == pytest.approx(slow.arrival_s / 2)


def test_without_rate_all_requests_arrive_at_once() -> None:
    everything = arrivals_s(requests=5, rate_per_s=None, rng=np.random.default_rng(0))
    assert everything.tolist() == [0.0] * 5


def test_poisson_arrivals_have_exponential_gaps_of_rate() -> None:
    gaps = np.diff(arrivals_s(requests=100_001, rate_per_s=4.0, rng=np.random.default_rng(1)))
    # Mean and deviation of an exponential are both 1 / 4 s; the error of 100000 draws is below 1 %.
    assert gaps.mean() == pytest.approx(0.25, rel=0.02)
    assert gaps.std() == pytest.approx(0.25, rel=0.02)


def test_first_request_is_sent_at_once() -> None:
    assert arrivals_s(requests=3, rate_per_s=1.0, rng=np.random.default_rng(0))[0] == 0.0


def test_rate_of_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"request_rate_per_s is 0; expected above 0\. Use null"):
        make_workload(replace(SHAREGPT, request_rate_per_s=0), seed=0)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sharegpt_totals_are_close_to_public_figures(seed: int) -> None:
    prompts, answers = sharegpt_lengths(requests=1000, rng=np.random.default_rng(seed))
    # About 215 thousand in and 198 thousand out for 1000 prompts.
    assert prompts.sum() == pytest.approx(215_000, rel=0.03)
    assert answers.sum() == pytest.approx(198_000, rel=0.03)


def test_sharegpt_lengths_keep_filter_of_benchmark() -> None:
    prompts, answers = sharegpt_lengths(requests=20_000, rng=np.random.default_rng(0))
    assert prompts.min() >= 4
    assert prompts.max() <= 1024
    assert answers.min() >= 4
    assert (prompts + answers).max() <= 2048


def test_output_length_replaces_those_of_sharegpt() -> None:
    workload = make_workload(replace(SHAREGPT, output_len=7), seed=0)
    assert set(workload.output_tokens) == {7}
    assert np.array_equal(workload.input_tokens, make_workload(SHAREGPT, seed=0).input_tokens)


def test_answers_that_end_early_have_mean_that_is_asked_for_and_none_grows() -> None:
    point = replace(SHAREGPT, num_prompts=1000)
    whole = make_workload(replace(point, ignore_eos=True), seed=0)
    usual = make_workload(point, seed=0)
    assert whole.output_tokens.mean() == pytest.approx(198, rel=0.01)
    assert usual.output_tokens.mean() == pytest.approx(187, rel=0.002)
    assert np.all(usual.output_tokens <= whole.output_tokens)
    ended = make_workload(replace(point, options=(("mean_output_len", 120.0),)), seed=0)
    assert ended.output_tokens.mean() == pytest.approx(120, rel=0.002)
    assert np.all(ended.output_tokens <= whole.output_tokens)
    assert np.array_equal(ended.input_tokens, whole.input_tokens)
    longer = make_workload(replace(point, options=(("mean_output_len", 5000.0),)), seed=0)
    assert np.array_equal(longer.output_tokens, whole.output_tokens)


def test_few_sharegpt_prompts_repeat_earlier_one_and_have_its_length() -> None:
    workload = make_workload(replace(SHAREGPT, num_prompts=5000), seed=0)
    unique, first = np.unique(workload.prompt_ids, return_index=True)
    # 0.9 % of 5000 are 45, give or take twice their root.
    assert 5000 - len(unique) == pytest.approx(45, abs=14)
    length_of = dict(zip(unique, workload.input_tokens[first], strict=True))
    assert [length_of[index] for index in workload.prompt_ids] == workload.input_tokens.tolist()


def test_random_lengths_fill_range_to_both_ends() -> None:
    lengths = random_lengths(requests=5000, mean_tokens=10, range_ratio=0.2, rng=np.random.default_rng(0))
    # 10 * (1 - 0.2) = 8 to 10 * (1 + 0.2) = 12.
    assert set(lengths) == {8, 9, 10, 11, 12}


def test_ratio_of_zero_fixes_random_lengths() -> None:
    workload = make_workload(RANDOM, seed=0)
    assert set(workload.input_tokens) == {100}
    assert set(workload.output_tokens) == {20}
    assert len(set(workload.prompt_ids)) == 50


def test_full_range_still_has_token_in_every_request() -> None:
    lengths = random_lengths(requests=1000, mean_tokens=2, range_ratio=1.0, rng=np.random.default_rng(0))
    assert set(lengths) == {1, 2, 3, 4}


def test_replicas_share_requests_in_turn() -> None:
    workload = make_workload(replace(RANDOM, num_prompts=5, request_rate_per_s=1, range_ratio=0.5), seed=0)
    first, second = workload.part(index=0, parts=2), workload.part(index=1, parts=2)
    assert (first.requests, second.requests) == (3, 2)
    assert first.arrival_s.tolist() == workload.arrival_s[[0, 2, 4]].tolist()
    assert second.input_tokens.tolist() == workload.input_tokens[[1, 3]].tolist()


def test_no_prompts_make_empty_workload() -> None:
    assert make_workload(replace(SHAREGPT, num_prompts=0), seed=0).requests == 0


@pytest.mark.parametrize(
    ("point", "message"),
    [
        (
            replace(SHAREGPT, dataset="sharegtp"),
            r"'sharegtp'; expected one of sharegpt, random, custom, .*'sharegpt'\?",
        ),
        (replace(RANDOM, input_len=None), "input_len None and output_len 20; expected both"),
        (replace(RANDOM, output_len=0), "output_len is 0; expected at least 1 token"),
        (replace(RANDOM, range_ratio=1.5), r"range_ratio is 1\.5; expected 0 to 1"),
        (replace(RANDOM, num_prompts=-1), "num_prompts is -1; expected 0 or more"),
    ],
)
def test_impossible_load_point_is_refused(point: LoadPoint, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_workload(point, seed=0)


def test_workload_out_of_order_is_refused() -> None:
    ones = np.ones(2, np.int64)
    with pytest.raises(ConfigError, match="not ascending"):
        Workload(arrival_s=np.array([1.0, 0.5]), input_tokens=ones, output_tokens=ones, prompt_ids=ones)


def test_workload_of_unequal_arrays_is_refused() -> None:
    ones = np.ones(2, np.int64)
    with pytest.raises(ConfigError, match=r"expected one shape"):
        Workload(arrival_s=np.zeros(3), input_tokens=ones, output_tokens=ones, prompt_ids=ones)


def test_request_without_tokens_is_refused() -> None:
    ones = np.ones(2, np.int64)
    with pytest.raises(ConfigError, match="a request without tokens"):
        Workload(arrival_s=np.zeros(2), input_tokens=ones, output_tokens=0 * ones, prompt_ids=ones)
