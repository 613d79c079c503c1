"""Takes of a space what model, devices and release have room for, and says what it leaves out and why.

A domain that says ``fits`` is no list of settings to be tried and refused one by one: a size that cannot
share out the model, a switch of another vendor's kernels or a knob that the release lacks is no point of the
space at all. Parallel sizes are taken together: two sizes may each fit, and not beside each other; such pairs
are kept apart by a rule. A size fits where some setting of the other knobs does; what then does not fit is
refused by the plan, with its arithmetic, as in any space.

What cannot be told is kept: of a model that is not known, every size that the node has devices for.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sweeper import knobs
from sweeper.errors import ConfigError
from sweeper.kinds import ENGINES
from sweeper.plan.not_modelled import unmodelled
from sweeper.plan.planner import Job, Planner
from sweeper.plan.too_long import TOO_LONG, longest_asked, model_positions
from sweeper.records import Assignment, Platform, Scalar
from sweeper.records.architecture import Attention, Experts, LatentAttention
from sweeper.records.plurals import amount
from sweeper.space.domains import Choice, Domain
from sweeper.space.rules import Rule
from sweeper.space.space import Point, Space
from sweeper.text.reasons import kind_of

_LEANEST = "min"
# With which choice of another knob a parallel size has the most room in memory.
_ROOMIEST: Mapping[str, Scalar] = {
    "max_num_seqs": _LEANEST,
    "max_num_batched_tokens": _LEANEST,
    "kv_cache_dtype": "fp8",
}
# It is a rule of the space itself, and no size.
_WHERE = "space.knobs (fits)"


@dataclass(frozen=True, kw_only=True)
class _Taken:
    """What is taken of a domain: its values, and for the others the reason."""

    values: tuple[Scalar, ...]
    why_not: Mapping[Scalar, str]


def fitted(planner: Planner) -> Planner:
    """Return the planner of the space without what does not fit; unchanged where no domain asks for it.

    Returns:
        A planner whose space has no fittings, and whose ``left_out`` says in a sentence each what is missing.

    Raises:
        ConfigError: Of some parallel size no value fits; the message has the reasons.
    """
    space = planner.space
    if not space.fittings:
        return planner
    needless = {name: why for name in space.fittings if (why := _why_needless(planner, name))}
    rest = _without(space, needless)
    needless |= {name: f"it depends on {' and '.join(gone)}" for name, gone in rest[1].items()}
    planner = replace(planner, space=rest[0])
    planner, too_short = _with_length(planner)
    taken = {name: _values_of_knob(planner, name) for name in planner.space.fittings}
    sizes, rule = _sizes_together(planner, {n: t for n, t in taken.items() if n in knobs.PARALLEL_SIZES})
    taken |= sizes
    _check_sizes(planner, sizes)
    narrowed = _narrowed(planner.space, taken, rule)
    return replace(planner, space=narrowed, left_out=(*too_short, *_sentences(needless, taken)))


# ---- the longest sequence ----


def _with_length(planner: Planner) -> tuple[Planner, tuple[str, ...]]:
    """Give the longest sequence the least value that has room for the load; the model's own where none has.

    Nothing is searched there: a longer one makes nothing faster. It is taken first, since it decides what
    fits in memory. One that the study says itself stays.
    """
    if knobs.LONGEST not in planner.space.fittings:
        return planner, ()
    space, _ = _without(planner.space, {knobs.LONGEST: ""})
    if knobs.LONGEST in space.base:
        return replace(planner, space=space), ()
    asked, own = longest_asked(planner.load_points), model_positions(planner.model)
    choices = sorted(int(value) for value in _choices(planner, knobs.LONGEST))
    enough = [value for value in choices if value >= asked and (own is None or value <= own)]
    if enough:
        space = replace(space, base={**space.base, knobs.LONGEST: enough[0]})
    short = [value for value in choices if value < asked]
    why = f"the longest request of the load takes {asked:,} tokens"
    sentences = (f"{knobs.LONGEST} {', '.join(map(str, short))}: {why}",) if short else ()
    return replace(planner, space=space), sentences


# ---- whole knobs ----


def _why_needless(planner: Planner, knob: str) -> str | None:
    """Say why a knob has no use here whatever its value; None where it may have one."""
    for needed in planner.space.fittings[knob].needs:
        why = _why_not_amd(planner) if needed == "amd" else _why_model_lacks(planner, needed)
        if why:
            return why
    if not _is_of_release(planner, knob):
        return f"vLLM {planner.engine.release} has no such knob"
    return _why_not_modelled(planner, knob)


def _why_not_amd(planner: Planner) -> str | None:
    return None if planner.accelerator == "rocm" else "no AMD device"


def _why_model_lacks(planner: Planner, part: str) -> str | None:
    words = part.replace("_", " ")
    built = planner.model.built
    if built is None:
        return f"it is not known whether the model has {words}: no config.json"
    layers = [layer for layer, _ in built.runs]
    has = {
        "experts": any(isinstance(layer.mlp, Experts) for layer in layers),
        "latent_attention": any(isinstance(layer.attention, LatentAttention) for layer in layers),
        "grouped_attention": any(isinstance(layer.attention, Attention) for layer in layers),
    }
    return None if has[part] else f"the model has no {words}"


def _is_of_release(planner: Planner, knob: str) -> bool:
    """Whether the engine's release knows the name; what it reads beneath vLLM cannot be told by release."""
    if planner.allow_unknown or knobs.is_of_sweeper(knob):
        return True
    if not ENGINES[planner.engine.kind].takes_vllm_flags:
        return True
    runtime = knobs.is_variable(knob) and knobs.is_read_by_runtime(knob)
    return runtime or knob in knobs.known_names(planner.engine.release)


