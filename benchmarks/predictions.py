"""The model beyond what it was fitted to: predictions beside public measurements of other models and GPUs.

    python benchmarks/predictions.py > docs/predictions.md

What was found stands in ``sweeper/calibrate/data/public_measurements.json``. Each run has the calibration of
the stack nearest to it; tables that one is fitted to say so. What calibrations say of numbers that they have
not seen was computed by ``python -m sweeper calibrate --published errors``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import geometric_mean
from typing import Any

from sweeper.calibrate import public, unseen
from sweeper.clients.simulated import SimulatedClient
from sweeper.engines.simulated import SimulatedEngine
from sweeper.errors import SweeperError
from sweeper.records import LoadPoint, Scalar
from sweeper.simulation import calibration, intervals, stacks
from sweeper.simulation.intervals import Unseen

FAR_OFF = 0.3
"""Relative error beyond which a prediction is called far off."""

_NAMES = {
    "output_throughput_tok_per_s": "output tokens/s",
    "request_throughput_per_s": "requests/s",
    "mean_batch_latency_ms": "latency of a batch (ms)",
    "mean_ttft_ms": "mean TTFT (ms)",
    "mean_tpot_ms": "mean TPOT (ms)",
    "median_tpot_ms": "median TPOT (ms)",
}


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
        title="Llama 3.1 8B on one CPX partition, today's vLLM",
        model="llama_3_1_8b_instruct",
        devices=1,
        mode="CPX",
        knobs={"max_model_len": 4096},
        prompts=200,
    ),
    Unmeasured(
        title="Llama 3.1 8B on one MI300X, today's vLLM with its defaults",
        model="llama_3_1_8b_instruct",
        devices=1,
        knobs={},
    ),
    Unmeasured(
        title="Llama 3.1 70B on 4 MI300X, today's vLLM with its defaults",
        model="llama_3_1_70b_instruct",
        devices=4,
        knobs={},
    ),
    Unmeasured(
        title="Llama 3.1 8B on one H200, today's vLLM with its defaults",
        model="llama_3_1_8b_instruct",
        devices=1,
        device="h200",
        mode=None,
        knobs={},
    ),
    Unmeasured(
        title="Llama 3.1 70B FP8 on 8 MI325X, today's vLLM with its defaults",
        model="llama_3_1_70b_instruct_fp8",
        devices=8,
        device="mi325x",
        knobs={},
    ),
    Unmeasured(
        title="Llama 3.1 405B FP8 on 8 MI355X, today's vLLM with its defaults",
        model="llama_3_1_405b_instruct_fp8",
        devices=8,
        device="mi355x",
        knobs={},
    ),
    Unmeasured(
        title="Mixtral 8x7B on 2 MI300X, today's vLLM with its defaults",
        model="mixtral_8x7b_instruct",
        devices=2,
        knobs={},
    ),
    Unmeasured(
        title="Qwen3-235B-A22B FP8 on 4 MI300X, today's vLLM with its defaults",
        model="qwen3_235b_a22b_fp8",
        devices=4,
        knobs={},
    ),
    Unmeasured(
        title="DeepSeek-R1 (FP8) on 8 MI300X, today's vLLM with its defaults",
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
        title="gpt-oss-120b (mxfp4) on one MI300X, today's vLLM with its defaults",
        model="gpt_oss_120b",
        devices=1,
        knobs={},
    ),
)


def main() -> None:
    """Print the page."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    print("\n".join(page(public.sources())))


