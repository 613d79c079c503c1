"""The knobs of SGLang: the flags of its server by release, and what writes them on a command line.

A flag's knob is the name under which the server reports it (``tp_size`` is ``--tp-size``), so that asked and
reported values meet under one name; another spelling of the same flag (``tensor_parallel_size``) is refused
with the knob's name. Where an installed SGLang tells the flags of its own parser
(``engines.sglang_environment``), those hold; the table is for environments whose parser cannot be asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from packaging.version import Version

from sweeper.errors import nearest
from sweeper.knobs.launcher import refuse_given, refuse_near_path
from sweeper.knobs.names import is_host_setting, is_of_sweeper, is_variable
from sweeper.knobs.runtime_variables import is_read_by_runtime, runtime_variables
from sweeper.knobs.tables import table
from sweeper.records import Assignment, Scalar

_LOOPBACK = "Servers listen on loopback. Take it out of the knobs."
_ONE_NODE = "A trial is on one node. Take it out of the knobs."
_OWN_PORTS = "Each server has ports of its own. Take it out of the knobs."
_DEVICES = "The devices of a trial are shown to it by one mask. Choose them by platform.device_ids."
_PROVEN = "Each server is proven and read by it. Take it out of the knobs."
_NO_KEY = (
    "SGLang takes a key in its arguments only, which every user of the machine can read; its servers have "
    "none and listen on loopback. Take it out of the knobs."
)

GIVEN_FLAGS: Mapping[str, str] = MappingProxyType(
    {
        "model_path": "Choose it by model=NAME, or model.path.",
        "model": "Choose it by model=NAME, or model.path.",
        "served_model_name": "Set model.name.",
        "revision": "Set model.revision.",
        "tokenizer_path": "The client reads the model's own tokenizer. Take it out of the knobs.",
        "skip_tokenizer_init": "A server without a tokenizer answers no text. Take it out of the knobs.",
        "host": _LOOPBACK,
        "port": _LOOPBACK,
        **dict.fromkeys(("api_key", "admin_api_key", "ssl_keyfile", "ssl_certfile"), _NO_KEY),
        **dict.fromkeys(("nnodes", "node_rank", "dist_init_addr", "use_ray"), _ONE_NODE),
        **dict.fromkeys(("nccl_port", "grpc_port", "disaggregation_bootstrap_port"), _OWN_PORTS),
        **dict.fromkeys(("base_gpu_id", "gpu_id_step"), _DEVICES),
        "device": "Choose it by platform=NAME.",
        "enable_metrics": _PROVEN,
        "config": "What is in that file would stand in no row. Write its values as knobs.",
    }
)
"""Flag to what to do in place of the knob: the sweeper gives it to the server itself."""

_UNREAD = (
    "neither SGLang nor anything beneath it is known to read a variable of this name, and one that nobody "
    "reads does nothing. Where one does, engine.allow_unknown=true lets it pass."
)


@dataclass(frozen=True, kw_only=True)
class SglangFlag:
    """A flag of one release.

    Attributes:
        knob: Its name among the knobs.
        form: ``switch`` stands alone, ``pair`` has a form with ``--no-`` besides, ``value`` is followed by
            one, ``list`` by words.
        type: Of the value: ``bool``, ``int``, ``float``, ``json`` or ``text``.
        choices: Values that the parser takes; empty where any is.
        reported: Name under which the server reports it.
        aliases: Other names of the same flag.
    """

    knob: str
    form: str
    type: str
    choices: tuple[str, ...] = ()
    reported: str = ""
    aliases: tuple[str, ...] = ()

    @property
    def name_reported(self) -> str:
        """Name under which the server reports it, which is the knob's unless another is known."""
        return self.reported or self.knob


SglangFlags = Mapping[str, SglangFlag]
"""Knob to flag, of one release or of one installation."""


@cache
def sglang_releases() -> tuple[str, ...]:
    """Return the releases that the table was made from, oldest first."""
    found = {row[end] for row in table("sglang_flags.csv") for end in ("first_release", "last_release")}
    return tuple(sorted(found, key=Version))


def covered_sglang(release: str) -> str:
    """Return the last release of the table that is not newer; its oldest for earlier ones and for no version.

    Args:
        release: Version that SGLang reports, such as ``0.5.9`` or ``0.5.3rc0``.
    """
    known = sglang_releases()
    try:
        version = Version(release)
    except ValueError:  # InvalidVersion, and a number of thousands of digits
        return known[-1]
    return next((name for name in reversed(known) if Version(name) <= version), known[0])


def sglang_flags(release: str) -> SglangFlags:
    """Return the flags of a release, by knob, as the table has them."""
    found = (_flag(row) for row in table("sglang_flags.csv") if _covers(row, covered_sglang(release)))
    return MappingProxyType({flag.knob: flag for flag in found})


def sglang_variables(release: str) -> frozenset[str]:
    """Return the environment variables of its own that a release reads, as the table has them."""
    covered = covered_sglang(release)
    return frozenset(row["name"] for row in table("sglang_env_vars.csv") if _covers(row, covered))


