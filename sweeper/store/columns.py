"""The declared columns of ``measurements/``: name, type, unit and meaning, and how the others are described.

The format is defined here and nowhere else: parts are written by it, ``docs/columns.md`` is printed
from it, and unit and description travel with every file as its Arrow metadata.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile

import pyarrow as pa

from sweeper.records.derived import WORKED_OUT
from sweeper.records.metrics import METRICS, STATISTICS, STEADY, STEADY_LATENCIES, Metric
from sweeper.text.tables import markdown_table

SCHEMA_VERSION = 2
"""Raised when the meaning of a stored column or file changes. Later versions read all earlier ones.

2: a file may hold many trials (``compaction``).
"""

DYNAMIC_PREFIXES = ("knob.", "effective.", "version.", "extra.")
"""Columns that a study brings along, in the order in which they stand after the declared ones."""

STRING = pa.string()
FLOAT = pa.float64()
INT = pa.int64()
BOOL = pa.bool_()
TIME = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True, kw_only=True)
class Column:
    """A declared column.

    Attributes:
        name: Its name, the same in code, Parquet and tables; the unit ends it.
        type: Arrow type.
        unit: Unit of the values; empty where there is none.
        description: What a value says.
    """

    name: str
    type: pa.DataType
    unit: str
    description: str

    @cached_property
    def field(self) -> pa.Field:
        """The Arrow field, with unit and description as its metadata."""
        return pa.field(self.name, self.type, metadata={"unit": self.unit, "description": self.description})


def _column(name: str, arrow_type: pa.DataType, description: str, unit: str = "") -> Column:
    return Column(name=name, type=arrow_type, unit=unit, description=description)


def _columns_of(metrics: Iterable[Metric]) -> tuple[Column, ...]:
    return tuple(
        _column(metric.name, INT if metric.is_whole else FLOAT, metric.description, metric.unit)
        for metric in metrics
    )


SECTIONS: Mapping[str, tuple[Column, ...]] = {
    "Trial": (
        _column("study", STRING, "Name of the study"),
        _column("trial_key", STRING, "Identity by content: assignment, engine, model, platform, load points"),
        _column(
            "role",
            STRING,
            "control for repetitions of the control setting; finalist, and default for what they are "
            "compared with, where measured again after the search; null for any other trial",
        ),
        _column("series", pa.list_(STRING), "Names of the series that this trial serves; may be empty"),
        _column("provenance", STRING, "measured on a machine, or simulated by a model of one"),
        _column("platform", STRING, "Machine measured: mi300x, cuda, cpu or simulated"),
        _column("state", STRING, "complete, failed, infeasible or skipped"),
        _column("failure_class", STRING, "Why there are no numbers; null for a complete trial"),
        _column("failure_message", STRING, "The engine's own line where it left one, else the sweeper's"),
        _column("log_path", STRING, "Log of the engine"),
        _column("attempt", INT, "Attempt at this trial, from 1"),
        _column("restart", INT, "Engine start within the trial; null where nothing was measured"),
        _column("repeat", INT, "Client run within the engine start; null where nothing was measured"),
    ),
    "Load point": (
        _column(
            "dataset",
            STRING,
            "What is sent: sharegpt, random, custom, ...; latency and throughput have no server",
        ),
        _column("num_prompts", INT, "Requests sent", "requests"),
        _column("request_rate_per_s", FLOAT, "Mean of the Poisson arrivals; null: no rate", "1/s"),
        _column(
            "max_concurrency",
            INT,
            "Requests under way at once, or users of a closed loop; null is unlimited",
            "requests",
        ),
        _column(
            "input_len",
            INT,
            "Prompt length asked for; of no effect where the dataset has lengths of its own",
            "tokens",
        ),
        _column("output_len", INT, "Output length asked for; null keeps those of the dataset", "tokens"),
        _column("range_ratio", FLOAT, "Random lengths lie in len * (1 +/- ratio)", "fraction"),
        _column("dataset_path", STRING, "File of the dataset"),
        _column("ignore_eos", BOOL, "Exactly the wanted number of tokens is generated"),
        _column("client_seed", INT, "Seed of arrivals and sampling"),
        _column(
            "keeps_prefix_cache", BOOL, "Began with what the engine remembered of earlier runs of the trial"
        ),
        _column("dataset_options", STRING, "What the dataset was told beside lengths; null for nothing"),
        _column("arrivals", STRING, "Ramp and burstiness of the arrivals; null for Poisson at one rate"),
        _column(
            "request_form", STRING, "Endpoint, sampling and what else was in the body; null for the usual"
        ),
        _column(
            "warmup_prompts",
            INT,
            "Requests thrown away just before this load point (workload.warmup_per_user); null for none",
            "requests",
        ),
        _column("goodput_bounds", STRING, "Milliseconds that a good request keeps, as --goodput takes them"),
        _column(
            "max_rate_slo",
            STRING,
            "The row probes one rate in the search for the highest within these bounds; else null",
        ),
        _column(
            "max_users_slo",
            STRING,
            "The row probes some users in the search for the most within these bounds; else null",
        ),
    ),
    "Metrics, as vLLM's benchmarks define them": _columns_of(METRICS),
    "The steady part of the run, from the times of single requests; null where they are not known": (
        _column("ramp_s", FLOAT, "Until nine tenths of the usual number of requests were under way", "s"),
        _column("drain_s", FLOAT, "From the last request sent to the last token", "s"),
        _column("steady_s", FLOAT, "Between the two; null where too short to say anything of it", "s"),
        _column("steady_drifts", FLOAT, "1 where latencies moved from its first to its last third", "flag"),
        *_columns_of(STEADY),
    ),
    "Accuracy, of questions asked before the loads (accuracy.path, accuracy.task); null where none were": (
        _column("accuracy", FLOAT, "Share of right answers, by the first start of the trial", "fraction"),
        _column("accuracy_low", FLOAT, "Lower end of its 95 % interval, by Wilson's method", "fraction"),
        _column("accuracy_high", FLOAT, "Upper end of the same", "fraction"),
        _column("accuracy_questions", INT, "Questions asked", "questions"),
        _column("accuracy_of", STRING, "What was asked, with what hashes its content, and by what"),
        _column(
            "accuracy_right",
            STRING,
            "1 or 0 for each question in order, right or not; null for a task of several parts",
        ),
    ),
    "Telemetry, seen during the run; null where the platform does not tell": (
        _column("prefix_cache_hit_rate", FLOAT, "Prompt tokens found in the prefix cache", "fraction"),
        _column("kv_cache_usage", FLOAT, "Highest share of the KV cache seen in use", "fraction"),
        _column("kv_cache_usage_mean", FLOAT, "Mean share of the KV cache in use", "fraction"),
        _column("requests_running_mean", FLOAT, "Mean of the requests that the engine worked on", "requests"),
        _column("requests_running_max", FLOAT, "Most requests seen worked on at once", "requests"),
        _column("requests_waiting_mean", FLOAT, "Mean of the requests that waited in the engine", "requests"),
        _column("requests_waiting_max", FLOAT, "Most requests seen waiting at once", "requests"),
        _column(
            "repeated_prompts",
            INT,
            "Least number of requests whose prompt this run had sent before, as the dataset is shorter than "
            "the run: the prefix cache may know them; null for none",
            "requests",
        ),
        _column(
            "short_answers",
            INT,
            "Answers with fewer tokens than output_len; null where no one length was asked for, or lengths "
            "are not reported",
            "requests",
        ),
        _column(
            "short_answers_because", STRING, "Why, in a sentence with what to do; null where there are none"
        ),
        _column("preemptions", INT, "Requests put back because the KV cache was full", "requests"),
        _column(
            "foreign_processes",
            INT,
            "Other processes on the devices before or after the run: 0, as no run with any is stored; null "
            "where it cannot be told",
            "processes",
        ),
        _column("gpu_memory_gib", FLOAT, "Most device memory seen in use, all devices of the trial", "GiB"),
        _column("gpu_power_w", FLOAT, "Mean device power, all devices of the trial", "W"),
        _column("gpu_power_max_w", FLOAT, "Highest device power seen, all devices of the trial", "W"),
        _column("gpu_clock_mhz", FLOAT, "Mean graphics clock of the devices", "MHz"),
        _column("gpu_memory_clock_mhz", FLOAT, "Mean memory clock of the devices", "MHz"),
        _column("gpu_temperature_c", FLOAT, "Hottest spot seen on any device", "C"),
        _column("gpu_throttled_share", FLOAT, "Looks at which power or heat slowed a device", "fraction"),
        _column("host_cpu_share", FLOAT, "Share of the host's processor time that was busy", "fraction"),
        _column("engine_cpu_cores", FLOAT, "Processors that the engine kept busy, mean", "processors"),
        _column("client_cpu_cores", FLOAT, "Processors that the client kept busy, mean", "processors"),
        _column("telemetry_looks", INT, "Looks taken during the run, about one a second", "looks"),
    ),
    "Time spent": (
        _column("queued_s", FLOAT, "The trial waited for its devices", "s"),
        _column("free_wait_s", FLOAT, "Until its devices were seen to be free, after it was given them", "s"),
        _column("engine_start_s", FLOAT, "Launch of the engine until ready", "s"),
        _column("warmup_s", FLOAT, "Requests whose numbers are thrown away", "s"),
        _column("measured_s", FLOAT, "The client run of this row", "s"),
        _column("client_overhead_s", FLOAT, "Around the client run: imports, dataset, writing", "s"),
        _column("stop_s", FLOAT, "Ending the engine", "s"),
        _column(
            "started_at",
            TIME,
            "Start of the run of this row; of the trial where nothing was measured",
            "UTC",
        ),
        _column(
            "ended_at", TIME, "End of the run of this row; of the trial where nothing was measured", "UTC"
        ),
    ),
    "Placement": (
        _column("node", STRING, "Host name"),
        _column("devices", pa.list_(INT), "Node-absolute indices of the devices held"),
        _column("parents", pa.list_(INT), "Physical GPUs that these devices are part of"),
        _column("device_name", STRING, "Product name of these devices, such as AMD Instinct MI300X"),
        _column("partition_mode", STRING, "Compute mode: SPX, DPX, TPX, QPX, CPX; null where there are none"),
        _column("partitions_per_gpu", INT, "Devices that each GPU shows in that mode; null where not told"),
        _column("memory_mode", STRING, "NPS1, NPS2, NPS4; null where there are none"),
        _column("numa_node", INT, "NUMA node that all devices share"),
    ),
    "Engine and model": (
        _column("engine", STRING, "What serves: vllm, sglang, tgi, attach or simulated"),
        _column(
            "engine_release",
            STRING,
            "Release of vLLM or SGLang whose flags and defaults were taken: found, or stated for a build "
            "whose version tells none",
        ),
        _column(
            "engine_build",
            STRING,
            "Version of a build that tells no release, so that engine_release was stated; else null",
        ),
        _column("image", STRING, "Container image that it ran in, as it was named; null for a process"),
        _column(
            "image_digest",
            STRING,
            "Its content: the digest of its registry, else the image's own; null for a process",
        ),
        _column("client", STRING, "What loads it: vllm_bench, offline, locust, aiperf or guidellm"),
        _column(
            "client_version",
            STRING,
            "Version of a client with an environment of its own; else null",
        ),
        _column("client_arguments", STRING, "What it was given by client.arguments; null for nothing"),
        _column("model", STRING, "Name under which the model is served"),
        _column("model_path", STRING, "Hub id or folder that the engine was given"),
        _column("model_revision", STRING, "Revision on the hub, or content hash of a local folder"),
        _column("model_dtype", STRING, "Type of the weights"),
        _column("model_is_dummy", BOOL, "Weights are random, so only speed means anything"),
        _column("calibration", STRING, "Parameters of the simulation, JSON; null when measured"),
        _column("calibration_name", STRING, "Calibration that they are, with what was changed in it"),
        _column(
            "calibration_nearness",
            STRING,
            "'the same stack', or how the calibration's differs from the trial's, the weightiest first; null "
            "when measured",
        ),
        _column(
            "expected_error",
            STRING,
            "Mean error of this calibration on runs of this kind, or why it is not known; null when measured",
        ),
        _column(
            "interval_80",
            STRING,
            "Ends of each simulated metric's interval, JSON: it held four of five unseen published numbers "
            "of its kind; null when measured",
        ),
        _column("modelled_device", STRING, "GPU that is modelled, such as mi300x; null when measured"),
        _column(
            "set_live",
            STRING,
            "Limits changed in a running engine that several settings share (engine.live), as its scheduler "
            "confirmed them; empty for those of the start; null for an engine of this trial alone",
        ),
        _column("started_with", STRING, "Limits that such an engine was started with; else null"),
        _column(
            "live_trial",
            INT,
            "Which trial of its start it is, from 0; all but the first took no time for a start; else null",
        ),
        _column("command", STRING, "Command line of the engine, quoted for a shell, without secrets"),
        _column("sanity_fingerprint", STRING, "Of the answer to a greedy question"),
        _column("sanity_text", STRING, "That answer, the same before and after the loads"),
        _column("raw_path", STRING, "The client's own JSON as it came"),
    ),
    "Kernels, as the engine's log names them; null where it does not": (
        _column("kernel_attention", STRING, "Backends of attention; of decode where prefill has its own"),
        _column("kernel_attention_prefill", STRING, "What prefill has of its own: of MLA, of Gated DeltaNet"),
        _column("kernel_moe", STRING, "Backends of experts, with the quantization they are for"),
        _column("kernel_linear", STRING, "Kernels of quantized matrices"),
        _column("kernel_all_reduce", STRING, "How tensor parallel ranks add up, in order of dispatch"),
        _column("kernel_graphs", STRING, "Mode of graphs that was left in the end: NONE, PIECEWISE, ..."),
        _column("kernel_compile", STRING, "Level of compilation: NONE, ..., VLLM_COMPILE"),
        _column("kernel_aiter", BOOL, "AITER is switched on; null off ROCm, or where the release has none"),
        _column("kernel_aiter_switches", STRING, "AITER's sub-switches that are on; empty where it is off"),
        _column("kernel_aiter_modules", STRING, "Modules of AITER that were loaded"),
        _column(
            "kernel_untuned_shapes",
            INT,
            "Shapes without a tuned kernel; .untuned.csv next to the log lists them",
            "shapes",
        ),
        _column(
            "kernel_kv_scales_missing", BOOL, "An fp8 KV cache runs with scales of 1, as none were found"
        ),
    ),
    "Versions": (
        _column("version.sweeper", STRING, "This package"),
        _column("version.vllm", STRING, "vLLM, found in its environment or modelled"),
        _column("version.torch", STRING, "PyTorch of the engine"),
        _column("version.rocm", STRING, "ROCm that is installed on the node, or in the image"),
        _column("version.driver", STRING, "GPU driver"),
        _column("version.gfx_target", STRING, "Instruction set of the GPU, such as gfx942"),
        _column("version.kernel", STRING, "Linux kernel"),
        _column("version.python", STRING, "Python of the engine"),
        _column("version.sweeper_python", STRING, "Python of this package"),
        _column("version.ray", STRING, "Ray"),
        _column("schema_version", INT, "Version of this table's format"),
    ),
    "Surroundings": (
        _column("container", STRING, "Kind of container that the trial ran in; none outside of one"),
        _column("numa_balancing", INT, "The kernel's NUMA balancing; 0 is off"),
        _column("environment", STRING, "Variables that change speed, by an allow-list, JSON"),
        _column(
            "audit",
            STRING,
            "Settings of the node against AMD's guides (python -m sweeper audit): a hash of all, then the "
            "checks that differ or were unreadable",
        ),
    ),
}
"""The declared columns under their headings, in the order in which they stand in a part."""

COLUMNS: tuple[Column, ...] = tuple(column for columns in SECTIONS.values() for column in columns)
"""All declared columns."""

DECLARED = {column.name: column for column in COLUMNS}

_LATENCIES = {metric.name for metric in METRICS if metric.latency} | set(STEADY_LATENCIES)
_STATISTIC = re.compile(rf"(?<![a-z0-9])(?:{'|'.join(STATISTICS)})_")


def dynamic_order(name: str) -> tuple[int, str]:
    """Return the sort key of a column that is not declared: by kind, then by name."""
    kinds = [index for index, prefix in enumerate(DYNAMIC_PREFIXES) if name.startswith(prefix)]
    return (kinds[0] if kinds else len(DYNAMIC_PREFIXES), name)


def dynamic_field(name: str, arrow_type: pa.DataType) -> pa.Field:
    """Make the Arrow field of a column that is not declared."""
    return pa.field(name, arrow_type, metadata={"unit": "", "description": dynamic_meaning(name)})


def dynamic_meaning(name: str) -> str:
    """Describe what the values of a column that is not declared mean."""
    kind, _, rest = name.partition(".")
    if name == "effective.not_compared":
        return "Knobs that the engine reported in a form that cannot be compared with what was asked"
    return {
        "knob": f"Value of knob {rest} that was asked for; null leaves it to the engine",
        "effective": f"Value of {rest} that the engine reported",
        "version": f"Version of {rest}",
        "extra": f"{rest}, as the client or engine gave it; not declared in this format",
    }.get(kind, "Not declared in this format")


def columns_markdown() -> str:
    """Describe every column of ``measurements/`` in Markdown, straight from the declarations."""
    lines = [
        "# Columns of measurements/",
        "",
        "A row is one client run at one load point; a trial without numbers has one row per load point. Null",
        "is unknown, zero is zero. Unit and meaning also stand in each field's Arrow metadata.",
        f"Schema version {SCHEMA_VERSION}.",
    ]
    for title, columns in SECTIONS.items():
        table = markdown_table(("column", "type, unit", "meaning"), _described(columns))
        lines += ["", f"## {title}", "", table]
    worked_out = [(f"`{one.name}`", one.unit, one.description) for one in WORKED_OUT.values()]
    lines += [
        "",
        "## Worked out on reading, not stored",
        "",
        "Metrics all the same: objectives, bounds, and columns of the tables that `analysis` reads.",
        "",
        markdown_table(("column", "unit", "meaning"), worked_out),
    ]
    brought = [(f"`{prefix}<name>`", dynamic_meaning(f"{prefix}<name>")) for prefix in DYNAMIC_PREFIXES]
    table = markdown_table(("column", "meaning"), brought)
    lines += ["", "## Columns that a study brings along", "", table]
    lines += [
        "",
        "Their type is that of their values: boolean, whole number, number or text. Whole numbers become",
        "numbers when both occur in a study; any other mix becomes text.",
    ]
    return "\n".join(lines) + "\n"


def _described(columns: Iterable[Column]) -> Iterator[tuple[str, str, str]]:
    """Return name, type with unit, and meaning of columns; the statistics of a latency share a row."""
    alike: dict[str, list[Column]] = {}
    for column in columns:
        is_latency = column.name in _LATENCIES
        alike.setdefault(_STATISTIC.sub("", column.name) if is_latency else column.name, []).append(column)
    for own in alike.values():
        names = ", ".join(f"`{column.name}`" for column in own)
        # "<" would begin a tag.
        kind = re.sub(r"list<item: (\w+)>", r"list of \1", str(own[0].type))
        meaning = _shared_end([column.description for column in own])
        if len(own) > 1:
            meaning = meaning[:1].upper() + meaning[1:]
        yield names, f"{kind}, {own[0].unit}" if own[0].unit else kind, meaning


def _shared_end(texts: Sequence[str]) -> str:
    """Return the words in which all texts end: all of one text, and what is timed of a latency's."""
    backwards = zip(*(reversed(text.split()) for text in texts), strict=False)
    shared = [words[0] for words in takewhile(lambda words: len(set(words)) == 1, backwards)]
    return " ".join(reversed(shared))
