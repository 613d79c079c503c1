"""The knobs of vLLM: what every release takes, and the command line that means what was asked.

vLLM changes its flags with almost every release, and the dangerous changes are silent: a flag that is
still accepted but read by nothing, a word that is parsed as something else, a default that moved. So a
sweep over releases needs to know three things before anything starts: does this release have the knob
and does the knob act (``check``), how is it written there (``command_line``, ``environment``,
``serve_line``), and what would hold if it were left out (``defaults``).

The facts lie in tables under ``data/`` (its README says how they were made); they cover vLLM 0.4.2 to
0.33.0. A later release is taken to be like the last one covered, a development build like the last
release before it. Whether a value is wise, fits in memory, or is kept by the engine is not known here.

The files, each importing only from those before it:

- ``tables``: reading ``data/``. ``release_order``: which release came after which. ``names``: flag,
  variable or setting of the host.
- ``runtime_variables``: what runs beneath vLLM and its variables.
- ``history``: when each flag, variable and value existed. ``catalogue``: type, unit and meaning.
- ``refusals``: what rules out a knob, in words. ``forms``: how a release writes an assignment.
  ``generations``: V0 or V1. ``parallelism``: how many devices an assignment takes. ``engine_defaults``:
  what holds unsaid. ``bench``: the load generator that comes with vLLM. ``sharing``: what server and client
  have to be given alike.
- ``live``: which settings differ in limits alone that a running engine can change.
- ``translation``: what an assignment becomes on a later release.
- ``launcher``, ``presence``, ``values``, ``conflicts``: what can rule out a knob.
  ``checks``: all of it.
- ``sglang``: the knobs of SGLang, another engine. ``numerics``: which knobs may change an answer. ``aiter``:
  which of AMD's kernels are switched on.
"""

from sweeper.knobs.aiter import AiterSwitches, aiter_switches
from sweeper.knobs.bench import (
    BenchFlag,
    bench_client,
    bench_flag,
    bench_flags,
    bench_name,
    bench_releases,
    every_bench_flag,
)
from sweeper.knobs.catalogue import Knob, describe, every_name, knob_type, known_names, takes_json
from sweeper.knobs.checks import check, check_conflicts
from sweeper.knobs.engine_defaults import LONGEST, NEVER_MOVED, WHAT_FITS, defaults
from sweeper.knobs.forms import command_line, environment, launcher, serve_line
from sweeper.knobs.generations import NO_KNOBS, Accelerator, Generation, accelerator_of, engine_generation
from sweeper.knobs.history import first_with, lost, since_removed
from sweeper.knobs.launcher import (
    GIVEN_FLAGS,
    GIVEN_VARIABLES,
    TGI_GIVEN_FLAGS,
    refuse_given,
    refuse_load_format,
    refuse_near_path,
)
from sweeper.knobs.names import HOST_SETTINGS, is_host_setting, is_of_sweeper, is_variable
from sweeper.knobs.numerics import MAY_CHANGE_ANSWERS, why_answers_may_change
from sweeper.knobs.parallelism import (
    EXPERT_PARALLEL,
    PARALLEL_SIZES,
    devices,
    ranks,
    replicas,
    why_shape_forbids,
)
from sweeper.knobs.refusals import Refusal, RefusalKind
from sweeper.knobs.release_order import ReleaseKey, is_between, is_clean, release_key, releases, why_unplaced
from sweeper.knobs.runtime_variables import is_read_by_runtime, runtime_variables
from sweeper.knobs.sglang import (
    SglangFlag,
    SglangFlags,
    by_knob,
    check_sglang,
    covered_sglang,
    sglang_command_line,
    sglang_flags,
    sglang_releases,
    sglang_variables,
)
from sweeper.knobs.sharing import client_arguments, client_variables, refuse_unshared
from sweeper.knobs.translation import Translation, translated

__all__ = [
    "EXPERT_PARALLEL",
    "GIVEN_FLAGS",
    "GIVEN_VARIABLES",
    "HOST_SETTINGS",
    "LONGEST",
    "MAY_CHANGE_ANSWERS",
    "NEVER_MOVED",
    "NO_KNOBS",
    "PARALLEL_SIZES",
    "TGI_GIVEN_FLAGS",
    "WHAT_FITS",
    "Accelerator",
    "AiterSwitches",
    "BenchFlag",
    "Generation",
    "Knob",
    "Refusal",
    "RefusalKind",
    "ReleaseKey",
    "SglangFlag",
    "SglangFlags",
    "Translation",
    "accelerator_of",
    "aiter_switches",
    "bench_client",
    "bench_flag",
    "bench_flags",
    "bench_name",
    "bench_releases",
    "by_knob",
    "check",
    "check_conflicts",
    "check_sglang",
    "client_arguments",
    "client_variables",
    "command_line",
    "covered_sglang",
    "defaults",
    "describe",
    "devices",
    "engine_generation",
    "environment",
    "every_bench_flag",
    "every_name",
    "first_with",
    "is_between",
    "is_clean",
    "is_host_setting",
    "is_of_sweeper",
    "is_read_by_runtime",
    "is_variable",
    "knob_type",
    "known_names",
    "launcher",
    "lost",
    "ranks",
    "refuse_given",
    "refuse_load_format",
    "refuse_near_path",
    "refuse_unshared",
    "release_key",
    "releases",
    "replicas",
    "runtime_variables",
    "serve_line",
    "sglang_command_line",
    "sglang_flags",
    "sglang_releases",
    "sglang_variables",
    "since_removed",
    "takes_json",
    "translated",
    "why_answers_may_change",
    "why_shape_forbids",
    "why_unplaced",
]
