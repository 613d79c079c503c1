"""From composed plain data to our own objects, each value checked where it becomes one."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sweeper import knobs
from sweeper.config import engine as serving
from sweeper.config import initial_points, model, objective, questions, requests, unused, worth
from sweeper.config import workload as load
from sweeper.config.checks import (
    MOST_STARTS,
    MOST_TRIALS,
    check_choice,
    check_count,
    check_no_secret,
    check_no_secret_text,
    check_not_negative,
    check_positive,
    check_whole_numbers,
    nonempty,
    scalar,
)
from sweeper.config.device_ids import device_ids
from sweeper.config.effect import Run
from sweeper.config.release_source import Stated
from sweeper.config.search import endings
from sweeper.config.space import parse_condition, parse_fitting, parse_rule
from sweeper.errors import ConfigError
from sweeper.goals.termination import Termination
from sweeper.kinds import DATASETS, ENGINES, SEARCH_METHODS
from sweeper.records import (
    ClientSpec,
    Constraint,
    EngineSpec,
    LoadPoint,
    Model,
    Objective,
    Platform,
    Questions,
    Scalar,
    magnitudes,
)
from sweeper.schedule.queue import ORDERS
from sweeper.schedule.scheduler import ISOLATIONS
from sweeper.simulation import calibration, stacks
from sweeper.simulation.calibration import NamedCalibration
from sweeper.simulation.device import DEVICES, USUAL_DEVICE
from sweeper.simulation.stack import Asked, has_aiter, weights_of
from sweeper.space import control
from sweeper.space.space import Series, Space
from sweeper.text import confidential, urls

_MOST = 10**7


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A checked configuration in our own objects.

    Attributes:
        folder: The study's folder, ``outputs/<name>``.
        storage: SQLAlchemy URL of the search's database, password and all; None is a file in ``outputs``.
        results: Folder or URL of this study's results; None is its own folder.
        engine: With the release that the experiment was written for; a measured platform replaces it by
            the one it finds.
        live: Whether settings may share an engine's start: ``false``, ``auto`` or ``true``.
        release_stated_by: Where the user named the engine's release; None where only our own files do.
        devices: How many of the node's devices are used, the first ones; None takes all.
        device_ids: Which of them may be used, as the platform counts them; None takes all.
        insisted: Partition and memory mode that the node must be in, where the experiment says so.
        modelled_device: What the devices of a simulated platform are; None of any other.
        isolation: Whether trials run next to one another on a node (``shared``) or one at a time.
        order: In which order trials that wait are looked at (``schedule.queue.ORDERS``).
        control: Series, or ``base``, that is measured again and again to show drift; None for no such.
        control_every: A repetition of it after so many trials; None is start, middle and end.
        price_per_gpu_hour: What a GPU costs by the hour, for plan, report and costs; None leaves them out.
        currency: In what, as people write it behind the amount.
        accuracy: Questions that engines are asked before their loads; None asks none.
        calibration: Parameters of the simulation, all of them; on a measured platform those that were given.
        calibrated: The calibration that they are; None on a measured platform.
        starts: Choices that a search tries first, besides the defaults.
        stages: Knobs of each stage of a staged search.
        retry_pause_s: Before a transient failure is repeated, seconds; doubles with each time.
        plan_csv: File that a plan's time-line is written to, or None.
        plan_json: File that a plan is written to as JSON, ``-`` for standard output, or None.
        resolved: The composed configuration as plain data, for ``study.json``; passwords are masked.
        needs_engine_python: Whether vLLM's interpreter runs something: the server, or the load generator.
        left_out: Sentences about keys that yield to what was chosen by name, or have no use on what this run
            stands in for.
    """

    name: str
    experiment: str
    question: str
    source: str
    outputs: Path
    folder: Path
    storage: str | None
    results: str | None
    isolation: str
    order: str
    control: str | None
    control_every: int | None
    price_per_gpu_hour: float | None
    currency: str
    platform: Platform
    devices: int | None
    device_ids: tuple[int, ...] | None
    insisted: tuple[str | None, str | None]
    modelled_device: str | None
    engine: EngineSpec
    allow_unknown: bool
    live: str
    model: Model
    load_points: tuple[LoadPoint, ...]
    warmup_prompts: int
    client: ClientSpec
    accuracy: Questions | None
    space: Space
    method: str
    grid_limit: int
    trials: int | None
    seed: int
    starts: tuple[Mapping[str, Scalar], ...]
    stages: tuple[tuple[str, ...], ...]
    endings: Termination
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    executor: str
    address: str
    max_parallel: int | None
    calibration: Mapping[str, float]
    calibrated: NamedCalibration | None
    repeats: int
    runs_per_start: int
    max_attempts: int
    retry_pause_s: float
    retry_failed: bool
    is_plan: bool
    plan_csv: Path | None
    plan_json: str | None
    resolved: Mapping[str, Any]
    release_stated_by: Stated | None = None
    needs_engine_python: bool = True
    left_out: tuple[str, ...] = ()

    @property
    def joins_cluster(self) -> bool:
        """Whether trials run on the nodes of a Ray cluster that runs already."""
        return self.executor == "ray" and self.address != "local"


