"""``python -m sweeper explain``: what a knob, a column of the results or a class of failures is."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sweeper.cli import as_json
from sweeper.cli.arguments import ConsoleCommand
from sweeper.cli.exit_codes import OK
from sweeper.errors import ConfigError, FailureClass, nearest

if TYPE_CHECKING:
    from rich.console import Console


class Explain(ConsoleCommand):
    """Explain a name."""

    name = "explain"
    summary = "explain a knob, a column of the results or a class of failures"
    description = (
        "Explain a knob (max_num_seqs, VLLM_USE_V1), a column of the results (p99_ttft_ms) or a class of "
        "failures (out_of_memory). A name that is several of these is explained as each."
    )

    def declare(self, parser: ArgumentParser) -> None:
        """Declare the name, and the form."""
        parser.add_argument("name", metavar="KNOB|COLUMN|FAILURE")
        as_json.declare(parser)

    def run(self, options: Namespace, console: Console) -> int:
        """Print what is known of it.

        Raises:
            ConfigError: Nothing has this name.
        """
        found = list(explained(options.name))
        if not found:
            raise ConfigError(
                f"explain: '{options.name}' is no knob, no column and no class of failures."
                f"{nearest(options.name, every_name())} Columns are in docs/columns.md."
            )
        if options.json:
            as_json.answer(found, console)
        else:
            text = "\n\n".join(_text(each) for each in found)
            console.print(text, markup=False, soft_wrap=True, highlight=False)
        return OK


def every_name() -> list[str]:
    """Return all names that can be explained."""
    from sweeper import knobs
    from sweeper.records.derived import WORKED_OUT
    from sweeper.store.columns import DECLARED

    return [*map(str, FailureClass), *DECLARED, *WORKED_OUT, *sorted(knobs.every_name())]


def explained(name: str) -> Iterator[dict[str, Any]]:
    """Yield what is known of a name, as each thing that it names: ``kind``, ``name`` and its facts."""
    from sweeper import knobs
    from sweeper.knobs.catalogue import declared_knobs
    from sweeper.records.derived import WORKED_OUT
    from sweeper.store.columns import DECLARED, DYNAMIC_PREFIXES, dynamic_meaning

    if name in set(FailureClass):
        yield _failure(FailureClass(name))
    if name in DECLARED:
        yield _column(name)
    elif name in WORKED_OUT:
        metric = WORKED_OUT[name]
        yield {
            "kind": "metric, worked out on reading",
            "name": name,
            "meaning": metric.description,
            "unit": metric.unit,
            "better": "higher" if metric.is_higher_better else "lower",
        }
    elif name.startswith(tuple(DYNAMIC_PREFIXES)):
        yield {"kind": "column", "name": name, "meaning": dynamic_meaning(name)}
    knob = name if name in knobs.every_name() else name.replace("-", "_")
    if knob in knobs.every_name():
        declared = declared_knobs().get(knob)
        yield {
            "kind": "knob",
            "name": knob,
            "meaning": knobs.describe(knob).removeprefix(f"{knob}: "),
            "smallest": None if declared is None else declared.minimum,
            "largest": None if declared is None else declared.maximum,
            "default": _default(knob),
            "may change answers": knobs.why_answers_may_change(knob),
        }


def _default(knob: str) -> dict[str, Any]:
    """Return the default in the newest release, of a knob whose default has moved; else nothing."""
    from sweeper import knobs

    for release in reversed(knobs.releases()):
        known = knobs.defaults(release, accelerator="rocm")
        if knob in known:
            return {"vllm": release, "value": known[knob]}
    return {}


def _failure(failure: FailureClass) -> dict[str, Any]:
    return {
        "kind": "class of failures",
        "name": str(failure),
        "meaning": failure.meaning,
        "what to do": failure.remedy,
        "tried again by itself": failure.is_transient,
    }


def _column(name: str) -> dict[str, Any]:
    from sweeper.records.metrics import BY_NAME, STEADY_BY_NAME
    from sweeper.store.columns import DECLARED

    column = DECLARED[name]
    sides = {True: "higher", False: "lower", None: None}
    metric = BY_NAME.get(name) or STEADY_BY_NAME.get(name)
    better = None if metric is None else sides[metric.is_higher_better]
    told = {"kind": "column", "name": name, "meaning": column.description, "type": str(column.type)}
    return {**told, "unit": column.unit or None, "better": better}


def _text(told: Mapping[str, Any]) -> str:
    lines = [f"{told['name']} ({told['kind']})", f"  {told['meaning']}"]
    for name, value in told.items():
        if name in ("kind", "name", "meaning") or value is None or value == {}:
            continue
        if name == "default":
            value = f"{value['value']} in vLLM {value['vllm']} on ROCm, where nothing else is set"
        elif isinstance(value, bool):
            value = "yes" if value else "no; retry_failed=true does"
        elif isinstance(value, float):
            value = f"{value:g}"
        lines.append(f"  {name}: {value}")
    return "\n".join(lines)