def _why_not_modelled(planner: Planner, knob: str) -> str | None:
    if planner.platform is not Platform.SIMULATED:
        return None
    values = _choices(planner, knob) or (1,)
    spec = _bare_job(planner, {knob: values[-1]}, is_checked=False).spec
    return "it is not modelled: each value would give the same numbers" if knob in unmodelled(spec) else None


def _without(space: Space, gone: Mapping[str, str]) -> tuple[Space, dict[str, list[str]]]:
    """Take knobs out of a space, with those whose condition names them."""
    out, orphans = set(gone), dict[str, list[str]]()
    fixed = set(space.base).union(*(series.knobs for series in space.series))
    while True:
        lost = {
            name: sorted(condition.names & (out - fixed))
            for name, condition in space.conditions.items()
            if name not in out and condition.names & (out - fixed)
        }
        if not lost:
            break
        orphans |= lost
        out |= set(lost)

    space = replace(
        space,
        domains={name: domain for name, domain in space.domains.items() if name not in out},
        conditions={name: rule for name, rule in space.conditions.items() if name not in out},
        fittings={name: fitting for name, fitting in space.fittings.items() if name not in out},
        # A rule about what is not there would never apply.
        rules=tuple(rule for rule in space.rules if not rule.names & (out - fixed)),
    )
    return space, orphans


# ---- single values ----


def _choices(planner: Planner, knob: str) -> tuple[Scalar, ...]:
    domain = planner.space.domains[knob]
    if isinstance(domain, Choice):
        return domain.values or _divisors(len(planner.node.devices))
    return domain.values() or (int(domain.low), int(domain.high))


def _divisors(devices: int) -> tuple[int, ...]:
    """Sizes of which several fill the node without a rest."""
    return tuple(size for size in range(1, devices + 1) if devices % size == 0)


def _values_of_knob(planner: Planner, knob: str) -> _Taken:
    """Take the values that the release takes, on this accelerator and beside the base."""
    if not ENGINES[planner.engine.kind].takes_vllm_flags or knobs.is_of_sweeper(knob):
        return _Taken(values=_choices(planner, knob), why_not={})
    values, why_not = list[Scalar](), dict[Scalar, str]()
    for value in _choices(planner, knob):
        refusals = knobs.check(
            {**planner.space.base, **_beside(planner, knob), knob: value},
            release=planner.engine.release,
            allow_unknown=planner.allow_unknown,
            accelerator=planner.accelerator,
            build=planner.engine.build,
        )
        found = next((refusal for refusal in refusals if refusal.knob == knob), None)
        if found is None:
            values.append(value)
        else:
            why_not[value] = found.reason
    return _Taken(values=tuple(values), why_not=why_not)


def _beside(planner: Planner, knob: str) -> dict[str, Scalar]:
    """Return values of other knobs with which this one is in the space."""
    condition = planner.space.conditions.get(knob)
    if condition is None:
        return {}
    names = sorted(condition.names & set(planner.space.domains))
    wanted = {name: _beside(planner, name) for name in names}
    for chosen in itertools.product(*(_choices(planner, name) for name in names)):
        found = dict(zip(names, chosen, strict=True))
        if condition.holds({**planner.space.base, **found}):
            return {**{k: v for inner in wanted.values() for k, v in inner.items()}, **found}
    return {}


# ---- parallel sizes, together ----


def _sizes_together(planner: Planner, taken: Mapping[str, _Taken]) -> tuple[dict[str, _Taken], Rule | None]:
    """Take the parallel sizes that fit beside some choice of the others; and a rule that keeps others out."""
    if not taken:
        return {}, None
    names = list(taken)
    fits, refused = list[tuple[Scalar, ...]](), dict[tuple[Scalar, ...], str]()
    combinations = list(itertools.product(*(taken[name].values for name in names)))
    for chosen in combinations:
        why = _why_no_room(planner, dict(zip(names, chosen, strict=True)))
        if why is None:
            fits.append(chosen)
        else:
            refused[chosen] = why
    found = {
        name: _kept_sizes(taken[name], place, fits=fits, refused=refused) for place, name in enumerate(names)
    }
    possible = list(itertools.product(*(item.values for item in found.values())))
    is_split = len(names) > 1 and len(fits) < len(possible)
    return found, _rule(names, fits) if is_split else None