def settings(
    composed: Mapping[str, Any], *, platform: Platform, release_stated_by: Stated | None = None
) -> Settings:
    """Turn a composed configuration into our own objects.

    Args:
        composed: From ``compose_run``.
        platform: The machine, which ``platform=auto`` leaves open.
        release_stated_by: Where the user named ``engine.release`` (``release_source``).

    Raises:
        ConfigError: A value is out of range or does not fit with another; the message names its key.
    """
    root = composed
    check_whole_numbers("", root)
    study, engine, workload = root["study"], root["engine"], root["workload"]
    experiment = study["experiment"] or "study"
    name = study["name"] or _study_name(study, experiment, platform)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ConfigError(
            f"study.name: '{name}' cannot name a folder; expected letters, digits, '.', '_' and '-'."
        )
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", experiment):
        raise ConfigError(
            f"study.experiment: '{experiment}' cannot name a folder; "
            "expected letters, digits, '.', '_' and '-'."
        )
    check_choice("search.method", root["search"]["method"], tuple(SEARCH_METHODS))
    check_choice("study.isolation", study["isolation"], ISOLATIONS)
    check_choice("study.order", study["order"], ORDERS)
    check_choice("executor.kind", root["executor"]["kind"], ("ray", "inline"))
    for key in ("repeats", "runs_per_start", "max_attempts"):
        check_count(key, root[key], most=MOST_STARTS)
    method, trials = root["search"]["method"], root["search"]["trials"]
    if not SEARCH_METHODS[method].is_exhaustive and not trials:
        raise ConfigError(f"search.trials: is not given; expected how many trials search={method} may spend.")
    if trials is not None:
        check_count("search.trials", trials, most=MOST_TRIALS)
    check_not_negative("search.seed", root["search"]["seed"])
    for key, value in (
        ("platform.devices", root["platform"]["devices"]),
        ("executor.max_parallel", root["executor"]["max_parallel"]),
    ):
        if value is not None:
            check_positive(key, value)
    if not study["outputs"]:
        raise ConfigError("study.outputs: is empty; expected the folder of all studies, such as outputs.")
    space = _space(root, platform)
    _check_control(study, space)
    outputs = Path(study["outputs"])
    served = model.model(
        root["model"],
        needs_shape=platform is Platform.SIMULATED,
        preset=getattr(composed, "described", {}).get("model"),
    )
    calibrated = _calibrated(root, platform, outputs, served)
    load_points = _load_points(workload)
    asked = questions.of(root["accuracy"])
    worth_of = worth.Known(
        asks_questions=asked is not None and platform is not Platform.SIMULATED,
        price_per_gpu_hour=_price(study["price_per_gpu_hour"]),
        platform=platform,
        engine=engine["kind"],
        client=root["client"]["kind"],
        is_live=serving.live(engine["live"]) != "false",
    )
    found = Settings(
        name=name,
        experiment=experiment,
        question=_question(study),
        source=study["source"],
        outputs=outputs,
        folder=outputs / name,
        storage=study["storage"],
        results=_results(study["results"], name),
        isolation=study["isolation"],
        order=study["order"],
        control=study["control"],
        control_every=study["control_every"],
        price_per_gpu_hour=_price(study["price_per_gpu_hour"]),
        currency=study["currency"],
        platform=platform,
        devices=root["platform"]["devices"],
        device_ids=device_ids(root["platform"]["device_ids"]),
        insisted=(root["platform"]["partition_mode"], root["platform"]["memory_mode"]),
        modelled_device=_modelled_device(root["platform"]["device"], platform),
        engine=serving.engine(engine, platform),
        allow_unknown=engine["allow_unknown"],
        live=serving.live(engine["live"]),
        model=served,
        load_points=load_points,
        warmup_prompts=check_not_negative("workload.warmup_prompts", workload["warmup_prompts"]),
        client=load.client(root["client"], load_points),
        accuracy=asked,
        space=space,
        method=method,
        grid_limit=check_count("search.grid_limit", root["search"]["grid_limit"], most=MOST_TRIALS),
        trials=trials,
        seed=root["search"]["seed"],
        starts=initial_points.starts(root["search"]),
        stages=initial_points.stages(root["search"]),
        endings=endings(root["search"]),
        objectives=worth.known(objective.objectives(root["objective"], load_points), worth_of),
        constraints=worth.known(objective.constraints(root["objective"], load_points), worth_of),
        executor=root["executor"]["kind"],
        address=root["executor"]["address"],
        max_parallel=root["executor"]["max_parallel"],
        calibration=dict(root["calibration"]) if calibrated is None else calibrated.trial_values,
        calibrated=calibrated,
        repeats=root["repeats"],
        runs_per_start=root["runs_per_start"],
        max_attempts=root["max_attempts"],
        retry_pause_s=check_not_negative("retry_pause_s", root["retry_pause_s"]),
        retry_failed=root["retry_failed"],
        is_plan=root["plan"],
        plan_csv=Path(root["plan_csv"]) if root["plan_csv"] else None,
        plan_json=root["plan_json"] or None,
        resolved=confidential.masked(dict(root)),
        release_stated_by=release_stated_by,
        needs_engine_python=Run(root=root, platform=platform, datasets=frozenset()).needs_engine_python,
    )
    # After what has a better word for a secret in its place.
    check_no_secret_text("", root)
    # Last, so that a value which is wrong by itself is answered first.
    left_out = unused.check(
        root,
        platform=platform,
        presets=getattr(composed, "presets", {}),
        typed=getattr(composed, "typed", frozenset()),
    )
    yielded = filter(None, (getattr(composed, "replaced", ""),))
    return replace(found, left_out=(*yielded, *left_out))


