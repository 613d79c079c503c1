"""The model beyond what it was fitted to: predictions beside public measurements of other models and GPUs.

    python benchmarks/predictions.py

writes ``docs/predictions.md`` and, with a row per number, ``docs/predictions.csv``.

What was found stands in ``sweeper/calibrate/data/public_measurements.json``. Each run has the calibration of
the stack nearest to it; tables that one is fitted to say so. What calibrations say of numbers that they have
not seen was computed by ``python -m sweeper calibrate --published errors``.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import pandas as pd

from sweeper.calibrate import pooled, public, sourced, unseen
from sweeper.calibrate.contradictions import contradictions
from sweeper.calibrate.figures import Figure, predict
from sweeper.errors import SweeperError
from sweeper.records import LoadPoint, Scalar, TrialSpec
from sweeper.records.plurals import percent
from sweeper.simulation import calibration, intervals, stacks
from sweeper.simulation.intervals import Unseen
from sweeper.text.writing import write_answer

DOCS = Path(__file__).resolve().parents[1] / "docs"

FAR_OFF = 0.3
"""Relative error beyond which a prediction is called far off."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One public number and what the model says to it.

    Attributes:
        run: What was run, in words.
        metric: One of the metrics of a row.
        published: As the source gives it, in the metric's unit.
        predicted: The same of the model; None where the model refuses.
        refusal: Why it does.
    """

    run: str
    metric: str
    published: float
    predicted: float | None
    refusal: str = ""

    @property
    def error(self) -> float | None:
        """Predicted over published, less 1."""
        return None if self.predicted is None else self.predicted / self.published - 1

    @property
    def speed(self) -> float | None:
        """How fast the model is beside what was measured: above 1, too fast."""
        if self.predicted is None:
            return None
        ratio = self.predicted / self.published
        return ratio if self.metric.endswith("_per_s") else 1 / ratio


@dataclass(frozen=True, kw_only=True)
class Unmeasured:
    """A prediction that no public measurement was found for."""

    title: str
    model: str
    devices: int
    device: str = "mi300x"
    mode: str | None = "SPX"
    release: str = "0.32.0"
    knobs: Mapping[str, Scalar]
    prompts: int = 1000
    rate_per_s: float | None = None


_UNMEASURED = (
    Unmeasured(
        title="Llama 3.1 8B on one CPX partition (an eighth of an MI300X), V0 with 10 steps",
        model="llama_3_1_8b_instruct",
        devices=1,
        mode="CPX",
        release="0.6.2",
        knobs={"max_model_len": 4096, "enable_chunked_prefill": False, "num_scheduler_steps": 10},
        prompts=200,
    ),
    Unmeasured(
        title="Llama 3.1 8B on one CPX partition",
        model="llama_3_1_8b_instruct",
        devices=1,
        mode="CPX",
        knobs={"max_model_len": 4096},
        prompts=200,
    ),
    Unmeasured(
        title="Llama 3.1 8B on one MI300X",
        model="llama_3_1_8b_instruct",
        devices=1,
        knobs={},
    ),
    Unmeasured(
        title="Llama 3.1 70B on 4 MI300X",
        model="llama_3_1_70b_instruct",
        devices=4,
        knobs={},
    ),
    Unmeasured(
        title="Llama 3.1 8B on one H200",
        model="llama_3_1_8b_instruct",
        devices=1,
        device="h200",
        mode=None,
        knobs={},
    ),
    Unmeasured(
        title="Llama 3.1 70B FP8 on 8 MI325X",
        model="llama_3_1_70b_instruct_fp8",
        devices=8,
        device="mi325x",
        knobs={},
    ),
    Unmeasured(
        title="Llama 3.1 405B FP8 on 8 MI355X",
        model="llama_3_1_405b_instruct_fp8",
        devices=8,
        device="mi355x",
        knobs={},
    ),
    Unmeasured(
        title="Mixtral 8x7B on 2 MI300X",
        model="mixtral_8x7b_instruct",
        devices=2,
        knobs={},
    ),
    Unmeasured(
        title="Qwen3-235B-A22B FP8 on 4 MI300X",
        model="qwen3_235b_a22b_fp8",
        devices=4,
        knobs={},
    ),
    Unmeasured(
        title="DeepSeek-R1 (FP8) on 8 MI300X",
        model="deepseek_r1",
        devices=8,
        knobs={},
    ),
    Unmeasured(
        title="DeepSeek-R1 (FP8) on 8 MI300X, expert parallel",
        model="deepseek_r1",
        devices=8,
        knobs={"enable_expert_parallel": True},
    ),
    Unmeasured(
        title="gpt-oss-120b (mxfp4) on one MI300X",
        model="gpt_oss_120b",
        devices=1,
        knobs={},
    ),
)


def main() -> None:
    """Write the page and its rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", nargs="?", type=Path, default=DOCS, help="folder; by default docs/")
    out = parser.parse_args().out
    compared = [(source, list(pairs(source))) for source in public.sources()]
    kept = rows(compared).round({"error": 4})
    kept["predicted"] = [float(f"{value:.6g}") for value in kept["predicted"].astype(float)]
    write_answer(out / "predictions.csv", kept.to_csv(index=False))
    write_answer(out / "predictions.md", "\n".join(page(compared)) + "\n")


