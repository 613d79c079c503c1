"""What would never happen with the release that is found is refused before anything starts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.errors import ConfigError
from sweeper.plan import no_effect
from sweeper.plan.planner import Planner
from sweeper.records import ClientSpec, EngineSpec, LoadPoint, Model, Platform
from sweeper.space.domains import Choice, Range
from sweeper.space.rules import Rule
from sweeper.space.space import Series, Space
from tests.stand_ins import planner_of_three_series

SECOND = LoadPoint(dataset="random", num_prompts=8, input_len=32, output_len=8, keeps_prefix_cache=True)


@pytest.fixture
def planner(tmp_path: Path, llama_70b: Model) -> Planner:
    """Of vLLM 0.6.2: its base sets tensor_parallel_size and max_model_len, its series max_num_seqs."""
    return planner_of_three_series(tmp_path, llama_70b)


def ruled(planner: Planner, rule: str, **more: object) -> Planner:
    space = replace(planner.space, rules=(Rule(text=rule),), **more)  # type: ignore[arg-type]
    return replace(planner, space=space)


@pytest.mark.parametrize(
    "rule",
    [
        "max_num_seqs <= max_model_len",
        "tensor_parallel_size * instances <= node_devices",
        "max_num_batched_tokens >= 1 or enable_chunked_prefill",  # left unset; their defaults are known
        "data_parallel_size == 1",
    ],
)
def test_rule_over_what_is_known_passes(rule: str, planner: Planner) -> None:
    no_effect.check(ruled(planner, rule))


def test_rule_with_misspelt_knob_is_refused_with_nearest_one(planner: Planner) -> None:
    with pytest.raises(ConfigError) as caught:
        no_effect.check(ruled(planner, "max_num_seq <= max_model_len"))
    assert str(caught.value) == (
        "space.rules[0]: 'max_num_seq <= max_model_len' names 'max_num_seq', which is no knob of this study "
        "and none of vLLM 0.6.2; the rule would never apply. Did you mean 'max_num_seqs'? Correct it."
    )


def test_rule_over_knob_that_nothing_sets_would_never_apply(planner: Planner) -> None:
    with pytest.raises(ConfigError, match="'swap_space', which no setting of this study gives a value"):
        no_effect.check(ruled(planner, "swap_space >= 2"))
    no_effect.check(ruled(planner, "swap_space >= 2", domains={"swap_space": Choice(values=(1, 4))}))


def test_knob_of_one_series_is_enough(planner: Planner) -> None:
    series = (*planner.space.series, Series(name="own", label="Own", knobs={"my_own_flag": 1}))
    no_effect.check(ruled(planner, "my_own_flag < 2", series=series))


def test_rule_holds_for_tgi_too(planner: Planner) -> None:
    space = Space(
        series=(Series(name="tgi", label="TGI", engine="tgi", knobs={"num_shard": 8}),),
        rules=(Rule(text="num_shard <= 4"),),
    )
    measured = replace(
        planner, platform=Platform.MI300X, engine=EngineSpec(kind="vllm", release="0.6.2"), space=space
    )
    (job,) = measured.grid()
    assert str(job.refusal) == "breaks the rule of the space: num_shard <= 4"
    kept = replace(measured, space=replace(space, rules=(Rule(text="num_shard <= 8"),)))
    assert kept.grid()[0].refusal is None


def test_second_run_of_nothing_is_refused(planner: Planner) -> None:
    twice = replace(planner, load_points=(replace(SECOND, keeps_prefix_cache=False), SECOND))
    with pytest.raises(ConfigError, match=r"^workload.second_run: is true, and no setting keeps prompts"):
        no_effect.check(twice)
    cached = {"enable_prefix_caching": True}
    no_effect.check(replace(twice, space=Space(base=cached)))
    no_effect.check(replace(twice, space=Space(series=(Series(name="a", label="A", knobs=cached),))))
    domains = {"enable_prefix_caching": Choice(values=(True, False))}
    no_effect.check(replace(twice, space=Space(domains=domains)))
    no_effect.check(planner)


LOCUST = ClientSpec(kind="locust")


def measured(planner: Planner, **more: object) -> Planner:
    """The planner on real devices; vLLM 0.6.2 has no data parallelism, so that instances are servers."""
    started = replace(planner, engine=EngineSpec(kind="vllm", release="0.6.2"), platform=Platform.MI300X)
    return replace(started, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("domain", [Choice(values=(1, 2)), Range(low=1.0, high=2.0, is_int=True)])
def test_several_servers_are_refused_for_client_that_cannot_split_load(
    planner: Planner, domain: Choice | Range
) -> None:
    searched = replace(planner.space, domains={"instances": domain})
    with pytest.raises(ConfigError) as caught:
        no_effect.check(measured(planner, space=searched, client=LOCUST))
    assert str(caught.value) == (
        "client.kind: is 'locust' for 2 servers that share a load; expected 'vllm_bench', which tells the "
        "times of single requests. Set client=vllm_bench."
    )
    # The usual client splits it, a model needs no client, and later releases balance the load themselves.
    no_effect.check(measured(planner, space=searched))
    no_effect.check(replace(planner, space=searched, client=LOCUST))
    today = EngineSpec(kind="vllm", release="0.32.0")
    no_effect.check(measured(planner, space=searched, client=LOCUST, engine=today))


def test_several_servers_of_series_are_refused_likewise(planner: Planner) -> None:
    two = Series(name="two", label="two", knobs={"instances": 2})
    with pytest.raises(ConfigError, match="is 'locust' for 2 servers that share a load"):
        no_effect.check(measured(planner, space=Space(series=(two,)), client=LOCUST))
    single = Space(series=(Series(name="one", label="one", knobs={"instances": 1}),))
    no_effect.check(measured(planner, space=single, client=LOCUST))
