"""Small studies with numbers chosen by hand, stored for real."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from sweeper.records import (
    Constraint,
    EngineSpec,
    FailureClass,
    LoadPoint,
    Measurement,
    Model,
    Objective,
    Placement,
    Platform,
    Provenance,
    Scalar,
    TrialResult,
    TrialSpec,
    TrialState,
)
from sweeper.store.description import Description, Series
from sweeper.store.store import Store

Metrics = Mapping[str, float]
Runs = Sequence[Sequence[Metrics]]
"""Metrics of each run (inner) of each engine start (outer)."""

MARKUP = "<img src=x onerror=\"document.title='acted'\"></script><script>document.title='acted'</script>"
"""A text that would act on a page that took it for HTML."""

MakeTrial = Callable[..., TrialResult]


@pytest.fixture
def trial(llama_70b: Model) -> MakeTrial:
    """Make a trial: complete where ``runs`` are given, else failed for want of memory.

    ``runs`` are the same at every load point; ``runs_at`` gives those of one.
    """

    def make(
        *,
        series: tuple[str, ...] = (),
        knobs: Mapping[str, Scalar] | None = None,
        rates: Sequence[float | None] = (16.0,),
        runs: Runs = (),
        provenance: Provenance = Provenance.SIMULATED,
        model: Model = llama_70b,
        release: str = "0.6.2",
        ended_at: float = 1_700_000_000.0,
        points: tuple[LoadPoint, ...] | None = None,
        runs_at: Callable[[LoadPoint], Runs] | None = None,
        telemetry_at: Callable[[LoadPoint], Metrics] = lambda _: {},
        phases: Mapping[str, float] | None = None,
        effective: Mapping[str, Scalar] | None = None,
        name: str = "steps",
    ) -> TrialResult:
        given = tuple(
            LoadPoint(dataset="sharegpt", num_prompts=1000, request_rate_per_s=rate) for rate in rates
        )
        is_measured = provenance is Provenance.MEASURED
        spec = TrialSpec(
            study=name,
            folder="trial",
            series=series,
            assignment=knobs or {},
            load_points=points or given,
            engine=EngineSpec(kind="vllm" if is_measured else "simulated", release=release),
            model=model,
            platform=Platform.MI300X if is_measured else Platform.SIMULATED,
            devices_wanted=4,
        )
        measurements = tuple(
            Measurement(
                load_point=point,
                restart=restart,
                repeat=repeat,
                metrics=metrics,
                telemetry=telemetry_at(point),
                measured_s=1.0,
                client_overhead_s=0.5,
                started_at=ended_at - 1,
                ended_at=ended_at,
            )
            for point in spec.load_points
            for restart, start in enumerate(runs_at(point) if runs_at else runs)
            for repeat, metrics in enumerate(start)
        )
        return TrialResult(
            spec=spec,
            placement=Placement(node="node-7", devices=(0, 1, 2, 3), parents=(0, 1, 2, 3)),
            state=TrialState.COMPLETE if measurements else TrialState.FAILED,
            provenance=provenance,
            measurements=measurements,
            failure_class=None if measurements else FailureClass.OUT_OF_MEMORY,
            failure_message=None if measurements else "HIP out of memory",
            log_path=None if measurements else "trials/ab/engine.log",
            versions={"vllm": release},
            phases=phases or {},
            effective=effective or {},
            command=("vllm", "serve", "70B", *(f"--{name}={value}" for name, value in (knobs or {}).items())),
            started_at=ended_at - 1,
            ended_at=ended_at,
        )

    return make


def described(
    *,
    series: Mapping[str, Mapping[str, Any]] | None = None,
    objectives: Sequence[Mapping[str, Any]] = (),
    constraints: Sequence[Mapping[str, Any]] = (),
    **about: Any,
) -> Description:
    """Make a study's description of plain data; series that give no label or order have name and place."""
    return Description(
        **about,
        series={
            name: Series(**{"name": name, "label": name, "order": place, **entry})
            for place, (name, entry) in enumerate((series or {}).items())
        },
        objectives=tuple(Objective(**entry) for entry in objectives),
        constraints=tuple(Constraint(**entry) for entry in constraints),
    )


@pytest.fixture
def study_folder(tmp_path: Path) -> Callable[..., Path]:
    """Store trials, and study.json when something is said about the study; give its folder."""

    def make(*results: TrialResult, about: Mapping[str, Any] | None = None, name: str = "steps") -> Path:
        folder = tmp_path / name
        store = Store(folder)
        for result in results:
            store.append(result, queued_s=0.0, knobs=[])
        if about is not None:
            (folder / "study.json").write_text(described(**about).as_json, encoding="utf-8")
        return folder

    return make


@pytest.fixture
def experiments(tmp_path: Path) -> Path:
    """A folder of experiments in which somebody published 10 requests per second at 16 QPS for 'base'."""
    folder = tmp_path / "experiments" / "steps"
    folder.mkdir(parents=True)
    (folder / "published.csv").write_text(
        "series,metric,request_rate_per_s,value,low,high,method,system,model,source\n"
        "base,request_throughput_per_s,16,10.0,9.9,10.1,pixel reading,vLLM 0.6.2 on 4 MI300X,"
        "Llama-3.1-70B-Instruct,An article\n",
        encoding="utf-8",
    )
    return folder.parent


@pytest.fixture
def searched(trial: MakeTrial, study_folder: Callable[..., Path]) -> Path:
    """Twelve settings of two knobs; the fastest breaks the bound, and one more has failed twice over."""

    def one(seqs: int, steps: int) -> TrialResult:
        runs = [[{"request_throughput_per_s": seqs / 10 + steps, "p99_ttft_ms": 50.0 * steps}]]
        return trial(knobs={"max_num_seqs": seqs, "num_scheduler_steps": steps}, runs=runs)

    done = [one(seqs, steps) for seqs in (16, 32, 64) for steps in (1, 2, 4, 8)]
    failed = [trial(knobs={"max_num_seqs": seqs, "num_scheduler_steps": 1}) for seqs in (512, 1024)]
    about = {
        "question": f"How many? {MARKUP}",
        "objectives": [{"metric": "request_throughput_per_s", "direction": "maximize"}],
        "constraints": [{"metric": "p99_ttft_ms", "limit": 200.0, "is_upper": True}],
        "config": {"search": {"method": "tpe"}},
    }
    made: Path = study_folder(*done, *failed, about=about)
    log = made / "trials" / "ab" / "engine.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("started\n--api-key hunter22secret\n" + MARKUP + "\nHIP out of memory\n")
    return made