Compared = Sequence[tuple[Mapping[str, Any], list[Pair]]]
"""Each source as it stands in ``public_measurements.json``, with what the model says to its numbers."""


def rows(compared: Compared) -> pd.DataFrame:
    """Return a row for each public number.

    Returns:
        Columns ``source``, ``address``, ``told``, ``assumed``, ``fitted`` (a calibration was fitted to it),
        ``run``, ``metric``, ``published``, ``predicted``, ``error`` and ``refusal``; the last says why there
        is no prediction.
    """
    return pd.DataFrame(
        {
            "source": source["title"],
            "address": source["address"],
            "told": source["told"],
            "assumed": source["assumed"],
            "fitted": _is_fitted(source),
            "run": pair.run,
            "metric": pair.metric,
            "published": pair.published,
            "predicted": pair.predicted,
            "error": pair.error,
            "refusal": pair.refusal,
        }
        for source, found in compared
        for pair in found
    )


def page(compared: Compared) -> Iterator[str]:
    """Write the page, line by line."""
    unfitted = [
        pair.error
        for source, found in compared
        for pair in found
        if pair.error is not None and not _is_fitted(source)
    ]
    far = sum(abs(error) > FAR_OFF for error in unfitted)
    yield "# Predictions beyond the article"
    yield ""
    yield (
        "How far the model is from public measurements of other models, releases and GPUs. Of the "
        f"{len(unfitted)} numbers below that no fit had seen, {far} are off by more than "
        f"{percent(FAR_OFF)}. Where a source like yours has a large error, trust which of two settings is "
        "faster, not the number."
    )
    yield ""
    yield (
        "Written by `python benchmarks/predictions.py`. Every number, with its address, is in "
        "[predictions.csv](predictions.csv). Predicted numbers are simulated, with the calibration of the "
        "nearest stack. One parameter of V0 on one device, `single_host_frac`, comes from the 8B source in "
        "16 bits."
    )
    yield ""
    yield from _left_out(compared)
    yield from _summary(compared)
    yield from _why()
    yield from _assumed([source for source, _ in compared])
    yield from _stacks()
    yield from _unmeasured()
    yield from _not_compared()


def pairs(source: Mapping[str, Any]) -> Iterator[Pair]:
    """Predict every number of a source; runs of which it gives several numbers are run once.

    What is said of a source that its stack was fitted to is what a fit without its model said.
    """
    if source["name"] in pooled.fitted_names():
        yield from _left_out_pairs(source)
        return
    figures = public.source_figures(source)
    known: dict[str, Mapping[str, float] | str] = {}
    for run in source["runs"]:
        name = run["name"]
        if name not in known:
            known[name] = _predict([figure for figure in figures if figure.series == name])
        numbers = known[name]
        yield Pair(
            run=name,
            metric=run["metric"],
            published=run["published"],
            predicted=None if isinstance(numbers, str) else numbers[run["metric"]],
            refusal=numbers if isinstance(numbers, str) else "",
        )


def _left_out_pairs(source: Mapping[str, Any]) -> Iterator[Pair]:
    """Pair every number of a source with its stored prediction, which stand in the same order."""
    told = [each for each in intervals.known() if each.source == source["name"]]
    for run, each in zip(source["runs"], told, strict=True):
        yield Pair(
            run=run["name"], metric=run["metric"], published=run["published"], predicted=each.predicted
        )


def _predict(figures: Sequence[Figure]) -> Mapping[str, float] | str:
    """Return what the model says of one run's figures, by metric; the reason in words where it refuses."""
    try:
        told = predict(figures, {})
    except SweeperError as exc:
        return str(exc)
    return {figure.metric: value for figure, value in zip(figures, told, strict=True)}


