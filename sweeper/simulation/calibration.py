"""Named calibrations: every parameter of the model that is fitted or assumed, and how far off it then is.

A calibration is a file of data. The one that comes with the package is fitted to published figures
(``data/``); ``python -m sweeper calibrate`` makes others, from published figures or from a node's own
measured studies, and ``platform.calibration=NAME`` chooses one. docs/validation.md shows what the default
makes of every published figure.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from sweeper.errors import ConfigError, nearest
from sweeper.records.metrics import Kind, fitted
from sweeper.simulation.stack import Stack, stack_of
from sweeper.text.expected import NEVER_COMPARED
from sweeper.text.writing import write_answer

USUAL = {"v0": "article_0_6_2", "v1": "amd_0_10_0"}
"""The calibration that holds for a generation of the engine where none is chosen."""

METRICS = {metric.name: metric.words for metric in fitted(Kind.SERVER)}
"""What a calibration of a server is fitted to and judged by, with the words of a sentence."""

OFFLINE_METRICS = {metric.name: metric.words for metric in fitted(Kind.OFFLINE)}
"""The same of runs without a server."""

WORDS = METRICS | OFFLINE_METRICS

FOLDER = "calibrations"
"""Folder of a user's own, in that of all studies."""

_SHIPPED = Path(__file__).parent / "data"
_USUAL: Mapping[str, Mapping[str, float]] = {
    generation: json.loads((_SHIPPED / f"{name}.json").read_text("utf-8"))["values"]
    for generation, name in USUAL.items()
}
_DEFAULTS = _USUAL["v0"]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Efficiencies and overheads, all that is fitted and nothing else.

    The defaults are those of ``data/article_0_6_2.json``, which also says what each was fitted to and the
    errors that remain.

    Attributes:
        gemm_frac: Part of the peak matrix rate that large multiplications reach.
        fp8_gemm_frac: Part of ``gemm_frac`` that FP8 linear layers reach.
        dequantized_gemm_frac: Part of ``gemm_frac`` that layers reach whose weights are converted to a wider
            type before they are multiplied (int4; mxfp4 on a device without four-bit matrix instructions).
        expert_skew: How unevenly a router chooses experts: exponent of Zipf's law, 0 is uniform.
        gemm_half_tokens: Tokens at which a multiplication reaches half of that.
        weight_read_frac: Part of the memory bandwidth with which weights are read.
        prefill_attention_frac: Part of the peak matrix rate that attention over prompts reaches.
        kv_read_frac: Part of the memory bandwidth with which decoding reads the KV cache.
        decode_head_s: Decoding one sequence: time for each query head of each layer on one device.
        kernel_layer_s: What starting the kernels of one layer costs the device, for each forward pass.
        eager_layer_s: What the host takes to launch one layer without a graph beyond that, as prompts always
            run in V0; it runs beside the device.
        mixed_layer_s: What one layer costs the device on top when prompts and decodes share a step, with
            ROCm's kernels; others were never compared.
        sample_s: Sampling one token of one sequence; not divided by tensor parallelism.
        allreduce_s: Latency of one all-reduce.
        link_frac: Part of the links' bandwidth that an all-reduce reaches.
        host_step_s: Host work for one step, or one group of steps, in V0.
        host_sequence_s: Host work on top for each sequence in it.
        host_token_s: Host work for each token given back; multi-step does not save it.
        host_prefix_sequence_s: Host work on top for each sequence when V0 looks after a prefix cache.
        v1_host_frac: Host work of V1 relative to V0.
        single_host_frac: Host work of V0 on one device, whose worker is the engine's own process, relative to
            that for several, which are sent each step.
        capture_s: Decoding one sequence with graphs: time for each token of ``max_seq_len_to_capture`` and
            layer, because V0 lays out block tables and launches attention for that length.
        fp8_kv_frac: Extra time of decode attention with an fp8 KV cache, as a part of it.
        channels_frac: Extra bandwidth of an all-reduce with ``NCCL_MIN_NCHANNELS`` of 112 or more.
        numa_host_frac: Host work saved when NUMA balancing is off.
        load_bytes_per_s: Reading weights at start, for each device.
        boot_s: Start of processes, profiling and graph capture.
        restart_noise: Standard deviation of the logarithm of a factor on all times, drawn at each start.
        run_noise: The same, drawn at each run.
    """

    gemm_frac: float = _DEFAULTS["gemm_frac"]
    fp8_gemm_frac: float = _DEFAULTS["fp8_gemm_frac"]
    gemm_half_tokens: float = _DEFAULTS["gemm_half_tokens"]
    weight_read_frac: float = _DEFAULTS["weight_read_frac"]
    prefill_attention_frac: float = _DEFAULTS["prefill_attention_frac"]
    kv_read_frac: float = _DEFAULTS["kv_read_frac"]
    decode_head_s: float = _DEFAULTS["decode_head_s"]
    kernel_layer_s: float = _DEFAULTS["kernel_layer_s"]
    eager_layer_s: float = _DEFAULTS["eager_layer_s"]
    mixed_layer_s: float = _DEFAULTS["mixed_layer_s"]
    sample_s: float = _DEFAULTS["sample_s"]
    allreduce_s: float = _DEFAULTS["allreduce_s"]
    link_frac: float = _DEFAULTS["link_frac"]
    host_step_s: float = _DEFAULTS["host_step_s"]
    host_sequence_s: float = _DEFAULTS["host_sequence_s"]
    host_token_s: float = _DEFAULTS["host_token_s"]
    host_prefix_sequence_s: float = _DEFAULTS["host_prefix_sequence_s"]
    v1_host_frac: float = _DEFAULTS["v1_host_frac"]
    capture_s: float = _DEFAULTS["capture_s"]
    fp8_kv_frac: float = _DEFAULTS["fp8_kv_frac"]
    channels_frac: float = _DEFAULTS["channels_frac"]
    numa_host_frac: float = _DEFAULTS["numa_host_frac"]
    load_bytes_per_s: float = _DEFAULTS["load_bytes_per_s"]
    boot_s: float = _DEFAULTS["boot_s"]
    restart_noise: float = _DEFAULTS["restart_noise"]
    run_noise: float = _DEFAULTS["run_noise"]
    dequantized_gemm_frac: float = _DEFAULTS["dequantized_gemm_frac"]
    expert_skew: float = _DEFAULTS["expert_skew"]
    single_host_frac: float = 1.0

    def override(self, values: Mapping[str, float]) -> Calibration:
        """Return a copy with some parameters replaced.

        Raises:
            ConfigError: A name is unknown, or a value is negative or not a number.
        """
        if not values:
            return self
        known = [field.name for field in fields(self)]
        for name, value in values.items():
            if name not in known:
                raise ConfigError(
                    f"calibration: got '{name}'; expected one of {', '.join(known)}. "
                    f"Rename or remove it.{nearest(name, known)}"
                )
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise ConfigError(
                    f"calibration: {name} is {value!r:.40}; expected a number, 0 or more. Change it."
                )
        return replace(self, **dict(values))


LATER: Mapping[str, float] = {
    name: getattr(Calibration(), name)
    for name in ("dequantized_gemm_frac", "expert_skew", "single_host_frac")
}
"""Parameters that came after stored trials, and their defaults: keys do not name them where they stay so.