def page(sources: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Write the page, line by line.

    Args:
        sources: As they stand in ``public_measurements.json``.
    """
    compared = [(source, list(pairs(source))) for source in sources]
    yield "# Predictions beyond the article"
    yield ""
    yield "Written by `python benchmarks/predictions.py > docs/predictions.md`; do not edit."
    yield ""
    yield (
        "The model of vLLM against public measurements. Each run is given the calibration of the stack "
        "nearest "
        "to it, which the tables name. Those that a calibration was fitted to are marked; nothing else "
        "on this "
        "page was fitted to, but for one parameter of V0 on one device (`single_host_frac`), which "
        "`cmontemuino_8b` tells. Every predicted number is simulated; every published "
        "one stands at the address given. An error is predicted over published, less 1: above 0 the model "
        "promises too much throughput, or too long a latency. Speed is the geometric mean of predicted "
        "over published throughputs and of published over predicted latencies: below 1 the model is too "
        "slow."
    )
    yield ""
    yield from _stacks()
    yield from _left_out()
    yield from _anchored(sources)
    yield from _summary(compared)
    yield from _why()
    for source, found in compared:
        yield from _section(source, found)
    yield from _unmeasured()
    yield from _not_compared()


def pairs(source: Mapping[str, Any]) -> Iterator[Pair]:
    """Predict every number of a source; runs of which it gives several numbers are run once."""
    known: dict[str, Mapping[str, float | None] | str] = {}
    for run in source["runs"]:
        name = run["name"]
        if name not in known:
            known[name] = _predict(
                model=source["model"],
                device=source["device"],
                release=source["release"],
                knobs={**source["knobs"], **run["knobs"]},
                load=LoadPoint(**run["load"]),
            )
        numbers = known[name]
        yield Pair(
            run=name,
            metric=run["metric"],
            published=run["published"],
            predicted=None if isinstance(numbers, str) else numbers[run["metric"]],
            refusal=numbers if isinstance(numbers, str) else "",
        )


def _predict(
    *,
    model: str | Mapping[str, Any],
    device: str,
    release: str,
    knobs: Mapping[str, Scalar],
    load: LoadPoint,
    mode: str | None = None,
) -> Mapping[str, float | None] | str:
    """Serve one load on one simulated server; the reason in words where it refuses."""
    spec = public.trial_of(model=model, device=device, release=release, knobs=knobs, load=load, mode=mode)
    try:
        server = SimulatedEngine().start(spec, public.block_of(spec), restart=0, cancelled=lambda: False)
        measured = SimulatedClient(spec).measure(server, load, restart=0, repeat=0, cancelled=lambda: False)
    except SweeperError as exc:
        return str(exc)
    return measured.metrics


def _basis(source: Mapping[str, Any]) -> str:
    """Name the stack nearest to a source, and how near it is."""
    asked = stacks.asked_of(public.source_figures(source)[0].spec)
    basis = stacks.nearest(asked)
    return f"`{basis.name}`: {stacks.nearness(basis, asked)}"


def _stacks() -> Iterator[str]:
    yield "## The stacks"
    yield ""
    yield "| calibration | stack | fitted | taken over | error, fitted |"
    yield "|---|---|---|---|---|"
    for name in calibration.names():
        named = calibration.load(name)
        if named.stack is None:
            continue
        told = named.stack
        aiter = {True: "on", False: "off", None: "not told"}[told.aiter]
        what = (
            f"vLLM {told.release} ({told.generation.upper()}), {told.image}; {told.device}, AITER "
            f"{aiter}, weights "
            f"{' or '.join(told.weights)}, KV cache {' or '.join(told.kv)}"
        )
        fitted = ", ".join(f"`{each}`" for each in named.fitted)
        errors = ", ".join(
            f"{calibration.WORDS[metric]} {error:.1f} %" for metric, error in named.errors_pct["fit"].items()
        )
        yield f"| `{name}` | {what} | {fitted} | the rest, from `{told.parent or 'assumptions'}` | {errors} |"
    yield ""


def _left_out() -> Iterator[str]:
    """Write what calibrations say of numbers that they have not seen, and what intervals come of that."""
    found = intervals.known()
    yield "## Left out"
    yield ""
    yield (
        "Each stack from the nearest of the others, fitted without it; and each 405B from fits that have "
        "seen no "
        "405B of any stack. Both leave out what they name whole: the shared physics is fitted without it too."
    )
    yield ""
    yield "| left out | throughput | latency |"
    yield "|---|---|---|"
    groups = [name for name in dict.fromkeys(each.source for each in found) if name.endswith("left out)")]
    for name in groups:
        yield f"| {name} | {_means([each for each in found if each.source == name])} |"
    for word in ("stack", "model"):
        own = [each for each in found if each.source.endswith(f"({word} left out)")]
        yield f"| **every {word}, together** | {_means(own)} |"
    yield ""
    yield "## Intervals"
    yield ""
    yield (
        "Of every simulated number an interval is told that held four of five unseen ones of its kind. "
        "Checked by "
        "leaving each number, and each source, out of the errors that its own interval is made of:"
    )
    yield ""
    yield "| kind | numbers | inside, one number left out | inside, its source left out |"
    yield "|---|---|---|---|"
    one = intervals.coverage(found, alike=lambda each, other: each is other)
    whole = intervals.coverage(found, alike=lambda each, other: each.source == other.source)
    for family, (inside, count) in one.items():
        of_source, others = whole.get(family, (0, 0))
        apart = f"{of_source / others:.0%}" if others else ""
        yield f"| {family} | {count} | {inside / count:.0%} | {apart} |"
    yield ""


def _means(found: Sequence[Unseen]) -> str:
    """Write the mean absolute errors of throughputs and of latencies, as two cells."""
    cells = []
    for family in ("throughput", "latency"):
        errors = [
            abs(each.predicted / each.published - 1)
            for each in found
            if intervals.family_of(each.metric) == family
        ]
        cells.append(f"{sum(errors) / len(errors):.1%} ({len(errors)})" if errors else "")
    return " | ".join(cells)


def _anchored(sources: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Write what two to four numbers of each source make of its others."""
    found = unseen.anchored()
    yield "## Two to four numbers known"
    yield ""
    yield (
        "The first and last number of each metric of a source, four at most, move the nearest stack; all "
        "others "
        "are predicted. Of a source with four numbers or fewer each is predicted from the others. A "
        "table of a "
        "known stack starts from the nearest other one."
    )
    yield ""
    yield "| source | predicted | mean absolute error without TTFT | TTFT |"
    yield "|---|---|---|---|"
    for source in sources:
        own = [each for each in found if each.source == source["name"]]
        if not own:
            continue
        cells = []
        for is_ttft in (False, True):
            errors = [
                abs(each.predicted / each.published - 1)
                for each in own
                if (intervals.family_of(each.metric) == "TTFT") == is_ttft
            ]
            cells.append(f"{sum(errors) / len(errors):.1%}" if errors else "")
        yield f"| {source['title']} | {len(own)} | {' | '.join(cells)} |"
    yield ""


def _summary(compared: Sequence[tuple[Mapping[str, Any], list[Pair]]]) -> Iterator[str]:
    yield ""
    yield "## Every source, from the nearest stack"
    yield ""
    yield "| source | nearest stack | numbers | mean absolute error | speed | worst |"
    yield "|---|---|---|---|---|---|"
    for source, found in compared:
        errors = [pair.error for pair in found if pair.error is not None]
        if not errors:
            yield f"| {source['title']} | | 0 of {len(found)} | | | refused by the model |"
            continue
        mean = sum(abs(error) for error in errors) / len(errors)
        worst = max(errors, key=abs)
        speed = geometric_mean([pair.speed for pair in found if pair.speed is not None])
        fitted = " **(fitted)**" if source.get("stack") else ""
        near = _basis(source)
        yield (
            f"| {source['title']}{fitted} | {near} | {len(errors)} | {mean:.0%} | {speed:.2f} | "
            f"{worst:+.0%} |"
        )
    errors = [
        pair.error
        for source, found in compared
        for pair in found
        if pair.error is not None and not source.get("stack")
    ]
    far = sum(abs(error) > FAR_OFF for error in errors)
    yield ""
    yield (
        f"Far off, by more than {FAR_OFF:.0%}, are {far} of the {len(errors)} numbers that nothing was "
        "fitted to; they are marked below. Of a release, a model or a GPU that stands here with a large "
        "error, believe the direction of a change between two settings rather than the number."
    )


def _why() -> Iterator[str]:
    yield ""
    yield "## Where it fails, and why"
    yield ""
    yield (
        "- Batches of 64 and 128 with short prompts come out a tenth too fast, single sequences a "
        "twentieth too "
        "slow: small matrices at tensor parallelism of 8 fill the GPU in steps, and the model's matrices are "
        "straight lines in the number of rows."
    )
    yield (
        "- Later releases, and AITER. No stack of vLLM after 0.10.0 or with AITER's kernels on is known; "
        "runs of "
        "those get the nearest, and their plan and rows say so. First tokens of small models on one GPU come "
        "up to twice too early."
    )
    yield (
        "- Other GPUs. Peaks are exchanged and nothing else: an H100 is given the efficiencies of kernels on "
        "an MI300X. Where software was further on the NVIDIA side, the prediction is too slow."
    )
    yield (
        "- Small models. Costs for each head, layer and sequence are fitted to 64 heads and more on 4 or "
        "8 GPUs; "
        "of an 8B model on one GPU they make up most of a step, and one source alone tells the host's "
        "work there."
    )
    yield (
        "- Mixtures of experts. Nothing was fitted to any: experts are taken to be as fast as large "
        "multiplications are, to be chosen evenly, and to cost as many launches more as they have kernels. "
        "Steps of a few requests come out too short, most of all where many layers have a state; kernels "
        "that convert weights (mxfp4) or scale them by block may be part of that."
    )
    yield (
        "- Medians. vLLM 0.6.0 gives the tokens of a group of steps together, and holds requests whose "
        "prompt waits; the median TPOT of a saturated run depends on details of that which the mean does not."
    )


def _section(source: Mapping[str, Any], found: list[Pair]) -> Iterator[str]:
    yield ""
    yield f"## {source['title']}"
    yield ""
    yield f"Source: {source['address']}. Told: {source['told']}."
    if source["assumed"]:
        yield f"Assumed: {source['assumed']}."
    if source.get("remark"):
        yield ""
        yield source["remark"]
    yield ""
    yield "| run | metric | published | predicted | error |"
    yield "|---|---|---|---|---|"
    for pair in found:
        metric = _NAMES[pair.metric]
        if pair.predicted is None or pair.error is None:
            yield f"| {pair.run} | {metric} | {_text(pair.published)} | refused: {pair.refusal} | |"
            continue
        mark = ", far off" if abs(pair.error) > FAR_OFF else ""
        error = f"{pair.error:+.0%}{mark}"
        yield f"| {pair.run} | {metric} | {_text(pair.published)} | {_text(pair.predicted)} | {error} |"


def _unmeasured() -> Iterator[str]:
    yield ""
    yield "## Predictions that nothing was found for"
    yield ""
    yield "ShareGPT, all requests at once. Nobody's numbers stand against these; they wait for a measurement."
    yield ""
    yield "| what | prompts | requests/s | output tokens/s | mean TTFT (ms) | mean TPOT (ms) |"
    yield "|---|---|---|---|---|---|"
    for case in _UNMEASURED:
        numbers = _predict(
            model=case.model,
            device=case.device,
            release=case.release,
            knobs={"tensor_parallel_size": case.devices, **case.knobs},
            load=LoadPoint(dataset="sharegpt", num_prompts=case.prompts, request_rate_per_s=case.rate_per_s),
            mode=case.mode,
        )
        if isinstance(numbers, str):
            yield f"| {case.title} | {case.prompts} | refused: {numbers} | | | |"
            continue
        shown = (
            "request_throughput_per_s",
            "output_throughput_tok_per_s",
            "mean_ttft_ms",
            "mean_tpot_ms",
        )
        yield f"| {case.title} | {case.prompts} | " + " | ".join(_text(numbers[n]) for n in shown) + " |"


def _text(value: float | None) -> str:
    """Write four digits, or all that are before the point."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _not_compared() -> Iterator[str]:
    yield ""
    yield "## Found and not compared"
    yield ""
    yield "- 405B on 8 MI325X (docs.vultr.com/inference-cookbook): tokens per request are not told."
    yield "- Llama 3.1 8B by a vLLM developer (vllm-project/vllm pull request 18566): the GPU is not named."
    yield "- 405B FP8 on 8 MI300X (substratus.ai): the setup was found, its results were not."
    yield "- H100 numbers of TensorRT-LLM: another engine."
    yield (
        "- gpt-oss-120b on 4 MI300X (SemiAnalysisAI/InferenceX issue 828): tokens for each joule are told, "
        "how many requests ran at a time is not."
    )
    yield "- vLLM on H200, and 8B on a CPX partition: no number that tells model, load and release was found."


if __name__ == "__main__":
    main()
