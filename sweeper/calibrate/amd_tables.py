"""AMD's validation tables: offline runs of Llama 3.1 70B and 405B in FP8 on 8 MI300X, image by image.

With each of its vLLM images AMD publishes what a user should see (ROCm/vllm, docs/dev-docker/README.md): four
throughputs and sixteen latencies of each model, and the commands. ``data/amd_tables.csv`` holds the numbers
of the eleven images of 2025 whose tables are known, a row each: day of the image, model, kind, prompts of the
run, tokens of each prompt and answer, and the value in output tokens per second or in seconds.

The throughput is "as printed"; it is of output tokens, since the longest run would otherwise be slower than
the latency table's batch of 128. Until June 2025 throughputs were run with ten scheduler steps and without
chunked prefill, and both kinds with an FP8 KV cache; latencies one step at a time, with the release's
defaults. Since then V1 serves, and latencies have the KV cache that the release chooses.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sweeper.records.plurals import amount

DATA = Path(__file__).parent / "data" / "amd_tables.csv"
MODELS: Mapping[str, str] = {
    "70B": "llama_3_1_70b_instruct_fp8",
    "405B": "llama_3_1_405b_instruct_fp8_kv",
}
"""Models of the tables to their files in ``conf/model``."""

_V0 = "v0"
_THROUGHPUT = "throughput"
_PAGE = "https://github.com/ROCm/vllm/blob/{}/docs/dev-docker/README.md"
_OUTPUT_TOKENS = (
    "the table's throughput is of output tokens: its longest run would otherwise be slower than the latency "
    "table's batch of 128"
)
_PREFIXES = (
    "prefixes were kept from one iteration of a latency to the next: with 128 prompts of 2048 tokens 405B "
    "would else compute faster than the GPUs' peak"
)


@dataclass(frozen=True, kw_only=True)
class Image:
    """One of AMD's images, ``rocm/vllm-dev``.

    Attributes:
        date: Its day, ``2025-07-15``; where only a month's release is told, that of its page.
        release: Of vLLM.
        generation: Form of the scheduler, ``v0`` or ``v1``.
        rocm: Release of ROCm.
        page: Commit of the page with its tables.
        remark: What else is known of it.
    """

    date: str
    release: str
    generation: str
    rocm: str
    page: str
    remark: str = ""

    @property
    def is_newest(self) -> bool:
        """Whether it is the newest known image of its release."""
        return self.date == max(other.date for other in IMAGES if other.release == self.release)

    @cached_property
    def stack(self) -> str:
        """Name of its calibration."""
        name = f"amd_{self.release.replace('.', '_')}"
        return name if self.is_newest else f"{name}_of_{self.date.replace('-', '_')}"


IMAGES = (
    Image(date="2025-01-12", release="0.6.6", generation="v0", rocm="6.3.1", page="307a930f9"),
    Image(
        date="2025-03-05",
        release="0.7.3",
        generation="v0",
        rocm="6.3.1",
        page="245c94c48",
        remark="its page says vLLM 0.6.6, the commit that it is built of is of 0.7.3",
    ),
    Image(date="2025-03-25", release="0.7.3", generation="v0", rocm="6.3.1", page="25070a184"),
    Image(
        date="2025-04-10",
        release="0.8.2",
        generation="v0",
        rocm="6.3.1",
        page="07ee15e8b",
        remark="its page says vLLM 0.7.3, the commit that it is built of is of 0.8.2",
    ),
    Image(date="2025-04-29", release="0.8.3", generation="v0", rocm="6.3.1", page="402118091"),
    Image(
        date="2025-05-13",
        release="0.8.5",
        generation="v0",
        rocm="6.3.1",
        page="260cc1ab6",
    ),
    Image(date="2025-05-27", release="0.8.5", generation="v0", rocm="6.3.1", page="b4b7ba934"),
    Image(date="2025-06-10", release="0.9.0.1", generation="v0", rocm="6.4.1", page="4c4de4cdf"),
    Image(
        date="2025-06-24",
        release="0.9.1",
        generation="v1",
        rocm="6.4.1",
        page="e6b786629",
        remark="AMD's all-reduce was off for 405B, as that image's page asks for",
    ),
    Image(date="2025-07-15", release="0.9.1", generation="v1", rocm="6.4.1", page="270179a7c"),
    Image(date="2025-08-12", release="0.10.0", generation="v1", rocm="6.4.1", page="7802e2b72"),
)
"""In order of time."""


def sources() -> Iterator[Mapping[str, Any]]:
    """Yield a source for each image and model, as ``public.sources`` has them."""
    with DATA.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for image in IMAGES:
        for model in MODELS:
            own = [row for row in rows if (row["image_date"], row["model"]) == (image.date, model)]
            yield _source(image, model, own)


def _source(image: Image, model: str, rows: list[dict[str, str]]) -> Mapping[str, Any]:
    is_v0 = image.generation == _V0
    build = f"{image.release} ({image.generation.upper()})"
    which = "" if image.is_newest else f" of {image.date}"
    return {
        "name": f"{image.stack}_{model.lower()}_fp8",
        "title": f"AMD's validation tables, {model} FP8 on 8 MI300X, {image.release}{which}",
        "address": _PAGE.format(image.page),
        "model": MODELS[model],
        "device": "mi300x",
        "release": image.release,
        "stack": image.stack,
        "image": "rocm/vllm-dev",
        "date": image.date,
        "aiter": False,
        "told": (
            f"vLLM {build} of AMD's image of {image.date}, ROCm {image.rocm}, AITER's kernels off, as is "
            "that image's default; vLLM's offline benchmarks, random prompts"
            + (f"; {image.remark}" if image.remark else "")
        ),
        "assumed": _OUTPUT_TOKENS if is_v0 else f"{_OUTPUT_TOKENS}; {_PREFIXES}",
        "knobs": {
            "tensor_parallel_size": 8,
            "gpu_memory_utilization": 0.9,
            "VLLM_USE_V1": 0 if is_v0 else 1,
        },
        "runs": [_run(row, is_v0=is_v0) for row in rows],
    }


def _run(row: Mapping[str, str], *, is_v0: bool) -> Mapping[str, Any]:
    kind, prompts, value = row["kind"], int(row["prompts"]), float(row["value"])
    lengths = f"{row['input_len']}/{row['output_len']} tokens"
    is_throughput = kind == _THROUGHPUT
    return {
        "name": f"{kind}, {lengths}, {amount(prompts, 'prompt')}"
        if is_throughput
        else f"{kind}, batch {prompts}, {lengths}",
        "knobs": _throughput_knobs(prompts, is_v0=is_v0) if is_throughput else _latency_knobs(is_v0=is_v0),
        "load": {
            "dataset": kind,
            "num_prompts": prompts,
            "input_len": int(row["input_len"]),
            "output_len": int(row["output_len"]),
        },
        "metric": "output_throughput_tok_per_s" if is_throughput else "mean_batch_latency_ms",
        "published": value if is_throughput else 1000 * value,
    }


def _throughput_knobs(prompts: int, *, is_v0: bool) -> dict[str, Any]:
    steps = {"num_scheduler_steps": 10, "enable_chunked_prefill": False} if is_v0 else {}
    return {
        "max_model_len": 8192,
        "max_num_seqs": prompts,
        "max_num_batched_tokens": 131072,
        "kv_cache_dtype": "fp8",
        **steps,
    }


def _latency_knobs(*, is_v0: bool) -> dict[str, Any]:
    return {"kv_cache_dtype": "fp8"} if is_v0 else {"enable_prefix_caching": True}