def _kept_sizes(
    taken: _Taken, place: int, *, fits: Sequence[Sequence[Scalar]], refused: Mapping[tuple[Scalar, ...], str]
) -> _Taken:
    values = tuple(value for value in taken.values if any(chosen[place] == value for chosen in fits))
    why_not = dict(taken.why_not)
    for value in taken.values:
        if value not in values:
            # With the least of the other sizes, which says it most plainly.
            why_not[value] = next(why for chosen, why in refused.items() if chosen[place] == value)
    return _Taken(values=values, why_not=why_not)


def _rule(names: Sequence[str], fits: Sequence[tuple[Scalar, ...]]) -> Rule:
    pairs = ", ".join(f"({', '.join(map(str, chosen))})" for chosen in fits)
    return Rule(
        text=f"({', '.join(names)}) in ({pairs},)",
        message="together they fit the model, its memory and the node",
        where=_WHERE,
    )


def _why_no_room(planner: Planner, sizes: Assignment) -> str | None:
    """Say why sizes do not fit with any choice of the other knobs that concerns devices or memory."""
    reasons = []
    for others in _roomiest(planner):
        job = _bare_job(planner, {**others, **sizes})
        if job.refusal is None:
            return None
        reasons.append(str(job.refusal))
    return reasons[-1]


def _roomiest(planner: Planner) -> Iterator[dict[str, Scalar]]:
    """Choose of the other knobs what leaves the most room, without experts spread and with them."""
    chosen: dict[str, Scalar] = {}
    for name, wanted in _ROOMIEST.items():
        if name not in planner.space.domains:
            continue
        values = _values_of_knob(planner, name).values if name in planner.space.fittings else None
        values = _choices(planner, name) if values is None else values
        if wanted == _LEANEST and values:
            chosen[name] = min(values, key=lambda value: float(value))
        elif wanted in values:
            chosen[name] = wanted
    yield chosen
    if knobs.EXPERT_PARALLEL in planner.space.domains:
        yield {**chosen, knobs.EXPERT_PARALLEL: True}


def _bare_job(planner: Planner, assignment: Assignment, *, is_checked: bool = True) -> Job:
    """Plan an assignment outside of the space: without its rules and conditions."""
    base = planner.space.base if is_checked else {}
    whole = {**base, **assignment}
    alone = replace(planner, space=Space(base=base, series=planner.space.series), allow_unknown=True)
    return alone.job(Point(choices={}, assignment=whole, series=None))


def _check_sizes(planner: Planner, sizes: Mapping[str, _Taken]) -> None:
    for name, taken in sizes.items():
        if not taken.values:
            last = list(taken.why_not)[-1] if taken.why_not else None
            if last is not None and taken.why_not[last].startswith(TOO_LONG):
                raise ConfigError(
                    f"workload: is {taken.why_not[last]} Of a log, python -m sweeper traffic --most-tokens N "
                    "leaves longer ones out."
                )
            why = f"{last} {taken.why_not[last]}" if last is not None else "it has no values"
            raise ConfigError(
                f"space.knobs.{name}: fits, and none does on "
                f"{amount(len(planner.node.devices), 'device')}: {why}. "
                "Expected a size that does. Choose a smaller model or quantized weights, lower "
                "knobs.max_model_len, or give the node more devices."
            )


# ---- the space that is left ----


def _narrowed(space: Space, taken: Mapping[str, _Taken], rule: Rule | None) -> Space:
    base, domains = dict(space.base), dict(space.domains)
    gone = dict[str, str]()
    for name, found in taken.items():
        if not found.values:
            gone[name] = ""
        elif len(found.values) == 1 and name not in space.conditions:
            base[name] = found.values[0]
            del domains[name]
        else:
            domains[name] = _domain(space.domains[name], found)
    narrowed = replace(space, base=base, domains=domains, fittings={})
    left, _ = _without(narrowed, gone)
    return left if rule is None else replace(left, rules=(*left.rules, rule))


def _domain(domain: Domain, found: _Taken) -> Domain:
    return domain if not isinstance(domain, Choice) else Choice(values=found.values)


def _sentences(needless: Mapping[str, str], taken: Mapping[str, _Taken]) -> Iterator[str]:
    """Say what is left out and why, knobs of one reason together."""
    by_reason: dict[str, list[str]] = {}
    for name, why in needless.items():
        by_reason.setdefault(why, []).append(name)
    for why, names in by_reason.items():
        yield f"{', '.join(names)}: {why}"
    for name, found in taken.items():
        alike: dict[str, list[Scalar]] = {}
        for value, why in found.why_not.items():
            alike.setdefault(kind_of(why), []).append(value)
        for values in alike.values():
            # The arithmetic of the last, which comes nearest to fitting.
            even = f"even {_text(values[-1])} " if len(values) > 1 else ""
            yield f"{name} {', '.join(map(_text, values))}: {even}{found.why_not[values[-1]]}"


def _text(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
