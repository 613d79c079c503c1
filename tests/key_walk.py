"""Every key of the configuration in every kind of run: where it acts, is said to be left out, or is refused.

Each key is set to a value of its own in a composed configuration, which then goes the product's way. What
came of it is the table of ``docs/keys.md``; ``python -m tests.key_walk`` writes it anew.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

from sweeper import config
from sweeper.config import unused
from sweeper.config.schema import MaxRateConfig, MaxUsersConfig, ObjectiveConfig, RampConfig, SeriesConfig
from sweeper.errors import ConfigError
from sweeper.kinds import DATASETS
from sweeper.records import Platform

TABLE = Path(__file__).resolve().parents[1] / "docs" / "keys.md"

ACTS, LEFT_OUT, REFUSED = "", "said", "refused"

_RANDOM = ("workload=random", "workload.warmup_prompts=8")
_ENGINES: Mapping[str, tuple[str, ...]] = {
    "vllm": (),
    "sglang": ("engine=sglang",),
    "tgi": ("engine=tgi",),
    "attach": ("engine=attach", "engine.url=http://127.0.0.1:8000"),
}
_CLIENTS: Mapping[str, tuple[str, ...]] = {
    "vllm_bench": (),
    "locust": ("client=locust", "workload.request_rate_per_s=[1]"),
    "offline": ("client=offline", "workload.dataset=latency"),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One kind of run: a column of the table."""

    title: str
    overrides: tuple[str, ...]
    platform: Platform = Platform.MI300X

    @property
    def words(self) -> tuple[str, ...]:
        """What it combines, such as an engine, a client and a platform."""
        return tuple(self.title.split(" "))


def _case(engine: str, client: str, platform: Platform) -> Case:
    return Case(
        title=f"{engine} {client} {platform}",
        overrides=(*_RANDOM, *_ENGINES[engine], *_CLIENTS[client], f"platform={platform}"),
        platform=platform,
    )


# Other engines and endpoints are not modelled, and the benchmarks without a server start vLLM: refused as
# pairs.
IMPOSSIBLE = tuple(
    _case(engine, client, platform)
    for engine in _ENGINES
    for client in _CLIENTS
    for platform in Platform
    if engine != "vllm" and (client == "offline" or platform is Platform.SIMULATED)
)
RUNS = tuple(
    _case(engine, client, platform)
    for engine in _ENGINES
    for client in _CLIENTS
    for platform in Platform
    if engine == "vllm" or (client != "offline" and platform is not Platform.SIMULATED)
) + tuple(
    # Clients with an environment of their own, which know neither engine nor platform.
    Case(title=f"vllm {client} mi300x", overrides=(*_RANDOM, f"client={client}", "platform=mi300x"))
    for client in ("aiperf", "guidellm")
)
LOADS = tuple(
    Case(title=dataset, overrides=(*_RANDOM, f"workload.dataset={dataset}", *more))
    for dataset, more in {
        "random": (),
        "sharegpt": ("workload.input_len=null",),
        "latency": ("client=offline",),
        "throughput": ("client=offline",),
        "custom": ("workload.input_len=null", "workload.dataset_path=prompts.jsonl"),
        "prefix_repetition": (
            "workload.input_len=null",
            "workload.options={num_prefixes: 2, prefix_len: 64, suffix_len: 16}",
        ),
        "timed_trace": (
            "workload.input_len=null",
            "workload.output_len=null",
            "workload.dataset_path=t.jsonl",
        ),
        "conversations": ("workload.endpoint=chat", "workload.options={turns: 3}"),
        "custom_conversations": (
            "workload.input_len=null",
            "workload.endpoint=chat",
            "workload.dataset_path=talks.jsonl",
        ),
    }.items()
)
WALKS = tuple(
    Case(title=f"{method} {executor}", overrides=(*_RANDOM, f"search={method}", f"executor={executor}"))
    for method, executor in (
        ("grid", "inline"),
        *((method, "ray") for method in ("grid", "random", "tpe", "nsga2", "gp", "guided", "staged")),
    )
)

CHOICES = (
    "platform.name",
    "engine.kind",
    "client.kind",
    "workload.dataset",
    "search.method",
    "executor.kind",
)
"""Keys that choose what the columns of the tables are."""

KEYS = tuple(pattern for pattern in unused.patterns() if pattern not in CHOICES)

