"""What a further client run costs beyond what it measures: a warm client against a process per run.

A sweep that starts `vllm bench serve` anew for every run pays for Python, torch and vLLM's imports each
time. The sweeper's client imports once, while the engine boots, and takes load points one after another.
Both are vLLM's own benchmark with the same arguments against the same server here; runs alternate.

    python benchmarks/client_overhead.py [--runs 3]       # needs the CPU build: python -m sweeper cpu-vllm

Prints, per way, the median of (wall time - measured duration) over the runs, and their ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from sweeper import config
from sweeper.clients.vllm_bench import VllmBenchClient, benchmark_arguments
from sweeper.engines.vllm import VllmEngine
from sweeper.engines.vllm_environment import probe, write_metadata_stub
from sweeper.models import tiny
from sweeper.plan.planner import Planner
from sweeper.prepare import interpreter, platform
from sweeper.records import Platform
from sweeper.schedule.allocator import Allocator
from sweeper.topology import read_cpu


def main() -> None:
    """Start one server, load it in both ways in turn, and print what each costs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    composed, _ = platform.compose_for_platform(["+experiment=cpu_smoke"], config_dir=None)
    settings = config.settings(composed, platform=Platform.CPU)
    python = interpreter.find_engine_python(settings)
    environment = probe(python)
    node = read_cpu(1)
    with tempfile.TemporaryDirectory() as folder:
        planner = Planner(
            study="client-overhead",
            trials_folder=folder,
            space=settings.space,
            engine=replace(settings.engine, python=python, release=environment.release),
            model=tiny.describe(Path(folder) / "models"),
            platform=Platform.CPU,
            node=node,
            accelerator="cpu",
            load_points=settings.load_points[-1:],
        )
        spec = planner.grid()[-1].spec
        placement = Allocator(node).acquire(1)
        assert placement is not None
        client = VllmBenchClient(spec, placement)
        try:
            server = VllmEngine().start(spec, placement, restart=0, cancelled=lambda: False)
            try:
                point = spec.load_points[0]
                warm, cold = [], []
                stub = write_metadata_stub(Path(spec.folder), environment)
                client.warm_up(server, point, prompts=4, cancelled=lambda: False)
                for run in range(runs):
                    began = time.monotonic()
                    measured = client.measure(server, point, restart=0, repeat=run, cancelled=lambda: False)
                    warm.append(time.monotonic() - began - measured.measured_s)
                    result = Path(folder) / f"process-{run}.json"
                    arguments = benchmark_arguments(
                        spec, point, base_url=server.base_url, release=environment.release, result=result
                    )
                    began = time.monotonic()
                    subprocess.run(
                        [python, "-m", "vllm.entrypoints.cli.main", "bench", "serve", *arguments],
                        check=True,
                        capture_output=True,
                        env={**os.environ, "PYTHONPATH": str(stub or ""), "OPENAI_API_KEY": server.api_key},
                    )
                    took = time.monotonic() - began
                    cold.append(took - float(json.loads(result.read_text())["duration"]))
            finally:
                server.stop()
        finally:
            client.close()
    for name, values in (("warm client", warm), ("process per run", cold)):
        print(f"{name:<16} median {statistics.median(values):6.2f} s beyond the measurement, n={len(values)}")
    print(f"ratio            {statistics.median(cold) / statistics.median(warm):6.1f}")


if __name__ == "__main__":
    main()