def _study_name(study: Mapping[str, Any], experiment: str, platform: Platform) -> str:
    """Name a study after its experiment; a counterpart of the same name never shares a folder with it."""
    mark = "-today" if study["counterpart_of"] == experiment else ""
    return f"{experiment}{mark}-{platform}"


def _question(study: Mapping[str, Any]) -> str:
    """Return what is asked, which is the title of reports and charts; a counterpart says that it is one."""
    asked: str = study["question"]
    of = study["counterpart_of"]
    return f"{asked} (today's counterpart of {of})" if of else asked


def _modelled_device(chosen: str | None, platform: Platform) -> str | None:
    if platform is Platform.SIMULATED:
        check_choice("platform.device", chosen or USUAL_DEVICE, tuple(DEVICES))
        return chosen or USUAL_DEVICE
    return None


def _calibrated(
    root: Mapping[str, Any], platform: Platform, outputs: Path, served: Model
) -> NamedCalibration | None:
    """Find the calibration of a simulated platform, with what is changed in it.

    Unless one is chosen it is that of the stack nearest to the study's.
    """
    chosen = root["platform"]["calibration"]
    if platform is not Platform.SIMULATED:
        return None
    if chosen is not None:
        found = calibration.load(chosen, folder=outputs / calibration.FOLDER)
        return found.with_changes(root["calibration"])
    device = _modelled_device(root["platform"]["device"], platform)
    release = str(root["engine"]["release"])
    accelerator = knobs.accelerator_of(platform, modelled_device=device)
    asked = Asked(
        release=release,
        generation=knobs.engine_generation(release, accelerator=accelerator, assignment=root["knobs"]),
        device=device,
        weights=weights_of(served),
        aiter=has_aiter(root["knobs"]),
    )
    return stacks.nearest(asked).with_changes(root["calibration"])


