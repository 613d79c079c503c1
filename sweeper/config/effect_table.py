"""Every key of the configuration, and where it does nothing, with the reason.

Sorted as the schema is. A new key must be placed here: ``tests/config/test_effect.py`` sees to it,
walks all of them over engines, clients and platforms, and sees that keys that act change what is started
or measured.
"""

from __future__ import annotations

from dataclasses import fields

from sweeper.config.effect import Effect, Idle
from sweeper.config.schema import RampConfig, ShapeConfig
from sweeper.kinds import DATASETS, DEFAULT_CLIENT
from sweeper.records import Platform

_ATTACHED = Idle(
    when=lambda run: run.is_attached,
    because="engine.kind is 'attach': the endpoint runs already, and is not started or stopped here",
)
_NO_RESTARTS = Idle(
    when=lambda run: run.is_attached,
    because="engine.kind is 'attach', whose endpoint is never started anew; repeats are engine starts",
    remedy="Set runs_per_start for more runs.",
)
_NOT_ATTACHED = Idle(
    when=lambda run: all(kind.is_started_by_us for kind in run.engines),
    because="engine.kind is '{engine}', which starts its own server",
    remedy="Set engine=attach to measure an endpoint that already runs.",
)
_NO_FOREIGN_KEY = Idle(
    when=lambda run: all(kind.is_started_by_us for kind in run.engines),
    because="engine.kind is '{engine}', whose servers get a random key",
    remedy="Leave it out, or set engine=attach.",
)
_NO_LAUNCHER = Idle(
    when=lambda run: not any(kind.is_run_by_command for kind in run.engines),
    because="engine.kind is '{engine}'; expected none, since only TGI is started by a command: vLLM and "
    "SGLang are started by their interpreter (engine.python), and in a container by engine.image",
    remedy="Leave it out, or set engine=tgi.",
)
_NOT_STARTED = Idle(
    when=lambda run: run.is_simulated,
    because="nothing is started on the simulated platform",
    is_said=True,
)
_NO_IMAGE = Idle(
    when=lambda run: not run.has_images,
    because="no image is named; expected a container that this is for",
    remedy="Leave it out, or set engine.image.",
)
_ENGINE_INSIDE = Idle(
    when=lambda run: run.client.has_engine_inside,
    because="client.kind is '{client}', whose benchmark has the engine inside it, in no container",
    remedy="Leave it out, or use client=vllm_bench.",
)
_NOT_READ = Idle(
    when=lambda run: (
        run.is_simulated and not any(DATASETS[name].is_read_for_lengths for name in run.datasets)
    ),
    because="the simulated platform draws the lengths of dataset '{dataset}' and does not read its file",
    is_said=True,
)
_NO_PYTHON = Idle(
    when=lambda run: not run.needs_engine_python,
    because="neither engine '{engine}' nor client '{client}' runs it (client.python is taken before it)",
)
_CORES = Idle(
    when=lambda run: run.platform is Platform.CPU,
    because="an engine on the cpu platform has a mask of cores, which is narrower",
    is_said=True,
)
_ONE_INSTANCE = Idle(
    when=lambda run: not run.has_instances,
    because="no setting has the knob instances; expected several engines to join",
    remedy="Leave it out, or set knobs.instances or space.knobs.instances.",
)
_NO_KNOBS_OF_VLLM = Idle(
    when=lambda run: not any(kind.takes_vllm_flags or kind.check is not None for kind in run.engines),
    because="engine.kind is '{engine}', whose knobs no table of releases is asked about",
)
_NO_LIVE_LIMITS = Idle(
    when=lambda run: not run.is_simulated and not any(kind.has_live_limits for kind in run.engines),
    because="engine.kind is '{engine}', whose limits cannot be changed while it runs",
)
_NO_SERVER = Idle(
    when=lambda run: run.client.has_engine_inside,
    because="client.kind is 'offline', whose benchmarks have the engine inside them: there is no server to "
    "wait for, to ask or to warm up",
)
_NO_WARM_UP = Idle(
    when=lambda run: not any(run.root["workload"][key] for key in ("warmup_prompts", "warmup_per_user")),
    because="workload.warmup_prompts and warmup_per_user are 0, so that there is no warm-up to limit",
    remedy="Leave it out, or set workload.warmup_prompts.",
)
_NO_WATCHED_PROGRAM = Idle(
    when=lambda run: run.client.has_engine_inside or (run.is_attached and not run.client.stays_up),
    because="client.kind is '{client}' with engine.kind '{engine}', which have no process that stays up",
)
_NOT_OF_THIS_CLIENT = Idle(
    when=lambda run: not run.client.has_own_python,
    because=f"client.kind is '{{client}}'; expected {DEFAULT_CLIENT}, or one with an environment of its own",
)
_NOT_WAITED_FOR = Idle(
    when=lambda run: not run.client.stays_up,
    because=f"client.kind is '{{client}}'; expected {DEFAULT_CLIENT}, whose process alone stays up and is "
    "waited for before a load",
)
_NO_ARGUMENTS = Idle(
    when=lambda run: not run.client.takes_arguments,
    because=f"client.kind is '{{client}}'; expected {DEFAULT_CLIENT}, which alone is given any",
)
_KNOB_OF_BOTH = Idle(
    when=lambda run: not run.is_attached,
    because="engine.kind is '{engine}', whose knob trust_remote_code reaches server and client alike",
    remedy="Leave it out, or set knobs.trust_remote_code.",
)
_NO_SCRIPT = Idle(
    when=lambda run: not run.client.is_of_vllm,
    because="client.kind is '{client}', which needs no script of vLLM's",
)

