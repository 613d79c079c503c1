"""What the real vLLM keeps in its KV cache, for tiny models of each build, beside what ``fit`` says.

    python benchmarks/architectures.py [--like mixtral ...] [--again] > docs/architectures.md

Each tiny model is started as a sweep starts it, on one core of this machine's CPU, with a KV cache of 1 GiB;
the engine proves what it runs with, answers a prompt, and logs how many tokens its cache holds. What it said
is kept in architectures.json beside this file, and not asked again unless told to.

A start takes from half a minute to two minutes; all of them, about half an hour.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sweeper.engines import vllm_environment
from sweeper.engines.vllm import VllmEngine
from sweeper.errors import EngineError, MeasurementError
from sweeper.models import config_json, tiny
from sweeper.models.fit import Fit, fit
from sweeper.prepare import interpreter
from sweeper.records import Assignment, EngineSpec, LoadPoint, Model, Placement, Platform, TrialSpec

RELEASE = "0.32.0"
KV_CACHE_GIB = 1
MAX_MODEL_LEN = 2048
KNOBS: Assignment = {
    "enforce_eager": True,
    "max_model_len": MAX_MODEL_LEN,
    "max_num_seqs": 8,
    "VLLM_CPU_KVCACHE_SPACE": KV_CACHE_GIB,
    # On CPUs with AVX512-BF16 the build keeps states in this type whatever is said; so it is said on all.
    "mamba_ssm_cache_dtype": "float32",
}
"""What each is started with."""

RESULTS = Path(__file__).with_suffix(".json")
"""What the engine said, row by row."""

_SIZE_LINE = re.compile(r"KV cache size: ([\d,]+) tokens")
_LOAD = LoadPoint(dataset="random", num_prompts=1, input_len=8, output_len=8)

_HEAD = """# Builds on the real engine

Made by `python benchmarks/architectures.py`: tiny models with random weights (`tiny-model --like`) on vLLM
{release} (CPU build), a KV cache of {gib} GiB, at most {length} tokens a sequence. In brackets the tokens of
`fit`, where they differ from the log.

| build | blocks | tokens | layers x what they keep, tokens a block |
|---|--:|--:|---|
"""


_WHY = """
The CPU build is without torchvision here. Decoders of those models: `gemma3_text`, `llama4_text`, `qwen2`.
Up to 0.23 vLLM served Bamba.
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
    """Start those that are not known yet, and print the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--like", nargs="*", choices=tiny.known(), default=tiny.known(), metavar="BUILD")
    parser.add_argument("--python", default=str(interpreter.CPU_VLLM_FOLDER / "bin" / "python"))
    parser.add_argument("--again", action="store_true", help="start those too that are known")
    options = parser.parse_args()
    rows = read_rows()
    with tempfile.TemporaryDirectory() as folder:
        for like in options.like:
            if options.again or like not in rows:
                rows[like] = started(like, folder=Path(folder), python=options.python)
                print(rows[like], file=sys.stderr, flush=True)
                _keep(rows)
        print(page(list(rows.values()), folder=Path(folder)), end="")


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
    return dataclasses.replace(config_json.read(path), name=like, path=str(path), is_dummy=True)


def fitted(model: Model) -> Fit:
    """Return what fit says of a device whose KV cache is as large as the engine's was."""
    found = fit(model, KNOBS, release=RELEASE, device_memory_gib=64.0, accelerator="cpu")
    return dataclasses.replace(
        found, weights_gib=0.0, activations_gib=0.0, runtime_gib=0.0, memory_gib=KV_CACHE_GIB, memory_frac=1.0
    )


def page(rows: Sequence[Started], *, folder: Path) -> str:
    """Return the page in Markdown.

    Args:
        rows: What the engine said.
        folder: For the models, which are made again.
    """
    text = _HEAD.format(release=RELEASE, gib=KV_CACHE_GIB, length=MAX_MODEL_LEN)
    cells = ((f"`{row.like}`", _cells(row, folder=folder)) for row in rows if row.tokens is not None)
    text += "".join(f"| {builds} | {said} |\n" for said, builds in _joined(cells).items())
    failures = _joined(
        (f"`{row.like}`", row.failure.removesuffix(" See its log.")) for row in rows if row.failure
    )
    if failures:
        text += "\n## What does not start, or not answer\n\n"
        text += "".join(f"- {builds}: `{failure}`\n" for failure, builds in failures.items())
        text += _WHY
    missing = [like for like in tiny.known() if like not in {row.like for row in rows}]
    if missing:
        text += f"\nNot asked yet: {', '.join(missing)}.\n"
    return text


def _cells(row: Started, *, folder: Path) -> str:
    """Return the cells of a row after its build's name."""
    found = fitted(model_of(row.like, folder=folder))
    counts = Counter(_short(group.words) for group in found.cache.groups)
    groups = "; ".join(f"{count} x ({words})" if count > 1 else words for words, count in counts.items())
    differs = "" if found.tokens == row.tokens else f" ({found.tokens:,})"
    return f"{row.blocks:,} | {row.tokens:,}{differs} | {groups}"


def _short(words: str) -> str:
    return words.replace(" layers, ", " x ").removesuffix(" tokens a block")


def _joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the names of all builds of which the same is said, by what is said."""
    names: dict[str, list[str]] = {}
    for name, said in pairs:
        names.setdefault(said, []).append(name)
    return {said: ", ".join(alike) for said, alike in names.items()}


def _logged_tokens(log: str) -> int | None:
    found = _SIZE_LINE.search(log)
    return int(found[1].replace(",", "")) if found else None


def read_rows() -> dict[str, Started]:
    """Return what the engine said of each build, as it was kept."""
    if not RESULTS.exists():
        return {}
    return {like: Started(**row) for like, row in json.loads(RESULTS.read_text(encoding="utf-8")).items()}


def _keep(rows: dict[str, Started]) -> None:
    content = {like: dataclasses.asdict(rows[like]) for like in tiny.known() if like in rows}
    RESULTS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
