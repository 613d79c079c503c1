"""An engine that is a model of vLLM on an MI300X node; nothing is started and no GPU is touched.

It answers what a real one would: does this configuration start, with which resolved settings, and how fast is
each request served. Everything that comes out is marked as simulated. How good the model is, is shown in
``simulation.calibration.Calibration``.

A knob that the model knows nothing of has no effect here; such knobs are reported, so that no reader takes
"no difference" out of a row where there could not be any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from sweeper import knobs
from sweeper.engines import Cancelled
from sweeper.errors import EngineError, Stopped
from sweeper.metrics import RequestRecords
from sweeper.models import fit
from sweeper.records import (
    FailureClass,
    Placement,
    Provenance,
    Scalar,
    TrialSpec,
    content_key,
)
from sweeper.records.plurals import amount
from sweeper.simulation.building import costs_of
from sweeper.simulation.calibration import Calibration
from sweeper.simulation.costs import CostModel, Step
from sweeper.simulation.device import Device, partition_of
from sweeper.simulation.front_end import FrontEnd
from sweeper.simulation.kv_cache import KvCache
from sweeper.simulation.rules import NEWEST, NEWEST_V0, rules_of, v0_rules_of
from sweeper.simulation.scheduler import SchedulerConfig, simulate
from sweeper.simulation.settings import (
    accelerator_of,
    built_of,
    has_async_output,
    ignored_knobs,
    resolve,
    streams_steps,
)
from sweeper.simulation.stacks import parameters_of
from sweeper.workload.drawing import Ints
from sweeper.workload.requests import Workload

_NOT_MODELLED: Mapping[str, str] = {
    "pipeline_parallel_size": "pipelines",
    "prefill_context_parallel_size": "prompts that several devices share",
    "decode_context_parallel_size": "KV caches that several devices share",
}
"""Sizes that a trial may have and the model has no speed for, beyond 1."""


@dataclass(frozen=True, kw_only=True)
class Served:
    """One run on a simulated server.

    Attributes:
        records: What the client saw.
        prefix_queries: Prompt tokens looked up in the prefix cache.
        prefix_hits: Of those, found.
        preemptions: Sequences that lost their blocks.
        kv_cache_usage: Largest part of the KV blocks in use, 0 to 1.
    """

    records: RequestRecords
    prefix_queries: int
    prefix_hits: int
    preemptions: int
    kv_cache_usage: float


class SimulatedEngine:
    """Starts simulated servers."""

    def start(
        self, spec: TrialSpec, placement: Placement, *, restart: int, cancelled: Cancelled
    ) -> SimulatedServer:
        """Resolve the configuration, check that it would start, and return a server with an empty cache.

        Args:
            spec: What to serve. ``spec.calibration`` replaces parameters of the model by name.
            placement: Its partition mode says what a device can do; no device is used.
            restart: Draws the noise of this start, where the calibration has any.
            cancelled: Looked at once.

        Raises:
            EngineError: The release refuses the combination, it does not fit the devices' memory, the model
                cannot represent it, or it was cancelled.
            ConfigError: ``spec.calibration`` names an unknown parameter.
        """
        if cancelled():
            raise Stopped
        calibration = parameters_of(spec)
        settings = resolve(spec)
        _refuse(spec, placement, settings)
        costs = _costs(spec, placement, settings, calibration)
        found = _fitted(spec, costs.device, settings)
        settings = {**settings, knobs.LONGEST: found.max_model_len}
        return SimulatedServer(
            spec, settings=settings, costs=costs, blocks=found.plain_blocks, restart=restart
        )


class SimulatedServer:
    """One start of the model. Its prefix cache lasts from run to run and ends with it.

    Attributes:
        base_url: Empty; there is nothing to connect to.
        api_key: Empty.
        provenance: Always simulated.
        start_s: Seconds that a real start is modelled to take; none of them are spent.
        command: Empty; nothing was run.
        effective: Resolved configuration, ``num_gpu_blocks``, and under ``not_modelled`` the ignored knobs.
        versions: Release modelled, and marked as such.
        log_path: None.
        ignored_knobs: Knobs of the assignment that cannot change this server's numbers.
        block_tokens: Tokens in one KV block.
    """

    def __init__(
        self,
        spec: TrialSpec,
        *,
        settings: Mapping[str, Scalar],
        costs: CostModel,
        blocks: int,
        restart: int,
    ) -> None:
        calibration = costs.calibration
        self.base_url = ""
        self.api_key = ""
        self.provenance = Provenance.SIMULATED
        self.start_s = calibration.boot_s + costs.weight_bytes / calibration.load_bytes_per_s
        self.command: tuple[str, ...] = ()
        self.versions: Mapping[str, str] = {"vllm": f"{spec.engine.release} (modelled)"}
        self.log_path: str | None = None
        self.ignored_knobs = ignored_knobs(spec)
        self.effective: Mapping[str, Scalar] = {
            **settings,
            "num_gpu_blocks": blocks,
            **({"not_modelled": " ".join(self.ignored_knobs)} if self.ignored_knobs else {}),
        }
        self.block_tokens = int(settings["block_size"])
        self._fingerprint = content_key(["simulated", spec.engine.release, spec.model.name])
        self._replicas = _Replicas(
            settings,
            costs=costs,
            blocks=blocks,
            noise=np.random.default_rng([int(spec.key, 16), restart]),
            release=spec.engine.release,
        )
        self._is_stopped = False

    @property
    def costs(self) -> CostModel:
        """What its steps cost, with the noise of this start."""
        return self._replicas.costs

    def watch(self, listener: Callable[[Step, int, int], object] | None) -> None:
        """Call a listener with each step that is asked for, as ``CostModel.watch`` says; None ends that."""
        self._replicas.costs = replace(self._replicas.costs, watch=listener)

    def forget_prefixes(self) -> None:
        """Empty the prefix cache, between two runs."""
        self._replicas.forget()

    def serve(
        self, workload: Workload, *, max_concurrency: int | None = None, front_end: FrontEnd | None = None
    ) -> Served:
        """Serve a workload from start to end; several replicas share it in turn.

        Args:
            workload: What arrives when.
            max_concurrency: Requests under way at once over all replicas; None is unlimited.
            front_end: That each replica is reached through; None is none.

        Raises:
            EngineError: The server was stopped.
        """
        self.check_alive()
        before = self.counters()
        records, usage = self._replicas.serve(workload, max_concurrency=max_concurrency, front_end=front_end)
        after = self.counters()
        return Served(
            records=records,
            prefix_queries=int(after["prefix_cache_queries"] - before["prefix_cache_queries"]),
            prefix_hits=int(after["prefix_cache_hits"] - before["prefix_cache_hits"]),
            preemptions=int(after["preemptions"] - before["preemptions"]),
            kv_cache_usage=usage,
        )

    def sanity(self) -> str:
        """Return a fingerprint of release and model; there is no answer to look at."""
        self.check_alive()
        return self._fingerprint

    def check_alive(self) -> None:
        """Return quietly until it is stopped.

        Raises:
            EngineError: It was stopped.
        """
        if self._is_stopped:
            raise EngineError(
                "simulated engine: got a request after its stop; expected a running one. Start another.",
                failure=FailureClass.CRASH,
            )

    def prove_ours(self) -> None:
        """Do nothing: a model has no process."""

    def pids(self) -> None:
        """Return nothing: a model has no process."""

    def counters(self) -> Mapping[str, float]:
        """Return what was counted since the start; cache queries and hits are in prompt tokens."""
        return self._replicas.counters()

    def stop(self) -> float:
        """End it, at once; safe to call twice."""
        self._is_stopped = True
        return 0.0


class _Replicas:
    """Engines of one server that share its requests, each with a cache of its own."""

    def __init__(
        self,
        settings: Mapping[str, Scalar],
        *,
        costs: CostModel,
        blocks: int,
        noise: np.random.Generator,
        release: str,
    ) -> None:
        self._config = _scheduler_config(settings, is_v1=costs.is_v1, release=release)
        self._caches = [
            KvCache(
                blocks=blocks,
                block_tokens=int(settings["block_size"]),
                keeps_prefixes=bool(settings["enable_prefix_caching"]),
            )
            for _ in range(int(settings["data_parallel_size"]))
        ]
        self._noise = noise
        self.costs = replace(costs, slowdown=_noise_factor(noise, costs.calibration.restart_noise))
        self._peak_blocks = 0

    def forget(self) -> None:
        """Empty the prefix caches."""
        for kv in self._caches:
            kv.forget()

    def serve(
        self, workload: Workload, *, max_concurrency: int | None, front_end: FrontEnd | None
    ) -> tuple[RequestRecords, float]:
        """Return what the client saw of a workload, and the largest part of the KV blocks in use."""
        costs = replace(
            self.costs,
            slowdown=self.costs.slowdown * _noise_factor(self._noise, self.costs.calibration.run_noise),
        )
        parts = len(self._caches)
        served: list[RequestRecords] = []
        for index, kv in enumerate(self._caches):
            kv.peak_blocks = 0
            served.append(
                simulate(
                    workload.part(index=index, parts=parts),
                    config=self._config,
                    costs=costs,
                    kv=kv,
                    max_concurrency=_share(max_concurrency, index=index, parts=parts),
                    front_end=front_end,
                )
            )
        peak_blocks = max(kv.peak_blocks for kv in self._caches)
        self._peak_blocks = max(self._peak_blocks, peak_blocks)
        shares = [workload.share(index=index, parts=parts) for index in range(parts)]
        records = _interleaved(served, shares=shares)
        return records, peak_blocks / self._caches[0].blocks

    def counters(self) -> Mapping[str, float]:
        """Return what was counted since the start, over all replicas."""
        return {
            "prefix_cache_queries": float(sum(kv.prefix_queries for kv in self._caches)),
            "prefix_cache_hits": float(sum(kv.prefix_hits for kv in self._caches)),
            "preemptions": float(sum(kv.preemptions for kv in self._caches)),
            "kv_cache_usage_peak": self._peak_blocks / self._caches[0].blocks,
        }


def _conflicts(spec: TrialSpec, assignment: Mapping[str, Scalar]) -> list[knobs.Refusal]:
    return list(
        knobs.check_conflicts(
            assignment, release=spec.engine.release, engine="simulated", accelerator=accelerator_of(spec)
        )
    )


def _refuse(spec: TrialSpec, placement: Placement, settings: Mapping[str, Scalar]) -> None:
    """Refuse what the release refuses at its start, and what the model cannot represent."""
    # Defaults take part: chunked prefill that was not asked for is in the way of multi-step all the same.
    resolved = {**settings, **spec.assignment}
    conflicts = _conflicts(spec, resolved)
    if conflicts:
        # What is asked for itself and stands against a build that is no release was let pass by the plan.
        let_pass = [refusal for refusal in _conflicts(spec, spec.assignment) if refusal.is_fact]
        conflicts = [refusal for refusal in conflicts if refusal not in let_pass]
    if conflicts:
        raise EngineError(f"simulated engine: {conflicts[0].message}", failure=FailureClass.BAD_ARGUMENT)
    for knob, what in _NOT_MODELLED.items():
        if resolved.get(knob, 1) != 1:
            raise EngineError(
                f"simulated engine: {knob} is {resolved[knob]}; expected 1, since {what} are not modelled. "
                "Use tensor or data parallelism, or measure.",
                failure=FailureClass.NOT_MODELLED,
            )
    if settings["dtype"] not in ("bfloat16", "float16", "half"):
        raise EngineError(
            f"simulated engine: dtype is {settings['dtype']}; expected bfloat16 or float16, the only ones "
            "whose speed is modelled. Use one of them, or measure.",
            failure=FailureClass.NOT_MODELLED,
        )
    uneven = [
        heads for heads in fit.head_counts(built_of(spec)) if heads % int(settings["tensor_parallel_size"])
    ]
    if uneven:
        raise EngineError(
            f"simulated engine: tensor_parallel_size is {settings['tensor_parallel_size']}; expected a "
            f"divisor of the model's {uneven[0]} attention heads. Choose one.",
            failure=FailureClass.BAD_ARGUMENT,
        )
    wanted = int(settings["tensor_parallel_size"]) * int(settings["data_parallel_size"])
    if len(placement.devices) < wanted:
        raise EngineError(
            f"simulated engine: the placement has {amount(len(placement.devices), 'device')}; expected "
            f"tensor_parallel_size x data_parallel_size = {wanted}. Ask for more devices or lower them.",
            failure=FailureClass.BAD_ARGUMENT,
        )


def _costs(
    spec: TrialSpec, placement: Placement, settings: Mapping[str, Scalar], calibration: Calibration
) -> CostModel:
    device = partition_of(placement.partition_mode, device=spec.modelled_device)
    devices = int(settings["tensor_parallel_size"])
    return costs_of(spec, settings, device=device, devices=devices, calibration=calibration)


def _fitted(spec: TrialSpec, device: Device, settings: Mapping[str, Scalar]) -> fit.Fit:
    """Return how weights, working memory and KV cache share a device's memory.

    Raises:
        EngineError: Not even one sequence of the maximum length has room.

    Source:
        vLLM sizes its cache so, from a profiling run (Worker.determine_num_available_blocks); ``fit`` stands
        for that run.
    """
    found = fit.fit(
        spec.model,
        settings,
        release=spec.engine.release,
        device_memory_gib=device.memory_bytes / fit.GIB,
        accelerator=accelerator_of(spec),
    )
    if not found.is_feasible:
        raise EngineError(
            f"simulated engine: does not fit a device of {device.name}: {found}. Lower max_model_len, "
            "max_num_seqs or max_num_batched_tokens, or raise tensor_parallel_size.",
            failure=FailureClass.OUT_OF_MEMORY,
        )
    return found


def _scheduler_config(settings: Mapping[str, Scalar], *, is_v1: bool, release: str) -> SchedulerConfig:
    steps = int(settings.get("num_scheduler_steps", 1))
    return SchedulerConfig(
        is_v1=is_v1,
        max_num_seqs=int(settings["max_num_seqs"]),
        max_num_batched_tokens=int(settings["max_num_batched_tokens"]),
        max_model_len=int(settings["max_model_len"]),
        chunked_prefill=bool(settings["enable_chunked_prefill"]),
        scheduler_steps=steps,
        long_prefill_tokens=int(settings.get("long_prefill_token_threshold", 0)),
        rules=rules_of(release) if is_v1 else NEWEST,
        async_output=not is_v1 and has_async_output(settings, release=release),
        streams_steps=not is_v1 and streams_steps(settings, release=release),
        v0_rules=NEWEST_V0 if is_v1 else v0_rules_of(release, scheduler_steps=steps),
    )


def _noise_factor(rng: np.random.Generator, sigma: float) -> float:
    return float(np.exp(rng.normal(0.0, sigma)))


def _share(whole: int | None, *, index: int, parts: int) -> int | None:
    """Divide places among replicas, the first ones getting the rest; at least 1 each."""
    if whole is None:
        return None
    return max(1, whole // parts + (index < whole % parts))


def _interleaved(parts: list[RequestRecords], *, shares: list[Ints]) -> RequestRecords:
    """Put the requests of several replicas back in the order in which they were dealt out."""
    if len(parts) == 1:
        return parts[0]
    back = np.argsort(np.concatenate(shares))
    return RequestRecords(
        arrival_s=np.concatenate([part.arrival_s for part in parts])[back],
        first_token_s=np.concatenate([part.first_token_s for part in parts])[back],
        last_token_s=np.concatenate([part.last_token_s for part in parts])[back],
        input_tokens=np.concatenate([part.input_tokens for part in parts])[back],
        output_tokens=np.concatenate([part.output_tokens for part in parts])[back],
        inter_token_s=np.concatenate([part.inter_token_s for part in parts]),
    )
