"""``python -m sweeper partitions``: what a trial gets in each partition mode, as a page of Markdown."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from sweeper.cli.arguments import ConsoleCommand
from sweeper.cli.exit_codes import OK
from sweeper.records import EngineSpec, Model, ModelShape, Placement, Platform, TrialSpec
from sweeper.records.plurals import amount
from sweeper.text.tables import markdown_table

if TYPE_CHECKING:
    from rich.console import Console

    from sweeper.topology import Node

_SIZES = (1, 2, 4, 8)
_MASK = "HIP_VISIBLE_DEVICES"
_SHOWN_MODES = (("SPX", "NPS1"), ("DPX", "NPS2"), ("QPX", "NPS4"), ("CPX", "NPS4"))
_ANY_SHAPE = ModelShape(
    layers=1, hidden=8, intermediate=8, heads=8, kv_heads=8, head_dim=1, vocab=8, max_positions=8
)

_HEAD = """\
# Trials on partitions

What `python -m sweeper partitions` prints: how eight MI300X are divided in each mode. Each trial gets an
aligned block, one mask ([isolation](isolation.md)), and the processors of its NUMA node (on both: any).
Blocks begin at device 0; the last one is shown. `python -m sweeper node` shows this machine's devices. The
sweeper never changes the mode: give the commands on an idle node (the first reloads the driver).
"""


class ShowPartitions(ConsoleCommand):
    """Print docs/partitions.md."""

    name = "partitions"
    summary = "what a trial gets in each partition mode, as Markdown"
    description = (
        "Print, in Markdown, what a trial gets in each partition mode, and the commands that set "
        "it. Asks no hardware and changes nothing."
    )

    def run(self, options: Namespace, console: Console) -> int:
        """Print the page."""
        console.print(page(), markup=False, soft_wrap=True, end="")
        return OK


def page() -> str:
    """Return the page as Markdown."""
    return "\n".join([_HEAD, *_sections()])


def _sections() -> Iterator[str]:
    from sweeper import topology

    for mode, memory_mode in _SHOWN_MODES:
        node = replace(topology.modelled_mi300x(mode, memory_mode), platform=Platform.MI300X)
        legal = " or ".join(topology.LEGAL_MEMORY_MODES[mode])
        first = node.devices[0]
        yield f"## {mode} with {memory_mode}\n"
        yield (
            f"{amount(len(node.devices), 'device')} of {first.memory_gib:g} GiB and {first.compute_units} "
            f"compute units. Legal memory: {legal}.\n"
        )
        yield "```bash\n" + "\n".join(topology.mode_commands(mode, memory_mode)) + "\n```\n"
        heads = ("TP", "blocks", f"last `{_MASK}`", "GPUs", "NUMA")
        yield markdown_table(heads, [_row(node, size) for size in _SIZES])
        yield ""


def _row(node: Node, size: int) -> tuple[str, ...]:
    """Return how many blocks of this size an empty node has, and what the last one is."""
    from sweeper.schedule.allocator import Allocator
    from sweeper.topology import ranges

    allocator, blocks = Allocator(node), []
    while (placement := allocator.acquire(size)) is not None:
        blocks.append(placement)
    last = blocks[-1]
    numa = "both" if last.numa_node is None else str(last.numa_node)
    return (str(size), str(len(blocks)), _environment(last)[_MASK], ranges(last.parents), numa)


def _environment(placement: Placement) -> dict[str, str]:
    from sweeper.engines.vllm_environment import server_environment
    from sweeper.processes.process import Process

    spec = TrialSpec(
        study="study",
        folder="outputs/study/trials/0",
        series=(),
        assignment={},
        load_points=(),
        engine=EngineSpec(kind="vllm", release="0.32.0", python="python"),
        model=Model(name="model", path="model", shape=_ANY_SHAPE),
        platform=Platform.MI300X,
        devices_wanted=1,
    )
    return server_environment(
        spec,
        placement,
        surroundings={},
        python="python",
        api_key="",
        owner=Process(1, 1),
        stub=None,
    )
