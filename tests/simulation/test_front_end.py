"""The API server before the scheduler: requests and answers take their way; V0 reads a burst as one."""

from dataclasses import replace

import numpy as np
import pytest

from sweeper.metrics import RequestRecords
from sweeper.simulation.front_end import FrontEnd
from sweeper.simulation.kv_cache import KvCache
from sweeper.simulation.scheduler import SchedulerConfig, simulate
from sweeper.workload.requests import Workload
from tests.simulation.test_scheduler import ONE_SECOND

V1 = SchedulerConfig(
    is_v1=True, max_num_seqs=8, max_num_batched_tokens=100, max_model_len=1000, chunked_prefill=True
)
V0 = replace(V1, is_v1=False)
COSTS = replace(ONE_SECOND, calibration=replace(ONE_SECOND.calibration, v1_host_frac=1.0))
SLOW = FrontEnd(entry_s=0.25, token_s=0.01, return_s=0.5)


def served(
    *prompts: int,
    outputs: int,
    front_end: FrontEnd | None = SLOW,
    users: int | None = None,
    config: SchedulerConfig = V1,
    at_s: tuple[float, ...] | None = None,
) -> RequestRecords:
    workload = Workload(
        arrival_s=np.zeros(len(prompts)) if at_s is None else np.array(at_s),
        input_tokens=np.array(prompts, np.int64),
        output_tokens=np.full(len(prompts), outputs, np.int64),
        prompt_ids=np.arange(len(prompts)),
    )
    return simulate(
        workload,
        config=config,
        costs=COSTS,
        kv=KvCache(blocks=1000, keeps_prefixes=False),
        max_concurrency=users,
        front_end=front_end,
    )


def test_first_token_waits_for_way_in_and_way_back() -> None:
    # 0.25 s, 50 tokens of 0.01 s, a step of 1 s, 0.5 s; the second token a step later.
    seen = served(50, outputs=2)
    assert seen.first_token_s[0] == pytest.approx(0.25 + 0.5 + 1 + 0.5)
    assert seen.last_token_s[0] == pytest.approx(0.25 + 0.5 + 2 + 0.5)


def test_prompts_hold_each_other_up_but_not_their_way() -> None:
    # Tokenized at 0.4 s and 0.8 s, handed over a quarter of a second later: the second one meets a step
    # that began at 0.65 s, and starts in the next one.
    seen = served(40, 40, outputs=1)
    assert seen.first_token_s == pytest.approx([0.65 + 1 + 0.5, 0.65 + 2 + 0.5])
    assert seen.arrival_s.tolist() == [0.0, 0.0]


def test_v0_reads_a_burst_as_one_after_work_of_all_of_it() -> None:
    # 0.4 s each, and a quarter of a second more: both start in the step at 1.05 s.
    seen = served(40, 40, outputs=1, config=V0)
    assert seen.first_token_s == pytest.approx([1.05 + 1 + 0.5] * 2)
    assert seen.arrival_s.tolist() == [0.0, 0.0]


def test_who_comes_while_v0_reads_others_waits_for_them() -> None:
    # The first is through at 0.4 s; the other two begin then and are through at 0.8 s. Handed over at 0.65 s
    # and 1.05 s, by when a step had begun at 0.65 s.
    seen = served(40, 20, 20, outputs=1, config=V0, at_s=(0.0, 0.1, 0.3))
    assert seen.first_token_s == pytest.approx([0.65 + 1 + 0.5, *[0.65 + 2 + 0.5] * 2])
    assert seen.arrival_s.tolist() == [0.0, 0.1, 0.3]


@pytest.mark.parametrize("config", [V0, V1], ids=["v0", "v1"])
def test_who_comes_to_an_idle_server_begins_at_once(config: SchedulerConfig) -> None:
    seen = served(40, 40, outputs=1, config=config, at_s=(0.0, 7.0))
    assert seen.first_token_s - seen.arrival_s == pytest.approx([0.65 + 1 + 0.5] * 2)


@pytest.mark.parametrize("config", [V0, V1], ids=["v0", "v1"])
def test_next_request_of_a_user_follows_answer_that_has_come_back(config: SchedulerConfig) -> None:
    seen = served(50, 50, outputs=1, users=1, config=config)
    assert seen.arrival_s[1] == pytest.approx(seen.last_token_s[0])
    assert seen.first_token_s[1] - seen.arrival_s[1] == pytest.approx(seen.first_token_s[0])


@pytest.mark.parametrize("config", [V0, V1], ids=["v0", "v1"])
def test_no_front_end_adds_nothing(config: SchedulerConfig) -> None:
    none, free = (
        served(30, 60, 90, 30, outputs=4, users=2, config=config, front_end=front_end)
        for front_end in (None, FrontEnd(entry_s=0.0, token_s=0.0, return_s=0.0))
    )
    assert none.first_token_s.tolist() == free.first_token_s.tolist()
    assert none.last_token_s.tolist() == free.last_token_s.tolist()
