"""Does a model fit its devices, and how many sequences then fit beside it - before anything is started.

One device must hold its shard of the weights, the working memory of the largest step, and the KV cache of at
least one sequence of the maximum length; else vLLM refuses to start. What is left over becomes KV blocks,
and blocks bound how many sequences are served at once. This is the only place where that is worked out: the
plan refuses by it, the simulated engine has as many blocks as it says, ``python -m sweeper fit`` prints it.

The parts lie beside this module: ``weights``, ``kv_cache`` (groups, blocks and tokens as vLLM lays them
out), ``activations``. Weights are exact where a model's matrices are all of one type; encoders of images, and
checkpoints that keep some layers in 16 bits, are counted about. The cache is exact for vLLM 0.32.0. Working
memory is an estimate; how good it is stands in docs/fit.md, beside published starts.

Left out: LoRA, speculative decoding (layers that only predict further tokens are not loaded without it), and
offloading to the host.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace

from sweeper import knobs
from sweeper.errors import PlacementError
from sweeper.knobs import LONGEST, WHAT_FITS, Accelerator
from sweeper.knobs.release_order import is_between
from sweeper.models.activations import (
    UNKNOWN_BATCH_TOKENS,
    activation_bytes,
    profiled_samples,
    sampled_bytes,
    times_profiled,
)
from sweeper.models.kv_cache import KvCache, default_block_tokens, kv_bytes_per_token, kv_cache
from sweeper.models.number_types import GIB, compute_dtype, kv_dtype
from sweeper.models.shares import whole
from sweeper.models.weights import built_of, weight_bytes
from sweeper.records import Assignment, Model
from sweeper.records.architecture import Architecture, Attention, DeltaAttention, LatentAttention, Mamba
from sweeper.records.plurals import amount

__all__ = [
    "GIB",
    "Fit",
    "activation_bytes",
    "built_of",
    "by_tensor_parallel",
    "compute_dtype",
    "fit",
    "kv_bytes_per_token",
    "kv_dtype",
    "weight_bytes",
]

RUNTIME_GIB = 0.25
"""Memory outside of torch: the runtime's context, communication buffers, libraries. Source: vLLM's own
"non_torch_memory" in published logs, 0.05 to 0.35 GiB with one device or several."""

GRAPHS_GIB = 0.4
"""Captured graphs. vLLM counts them in advance from 0.21.0 on; before, they grew into the share that
``gpu_memory_utilization`` leaves free. Source: vLLM's published estimates, 0.17 to 1.10 GiB (docs/fit.md)."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What one device must hold, and what is left for sequences.

    Attributes:
        weights_gib: This device's shard of the weights.
        activations_gib: Working memory of the largest step that the settings allow.
        runtime_gib: Memory outside of torch and captured graphs.
        cache: How the KV cache is laid out.
        memory_gib: The device's memory.
        memory_frac: ``gpu_memory_utilization``.
        max_model_len: Tokens of the longest sequence.
        block_tokens: Tokens in one KV block.
    """

    weights_gib: float
    activations_gib: float
    runtime_gib: float
    cache: KvCache
    memory_gib: float
    memory_frac: float
    max_model_len: int
    block_tokens: int

    @property
    def available_gib(self) -> float:
        """Memory that the engine may use."""
        return self.memory_gib * self.memory_frac

    @property
    def working_gib(self) -> float:
        """Everything besides weights and KV cache."""
        return self.activations_gib + self.runtime_gib

    @property
    def kv_cache_gib(self) -> float:
        """KV cache of one sequence of the maximum length."""
        return self.cache.blocks_of(self.max_model_len) * self.cache.block_bytes / GIB

    @property
    def needed_gib(self) -> float:
        """The least with which the engine starts."""
        spare_gib = self.cache.spare_blocks * self.cache.block_bytes / GIB
        return self.weights_gib + self.working_gib + self.kv_cache_gib + spare_gib

    @property
    def free_gib(self) -> float:
        """What is left for the KV cache; below 0 where the rest alone is too much."""
        return self.available_gib - self.weights_gib - self.working_gib

    @property
    def blocks(self) -> int:
        """KV blocks beside weights and working memory; the same on each device of the group."""
        if not self.cache.block_bytes:
            return 0
        return max(0, int(self.free_gib * GIB // self.cache.block_bytes))

    @property
    def tokens(self) -> int:
        """Tokens that vLLM's log calls the size of the KV cache.

        Of a model whose layers differ it is what sequences of the maximum length would hold, not what all
        blocks do.
        """
        return self.cache.logged_tokens(self.blocks, max_model_len=self.max_model_len)

    @property
    def plain_blocks(self) -> int:
        """Blocks that hold as many sequences where each takes one for every ``block_tokens`` of its tokens.

        A scheduler that knows one kind of blocks counts in these; equal to ``blocks`` where layers are alike.
        """
        return self.tokens // self.block_tokens if self.cache.is_mixed else self.blocks

    @property
    def is_feasible(self) -> bool:
        """Whether the engine can start."""
        return self.blocks - self.cache.spare_blocks >= max(1, self.cache.blocks_of(self.max_model_len))

    def shortened(self) -> Fit:
        """Return it with the longest sequence that has room, at least one token.

        Source:
            vLLM 0.32.0, v1/core/kv_cache_utils.py, ``_auto_fit_max_model_len``.
        """

        def has_no_room(tokens: int) -> bool:
            return not replace(self, max_model_len=tokens).is_feasible

        longest = bisect_right(range(1, self.max_model_len + 1), False, key=has_no_room)
        return replace(self, max_model_len=max(longest, 1))

    def sequences(self, tokens: int | None = None) -> int:
        """Count the sequences that the KV cache holds at once, whatever ``max_num_seqs`` says.

        Args:
            tokens: Length of each, prompt and answer together; None takes the maximum length.
        """
        taken = self.cache.blocks_of(self.max_model_len if tokens is None else tokens)
        return self.blocks // taken if taken else 0

    def __str__(self) -> str:
        """The arithmetic as a sentence, for a row or a message."""
        return (
            f"weights {self.weights_gib:.1f} GiB + working memory {self.working_gib:.1f} GiB + KV cache of "
            f"one sequence of {amount(self.max_model_len, 'token')} {self.kv_cache_gib:.1f} GiB = "
            f"{self.needed_gib:.1f} GiB per device; {self.available_gib:.1f} GiB available "
            f"({self.memory_gib:.4g} GiB x gpu_memory_utilization {self.memory_frac:g})"
        )


def fit(
    model: Model,
    assignment: Assignment,
    *,
    release: str,
    device_memory_gib: float,
    accelerator: Accelerator = "rocm",
) -> Fit:
    """Work out what each device of a trial must hold; of a pipeline, the stage that holds most.

    Args:
        model: What is served.
        assignment: Knobs; what it leaves out takes the release's default.
        release: Release of vLLM.
        device_memory_gib: Memory of the smallest device of the placement.
        accelerator: Whose defaults hold.

    Raises:
        PlacementError: A parallel size, length or block size is not a whole number of at least 1, or the
            model's shape is not known.
    """
    built = built_of(model)
    unsaid = knobs.defaults(
        release, accelerator=accelerator, assignment=assignment, max_positions=built.max_positions
    )
    said = {**unsaid, **assignment}
    dtype = compute_dtype(model, assignment)
    takes_what_fits = said.get(LONGEST) == WHAT_FITS
    longest = built.max_positions if takes_what_fits else whole(said, LONGEST, built.max_positions)
    found = Fit(
        weights_gib=weight_bytes(model, assignment) / GIB,
        activations_gib=times_profiled(release, accelerator=accelerator)
        * activation_bytes(
            built,
            tokens=whole(said, "max_num_batched_tokens", UNKNOWN_BATCH_TOKENS),
            sampled=profiled_samples(said, release=release, accelerator=accelerator),
            sampled_bytes=sampled_bytes(release),
            tensor_parallel_size=whole(said, "tensor_parallel_size", 1),
            dtype=dtype,
        )
        / GIB,
        runtime_gib=RUNTIME_GIB + _graphs_gib(said, release),
        cache=kv_cache(
            built,
            said,
            kv_dtype=kv_dtype(model, assignment),
            dtype=dtype,
            release=release,
            accelerator=accelerator,
        ),
        memory_gib=device_memory_gib,
        memory_frac=float(said["gpu_memory_utilization"]),
        max_model_len=longest,
        block_tokens=whole(said, "block_size", default_block_tokens(built, accelerator)),
    )
    return found.shortened() if takes_what_fits else found


def by_tensor_parallel(
    model: Model,
    assignment: Assignment,
    *,
    release: str,
    device_memory_gib: float,
    devices: int,
    accelerator: Accelerator = "rocm",
) -> dict[int, Fit]:
    """Work out every tensor parallel size that the model and the node allow.

    Args:
        model: What is served.
        assignment: The other knobs; with ``tensor_parallel_size`` in it, only that size.
        release: Release of vLLM.
        device_memory_gib: Memory of one device.
        devices: Devices of the node.
        accelerator: Whose defaults hold.

    Returns:
        Size to what each device holds, ascending; powers of two that divide the attention heads.

    Raises:
        PlacementError: The size asked for does not divide the heads, or a knob is no whole number.
    """
    built = built_of(model)
    powers = [2**power for power in range(devices.bit_length()) if 2**power <= devices]
    sizes = [size for size in powers if all(heads % size == 0 for heads in head_counts(built))]
    if "tensor_parallel_size" in assignment:
        sizes = [whole(assignment, "tensor_parallel_size", 1)]
        heads = next((heads for heads in head_counts(built) if heads % sizes[0]), None)
        if heads is not None:
            raise PlacementError(
                f"knobs.tensor_parallel_size: is {sizes[0]}; expected a divisor of the model's {heads} "
                "attention heads. Choose one."
            )
    return {
        size: fit(
            model,
            {**assignment, "tensor_parallel_size": size},
            release=release,
            device_memory_gib=device_memory_gib,
            accelerator=accelerator,
        )
        for size in sizes
    }


def head_counts(built: Architecture) -> list[int]:
    """Return the numbers of heads that tensor parallelism has to share out evenly."""
    counts = set()
    for mixer in {mixer for layer, _ in built.runs for mixer in layer.mixers}:
        match mixer:
            case DeltaAttention(key_heads=keys, value_heads=values):
                counts |= {keys, values}
            case Mamba(inner=inner, heads=heads):
                counts.add(heads or inner)
            case Attention(heads=heads) | LatentAttention(heads=heads):
                counts.add(heads)
    return sorted(counts)


def _graphs_gib(said: Assignment, release: str) -> float:
    if bool(said.get("enforce_eager", False)) or not is_between(release, "0.21.0", None):
        return 0.0
    return GRAPHS_GIB
