"""From composed plain data to our own objects, each value checked where it becomes one."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeper.config.checks import check_choice, check_not_negative, check_positive, nonempty, scalar
from sweeper.config.domains import parse_domain
from sweeper.errors import ConfigError, nearest
from sweeper.records import (
    METRIC_NAMES,
    SEARCH_METHODS,
    EngineSpec,
    LoadPoint,
    Model,
    ModelShape,
    Objective,
    Platform,
    Scalar,
)
from sweeper.space import Rule, Series, Space


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A checked configuration in our own objects.

    Attributes:
        folder: The study's folder, ``outputs/<name>``.
        engine: With the release that the experiment was written for; a measured platform replaces it by
            the one it finds.
        insisted: Partition and memory mode that the node must be in, where the experiment says so.
        resolved: The composed configuration as plain data, for ``study.json``.
    """

    name: str
    experiment: str
    question: str
    source: str
    outputs: Path
    folder: Path
    storage: str | None
    platform: Platform
    devices: int | None
    insisted: tuple[str | None, str | None]
    engine: EngineSpec
    allow_unknown: bool
    model: Model
    load_points: tuple[LoadPoint, ...]
    warmup_prompts: int
    space: Space
    method: str
    trials: int | None
    seed: int
    objectives: tuple[Objective, ...]
    executor: str
    address: str
    max_parallel: int | None
    calibration: Mapping[str, float]
    repeats: int
    runs_per_start: int
    max_attempts: int
    retry_failed: bool
    is_plan: bool
    resolved: Mapping[str, Any]


def settings(composed: Mapping[str, Any], *, platform: Platform) -> Settings:
    """Turn a composed configuration into our own objects.

    Args:
        composed: From ``compose_run``.
        platform: The machine, which ``platform=auto`` leaves open.

    Raises:
        ConfigError: A value is out of range or does not fit with another; the message names its key.
    """
    root = composed
    study, engine, workload = root["study"], root["engine"], root["workload"]
    experiment = study["experiment"] or "study"
    name = study["name"] or f"{experiment}-{platform}"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ConfigError(
            f"study.name: '{name}' cannot name a folder; expected letters, digits, '.', '_' and '-'."
        )
    check_choice("search.method", root["search"]["method"], SEARCH_METHODS)
    check_choice("executor.kind", root["executor"]["kind"], ("ray", "inline"))
    check_choice("engine.kind", engine["kind"], ("auto", "vllm", "simulated"))
    check_choice("workload.dataset", workload["dataset"], ("random", "sharegpt"))
    for key in ("repeats", "runs_per_start", "max_attempts"):
        check_positive(key, root[key])
    for key in ("start_timeout_s", "sanity_timeout_s", "load_timeout_s", "stop_timeout_s"):
        check_positive(f"engine.{key}", engine[key])
    method, trials = root["search"]["method"], root["search"]["trials"]
    if method != "grid" and not trials:
        raise ConfigError(f"search.trials: is not given; expected how many trials search={method} may spend.")
    if trials is not None:
        check_positive("search.trials", trials)
    outputs = Path(study["outputs"])
    return Settings(
        name=name,
        experiment=experiment,
        question=study["question"],
        source=study["source"],
        outputs=outputs,
        folder=outputs / name,
        storage=study["storage"],
        platform=platform,
        devices=root["platform"]["devices"],
        insisted=(root["platform"]["partition_mode"], root["platform"]["memory_mode"]),
        engine=_engine(engine, platform),
        allow_unknown=engine["allow_unknown"],
        model=_model(root["model"]),
        load_points=_load_points(workload),
        warmup_prompts=check_not_negative("workload.warmup_prompts", workload["warmup_prompts"]),
        space=_space(root),
        method=method,
        trials=trials,
        seed=root["search"]["seed"],
        objectives=_objectives(root["objective"]),
        executor=root["executor"]["kind"],
        address=root["executor"]["address"],
        max_parallel=root["executor"]["max_parallel"],
        calibration=dict(root["calibration"]),
        repeats=root["repeats"],
        runs_per_start=root["runs_per_start"],
        max_attempts=root["max_attempts"],
        retry_failed=root["retry_failed"],
        is_plan=root["plan"],
        resolved=dict(root),
    )


