"""Does a model fit its devices, and how many sequences then fit beside it - before anything is started.

One device must hold its shard of the weights, the working memory of the largest step, and the KV cache of at
least one sequence of the maximum length; else vLLM refuses to start. What is left over becomes KV blocks,
and blocks bound how many sequences are served at once. This is the only place where that is worked out: the
plan refuses by it, the simulated engine has as many blocks as it says, ``python -m sweeper fit`` prints it.

Weights and KV cache follow from what the model is built of (``records.architecture``). They are exact where
its matrices are all of one type; encoders of images, and checkpoints that keep some layers in 16 bits, are
counted about. Working memory is an estimate; how good it is stands in docs/fit.md, beside published starts.

Left out: LoRA, speculative decoding (layers that only predict further tokens are not loaded without it), and
offloading to the host.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from sweeper import knobs
from sweeper.errors import PlacementError
from sweeper.knobs import Accelerator
from sweeper.knobs.release_order import is_between
from sweeper.records import Assignment, Model, ModelShape
from sweeper.records.architecture import (
    AnyAttention,
    Architecture,
    Attention,
    DeltaAttention,
    Experts,
    LatentAttention,
    Layer,
    Mlp,
    runs_of,
)

GIB = 2**30

RUNTIME_GIB = 0.25
"""Memory outside of torch: the runtime's context, communication buffers, libraries. Source: vLLM's own
"non_torch_memory" in published logs, 0.05 to 0.35 GiB with one device or several (docs/fit.md)."""

GRAPHS_GIB = 0.4
"""Captured graphs. vLLM counts them in advance from 0.21.0 on; before, they grew into the share that
``gpu_memory_utilization`` leaves free. Source: vLLM's published estimates, 0.17 to 1.10 GiB (docs/fit.md)."""

