"""Workloads on which our scheduler is held against vLLM's own, and what ours decides on them.

    python -m tests.simulation.scheduler_workloads write WORKLOADS.json
    PYTHON benchmarks/scheduler_decisions.py WORKLOADS.json DECISIONS.json.gz
    python -m tests.simulation.scheduler_workloads compare DECISIONS.json.gz

PYTHON is that of an environment with vLLM. Steps take what a formula of their tokens says, in powers of two,
so that no rounding comes between the two.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, repeat, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeper.records import LoadPoint, ModelShape
from sweeper.simulation.calibration import Calibration
from sweeper.simulation.costs import CostModel, Step
from sweeper.simulation.device import MI300X
from sweeper.simulation.kv_cache import KvCache
from sweeper.simulation.rules import V0Rules, V1Rules, rules_of, v0_rules_of
from sweeper.simulation.scheduler import SchedulerConfig, simulate
from sweeper.workload.requests import Prompt, Workload, make_workload

START_S = 2.0**-7
TOKEN_S = 2.0**-16

TINY = ModelShape(
    layers=1, hidden=1, intermediate=1, heads=1, kv_heads=1, head_dim=1, vocab=1, max_positions=1000
)
V1 = SchedulerConfig(
    is_v1=True, max_num_seqs=64, max_num_batched_tokens=2048, max_model_len=16384, chunked_prefill=True
)


@dataclass(frozen=True, kw_only=True)
class Clock(CostModel):
    """Steps that take a time for each token and one to start."""

    def groups_s(self, step: Step, *, steps: int, groups: int) -> NDArray[np.float64]:
        return np.full(groups, steps * self.step_s(step))

    def step_s(self, step: Step) -> float:
        return START_S + TOKEN_S * step.tokens


CLOCK = Clock(device=MI300X, devices=1, gpus=1, built=TINY.architecture, calibration=Calibration())


@dataclass(frozen=True, kw_only=True)
class Case:
    """One workload and the scheduler that serves it."""

    name: str
    workload: Workload
    config: SchedulerConfig = V1
    blocks: int = 20_000
    block_tokens: int = 16
    keeps_prefixes: bool = True


@dataclass(frozen=True)
class Decided:
    """What was decided for one step: tokens by request, who lost its blocks, and what was found of whom."""

    tokens: tuple[tuple[int, int], ...]
    preempted: tuple[int, ...]
    found: tuple[tuple[int, int], ...]


class Book:
    """Takes down what our scheduler decides."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, Decided]] = []
        self._preempted: list[int] = []
        self._found: list[tuple[int, int]] = []

    def admitted(self, index: int, *, found_tokens: int) -> None:
        self._found.append((index, found_tokens))

    def preempted(self, index: int) -> None:
        self._preempted.append(index)

    def computed(self, tokens: dict[int, int], *, steps: int) -> None:
        same = tuple(sorted(tokens.items()))
        first = Decided(same, tuple(sorted(self._preempted)), tuple(sorted(self._found)))
        self._preempted, self._found = [], []
        self.steps.append((1, first))
        if steps > 1:
            self.steps.append((steps - 1, Decided(same, (), ())))


def read(path: Path) -> dict[str, Any]:
    """Return the decisions that a file holds."""
    decisions: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
    return decisions


def ours(case: Case, *, rules: V1Rules | V0Rules) -> list[tuple[int, Decided]]:
    """Return our decisions: how many times in a row, and what."""
    book = Book()
    kv = KvCache(blocks=case.blocks, block_tokens=case.block_tokens, keeps_prefixes=case.keeps_prefixes)
    simulate(case.workload, config=_ruled(case.config, rules), costs=CLOCK, kv=kv, watch=book)
    assert kv.used_blocks == 0
    return book.steps


def _rules(case: Case, release: str) -> V1Rules | V0Rules:
    if case.config.is_v1:
        return rules_of(release)
    return v0_rules_of(release, scheduler_steps=case.config.scheduler_steps)


def _ruled(config: SchedulerConfig, rules: V1Rules | V0Rules) -> SchedulerConfig:
    return replace(config, rules=rules) if isinstance(rules, V1Rules) else replace(config, v0_rules=rules)


def theirs(steps: list[Any]) -> list[tuple[int, Decided]]:
    """Return vLLM's decisions as they were written down."""
    return [
        (times, Decided(tuple(sorted(map(tuple, tokens))), tuple(preempted), tuple(map(tuple, found))))
        for times, tokens, preempted, found in steps
    ]