_OVERRIDDEN = Idle(
    when=lambda run: not run.datasets,
    because="each of workload.points says its own; expected a key that some load point takes from here",
    remedy="Change the points, or set workload.points=null.",
)
_NO_FILE = Idle(
    when=lambda run: not any(DATASETS[name].reads_file for name in run.datasets),
    because="dataset '{dataset}' is drawn and read from no file",
    remedy="Leave it out, or set workload.dataset=sharegpt.",
)
_ALL_AT_ONCE = Idle(
    when=lambda run: bool(run.datasets) and run.is_offline,
    because="dataset '{dataset}' is handed over all at once by client '{client}'; expected null",
    remedy="Set it to null.",
    heeds_presets=True,
)
_OWN_LENGTHS = Idle(
    when=lambda run: bool(run.datasets) and all(DATASETS[name].has_own_lengths for name in run.datasets),
    because="dataset {dataset} has prompts of its own lengths",
    remedy="Set it to null, or set workload.dataset=random.",
    heeds_presets=True,
)
_NOT_DRAWN = Idle(
    when=lambda run: not any(DATASETS[name].draws_lengths for name in run.datasets),
    because="dataset '{dataset}' draws no lengths from a range",
    remedy="Leave it out, or set workload.dataset=random.",
)
_ANSWERS_END = Idle(
    when=lambda run: not any(kind.heeds_ignore_eos for kind in run.engines),
    because="TGI does not know it: its answers may end early whatever is asked",
    remedy="Set workload.ignore_eos=false.",
)
_WARMS_ITSELF = Idle(
    when=lambda run: run.is_offline,
    because="client.kind is '{client}', whose benchmarks warm up by themselves or not at all",
    remedy="Set it to 0.",
)
_REMEMBERS_NOTHING = Idle(
    when=lambda run: run.is_offline or not any(kind.keeps_prefixes for kind in run.engines),
    because="neither an engine inside a benchmark nor TGI is run a second time with its prefix cache kept",
    remedy="Set workload.second_run=false.",
)
_NO_SINGLE_REQUESTS = Idle(
    when=lambda run: run.is_offline or not run.client.reports_requests,
    because="is given with client '{client}', which reports no single requests",
    remedy="Remove it, or use client=vllm_bench.",
)