The first two are assumed; nothing was fitted to tell them. Half of the speed stands for kernels that convert
weights in their inner loop; training aims at a uniform choice of experts (``experts``). The article has no
run on one device."""


CPU_START: Mapping[str, float] = {
    "gemm_frac": 2e-4,
    "gemm_half_tokens": 16.0,
    "weight_read_frac": 4e-3,
    "prefill_attention_frac": 1e-4,
    "kv_read_frac": 1e-3,
    "decode_head_s": 1e-6,
    "kernel_layer_s": 1e-4,
    "sample_s": 1e-4,
}
"""Where the fit of a CPU begins, as parts of the modelled device's peaks: 0.26 TFLOP/s and 21 GB/s."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What the runs had in common that a calibration was compared with; elsewhere its error is not known.

    Attributes:
        generations: ``v0``, ``v1``.
        datasets: As load points name them.
        modes: Partition modes of the devices.
        models: Names without owner.
        kinds: What these had beyond a dense model built as Llama is, as ``builds.kinds_of`` names it.
    """

    generations: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for entry in fields(self):
            object.__setattr__(self, entry.name, tuple(getattr(self, entry.name)))

    def lacks(self, *, generation: str, dataset: str, mode: str | None, model: str) -> list[str]:
        """Return what of a run was never compared; empty where all of it was."""
        lacking = []
        if generation not in self.generations:
            lacking.append(f"engine {generation.upper()}")
        if dataset not in self.datasets:
            lacking.append(f"dataset {dataset}")
        if mode is not None and mode not in self.modes:
            lacking.append(f"partition mode {mode}")
        if bare_name(model) not in self.models:
            lacking.append(f"model {bare_name(model)}")
        return lacking


@dataclass(frozen=True, kw_only=True)
class NamedCalibration:
    """A calibration as read from its file.

    Attributes:
        name: Under which rows name it.
        about: What it models and where it comes from, one sentence.
        made: Day of the fit, ``2026-11-21``.
        values: Parameter to value; a parameter that is not there has the default's.
        fitted: Fitted parameter to the runs that it was fitted to; every other one is assumed.
        errors_pct: ``fit`` and ``validation`` to metric to mean absolute error in percent.
        compared: Runs that it was compared with.
        stack: Software and device that it is of; None where its file does not say it.
        taken: Parameter that was not fitted to the calibration, or the source, that it comes from.
    """

    name: str
    about: str
    made: str
    values: Mapping[str, float]
    fitted: Mapping[str, str] = field(default_factory=dict)
    errors_pct: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    compared: Compared = Compared()
    stack: Stack | None = None
    taken: Mapping[str, str] = field(default_factory=dict)

    @property
    def calibration(self) -> Calibration:
        """The parameters themselves.

        Raises:
            ConfigError: One is unknown or out of range.
        """
        return Calibration().override(self.values)

    def with_changes(self, values: Mapping[str, float]) -> NamedCalibration:
        """Return it whole, with some parameters changed by hand; then its errors are not known.

        Raises:
            ConfigError: A name is unknown, or a value is negative or not a number.
        """
        whole = replace(self, values=asdict(self.calibration.override(values)))
        if not values:
            return whole
        changes = ", ".join(f"{name}={value:g}" for name, value in sorted(values.items()))
        return replace(whole, name=f"{self.name} with {changes}", errors_pct={}, stack=None)

    @property
    def trial_values(self) -> dict[str, float]:
        """Values as trials carry them: what came later is left out where it has its default."""
        return {name: value for name, value in self.values.items() if value != LATER.get(name)}

    @property
    def errors_text(self) -> str:
        """The mean absolute error on runs that were not fitted; where there are none, on those that were."""
        role = "validation" if self.errors_pct.get("validation") else "fit"
        errors = self.errors_pct.get(role, {})
        if not errors:
            return "unknown: never compared with a measurement"
        words = ", ".join(f"{WORDS[name]} {errors[name]:.0f} %" for name in WORDS if name in errors)
        return f"{words} ({'runs not fitted' if role == 'validation' else 'the runs fitted'})"

    def expected_error(
        self,
        *,
        generation: str,
        datasets: Iterable[str],
        mode: str | None,
        model: str,
        kinds: Iterable[str] = (),
    ) -> str:
        """Describe how far off a simulated number of this kind is to be expected.

        Args:
            generation: Of the engine, ``v0`` or ``v1``.
            datasets: Of the load points.
            mode: Partition mode of the devices, or None.
            model: Name of the model.
            kinds: What it has beyond a dense model built as Llama is (``builds.kinds_of``).
        """
        new = [kind for kind in kinds if kind not in self.compared.kinds]
        if new:
            return f"{NEVER_COMPARED} {', '.join(f'of {kind}' for kind in new)}"
        if not self.errors_pct:
            return self.errors_text
        lacking: list[str] = []
        for dataset in datasets:
            lacking += self.compared.lacks(generation=generation, dataset=dataset, mode=mode, model=model)
        if lacking:
            return f"unknown: never compared with {', '.join(dict.fromkeys(lacking))}"
        return self.errors_text

    def write(self, folder: Path) -> Path:
        """Write it to ``folder/NAME.json``; return the file."""
        return write_answer(folder / f"{self.name}.json", json.dumps(asdict(self), indent=2) + "\n")


def parameters(values: Mapping[str, float], *, generation: str) -> Calibration:
    """Return the usual parameters of a generation of the engine, with some of them changed.

    Args:
        values: Parameter to value; those that are not there are the usual ones.
        generation: ``v0`` or ``v1``.

    Raises:
        ConfigError: A name is unknown, or a value is out of range.
    """
    return Calibration().override(_USUAL[generation]).override(values)


def load(name: str | None = None, *, folder: Path | None = None, generation: str = "v0") -> NamedCalibration:
    """Find a calibration by its name or its file.

    Args:
        name: A name, or the path of a ``.json`` file; None is the usual one of the generation.
        generation: Of the engine, ``v0`` or ``v1``.
        folder: Where a user's own lie; shipped ones come first.

    Raises:
        ConfigError: There is none of this name, or its file is no calibration.
    """
    name = USUAL[generation] if name is None else name
    if name.endswith(".json"):
        path = Path(name)
        if not path.is_file():
            raise ConfigError(f"platform.calibration: '{name}' is no file. Name one, or a calibration.")
        return _read(path)
    for place in filter(None, (_SHIPPED, folder)):
        if re.fullmatch(r"[\w.-]+", name) and (place / f"{name}.json").is_file():
            return _read(place / f"{name}.json")
    known = names(folder)
    raise ConfigError(
        f"platform.calibration: there is no '{name}'; expected one of {', '.join(known)}, or the path of a "
        f".json file.{nearest(name, known)} Make one with: "
        f"python -m sweeper calibrate STUDY_FOLDER --name {name}"
    )


def names(folder: Path | None = None) -> tuple[str, ...]:
    """List the calibrations: the shipped ones, then the user's own in a folder."""
    places = [_SHIPPED, *([folder] if folder is not None else [])]
    return tuple(dict.fromkeys(path.stem for place in places for path in sorted(place.glob("*.json"))))


def bare_name(model: str) -> str:
    """Return a model's name without its owner, in small letters."""
    return model.rstrip("/").rsplit("/", maxsplit=1)[-1].lower()


def _read(path: Path) -> NamedCalibration:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        compared = Compared(**content.get("compared", {}))
        stack = stack_of(content["stack"]) if content.get("stack") else None
        found = NamedCalibration(**{**content, "compared": compared, "stack": stack})
    except (OSError, ValueError, TypeError, AttributeError) as exc:
        raise ConfigError(
            f"{path}: is no calibration ({exc}); expected JSON as 'python -m sweeper calibrate' writes it. "
            "Make it anew."
        ) from exc
    check_values(path, found.values)
    return found


def check_values(path: Path, values: Any) -> None:
    """Raise a ConfigError where what a file holds is no mapping from parameters to numbers."""
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: got {values!r:.40}; expected parameters and their numbers. Correct it.")
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"{path}: {name} is {value!r:.40}; expected a number. Correct it.")
    try:
        Calibration().override(values)
    except ConfigError as exc:
        raise ConfigError(f"{path}: {exc}") from exc
