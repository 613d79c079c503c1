"""One engine, many limits: what settings on one start give, beside a fresh start of each.

Starts vLLM once at the largest limits, with the live scheduler that is shipped (`sweeper.engines.live`), then
for each setting changes the limits, believes only what the scheduler confirms, and measures one load with
vLLM's own client. With --fresh, each setting is measured on a start of its own by the same load, too, the two
ways in turn; the prefix cache is empty before every load.

    python benchmarks/live_limits.py PYTHON MODEL FOLDER --seqs 8 32 --tokens 512 2048 [--fresh] [--starts 3]
        [-- ENGINE ARGUMENTS]

Run it where the sweeper is installed; PYTHON has vLLM. Writes FOLDER/live.json, each start's log and the
client's files. Results: docs/gpu.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sweeper.engines import live
from sweeper.engines.endpoint import Endpoint
from sweeper.engines.live import LiveLimits
from sweeper.engines.vllm_environment import probe, write_metadata_stub
from sweeper.knobs.live import LiveGroup, groups

_PORT = 18741
# `vllm bench serve` without the other commands: those ask for metadata, which a CPU build may lack.
_CLIENT = (
    "import argparse; from vllm.benchmarks import serve; parser = argparse.ArgumentParser(); "
    "serve.add_cli_args(parser); serve.main(parser.parse_args())"
)
_START_S = 240
_KEPT = ("request_throughput", "output_throughput", "mean_ttft_ms", "mean_tpot_ms", "p99_itl_ms")

Row = dict[str, Any]


def main() -> int:
    """Measure, print one line per load and what each way took, and end each engine."""
    own, engine = _split(sys.argv[1:])
    args = _parser().parse_args(own)
    args.folder.mkdir(parents=True, exist_ok=True)
    # Asked to end (timeout, a scheduler), it ends its engine first: one left behind holds the device.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    rows: list[Row] = []
    for start in range(args.starts):
        for way in ("live", "fresh") if args.fresh else ("live",):
            began = time.monotonic()
            rows += _live(args, engine, start) if way == "live" else _fresh(args, engine, start)
            rows.append({"way": way, "start": start, "wall_s": round(time.monotonic() - began, 1)})
            print(json.dumps(rows[-1]), flush=True)
            (args.folder / "live.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("python", help="an interpreter that has vLLM")
    parser.add_argument("model", help="a model folder; its weights are made at random")
    parser.add_argument("folder", type=Path, help="takes the results; made where missing")
    parser.add_argument("--seqs", type=int, nargs="+", required=True, help="limits in the order measured")
    parser.add_argument("--tokens", type=int, nargs="+", default=[2048], help="tokens a step, likewise")
    parser.add_argument("--starts", type=int, default=1, help="how often all of it is done")
    parser.add_argument("--fresh", action="store_true", help="also on a start of each setting")
    parser.add_argument("--prompts", type=int, default=240)
    parser.add_argument("--input-len", type=int, default=512)
    parser.add_argument("--output-len", type=int, default=128)
    return parser


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    if "--" not in words:
        return words, []
    at = words.index("--")
    return words[:at], words[at + 1 :]


def _group(args: argparse.Namespace) -> LiveGroup:
    """Return the one start that serves all settings, by the rules of the release."""
    product = itertools.product(args.seqs, args.tokens)
    settings = [{"max_num_seqs": seqs, "max_num_batched_tokens": tokens} for seqs, tokens in product]
    [group] = groups(settings, release=probe(args.python).release)
    return group


def _live(args: argparse.Namespace, engine: list[str], start: int) -> Iterator[Row]:
    group, folder = _group(args), args.folder / f"live-{start}"
    limits = LiveLimits(folder)
    with _started(args, [*_flags(group.start), *live.ARGUMENTS, *engine], folder, limits) as endpoint:
        limits.started()
        for number, setting in enumerate(group.members):
            said = limits.change(endpoint, group.limits(setting))
            yield _measured(args, folder, number, {"way": "live", "start": start, **said.limits})


def _fresh(args: argparse.Namespace, engine: list[str], start: int) -> Iterator[Row]:
    for number, setting in enumerate(_group(args).members):
        folder = args.folder / f"fresh-{start}-{number}"
        with _started(args, [*_flags(setting), *engine], folder, None):
            yield _measured(args, folder, number, {"way": "fresh", "start": start, **setting})


def _flags(setting: Mapping[str, object]) -> list[str]:
    return [word for knob, value in setting.items() for word in (f"--{knob.replace('_', '-')}", str(value))]


@contextmanager
def _started(
    args: argparse.Namespace, flags: list[str], folder: Path, limits: LiveLimits | None
) -> Iterator[Endpoint]:
    folder.mkdir(parents=True, exist_ok=True)
    stub = write_metadata_stub(folder, probe(args.python))
    paths = filter(None, (str(stub or ""), os.environ.get("PYTHONPATH")))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "VLLM_SERVER_DEV_MODE": "1"}
    if limits is not None:
        env |= limits.environment(env)
    command = [
        *(args.python, "-m", "vllm.entrypoints.openai.api_server", "--model", args.model),
        *("--load-format", "dummy", "--host", "127.0.0.1", "--port", str(_PORT), *flags),
    ]
    with (folder / "engine.log").open("wb") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=env, start_new_session=True
        )
    try:
        endpoint = Endpoint(base_url=f"http://127.0.0.1:{_PORT}")
        _wait_ready(server, endpoint)
        yield endpoint
    finally:
        server.send_signal(signal.SIGINT)
        try:
            server.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _wait_ready(server: subprocess.Popen[bytes], endpoint: Endpoint) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and server.poll() is None:
        if endpoint.get("/health", timeout_s=2).is_ok:
            return
        time.sleep(0.5)
    raise SystemExit("the engine did not become ready: see engine.log")


def _measured(args: argparse.Namespace, folder: Path, number: int, setting: Row) -> Row:
    name = f"load-{number}.json"
    command = [
        *(args.python, "-c", _CLIENT, "--backend", "vllm"),
        *("--model", args.model, "--base-url", f"http://127.0.0.1:{_PORT}", "--dataset-name", "random"),
        *("--random-input-len", str(args.input_len), "--random-output-len", str(args.output_len)),
        *("--ignore-eos", "--num-prompts", str(args.prompts), "--seed", str(number), "--save-result"),
        *("--result-dir", str(folder), "--result-filename", name),
    ]
    with (folder / f"client-{number}.log").open("wb") as log:
        subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=True)
    result = json.loads((folder / name).read_text(encoding="utf-8"))
    row = {**setting, "completed": result["completed"], **{key: round(result[key], 3) for key in _KEPT}}
    print(json.dumps(row), flush=True)
    return row


if __name__ == "__main__":
    sys.exit(main())
