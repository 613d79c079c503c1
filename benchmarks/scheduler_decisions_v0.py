"""What the engine loop of vLLM's V0 decides, step by step; it imports nothing of the sweeper.

``LLMEngine.step`` of a release is driven as it stands, with its scheduler, block manager and output
processor; in place of the executor stands one that answers each sequence its next token at once. Requests
arrive on a virtual clock, and each step takes what a formula of its tokens says. WHEEL is a folder into which
the release's wheel was unpacked, and PYTHON that of any environment with torch and transformers: compiled
parts, models and all else that decides nothing is left out, and empty modules stand in for it.

    PYTHON benchmarks/scheduler_decisions_v0.py WHEEL WORKLOADS.json DECISIONS.json.gz

Both files are as ``scheduler_decisions.py`` has them. Workloads say two things more: ``scheduler_steps``, and
``async_output``, whether a step's answers are read during the next one, as they are on GPUs with graphs. Of
several steps that are planned at once each is one step, with all sequences that are in the group. A sequence
whose end was not yet read takes part in one more step or group.

As on a GPU that is behind its host, no step of a group is read before the last one is launched. The client
sees a group's answers at its end, and those of a first step that computes prompts at the end of that step.
"""

from __future__ import annotations

import gzip
import heapq
import importlib.abc
import importlib.machinery
import importlib.metadata
import inspect
import json
import os
import sys
import types
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.update(VLLM_LOGGING_LEVEL="ERROR", VLLM_USE_V1="0", VLLM_NO_USAGE_STATS="1")

import torch  # noqa: F401
import transformers  # noqa: F401

_LEFT_OUT = (
    *("gguf", "outlines", "compressed_tensors", "lmformatenforcer", "xgrammar", "mistral_common"),
    *("partial_json_parser", "prometheus_client", "vllm.triton_utils", "vllm.model_executor", "vllm.worker"),
    *("vllm.attention", "vllm.multimodal", "vllm.transformers_utils.configs"),
    "vllm.transformers_utils.tokenizers",
)
_PIECE_TOKENS = 1 << 20


class _Any(type):
    """A class that has every name that it is asked for."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Any(name, (_Nothing,), {})


class _Nothing(metaclass=_Any):
    """Stands in for any class, function or decorator of a module that is left out."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __call__(self, *given: Any, **_: Any) -> Any:
        return given[0] if given and callable(given[0]) else _Nothing()

    def __class_getitem__(cls, _: Any) -> Any:
        return cls

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Nothing()


class _Module(types.ModuleType):
    __path__ = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Any(name, (_Nothing,), {"__module__": self.__name__})


class _LeftOut(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds an empty module for each that is left out."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if any(fullname == name or fullname.startswith(name + ".") for name in _LEFT_OUT):
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> types.ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: types.ModuleType) -> None: ...


def main() -> None:
    """Decide every workload of a file and write the decisions down."""
    wheel, source, target = (Path(name).resolve() for name in sys.argv[1:])
    sys.path.insert(0, str(wheel))
    sys.meta_path.insert(0, _LeftOut())
    decided = [
        {"name": workload["name"], "steps": list(_together(_Driven(workload).steps()))}
        for workload in json.loads(source.read_text(encoding="utf-8"))
    ]
    release = importlib.metadata.version("vllm")
    text = json.dumps({"release": release, "workloads": decided}, separators=(",", ":"))
    # No time in it, so that equal decisions are equal files.
    target.write_bytes(gzip.compress(text.encode(), mtime=0))


def _together(steps: Iterator[list[Any]]) -> Iterator[list[Any]]:
    """Return steps with equal ones in a row as one, and how many they are in front."""
    last, times = None, 0
    for step in steps:
        if step == last:
            times += 1
            continue
        if last is not None:
            yield [times, *last]
        last, times = step, 1
    if last is not None:
        yield [times, *last]


