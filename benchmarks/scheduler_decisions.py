"""What vLLM's own scheduler decides, step by step; it imports nothing of the sweeper.

vLLM's V1 scheduler class is driven without a model: requests arrive on a virtual clock, each step takes what
a formula of its tokens says, and each request answers as many tokens as it asks for. Written down is, of
every step, which request is given how many tokens, who loses its blocks, and what is found in the prefix
cache. PYTHON is that of an environment with vLLM:

    PYTHON benchmarks/scheduler_decisions.py WORKLOADS.json DECISIONS.json.gz

WORKLOADS.json is a list; ``tests/simulation/scheduler_workloads.py`` writes it:

    {"name": "saturated",
     "config": {"max_num_seqs": 64, "max_num_batched_tokens": 2048, "max_model_len": 4096,
                "chunked_prefill": true, "long_prefill_tokens": 0,
                "blocks": 1000, "block_tokens": 16, "keeps_prefixes": true},
     "step": {"start_s": 0.0078125, "token_s": 0.0000152587890625},
     "requests": [{"arrival_s": 0.0, "prompt": [[1, 300]], "answer": 2, "output_tokens": 20,
                   "follows": false, "pause_s": 0.0}]}

A prompt comes in pieces: a number, equal where all tokens up to its end are equal, and the tokens up to
there; ``answer`` is the number of the piece that the answer makes. A request that follows arrives when the
one before it in the list is answered and the pause is over. ``blocks`` are those that requests can have; vLLM
keeps one more for itself.

DECISIONS.json.gz has the release and per workload its steps, equal ones in a row together:

    [times, [[request, tokens], ...], [preempted, ...], [[request, tokens found], ...]]
"""

from __future__ import annotations

import gzip
import heapq
import inspect
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
# Hashes of blocks begin with a random number otherwise.
os.environ.setdefault("PYTHONHASHSEED", "0")

import torch
import vllm
from vllm.config import CacheConfig, ModelConfig, SchedulerConfig, VllmConfig
from vllm.sampling_params import SamplingParams
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

try:
    from vllm.utils.hashing import sha256
except ImportError:  # before 0.11.1
    from vllm.utils import sha256

_PIECE_TOKENS = 1 << 20
_TINY = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 1,
    "num_hidden_layers": 1,
    "num_key_value_heads": 1,
    "vocab_size": 128,
    "max_position_embeddings": 1 << 20,
    "torch_dtype": "float32",
}
"""A model that is never loaded; the scheduler asks only how long its sequences may be."""


