"""The commands of docs/containers.md, by the code that starts engines: `python -m tests.container_commands`.

A node of MI300X is described and not read: its device files, and the group that opens them. Paths of this
machine are replaced by those of an ordinary one.
"""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

from sweeper.engines import contained, containers, images, vllm, vllm_environment
from sweeper.processes import containers as started
from sweeper.processes import process as processes
from sweeper.records import ContainerSpec, EngineSpec, Placement, Platform
from sweeper.topology import shown_devices
from tests.standin_server import make_spec

PAGE = Path(__file__).resolve().parents[1] / "docs" / "containers.md"
BEGIN, END = "<!-- commands -->", "<!-- end of commands -->"
WIDTH = 110
IMAGE = "rocm/vllm:rocm7.0.0_vllm_0.11.2_20251210"
_START = "sweeper-0123456789abcdef"
# What surrounds the sweeper on that node; HF_TOKEN is exported there.
_SURROUNDINGS = {"HOME": "/home/user", "PATH": "/usr/bin", "HF_TOKEN": "hf_of_the_user"}


@dataclass(frozen=True)
class Block:
    """A trial's block: what it is called, its devices as HIP counts them, and its node's device files.

    One GPU has eight numbers in a row, of which SPX uses the first and CPX all.
    """

    title: str
    devices: tuple[int, ...]
    mode: str

    @property
    def files(self) -> Mapping[int, str]:
        step = 1 if self.mode == "CPX" else 8
        return {index: f"/dev/dri/renderD{128 + step * index}" for index in range(64 if step == 1 else 8)}


BLOCKS = (
    Block("one GPU (SPX, device 0)", (0,), "SPX"),
    Block("four GPUs (SPX, devices 4 to 7)", (4, 5, 6, 7), "SPX"),
    Block("one partition (CPX, device 9)", (9,), "CPX"),
)


@contextmanager
def _node(block: Block) -> Iterator[None]:
    """Let the code see that node: its files, its processors, none of this machine's surroundings."""
    with (
        mock.patch.object(shown_devices, "_render_files", lambda: block.files),
        mock.patch.object(shown_devices, "groups_of", lambda nodes: ("video", "109")),
        mock.patch.object(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1)),
        mock.patch.object(containers.shutil, "which", lambda *_, **__: "/usr/bin/catatonit"),
        mock.patch.object(containers.secrets, "token_hex", lambda _: _START.removeprefix("sweeper-")),
        mock.patch.dict(os.environ, _SURROUNDINGS, clear=True),
    ):
        yield


def words_of(runtime: str, block: Block, folder: Path) -> tuple[str, ...]:
    """Return the command that starts an engine of a block, as the product makes it."""
    model = folder / "model"
    model.mkdir(exist_ok=True)
    container = ContainerSpec(
        image=IMAGE, runtime=runtime, digest="sha256:0", mounts=(str(model), str(images._ROOT))
    )
    size = len(block.devices)
    made = make_spec(
        folder / "outputs",
        "/cache/python",
        platform=Platform.MI300X,
        assignment={"tensor_parallel_size": size, "max_num_seqs": 256, "VLLM_ROCM_USE_AITER": 1},
        devices_wanted=size,
    )
    engine = EngineSpec(kind="vllm", release="0.11.2", python="/cache/python", container=container)
    spec = replace(made, engine=engine, model=replace(made.model, path=str(model)))
    placement = Placement(node="here", devices=block.devices, parents=(0,), partition_mode=block.mode)
    with _node(block):
        command = vllm.server_command(spec, python="/cache/python", port=41234)
        environment = vllm_environment.server_environment(
            spec,
            placement,
            surroundings=os.environ,
            python="/cache/python",
            api_key="of-this-server",
            owner=processes.current(),
            stub=None,
        )
        with mock.patch.object(contained.trial_files, "make_folder", lambda _: None):
            words, given = contained.inside(spec, placement, command, environment, folder=Path(spec.folder))
    # What the engine counts: the devices that it is shown, from 0.
    assert given["HIP_VISIBLE_DEVICES"] == ",".join(map(str, range(size)))
    assert started.Container.marked(given) == started.Container(runtime=runtime, start=_START)
    return _in_order_of_volumes([_ordinary(word, folder) for word in words])


def _in_order_of_volumes(words: list[str]) -> tuple[str, ...]:
    """Put the volumes into the order of their ordinary paths, which that of this machine's need not be."""
    places = [at + 1 for at, word in enumerate(words) if word == "--volume"]
    for at, volume in zip(places, sorted(words[at] for at in places), strict=True):
        words[at] = volume
    return tuple(words)


def _ordinary(word: str, folder: Path) -> str:
    replaced = {
        str(folder / "model"): "/models/llama",
        str(folder / "outputs"): "/home/user/outputs",
        str(images._ROOT): "/opt/sweeper",
    }
    for path, ordinary in replaced.items():
        word = word.replace(path, ordinary)
    word = re.sub(r"^(sweeper\.owner)=.*", r"\1=4711:123456", word)
    word = re.sub(r"^(sweeper\.boot)=.*", r"\1=0d5f6a2e-5c0e-4c6e-9a53-3b8a4f1f2f10", word)
    word = re.sub(r"^(sweeper\.trial)=.*", r"\1=8f1e2d3c4b5a6978", word)
    return re.sub(r"(vllm-0\.11\.2-mi300x)-[0-9a-f]{8}", r"\1-1b2c3d4e", word)


def table() -> str:
    """Write one command whole, and the options in which those of the other blocks differ."""
    with tempfile.TemporaryDirectory() as folder:
        found = {block: words_of(containers.DOCKER, block, Path(folder)) for block in BLOCKS}
        podman = [words_of(containers.PODMAN, block, Path(folder)) for block in BLOCKS]
    # The page says it once for both.
    assert [words[1:] for words in podman] == [words[1:] for words in found.values()]
    first, *others = ({*_options(words)} for words in found.values())
    shared = first.intersection(*others)
    rows = [
        f"| {block.title} | {own} |"
        for block, words in found.items()
        for own in [" ".join(f"`{option}`" for option in _options(words) if option not in shared)]
    ]
    head = "| block | options that differ |\n|---|---|"
    return "\n".join([f"```bash\n{_folded(found[BLOCKS[0]])}\n```\n", head, *rows]) + "\n"


def _options(words: tuple[str, ...]) -> list[str]:
    return [" ".join(line) for line in _lines(words)]


def _lines(words: tuple[str, ...]) -> list[list[str]]:
    lines: list[list[str]] = [[]]
    for word in words:
        if lines[-1] and (word.startswith("--") or word == IMAGE):
            lines.append([])
        lines[-1].append(shlex.quote(word))
    return lines


def _folded(words: tuple[str, ...]) -> str:
    """Join a command, as many options on a line as the page has room for."""
    lines = [""]
    for option in _options(words):
        if len(lines[-1]) + len(option) > WIDTH:
            lines.append("")
        lines[-1] += f" {option}"
    return " \\\n  ".join(line.strip() for line in lines)


def write() -> None:
    """Put the commands into the page."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table()}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    write()
