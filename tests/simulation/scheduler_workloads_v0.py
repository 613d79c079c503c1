"""Workloads on which our model of V0 is held against vLLM's own V0.

    python -m tests.simulation.scheduler_workloads_v0 write WORKLOADS.json
    PYTHON benchmarks/scheduler_decisions_v0.py WHEEL WORKLOADS.json DECISIONS.json.gz
    python -m tests.simulation.scheduler_workloads_v0 compare DECISIONS.json.gz

``together`` at the end takes the workloads of several scheduler steps with chunked prefill instead, which
releases before 0.6.3 refuse.

WHEEL is the folder into which the wheel of a release was unpacked, PYTHON that of an environment with torch.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from sweeper.simulation.scheduler import SchedulerConfig
from sweeper.workload.requests import Workload
from tests.simulation.scheduler_workloads import (
    Case,
    conversations,
    drawn,
    main,
    prefixes,
    repeats,
)

WHOLE = SchedulerConfig(
    is_v1=False,
    max_num_seqs=64,
    max_num_batched_tokens=16384,
    max_model_len=16384,
    chunked_prefill=False,
    async_output=True,
)
CHUNKED = replace(WHOLE, chunked_prefill=True, max_num_batched_tokens=512)


def cases() -> list[Case]:
    """Return the workloads; prefixes are kept where the name says so."""
    plain = [
        Case(name="saturated", workload=drawn(200, seed=1), config=WHOLE),
        Case(
            name="saturated, small budget",
            workload=drawn(200, seed=1),
            config=replace(WHOLE, max_num_batched_tokens=2048, max_model_len=2048),
        ),
        Case(name="trickle", workload=drawn(120, seed=2, over_s=40), config=WHOLE),
        Case(name="bursts", workload=drawn(150, seed=3, over_s=8), config=replace(WHOLE, max_num_seqs=16)),
        Case(
            name="answers read at once",
            workload=drawn(120, seed=3, over_s=8),
            config=replace(WHOLE, max_num_seqs=16, async_output=False),
        ),
        Case(name="preempting", workload=drawn(80, seed=4, output=(100, 300)), config=WHOLE, blocks=500),
        Case(
            name="preempting, answers read at once",
            workload=drawn(80, seed=4, output=(100, 300)),
            config=replace(WHOLE, async_output=False),
            blocks=500,
        ),
        Case(
            name="preempting, few sequences",
            workload=drawn(60, seed=11, prompt=(100, 200), output=(100, 300)),
            config=WHOLE,
            blocks=60,
        ),
        Case(name="long prompts", workload=drawn(30, seed=7, prompt=(1000, 9000)), config=WHOLE, blocks=4000),
        Case(
            name="long prompts, small cache",
            workload=drawn(40, seed=8, prompt=(500, 6000), output=(50, 400), over_s=6),
            config=WHOLE,
            blocks=900,
        ),
        Case(
            name="few sequences",
            workload=drawn(60, seed=12, over_s=20, output=(5, 80)),
            config=replace(WHOLE, max_num_seqs=3),
        ),
        Case(
            name="decode heavy", workload=drawn(100, seed=14, prompt=(5, 40), output=(200, 900)), config=WHOLE
        ),
        Case(
            name="several steps, saturated",
            workload=drawn(200, seed=1),
            config=replace(WHOLE, scheduler_steps=10),
        ),
        Case(
            name="several steps, trickle",
            workload=drawn(120, seed=2, over_s=40),
            config=replace(WHOLE, scheduler_steps=5),
        ),
        Case(
            name="several steps, bursts",
            workload=drawn(150, seed=3, over_s=8),
            config=replace(WHOLE, scheduler_steps=15, max_num_seqs=16),
        ),
        Case(
            name="several steps, answers read at once",
            workload=drawn(150, seed=3, over_s=8),
            config=replace(WHOLE, scheduler_steps=8, max_num_seqs=16, async_output=False),
        ),
        Case(
            name="several steps, preempting",
            workload=drawn(80, seed=4, output=(100, 300)),
            config=replace(WHOLE, scheduler_steps=10),
            blocks=500,
        ),
        Case(
            name="several steps, preempting, small blocks",
            workload=drawn(80, seed=24, output=(1, 300), over_s=5),
            config=replace(WHOLE, scheduler_steps=20),
            blocks=900,
            block_tokens=8,
        ),
        Case(
            name="several steps, preempting, few sequences",
            workload=drawn(60, seed=0, prompt=(100, 200), output=(100, 300)),
            config=replace(WHOLE, scheduler_steps=2),
            blocks=60,
        ),
        Case(name="chunked, saturated", workload=drawn(200, seed=1), config=CHUNKED),
        Case(name="chunked, trickle", workload=drawn(120, seed=2, over_s=40), config=CHUNKED),
        Case(
            name="chunked, small budget",
            workload=drawn(60, seed=11, prompt=(10, 300), output=(5, 80)),
            config=replace(CHUNKED, max_num_batched_tokens=64, max_num_seqs=32),
        ),
        Case(
            name="chunked, preempting",
            workload=drawn(80, seed=4, output=(100, 300)),
            config=CHUNKED,
            blocks=500,
        ),
        Case(
            name="chunked, long prompts, small cache",
            workload=drawn(40, seed=8, prompt=(500, 6000), output=(50, 400), over_s=6),
            config=CHUNKED,
            blocks=900,
        ),
        Case(
            name="chunked, all at once",
            workload=repeats(150, of=40, seed=15, prompt=(10, 3000), output=(1, 250), over_s=10),
            config=replace(CHUNKED, max_num_batched_tokens=704, max_num_seqs=24),
            blocks=450,
            block_tokens=32,
        ),
        Case(
            name="chunked, prompts of whole blocks, preempting",
            workload=whole_blocks(drawn(60, seed=100, prompt=(30, 60), output=(50, 300))),
            config=replace(CHUNKED, max_num_batched_tokens=32, max_num_seqs=32),
            blocks=120,
        ),
    ]
    kept = [
        Case(name="kept, shared prefixes", workload=prefixes(160, of=8), config=WHOLE),
        Case(
            name="kept, shared prefixes, small cache", workload=prefixes(160, of=8), config=WHOLE, blocks=300
        ),
        Case(name="kept, equal prompts", workload=repeats(120, of=10, seed=6), config=WHOLE, blocks=400),
        Case(
            name="kept, conversations",
            workload=conversations(),
            config=replace(WHOLE, max_num_seqs=8),
        ),
        Case(
            name="kept, preempting", workload=drawn(80, seed=4, output=(100, 300)), config=WHOLE, blocks=500
        ),
        Case(
            name="kept, several steps, shared prefixes",
            workload=prefixes(160, of=8),
            config=replace(WHOLE, scheduler_steps=10),
        ),
        Case(
            name="kept, several steps, preempting",
            workload=drawn(80, seed=4, output=(100, 300)),
            config=replace(WHOLE, scheduler_steps=10),
            blocks=500,
        ),
        Case(
            name="kept, several steps, conversations",
            workload=conversations(),
            config=replace(WHOLE, scheduler_steps=8, max_num_seqs=8),
        ),
        Case(name="kept, chunked, shared prefixes", workload=prefixes(160, of=8), config=CHUNKED),
        Case(
            name="kept, chunked, conversations",
            workload=conversations(),
            config=replace(CHUNKED, max_num_seqs=8),
        ),
        Case(
            name="kept, chunked, long equal prompts",
            workload=repeats(40, of=4, seed=17, prompt=(1000, 3000), output=(5, 40), over_s=2),
            config=CHUNKED,
        ),
        Case(
            name="kept, prompts of whole blocks",
            workload=whole_blocks(repeats(80, of=8, seed=18, prompt=(2, 30), output=(5, 60), over_s=4)),
            config=WHOLE,
        ),
    ]
    return [*(replace(case, keeps_prefixes=False) for case in plain), *kept]


def together() -> list[Case]:
    """Return workloads of several steps with chunked prefill; prefixes are kept where the name says so."""
    several = replace(CHUNKED, max_num_batched_tokens=2048, max_model_len=2048, scheduler_steps=10)
    plain = [
        Case(
            name="bursts",
            workload=drawn(100, seed=3, over_s=8),
            config=replace(several, scheduler_steps=8, max_num_seqs=16),
        ),
        Case(name="saturated", workload=drawn(80, seed=1), config=replace(several, max_num_seqs=32)),
        Case(name="preempting", workload=drawn(60, seed=4, output=(100, 300)), config=several, blocks=500),
        Case(
            name="preempting, four steps",
            workload=drawn(80, seed=31, prompt=(10, 300), output=(1, 400), over_s=4),
            config=replace(several, scheduler_steps=4),
            blocks=200,
        ),
        Case(
            name="preempting, few sequences",
            workload=drawn(60, seed=0, prompt=(100, 200), output=(100, 300)),
            config=replace(several, scheduler_steps=2),
            blocks=90,
        ),
        Case(
            name="preempting, small blocks",
            workload=drawn(80, seed=32, output=(1, 300), over_s=5),
            config=replace(several, scheduler_steps=15),
            blocks=400,
            block_tokens=8,
        ),
        Case(
            name="preempting, answers read at once",
            workload=drawn(60, seed=33, output=(50, 300)),
            config=replace(several, scheduler_steps=8, async_output=False),
            blocks=150,
        ),
        Case(
            name="preempting, small budget",
            workload=drawn(80, seed=34, prompt=(10, 250), output=(1, 200), over_s=3),
            config=replace(several, max_num_batched_tokens=256, max_num_seqs=32),
            blocks=120,
        ),
        Case(
            name="short answers, small cache",
            workload=drawn(150, seed=35, prompt=(10, 400), output=(1, 25), over_s=2),
            config=replace(several, scheduler_steps=15),
            blocks=100,
        ),
        Case(
            name="prompts of whole blocks, preempting",
            workload=whole_blocks(drawn(60, seed=36, prompt=(1, 20), output=(50, 300))),
            config=several,
            blocks=120,
        ),
    ]
    kept = [
        Case(name="kept, shared prefixes", workload=prefixes(160, of=8), config=several),
        Case(
            name="kept, preempting", workload=drawn(80, seed=4, output=(100, 300)), config=several, blocks=500
        ),
        Case(
            name="kept, conversations",
            workload=conversations(),
            config=replace(several, scheduler_steps=15, max_num_seqs=8),
        ),
        Case(
            name="kept, equal prompts, four steps",
            workload=repeats(100, of=10, seed=37, over_s=4),
            config=replace(several, scheduler_steps=4, max_num_batched_tokens=1024),
            blocks=300,
        ),
    ]
    return [*(replace(case, keeps_prefixes=False) for case in plain), *kept]


def whole_blocks(workload: Workload) -> Workload:
    """Let prompts have as many blocks of 16 tokens as they had tokens."""
    return replace(workload, input_tokens=workload.input_tokens * 16)


if __name__ == "__main__":
    main(together() if "together" in sys.argv[3:] else cases())