def _engine(engine: Mapping[str, Any], platform: Platform) -> EngineSpec:
    kind = engine["kind"]
    if kind == "auto":
        kind = "simulated" if platform is Platform.SIMULATED else "vllm"
    if (kind == "simulated") != (platform is Platform.SIMULATED):
        raise ConfigError(
            f"engine.kind: is '{kind}' on platform '{platform}'; the simulated engine and the simulated "
            "platform belong together, so that no simulated number stands among measured ones. "
            "Use engine.kind=auto."
        )
    return EngineSpec(
        kind=kind,
        release=str(engine["release"]),
        python=None if kind == "simulated" else engine["python"],
        start_timeout_s=engine["start_timeout_s"],
        sanity_timeout_s=engine["sanity_timeout_s"],
        load_timeout_s=engine["load_timeout_s"],
        stop_timeout_s=engine["stop_timeout_s"],
    )


def _model(model: Mapping[str, Any]) -> Model:
    for name, value in model["shape"].items():
        if not isinstance(value, bool):
            check_positive(f"model.shape.{name}", value)
    for key in ("name", "path"):
        if not model[key]:
            raise ConfigError(f"model.{key}: is empty; expected the model's hub id or folder.")
    check_choice("model.dtype", model["dtype"], ("bfloat16", "float16", "float32", "fp8"))
    return Model(
        name=model["name"],
        path=model["path"],
        dtype=model["dtype"],
        is_dummy=model["is_dummy"],
        revision=model["revision"],
        shape=ModelShape(**model["shape"]),
    )


def _load_points(workload: Mapping[str, Any]) -> tuple[LoadPoint, ...]:
    axes = {
        "num_prompts": _numbers("num_prompts", workload, may_be_null=False, whole=True),
        "input_len": _numbers("input_len", workload, whole=True),
        "output_len": _numbers("output_len", workload, whole=True),
        "max_concurrency": _numbers("max_concurrency", workload, whole=True),
        "request_rate_per_s": _numbers("request_rate_per_s", workload),
    }
    if workload["dataset"] == "random":
        for key in ("input_len", "output_len"):
            if None in axes[key]:
                raise ConfigError(f"workload.{key}: is null; expected a number of tokens for dataset random.")
    if not 0 <= workload["range_ratio"] < 1:
        raise ConfigError(f"workload.range_ratio: is {workload['range_ratio']}; expected 0 <= ratio < 1.")
    points = tuple(
        LoadPoint(
            dataset=workload["dataset"],
            dataset_path=workload["dataset_path"],
            range_ratio=workload["range_ratio"],
            ignore_eos=workload["ignore_eos"],
            client_seed=workload["client_seed"],
            **dict(zip(axes, values, strict=True)),
        )
        for values in itertools.product(*axes.values())
    )
    if len(set(points)) < len(points):
        raise ConfigError("workload: two load points are equal. Remove the value that is listed twice.")
    return points


def _numbers(
    key: str, workload: Mapping[str, Any], *, may_be_null: bool = True, whole: bool = False
) -> list[Any]:
    given = workload[key]
    values = given if isinstance(given, list) else [given]
    where = f"workload.{key}"
    for value in nonempty(where, values):
        if value is None and may_be_null:
            continue
        is_number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        if not is_number or value <= 0:
            kind = "a whole number above 0" if whole else "a number above 0"
            null = ", or null" if may_be_null else ""
            raise ConfigError(f"{where}: is {value!r}; expected {kind}{null}.")
    return values if whole else [None if v is None else float(v) for v in values]


def _space(root: Mapping[str, Any]) -> Space:
    space = root["space"]
    series = tuple(
        Series(
            name=name,
            label=item["label"] or name,
            published=item["published"],
            knobs=_knobs(f"space.series.{name}.knobs", item["knobs"]),
        )
        for name, item in space["series"].items()
    )
    # What one series sets or the search varies is not fixed for the others.
    return Space(
        base=_knobs("knobs", root["knobs"]),
        series=series,
        domains={name: parse_domain(f"space.knobs.{name}", value) for name, value in space["knobs"].items()},
        rules=tuple(Rule(text=text) for text in space["rules"]),
    )


def _knobs(where: str, given: Mapping[str, Any]) -> dict[str, Scalar]:
    return {name: scalar(f"{where}.{name}", value) for name, value in given.items() if value is not None}


def _objectives(given: Mapping[str, Mapping[str, Any]]) -> tuple[Objective, ...]:
    if not given:
        raise ConfigError("objective: is empty; expected at least one, such as objective=throughput.")
    for name, item in given.items():
        where = f"objective.{name}"
        check_choice(f"{where}.direction", item["direction"], ("maximize", "minimize"))
        if item["metric"] not in METRIC_NAMES:
            raise ConfigError(
                f"{where}.metric: '{item['metric']}' is not a metric.{nearest(item['metric'], METRIC_NAMES)} "
                "See docs/columns.md for all."
            )
    return tuple(Objective(**item) for item in given.values())
