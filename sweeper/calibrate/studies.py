"""Figures from a user's own measured studies: what a node really did, with the trial that models it.

Runs of one setting at one load point are averaged; their spread is the range of the figure. Some are kept out
of the fit to judge it by: every fourth setting, or every second load point of each. Which ones follows from
their content and order, so the same study always gives the same split.

A CPU is fitted for itself: how many of the modelled device's operations and bytes it does in a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

from sweeper.calibrate.figures import FIT, VALIDATION, Figure
from sweeper.engines.simulated import SimulatedEngine
from sweeper.errors import ConfigError, EngineError, FailureClass, first_line
from sweeper.intervals import normal_interval
from sweeper.models import config_json
from sweeper.records import (
    EngineSpec,
    LoadPoint,
    Model,
    ModelShape,
    Placement,
    Platform,
    Provenance,
    Scalar,
    TrialSpec,
    TrialState,
)
from sweeper.records.plurals import amount
from sweeper.simulation.calibration import METRICS
from sweeper.simulation.device import USUAL_DEVICE, device_named, model_name
from sweeper.store import description
from sweeper.store.columns import SECTIONS
from sweeper.store.description import Description
from sweeper.store.files import open_folder
from sweeper.store.store import Store

PLATFORMS = (str(Platform.MI300X), str(Platform.CUDA), str(Platform.CPU))
"""Platforms whose rows can be fitted; a CPU's say nothing of a GPU, and are fitted for themselves."""

JUDGES = ("settings", "loads")
"""What may be kept out of a fit to judge it by: every fourth setting, or every second load point of each."""

_HELD_OUT = 4
_LOAD_POINT = tuple(
    column.name
    for column in SECTIONS["Load point"]
    if column.name in {*LoadPoint.__dataclass_fields__} - {"dataset_path"}
)


def study_figures(
    folder: Path, *, judged_by: str | None = None, tell: Callable[[str], object] = lambda _: None
) -> list[Figure]:
    """Return the measured numbers of a study, with their split into fit and validation.

    Args:
        folder: The study's folder.
        judged_by: One of ``JUDGES``, what is kept out of the fit; None is settings where there are four, and
            load points of fewer.
        tell: Called with a line that says which trials are left out, since they cannot be modelled.

    Raises:
        ConfigError: It is no study, has no measured rows of a GPU, rows of another GPU than the one that a
            calibration is of, or of several, or none that can be modelled.
        StoreError: A stored part cannot be read.
    """
    about = _about(folder)
    frame = Store(folder, about.results).read()
    frame = frame[frame["state"].eq(str(TrialState.COMPLETE)) & frame["role"].isna()]
    measured = frame[frame["provenance"].eq(str(Provenance.MEASURED)) & frame["platform"].isin(PLATFORMS)]
    if measured.empty:
        kinds = (
            ", ".join(sorted(set(frame["provenance"] + " on " + frame["platform"]))) or "no complete trial"
        )
        raise ConfigError(
            f"{folder}: holds {kinds}; expected rows measured on {' or '.join(PLATFORMS)}. A calibration is "
            "fitted to what a machine really did: run the study there."
        )
    _check_devices(folder, measured)
    models, varying = _models(about), _varying(measured)
    trials: list[list[Figure]] = []
    refused: list[str] = []
    for _, rows in measured.groupby("trial_key", sort=True):
        try:
            trials.append(list(_trial_figures(about, models, rows, label=_label(rows.iloc[0], varying))))
        except EngineError as exc:
            refused.append(first_line(exc))
    trials = [trial for trial in trials if trial]
    count = measured["trial_key"].nunique()
    if not trials:
        why = refused[0] if refused else "it has no number of its runs"
        raise ConfigError(
            f"{folder}: none of its {amount(count, 'measured trial')} can be modelled; "
            f"expected settings that the simulated platform knows. Measure one. Of the first it says: {why}."
        )
    if refused:
        tell(
            f"{folder}: {len(refused)} of {amount(count, 'measured trial')} left out, since not modelled; of "
            f"the first: {refused[0]}"
        )
    return _split(folder, trials, judged_by)


