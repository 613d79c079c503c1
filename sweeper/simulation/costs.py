"""How long one step takes: a roofline of the device, and the host's work around it.

A step is one forward pass over some prompt tokens and one token of each decoding sequence. Its device time
is the sum of matrix multiplications (bound by compute or by reading the weights), attention, all-reduces and
kernel launches; its host time is scheduling, input preparation and output processing. Peaks come from
``device``; how much of them software reaches is what ``calibration`` holds.

Left out: pipeline parallelism, mixture-of-experts models, and the differences between attention backends.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sweeper.records import ModelShape
from sweeper.simulation.calibration import Calibration
from sweeper.simulation.device import Device

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one forward pass works on.

    Attributes:
        prefill_tokens: Prompt tokens computed.
        prefill_pairs: Pairs of a computed prompt token and a token it attends to.
        prefill_sequences: Sequences they belong to.
        decodes: Sequences that get one more token.
        context_tokens: Tokens that these attend to, together.
        samples: Sequences whose next token is sampled: decodes, and prompts that end in this step.
    """

    prefill_tokens: int = 0
    prefill_pairs: float = 0.0
    prefill_sequences: int = 0
    decodes: int = 0
    context_tokens: float = 0.0
    samples: int = 0

    @property
    def tokens(self) -> int:
        """Rows of its matrix multiplications."""
        return self.prefill_tokens + self.decodes