def check_sglang(
    assignment: Assignment, *, flags: SglangFlags, release: str, allow_unknown: bool = False
) -> tuple[str, ...]:
    """Find what SGLang's server would not take, or would ignore; each refusal is one line of an error.

    Args:
        assignment: Knob to value.
        flags: Of the release or of the installation.
        release: Version that SGLang reports, for its variables and the words.
        allow_unknown: Whether names pass that are not known.
    """
    found = (
        _refusal(knob, value, flags=flags, release=release, allow_unknown=allow_unknown)
        for knob, value in assignment.items()
    )
    return tuple(refusal for refusal in found if refusal is not None)


def sglang_command_line(assignment: Assignment, *, flags: SglangFlags) -> tuple[str, ...]:
    """Write the flags of an assignment, sorted by knob; a switch that is off is left out."""
    return tuple(
        word
        for knob, value in sorted(assignment.items())
        if not (is_variable(knob) or is_host_setting(knob) or is_of_sweeper(knob))
        for word in _words(knob, value, flags.get(knob))
    )


def _refusal(
    knob: str, value: Scalar, *, flags: SglangFlags, release: str, allow_unknown: bool
) -> str | None:
    where = f"knob '{knob}' = {value!r}: "
    given = refuse_given(knob, value, flags=GIVEN_FLAGS)
    given = given or refuse_near_path(knob, value)
    if given is not None:
        return given.message
    if is_host_setting(knob) or is_of_sweeper(knob):
        return None
    if is_variable(knob):
        known = sglang_variables(release)
        if allow_unknown or knob in known or is_read_by_runtime(knob):
            return None
        return f"{where}{_UNREAD}{nearest(knob, [*known, *runtime_variables()])}"
    flag = flags.get(knob)
    if flag is not None:
        why = _why_not(flag, value)
        return None if why is None else f"{where}{why}"
    return (
        None
        if allow_unknown and _alias_of(knob, flags) is None
        else f"{where}{_unknown(knob, flags, release)}"
    )


def _unknown(knob: str, flags: SglangFlags, release: str) -> str:
    own = _alias_of(knob, flags)
    if own is not None:
        return f"expected the name that SGLang reports it by. Write '{own}'."
    if any(row["knob"] == knob for row in table("sglang_flags.csv")):
        return f"SGLang {release} has no flag of this name; other releases have. Take it out."
    return f"SGLang {release} has no flag of this name.{nearest(knob, flags)}"


def _alias_of(knob: str, flags: SglangFlags) -> str | None:
    return next((flag.knob for flag in flags.values() if knob in flag.aliases), None)


def _why_not(flag: SglangFlag, value: Scalar) -> str | None:
    if flag.knob == "load_format" and value == "dummy":
        return "random weights would pass for the model's. Set model.is_dummy=true, which does it."
    if flag.form in ("switch", "pair"):
        is_fit = isinstance(value, bool)
        return None if is_fit else "expected true or false, since it is a switch. Write it without quotes."
    if isinstance(value, bool):
        return "expected a value, since it is no switch. Write what follows the flag."
    if flag.form == "value" and not _is_of_type(value, flag.type):
        return f"expected {'a whole number' if flag.type == 'int' else 'a number'}. Change it."
    if flag.form == "value" and flag.choices and str(value) not in flag.choices:
        return f"expected one of {', '.join(flag.choices)}.{nearest(str(value), flag.choices)} Choose one."
    return None


def _is_of_type(value: Scalar, kind: str) -> bool:
    if kind == "int":
        # Written as 8k or 1Ki from 0.5.9 on; whether that release does is for its own parser to say.
        return isinstance(value, int) or (isinstance(value, str) and value[:1].isdigit())
    return kind != "float" or isinstance(value, int | float)


def _words(knob: str, value: Scalar, flag: SglangFlag | None) -> Iterator[str]:
    name = "--" + knob.replace("_", "-")
    form = flag.form if flag is not None else "switch" if isinstance(value, bool) else "value"
    if form in ("switch", "pair"):
        if value:
            yield name
        elif form == "pair":
            yield f"--no-{name.removeprefix('--')}"
        return
    yield name
    if form == "list":
        yield from str(value).split()
    else:
        yield str(value)


def _flag(row: Mapping[str, str]) -> SglangFlag:
    return SglangFlag(
        knob=row["knob"],
        form=row["form"],
        type=row["type"],
        choices=_listed(row["choices"]),
        reported=row["reported"],
        aliases=_listed(row["aliases"]),
    )


def _covers(row: Mapping[str, str], release: str) -> bool:
    return Version(row["first_release"]) <= Version(release) <= Version(row["last_release"])


def _listed(text: str) -> tuple[str, ...]:
    return tuple(filter(None, text.split("|")))


def by_knob(flags: Iterable[SglangFlag]) -> SglangFlags:
    """Return flags by their knobs."""
    return MappingProxyType({flag.knob: flag for flag in flags})
