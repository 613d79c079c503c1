"""The working memory of the largest step: an estimate, fitted to what vLLM's own profiles said."""

from __future__ import annotations

from sweeper import knobs
from sweeper.knobs import Accelerator
from sweeper.knobs.release_order import is_between
from sweeper.models.number_types import bytes_of
from sweeper.models.shares import whole
from sweeper.records import Assignment, ModelShape
from sweeper.records.architecture import Architecture, Experts, Layer, Mlp

UNKNOWN_BATCH_TOKENS = 2048
_SAMPLED_BYTES = {"sorted": 41, "unsorted": 16}


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
        (vllm-project/vllm issue 10517), this says 2.06 and 2.99.
    """
    built = model.architecture if isinstance(model, ModelShape) else model
    widest = max(_width_of_a_token(layer) for layer, _ in built.runs) / tensor_parallel_size
    per_token = 3 * (built.hidden + widest) * bytes_of(dtype)
    return max(tokens * per_token, float(sampled * built.vocab * sampled_bytes))


def _width_of_a_token(layer: Layer) -> int:
    """Return the width of all MLPs that a token passes in a layer."""
    match layer.mlp:
        case Mlp(intermediate=width):
            return width
        case Experts() as experts:
            return experts.per_token * experts.intermediate + experts.shared


def profiled_samples(said: Assignment, *, release: str, accelerator: Accelerator) -> int:
    """Count the sequences that vLLM samples from when it profiles a step at its start.

    V0 with chunked prefill samples none: published profiles of 512 and 2048 tokens show the layers alone.
    """
    generation = knobs.engine_generation(release, accelerator=accelerator, assignment=said)
    if generation == "v0" and bool(said.get("enable_chunked_prefill", False)):
        return 0
    tokens = whole(said, "max_num_batched_tokens", UNKNOWN_BATCH_TOKENS)
    return min(whole(said, "max_num_seqs", 256), tokens)


def times_profiled(release: str, *, accelerator: Accelerator) -> int:
    """Return how often the profile at the start counts the working memory.

    Before 0.6.6 the code adds torch's peak and all memory that is not torch's now; on ROCm that seems to hold
    what the step had, by the one number that is known.

    Source:
        vLLM 0.6.3 and 0.6.6, worker/worker.py, ``determine_num_available_blocks`` (changed by pull 10511).
        Llama 3.1 405B in FP8 on MI300X, 0.6.4.dev4: 34 GiB for a step of 91680 tokens on 4 GPUs, of which a
        layer holds 15 (dstackai/benchmarks, by the batches from which on its sequences were preempted). On
        CUDA it was counted once in 0.6.3 (vllm-project/vllm issue 10517), on ROCm in 0.9.2.
    """
    return 2 if accelerator == "rocm" and not is_between(release, "0.6.6", None) else 1


def sampled_bytes(release: str) -> int:
    """Return the bytes that sampling holds for each logit.

    Source:
        To 0.16: sorting; 41 is 1.26 GiB for 256 sequences of Llama 3 8B (vllm-project/vllm pull 10511).
        After it a kernel that does not sort (pull 33538, February 2026), which leaves logits in 16 and 32
        bits, probabilities and noise; read from the code of 0.32.0, no published start checks it.
    """
    return _SAMPLED_BYTES["unsorted" if is_between(release, "0.17.0", None) else "sorted"]
