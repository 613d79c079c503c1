"""What the real vLLM keeps in its KV cache, for tiny models of each build, beside what ``fit`` says.

    python benchmarks/architectures.py [--like mixtral ...] [--results FILE] > docs/architectures.md

Each tiny model is started as a sweep starts it, on one core of this machine's CPU, with a KV cache of 1 GiB;
the engine proves what it runs with, answers a prompt, and logs how many tokens its cache holds. With
``--results`` rows are kept in a file as they come, and what stands there is not started again.

A start takes from half a minute to two minutes; all of them, about half an hour.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sweeper.engines import vllm_environment
from sweeper.engines.vllm import VllmEngine
from sweeper.errors import ConfigError, EngineError, MeasurementError, PlacementError
from sweeper.models import config_json, tiny
from sweeper.models.fit import Fit, fit
from sweeper.prepare import interpreter
from sweeper.records import Assignment, EngineSpec, LoadPoint, Model, Placement, Platform, TrialSpec

KV_CACHE_GIB = 1
MAX_MODEL_LEN = 2048
KNOBS: Assignment = {
    "enforce_eager": True,
    "max_model_len": MAX_MODEL_LEN,
    "max_num_seqs": 8,
    "VLLM_CPU_KVCACHE_SPACE": KV_CACHE_GIB,
}
"""What each is started with."""

_SIZE_LINE = re.compile(r"KV cache size: ([\d,]+) tokens")
_LOAD = LoadPoint(dataset="random", num_prompts=1, input_len=8, output_len=8)

_HEAD = """# Builds on the real engine

Made by `python benchmarks/architectures.py`: vLLM {release} (CPU build), tiny models with random weights
(`python -m sweeper tiny-model --like BUILD`), each started as a sweep starts it, with a KV cache of
{gib} GiB and sequences of at most {length} tokens. The engine logs how many tokens its KV cache holds; `fit`
works the same out from config.json alone.

| build | block, tokens | blocks | tokens logged | tokens of fit | off, tokens | answers |
|---|--:|--:|--:|--:|--:|---|
"""


@dataclass(frozen=True, kw_only=True)
class Started:
    """What an engine said of its KV cache, or why it did not start.

    Attributes:
        like: The build.
        block_tokens: Tokens in one block, as the engine reports them; None where it did not start.
        blocks: Blocks of its KV cache.
        tokens: Tokens that the cache holds, as it logs them.
        answer: What it answered to a prompt; empty where it failed at that.
        failure: Why it did not start or not answer, in the engine's own words; empty where it did.
    """

    like: str
    block_tokens: int | None = None
    blocks: int | None = None
    tokens: int | None = None
    answer: str = ""
    failure: str = ""


def main() -> None:
    """Start each, and print the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--like", nargs="*", choices=tiny.known(), default=tiny.known(), metavar="BUILD")
    parser.add_argument("--python", default=str(interpreter.CPU_VLLM_FOLDER / "bin" / "python"))
    parser.add_argument("--results", type=Path, help="a file of rows that are kept and not started again")
    options = parser.parse_args()
    known = _read(options.results)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for like in options.like:
            row = known.get(like) or started(like, folder=Path(folder), python=options.python)
            rows.append(row)
            print(row, file=sys.stderr, flush=True)
            _keep(options.results, {**known, **{row.like: row for row in rows}})
        release = vllm_environment.probe(options.python).release
        print(page(rows, folder=Path(folder), release=release), end="")


def started(like: str, *, folder: Path, python: str) -> Started:
    """Start a tiny model of a build, let it answer, and end it.

    Args:
        like: The build, one of `tiny.known`.
        folder: For the model and the engine's log.
        python: Interpreter of vLLM's environment.
    """
    spec = TrialSpec(
        study="architectures",
        folder=str(folder / "trials" / like),
        series=(),
        assignment=KNOBS,
        load_points=(_LOAD,),
        engine=EngineSpec(
            kind="vllm", release=vllm_environment.probe(python).release, python=python, start_timeout_s=600.0
        ),
        model=model_of(like, folder=folder),
        platform=Platform.CPU,
        devices_wanted=1,
    )
    here = Placement(node="here", devices=(0,), parents=(0,))
    try:
        server = VllmEngine().start(spec, here, restart=0, cancelled=lambda: False)
    except (EngineError, MeasurementError) as exc:
        return Started(like=like, failure=str(exc))
    try:
        said = server.effective
        log = Path(str(server.log_path)).read_text(encoding="utf-8", errors="replace")
        found = Started(
            like=like,
            block_tokens=int(str(said["block_size"])),
            blocks=int(str(said["num_gpu_blocks"])),
            tokens=_logged_tokens(log),
        )
        try:
            return dataclasses.replace(found, answer=server.sanity())
        except (EngineError, MeasurementError) as exc:
            return dataclasses.replace(found, failure=str(exc))
    finally:
        server.stop()


def model_of(like: str, *, folder: Path) -> Model:
    """Make a tiny model below a folder, and read it as any model is read."""
    path = tiny.make(folder / "models", like=like)
    try:
        found = config_json.read(path)
    except ConfigError:
        return Model(name=like, path=str(path), shape=None, is_dummy=True, no_shape_because="not read")
    return dataclasses.replace(found, name=like, path=str(path), is_dummy=True)


def fitted(model: Model, *, release: str, block_tokens: int) -> Fit:
    """Return what fit says of a device whose KV cache is as large as the engine's was."""
    knobs = {**KNOBS, "block_size": block_tokens}
    found = fit(model, knobs, release=release, device_memory_gib=64.0, accelerator="cpu")
    return dataclasses.replace(
        found, weights_gib=0.0, activations_gib=0.0, runtime_gib=0.0, memory_gib=KV_CACHE_GIB, memory_frac=1.0
    )


def page(rows: Sequence[Started], *, folder: Path, release: str) -> str:
    """Return the page in Markdown."""
    head = _HEAD.format(release=release, gib=KV_CACHE_GIB, length=MAX_MODEL_LEN)
    ran = [row for row in rows if row.tokens is not None]
    failed = [row for row in rows if row.failure]
    text = head + "".join(_line(row, folder=folder, release=release) for row in ran)
    if failed:
        text += "\n## What the CPU build does not run\n\n"
        text += "".join(f"- `{row.like}`: {row.failure}\n" for row in failed)
    return text


def _line(row: Started, *, folder: Path, release: str) -> str:
    try:
        model = model_of(row.like, folder=folder)
        tokens = fitted(model, release=release, block_tokens=int(row.block_tokens or 0)).tokens
        ours, off = f"{tokens:,}", f"{tokens - int(row.tokens or 0):+,}"
    except PlacementError:
        ours, off = "not worked out", ""
    counted = (row.like, f"{row.block_tokens}", f"{row.blocks:,}", f"{row.tokens:,}", ours, off)
    return f"| {' | '.join(counted)} | {'yes' if row.answer else 'no'} |\n"


def _logged_tokens(log: str) -> int | None:
    found = _SIZE_LINE.search(log)
    return int(found[1].replace(",", "")) if found else None


def _read(results: Path | None) -> dict[str, Started]:
    if results is None or not results.exists():
        return {}
    return {like: Started(**row) for like, row in json.loads(results.read_text(encoding="utf-8")).items()}


def _keep(results: Path | None, rows: dict[str, Started]) -> None:
    if results is not None:
        content = {like: dataclasses.asdict(row) for like, row in rows.items()}
        results.write_text(json.dumps(content, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
