"""``python -m sweeper fit``: which parallel sizes fit where, why others do not, and how many sequences."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.cli import as_json, fit_json, fit_words
from sweeper.cli.arguments import ConsoleCommand
from sweeper.cli.exit_codes import OK
from sweeper.errors import ConfigError, KnobError, PlacementError
from sweeper.knobs import Accelerator
from sweeper.records import Model, Scalar
from sweeper.records.plurals import amount
from sweeper.text.output import Parser

if TYPE_CHECKING:
    from rich.console import Console

    from sweeper.models.fit import Fit

_RELEASE = "0.32.0"
GIB = 2**30
_DEVICES = ("mi300x", "mi325x", "mi355x", "h100", "h200")

_LEGEND = """\
{model}, vLLM {release}
GiB on each device: weights, working memory, KV cache of one sequence, their sum, and what the engine may use.
Then KV blocks, sequences of a length that they hold at once, and engines that the node has devices for.
"""


class ShowFit(ConsoleCommand):
    """Show what fits in each partition mode, with the arithmetic of what does not."""

    name = "fit"
    summary = "work out what fits in which partition mode; starts nothing"
    description = (
        "Work out which parallel sizes of a model fit a node in each partition mode, and how many "
        "sequences then fit. Starts nothing, asks no hardware."
    )
    epilog = (
        "examples:\n"
        "  python -m sweeper fit llama_3_1_70b_instruct max_model_len=8192 --mode CPX\n"
        "  python -m sweeper fit path/to/config.json --device mi325x --sizes"
    )

    def declare(self, parser: ArgumentParser) -> None:
        """Declare the model, its knobs and the node."""
        parser.add_argument("model", help="a name of conf/model, a config.json or its folder, or org/name")
        parser.add_argument("knobs", nargs="*", metavar="knob=value", help="such as max_model_len=8192")
        parser.add_argument(
            "--device", help=f"GPU of the node: {', '.join(_DEVICES)}; without it, {_DEVICES[0]}"
        )
        parser.add_argument(
            "--sizes", action="store_true", help="every tensor, pipeline, data and expert parallel size"
        )
        parser.add_argument("--mode", help="compute mode: SPX, DPX, QPX or CPX; without it, all of them")
        parser.add_argument("--memory-mode", help="NPS1, NPS2 or NPS4; without it, the finest that is legal")
        parser.add_argument(
            "--device-memory", type=float, metavar="GiB", help="of one device, for another GPU"
        )
        parser.add_argument("--devices", type=int, default=8, help="of the node, beside --device-memory")
        parser.add_argument("--release", default=_RELEASE, help="of vLLM, whose defaults hold (%(default)s)")
        parser.add_argument("--mean-tokens", type=int, help="also count sequences of this length")
        as_json.declare(parser)

    def parse(self, parser: Parser, arguments: list[str]) -> Namespace:
        """Read the arguments; knobs may follow options."""
        return parser.parse_intermixed_args(arguments)

    def run(self, options: Namespace, console: Console) -> int:
        """Work it out and show tables, and a line for each mode."""
        from sweeper.models.fit import built_of

        assignment = _assignment(options.knobs, release=options.release)
        model = _model(options.model)
        nodes = _nodes(options)
        try:
            built_of(model)
            lines = _sizes(model, assignment, nodes, options) if options.sizes else None
            lines = lines or _modes(model, assignment, nodes, options)
        except PlacementError as exc:
            raise ConfigError(f"memory is not worked out: {exc}") from exc
        for line in lines:
            console.print(line, markup=False, soft_wrap=True)
        return OK


@dataclass(frozen=True, kw_only=True)
class _Devices:
    """A node that is asked about: how many devices it has, and the memory of one."""

    devices: int
    memory_gib: float
    accelerator: Accelerator = "rocm"


def _modes(
    model: Model, assignment: Mapping[str, Scalar], nodes: Mapping[str, _Devices], options: Namespace
) -> list[str]:
    """Return a table of tensor parallel sizes in each mode, and a line for each mode."""
    from sweeper.models.fit import by_tensor_parallel

    found = {
        name: by_tensor_parallel(
            model,
            assignment,
            release=options.release,
            device_memory_gib=node.memory_gib,
            devices=node.devices,
            accelerator=node.accelerator,
        )
        for name, node in nodes.items()
    }
    answers = [_answer(name, fits, assignment, devices=nodes[name].devices) for name, fits in found.items()]
    last = next(fit for fits in found.values() for fit in fits.values())
    if options.json:
        entries = fit_json.of_modes(
            found,
            engines=lambda mode, size: nodes[mode].devices // _devices_of(assignment, size),
            mean_tokens=options.mean_tokens,
        )
        notes = [*answers, *fit_words.notes(last, model, release=options.release)]
        return [fit_json.text(model.name, options.release, entries, notes)]
    return [
        _LEGEND.format(model=model.name, release=options.release),
        _aligned(_rows(found, assignment, nodes, options.mean_tokens)),
        *answers,
        *fit_words.notes(last, model, release=options.release),
    ]


def _sizes(
    model: Model, assignment: Mapping[str, Scalar], nodes: Mapping[str, _Devices], options: Namespace
) -> list[str]:
    """Return a table of all parallel sizes of each mode."""
    from sweeper.models.sizes import sizes

    lines = [fit_words.SIZES_LEGEND.format(model=model.name, release=options.release)]
    entries = []
    for name, node in nodes.items():
        found = sizes(
            model,
            assignment,
            release=options.release,
            device_memory_gib=node.memory_gib,
            devices=node.devices,
            accelerator=node.accelerator,
        )
        entries += fit_json.of_sizes(name, found)
        lines.append(f"{name}: {amount(node.devices, 'device')} of {node.memory_gib:.4g} GiB")
        lines.append(_aligned(fit_words.size_rows(found), is_text=True) + "\n")
    held = next(size.fit for size in found if size.fit is not None)
    notes = fit_words.notes(held, model, release=options.release)
    if options.json:
        return [fit_json.text(model.name, options.release, entries, notes)]
    return [*lines, *notes]


def _nodes(options: Namespace) -> dict[str, _Devices]:
    """Return the nodes that the options name, and refuse options that contradict each other."""
    for name in ("device_memory", "devices", "mean_tokens"):
        value = getattr(options, name)
        if value is not None and value <= 0:
            raise ConfigError(f"--{name.replace('_', '-')}: is {value:g}; expected more than 0. Correct it.")
    if options.device_memory is None:
        return _named(options.device, options.mode, options.memory_mode)
    if options.mode or options.memory_mode:
        raise ConfigError("--device-memory: is given beside a mode; expected one of the two. Drop one.")
    if options.device:
        raise ConfigError("--device-memory: is given beside --device; expected one of the two. Drop one.")
    node = _Devices(devices=options.devices, memory_gib=options.device_memory)
    return {f"{node.devices} x {node.memory_gib:g} GiB": node}


def _assignment(texts: list[str], *, release: str) -> dict[str, Scalar]:
    """Read knobs as the configuration does, and refuse those that the release lacks."""
    from sweeper import config, knobs

    for text in texts:
        if "=" not in text:
            raise ConfigError(f"command line: '{text}' cannot be read; expected knob=value. Correct it.")
    composed = config.compose_run(["platform=simulated", *(f"knobs.{text}" for text in texts)])
    assignment = dict(composed["knobs"])
    refusals = [refusal.message for refusal in knobs.check(assignment, release=release)]
    if refusals:
        raise KnobError(f"vLLM {release}: " + "\n  ".join(refusals))
    return assignment


def _model(name: str) -> Model:
    from sweeper.prepare.model import named

    try:
        return named(name)
    except ConfigError as exc:
        told = f"{exc} Memory is not worked out." if Path(name).exists() else str(exc)
        raise ConfigError(told) from exc


def _named(device: str | None, mode: str | None, memory_mode: str | None) -> dict[str, _Devices]:
    """Return a node of this GPU in the mode asked for, or in all that it has."""
    from sweeper import topology
    from sweeper.simulation.device import device_named, partition_of

    try:
        whole = device_named(device)
        if not whole.has_partitions:
            topology.modelled_node(device, mode=mode, memory_mode=memory_mode)
            return {
                device or "": _Devices(devices=8, memory_gib=whole.memory_bytes / GIB, accelerator="cuda")
            }
        found = {}
        for compute in [mode] if mode else topology.LEGAL_MEMORY_MODES:
            finest = topology.LEGAL_MEMORY_MODES.get(compute, ("NPS1",))[-1]
            node = topology.modelled_node(device, mode=compute, memory_mode=memory_mode or finest)
            memory_gib = partition_of(compute, device=device).memory_bytes / GIB
            found[f"{compute}/{node.memory_mode}"] = _Devices(
                devices=len(node.devices), memory_gib=memory_gib
            )
        return found
    except PlacementError as exc:
        raise ConfigError(f"--device, --mode, --memory-mode: {exc}") from exc


def _rows(
    found: Mapping[str, Mapping[int, Fit]],
    assignment: Mapping[str, Scalar],
    nodes: Mapping[str, _Devices],
    mean_tokens: int | None,
) -> list[list[str]]:
    """Return the head of the table and its rows."""
    longest = next(fit.max_model_len for fits in found.values() for fit in fits.values())
    lengths = [longest, *([] if mean_tokens is None else [mean_tokens])]
    names = ["mode", "TP", "weights", "working", "KV of one", "needed", "available", "fits", "blocks"]
    rows = [[*names, *(f"of {length}" for length in lengths), "engines"]]
    for name, fits in found.items():
        for size, fit in fits.items():
            sizes = (fit.weights_gib, fit.working_gib, fit.kv_cache_gib, fit.needed_gib, fit.available_gib)
            engines = nodes[name].devices // _devices_of(assignment, size) if fit.is_feasible else 0
            counts = (fit.blocks, *(fit.sequences(length) for length in lengths), engines)
            answer = "yes" if engines else "no"
            rows.append([name, str(size), *(f"{value:.1f}" for value in sizes), answer, *map(str, counts)])
    return rows


def _aligned(rows: list[list[str]], *, is_text: bool = False) -> str:
    """Align columns to the right; unlike a drawn table, nothing is cut off where the terminal is narrow.

    Args:
        rows: Cells; the head first.
        is_text: The first and the last column are texts, and aligned to the left.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    last = len(widths) - 1
    return "\n".join(
        "  ".join(
            cell.ljust(width) if is_text and place in (0, last) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _answer(name: str, fits: Mapping[int, Fit], assignment: Mapping[str, Scalar], *, devices: int) -> str:
    """Describe in a sentence what is the least that fits, or how far the largest is from it."""
    for size, fit in fits.items():
        wanted = _devices_of(assignment, size)
        if fit.is_feasible and wanted <= devices:
            return (
                f"{name}: the least that fits is tensor_parallel_size {size}, {wanted} of "
                f"{amount(devices, 'device')}, and then {amount(fit.sequences(), 'sequence')} of "
                f"{amount(fit.max_model_len, 'token')} at once."
            )
    size, fit = list(fits.items())[-1]
    return f"{name}: nothing fits; at tensor_parallel_size {size}: {fit}."


def _devices_of(assignment: Mapping[str, Scalar], tensor_parallel_size: int) -> int:
    from sweeper import knobs

    return knobs.devices({**assignment, "tensor_parallel_size": tensor_parallel_size})
