"""Advice by rule, from what engines told of their kernels: what, why, from which release, and who says so.

A rule looks at one row and says what it would try; nothing acts on it. The numbers in a rule are those of
others, with their source: none was measured by this project.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from analysis.markdown import escaped
from sweeper import knobs

_MOST_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One piece of advice.

    Attributes:
        name: In a word or two.
        holds: Whether it is given for a row.
        advice: What to try, and why, in sentences.
        releases: From which release of vLLM on.
        source: Where that is said.
    """

    name: str
    holds: Callable[[pd.Series], bool]
    advice: str
    releases: str
    source: str


def _is(row: pd.Series, column: str, value: object) -> bool:
    held = row.get(column)
    return held is not None and not pd.isna(held) and bool(held == value)


def _aiter_off(row: pd.Series) -> bool:
    return _is(row, "kernel_aiter", value=False)


def _numa_balancing(row: pd.Series) -> bool:
    on_gpu = not _is(row, "platform", "cpu") and not _is(row, "provenance", "simulated")
    held = row.get("numa_balancing")
    return on_gpu and held is not None and not pd.isna(held) and int(held) > 0


def _untuned(row: pd.Series) -> bool:
    held = row.get("kernel_untuned_shapes")
    return held is not None and not pd.isna(held) and int(held) > 0


def _no_scales(row: pd.Series) -> bool:
    return _is(row, "kernel_kv_scales_missing", value=True)


def _no_graphs(row: pd.Series) -> bool:
    return _is(row, "kernel_graphs", "NONE") and not _is(row, "platform", "cpu")


RULES: tuple[Rule, ...] = (
    Rule(
        name="AITER off",
        holds=_aiter_off,
        advice=(
            "This release has AITER, and it is off. Try `VLLM_ROCM_USE_AITER=1`; one report has 1.7 to 3.7 "
            "times the speed of one user with it and `attention_backend=ROCM_AITER_UNIFIED_ATTN` together. "
            "See in `kernel_attention` whether attention uses it: of itself a release may prefer ROCM_ATTN."
        ),
        releases="0.8.2",
        source="vLLM 0.32.0, envs.py (default False); github.com/vllm-project/vllm, issues 56945 and 46596",
    ),
    Rule(
        name="NUMA balancing on",
        holds=_numa_balancing,
        advice=(
            "The kernel moves memory between NUMA nodes while the engine runs. Try "
            "`host_numa_balancing: false`, or `sysctl kernel.numa_balancing=0` on the node."
        ),
        releases="any",
        source="AMD, system optimization for MI300X (rocm.docs.amd.com, instinct.docs.amd.com)",
    ),
    Rule(
        name="Shapes untuned",
        holds=_untuned,
        advice=(
            "Kernels ran with defaults for shapes that no table of tuned ones has. They are listed in "
            "`.untuned.csv` next to the engine's log: tune them with AITER's or vLLM's own tuners, "
            "or take a release that has them."
        ),
        releases="any",
        source="the engine's own warning; benchmark_moe.py of vLLM; gradlib of github.com/ROCm/aiter",
    ),
    Rule(
        name="KV scales missing",
        holds=_no_scales,
        advice=(
            "The fp8 KV cache runs with scales of 1: the checkpoint has none. That costs no time and may "
            "cost accuracy; calibrate it (LLM Compressor, Quark) or evaluate answers before serving so."
        ),
        releases="any",
        source="the engine's own warning; vLLM 0.32.0, layers/quantization/kv_cache.py",
    ),
    Rule(
        name="Graphs off",
        holds=_no_graphs,
        advice=(
            "Every step is launched kernel by kernel. If that was not asked for (`enforce_eager`, "
            "`compilation_config`), the log says what switched graphs off."
        ),
        releases="any",
        source="vLLM 0.32.0, config/compilation.py (CUDAGraphMode)",
    ),
)
"""All rules, in the order in which they are given."""


def given(row: pd.Series) -> list[Rule]:
    """Return the rules that hold for a row."""
    return [rule for rule in RULES if rule.holds(row) and _has_release(rule, row)]


def lines(rows: pd.DataFrame) -> list[str]:
    """Return a line of Markdown for each rule that holds for a row, with the settings that it is for."""
    held: dict[str, list[str]] = {rule.name: [] for rule in RULES}
    for _, row in rows.iterrows():
        for rule in given(row):
            held[rule.name].append(str(row["setting"]))
    return [
        f"- **{rule.name}** ({_named(held[rule.name], in_all=len(rows))}; {_from(rule)}). {rule.advice} "
        f"Source: {rule.source}."
        for rule in RULES
        if held[rule.name]
    ]


def _has_release(rule: Rule, row: pd.Series) -> bool:
    release = row.get("engine_release")
    if rule.releases == "any" or not isinstance(release, str):
        return True
    return knobs.is_between(release, rule.releases, None)


def _from(rule: Rule) -> str:
    return "any release" if rule.releases == "any" else f"vLLM {rule.releases} and later"


def _named(settings: list[str], *, in_all: int) -> str:
    if len(settings) == in_all:
        return "every setting"
    more = len(settings) - _MOST_NAMED
    named = ", ".join(map(escaped, settings[:_MOST_NAMED]))
    return f"{named} and {more} more" if more > 0 else named
