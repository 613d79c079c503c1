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
_SHOWN_MODES = (("SPX", "NPS1"), ("DPX", "NPS2"), ("QPX", "NPS4"), ("CPX", "NPS4"))
_ANY_SHAPE = ModelShape(
    layers=1, hidden=8, intermediate=8, heads=8, kv_heads=8, head_dim=1, vocab=8, max_positions=8
)

_HEAD = """\
# Trials on partitions

What a trial of each tensor parallel size gets on a node of eight MI300X in each partition mode: its aligned
block, the physical GPUs under it, their NUMA node, and which of the engine's variables depend on the block.
Written by `python -m sweeper partitions` from the node that the simulated platform models and the code that
places and starts a trial; `python -m sweeper node` shows the devices of this machine.

Shown are the first and the last block of an empty node. Devices are numbered as HIP counts them; memory is
nominal. A trial's threads are bound to the processors of its block's NUMA node, on both not at all. Other
variables are the same for every block ([engines.md](engines.md)). The mode is read, compared with what the
experiment asks, and stored in each row; this program never changes it. The commands are for a person, on an
idle node; the memory step reloads the driver.
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
            f"{amount(len(node.devices), 'device')}, {len(node.devices) // len(node.parents)} on each "
            "GPU, each with "
            f"{first.memory_gib:g} GiB and {first.compute_units} compute units. Legal with {mode}: {legal}.\n"
        )
        yield "```bash\n" + "\n".join(topology.mode_commands(mode, memory_mode)) + "\n```\n"
        heads = ("TP", "block", "devices", "GPUs", "NUMA node", "environment")
        yield markdown_table(heads, [row for size in _SIZES for row in _rows(node, size)])
        yield ""


def _rows(node: Node, size: int) -> Iterator[tuple[str, ...]]:
    """Return the rows of the first and the last block."""
    from sweeper.schedule.allocator import Allocator
    from sweeper.topology import ranges

    allocator, blocks = Allocator(node), []
    while (placement := allocator.acquire(size)) is not None:
        blocks.append(placement)
    for number in sorted({0, len(blocks) - 1}):
        placement = blocks[number]
        numa = "both" if placement.numa_node is None else str(placement.numa_node)
        where = (ranges(placement.devices), ranges(placement.parents), numa)
        variables = " ".join(f"`{name}={value}`" for name, value in _variables(placement).items())
        yield (str(size), f"{number + 1} of {len(blocks)}", *where, variables)


def _variables(placement: Placement) -> dict[str, str]:
    """Return the variables of the engine's environment that depend on its block of devices."""
    elsewhere = _environment(replace(placement, devices=(), parents=(), numa_node=None))
    here = _environment(placement)
    return {name: value for name, value in sorted(here.items()) if elsewhere.get(name) != value}


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