# Values that differ from every default and from what shipped files say.
_TEXTS = {
    "platform.device_ids": "0-1",
    "platform.partition_mode": "SPX",
    "platform.memory_mode": "NPS1",
    "platform.device": "mi300x",
    "platform.calibration": "amd_0_10_0",
    "study.isolation": "exclusive",
    "study.order": "as_written",
    "study.control": "base",
    "engine.release": "0.6.3",
    "engine.instances_by": "split",
    "engine.live": "auto",
    "model.dtype": "float16",
    "space.series.*.model.dtype": "float16",
    "space.series.*.run": "fresh",
    "space.series.*.engine": "tgi",
    "objective.*.metric": "failed",
    "objective.*.direction": "minimize",
    "objective.*.per": "gpu",
    "engine.url": "http://127.0.0.1:8001",
    "engine.image": "rocm/vllm:rocm7.0.0_vllm_0.11.2_20251210",
    "engine.container_runtime": "podman",
    "study.results": "elsewhere",
    "accuracy.path": str(Path(__file__).resolve().parents[1] / "examples" / "additions.jsonl"),
    "workload.endpoint": "chat",
    "workload.ramp_up.strategy": "exponential",
}
_CONFIG: Mapping[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "vocab_size": 99,
    "max_position_embeddings": 4096,
}
_SHAPE: Mapping[str, Any] = {
    **{"layers": 8, "hidden": 64, "intermediate": 128, "heads": 4, "kv_heads": 4, "head_dim": 16},
    **{"vocab": 99, "max_positions": 4096, "tied_embeddings": False},
}
_OTHERS: Mapping[str, Any] = {
    "model.config": _CONFIG,
    "space.series.*.model.config": _CONFIG,
    "engine.prefix": ["numactl", "--localalloc"],
    "engine.container_arguments": ["--shm-size", "16g"],
    "workload.goodput.*": 100.0,
    "workload.max_rate.bounds.*": 100.0,
    "workload.max_users.bounds.*": 100.0,
    "workload.points": [{"num_prompts": 7}, {"num_prompts": 9}],
    "space.rules": ["max_num_seqs > 1"],
    "space.knobs.*": [1, 2],
    "search.start": [{}],
    "search.stages": [["max_num_seqs"]],
    "search.stop_margin": 0.5,
    "workload.range_ratio": 0.5,
    "workload.sampling.*": 0.5,
    "workload.extra_body.*": 0.5,
    "workload.prompts_per_user": 5,
    "workload.burstiness": 0.5,
    "workload.options.*": 32,
    "client.arguments.*": 3,
    "calibration.*": 0.5,
    "knobs.*": 7,
    "space.series.*.knobs.*": 7,
    "search.stops_early": True,
    "objective.*.request_rate_per_s": 1.0,
}
# A user's own name below a key, and what a key means nothing without.
_NAMES = {
    "workload.goodput": "ttft_ms",
    "workload.max_rate.bounds": "p99_ttft_ms",
    "workload.max_users.bounds": "p99_ttft_ms",
    "workload.sampling": "top_p",
    "workload.extra_body": "min_tokens",
    "workload.options": "prefix_len",
    "client.arguments": "num_warmups",
    "calibration": "gemm_frac",
    "knobs": "max_num_seqs",
    "space.knobs": "max_num_seqs",
    "objective": "throughput",
    "space.series": "one",
}
COMPANIONS: Mapping[str, tuple[str, Any]] = {
    "study.control_every": ("study.control", "base"),
    "study.currency": ("study.price_per_gpu_hour", 1.0),
    "workload.prompts_per_user": ("workload.max_concurrency", 4),
    "workload.warmup_per_user": ("workload.max_concurrency", 4),
    "engine.instances_by": ("knobs.instances", 2),
    "engine.container_runtime": ("engine.image", "localhost/vllm:1"),
    "engine.container_arguments": ("engine.image", "localhost/vllm:1"),
    **{
        f"accuracy.{name}": ("accuracy.task", "something")
        for name in ("limit", "max_tokens", "timeout_s", "python")
    },
    "search.stop_margin": ("search.stops_early", True),
    "search.patience": ("search.min_improvement", 0.5),
    "search.final_repeats": ("search.finalists", 1),
    "plan_csv": ("plan", True),
    "plan_json": ("plan", True),
}
"""Keys that mean nothing without another one."""


