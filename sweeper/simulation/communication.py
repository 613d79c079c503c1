"""What devices send each other in one step: all-reduces of a tensor-parallel group, and tokens to experts.

Without data parallelism every device has all tokens: experts add one all-reduce after them, as an MLP does,
whether they are sliced or lie whole on devices. With it each replica has tokens of its own and the experts
are spread over the devices of all replicas, so tokens go there and come back: by an all-gather and a
reduce-scatter, or by an all-to-all that sends a token only where its experts are.

Source:
    vLLM 0.32.0: fused_moe/config.py, FusedMoEParallelConfig.make (experts are spread over tensor x data
    parallel devices, with expert parallelism or without); fused_moe/runner/moe_runner.py (the all-reduce);
    distributed/device_communicators/all2all.py (the ways between replicas).
"""

from __future__ import annotations

from dataclasses import dataclass

from sweeper.knobs.release_order import release_key
from sweeper.simulation.calibration import Calibration
from sweeper.simulation.device import Device

GATHERS = "allgather_reducescatter"
"""The usual ``all2all_backend``, and what older ones become. Source: vLLM 0.32.0, config/parallel.py."""

_GATHERING = (GATHERS, "naive", "pplx")
_VALUE_BYTES = 2
_ONE_SHOT_SINCE = "0.7.3"
_ONE_SHOT_BYTES = ((4, 512 * 1024), (8, 256 * 1024))
"""Devices, at most, to the bytes from which on vLLM's own all-reduce takes two exchanges."""


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """How experts are spread over the devices of a server.

    Attributes:
        replicas: Data parallel replicas that share them; 1 where each has all of them.
        has_whole_experts: Whether a device has whole experts, and not a slice of each
            (``enable_expert_parallel``).
        backend: ``all2all_backend``: how tokens reach the experts of other replicas.
    """

    replicas: int = 1
    has_whole_experts: bool = False
    backend: str = GATHERS


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Over which devices a model and its experts are spread.

    Attributes:
        tensor: Devices of one replica.
        sharing: Of the experts.
    """

    tensor: int = 1
    sharing: Sharing = Sharing()

    @property
    def ranks(self) -> int:
        """Devices that the experts are spread over."""
        return self.tensor * self.sharing.replicas


@dataclass(frozen=True, kw_only=True)
class Links:
    """The ways between the devices of a group.

    Attributes:
        start_s: Latency of one collective.
        bytes_per_s: What a device reaches in one direction.
    """

    start_s: float
    bytes_per_s: float


def links(
    device: Device, *, devices: int, gpus: int, calibration: Calibration, has_more_channels: bool
) -> Links:
    """Return what collectives among several devices reach.

    Args:
        device: Each of them.
        devices: In the group.
        gpus: Physical GPUs that they belong to.
        calibration: Latency, and the part of the links' bandwidth that is reached.
        has_more_channels: Whether ``NCCL_MIN_NCHANNELS`` is raised to 112.
    """
    speed = device.group_bytes_per_s(devices=devices, gpus=gpus) * calibration.link_frac
    if has_more_channels:
        speed *= 1 + calibration.channels_frac
    return Links(start_s=calibration.allreduce_s, bytes_per_s=speed)


def allreduce_token_s(ways: Links, *, devices: int, hidden: int) -> float:
    """Return the time that one token adds to an all-reduce of hidden vectors.

    Source: each device sends and receives 2 (n - 1) / n of the data (ring all-reduce, Patarasuk and
    Yuan, 2009).
    """
    return 2 * (devices - 1) / devices * hidden * _VALUE_BYTES / ways.bytes_per_s


def has_one_shot(release: str, device: Device) -> bool:
    """Return whether vLLM's own all-reduce sums a few tokens in one exchange, on whole GPUs.

    Source:
        vLLM 0.8.3, csrc/custom_all_reduce.cuh; on ROCm it came with 0.8.3, in AMD's images before it, and in
        that of 0.6.6 in another form. AMD's tables since 0.7.3 fit better with it, those of 0.6.6 worse.
    """
    is_there = not device.has_partitions or release_key(release) >= release_key(_ONE_SHOT_SINCE)
    return is_there and device.gpu_frac == 1


def one_shot_saved_s(ways: Links, *, devices: int, hidden: int, tokens: int) -> float:
    """Return what an all-reduce of a few tokens saves where each device reads all of the others' data.

    That sends more than two exchanges do and saves one latency; vLLM changes over where both take as long, so
    the saving falls to 0 there. Two devices have the same traffic both ways.
    """
    bound = next((size for most, size in _ONE_SHOT_BYTES if devices <= most), 0)
    short = max(0, bound - tokens * hidden * _VALUE_BYTES)
    more = (devices - 1) - 2 * (devices - 1) / devices
    return min(ways.start_s, more * short / ways.bytes_per_s)


def exchange_token_s(ways: Links, groups: Groups, *, hidden: int, per_token: int) -> float:
    """Return the time that one token of each replica adds to the way to its experts and back.

    All-gather and reduce-scatter over all ranks move what an all-reduce of all replicas' tokens does. An
    all-to-all sends a token once to each device that has some of its experts, on average
    n (1 - (1 - 1 / n) ** k) of n devices; the devices of a replica share its tokens.
    """
    if groups.sharing.backend in _GATHERING:
        return groups.sharing.replicas * allreduce_token_s(ways, devices=groups.ranks, hidden=hidden)
    others = (groups.ranks - 1) * (1 - (1 - 1 / groups.ranks) ** per_token)
    return 2 * others / groups.tensor * hidden * _VALUE_BYTES / ways.bytes_per_s
