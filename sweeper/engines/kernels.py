"""Which kernels an engine ran, read from its own log: a flag asks for little, the release decides the rest.

vLLM chooses kernels by device, build, model, release and variables, and says in its log what it chose. The
same command line runs other kernels on another image, and that changes speed more than most knobs. What a
log does not say stays unknown. Pure reading, no I/O.

Source:
    Lines of vLLM 0.32.0: ``platforms/cuda.py`` and ``rocm.py`` (attention),
    ``v1/attention/backends/mla/prefill/selector.py``, ``model_executor/layers/fused_moe/oracle/``,
    ``model_executor/kernels/linear/__init__.py``, ``distributed/device_communicators/``,
    ``model_executor/layers/quantization/kv_cache.py``, ``config/compilation.py``; of earlier releases and of
    AITER as public logs show them (``tests/engines/kernel_logs.yaml`` has these).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sweeper.engines.log_lines import Line, read_lines
from sweeper.records import Scalar

NEEDLES = (
    "backend",
    "Selected ",
    "GEMM",
    "linear",
    "Linear",
    "FlashAttention version",
    "cudagraph",
    "Cudagraph",
    "CUDAGraph",
    "compilation_config",
    "enforce_eager",
    "llreduce is disabled",
    "onfig file not found",
    "ot found tuned config",
    "[fused_moe] using",
    "[aiter] import",
    "KV cache scaling factor 1.0",
)
"""Words of which each line that is read here has one, so that long logs need not be taken apart whole."""


@dataclass(frozen=True, kw_only=True)
class UntunedShape:
    """A shape for which a table of tuned kernels has no row, so that a default ran.

    Attributes:
        kind: ``gemm`` (of AITER), ``fused_moe`` (of AITER), ``config`` (of vLLM's Triton kernels).
        table: The file in which it was looked for, without its folder; empty where the log does not name it.
        shape: As the log writes it, such as ``M:72, N:512, K:7168``.
        times: Lines that name it, over all ranks.
    """

    kind: str
    table: str
    shape: str
    times: int


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """What a log tells.

    Attributes:
        columns: By the names of the columns ``kernel_*``; what the log does not tell is absent.
        untuned: Each shape once.
    """

    columns: Mapping[str, Scalar]
    untuned: tuple[UntunedShape, ...] = ()


def read_kernels(log: str) -> Kernels:
    """Read the kernels that an engine chose from its log, whole or only the lines with one of ``NEEDLES``.

    Returns:
        ``kernel_attention``, ``kernel_attention_prefill``, ``kernel_moe``, ``kernel_linear``,
        ``kernel_all_reduce``, ``kernel_graphs``, ``kernel_compile``, ``kernel_aiter_modules``,
        ``kernel_untuned_shapes`` and ``kernel_kv_scales_missing``, as far as told. Of several choices each is
        named once, in order of the alphabet: the order of lines is that of processes.
    """
    lines = read_lines(log)
    texts = [line.text for line in lines]
    untuned = _untuned(texts)
    found: dict[str, Scalar | None] = {
        "kernel_attention": _attention(texts),
        "kernel_attention_prefill": _joined(_all(_PREFILL, texts)),
        "kernel_moe": _joined(_moe(texts)),
        "kernel_linear": _joined(_linear(texts)),
        "kernel_all_reduce": _all_reduce(texts),
        "kernel_graphs": _graphs(lines),
        "kernel_compile": _compile_level(texts),
        "kernel_aiter_modules": _joined(_all(_AITER_MODULE, texts)),
    }
    if texts:
        found["kernel_untuned_shapes"] = len(untuned)
        found["kernel_kv_scales_missing"] = any(_NO_SCALES.search(text) for text in texts)
    return Kernels(
        columns={name: value for name, value in found.items() if value is not None}, untuned=untuned
    )


# ---- attention ----

_CHOSEN = re.compile(
    r"Using (?:AttentionBackendEnum\.)?(?P<a>[A-Z][A-Z0-9_]+)(?: attention)? backend"
    r"(?: out of potential backends| \(selected via|\.?$)"
    r"|Overriding with (?P<b>[A-Z][A-Z0-9_]+) out of potential backends"
)
_WORDED = re.compile(r"Using (?P<words>[\w/ -]+?) [Bb]ackend(?: on V1 engine)?\.?$")
_VERSION = re.compile(r"Using FlashAttention version (\d+)")
_PREFILL = re.compile(r"Using ([\w/]+) (?:MLA|GDN) prefill (?:backend|kernel)")

# What releases before 0.14 call a backend in words, by its name of today.
# Source: get_attn_backend_cls of vLLM 0.8 to 0.13, platforms/cuda.py and platforms/rocm.py.
_NAME_OF_WORDS = {
    "aiter flash attention": "ROCM_AITER_FA",
    "aiter mla": "ROCM_AITER_MLA",
    "aiter triton mla": "ROCM_AITER_TRITON_MLA",
    "aiter unified attention": "ROCM_AITER_UNIFIED_ATTN",
    "cutlass mla": "CUTLASS_MLA",
    "flash attention": "FLASH_ATTN",
    "flashattention mla": "FLASH_ATTN_MLA",
    "flashinfer": "FLASHINFER",
    "flashinfer mla": "FLASHINFER_MLA",
    "flashmla": "FLASHMLA",
    "flexattention": "FLEX_ATTENTION",
    "rocm attention": "ROCM_ATTN",
    "rocmflashattention": "ROCM_FLASH",
    "torch sdpa": "TORCH_SDPA",
    "triton attention": "TRITON_ATTN",
    "triton mla": "TRITON_MLA",
    "xformers": "XFORMERS",
}


def _attention(texts: Iterable[str]) -> str | None:
    """Name the backends of attention, with the version of FlashAttention where that is told."""
    names, versions = set(), set()
    for text in texts:
        if chosen := _CHOSEN.search(text):
            names.add(chosen["a"] or chosen["b"])
        elif worded := _WORDED.search(text):
            name = _NAME_OF_WORDS.get(worded["words"].lower())
            names.update([name] if name else [])
        if version := _VERSION.search(text):
            versions.add(version[1])
    numbered = {f"{name} (FlashAttention {'/'.join(sorted(versions))})" for name in names & {"FLASH_ATTN"}}
    return _joined((names - {"FLASH_ATTN"} | numbered) if versions else names)


# ---- mixtures of experts, matrices ----

_MOE = re.compile(r"Using '?(?P<backend>[\w-]+)'? (?P<scheme>(?:\w+ ){0,2})(?:MoE|MOE) backend")
_MOE_FOR = re.compile(r"Using (?P<backend>[\w -]+?)(?: backend)? for (?P<scheme>\w+) MoE\b")
_LINEAR = (
    re.compile(r"Selected (\w+) for \w+"),
    re.compile(r"Using (\w+) for (?:mixed-precision linear|\w+ GEMM)"),
    re.compile(r"Using (\w+(?:Linear|GEMM|Kernel)\w*) for \w+LinearMethod"),
)


def _moe(texts: Iterable[str]) -> set[str]:
    found = set()
    for text in texts:
        if match := _MOE.search(text) or _MOE_FOR.search(text):
            scheme = match["scheme"].strip()
            found.add(f"{match['backend']} ({scheme})" if scheme else match["backend"])
    return found


def _linear(texts: list[str]) -> set[str]:
    return set().union(*(_all(pattern, texts) for pattern in _LINEAR))


# ---- communication ----

_ORDER = re.compile(r"Using \[(?P<names>[^\]]*)\] all-reduce backends .* group '(?P<group>\w+)")
_DISABLED = re.compile(r"[Cc]ustom allreduce is disabled (?:because|due to) (?P<why>[^.]*)")
_ASKED_OFF = re.compile(r"disable_custom_all_reduce=True")
_WHOLE_CONFIG = re.compile(r"Initializing an? (?:V\d )?LLM engine")


def _all_reduce(texts: Iterable[str]) -> str | None:
    """Name how ranks of tensor parallelism add up, in order of dispatch; or why the custom kernel is off."""
    orders, disabled = {}, None
    for text in texts:
        if order := _ORDER.search(text):
            orders[order["group"]] = ", ".join(re.findall(r"\w+", order["names"]))
        elif match := _DISABLED.search(text):
            disabled = f"custom off: {match['why'].strip()}"
        elif disabled is None and _WHOLE_CONFIG.search(text) and _ASKED_OFF.search(text):
            disabled = "custom off: disable_custom_all_reduce"
    return orders.get("tp") or disabled


# ---- graphs, compilation ----

_MODE = re.compile(
    r"cudagraph_mode[\"']?\s*(?:[:=]|to)\s*<?(?:CUDAGraphMode\.)?(?P<mode>[A-Za-z_]+|\d+|\[\d, ?\d\])"
)
_MOVED = re.compile(r"[Oo]verriding cudagraph_mode from \S+ to (?:CUDAGraphMode\.)?(?P<mode>[A-Z_]+)")
_OFF = re.compile(r"Cudagraph is disabled under eager mode")
_EAGER = re.compile(r"enforce_eager=True")
# How 0.10 to 0.12 write a mode in JSON.
_MODE_OF_NUMBER = {
    "0": "NONE",
    "1": "PIECEWISE",
    "2": "FULL",
    "[2,0]": "FULL_DECODE_ONLY",
    "[2,1]": "FULL_AND_PIECEWISE",
}
_USES_GRAPHS = re.compile(
    r"\"use_cudagraph\":\s*(?P<is_on>true|false).*?\"full_cuda_graph\":\s*(?P<is_full>\w+)"
)
_LEVEL = re.compile(
    r"'mode': <CompilationMode\.\w+: (?P<new>\d)>"
    r"|compilation_config=\{[^}]*?[\"']level[\"']:\s*(?P<old>\d)"
)
_COMPILE = {"0": "NONE", "1": "STOCK_TORCH_COMPILE", "2": "DYNAMO_TRACE_ONCE", "3": "VLLM_COMPILE"}


def _graphs(lines: Iterable[Line]) -> str | None:
    """Return the last mode of graphs that is told: what was resolved may be lowered for a backend later."""
    found = None
    for line in lines:
        text = line.text
        if "non-default args" in text or "LLM API server version" in text:
            continue  # What was asked for.
        is_config = _WHOLE_CONFIG.search(text) is not None
        if match := _MOVED.search(text) or _MODE.search(text):
            mode = match["mode"].replace(" ", "")
            if mode.lower() not in ("null", "none"):
                found = _MODE_OF_NUMBER.get(mode, mode.upper())
            elif mode == "NONE" or not is_config:
                found = "NONE"
        elif _OFF.search(text) or (is_config and _EAGER.search(text)):
            found = "NONE"
        if is_config and found is None and (old := _USES_GRAPHS.search(text)):
            found = (
                ("FULL" if old["is_full"] == "true" else "PIECEWISE") if old["is_on"] == "true" else "NONE"
            )
    return found


def _compile_level(texts: Iterable[str]) -> str | None:
    for text in texts:
        if _WHOLE_CONFIG.search(text) and (match := _LEVEL.search(text)):
            return _COMPILE.get(match["new"] or match["old"])
    return None


# ---- what was not tuned, what was not calibrated ----

_AITER_MODULE = re.compile(r"\[aiter\] import \[(?:module_)?(\w+)\]")
_NO_SCALES = re.compile(r"Using KV cache scaling factor 1\.0 for fp8")
_GEMM = re.compile(
    r"shape is (?P<shape>(?:B:\d+, )?M:\d+, N:\d+, K:\d+).*?not found tuned config in (?P<table>[^\s,]+)"
)
_FUSED = re.compile(r"\[fused_moe\] using (?:\w+ )?default for \((?P<shape>.*)\)")
_CONFIG = re.compile(r"[Cc]onfig file not found at (?P<path>[^\r\n]+)")


def _untuned(texts: Iterable[str]) -> tuple[UntunedShape, ...]:
    """List the shapes for which a default ran, each once, by kind, table and shape."""
    counted: Counter[tuple[str, str, str]] = Counter()
    for text in texts:
        if gemm := _GEMM.search(text):
            counted["gemm", gemm["table"].rpartition("/")[2], gemm["shape"]] += 1
        elif fused := _FUSED.search(text):
            counted["fused_moe", "", fused["shape"]] += 1
        elif config := _CONFIG.search(text):
            path = config["path"].strip("[]'\" ").split("', '")[0]
            counted["config", "", path.rpartition("/")[2].removesuffix(".json")] += 1
    return tuple(
        UntunedShape(kind=kind, table=table, shape=shape, times=times)
        for (kind, table, shape), times in sorted(counted.items())
    )


def _all(pattern: re.Pattern[str], texts: Iterable[str]) -> set[str]:
    return {match[1] for text in texts if (match := pattern.search(text))}


def _joined(names: Iterable[str]) -> str | None:
    return ", ".join(sorted(names)) or None