def _check_control(study: Mapping[str, Any], space: Space) -> None:
    if study["control"] is not None:
        control.point_of(space, study["control"])
    if study["control_every"] is not None:
        check_positive("study.control_every", study["control_every"])


def _price(given: float | None) -> float | None:
    if given is not None:
        check_positive("study.price_per_gpu_hour", given)
    return given


def _results(given: str | None, name: str) -> str | None:
    """Return each study its own place below the one that is named for results."""
    if given is None:
        return None
    if confidential.has_password(given):
        raise ConfigError(
            f"study.results: '{confidential.masked(given)}' holds a secret, and is kept with the study; "
            "expected none. Give secrets by the variables of its store, such as AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY."
        )
    return urls.below(given, name) if urls.is_url(given) else str(Path(given).absolute() / name)


def _load_points(workload: Mapping[str, Any]) -> tuple[LoadPoint, ...]:
    points = tuple(
        point for given in load.variants(workload["points"]) for point in _product({**workload, **given})
    )
    if len(set(points)) < len(points):
        raise ConfigError("workload: two load points are equal. Remove the value that is listed twice.")
    if workload["second_run"]:
        return tuple(run for point in points for run in (point, replace(point, keeps_prefix_cache=True)))
    return points


def _product(workload: Mapping[str, Any]) -> Iterator[LoadPoint]:
    """Return a load point for every combination of the workload's lists."""
    check_choice("workload.dataset", workload["dataset"], tuple(DATASETS))
    kind = DATASETS[workload["dataset"]]
    axes = {
        "num_prompts": _prompts(workload),
        "input_len": _numbers("input_len", workload, whole=True),
        "output_len": _numbers("output_len", workload, whole=True),
        "max_concurrency": _numbers("max_concurrency", workload, whole=True),
        "request_rate_per_s": _numbers("request_rate_per_s", workload),
    }
    if kind.times is not None and workload["request_rate_per_s"] not in (None, [None]):
        raise ConfigError(
            f"workload.request_rate_per_s: is {workload['request_rate_per_s']}, and dataset {kind.name} has "
            "a time for each request; expected null. Set it to null, or take only its lengths: python -m "
            "sweeper traffic."
        )
    if kind.needs_output_len and None in axes["output_len"]:
        raise ConfigError(
            f"workload.output_len: is null; expected a number of tokens for dataset {kind.name}. Set it."
        )
    if not kind.has_own_lengths:
        for key in ("input_len", "output_len"):
            if None in axes[key]:
                raise ConfigError(
                    f"workload.{key}: is null; expected a number of tokens for dataset {workload['dataset']}."
                )
    if not 0 <= workload["range_ratio"] < 1:
        raise ConfigError(f"workload.range_ratio: is {workload['range_ratio']}; expected 0 <= ratio < 1.")
    path, searched = workload["dataset_path"], load.searches(workload)
    for values in itertools.product(*axes.values()):
        yield LoadPoint(
            dataset=workload["dataset"],
            # Its readers run in other folders than this process.
            dataset_path=None if path is None else str(Path(path).absolute()),
            range_ratio=workload["range_ratio"],
            ignore_eos=workload["ignore_eos"],
            client_seed=workload["client_seed"],
            goodput_ms=load.goodput(workload["goodput"], workload["dataset"]),
            **searched,
            **requests.of(workload),
            warmup_per_user=requests.warm_up(workload),
            **_settled(dict(zip(axes, values, strict=True)), workload["prompts_per_user"], searched),
        )


def _prompts(workload: Mapping[str, Any]) -> list[Any]:
    """Return the numbers of prompts; a single stand-in where they follow from ``max_concurrency``."""
    each = workload["prompts_per_user"]
    if each is None:
        return _numbers("num_prompts", workload, may_be_null=False, whole=True)
    check_count("workload.prompts_per_user", each, most=_MOST)
    if workload["max_users"] is None and None in _numbers("max_concurrency", workload, whole=True):
        raise ConfigError(
            f"workload.prompts_per_user: is {each}, and max_concurrency has null, which is no number of "
            "users; expected how many there are at once. Set workload.max_concurrency or workload.max_users, "
            "or leave it out."
        )
    return [each]