@dataclass(frozen=True, kw_only=True)
class Compared:
    """How many steps of a workload there were, how many of them alike, and where the first other one is."""

    name: str
    steps: int
    alike: int
    preemptions: int
    found_tokens: int
    first_other: str = ""


def compared(decisions: dict[str, Any], cases: Sequence[Case]) -> Iterator[Compared]:
    """Hold our decisions against those of a file, step by step."""
    release = decisions["release"]
    known = {workload["name"]: workload["steps"] for workload in decisions["workloads"]}
    for case in cases:
        yield _compared(case, theirs(known[case.name]), ours(case, rules=_rules(case, release)))


def _compared(case: Case, real: list[tuple[int, Decided]], modelled: list[tuple[int, Decided]]) -> Compared:
    steps = alike = 0
    first = ""
    for one, other in zip_longest(_one_by_one(real), _one_by_one(modelled)):
        steps += 1
        if one == other:
            alike += 1
        elif not first:
            first = f"step {steps}: vLLM {one}, ours {other}"
    return Compared(
        name=case.name,
        steps=steps,
        alike=alike,
        preemptions=sum(len(decided.preempted) for _, decided in real),
        found_tokens=sum(tokens for _, decided in real for _, tokens in decided.found),
        first_other=first,
    )


def _one_by_one(steps: list[tuple[int, Decided]]) -> Iterator[Decided]:
    return chain.from_iterable(repeat(decided, times) for times, decided in steps)


def cases() -> list[Case]:
    """Return the workloads."""
    return [
        Case(name="saturated", workload=drawn(200, seed=1)),
        Case(name="trickle", workload=drawn(120, seed=2, over_s=40)),
        Case(name="bursts", workload=drawn(150, seed=3, over_s=8), config=replace(V1, max_num_seqs=16)),
        Case(name="preempting", workload=drawn(80, seed=4, output=(100, 300)), blocks=500),
        Case(
            name="preempting, prefix caching off",
            workload=drawn(80, seed=5, output=(100, 300)),
            blocks=500,
            keeps_prefixes=False,
        ),
        Case(name="shared prefixes", workload=prefixes(160, of=8), config=replace(V1, max_num_seqs=32)),
        Case(name="shared prefixes, small cache", workload=prefixes(160, of=8), blocks=300),
        Case(name="equal prompts", workload=repeats(120, of=10, seed=6), blocks=400),
        Case(name="long prompts", workload=drawn(30, seed=7, prompt=(1000, 9000)), blocks=4000),
        Case(
            name="long prompts, small cache",
            workload=drawn(40, seed=8, prompt=(500, 6000), output=(50, 400), over_s=6),
            config=replace(V1, max_num_batched_tokens=512),
            blocks=900,
        ),
        Case(
            name="long prefill threshold",
            workload=drawn(80, seed=9, prompt=(20, 4000), over_s=10),
            config=replace(V1, long_prefill_tokens=200),
            blocks=1500,
        ),
        Case(
            name="long prefill threshold, one at a time",
            workload=drawn(40, seed=10, prompt=(100, 3000), output=(2, 60), over_s=60),
            config=replace(V1, long_prefill_tokens=128),
        ),
        Case(
            name="small budget",
            workload=drawn(60, seed=11, prompt=(10, 300), output=(5, 80)),
            config=replace(V1, max_num_batched_tokens=64, max_num_seqs=32),
        ),
        Case(
            name="few sequences",
            workload=drawn(60, seed=12, over_s=20, output=(5, 80)),
            config=replace(V1, max_num_seqs=3),
        ),
        Case(
            name="without chunked prefill",
            workload=drawn(120, seed=13, prompt=(20, 1800), over_s=4),
            config=replace(V1, chunked_prefill=False, max_model_len=2048),
            blocks=1200,
        ),
        Case(name="decode heavy", workload=drawn(100, seed=14, prompt=(5, 40), output=(200, 900))),
        Case(name="conversations", workload=conversations(), config=replace(V1, max_num_seqs=8)),
        Case(name="conversations, small cache", workload=conversations(), blocks=120),
        Case(
            name="all at once",
            workload=repeats(150, of=40, seed=15, prompt=(10, 3000), output=(1, 250), over_s=10),
            config=replace(V1, max_num_batched_tokens=700, max_num_seqs=24, long_prefill_tokens=300),
            blocks=450,
            block_tokens=32,
        ),
    ]