def _basis(source: Mapping[str, Any]) -> str:
    """Name the stack nearest to a source, and how near it is."""
    asked = stacks.asked_of(public.source_figures(source)[0].spec)
    basis = stacks.nearest(asked)
    return f"`{basis.name}`: {stacks.nearness(basis, asked)}"


def _stacks() -> Iterator[str]:
    yield "## The stacks"
    yield ""
    yield "| calibration | stack | parameters fitted | the rest from | error, fitted |"
    yield "|---|---|---|---|---|"
    for name in calibration.names():
        named = calibration.load(name)
        if named.stack is None:
            continue
        told = named.stack
        aiter = {True: "on", False: "off", None: "not told"}[told.aiter]
        what = (
            f"vLLM {told.release} ({told.generation.upper()}), {told.image}; {told.device}, AITER {aiter}, "
            f"weights {' or '.join(told.weights)}, KV cache {' or '.join(told.kv)}"
        )
        errors = ", ".join(
            f"{calibration.WORDS[metric]} {error:.1f} %" for metric, error in named.errors_pct["fit"].items()
        )
        yield f"| `{name}` | {what} | {len(named.fitted)} | `{told.parent or 'assumptions'}` | {errors} |"
    yield ""


def _left_out(compared: Compared) -> Iterator[str]:
    """Write what calibrations say of AMD's tables unseen, and what intervals come of all unseen numbers."""
    found, anchored = intervals.known(), unseen.anchored()
    yield "## AMD's tables, and numbers that a calibration has not seen"
    yield ""
    yield (
        "Four throughputs and sixteen latencies each of Llama 3.1 70B and 405B in FP8 on 8 MI300X. Mean "
        "absolute errors of throughput and latency: where the image's own calibration was fitted to them; "
        "predicted from the nearest other release, fitted without this one; 405B predicted from fits to "
        "70B alone, of any stack; and what remains when four numbers of 70B, or of 405B, have moved the "
        "nearest other release."
    )
    yield ""
    yield (
        "| image | fitted | from another release | 405B from 70B | 70B from four numbers | "
        "405B from four numbers |"
    )
    yield "|---|---|---|---|---|---|"
    for stack, sources in _tables(compared):
        cells = [
            _fitted(stack),
            _means([each for each in found if each.source == f"{stack} (stack left out)"]),
            _means([each for each in found if each.source == f"{stack} (model left out)"]),
            *(_means([each for each in anchored if each.source == source["name"]]) for source in sources),
        ]
        first = sources[0]
        yield f"| [{first['release']} of {first['date']}]({first['address']}) | {' | '.join(cells)} |"
    together = [
        _means([each for each in found if each.source.endswith(f"({word} left out)")])
        for word in ("stack", "model")
    ]
    yield f"| **all together** | | **{'** | **'.join(together)}** | | |"
    yield ""
    yield (
        "Every simulated number has an interval that held four of five unseen ones of its kind. Share inside "
        "where the number itself, or all of its source, took no part in making it:"
    )
    yield ""
    yield "| kind | numbers | without the number | without its source |"
    yield "|---|---|---|---|"
    one = intervals.coverage(found, alike=lambda each, other: each is other)
    whole = intervals.coverage(found, alike=lambda each, other: each.source == other.source)
    for family, (inside, count) in one.items():
        of_source, others = whole.get(family, (0, 0))
        apart = percent(of_source / others) if others else ""
        yield f"| {family} | {count} | {percent(inside / count)} | {apart} |"
    yield ""


def _tables(compared: Compared) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    """Yield each stack that has tables of its own, with their sources."""
    stacks_of = dict.fromkeys(source["stack"] for source, _ in compared if source.get("stack"))
    for stack in stacks_of:
        yield stack, [source for source, _ in compared if source.get("stack") == stack]


def _fitted(stack: str) -> str:
    return ", ".join(f"{error:.1f} %" for error in calibration.load(stack).errors_pct["fit"].values())


def _means(found: Sequence[Unseen]) -> str:
    """Write the mean absolute errors of throughputs and of latencies."""
    means = []
    for family in ("throughput", "latency"):
        errors = [
            abs(each.predicted / each.published - 1)
            for each in found
            if intervals.family_of(each.metric) == family
        ]
        means += [percent(sum(errors) / len(errors), ".1")] if errors else []
    return ", ".join(means)


