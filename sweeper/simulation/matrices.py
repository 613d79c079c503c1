"""What the matrices of a model cost in one step: to compute with them, or to read them if that is longer.

Every token passes the matrices of attention, MLPs, shared experts and routers. Routed experts are read once
in a step where any token is sent to them, and compute only those tokens.

A multiplication of n rows reaches n / (n + half) of its peak. Half the rows suffice where a weight has half
the bytes of what it is multiplied as: reading it is what holds small batches back. On ROCm one to four rows
have a kernel of their own for weights of 16 bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sweeper.knobs.release_order import release_key
from sweeper.records.architecture import AnyAttention, Architecture, Experts, LatentAttention, Layer, Mlp
from sweeper.simulation.calibration import Calibration
from sweeper.simulation.communication import Groups
from sweeper.simulation.device import Device
from sweeper.simulation.experts import Routing, Share, busiest, touched
from sweeper.simulation.precision import PLAIN_BITS, Precision, Stored

_EXPERT_MATRICES = 3

_SKINNY_SINCE = "0.8.5"
_SKINNY_ROWS = 4
_SKINNY_SAVED = 0.19
"""Part of the time of so few rows that their own kernel saves.

Source: 70B in 16 bits on 8 MI300X with the kernel and without it (vllm-project/vllm pull request 15830,
2025-03): 0.96 ms of a step of one sequence and 0.79 ms of two, where 4.6 ms are modelled for these matrices.
"""


def has_skinny(release: str, device: Device) -> bool:
    """Return whether few rows and weights of 16 bits have a kernel of their own.

    ROCm's fork had it before; what is known of that is fitted without it.

    Source:
        vLLM 0.8.5, model_executor/layers/utils.py, rocm_unquantized_gemm (up to three rows; later ones four).
    """
    return device.has_rocm and release_key(release) >= release_key(_SKINNY_SINCE)


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """Matrices of one kind on one device.

    Attributes:
        weights: In number.
        stored: How.
    """

    weights: float
    stored: Stored

    @property
    def stored_bytes(self) -> float:
        """What they take."""
        return self.weights * self.stored.bytes_each


@dataclass(frozen=True, kw_only=True)
class RoutedLayers:
    """Equal layers of routed experts on one device.

    Attributes:
        layers: How many.
        routing: Who is sent where.
        each: One expert, or this device's slice of it.
        held: Experts, or slices, that it keeps of a layer.
        groups: Over which devices they are spread.
    """

    layers: int
    routing: Routing
    each: Matrix
    held: float
    groups: Groups

    def share(self, tokens: int) -> Share:
        """Return what the busiest device does in a step in which each replica has so many tokens."""
        together = tokens * self.groups.sharing.replicas
        if self.groups.sharing.has_whole_experts:
            return busiest(self.routing, together, ranks=self.groups.ranks)
        return Share(experts=touched(self.routing, together), rows=together * self.routing.per_token)


@dataclass(frozen=True, kw_only=True)
class MatrixWork:
    """All matrices of a model on one device, and how fast it is with them.

    Attributes:
        stored_bytes: What they take, embeddings and encoders included.
        read_bytes: What every step reads: all but routed experts and encoders.
        row_s: Computing one row of what every token passes.
        fixed_s: On top for each step, the same.
        skinny_bytes: Of what is read, those that a kernel for few rows takes less time for; 0 without one.
        skinny_s: Of ``fixed_s``, what such a kernel works on.
        routed: Layers with routed experts.
        bytes_per_s: Reading weights.
        rates: Of the device, to compute with experts.
    """

    stored_bytes: float
    read_bytes: float
    row_s: float
    fixed_s: float
    skinny_bytes: float
    skinny_s: float
    routed: tuple[RoutedLayers, ...]
    bytes_per_s: float
    rates: Rates

    def seconds(self, tokens: int) -> float:
        """Return the time of a step with so many tokens in each replica."""
        compute_s = self.row_s * tokens + self.fixed_s
        read_bytes = self.read_bytes
        if tokens <= _SKINNY_ROWS:
            compute_s -= _SKINNY_SAVED * self.skinny_s
            read_bytes -= _SKINNY_SAVED * self.skinny_bytes
        for layers in self.routed:
            share = layers.share(tokens)
            row_s, fixed_s = self.rates.weight_s(layers.each.stored)
            each = layers.layers * layers.each.weights
            compute_s += each * (row_s * share.rows + fixed_s * share.experts)
            read_bytes += layers.layers * layers.each.stored_bytes * share.experts
        return max(compute_s, read_bytes / self.bytes_per_s)


@dataclass(frozen=True, kw_only=True)
class Rates:
    """How fast a device multiplies."""

    device: Device
    calibration: Calibration

    def weight_s(self, stored: Stored) -> tuple[float, float]:
        """Return the time that one weight adds for each row, and for each step."""
        fit = self.calibration
        peak = self.device.fp8_flop_per_s if stored.compute_bits == 8 else self.device.bf16_flop_per_s
        flop_s = 2 / (peak * fit.gemm_frac)
        # Slow layers are slow for each token; what a small batch takes depends on reading the weights.
        return flop_s / self._reached(stored), flop_s * fit.gemm_half_tokens * stored.width_frac

    def _reached(self, stored: Stored) -> float:
        if stored.is_dequantized:
            return self.calibration.dequantized_gemm_frac
        return self.calibration.fp8_gemm_frac if stored.compute_bits == 8 else 1.0


def work_of(
    built: Architecture,
    precision: Precision,
    groups: Groups,
    *,
    device: Device,
    calibration: Calibration,
    has_skinny: bool = False,
) -> MatrixWork:
    """Return the matrices of a model on each device."""
    rates = Rates(device=device, calibration=calibration)
    passed = [
        Matrix(weights=count * each.weights, stored=each.stored)
        for layer, count in built.runs
        for each in _passed_by_all(layer, built.hidden, precision, devices=groups.tensor)
    ]
    routed = tuple(
        _routed(layer.mlp, count, built.hidden, precision, groups, skew=calibration.expert_skew)
        for layer, count in built.runs
        if isinstance(layer.mlp, Experts)
    )
    plain_bytes = _tables(built) * PLAIN_BITS / 8 / groups.tensor
    read_bytes = sum(each.stored_bytes for each in passed) + plain_bytes
    kept_bytes = sum(layers.layers * layers.held * layers.each.stored_bytes for layers in routed)
    encoder_bytes = built.encoder_parameters * PLAIN_BITS / 8 / groups.tensor
    seconds = [(each.weights, *rates.weight_s(each.stored)) for each in passed]
    skinny = [each for each in passed if has_skinny and each.stored == Stored()]
    return MatrixWork(
        stored_bytes=read_bytes + kept_bytes + encoder_bytes,
        read_bytes=read_bytes,
        row_s=sum(weights * row_s for weights, row_s, _ in seconds),
        fixed_s=sum(weights * fixed_s for weights, _, fixed_s in seconds),
        skinny_bytes=sum(each.stored_bytes for each in skinny),
        skinny_s=sum(each.weights * rates.weight_s(each.stored)[1] for each in skinny),
        routed=routed,
        bytes_per_s=device.memory_bytes_per_s * calibration.weight_read_frac,
        rates=rates,
    )


def _tables(built: Architecture) -> int:
    """Count what is no matrix of a layer: embeddings, head and norms."""
    matrices = sum(
        count * (layer.attention.parameters(built.hidden) + layer.mlp.parameters(built.hidden))
        for layer, count in built.runs
    )
    return built.parameters - matrices - built.encoder_parameters


def _passed_by_all(layer: Layer, hidden: int, precision: Precision, *, devices: int) -> Iterator[Matrix]:
    """Yield the matrices of a layer that every token passes, on one device; routers are on each whole."""
    yield Matrix(
        weights=_attention_weights(layer.attention, hidden, devices=devices), stored=precision.attention
    )
    match layer.mlp:
        case Mlp() as mlp:
            yield Matrix(weights=mlp.parameters(hidden) / devices, stored=precision.mlp)
        case Experts() as experts:
            yield Matrix(weights=hidden * experts.count, stored=Stored())
            shared = _EXPERT_MATRICES * hidden * experts.shared / devices
            yield Matrix(weights=shared, stored=precision.shared)


def _attention_weights(attention: AnyAttention, hidden: int, *, devices: int) -> float:
    """Return the weights of an attention on one device; projections into latent vectors are on each whole."""
    if isinstance(attention, LatentAttention):
        down = hidden * ((attention.query_rank or 0) + attention.kv_rank + attention.rope_dim)
        return down + (attention.parameters(hidden) - down) / devices
    return attention.parameters(hidden) / devices


def _routed(
    experts: Experts, layers: int, hidden: int, precision: Precision, groups: Groups, *, skew: float
) -> RoutedLayers:
    whole = _EXPERT_MATRICES * hidden * experts.intermediate
    slices = 1 if groups.sharing.has_whole_experts else groups.ranks
    return RoutedLayers(
        layers=layers,
        routing=Routing(count=experts.count, per_token=experts.per_token, skew=skew),
        each=Matrix(weights=whole / slices, stored=precision.experts),
        held=-(-experts.count // groups.ranks) if groups.sharing.has_whole_experts else experts.count,
        groups=groups,
    )
