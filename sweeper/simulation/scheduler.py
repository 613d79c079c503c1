"""Which requests enter which step: a discrete-event model of vLLM's schedulers.

Time moves from step to step. Before each, requests that have arrived join the queue; the scheduler picks; the
step takes what ``costs`` says; then tokens go out. Three kinds of step:

*prompt step* (V0 without chunked prefill): waiting prompts that fit are computed, whole, and nothing decodes.
*decode group* (V0 without chunked prefill): one or ``scheduler_steps`` steps in a row. New requests wait
    for its end, and finished sequences keep their place until then. Offline its tokens come together; a
    server with ``async_output`` sends each step's, or with ``streams_steps`` off an answer's last ones at
    their step. With ``async_output`` a sequence that ends with a group keeps its place for the next one too.
*mixed step* (V0 with chunked prefill, V1): a budget of tokens is given to running sequences, decodes
    included, and what is left to waiting prompts, cut where ``chunked_prefill`` allows it. With several
    ``scheduler_steps`` it is the first of a group, and cuts none.

When KV blocks run out, the last sequence to have been admitted gives up its blocks and later computes its
prompt and answer again, as both of vLLM's schedulers do by default.

Runs of steps in which nothing can join or leave are computed at once; the times are the same.

Left out: V1's asynchronous scheduling, in which each step is planned before the one before it is answered,
swapping, priorities, beam search, speculative decoding, pipeline stages, and the time that the
network adds. How decisions compare with vLLM's own: docs/scheduler.md.
"""

from __future__ import annotations

from sweeper.metrics import RequestRecords
from sweeper.simulation.costs import CostModel
from sweeper.simulation.front_end import FrontEnd
from sweeper.simulation.kv_cache import KvCache
from sweeper.simulation.run import SchedulerConfig, Watch
from sweeper.simulation.v0 import V0Run
from sweeper.simulation.v1 import V1Run
from sweeper.workload.requests import Workload

__all__ = ["SchedulerConfig", "Watch", "simulate"]


def simulate(
    workload: Workload,
    *,
    config: SchedulerConfig,
    costs: CostModel,
    kv: KvCache,
    max_concurrency: int | None = None,
    watch: Watch | None = None,
    front_end: FrontEnd | None = None,
) -> RequestRecords:
    """Serve a workload on one engine.

    Args:
        workload: What arrives when.
        config: How it is scheduled.
        costs: How long steps take.
        kv: The engine's cache; it is changed, and what it remembers serves the next run.
        max_concurrency: Requests that the client has under way at once; None is unlimited. A request that
            waits for its turn counts as sent only then, as in vLLM's benchmark.
        watch: Is told every decision.
        front_end: Of an online server; None is none, as in vLLM's offline benchmarks.

    Returns:
        What the client saw, in the order of the workload. Requests longer than ``max_model_len`` failed.
    """
    kind = V1Run if config.is_v1 else V0Run
    run = kind(
        workload,
        config=config,
        costs=costs,
        kv=kv,
        max_concurrency=max_concurrency,
        watch=watch,
        front_end=front_end,
    )
    return run.finish()