@dataclass(frozen=True, kw_only=True)
class CostModel:
    """Times of steps of one model on one group of devices in one configuration.

    Attributes:
        device: Each device of the group.
        devices: Tensor-parallel size.
        gpus: Physical GPUs that they belong to.
        shape: Of the model.
        weight_bits: 16 or 8, of the weights of the layers.
        kv_bits: 16 or 8, of the KV cache.
        is_v1: Whether vLLM's V1 engine serves.
        uses_graphs: Whether decoding is replayed from graphs.
        capture_tokens: ``max_seq_len_to_capture``; V1 has none and ignores it.
        has_prefix_cache: Whether prompts are kept for later requests.
        hides_host: Whether the host prepares a step while the device runs the one before.
        has_more_channels: Whether ``NCCL_MIN_NCHANNELS`` is raised to 112.
        has_numa_balancing: Whether the host's kernel moves memory between NUMA nodes.
        calibration: Efficiencies and overheads.
        slowdown: Factor on every time, for noise.
    """

    device: Device
    devices: int
    gpus: int
    shape: ModelShape
    calibration: Calibration
    weight_bits: int = 16
    kv_bits: int = 16
    is_v1: bool = False
    uses_graphs: bool = True
    capture_tokens: int = 8192
    has_prefix_cache: bool = False
    hides_host: bool = False
    has_more_channels: bool = False
    has_numa_balancing: bool = True
    slowdown: float = 1.0

    @property
    def weight_bytes(self) -> float:
        """Weights on each device; embeddings, head and norms stay 16 bits wide."""
        shape = self.shape
        linear = self._linear_parameters
        return (linear * self.weight_bits / 8 + (shape.parameters - linear) * 2) / self.devices

    @property
    def kv_token_bytes(self) -> float:
        """KV cache of one token on each device; heads are copied where there are fewer than devices."""
        shape = self.shape
        kv_heads = max(shape.kv_heads / self.devices, 1.0)
        return 2 * shape.layers * kv_heads * shape.head_dim * self.kv_bits / 8

    def step_s(self, step: Step) -> float:
        """Time of one step, device and host.

        Returns:
            Seconds.
        """
        return float(self.groups_s(step, steps=1, groups=1)[0])

    def groups_s(self, step: Step, *, steps: int, groups: int) -> Floats:
        """Times of consecutive groups of steps, each group prepared once by the host.

        Args:
            step: The first of all; each next one attends to one more token in every decoding sequence.
            steps: In a group; above 1 only without prompts.
            groups: How many.

        Returns:
            Seconds, shape (groups,).
        """
        # Device time is affine in the context, so the mean context of a group gives its exact time.
        first = replace(step, context_tokens=step.context_tokens + step.decodes * (steps - 1) / 2)
        growth_s = steps * step.decodes * steps * self._context_token_s
        device_s = steps * self.device_s(first) + growth_s * np.arange(groups)
        host_s = self.host_s(sequences=step.prefill_sequences + step.decodes, tokens=step.samples * steps)
        together_s = np.maximum(device_s, host_s) if self.hides_host else device_s + host_s
        return np.asarray(self.slowdown * together_s, np.float64)

    def device_s(self, step: Step) -> float:
        """Device time of one forward pass.

        Returns:
            Seconds.
        """
        return (
            self._gemm_s(step.tokens)
            + self._attention_s(step)
            + self._allreduce_s(step.tokens)
            + self._launch_s(step)
            + self.calibration.sample_s * step.samples
        )

    def host_s(self, *, sequences: int, tokens: int) -> float:
        """Host time of one step, or one group of steps.

        Args:
            sequences: In it.
            tokens: Given back by it.

        Returns:
            Seconds.
        """
        fit = self.calibration
        each = fit.host_sequence_s
        if self.has_prefix_cache and not self.is_v1:
            each += fit.host_prefix_sequence_s
        host_s = fit.host_step_s + each * sequences + fit.host_token_s * tokens
        if self.is_v1:
            host_s *= fit.v1_host_frac
        return host_s if self.has_numa_balancing else host_s * (1 - fit.numa_host_frac)

    @property
    def _linear_parameters(self) -> float:
        """Weights of the layers' matrices, which is what every token is multiplied with."""
        shape = self.shape
        attention = shape.hidden * shape.head_dim * 2 * (shape.heads + shape.kv_heads)
        return shape.layers * (attention + 3 * shape.hidden * shape.intermediate)

    @property
    def _peak_flop_per_s(self) -> float:
        return self.device.fp8_flop_per_s if self.weight_bits == 8 else self.device.bf16_flop_per_s

    @property
    def _context_token_s(self) -> float:
        """Decode attention to one token of context."""
        read_s = self.kv_token_bytes / (self.device.memory_bytes_per_s * self.calibration.kv_read_frac)
        return read_s * self._fp8_kv_factor

    @property
    def _fp8_kv_factor(self) -> float:
        return 1 + self.calibration.fp8_kv_frac if self.kv_bits == 8 else 1.0

    def _gemm_s(self, tokens: int) -> float:
        """Matrix multiplications at an efficiency of n / (n + half), or reading weights if that is longer."""
        fit = self.calibration
        # Slow fp8 layers are slow for each token; what a small batch takes depends on reading the weights.
        slowed = tokens / fit.fp8_gemm_frac if self.weight_bits == 8 else tokens
        flops = 2 * self._linear_parameters * (slowed + fit.gemm_half_tokens) / self.devices
        compute_s = flops / (self._peak_flop_per_s * fit.gemm_frac)
        return max(compute_s, self.weight_bytes / (self.device.memory_bytes_per_s * fit.weight_read_frac))

    def _attention_s(self, step: Step) -> float:
        """Scores and weighted sums of prompts (compute), and reading the KV cache for decodes (memory)."""
        fit, shape = self.calibration, self.shape
        prefill_flops = 4 * shape.layers * shape.heads * shape.head_dim * step.prefill_pairs / self.devices
        prefill_s = prefill_flops / (self.device.bf16_flop_per_s * fit.prefill_attention_frac)
        # The share of a partition has fewer compute units, so the same heads take it longer.
        heads = shape.layers * shape.heads / self.devices / self.device.gpu_frac
        decode_s = step.decodes * (
            fit.decode_head_s * heads * self._fp8_kv_factor
            + self._capture_s(is_mixed=step.prefill_tokens > 0)
        )
        return prefill_s + decode_s + step.context_tokens * self._context_token_s

    def _capture_s(self, *, is_mixed: bool) -> float:
        if self.is_v1 or not self.uses_graphs or is_mixed:
            return 0.0
        return self.calibration.capture_s * self.capture_tokens * self.shape.layers

    def _allreduce_s(self, tokens: int) -> float:
        """Two ring all-reduces a layer of one hidden vector a token.

        Source: each device sends and receives 2 (n - 1) / n of the data (ring all-reduce, Patarasuk and
        Yuan, 2009).
        """
        if self.devices == 1:
            return 0.0
        fit = self.calibration
        speed = self.device.group_bytes_per_s(devices=self.devices, gpus=self.gpus) * fit.link_frac
        if self.has_more_channels:
            speed *= 1 + fit.channels_frac
        sent_bytes = 2 * (self.devices - 1) / self.devices * tokens * self.shape.hidden * 2
        return 2 * self.shape.layers * (fit.allreduce_s + sent_bytes / speed)

    def _launch_s(self, step: Step) -> float:
        fit = self.calibration
        per_layer_s = fit.kernel_layer_s
        # V1 replays graphs for the parts between attention in every step; V0 only where all sequences decode.
        if not self.uses_graphs or (step.prefill_tokens > 0 and not self.is_v1):
            per_layer_s += fit.eager_layer_s
        if step.prefill_tokens > 0 and step.decodes > 0:
            per_layer_s += fit.mixed_layer_s
        return self.shape.layers * per_layer_s