def outcomes(case: Case) -> dict[str, tuple[str, str]]:
    """Set each key by itself, and tell what comes of it, with the sentence."""
    root = _composed(case.overrides)
    return {pattern: _outcome(root, pattern, case.platform) for pattern in KEYS}


def value_of(pattern: str) -> Any:
    """Give a value for a key that differs from its default."""
    if pattern in _OTHERS:
        return _OTHERS[pattern]
    if pattern in _TEXTS:
        return _TEXTS[pattern]
    default = unused.defaults()[pattern]
    if isinstance(default, bool):
        return not default
    if isinstance(default, (int, float)):
        return default + 1
    whole = (
        "devices",
        "trials",
        "control_every",
        "max_parallel",
        "input_len",
        "output_len",
        "max_concurrency",
        "limit",
    )
    numbers = ("price_per_gpu_hour", "max_hours", "max_node_hours", "min_improvement", "at_most", "at_least")
    last = pattern.rpartition(".")[2]
    return 5 if last in whole else 0.5 if last in (*numbers, "request_rate_per_s") else "something"


def set_key(root: dict[str, Any], pattern: str, value: Any) -> str:
    """Set a key in a composed configuration, whatever it stands below; give its path."""
    path = pattern
    for below, name in {**_NAMES, "workload.options": _option(root)}.items():
        path = path.replace(f"{below}.*", f"{below}.{name}")
    _prepare(root, pattern)
    *parents, last = path.split(".")
    node = root
    for parent in parents:
        node = node[parent]
    node[last] = value
    return path


def _option(root: Mapping[str, Any]) -> str:
    """Give a number that the dataset takes; where it takes none, that of another."""
    declared = DATASETS[root["workload"]["dataset"]].options
    return next(
        (name for name, option in declared.items() if option.type in (int, float)), _NAMES["workload.options"]
    )


def _prepare(root: dict[str, Any], pattern: str) -> None:
    """Make what a key stands below, and what it needs to be read at all."""
    if pattern.startswith("space.series."):
        series: dict[str, Any] = asdict(SeriesConfig())
        if ".model." in pattern:
            series["model"] = {**copy.deepcopy(root["model"]), "name": "own"}
        root["space"]["series"] = {"one": series}
    if pattern.startswith("workload.ramp_up."):
        root["workload"]["ramp_up"] = asdict(RampConfig())
        root["workload"]["request_rate_per_s"] = None
    if pattern == "workload.burstiness" and root["client"]["kind"] != "offline":
        root["workload"]["request_rate_per_s"] = [1.0]
    if ".shape." in pattern:
        described = root["model"] if pattern.startswith("model.") else root["space"]["series"]["one"]["model"]
        described.update(config=None, shape=dict(_SHAPE))
    if pattern.startswith("workload.max_rate."):
        root["workload"]["max_rate"] = {
            **asdict(MaxRateConfig()),
            "high": 9.0,
            "bounds": {"p99_ttft_ms": 1.0},
        }
        root["workload"]["request_rate_per_s"] = None
        root["objective"]["throughput"]["metric"] = "max_rate_per_s"
    if pattern.startswith("workload.max_users."):
        root["workload"]["max_users"] = {
            **asdict(MaxUsersConfig()),
            "high": 9,
            "bounds": {"p99_ttft_ms": 1.0},
        }
        root["workload"]["request_rate_per_s"] = None
        root["objective"]["throughput"]["metric"] = "max_users"
    if pattern in ("objective.*.at_most", "objective.*.at_least"):
        root["objective"]["kept"] = asdict(ObjectiveConfig())
        root["objective"]["throughput"]["direction"] = None
        root["objective"]["other"] = {**asdict(ObjectiveConfig()), "metric": "completed"}
    if pattern == "objective.*.request_rate_per_s" and root["workload"]["request_rate_per_s"] != [1]:
        root["workload"]["request_rate_per_s"] = [1.0] if root["client"]["kind"] != "offline" else [None]
    if pattern == "objective.*.max_concurrency" and root["client"]["kind"] != "offline":
        root["workload"]["max_concurrency"] = [5]
    if pattern in COMPANIONS:
        other, value = COMPANIONS[pattern]
        set_key(root, other, value)


def _outcome(root: Any, pattern: str, platform: Platform) -> tuple[str, str]:
    mine = copy.deepcopy(root)
    mine.presets = root.presets
    path = set_key(mine, pattern, value_of(pattern))
    try:
        found = config.settings(mine, platform=platform)
    except ConfigError as exc:
        return REFUSED, str(exc)
    said = [sentence for sentence in found.left_out if path in sentence]
    return (LEFT_OUT, said[0]) if said else (ACTS, "")


