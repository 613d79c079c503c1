"""How many instances and GPUs serve a load, worked out by hand, and the laws that it keeps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.errors import ConfigError
from sweeper.goals.sizing import Capacity, bound, fleets, keeps_up

SMALL = Capacity(setting="small", gpus=1, per_s=4.0, low_per_s=2.0, high_per_s=5.0)
LARGE = Capacity(setting="large", gpus=8, per_s=40.0, low_per_s=0.0, high_per_s=None)
EIGHTH = Capacity(setting="eighth", gpus=0.125, per_s=0.5, low_per_s=0.5, high_per_s=0.5)
NEVER = Capacity(setting="never", gpus=1, per_s=0.0, low_per_s=0.0, high_per_s=1.0)


def test_instances_are_rate_over_what_one_serves_rounded_up() -> None:
    one = fleets([SMALL], rate_per_s=50.0)[0]
    # 50 / 4 = 12.5; between 50 / 5 = 10 and 50 / 2 = 25.
    assert (one.instances, one.gpus, one.fewest, one.most) == (13, 13, 10, 25)
    assert one.cost_per_hour(2.5) == pytest.approx(32.5)


def test_setting_with_fewest_gpus_comes_first_and_one_that_never_keeps_bounds_is_left_out() -> None:
    found = fleets([LARGE, NEVER, SMALL], rate_per_s=50.0)
    assert [(one.capacity.setting, one.gpus) for one in found] == [("small", 13), ("large", 16)]
    assert (found[1].fewest, found[1].most) == (None, None)


def test_parts_of_a_gpu_are_bought_as_whole_gpus() -> None:
    # 9 eighths serve 4.5 per second, and lie on two GPUs.
    one = fleets([EIGHTH], rate_per_s=4.5)[0]
    assert (one.instances, one.gpus) == (9, 2)


@given(st.floats(0.01, 1e4), st.floats(0.01, 1e4), st.floats(0.1, 100), st.sampled_from((0.125, 1, 2, 8)))
def test_more_load_never_takes_fewer(one: float, other: float, per_s: float, gpus: float) -> None:
    each = Capacity(setting="x", gpus=gpus, per_s=per_s, low_per_s=per_s / 2, high_per_s=per_s * 2)
    (light,) = fleets([each], rate_per_s=min(one, other))
    (heavy,) = fleets([each], rate_per_s=max(one, other))
    assert light.gpus <= heavy.gpus
    assert light.fewest is not None and light.most is not None
    assert light.fewest <= light.instances <= light.most
    # They serve it, and one fewer would not.
    assert heavy.instances * per_s >= heavy.rate_per_s * (1 - 1e-6)
    assert heavy.instances == 1 or (heavy.instances - 1) * per_s < heavy.rate_per_s * (1 + 1e-6)


def test_requests_that_pile_up_are_not_served() -> None:
    # 600 sent at 10 per second take 60 s, and the last one its 2 s more.
    assert keeps_up(completed=600, duration_s=62.0, latency_ms=2000.0, rate_per_s=10.0)
    # Served at 8 per second they take 75 s.
    assert not keeps_up(completed=600, duration_s=77.0, latency_ms=2000.0, rate_per_s=10.0)
    assert not keeps_up(completed=0, duration_s=10.0, latency_ms=0.0, rate_per_s=10.0)


def test_bound_is_read_and_mistakes_are_said_in_one_sentence() -> None:
    assert bound("p99_ttft_ms <= 2000").name == "p99_ttft_ms <= 2000"
    with pytest.raises(ConfigError, match="--slo: is 'fast'; expected a bound such as"):
        bound("fast")
    with pytest.raises(ConfigError, match=r"'p99_tfft_ms' is no latency .* Did you mean 'p99_ttft_ms'"):
        bound("p99_tfft_ms<=2000")
    with pytest.raises(ConfigError, match="expected a bound above 0, in milliseconds"):
        bound("p99_ttft_ms<=fast")