def _split(folder: Path, trials: Sequence[Sequence[Figure]], judged_by: str | None) -> list[Figure]:
    """Give the figures of each trial their roles."""
    by = judged_by or JUDGES[len(trials) < _HELD_OUT]
    if by == JUDGES[0] and len(trials) < _HELD_OUT:
        raise ConfigError(
            f"--judge-by settings: {folder} holds {amount(len(trials), 'measured trial')} to fit; expected "
            f"at least {_HELD_OUT}, of which one is kept out of the fit. Give --judge-by loads."
        )
    figures: list[Figure] = []
    for number, trial in enumerate(trials):
        is_held_out = number % _HELD_OUT == _HELD_OUT - 1
        roles = (FIT, VALIDATION) if by == JUDGES[1] else (VALIDATION if is_held_out else FIT,)
        role_of = dict(zip(dict.fromkeys(figure.point for figure in trial), cycle(roles), strict=False))
        figures += [replace(figure, role=role_of[figure.point]) for figure in trial]
    return figures


def _check_devices(folder: Path, measured: Any) -> None:
    """Refuse rows of several GPUs, and of an AMD GPU other than the one that is modelled.

    Its speed would be fitted as the efficiency of that one. A study of one NVIDIA GPU is fitted for itself.
    Rows of early versions do not say which GPU it was, and some releases of amd-smi know no product's name.
    """
    usual = device_named(USUAL_DEVICE).product
    named = measured.dropna(subset=["device_name"])
    pairs = zip(*(named[column] for column in ("platform", "device_name")), strict=True)
    names: dict[str, set[str]] = {platform: set() for platform in PLATFORMS}
    for platform, name in pairs:
        names[str(platform)].add(str(name))
    others = {name for name in names[Platform.MI300X] if not _is_of(usual, name)}
    nvidia = names[Platform.CUDA]
    is_mixed = measured["platform"].nunique() > 1 or len(_products(nvidia)) > 1
    if others or (nvidia and is_mixed):
        held = sorted(others | nvidia | (names[Platform.MI300X] if nvidia else set()))
        raise ConfigError(
            f"{folder}: holds rows measured on {', '.join(held)}; expected {usual}, the GPU whose "
            "efficiency a calibration tells, or one and the same NVIDIA GPU. Give a study of one such GPU; "
            "platform.device models others by their data sheets."
        )


def _is_of(usual: str, name: str) -> bool:
    """Return whether devices of this name are, or may be, those of a product."""
    return {model_name(one) for one in _products({name})} <= {None, model_name(usual)}


def _products(names: Iterable[str]) -> set[str]:
    """Split the names of rows whose devices differed into those of the products."""
    return {one for name in names for one in name.split(" and ")}


def _about(folder: Path) -> Description:
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; expected a study's. Look into outputs/ for its name.")
    about = description.read(open_folder(folder, where="calibrate"))
    if about is None:
        raise ConfigError(f"{folder}: holds no {description.FILE}. Give the folder of a study.")
    if not about.engine_release:
        raise ConfigError(
            f"{folder}/{description.FILE}: has no engine_release; expected the vLLM that was measured. "
            "Start the study again to write the file anew."
        )
    return about


def _models(about: Description) -> dict[str, Model]:
    """Return the models of a study by name; those of unknown shape are left out."""
    series = (about.config.get("space") or {}).get("series") or {}
    given = [about.config.get("model"), *(entry.get("model") for entry in series.values() if entry)]
    found = {}
    for entry in given:
        described = _described(entry)
        if entry and described is not None and described.built is not None:
            dtype = entry.get("dtype") or described.dtype or "bfloat16"
            found[entry["name"]] = replace(described, name=entry["name"], path=entry["path"], dtype=dtype)
    return found