class _Driven:
    """An engine of vLLM on a virtual clock."""

    def __init__(self, workload: dict[str, Any]) -> None:
        self._requests = workload["requests"]
        self._step = workload["step"]
        self._block_tokens = workload["config"]["block_tokens"]
        self._executor = _Executor(self._requests)
        self._engine = _engine(workload["config"], executor=self._executor)
        self._scheduler = self._engine.scheduler[0]
        self._now_s = 0.0
        self._numbers = 0
        self._groups: dict[int, Any] = {}
        self._coming = [
            (one["arrival_s"], index) for index, one in enumerate(self._requests) if not one["follows"]
        ]
        heapq.heapify(self._coming)

    def steps(self) -> Iterator[list[Any]]:
        """Return what is decided in each step that computes something."""
        cut_off: list[str] = []
        preempt = self._scheduler._preempt

        def watched(group: Any, *given: Any, **named: Any) -> Any:
            cut_off.append(group.request_id)
            return preempt(group, *given, **named)

        self._scheduler._preempt = watched
        lost: list[int] = []
        while self._coming or self._engine.has_unfinished_requests():
            while self._coming and self._coming[0][0] <= self._now_s:
                self._add(heapq.heappop(self._coming)[1])
            cut_off.clear()
            waiting = {group.request_id for group in self._scheduler.waiting}
            if not self._engine.has_unfinished_requests():
                self._now_s = self._coming[0][0]
                continue
            # The answers of the steps before are read while this one runs, but they were there at its start.
            before_s = self._now_s
            self._executor.batch = []
            self._engine.step()
            if not self._executor.batch:
                if not cut_off:
                    # Arrivals alone can change anything.
                    self._now_s = self._coming[0][0]
                continue
            lost = sorted(int(name) for name in cut_off)
            tokens = {int(name): count for name, count, _ in self._executor.batch}
            found = sorted([int(name), cached] for name, _, cached in self._executor.batch if name in waiting)
            yield [sorted([name, count] for name, count in tokens.items()), lost, found]
            self._now_s = before_s + self._step["start_s"] + self._step["token_s"] * sum(tokens.values())
            if not self._executor.is_held_back:
                self._follow()

    def _follow(self) -> None:
        """Send what follows answers that are complete with this step."""
        for index in self._executor.complete:
            if index + 1 < len(self._requests) and self._requests[index + 1]["follows"]:
                ready_s = self._now_s + self._requests[index + 1]["pause_s"]
                heapq.heappush(self._coming, (ready_s, index + 1))
        self._executor.complete.clear()

    def _add(self, index: int) -> None:
        from vllm import inputs
        from vllm.sampling_params import SamplingParams
        from vllm.sequence import Sequence, SequenceGroup

        asked = self._requests[index]
        tokens, begin = [], 0
        for piece, end in asked["prompt"]:
            tokens += [piece * _PIECE_TOKENS + place for place in range(begin, end)]
            begin = end
        made = getattr(inputs, "token_inputs", None)
        prompt = made(tokens) if made else inputs.LLMInputs(prompt_token_ids=tokens, prompt="")
        sequence = Sequence(index, prompt, self._block_tokens)
        params = SamplingParams(max_tokens=asked["output_tokens"], ignore_eos=True, detokenize=False)
        self._scheduler.add_seq_group(
            SequenceGroup(str(index), [sequence], self._now_s, sampling_params=params)
        )


class _Executor:
    """Answers each sequence of a step its next token.

    Attributes:
        batch: Of the last step: request, tokens computed, and tokens found in the prefix cache.
        complete: Requests that have their last token since this was emptied.
        is_held_back: Whether the client sees its answers with those of steps that are planned already.
    """

    def __init__(self, requests: list[dict[str, Any]]) -> None:
        self.batch: list[tuple[str, int, int]] = []
        self.complete: list[int] = []
        self.is_held_back = False
        self._requests = requests
        self._given: dict[int, int] = {}
        self._unread: list[Any] = []

    def execute_model(self, execute_model_req: Any) -> list[Any]:
        """Compute a step, and call back as the model runners of vLLM do."""
        groups = execute_model_req.seq_group_metadata_list
        state = groups[0].state
        callback = execute_model_req.async_callback
        is_first, is_in_group = state.current_step == 0, state.remaining_steps > 1
        self.batch = [self._computed(group, is_first=is_first) for group in groups]
        answers = [self._answer(group) for group in groups]
        if callback is not None:
            callback()
        self.is_held_back = is_in_group and not (is_first and any(group.is_prompt for group in groups))
        if state.num_steps == 1:
            return [answers]
        self._unread.append(answers)
        if is_in_group:
            return [answers]
        unread, self._unread = self._unread, []
        if callback is None:
            return unread
        # As MultiStepModelRunner._final_process_outputs.
        context = callback.keywords["ctx"]
        more = {"is_first_step_output": False}
        taken = inspect.signature(context.append_output).parameters
        for number, one in enumerate(unread[:-1]):
            callback()
            more["is_first_step_output"] = number == 0
            context.append_output(
                outputs=[one],
                seq_group_metadata_list=context.seq_group_metadata_list,
                scheduler_outputs=context.scheduler_outputs,
                is_async=False,
                is_last_step=False,
                **{name: value for name, value in more.items() if name in taken},
            )
        callback()
        return [unread[-1]]

    def stop_remote_worker_execution_loop(self) -> None:
        """Do nothing."""

    def shutdown(self) -> None:
        """Do nothing."""

    def _computed(self, group: Any, *, is_first: bool) -> tuple[str, int, int]:
        """As ModelInputForGPUBuilder._compute_for_prefix_cache_hit."""
        (data,) = group.seq_data.values()
        if not group.is_prompt or not is_first:
            return group.request_id, 1, 0
        size = len(group.block_tables[next(iter(group.seq_data))])
        before = data.get_num_computed_tokens()
        end = min(before + group.token_chunk_size, data.get_len())
        found = len(group.computed_block_nums or ()) * self.block_tokens if size else 0
        if found <= before:
            return group.request_id, end - before, 0
        return group.request_id, max(1, end - found), min(found, data.get_len() - 1)

    def _answer(self, group: Any) -> Any:
        from vllm.sequence import CompletionSequenceGroupOutput, Logprob, SequenceOutput

        (number,) = group.seq_data
        if not group.do_sample:
            return CompletionSequenceGroupOutput([SequenceOutput(number, 0, {0: Logprob(0.0)})], None)
        asked = self._requests[number]
        given = self._given.get(number, 0)
        self._given[number] = given + 1
        if given + 1 == asked["output_tokens"]:
            self.complete.append(number)
        place = asked["prompt"][-1][1] + given
        token = asked["answer"] * _PIECE_TOKENS + place
        return CompletionSequenceGroupOutput([SequenceOutput(number, token, {token: Logprob(0.0)})], None)

    block_tokens = 16