_NO_REQUESTS = Idle(
    when=lambda run: run.is_offline or not run.client.forms_requests,
    because="client.kind is '{client}', which is told nothing of single requests; expected vLLM's benchmark",
    remedy="Leave it out, or use client=vllm_bench.",
)
_NO_OPTIONS = Idle(
    when=lambda run: run.client.is_told_lengths_alone,
    because="client.kind is '{client}', which is told lengths alone; expected none",
    remedy="Leave it out, or use client=vllm_bench.",
)
_NO_CONTENT = Idle(
    when=lambda run: run.is_simulated,
    because="nothing is asked on the simulated platform, whose requests are lengths and times",
    is_said=True,
)
# Conversations are refused at any endpoint but chat, whoever serves them.
_NO_ENDPOINT = Idle(
    when=lambda run: run.is_simulated and not any(DATASETS[name].conversations for name in run.datasets),
    because=_NO_CONTENT.because,
    is_said=True,
)

_GIVEN_KNOBS = Idle(
    when=lambda run: run.is_attached,
    because="engine.kind is 'attach', and an endpoint that already runs keeps its own settings",
    is_said=True,
)
_NO_VARIATION = Idle(
    when=lambda run: run.is_attached,
    because="engine.kind is 'attach', and no knob of an endpoint varies that a rule could compare",
)
_GRID = Idle(
    when=lambda run: run.method.is_exhaustive,
    because="search.method is 'grid', which measures every point of the space",
    remedy="Set it to null, or choose a search, such as search=random.",
)
_NO_GRID = Idle(
    when=lambda run: not run.method.is_exhaustive,
    because="search.method is '{method}', which enumerates nothing; expected grid",
    remedy="Leave it out, or use search=grid.",
)
_CHOOSES_ITSELF = Idle(
    when=lambda run: not run.method.learns,
    because="search={method} chooses by itself what comes first",
    is_said=True,
)
_UNSEEDED = Idle(
    when=lambda run: (
        run.method.is_exhaustive
        and run.root["study"]["order"] != "shuffled"
        and not run.root["search"]["finalists"]
    ),
    because="search.method is 'grid' with study.order '{order}' and no finalists, which draw nothing",
    remedy="Leave it out, or set study.order=shuffled.",
)
_RUNS_WHOLE = Idle(
    when=lambda run: not run.stops_early,
    because="search.stops_early is not true, so that every trial runs to its end",
    remedy="Leave it out, or set search.stops_early=true.",
)
_PATIENT = Idle(
    when=lambda run: run.root["search"]["min_improvement"] is None,
    because="search.min_improvement is not given, so that no trial counts as a miss",
    remedy="Leave it out, or set search.min_improvement.",
)
_NO_FINALISTS = Idle(
    when=lambda run: not run.root["search"]["finalists"],
    because="search.finalists is 0, so that nothing is measured again",
    remedy="Leave it out, or set search.finalists.",
)
_NO_STAGES = Idle(
    when=lambda run: not run.method.has_stages,
    because="search.method is {method}; expected staged",
    remedy="Use search=staged, or leave it out.",
)
_NO_CLUSTER = Idle(
    when=lambda run: run.root["executor"]["kind"] == "inline",
    because="executor.kind is 'inline', which works in this process and joins no cluster",
    remedy="Leave it out, or set executor=ray.",
)
_NO_CONTROL = Idle(
    when=lambda run: run.root["study"]["control"] is None,
    because="study.control is not; expected a setting to repeat",
    remedy="Set study.control to a series, or to base.",
)
_NO_QUESTIONS = Idle(
    when=lambda run: run.root["accuracy"]["path"] is None and run.root["accuracy"]["task"] is None,
    because="nothing is asked; expected accuracy.path or accuracy.task",
    remedy="Leave it out, or name questions.",
)
_NO_PRICE = Idle(
    when=lambda run: run.root["study"]["price_per_gpu_hour"] is None,
    because="study.price_per_gpu_hour is not; expected an amount to stand before it",
    remedy="Set study.price_per_gpu_hour, or leave it out.",
)
_MEASURED = Idle(
    when=lambda run: not run.is_simulated,
    because="the platform is {platform}; expected none, since the devices of a real node are read and "
    "nothing is simulated there",
    remedy="Leave it out, or use platform=simulated.",
)
_NO_MODES = Idle(
    when=lambda run: run.platform in (Platform.CPU, Platform.CUDA),
    because="the platform is {platform}, whose devices have no such modes; expected none",
    remedy="Set it to null, or use platform=mi300x or simulated.",
)
_UNMODELLED = Idle(
    when=lambda run: not run.is_simulated and (run.platform is not Platform.MI300X or not run.method.learns),
    because="nothing is modelled on platform {platform} with search={method}; expected none",
    remedy="Leave it out, or use platform=simulated.",
)
_ALL_DEVICES = Idle(
    when=lambda run: run.is_attached,
    because="engine.kind is 'attach', whose endpoint has its devices already",
)
_NO_PLAN = Idle(
    when=lambda run: not run.root["plan"],
    because="plan is false; expected a plan to write",
    remedy="Add plan=true.",
)

