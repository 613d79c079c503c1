"""The knobs of vLLM: what every release takes, and the command line that means what was asked.

vLLM changes its flags with almost every release, and the dangerous changes are silent: a flag that is
still accepted but read by nothing, a word that is parsed as something else, a default that moved. So a
sweep over releases needs to know three things before anything starts: does this release have the knob
and does the knob act (``check``), how is it written there (``command_line``, ``environment``,
``serve_line``), and what would hold if it were left out (``defaults``).

The facts lie in tables under ``data/`` (its README tells how they were made); they cover vLLM 0.4.2 to
0.33.0. A later release is taken to be like the last one covered, a development build like the last
release before it. Whether a value is wise, fits in memory, or is kept by the engine is not known here.

The files, each importing only from those before it:

- ``tables``: reading ``data/``. ``release_order``: which release came after which. ``names``: flag,
  variable or setting of the host.
- ``history``: when each flag, variable and value existed. ``catalogue``: type, unit and meaning.
- ``forms``: how a release writes an assignment. ``generations``: V0 or V1. ``engine_defaults``: what
  holds unsaid. ``bench``: the load generator that comes with vLLM.
- ``refusals``, ``presence``, ``values``, ``conflicts``: what can stand against a knob. ``checks``: all of it.
- ``numerics``: which knobs may change an answer.
"""

from sweeper.knobs.bench import bench_client, client_flag_exists
from sweeper.knobs.catalogue import Knob, describe, every_name, knob_type, known_names
from sweeper.knobs.checks import check
from sweeper.knobs.engine_defaults import defaults, moved_defaults
from sweeper.knobs.forms import command_line, environment, launcher, serve_line
from sweeper.knobs.generations import NO_KNOBS, Accelerator, Generation, engine_generation
from sweeper.knobs.names import is_host_setting, is_of_sweeper, is_variable
from sweeper.knobs.numerics import MAY_CHANGE_ANSWERS, why_answers_may_change
from sweeper.knobs.refusals import Refusal, RefusalKind
from sweeper.knobs.release_order import ReleaseKey, release_key, releases

__all__ = [
    "MAY_CHANGE_ANSWERS",
    "NO_KNOBS",
    "Accelerator",
    "Generation",
    "Knob",
    "Refusal",
    "RefusalKind",
    "ReleaseKey",
    "bench_client",
    "check",
    "client_flag_exists",
    "command_line",
    "defaults",
    "describe",
    "engine_generation",
    "environment",
    "every_name",
    "is_host_setting",
    "is_of_sweeper",
    "is_variable",
    "knob_type",
    "known_names",
    "launcher",
    "moved_defaults",
    "release_key",
    "releases",
    "serve_line",
    "why_answers_may_change",
]