def _engine(asked: dict[str, Any], *, executor: _Executor) -> Any:
    from vllm.config import SchedulerConfig
    from vllm.core.scheduler import Scheduler
    from vllm.engine.arg_utils import EngineArgs
    from vllm.engine.llm_engine import LLMEngine, SchedulerContext, SchedulerOutputState
    from vllm.engine.output_processor.interfaces import SequenceGroupOutputProcessor
    from vllm.engine.output_processor.stop_checker import StopChecker
    from vllm.utils import Counter

    executor.block_tokens = asked["block_tokens"]
    steps = asked["scheduler_steps"]
    limits = {
        "max_num_seqs": asked["max_num_seqs"],
        "max_num_batched_tokens": asked["max_num_batched_tokens"],
        "max_model_len": asked["max_model_len"],
        "enable_chunked_prefill": asked["chunked_prefill"],
        "num_scheduler_steps": steps,
        "num_lookahead_slots": steps - 1,
        "task": "generate",
        # Of releases that have two.
        "use_v2_block_manager": steps > 1 or getattr(EngineArgs, "use_v2_block_manager", True),
    }
    taken = inspect.signature(SchedulerConfig).parameters
    engine = LLMEngine.__new__(LLMEngine)
    engine.model_config = SimpleNamespace(
        use_async_output_proc=asked["async_output"],
        embedding_mode=False,
        runner_type="generate",
        task="generate",
    )
    engine.parallel_config = SimpleNamespace(pipeline_parallel_size=1)
    engine.scheduler_config = SchedulerConfig(**{k: v for k, v in limits.items() if k in taken})
    engine.cache_config = SimpleNamespace(
        block_size=asked["block_tokens"],
        num_gpu_blocks=asked["blocks"],
        num_cpu_blocks=0,
        sliding_window=None,
        enable_prefix_caching=asked["keeps_prefixes"],
        is_attention_free=False,
    )
    engine.lora_config = engine.speculative_config = engine.tracer = None
    engine.tokenizer = engine.detokenizer = engine.process_request_outputs_callback = None
    engine.log_stats = engine.use_cached_outputs = engine._skip_scheduling_next_step = False
    engine.step_return_finished_only = False
    engine.seq_id_to_seq_group = {}
    engine.seq_counter = Counter()
    engine.model_executor = executor
    engine.cached_scheduler_outputs = [SchedulerOutputState()]
    engine.scheduler_contexts = [SchedulerContext()]
    engine.async_callbacks = []
    if asked["async_output"]:
        engine.async_callbacks = [partial(engine._process_model_outputs, ctx=engine.scheduler_contexts[0])]
    engine.scheduler = [
        Scheduler(
            engine.scheduler_config,
            engine.cache_config,
            None,
            1,
            engine.async_callbacks[0] if asked["async_output"] else None,
        )
    ]
    engine.output_processor = SequenceGroupOutputProcessor.create_output_processor(
        engine.scheduler_config,
        None,
        engine.scheduler,
        engine.seq_counter,
        None,
        stop_checker=StopChecker(engine.scheduler_config.max_model_len, None),
    )
    return engine


if __name__ == "__main__":
    main()