_ONE_ENDPOINT = Idle(
    when=lambda run: not run.starts_servers,
    because="engine.kind is 'attach', which starts no server; expected series that the endpoint serves",
    remedy="Leave it out, or start both engines: engine=vllm.",
)
_NO_OFFLINE_TGI = Idle(
    when=lambda run: run.client.has_engine_inside and run.has_foreign_engine,
    because="client.kind is 'offline', whose benchmarks start vLLM themselves; expected no other engine "
    "among what they measure",
    remedy="Use client=vllm_bench.",
)
_RAMP = tuple(field.name for field in fields(RampConfig))
_SHAPE = tuple(field.name for field in fields(ShapeConfig))

_STARTS_VLLM = Idle(
    when=lambda run: run.client.has_engine_inside and not all(kind.takes_vllm_flags for kind in run.engines),
    because="engine.kind is '{engine}'; expected vllm alone, which its benchmarks start themselves, in place "
    "of a server",
    remedy="Use client=vllm_bench, or engine=vllm.",
    heeds_presets=True,
)
_SHARES_NOTHING = Idle(
    when=lambda run: run.client.has_engine_inside and run.has_instances,
    because="the knob instances is given; expected a server each to share a load, and an engine inside a "
    "benchmark is none",
    remedy="Leave instances out, or use client=vllm_bench with workload.dataset random or sharegpt.",
    heeds_presets=True,
)