def _settled(
    values: Mapping[str, Any], prompts_per_user: int | None, searched: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the values of a load point; with users, each sends as many prompts as every other."""
    if prompts_per_user is None:
        return dict(values)
    # What searches for users is planned for the most; each probe sends as many as its own users do.
    search = searched["user_search"]
    users = values["max_concurrency"] if search is None else search.high
    return {**values, "num_prompts": prompts_per_user * users}


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
        # Beyond it no client could count them; it is also false for what is no number (.nan).
        if not is_number or not magnitudes.SMALLEST <= value < _MOST:
            kind = "a whole number above 0" if whole else "a number above 0"
            kind = f"{kind} (from {magnitudes.SMALLEST:g})" if is_number and 0 < value < 1 else kind
            kind += f", below {_MOST:,}" if is_number and value >= _MOST else ""
            null = ", or null" if may_be_null else ""
            raise ConfigError(f"{where}: is {value!r}; expected {kind}{null}.")
    return values if whole else [None if v is None else float(v) for v in values]


def _space(root: Mapping[str, Any], platform: Platform) -> Space:
    space = root["space"]
    own = ENGINES.get(root["engine"]["kind"])
    is_attached = own is not None and not own.is_started_by_us
    if is_attached:
        serving.refuse_variation(root)
    has_second_run = root["workload"]["second_run"]
    for name in space["knobs"]:
        check_no_secret(f"space.knobs.{name}", name)
    described = getattr(root, "described", {})
    series = tuple(
        _series(
            name,
            item,
            platform,
            has_second_run=has_second_run,
            preset=described.get(f"space.series.{name}.model"),
        )
        for name, item in space["series"].items()
    )
    parsed = {name: parse_condition(f"space.knobs.{name}", value) for name, value in space["knobs"].items()}
    fitted = {name: parse_fitting(f"space.knobs.{name}", value) for name, (value, _) in parsed.items()}
    # What one series sets or the search varies is not fixed for the others.
    return Space(
        # They say how we would start a server; one that already runs has its own, which it reports itself.
        base={} if is_attached else _knobs("knobs", root["knobs"]),
        series=series,
        domains={name: domain for name, (domain, _) in fitted.items()},
        conditions={name: condition for name, (_, condition) in parsed.items() if condition is not None},
        fittings={name: fitting for name, (_, fitting) in fitted.items() if fitting is not None},
        rules=tuple(parse_rule(f"space.rules[{place}]", rule) for place, rule in enumerate(space["rules"])),
    )


def _series(
    name: str, item: Mapping[str, Any], platform: Platform, *, has_second_run: bool, preset: str | None
) -> Series:
    where = f"space.series.{name}"
    # What is not modelled needs no shape; its series are refused on the simulated platform.
    startable = [kind.name for kind in ENGINES.values() if kind.has_devices]
    check_choice(f"{where}.engine", item["engine"], startable)
    needs_shape = platform is Platform.SIMULATED and ENGINES[item["engine"]].takes_vllm_flags
    if item["run"] is not None:
        check_choice(f"{where}.run", item["run"], ("fresh", "second"))
    if item["run"] == "second" and not has_second_run:
        raise ConfigError(
            f"{where}.run: is 'second', and workload.second_run is false; expected a second run to show. "
            "Set workload.second_run=true."
        )
    return Series(
        name=name,
        label=item["label"] or name,
        published=item["published"],
        run=item["run"],
        engine=item["engine"],
        model=None
        if item["model"] is None
        else model.model(item["model"], where=f"{where}.model", needs_shape=needs_shape, preset=preset),
        knobs=_knobs(f"{where}.knobs", item["knobs"]),
    )


def _knobs(where: str, given: Mapping[str, Any]) -> dict[str, Scalar]:
    for name in given:
        check_no_secret(f"{where}.{name}", name)
    return {name: scalar(f"{where}.{name}", value) for name, value in given.items() if value is not None}