def drawn(
    count: int,
    *,
    seed: int,
    prompt: tuple[int, int] = (10, 600),
    output: tuple[int, int] = (1, 200),
    over_s: float = 0.0,
) -> Workload:
    """Draw requests evenly between bounds."""
    rng = np.random.default_rng(seed)
    return Workload(
        arrival_s=np.sort(np.floor(rng.random(count) * over_s * 2**16) / 2**16),
        input_tokens=rng.integers(*prompt, count, endpoint=True),
        output_tokens=rng.integers(*output, count, endpoint=True),
        prompt_ids=np.arange(count, dtype=np.int64),
    )


def repeats(
    count: int,
    *,
    of: int,
    seed: int,
    prompt: tuple[int, int] = (10, 600),
    output: tuple[int, int] = (1, 200),
    over_s: float = 0.0,
) -> Workload:
    """Draw requests of which many send the same prompt."""
    each = drawn(count, seed=seed, prompt=prompt, output=output, over_s=over_s)
    which = np.random.default_rng(seed + 1000).integers(0, of, count)
    return replace(each, input_tokens=each.input_tokens[which], prompt_ids=which)


def prefixes(count: int, *, of: int) -> Workload:
    """Draw requests that begin with one of some prefixes."""
    point = LoadPoint(
        dataset="prefix_repetition",
        num_prompts=count,
        output_len=60,
        options=(("num_prefixes", of), ("prefix_len", 250), ("suffix_len", 90)),
    )
    return make_workload(point, seed=0)


def conversations() -> Workload:
    """Draw conversations that all begin with the same words."""
    point = LoadPoint(
        dataset="conversations",
        num_prompts=90,
        input_len=80,
        output_len=60,
        range_ratio=0.5,
        options=(("turns", 5), ("pause_s", 0.5), ("system_len", 70)),
    )
    return make_workload(point, seed=3)


def as_json(case: Case) -> dict[str, Any]:
    """Return a workload as the driver of vLLM's scheduler reads it."""
    config, workload = case.config, case.workload
    numbers: dict[int, int] = {}

    def numbered(prompt: Prompt) -> list[list[int]]:
        return [[numbers.setdefault(piece, len(numbers) + 1), end] for piece, end in prompt]

    turns = workload.turns
    asked = []
    for index in range(workload.requests):
        answer = -1 - index
        if workload.goes_on(index):
            answer = workload.pieces[index + 1][len(workload.pieces[index])][0]
        asked.append(
            {
                "arrival_s": float(workload.arrival_s[index]),
                "prompt": numbered(workload.prompt(index)),
                "answer": numbered(((answer, 0),))[0][0],
                "output_tokens": int(workload.output_tokens[index]),
                "follows": bool(turns is not None and turns.follows[index]),
                "pause_s": 0.0 if turns is None else float(turns.pause_s[index]),
            }
        )
    return {
        "name": case.name,
        "config": {
            "max_num_seqs": config.max_num_seqs,
            "max_num_batched_tokens": config.max_num_batched_tokens,
            "max_model_len": config.max_model_len,
            "chunked_prefill": config.chunked_prefill,
            "long_prefill_tokens": config.long_prefill_tokens,
            "blocks": case.blocks,
            "block_tokens": case.block_tokens,
            "keeps_prefixes": case.keeps_prefixes,
            "scheduler_steps": config.scheduler_steps,
            "async_output": config.async_output,
        },
        "step": {"start_s": START_S, "token_s": TOKEN_S},
        "requests": asked,
    }


def main(held: Sequence[Case]) -> None:
    """Write workloads, or hold ours against decisions."""
    command, name = sys.argv[1:3]
    if command == "write":
        Path(name).write_text(json.dumps([as_json(case) for case in held]), encoding="utf-8")
        return
    decisions = read(Path(name))
    found = list(compared(decisions, held))
    print(f"vLLM {decisions['release']}: steps, alike, preemptions, tokens found")
    for one in found:
        print(f"{one.name:40} {one.steps:6} {one.alike:6} {one.preemptions:6} {one.found_tokens:8}")
        if one.first_other:
            print(f"    {one.first_other[:400]}")
    print(f"{'all':40} {sum(one.steps for one in found):6} {sum(one.alike for one in found):6}")


if __name__ == "__main__":
    main(cases())
