"""How long one step takes: a roofline of the device, and the host's work around it.

A step is one forward pass over some prompt tokens and one token of each decoding sequence. Its device time
is the sum of matrix multiplications (``matrices``), attention (``attention``), collectives between devices
(``communication``) and kernel starts, or the host's launches without a graph where these take longer; its
host time is scheduling, input preparation and output processing.
Peaks come from ``device``; how much of them software reaches is what ``calibration`` holds.

Left out: pipeline parallelism, the differences between attention backends, and replicas of different load:
where replicas share experts, each is taken to have as many tokens in a step as the one that is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sweeper.records.architecture import Architecture, Attention, Experts, LatentAttention, Layer
from sweeper.simulation import attention, matrices
from sweeper.simulation.calibration import Calibration
from sweeper.simulation.communication import (
    Groups,
    Links,
    Sharing,
    allreduce_token_s,
    exchange_token_s,
    links,
    one_shot_saved_s,
)
from sweeper.simulation.device import Device
from sweeper.simulation.precision import Precision

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_LLAMA_KERNELS = 10
"""Kernels of a layer of Llama: norm, QKV, rotation, writing the cache, attention, output; norm, gate and up,
activation, down."""

_MORE_KERNELS: Mapping[str, int] = {"latent": 5, "state": 2, "experts": 4, "shared": 4}
"""Kernels of a layer beyond that.

Source: vLLM 0.32.0. Latent attention has ten in place of QKV to output (two projections down and up, two
norms, two products that are absorbed; layers/mla.py, attention/mla_attention.py); a state seven in place of
five (two projections, convolution, gates, recurrence, norm, output; layers/mamba/gdn). Experts: router,
top-k, sorting, and the sum over experts beside two products and an activation (fused_moe/fused_moe.py);
shared ones are an MLP and a sum."""

_PLAIN = Precision()
_ALONE = Sharing()


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
        prompts: Of each prompt, the tokens computed before and those of this step; looked at only where
            layers have windows. None takes prompts of the mean length.
        contexts: Tokens that each decode attends to, shape (decodes,); the same holds.
    """

    prefill_tokens: int = 0
    prefill_pairs: float = 0.0
    prefill_sequences: int = 0
    decodes: int = 0
    context_tokens: float = 0.0
    samples: int = 0
    prompts: tuple[Ints, Ints] | None = field(default=None, compare=False)
    contexts: Ints | None = field(default=None, compare=False)

    @property
    def tokens(self) -> int:
        """Rows of its matrix multiplications."""
        return self.prefill_tokens + self.decodes

    @property
    def own_pairs(self) -> float:
        """Pairs within the pieces of prompts that this step computes, taken to be of the mean length."""
        chunk = self.prefill_tokens / max(1, self.prefill_sequences)
        return min(self.prefill_pairs, self.prefill_tokens * (chunk + 1) / 2)

    @property
    def each_context(self) -> Ints:
        """Tokens that each decode attends to, shape (decodes,)."""
        if self.contexts is not None:
            return self.contexts
        return np.full(self.decodes, round(self.context_tokens / max(1, self.decodes)), np.int64)

    @property
    def each_prompt(self) -> tuple[Ints, Ints]:
        """Tokens of each prompt before this step, and in it, shape (prefill_sequences,)."""
        if self.prompts is not None:
            return self.prompts
        count = max(1, self.prefill_sequences)
        chunk = self.prefill_tokens / count
        before = self.prefill_pairs / count / chunk - (chunk + 1) / 2 if chunk else 0.0
        return np.full(count, round(max(0.0, before)), np.int64), np.full(count, round(chunk), np.int64)