def _anchored(source: Mapping[str, Any], found: Sequence[Unseen]) -> str:
    """Write the mean absolute errors of a source's other numbers, as two cells: TTFT apart."""
    if any(contradictions(public.source_figures(source))):
        return "refused: contradicts itself | "
    cells = []
    for is_ttft in (False, True):
        errors = [
            abs(each.predicted / each.published - 1)
            for each in found
            if each.source == source["name"] and (intervals.family_of(each.metric) == "TTFT") == is_ttft
        ]
        cells.append(percent(sum(errors) / len(errors), ".1") if errors else "")
    return " | ".join(cells)


def _summary(compared: Compared) -> Iterator[str]:
    anchored = unseen.anchored()
    yield "## Errors by source"
    yield ""
    yield (
        "An error is predicted over published, less 1. Speed is a geometric mean: below 1 the model is too "
        "slow. *Anchored* is the mean error of the rest once four numbers have moved the stack: two that "
        "tell most of the others by the nearest stack, and two that do by the fit to these "
        "([how](predictor.md#calibrate-your-own-stack)); of four numbers or fewer, each from the others. "
        "*Its model left out*: the stack is fitted to this source and others; all errors come from a fit to "
        "those of other models. *Contradicts itself*: its numbers cannot all be right, and "
        "`calibrate --table` refuses them."
    )
    yield ""
    yield (
        "| source | nearest stack | numbers | mean error | speed | worst | anchored, without TTFT | "
        "anchored, TTFT |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for source, found in compared:
        if source.get("stack"):
            continue
        name = _linked(source)
        errors = [pair.error for pair in found if pair.error is not None]
        if not errors:
            yield f"| {name} | | 0 of {len(found)} | | | refused by the model | | |"
            continue
        mean = sum(abs(error) for error in errors) / len(errors)
        worst = max(errors, key=abs)
        speed = geometric_mean([pair.speed for pair in found if pair.speed is not None])
        fitted = " **(fitted)**" if _is_fitted(source) else ""
        if source["name"] in pooled.fitted_names():
            fitted = " **(its model left out)**"
        yield (
            f"| {name}{fitted} | {_basis(source)} | {len(errors)} | {percent(mean)} | {speed:.2f} | "
            f"{percent(worst, '+.0')} | {_anchored(source, anchored)} |"
        )


def _is_fitted(source: Mapping[str, Any]) -> bool:
    """Whether a calibration was fitted to a source."""
    return bool(source.get("stack")) or source["name"] in sourced.fitted_names()


def _linked(source: Mapping[str, Any]) -> str:
    address = source["address"]
    return f"[{source['title']}]({address})" if "://" in address else f"{source['title']}: {address}"


def _assumed(sources: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Write what sources leave open and was assumed, once for those of which the same was."""
    yield ""
    yield "## What was assumed"
    yield ""
    alike: dict[str, list[str]] = {}
    for source in sources:
        if source["assumed"]:
            title = f"AMD's tables of {source['release']}" if source.get("stack") else source["title"]
            alike.setdefault(source["assumed"], []).append(title)
    for assumed, titles in alike.items():
        yield f"- **{'; '.join(dict.fromkeys(titles))}**: {assumed}."
    yield ""


def _why() -> Iterator[str]:
    yield ""
    yield "## Where it fails, and why"
    yield ""
    yield (
        "- **Batches of 64 and 128 with short prompts** come out a tenth too fast in V1: small matrices at "
        "tensor parallelism 8 fill the GPU in steps, the model's are a straight line in the rows."
    )
    yield (
        "- **After 0.10.0, and AITER**: no such stack is fitted on MI300X and MI325X, so runs get the "
        "nearest, and plan and rows say so. Large mixtures of experts on 8 of them come within 15 %."
    )
    yield (
        "- **MI355X**: its stack is fitted to seven models by five makers, whose builds and switches differ; "
        "first tokens of mixtures of experts come a third to a half too early, Llama 4 in 16 bits is a third "
        "off."
    )
    yield (
        "- **Other GPUs**: only peaks are exchanged. An H100 or H200 gets the kernel efficiencies of an "
        "MI300X, and is predicted too slow."
    )
    yield (
        "- **Experts in int4** (Kimi) come out twice too fast, on an MI355X three to four times: conversion "
        "of weights takes longer than is assumed."
    )
    yield (
        "- **Several scheduler steps online**: mean TPOT of a saturated run is 20 to 55 % off; request rates "
        "and medians are nearer."
    )
    yield (
        "- **Small models**: costs of a head, layer and sequence are fitted to 64 heads and more on 4 or 8 "
        "GPUs; of an 8B on one GPU they are most of a step, and one source alone tells the host's work there."
    )
    yield (
        "- **Mixtures of experts**: none was fitted to. Experts are assumed to be chosen evenly, as fast as "
        "large multiplications, and to launch as many kernels more as they have. Steps of a few requests "
        "come out too short, most of all where many layers have a state; conversion of weights (mxfp4) or "
        "block scales may be part of that."
    )
    yield (
        "- **Medians**: vLLM 0.6.0 emits the tokens of a group of steps together, and holds requests whose "
        "prompt waits. The median TPOT of a saturated run depends on that, the mean does not."
    )


_SHOWN = ("request_throughput_per_s", "output_throughput_tok_per_s", "mean_ttft_ms", "mean_tpot_ms")


def _unmeasured() -> Iterator[str]:
    yield "## Predictions that nobody has measured"
    yield ""
    yield "ShareGPT, all requests at once; today's vLLM with its defaults where nothing else is said."
    yield ""
    yield "| what | prompts | requests/s | output tokens/s | mean TTFT (ms) | mean TPOT (ms) |"
    yield "|---|---|---|---|---|---|"
    for case in _UNMEASURED:
        load = LoadPoint(dataset="sharegpt", num_prompts=case.prompts, request_rate_per_s=case.rate_per_s)
        spec = public.trial_of(
            model=case.model,
            device=case.device,
            release=case.release,
            knobs={"tensor_parallel_size": case.devices, **case.knobs},
            load=load,
            mode=case.mode,
        )
        numbers = _predict([_unknown(case.title, metric, spec) for metric in _SHOWN])
        if isinstance(numbers, str):
            yield f"| {case.title} | {case.prompts} | refused: {numbers} | | | |"
            continue
        yield f"| {case.title} | {case.prompts} | " + " | ".join(_text(numbers[n]) for n in _SHOWN) + " |"


def _unknown(title: str, metric: str, spec: TrialSpec) -> Figure:
    """Return a figure whose value nobody has measured."""
    return Figure(
        experiment="unmeasured",
        series=title,
        metric=metric,
        value=math.nan,
        point=spec.load_points[0],
        spec=spec,
        placement=public.block_of(spec),
    )


def _text(value: float) -> str:
    """Write four digits, or all that are before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _not_compared() -> Iterator[str]:
    yield ""
    yield "## Found and not compared"
    yield ""
    yield "- 405B on 8 MI325X (docs.vultr.com/inference-cookbook): tokens per request are not told."
    yield "- Llama 3.1 8B by a vLLM developer (vllm-project/vllm pull request 18566): the GPU is not named."
    yield "- 405B FP8 on 8 MI300X (substratus.ai): a setup without results."
    yield "- H100 numbers of TensorRT-LLM: another engine."
    yield "- gpt-oss-120b on 4 MI300X (SemiAnalysisAI/InferenceX issue 828): the load is not told."
    yield "- 8B on a CPX partition: no number names model, load and release."
    yield "- DeepSeek-R1 with Triton's FP8 matrices (vllm-project/vllm pull requests 27058, 28701), 8B FP8"
    yield "  with FP8 queries (37973), Maverick FP8 (16727, 17110): the GPU is not named."
    yield "- Llama 4 Scout with AITER's experts (16674): answers end early, their lengths are not told."
    yield "- DeepSeek-V3 on MI300X (vllm-project/vllm issues 30064, 28301): numbers not read."
    yield "- MiniMax-M2.5 on MI325X from 0.18.0 to 0.21.0 (issue 43029): a rate for each user, not how many."
    yield "- Muse-Glimmer-30B on one MI300X (alpharomercoma/muse-glimmer-30b-mi300x): beside another server."
    yield "- Gemma 4 26B-A4B (jishu-star/gemma4-mi300x-serving), MiniMax-M3 (InferenceX 1804), Ling-3.0-flash"
    yield "  (vllm-project/recipes 926), GLM-5.1 at 180K tokens (issue 39168): shapes or settings not told."
    yield "- gpt-oss-20b on MI300X (aimultiple.com), 70B by batch (AMD's best practices): charts only."
    yield "- Four models on 8 MI325X with vLLM 0.14.1 (arXiv 2603.10031): tables not read."


if __name__ == "__main__":
    main()