@cache
def _composed(overrides: tuple[str, ...]) -> Any:
    return config.compose_run(list(overrides))


def markdown() -> str:
    """Write the tables."""
    parts = [_HEAD]
    free = set(KEYS)
    for title, cases in (
        ("Engines, clients and platforms", RUNS),
        ("Datasets", LOADS),
        ("Search methods and executors", WALKS),
    ):
        found = {case.title: outcomes(case) for case in cases}
        cells = {pattern: tuple(told[pattern][0] for told in found.values()) for pattern in KEYS}
        free -= {pattern for pattern in KEYS if len(set(cells[pattern])) > 1}
        parts += [f"## {title}\n", _table(cells, cases)]
    idle = [pattern for pattern in free if set(cells[pattern]) != {ACTS}]
    assert not idle, f"no table tells where these act: {idle}"
    parts.append(f"The other {len(free)} keys act everywhere.\n")
    needs: dict[str, list[str]] = {}
    for key, (other, _) in sorted(COMPANIONS.items()):
        needs.setdefault(other, []).append(f"`{key}`")
    rows = "\n".join(f"| {', '.join(keys)} | `{other}` |" for other, keys in needs.items())
    parts += ["## Keys that need another one\n", f"| keys | refused without |\n|---|---|\n{rows}\n"]
    return "\n".join(parts)


def _table(cells: Mapping[str, tuple[str, ...]], cases: Sequence[Case]) -> str:
    """Write a row for keys of which the same comes in every case, where it is not the same in all of them."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for pattern, own in cells.items():
        if len(set(own)) > 1:
            alike.setdefault(own, []).append(pattern)
    lines = ["| keys | refused | said |", "|---|---|---|"]
    for own, keys in alike.items():
        told = list(zip(cases, own, strict=True))
        refused = [case for case, outcome in told if outcome == REFUSED]
        said = [case for case, outcome in told if outcome == LEFT_OUT]
        names = ", ".join(f"`{key}`" for key in keys)
        lines.append(
            f"| {names} | {cases_text(refused, cases)} | {cases_text(said, cases, already=refused)} |"
        )
    return "\n".join(lines) + "\n"


def cases_text(chosen: Sequence[Case], cases: Sequence[Case], *, already: Sequence[Case] = ()) -> str:
    """Name some of a table's kinds of runs by what they have in common, in as few words as cover them.

    Args:
        chosen: What is named.
        cases: All of the table.
        already: Named in an earlier column, so that a name may cover them too.

    Returns:
        ``cuda, cpu`` for every run on either platform, ``attach with locust`` for those of that pair.
    """
    left = {case.title for case in chosen}
    allowed = left | {case.title for case in already}
    parts: list[str] = []
    while left:
        # The widest group that lies within what is allowed; the shorter name where two are as wide.
        covered, name = max(
            (
                (covered, words)
                for words in _groups(cases)
                if (covered := {case.title for case in cases if set(words) <= set(case.words)}) <= allowed
            ),
            key=lambda group: (len(group[0] & left), -len(group[1])),
        )
        left -= covered
        parts.append(" with ".join(name))
    return ", ".join(parts)


def _groups(cases: Sequence[Case]) -> Sequence[tuple[str, ...]]:
    """Return each combination of words that some kind of run has, in the order of the table."""
    return list(
        dict.fromkeys(
            words
            for case in cases
            for size in range(1, len(case.words) + 1)
            for words in combinations(case.words, size)
        )
    )


_HEAD = """\
# What each key does, and where it does nothing

A key that would do nothing is never passed over in silence:

* **refused**: the program says why, with exit code 2, before anything starts. This goes first.
* **said**: the key is left out, and one line says so.

Everywhere else it acts: it changes what is started, measured, searched or kept. A key stands in each table
whose kinds of runs it tells apart.

A key counts as set where its value is neither its default nor that of the shipped file of a chosen group.
What only the release decides (rules that name what no setting has, second runs without a prefix cache,
scripts beside a command) is refused once the release is known. Reasons: `sweeper/config/effect_table.py`.
Written by `python -m tests.key_walk`, which sets every key in every kind of run.
"""


if __name__ == "__main__":
    TABLE.write_text(markdown(), encoding="utf-8")