def main() -> None:
    """Decide every workload of a file and write the decisions down."""
    source, target = (Path(name) for name in sys.argv[1:])
    init_none_hash(sha256)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(_TINY), encoding="utf-8")
        decided = [
            {"name": workload["name"], "steps": list(_together(_Driven(workload, model=folder).steps()))}
            for workload in json.loads(source.read_text(encoding="utf-8"))
        ]
    release = vllm.__version__.partition("+")[0]
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
    """A scheduler of vLLM on a virtual clock."""

    def __init__(self, workload: dict[str, Any], *, model: str) -> None:
        self._requests = workload["requests"]
        self._step = workload["step"]
        self._block_tokens = workload["config"]["block_tokens"]
        self._scheduler = _scheduler(workload["config"], model=model)
        self._now_s = 0.0
        self._coming = [
            (one["arrival_s"], index) for index, one in enumerate(self._requests) if not one["follows"]
        ]
        heapq.heapify(self._coming)

    def steps(self) -> Iterator[list[Any]]:
        """Return what is decided in each step that computes something."""
        while self._coming or self._scheduler.has_unfinished_requests():
            while self._coming and self._coming[0][0] <= self._now_s:
                self._add(heapq.heappop(self._coming)[1])
            before = {request.request_id for request in self._scheduler.running}
            output = self._scheduler.schedule()
            after = {request.request_id for request in self._scheduler.running}
            if not output.total_num_scheduled_tokens:
                # A step that only takes blocks away computes nothing; the next one follows at once.
                if before == after:
                    self._now_s = self._coming[0][0]
                continue
            yield self._decided(output, preempted=before - after, admitted=after - before)
            self._now_s += self._step["start_s"] + self._step["token_s"] * output.total_num_scheduled_tokens
            self._answer(output)

    def _decided(self, output: Any, *, preempted: set[str], admitted: set[str]) -> list[Any]:
        tokens = output.num_scheduled_tokens
        new = {request.req_id: request.num_computed_tokens for request in output.scheduled_new_reqs}
        again = output.scheduled_cached_reqs
        found = {**dict(zip(again.req_ids, again.num_computed_tokens, strict=True)), **new}
        return [
            [[int(name), tokens[name]] for name in tokens],
            sorted(int(name) for name in preempted),
            sorted([int(name), found[name]] for name in admitted),
        ]

    def _add(self, index: int) -> None:
        asked = self._requests[index]
        tokens, begin = [], 0
        for piece, end in asked["prompt"]:
            tokens += [piece * _PIECE_TOKENS + place for place in range(begin, end)]
            begin = end
        wanted: dict[str, Any] = {
            "request_id": str(index),
            "prompt_token_ids": tokens,
            "sampling_params": SamplingParams(max_tokens=asked["output_tokens"], ignore_eos=True),
            "pooling_params": None,
            "eos_token_id": None,
            "arrival_time": self._now_s,
            "block_hasher": get_request_block_hasher(self._block_tokens, sha256),
        }
        self._scheduler.add_request(Request(**_known(Request, wanted)))

    def _answer(self, output: Any) -> None:
        """Give each request that has computed all it has its next token; send what follows answers."""
        names = list(output.num_scheduled_tokens)
        sampled, ended = [], []
        for name in names:
            request = self._scheduler.requests[name]
            if request.num_computed_tokens < request.num_tokens:
                sampled.append([])
                continue
            asked = self._requests[int(name)]
            sampled.append([asked["answer"] * _PIECE_TOKENS + request.num_tokens])
            if request.num_output_tokens + 1 == asked["output_tokens"]:
                ended.append(int(name))
        result: dict[str, Any] = {
            "req_ids": names,
            "req_id_to_index": {name: place for place, name in enumerate(names)},
            "sampled_token_ids": sampled,
            "logprobs": None,
            "prompt_logprobs_dict": {},
            "pooler_output": [],
        }
        self._scheduler.update_from_output(output, ModelRunnerOutput(**_known(ModelRunnerOutput, result)))
        for index in ended:
            if index + 1 < len(self._requests) and self._requests[index + 1]["follows"]:
                ready_s = self._now_s + self._requests[index + 1]["pause_s"]
                heapq.heappush(self._coming, (ready_s, index + 1))


def _scheduler(asked: dict[str, Any], *, model: str) -> Scheduler:
    limits = {
        "max_num_seqs": asked["max_num_seqs"],
        "max_num_batched_tokens": asked["max_num_batched_tokens"],
        "max_model_len": asked["max_model_len"],
        "enable_chunked_prefill": asked["chunked_prefill"],
        "long_prefill_token_threshold": asked["long_prefill_tokens"],
        "is_encoder_decoder": False,
        "async_scheduling": False,
    }
    blocks = asked["blocks"] + 1
    # Some releases refuse other sizes where there is no GPU; the scheduler takes any.
    cache = CacheConfig(block_size=16, enable_prefix_caching=asked["keeps_prefixes"])
    cache.num_gpu_blocks = blocks
    config = VllmConfig(
        model_config=ModelConfig(
            model=model, skip_tokenizer_init=True, dtype="float32", max_model_len=asked["max_model_len"]
        ),
        scheduler_config=SchedulerConfig(**limits),
        cache_config=cache,
    )
    cache.block_size = asked["block_tokens"]
    shape = {"block_size": asked["block_tokens"], "num_kv_heads": 1, "head_size": 64, "dtype": torch.float32}
    layer = FullAttentionSpec(**_known(FullAttentionSpec, {**shape, "use_mla": False}))
    parts: dict[str, Any] = {
        "vllm_config": config,
        "kv_cache_config": KVCacheConfig(
            num_blocks=blocks, kv_cache_tensors=[], kv_cache_groups=[KVCacheGroupSpec(["layer"], layer)]
        ),
        "structured_output_manager": StructuredOutputManager(config),
        "block_size": asked["block_tokens"],
    }
    return Scheduler(**_known(Scheduler, parts))


def _known(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    """Return the values that a release's constructor takes."""
    taken = inspect.signature(kind).parameters
    return {name: value for name, value in values.items() if name in taken}


if __name__ == "__main__":
    main()