@dataclass(frozen=True, kw_only=True)
class CostModel:
    """Times of steps of one model on one group of devices in one configuration.

    Attributes:
        device: Each device of the group.
        devices: Tensor-parallel size.
        gpus: Physical GPUs that they belong to.
        built: What the model is built of.
        precision: How the matrices of its layers are stored and multiplied.
        kv_bits: 16 or 8, of the KV cache.
        is_v1: Whether vLLM's V1 engine serves.
        uses_graphs: Whether decoding is replayed from graphs.
        capture_tokens: ``max_seq_len_to_capture``; V1 has none and ignores it.
        has_prefix_cache: Whether prompts are kept for later requests.
        reads_slowly: Whether pieces of prompts attend slowly to what came before (``attention``).
        decodes_serially: Whether heads of an unusual size are read from first to last (``attention``).
        hides_host: Whether the host prepares a step while the device runs the one before.
        has_more_channels: Whether ``NCCL_MIN_NCHANNELS`` is raised to 112.
        has_numa_balancing: Whether the host's kernel moves memory between NUMA nodes.
        has_one_shot: Whether an all-reduce of a few tokens takes one exchange (``communication``).
        has_skinny: Whether few rows have a kernel of their own (``matrices``).
        calibration: Efficiencies and overheads.
        sharing: How its experts are spread over replicas and devices.
        slowdown: Factor on every time, for noise.
        watch: Called with each first step, the steps of a group and the groups that are asked for.
    """

    device: Device
    devices: int
    gpus: int
    built: Architecture
    calibration: Calibration
    precision: Precision = _PLAIN
    kv_bits: int = 16
    is_v1: bool = False
    uses_graphs: bool = True
    capture_tokens: int = 8192
    has_prefix_cache: bool = False
    reads_slowly: bool = False
    decodes_serially: bool = False
    hides_host: bool = False
    has_more_channels: bool = False
    has_numa_balancing: bool = True
    has_one_shot: bool = False
    has_skinny: bool = False
    sharing: Sharing = _ALONE
    slowdown: float = 1.0
    watch: Callable[[Step, int, int], object] | None = field(default=None, compare=False)

    @property
    def weight_bytes(self) -> float:
        """Weights on each device; embeddings, head, norms and routers stay 16 bits wide."""
        return self._matrices.stored_bytes

    @property
    def kv_token_bytes(self) -> float:
        """KV cache of one token on each device, over the layers that see everything.

        Heads are copied where there are fewer than devices; a latent vector is on every device.
        """
        return self._attention.whole.cached_bytes * self.kv_bits / 8

    @property
    def has_windows(self) -> bool:
        """Whether some layers see a part of the sequence only; then a step's sequences count one by one."""
        return bool(self._attention.windows)

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
        if self.watch is not None:
            self.watch(step, steps, groups)
        # Device time is affine in the context, so the mean context of a group gives its exact time.
        first = step
        if steps > 1:
            first = replace(step, context_tokens=step.context_tokens + step.decodes * (steps - 1) / 2)
        device_s: float | Floats = steps * self._whole_s(first)
        if groups > 1:
            growth_s = steps * step.decodes * steps * self._context_token_s(step.decodes)
            device_s = device_s + np.asarray(growth_s * np.arange(groups), np.float64)
        if self.has_windows and step.decodes:
            # Of a window it is not, once a sequence has filled it.
            windows_s = self._windows_s(step, steps=steps * groups).reshape(groups, steps)
            device_s = device_s + np.asarray(windows_s.sum(axis=1), np.float64)
        device_s = _beside_s(device_s, steps * self._launch_s(step))
        host_s = self.host_s(sequences=step.prefill_sequences + step.decodes, tokens=step.samples * steps)
        together_s = np.maximum(device_s, host_s) if self.hides_host else device_s + host_s
        return np.atleast_1d(np.asarray(self.slowdown * together_s, np.float64))

    def ahead_s(self, step: Step, *, steps: int) -> float:
        """Return the host's part of a group's time, which goes before its first step."""
        if self.hides_host:
            return 0.0
        sequences = step.prefill_sequences + step.decodes
        return self.slowdown * self.host_s(sequences=sequences, tokens=step.samples * steps)

    def device_s(self, step: Step) -> float:
        """Device time of one forward pass.

        Returns:
            Seconds.
        """
        device_s = self._whole_s(step)
        if self.has_windows:
            device_s += float(self._windows_s(step, steps=1)[0])
        return float(_beside_s(device_s, self._launch_s(step)))

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
        elif self.devices == 1:
            host_s *= fit.single_host_frac
        return host_s if self.has_numa_balancing else host_s * (1 - fit.numa_host_frac)

    @cached_property
    def _groups(self) -> Groups:
        return Groups(tensor=self.devices, sharing=self.sharing)

    @cached_property
    def _matrices(self) -> matrices.MatrixWork:
        return matrices.work_of(
            self.built,
            self.precision,
            self._groups,
            device=self.device,
            calibration=self.calibration,
            has_skinny=self.has_skinny,
        )

    @cached_property
    def _attention(self) -> attention.AttentionWork:
        return attention.work_of(self.built, devices=self.devices)

    @cached_property
    def _prefill_flop_per_s(self) -> float:
        return self.device.bf16_flop_per_s * self.calibration.prefill_attention_frac

    @cached_property
    def _earlier_flop_per_s(self) -> float:
        """Rate of attention between a piece of a prompt and what came before it."""
        if not self.reads_slowly:
            return self._prefill_flop_per_s
        return self.device.bf16_flop_per_s * attention.PAGED_FRAC

    @cached_property
    def _kv_bytes_per_s(self) -> float:
        return self.device.memory_bytes_per_s * self.calibration.kv_read_frac

    @cached_property
    def _whole_token_s(self) -> float:
        return self._sight_token_s(self._attention.whole)

    def _context_token_s(self, decodes: int) -> float:
        """Decode attention to one token of context, in the layers that see everything.

        Read from first to last, contexts of a step are read side by side, taken to be equally long.
        """
        if not self.decodes_serially:
            return self._whole_token_s
        serial_s = attention.SERIAL_TOKEN_S * self._attention.serial_layers
        return max(self._whole_token_s, serial_s / max(1, decodes))

    @cached_property
    def _fp8_kv_factor(self) -> float:
        return 1 + self.calibration.fp8_kv_frac if self.kv_bits == 8 else 1.0

    def _sight_token_s(self, sight: attention.Sight) -> float:
        """Reading one token, or computing with it if that is longer."""
        read_s = sight.cached_bytes * self.kv_bits / 8 / self._kv_bytes_per_s * self._fp8_kv_factor
        if not sight.token_flops:
            return read_s
        return max(read_s, sight.token_flops / self._prefill_flop_per_s)

    def _whole_s(self, step: Step) -> float:
        """Device time without the layers that see a window."""
        return (
            self._matrices.seconds(step.tokens)
            + self._attention_s(step)
            + self._collectives_s(step.tokens)
            + self._gaps_s(step)
            + self.calibration.sample_s * step.samples
        )

    def _windows_s(self, step: Step, *, steps: int) -> Floats:
        """Attention of the layers that see a window, in consecutive steps, shape (steps,)."""
        total_s = np.zeros(steps)
        for sight in self._attention.windows:
            window = int(sight.window or 0)
            if step.decodes:
                seen = attention.context_in(window, step.each_context, steps=steps)
                total_s += seen * self._sight_token_s(sight)
            if step.prefill_tokens:
                before, chunks = step.each_prompt
                pairs = attention.pairs_in(window, before=before, chunks=chunks)
                total_s[0] += sight.pair_flops * pairs / self._prefill_flop_per_s
        return total_s

    def _attention_s(self, step: Step) -> float:
        """Scores and weighted sums of prompts (compute), and reading caches and states (memory)."""
        work = self._attention
        own_pairs = step.own_pairs
        prefill_s = (
            work.whole.pair_flops * own_pairs + work.state_token_flops * step.prefill_tokens
        ) / self._prefill_flop_per_s
        prefill_s += work.whole.pair_flops * (step.prefill_pairs - own_pairs) / self._earlier_flop_per_s
        # The share of a partition has fewer compute units, so the same heads take it longer.
        heads = work.heads / self.device.gpu_frac
        decode_s = step.decodes * (
            self.calibration.decode_head_s * heads * self._fp8_kv_factor
            + self._capture_s(is_mixed=step.prefill_tokens > 0)
        )
        # A state is read and written whole.
        states_s = (step.decodes + step.prefill_sequences) * 2 * work.state_bytes / self._kv_bytes_per_s
        return prefill_s + decode_s + states_s + step.context_tokens * self._context_token_s(step.decodes)

    def _capture_s(self, *, is_mixed: bool) -> float:
        if self.is_v1 or not self.uses_graphs or is_mixed:
            return 0.0
        return self.calibration.capture_s * self.capture_tokens * len(self.built.layers)

    @cached_property
    def _exchanges(self) -> int:
        """Layers whose experts other replicas compute too, so that tokens are sent there and back."""
        shared = sum(n for layer, n in self.built.runs if isinstance(layer.mlp, Experts))
        return shared if self.sharing.replicas > 1 else 0

    @cached_property
    def _reduces(self) -> int:
        """All-reduces of a step: after attention and after what follows it, but for such experts."""
        return 2 * len(self.built.layers) - self._exchanges

    @cached_property
    def _collectives(self) -> tuple[float, float]:
        """Time of all collectives of a step: at its start, and for each of its tokens."""
        exchanges, reduces = self._exchanges, self._reduces
        start_s = token_s = 0.0
        if self.devices > 1:
            ways = self._links(devices=self.devices, gpus=self.gpus)
            token_s += reduces * allreduce_token_s(ways, devices=self.devices, hidden=self.built.hidden)
            start_s += reduces * ways.start_s
        if exchanges:
            groups = self._groups
            gpus = max(1, round(groups.ranks * self.device.gpu_frac))
            ways = self._links(devices=groups.ranks, gpus=gpus)
            start_s += exchanges * ways.start_s
            token_s += sum(
                n * exchange_token_s(ways, groups, hidden=self.built.hidden, per_token=layer.mlp.per_token)
                for layer, n in self.built.runs
                if isinstance(layer.mlp, Experts)
            )
        return start_s, token_s

    def _links(self, *, devices: int, gpus: int) -> Links:
        return links(
            self.device,
            devices=devices,
            gpus=gpus,
            calibration=self.calibration,
            has_more_channels=self.has_more_channels,
        )

    def _collectives_s(self, tokens: int) -> float:
        start_s, token_s = self._collectives
        return start_s + tokens * token_s - self._reduces * self._saved_s(tokens)

    def _saved_s(self, tokens: int) -> float:
        """What one all-reduce of so many tokens saves by being done in one exchange."""
        if not self.has_one_shot or self.devices == 1:
            return 0.0
        ways = self._links(devices=self.devices, gpus=self.gpus)
        return one_shot_saved_s(ways, devices=self.devices, hidden=self.built.hidden, tokens=tokens)

    @cached_property
    def _llama_layers(self) -> float:
        """Layers of Llama that launch as many kernels."""
        return sum(n * _kernels(layer) for layer, n in self.built.runs) / _LLAMA_KERNELS

    def _is_replayed(self, step: Step) -> bool:
        """Whether graphs launch its kernels: in V1 between attention, in V0 where all sequences decode."""
        return self.uses_graphs and (self.is_v1 or not step.prefill_tokens)

    def _gaps_s(self, step: Step) -> float:
        """What the kernels of a step cost the device beyond their work."""
        per_layer_s = self.calibration.kernel_layer_s
        if step.prefill_tokens > 0 and step.decodes > 0 and self.device.has_rocm:
            per_layer_s += self.calibration.mixed_layer_s
        return self._llama_layers * per_layer_s

    def _launch_s(self, step: Step) -> float:
        """What the host takes to launch the kernels of a step one by one; nothing where graphs do it."""
        if self._is_replayed(step):
            return 0.0
        return self._llama_layers * (self.calibration.kernel_layer_s + self.calibration.eager_layer_s)


def _beside_s(device_s: float | Floats, launch_s: float) -> float | Floats:
    """Return how long kernels take that the host launches one by one beside them.

    The longer of the two counts, and where both take as long each waits for the other now and then: kernels
    of a layer are long and short. The third power stands for that; a second would be more than dstack's 405B
    without graphs shows, a fourth less.
    """
    if not launch_s:
        return device_s
    return (device_s**3 + launch_s**3) ** (1 / 3)


def _kernels(layer: Layer) -> int:
    """Count the kernels of a layer."""
    kernels = _LLAMA_KERNELS
    match layer.attention:
        case Attention():
            pass
        case LatentAttention():
            kernels += _MORE_KERNELS["latent"]
        case _:
            kernels += _MORE_KERNELS["state"]
    if isinstance(layer.mlp, Experts):
        kernels += _MORE_KERNELS["experts"] + (_MORE_KERNELS["shared"] if layer.mlp.shared else 0)
    return kernels