def _described(model: Mapping[str, Any] | None) -> Model | None:
    """Return a model of the configuration; of a folder that is still here, as that says."""
    if not model:
        return None
    name, path = str(model.get("name")), str(model.get("path"))
    try:
        if model.get("config"):
            return config_json.describe(model["config"], where="model.config", name=name, path=path)
        if model.get("shape"):
            shape = model["shape"]
            return Model(name=name, path=path, shape=ModelShape(**shape)) if shape.get("layers") else None
        return config_json.read(Path(path))
    except ConfigError:
        return None


def _trial_figures(
    about: Description, models: Mapping[str, Model], rows: Any, *, label: str
) -> Iterator[Figure]:
    """Yield the figures of a trial, load point by load point.

    Raises:
        EngineError: It cannot be modelled.
    """
    first = rows.iloc[0]
    if first["model"] not in models:
        raise EngineError(
            f"the build of {first['model']} is not known; expected a file of conf/model, or a folder with "
            "its config.json",
            failure=FailureClass.NOT_MODELLED,
        )
    points = dict.fromkeys(map(_load_point, rows.to_dict("records")))
    placement = Placement(
        node=first["node"],
        devices=tuple(int(device) for device in first["devices"]),
        parents=tuple(int(parent) for parent in first["parents"]),
        partition_mode=_plain(first["partition_mode"]),
        memory_mode=_plain(first["memory_mode"]),
    )
    spec = TrialSpec(
        study=str(first["study"]),
        folder="",
        series=tuple(first["series"]),
        assignment=_assignment(first),
        load_points=tuple(points),
        engine=EngineSpec(kind="simulated", release=str(about.engine_release)),
        model=models[first["model"]],
        platform=Platform.SIMULATED,
        devices_wanted=len(placement.devices),
        label=label,
    )
    SimulatedEngine().start(spec, placement, restart=0, cancelled=lambda: False)
    for point in points:
        same = rows[[_load_point(row) == point for row in rows.to_dict("records")]]
        for metric in METRICS:
            values = [float(value) for value in same[metric].dropna()]
            if values:
                figure = _figure(spec, placement, point, metric, values)
                yield replace(figure, platform=str(first["platform"]))


def _varying(measured: Any) -> list[str]:
    """Return the knobs that differ between the settings of a study, as columns name them."""
    knobs = [name for name in measured if name.startswith("knob.")]
    return [name for name in knobs if measured[name].astype(str).nunique() > 1]


def _label(row: Any, varying: Sequence[str]) -> str:
    """Name a setting by the knobs in which it differs from the others."""
    values = {name.removeprefix("knob."): _plain(row[name]) for name in varying}
    return ", ".join(f"{name}={value}" for name, value in values.items() if value is not None) or (
        "the one setting"
    )


def _figure(
    spec: TrialSpec,
    placement: Placement,
    point: LoadPoint,
    metric: str,
    values: Sequence[float],
) -> Figure:
    found = normal_interval(values)
    return Figure(
        experiment=spec.study,
        series=", ".join(spec.series) or spec.label,
        metric=metric,
        value=found.mean,
        low=found.low,
        high=found.high,
        point=point,
        spec=spec,
        placement=placement,
    )


def _assignment(row: Any) -> dict[str, Scalar]:
    """Read the knobs that a trial had; null leaves one to the engine."""
    return {
        name.removeprefix("knob."): _plain(value)
        for name, value in row.items()
        if name.startswith("knob.") and _plain(value) is not None
    }


def _load_point(row: Mapping[Any, Any]) -> LoadPoint:
    return LoadPoint(**{name: _plain(row[name]) for name in _LOAD_POINT})


def _plain(value: Any) -> Any:
    """Turn a cell into plain Python: no number of numpy, and None for each way to say that it is empty."""
    value = value.item() if hasattr(value, "item") else value
    is_missing = value is None or type(value).__name__ == "NAType" or value != value
    return None if is_missing else value
