"""How long a grid of scheduler settings takes here, and by vLLM's own ``vllm bench sweep serve``.

Both measure the same 2 x 2 settings (max_num_seqs 8 and 32, max_num_batched_tokens 512 and 2048) of the same
tiny model with the same load (40 random prompts of 128 tokens, 32 answered, all at once) on the real vLLM,
one engine at a time, with the same variables and a compile cache each. They alternate, the order changing
with every round, and what is reported is the ratio of wall times of one round: other programs on the machine
slow both. The sweep's wall time is that of its whole command, proof, warm-up, charts and report included; the
peer does nothing of these.

    python benchmarks/sweep_peer.py [--rounds 3] [--runs 1 3] [--ways fresh live]   # needs: cpu-vllm

``--runs`` are runs of the load per setting. With the CPU build from PyPI the command ``vllm`` does not find
its own version; the peer is given the same entry of it that engines get here. Before the first round each is
run once, untimed, on one setting, so that caches and disk are warm for both. ``--lock FILE`` waits before
each run until no other program holds that file, so that runs of other people can come in between.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from sweeper.engines.vllm_environment import probe, write_metadata_stub
from sweeper.models import tiny
from sweeper.processes.ports import ReservedPort
from sweeper.store.store import Store

SEQS, TOKENS = (8, 32), (512, 2048)
_PROMPTS, _INPUT, _OUTPUT, _LONGEST = 40, 128, 32, 1024
_WAYS = {"fresh": ("engine.live=false",), "live": ("engine.live=auto",)}
# What an engine of the sweeper is told of processors and memory; the peer's inherit it.
_SHARED = ("VLLM_CPU_", "OMP_", "GOMP_", "KMP_")


def main() -> None:
    """Alternate, and print each wall time and the ratios."""
    args = _parser().parse_args()
    with tempfile.TemporaryDirectory(prefix="sweep-peer-", dir=args.scratch) as scratch:
        bench = Bench(Path(scratch), python=args.python)
        with _alone(args.lock):
            bench.warm_up()
        for runs in args.runs:
            _compare(bench, runs=runs, ways=args.ways, rounds=args.rounds, lock=args.lock)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="how often each is run; default: 3")
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 3], help="runs of the load per setting")
    parser.add_argument("--ways", nargs="+", choices=list(_WAYS), default=list(_WAYS), help="of the sweeper")
    parser.add_argument("--python", default=".venv-vllm/bin/python", help="interpreter that has vLLM")
    parser.add_argument("--scratch", type=Path, help="takes a folder of its own; default: the usual one")
    parser.add_argument("--lock", type=Path, help="file that other heavy programs hold while they run")
    return parser


def _compare(bench: Bench, *, runs: int, ways: Sequence[str], rounds: int, lock: Path | None) -> None:
    """Run all ways in turn, and print the ratio to the peer of every round and their median."""
    timed: dict[str, list[float]] = {name: [] for name in ("peer", *ways)}
    for number in range(rounds):
        for name in list(timed) if number % 2 == 0 else list(reversed(timed)):
            folder = f"{name}-{runs}-{number}"
            with _alone(lock):
                load, began = os.getloadavg()[0], time.monotonic()
                if name == "peer":
                    bench.peer(folder, runs=runs)
                else:
                    bench.sweep(folder, *_WAYS[name], runs=runs)
                timed[name].append(time.monotonic() - began)
            print(
                f"{runs} runs, round {number + 1}: {name:5} {timed[name][-1]:6.1f} s "
                f"(load average {load:.1f} before, {os.getloadavg()[0]:.1f} after)",
                flush=True,
            )
    for name in ways:
        ratios = [own / peer for own, peer in zip(timed[name], timed["peer"], strict=True)]
        told = ", ".join(f"{ratio:.3f}" for ratio in ratios)
        print(f"{runs} runs: {name} / peer {statistics.median(ratios):.3f} (rounds: {told})", flush=True)


@contextmanager
def _alone(lock: Path | None) -> Iterator[None]:
    """Hold a file that others hold while they load the machine."""
    if lock is None:
        yield
        return
    with lock.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


class Bench:
    """Both commands, in one folder and with one environment."""

    def __init__(self, scratch: Path, *, python: str) -> None:
        """Make the model that both serve.

        Args:
            scratch: Takes everything.
            python: Interpreter that has vLLM.
        """
        self._scratch = scratch
        self._python = Path(python).absolute()
        self._model = tiny.describe(scratch / "models").path
        self._told: Mapping[str, str] = {}

    def warm_up(self) -> None:
        """Run each once, untimed; the sweep's engine tells which variables the peer's are to have."""
        self.sweep("warm-up", "space.knobs.max_num_seqs=[8]", "space.knobs.max_num_batched_tokens=[512]")
        [command] = self._scratch.glob("warm-up/trials/*/engine-1-0.command.json")
        told = json.loads(command.read_text(encoding="utf-8"))["environment"]
        self._told = {name: value for name, value in told.items() if name.startswith(_SHARED)}
        self.peer("peer-warm-up", runs=1, seqs=SEQS[:1], tokens=TOKENS[:1])

    def sweep(self, name: str, *overrides: str, runs: int = 1) -> None:
        """Run the grid by this program, and check that every setting has its numbers."""
        listed = {"max_num_seqs": SEQS, "max_num_batched_tokens": TOKENS}
        space = [f"space.knobs.{knob}=[{','.join(map(str, values))}]" for knob, values in listed.items()]
        self._run(
            [
                *(sys.executable, "-m", "sweeper", "+experiment=cpu_smoke", "executor=inline"),
                *(f"engine.python={self._python}", "executor.max_parallel=1"),
                *(f"study.outputs={self._scratch}", f"study.name={name}", f"runs_per_start={runs}"),
                *(f"workload.num_prompts={_PROMPTS}", "workload.request_rate_per_s=[null]"),
                *(f"workload.input_len={_INPUT}", f"workload.output_len={_OUTPUT}", *space),
                *overrides,
            ],
            env={**os.environ, "XDG_CACHE_HOME": str(self._scratch / "caches")},
        )
        rows = Store(self._scratch / name).read()
        if not (rows["state"] == "complete").all():
            raise SystemExit(f"{name}: not every trial is complete; see {self._scratch / name}")

    def peer(
        self, name: str, *, runs: int, seqs: Sequence[int] = SEQS, tokens: Sequence[int] = TOKENS
    ) -> None:
        """Run the grid by vLLM's own sweep, and check that every run left its numbers."""
        folder = self._scratch / name
        folder.mkdir()
        grid = [
            {"max_num_seqs": one, "max_num_batched_tokens": other, "max_model_len": _LONGEST}
            for one in seqs
            for other in tokens
        ]
        settings = folder / "settings.json"
        settings.write_text(json.dumps(grid), encoding="utf-8")
        with ReservedPort() as reserved:
            port = reserved.port
        serve = (
            f"vllm serve {self._model} --port {port} --served-model-name tiny-llama --load-format dummy "
            "--no-enable-prefix-caching --enforce-eager"
        )
        load = (
            f"vllm bench serve --port {port} --model {self._model} --served-model-name tiny-llama "
            f"--dataset-name random --random-input-len {_INPUT} --random-output-len {_OUTPUT} "
            f"--num-prompts {_PROMPTS} --ignore-eos --temperature 0"
        )
        self._run(
            [
                *("vllm", "bench", "sweep", "serve", "--serve-cmd", serve, "--bench-cmd", load),
                *("--serve-params", str(settings), "--num-runs", str(runs), "-o", str(folder / "results")),
            ],
            env=self._peer_environment(folder),
        )
        found = list(folder.glob("results/**/run=*.json"))
        if len(found) != runs * len(grid):
            raise SystemExit(f"{name}: {len(found)} results; expected {runs * len(grid)}")

    def _peer_environment(self, folder: Path) -> dict[str, str]:
        stub = write_metadata_stub(folder, probe(str(self._python)))
        return {
            **os.environ,
            **self._told,
            **({} if stub is None else {"PYTHONPATH": str(stub)}),
            "PATH": os.pathsep.join([str(self._python.parent), os.environ.get("PATH", os.defpath)]),
            "VLLM_CACHE_ROOT": str(self._scratch / "peer-caches"),
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
        }

    def _run(self, command: Sequence[str], *, env: Mapping[str, str]) -> None:
        done = subprocess.run(command, env=dict(env), capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(
                f"{command[:4]}: exit code {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
            )


if __name__ == "__main__":
    main()