_BYTES = {"float32": 4, "float": 4, "bfloat16": 2, "float16": 2, "half": 2}
_ONE_BYTE = ("fp8", "int8")
_VOCAB_MULTIPLE = 64
_SAMPLED_BYTES = {"sorted": 41, "unsorted": 16}
_UNKNOWN_BATCH_TOKENS = 2048


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What one device must hold, and what is left for sequences.

    Attributes:
        weights_gib: This device's shard of the weights.
        activations_gib: Working memory of the largest step that the settings allow.
        runtime_gib: Memory outside of torch and captured graphs.
        kv_token_bytes: KV cache of one token on this device, over its layers that see the whole sequence.
        windows: Of its layers that see a part: tokens in sight, bytes a token over the layers of that window.
        state_bytes: What a sequence keeps whatever its length.
        memory_gib: The device's memory.
        memory_frac: ``gpu_memory_utilization``.
        max_model_len: Tokens of the longest sequence.
        block_tokens: Tokens in one KV block.
    """

    weights_gib: float
    activations_gib: float
    runtime_gib: float
    kv_token_bytes: int
    memory_gib: float
    memory_frac: float
    max_model_len: int
    block_tokens: int
    windows: tuple[tuple[int, int], ...] = ()
    state_bytes: int = 0

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
        return self._sequence_bytes(self.max_model_len) / GIB

    @property
    def needed_gib(self) -> float:
        """The least with which the engine starts."""
        return self.weights_gib + self.working_gib + self.kv_cache_gib

    @property
    def blocks(self) -> int:
        """KV blocks beside weights and working memory; the same on each device of the group.

        Of a model with windows or states, as many as sequences of the maximum length would fill.
        """
        if self.windows or self.state_bytes:
            return self.sequences() * self._blocks_of(self.max_model_len)
        return max(0, int(self._free_bytes // self._block_bytes))

    @property
    def tokens(self) -> int:
        """Tokens that the KV cache holds, which vLLM's log calls its size."""
        return self.blocks * self.block_tokens

    @property
    def is_feasible(self) -> bool:
        """Whether the engine can start."""
        return self.sequences() > 0

    def sequences(self, tokens: int | None = None) -> int:
        """Count the sequences that the KV cache holds at once, whatever ``max_num_seqs`` says.

        Args:
            tokens: Length of each, prompt and answer together; None takes the maximum length.
        """
        length = self.max_model_len if tokens is None else tokens
        if self.windows or self.state_bytes:
            return max(0, int(self._free_bytes // self._sequence_bytes(length)))
        return self.blocks // self._blocks_of(length)

    def __str__(self) -> str:
        """The arithmetic as a sentence, for a row or a message."""
        return (
            f"weights {self.weights_gib:.1f} GiB + working memory {self.working_gib:.1f} GiB + KV cache of "
            f"one sequence of {self.max_model_len} tokens {self.kv_cache_gib:.1f} GiB = "
            f"{self.needed_gib:.1f} GiB per device; {self.available_gib:.1f} GiB available "
            f"({self.memory_gib:.4g} GiB x gpu_memory_utilization {self.memory_frac:g})"
        )

    @property
    def _block_bytes(self) -> int:
        return self.kv_token_bytes * self.block_tokens

    @property
    def _free_bytes(self) -> float:
        return (self.available_gib - self.weights_gib - self.working_gib) * GIB

    def _sequence_bytes(self, tokens: int) -> int:
        """Bytes that one sequence takes: whole blocks in each layer, a window's worth where it has one."""
        windows = sum(
            self._blocks_of(min(tokens, window)) * self.block_tokens * each for window, each in self.windows
        )
        return self._blocks_of(tokens) * self._block_bytes + windows + self.state_bytes

    def _blocks_of(self, tokens: int) -> int:
        return math.ceil(tokens / self.block_tokens)


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
    tensor, pipeline = _whole(said, "tensor_parallel_size", 1), _whole(said, "pipeline_parallel_size", 1)
    dtype = compute_dtype(model, assignment)
    return Fit(
        weights_gib=weight_bytes(model, assignment) / GIB,
        activations_gib=activation_bytes(
            built,
            tokens=_whole(said, "max_num_batched_tokens", _UNKNOWN_BATCH_TOKENS),
            sampled=_profiled_samples(said, release=release, accelerator=accelerator),
            sampled_bytes=_sampled_bytes(release),
            tensor_parallel_size=tensor,
            dtype=dtype,
        )
        / GIB,
        runtime_gib=RUNTIME_GIB + _graphs_gib(said, release),
        kv_token_bytes=kv_bytes_per_token(
            built,
            dtype=kv_dtype(model, assignment),
            tensor_parallel_size=tensor,
            pipeline_parallel_size=pipeline,
        ),
        windows=_windows(
            built, dtype=kv_dtype(model, assignment), tensor_parallel_size=tensor, stages=pipeline
        ),
        state_bytes=_state_bytes(built, dtype=dtype, tensor_parallel_size=tensor, stages=pipeline),
        memory_gib=device_memory_gib,
        memory_frac=float(said["gpu_memory_utilization"]),
        max_model_len=_whole(said, "max_model_len", built.max_positions),
        block_tokens=_whole(said, "block_size", 16),
    )


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
        sizes = [_whole(assignment, "tensor_parallel_size", 1)]
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


def built_of(model: Model) -> Architecture:
    """Return what a model is built of.

    Raises:
        PlacementError: That is not known.
    """
    built = model.built
    if built is None:
        raise PlacementError(
            f"model.shape: is not given for {model.name} ({model.no_shape_because}); expected the numbers of "
            "its config.json. Set model.path to a folder that holds it, or give model.shape."
        )
    return built


def head_counts(built: Architecture) -> list[int]:
    """Return the numbers of heads that tensor parallelism has to share out evenly."""
    counts = set()
    for layer, _ in built.runs:
        match layer.attention:
            case DeltaAttention(key_heads=keys, value_heads=values):
                counts |= {keys, values}
            case Attention(heads=heads) | LatentAttention(heads=heads):
                counts.add(heads)
    return sorted(counts)


def kv_bytes_per_token(
    model: ModelShape | Architecture,
    *,
    dtype: str = "bfloat16",
    tensor_parallel_size: int = 1,
    pipeline_parallel_size: int = 1,
) -> int:
    """Bytes of KV cache that one token takes on one device, over the layers that see the whole sequence.

    Grouped-query attention keeps a key and a value for each of its KV heads. Where there are fewer KV heads
    than devices, each device keeps a copy of one, and more devices save nothing. Latent attention keeps one
    vector for all heads, on every device.

    Source:
        AMD, "Steps to Run a vLLM Workload", 2 x layers x hidden x bytes, which is this for models whose KV
        heads are as many as their heads. Copies: vLLM, ModelConfig.get_num_kv_heads.
    """
    built = model.architecture if isinstance(model, ModelShape) else model
    return max(
        sum(n * _cached_here(layer.attention, tensor_parallel_size) for layer, n in stage if _sees_all(layer))
        for stage in stages_of(built, pipeline_parallel_size)
    ) * _bytes(dtype)


def stages_of(built: Architecture, count: int) -> list[tuple[tuple[Layer, int], ...]]:
    """Share the layers out to the stages of a pipeline, each as runs of equal layers.

    Source:
        vLLM, distributed/utils.py, get_pp_indices: as many each; the rest goes to the stages before the last.
    """
    if count == 1:
        return [built.runs]
    each, left = divmod(len(built.layers), count)
    sizes = [each] * count
    for place in range(2, left + 2):
        sizes[-place] += 1
    starts = [sum(sizes[:place]) for place in range(count)]
    return [
        tuple(runs_of(built.layers[start : start + size])) for start, size in zip(starts, sizes, strict=True)
    ]


def weight_bytes(model: Model, assignment: Assignment) -> float:
    """Bytes of the weights on the device that holds most of them.

    Quantisation shrinks the matrices of the layers; embeddings, head, norms and routers stay as they are.
    Norms and routers are copied to each device, KV projections where KV heads are fewer than devices, the
    projections into latent vectors always, and the vocabulary is padded. Experts are shared out over tensor
    and data parallel devices together: whole ones with ``enable_expert_parallel``, slices of each without.

    Source:
        vLLM: QKVParallelLinear, VocabParallelEmbedding (padding to 64), quantization/fp8.py (linear layers),
        FusedMoEParallelConfig.make (experts), DeepseekV2MLAAttention (latent vectors).
        Llama 3.1 70B in 8 bits so gets 67.7 GiB; vLLM's log said 67.7229 (vllm-project/vllm pull 12569).
    """
    built, said = built_of(model), assignment
    tensor, pipeline = _whole(said, "tensor_parallel_size", 1), _whole(said, "pipeline_parallel_size", 1)
    width = _bytes(compute_dtype(model, assignment))
    share = _Share(
        tensor=tensor,
        experts=tensor * _whole(said, "data_parallel_size", 1),
        has_whole_experts=bool(said.get("enable_expert_parallel", False)),
    )
    bits = _part_bytes(model, assignment)
    layers = max(
        sum(n * _layer_bytes(layer, built.hidden, share, bits=bits, width=width) for layer, n in stage)
        for stage in stages_of(built, pipeline)
    )
    vocab = math.ceil(built.vocab / _VOCAB_MULTIPLE) * _VOCAB_MULTIPLE
    # The first stage of a pipeline has the embeddings and the last one the head.
    tables = 1 if built.is_tied or pipeline > 1 else 2
    plain = built.hidden + (tables * vocab * built.hidden + built.encoder_parameters) / tensor
    return layers + plain * width


@dataclass(frozen=True, kw_only=True)
class _Share:
    """Over how many devices matrices and experts are shared out."""

    tensor: int
    experts: int
    has_whole_experts: bool


def _layer_bytes(layer: Layer, hidden: int, share: _Share, *, bits: Mapping[str, float], width: int) -> float:
    """Return the bytes of one layer on the device that holds most of it."""
    norms = 2 * hidden * width
    attention = _attention_weights(layer.attention, hidden, share.tensor) * bits["attention"]
    match layer.mlp:
        case Mlp() as mlp:
            return norms + attention + mlp.parameters(hidden) / share.tensor * bits["mlp"]
        case Experts() as experts:
            here = experts.count / share.experts
            if share.has_whole_experts:
                here = math.ceil(here)
            routed = 3 * hidden * experts.intermediate * here * bits["experts"]
            shared = 3 * hidden * experts.shared / share.tensor * bits["shared"]
            return norms + attention + routed + shared + hidden * experts.count * width


def _attention_weights(attention: AnyAttention, hidden: int, tensor: int) -> float:
    """Return the weights of an attention on one of so many devices."""
    match attention:
        case Attention():
            queries = attention.heads * (3 if attention.is_gated else 2) / tensor
            return hidden * attention.head_dim * (queries + 2 * max(1, attention.kv_heads // tensor))
        case LatentAttention():
            down = hidden * ((attention.query_rank or 0) + attention.kv_rank + attention.rope_dim)
            return down + (attention.parameters(hidden) - down) / tensor
        case DeltaAttention():
            return attention.parameters(hidden) / tensor


def _cached_here(attention: AnyAttention, tensor: int) -> int:
    """Return the numbers that the KV cache keeps of a token on one of so many devices."""
    if isinstance(attention, Attention):
        return 2 * max(1, attention.kv_heads // tensor) * attention.head_dim
    return attention.cached_values


def _sees_all(layer: Layer) -> bool:
    return layer.attention.window is None


def _windows(
    built: Architecture, *, dtype: str, tensor_parallel_size: int, stages: int
) -> tuple[tuple[int, int], ...]:
    """Return windows and bytes a token over the layers that have them, of the stage that holds most."""
    found: dict[int, int] = {}
    for stage in stages_of(built, stages):
        here: dict[int, int] = {}
        for layer, count in stage:
            window = layer.attention.window
            each = count * _cached_here(layer.attention, tensor_parallel_size) * _bytes(dtype)
            if window and each:
                here[window] = here.get(window, 0) + each
        found = max(found, here, key=lambda windows: sum(w * each for w, each in windows.items()))
    return tuple(sorted(found.items()))


def _state_bytes(built: Architecture, *, dtype: str, tensor_parallel_size: int, stages: int) -> int:
    """Return what a sequence keeps on one device whatever its length, of the stage that keeps most."""
    values = (
        sum(n * layer.attention.state_values for layer, n in stage) for stage in stages_of(built, stages)
    )
    return math.ceil(max(values) / tensor_parallel_size) * _bytes(dtype)


def activation_bytes(
    model: ModelShape | Architecture,
    *,
    tokens: int,
    sampled: int,
    sampled_bytes: int,
    tensor_parallel_size: int = 1,
    dtype: str = "bfloat16",
) -> float:
    """Working memory of the largest step: its widest layer or its sampling, whichever is more.

    A layer holds three hidden vectors a token, and in its MLP gate, up and their product. Sampling holds
    several copies of the logits of each sequence, over the whole vocabulary on every device.

    Args:
        model: What it is built of.
        tokens: ``max_num_batched_tokens``.
        sampled: Sequences whose next token is sampled in that step.
        sampled_bytes: Bytes for each of their logits.
        tensor_parallel_size: Divides the MLP.
        dtype: Type that is computed in.

    Source:
        Fitted to vLLM's own profile: Llama 3.1 8B takes 2.07 GiB for 20000 tokens and 2.99 for 29000
        (vllm-project/vllm issue 10517), this says 2.06 and 2.99; more cases in docs/fit.md.
    """
    built = model.architecture if isinstance(model, ModelShape) else model
    widest = max(_width_of_a_token(layer) for layer, _ in built.runs) / tensor_parallel_size
    per_token = 3 * (built.hidden + widest) * _bytes(dtype)
    return max(tokens * per_token, float(sampled * built.vocab * sampled_bytes))


def _width_of_a_token(layer: Layer) -> int:
    """Return the width of all MLPs that a token passes in a layer."""
    match layer.mlp:
        case Mlp(intermediate=width):
            return width
        case Experts() as experts:
            return experts.per_token * experts.intermediate + experts.shared


def compute_dtype(model: Model, assignment: Assignment) -> str:
    """Return the type that is computed in: as asked, else the checkpoint's, which for fp8 is bfloat16."""
    asked = str(assignment.get("dtype", "auto"))
    own = model.dtype if model.dtype is not None and model.dtype in _BYTES else "bfloat16"
    return own if asked == "auto" else asked


def kv_dtype(model: Model, assignment: Assignment) -> str:
    """Return the type of the KV cache: as asked, else the type that is computed in."""
    asked = str(assignment.get("kv_cache_dtype", "auto"))
    return compute_dtype(model, assignment) if asked == "auto" else asked


def _profiled_samples(said: Assignment, *, release: str, accelerator: Accelerator) -> int:
    """Count the sequences that vLLM samples from when it profiles a step at its start.

    V0 with chunked prefill samples none: published profiles of 512 and 2048 tokens show the layers alone.
    """
    generation = knobs.engine_generation(release, accelerator=accelerator, assignment=said)
    if generation == "v0" and bool(said.get("enable_chunked_prefill", False)):
        return 0
    tokens = _whole(said, "max_num_batched_tokens", _UNKNOWN_BATCH_TOKENS)
    return min(_whole(said, "max_num_seqs", 256), tokens)


def _sampled_bytes(release: str) -> int:
    """Return the bytes that sampling holds for each logit.

    Source:
        To 0.16: sorting; 41 is 1.26 GiB for 256 sequences of Llama 3 8B (vllm-project/vllm pull 10511).
        After it a kernel that does not sort (pull 33538, February 2026), which leaves logits in 16 and 32
        bits, probabilities and noise; read from the code of 0.32.0, no published start checks it.
    """
    return _SAMPLED_BYTES["unsorted" if is_between(release, "0.17.0", None) else "sorted"]


def _graphs_gib(said: Assignment, release: str) -> float:
    if bool(said.get("enforce_eager", False)) or not is_between(release, "0.21.0", None):
        return 0.0
    return GRAPHS_GIB


_PARTS = ("attention", "mlp", "experts", "shared")


def _part_bytes(model: Model, assignment: Assignment) -> dict[str, float]:
    """Return the bytes of one weight for each kind of matrices of a layer."""
    width, stored = _matrix_bytes(model, assignment), model.quantization
    if stored is None:
        return dict.fromkeys(_PARTS, width)
    return {part: stored.bits / 8 if part in stored.parts else width for part in _PARTS}


def _matrix_bytes(model: Model, assignment: Assignment) -> float:
    """Bytes of one number of the layers' matrices."""
    quantization = str(assignment.get("quantization", "none")).lower()
    if model.dtype == "fp8" or any(kind in quantization for kind in _ONE_BYTE):
        return 1.0
    if quantization in ("none", "null", "auto") or model.quantization is not None:
        return float(_bytes(compute_dtype(model, assignment)))
    # Of an unknown kind the smallest is taken: a trial that would have fitted must not be refused.
    return 0.5


def _bytes(dtype: str) -> int:
    return 1 if dtype.startswith(_ONE_BYTE) else _BYTES.get(dtype, 2)


def _whole(said: Assignment, knob: str, otherwise: int) -> int:
    value = said.get(knob, otherwise)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise PlacementError(f"knobs.{knob}: is {value!r}; expected a whole number of at least 1. Change it.")
    return value
