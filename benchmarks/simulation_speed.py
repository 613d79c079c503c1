"""What the model of vLLM costs: a search runs it thousands of times.

Two questions, on one core and after the program has started (imports are not counted):

    python benchmarks/simulation_speed.py [case] [growth]

* ``case``: a full case of "Serving LLMs on AMD MI300X": 5 series, 3 request rates, 1000 prompts each.
* ``growth``: one run at saturation with more prompts, more sequences at a time, and more output tokens.

Times are of the process (its own CPU seconds), so that other programs on the machine lengthen them less than
they lengthen wall time. Each is the shortest of three, because everything else only adds to it. Memory is the
most that Python and NumPy held at a time in one more run, beyond what they held before it.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable, Mapping
from functools import partial

from sweeper import config
from sweeper.engines.simulated import SimulatedEngine, SimulatedServer
from sweeper.records import EngineSpec, LoadPoint, Placement, Platform, Scalar, TrialSpec
from sweeper.workload.requests import make_workload

_ROUNDS = 3
_RATES_PER_S = (16.0, 32.0, 1000.0)
_CASE: Mapping[str, Mapping[str, Scalar]] = {
    "default": {},
    "no chunked prefill": {"enable_chunked_prefill": False},
    "5 steps": {"enable_chunked_prefill": False, "num_scheduler_steps": 5},
    "10 steps": {"enable_chunked_prefill": False, "num_scheduler_steps": 10},
    "15 steps": {"enable_chunked_prefill": False, "num_scheduler_steps": 15},
}
"""Case 2, the series of which differ most in how many steps they take."""

_RELEASES = {"V0 (0.6.2)": "0.6.2", "V1 (0.32.0)": "0.32.0"}
_GPUS = Placement(node="modelled", devices=(0, 1, 2, 3), parents=(0, 1, 2, 3), partition_mode="SPX")


def main() -> None:
    """Answer the questions that are named, or both."""
    questions = {"case": _case, "growth": _growth}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("questions", nargs="*", help=f"of {', '.join(questions)}; both unless named")
    for name in parser.parse_args().questions or list(questions):
        questions[name]()


def _case() -> None:
    """Time a case, series by series."""
    whole_s = 0.0
    for name, knobs in _CASE.items():
        took_s = _shortest_s(partial(_serve, knobs, rates_per_s=_RATES_PER_S))
        whole_s += took_s
        print(f"{name:20} {took_s:6.2f} s for 3 rates x 1000 prompts", flush=True)
    print(f"{'the case':20} {whole_s:6.2f} s", flush=True)


def _growth() -> None:
    """Time one run at saturation, with each of its two sizes grown."""
    for title, release in _RELEASES.items():
        for prompts in (1000, 2000, 5000, 10_000):
            took_s = _shortest_s(partial(_serve, {}, prompts=prompts, release=release))
            print(f"{title}: {prompts:6} prompts, 256 sequences {took_s:6.2f} s", flush=True)
        for sequences in (64, 256, 512, 1024):
            # No fewer tokens in a step than sequences: vLLM refuses that.
            knobs = {"max_num_seqs": sequences, "max_num_batched_tokens": 2048}
            took_s = _shortest_s(partial(_serve, knobs, prompts=2000, release=release))
            print(f"{title}:   2000 prompts, {sequences:4} sequences {took_s:6.2f} s", flush=True)
        for tokens in (100, 1000, 10_000):
            work = partial(_serve_long, output_tokens=tokens, release=release)
            took_s, held_mib = _shortest_s(work), _most_mib(work)
            print(
                f"{title}: 1024 sequences, {tokens:6} output tokens {took_s:6.2f} s {held_mib:6.0f} MiB",
                flush=True,
            )


def _shortest_s(work: Callable[[], None]) -> float:
    times_s = []
    for _ in range(_ROUNDS):
        began = time.process_time()
        work()
        times_s.append(time.process_time() - began)
    return min(times_s)


def _most_mib(work: Callable[[], None]) -> float:
    tracemalloc.start()
    work()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most / 2**20


def _serve(
    knobs: Mapping[str, Scalar],
    *,
    rates_per_s: tuple[float | None, ...] = (None,),
    prompts: int = 1000,
    release: str = "0.6.2",
) -> None:
    """Start a simulated server and send it ShareGPT at each rate."""
    server = _started(knobs, release=release)
    for rate in rates_per_s:
        point = LoadPoint(dataset="sharegpt", num_prompts=prompts, request_rate_per_s=rate)
        server.serve(make_workload(point, seed=0))


def _serve_long(*, output_tokens: int, release: str) -> None:
    """Start a simulated server and send it 1,024 requests at once, each with so long an answer."""
    knobs = {"max_num_seqs": 1024, "max_num_batched_tokens": 8192, "enable_chunked_prefill": True}
    point = LoadPoint(dataset="random", num_prompts=1024, input_len=128, output_len=output_tokens)
    _started(knobs, release=release).serve(make_workload(point, seed=0))


def _started(knobs: Mapping[str, Scalar], *, release: str) -> SimulatedServer:
    """Start a simulated server of Llama 3.1 70B on 4 GPUs."""
    asked = {"tensor_parallel_size": 4, "max_num_seqs": 256, **knobs}
    spec = TrialSpec(
        study="speed",
        folder="",
        series=(),
        assignment=asked,
        load_points=(),
        engine=EngineSpec(kind="simulated", release=release, python=None),
        model=_MODEL,
        platform=Platform.SIMULATED,
        devices_wanted=4,
    )
    return SimulatedEngine().start(spec, _GPUS, restart=0, cancelled=lambda: False)


_MODEL = config.settings(
    config.compose_run(["+experiment=case2_sched_steps", "platform=simulated"]), platform=Platform.SIMULATED
).model


if __name__ == "__main__":
    main()