EFFECTS: tuple[Effect, ...] = (
    Effect(
        keys=(
            *("study.name", "study.experiment", "study.question", "study.source", "study.outputs"),
            *("study.storage", "study.results", "study.isolation", "study.order", "study.control"),
            *("study.counterpart_of", "study.changes.*"),
            # What a GPU costs is said by the plan, and by the report of a run.
            "study.price_per_gpu_hour",
        )
    ),
    Effect(keys=("study.control_every",), idle=(_NO_CONTROL,), is_shown=False),
    Effect(keys=("study.currency",), idle=(_NO_PRICE,)),
    Effect(keys=("platform.name", "platform.overlay")),
    Effect(keys=("platform.partition_mode", "platform.memory_mode"), idle=(_NO_MODES,)),
    Effect(keys=("platform.devices", "platform.device_ids"), idle=(_ALL_DEVICES,)),
    Effect(keys=("platform.device", "platform.calibration"), idle=(_MEASURED,)),
    # On a machine the release is found; this one is what the experiment was written for, and said beside it.
    Effect(keys=("engine.kind", "engine.release")),
    Effect(keys=("engine.python",), idle=(_NO_PYTHON, _NOT_STARTED)),
    Effect(keys=("engine.url",), idle=(_NOT_ATTACHED,), is_shown=False),
    Effect(keys=("engine.api_key_env",), idle=(_NO_FOREIGN_KEY,), is_shown=False),
    Effect(keys=("engine.command", "engine.prefix"), idle=(_NO_LAUNCHER, _NOT_STARTED)),
    Effect(keys=("engine.image",), idle=(_ATTACHED, _ENGINE_INSIDE, _NOT_STARTED)),
    Effect(
        keys=("engine.container_runtime", "engine.container_arguments"),
        idle=(_ATTACHED, _ENGINE_INSIDE, _NO_IMAGE, _NOT_STARTED),
    ),
    Effect(keys=("engine.instances_by",), idle=(_ATTACHED, _ONE_INSTANCE)),
    Effect(keys=("engine.binds_numa",), idle=(_ATTACHED, _NOT_STARTED, _CORES)),
    Effect(keys=("engine.live",), idle=(_ATTACHED, _NO_LIVE_LIMITS, _NOT_STARTED)),
    Effect(keys=("engine.allow_unknown",), idle=(_NO_KNOBS_OF_VLLM,)),
    Effect(keys=("engine.free_timeout_s", "engine.start_timeout_s"), idle=(_ATTACHED, _NOT_STARTED)),
    Effect(keys=("engine.launch_timeout_s",), idle=(_NO_WATCHED_PROGRAM, _NOT_STARTED)),
    Effect(keys=("engine.ready_timeout_s",), idle=(_ATTACHED, _NO_SERVER, _NOT_STARTED)),
    Effect(keys=("engine.sanity_timeout_s",), idle=(_NO_SERVER, _NOT_STARTED)),
    Effect(keys=("engine.warmup_timeout_s",), idle=(_NO_SERVER, _NO_WARM_UP, _NOT_STARTED)),
    Effect(keys=("engine.load_timeout_s",), idle=(_NOT_STARTED,)),
    # Also how long a sweep that is stopped waits for its trials, whatever they run on.
    Effect(keys=("engine.stop_timeout_s",)),
    Effect(
        keys=(
            *("model.name", "model.path", "model.dtype", "model.is_dummy", "model.revision", "model.config"),
            *(f"model.shape.{name}" for name in _SHAPE),
        )
    ),
    Effect(
        keys=("workload.dataset", "workload.num_prompts", "workload.output_len", "workload.client_seed"),
        idle=(_OVERRIDDEN,),
    ),
    Effect(keys=("workload.dataset_path",), idle=(_OVERRIDDEN, _NO_FILE, _NOT_READ)),
    Effect(
        keys=("workload.request_rate_per_s", "workload.max_concurrency"), idle=(_OVERRIDDEN, _ALL_AT_ONCE)
    ),
    Effect(keys=("workload.input_len",), idle=(_OVERRIDDEN, _OWN_LENGTHS)),
    Effect(keys=("workload.range_ratio",), idle=(_OVERRIDDEN, _NOT_DRAWN)),
    # The benchmarks without a server, and the model of one, always let answers run to their end.
    Effect(keys=("workload.ignore_eos",), idle=(_OVERRIDDEN, _ANSWERS_END)),
    Effect(keys=("workload.warmup_prompts", "workload.warmup_per_user"), idle=(_WARMS_ITSELF,)),
    Effect(keys=("workload.options.*",), idle=(_OVERRIDDEN, _NO_OPTIONS)),
    Effect(keys=("workload.prompts_per_user",), idle=(_OVERRIDDEN,)),
    Effect(
        keys=("workload.burstiness", *(f"workload.ramp_up.{name}" for name in _RAMP)),
        idle=(_OVERRIDDEN, _NO_REQUESTS),
    ),
    Effect(
        keys=("workload.sampling.*", "workload.extra_body.*"),
        idle=(_OVERRIDDEN, _NO_REQUESTS, _NO_CONTENT),
    ),
    Effect(keys=("workload.endpoint",), idle=(_OVERRIDDEN, _NO_REQUESTS, _NO_ENDPOINT)),
    Effect(keys=("workload.second_run",), idle=(_REMEMBERS_NOTHING,)),
    Effect(keys=("workload.points",)),
    Effect(keys=("workload.goodput.*",), idle=(_NO_SINGLE_REQUESTS,)),
    Effect(
        keys=(
            *(f"workload.max_rate.{name}" for name in ("low", "high", "resolution")),
            "workload.max_rate.bounds.*",
            *(f"workload.max_users.{name}" for name in ("low", "high", "resolution")),
            "workload.max_users.bounds.*",
        ),
        idle=(_OVERRIDDEN, _NO_SINGLE_REQUESTS),
    ),
    Effect(keys=("client.kind",), idle=(_STARTS_VLLM, _SHARES_NOTHING)),
    Effect(keys=("client.script",), idle=(_NO_SCRIPT, _NOT_STARTED)),
    Effect(keys=("client.python",), idle=(_NOT_OF_THIS_CLIENT, _NOT_STARTED)),
    Effect(keys=("client.start_timeout_s",), idle=(_NOT_WAITED_FOR, _NOT_STARTED)),
    Effect(keys=("client.arguments.*",), idle=(_NO_ARGUMENTS, _NOT_STARTED)),
    Effect(keys=("client.trust_remote_code",), idle=(_NOT_OF_THIS_CLIENT, _KNOB_OF_BOTH)),
    Effect(keys=("accuracy.path", "accuracy.task"), idle=(_NO_SERVER, _NOT_STARTED)),
    Effect(
        keys=tuple(f"accuracy.{name}" for name in ("limit", "max_tokens", "timeout_s", "python")),
        idle=(_NO_QUESTIONS, _NOT_STARTED),
    ),
    Effect(keys=("knobs.*",), idle=(_GIVEN_KNOBS,)),
    Effect(
        keys=(
            *(f"space.series.*.{name}" for name in ("label", "published", "run")),
            *(f"space.series.*.model.{name}" for name in ("name", "path", "dtype", "is_dummy", "revision")),
            "space.series.*.model.config",
            *(f"space.series.*.model.shape.{name}" for name in _SHAPE),
        )
    ),
    Effect(keys=("space.series.*.engine",), idle=(_ONE_ENDPOINT, _NO_OFFLINE_TGI)),
    # An endpoint refuses these by itself, with a sentence about all of them.
    Effect(keys=("space.series.*.knobs.*", "space.knobs.*"), idle=(_NO_VARIATION,)),
    Effect(keys=("space.rules",), idle=(_NO_VARIATION,)),
    Effect(
        keys=(
            *("search.method", "search.stops_early", "search.max_hours", "search.max_node_hours"),
            *("search.min_improvement", "search.finalists"),
        )
    ),
    Effect(keys=("search.trials",), idle=(_GRID,)),
    Effect(keys=("search.grid_limit",), idle=(_NO_GRID,)),
    Effect(keys=("search.seed",), idle=(_UNSEEDED,)),
    Effect(keys=("search.stop_margin",), idle=(_RUNS_WHOLE,)),
    Effect(keys=("search.patience",), idle=(_PATIENT,)),
    Effect(keys=("search.final_repeats",), idle=(_NO_FINALISTS,)),
    Effect(keys=("search.start",), idle=(_CHOOSES_ITSELF,)),
    Effect(keys=("search.stages",), idle=(_NO_STAGES,), is_shown=False),
    Effect(
        keys=tuple(
            f"objective.*.{name}"
            for name in (
                *("metric", "direction", "at_most", "at_least"),
                *("request_rate_per_s", "max_concurrency", "per"),
            )
        )
    ),
    Effect(keys=("executor.kind", "executor.max_parallel")),
    Effect(keys=("executor.address",), idle=(_NO_CLUSTER,)),
    Effect(keys=("calibration.*",), idle=(_UNMODELLED,)),
    Effect(keys=("repeats",), idle=(_NO_RESTARTS,)),
    Effect(
        keys=("runs_per_start", "max_attempts", "retry_pause_s", "retry_failed", "plan", "strict"),
    ),
    Effect(keys=("plan_csv", "plan_json"), idle=(_NO_PLAN,), is_shown=False),
)
