"""``python -m sweeper list``: every experiment, the question that it answers, and where it can run."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.cli import as_json
from sweeper.cli.arguments import ConsoleCommand
from sweeper.cli.exit_codes import OK

if TYPE_CHECKING:
    from rich.console import Console

    from sweeper.config import Listed


class ListExperiments(ConsoleCommand):
    """List experiments."""

    name = "list"
    summary = "list the experiments with their questions, and where each can run"
    description = (
        "List the experiments: the question of each, the platform that it chooses, the releases of vLLM that "
        "have all its knobs, and whether a counterpart takes its place on others."
    )

    def declare(self, parser: ArgumentParser) -> None:
        """Declare the folder of the user's own experiments, and the form."""
        parser.add_argument("--config-dir", type=Path, help="folder with experiments of your own, listed too")
        as_json.declare(parser)

    def run(self, options: Namespace, console: Console) -> int:
        """Print a block for each, or JSON."""
        from sweeper import config

        found = [_told(each) for each in config.experiments(options.config_dir)]
        if options.json:
            as_json.answer(found, console)
            return OK
        for each in found:
            console.print("\n".join(_lines(each)), markup=False, soft_wrap=True, highlight=False)
        console.print(
            "\nEach also runs with platform=simulated. More: python -m sweeper +experiment=NAME --help"
        )
        return OK


def _told(experiment: Listed) -> dict[str, Any]:
    first, last = releases_with(experiment.knobs)
    return {
        "experiment": experiment.name,
        "question": experiment.question,
        "platform": experiment.platform,
        "first_vllm": first,
        "last_vllm": last,
        "has_counterpart": experiment.has_counterpart,
        "command": f"python -m sweeper +experiment={experiment.name}",
    }


def releases_with(names: Iterable[str]) -> tuple[str | None, str | None]:
    """Return the first and the last known release of vLLM that has all of these knobs; None if none has."""
    from sweeper import knobs
    from sweeper.knobs.history import runs_of

    # Variables of the runtime below vLLM belong to no release of it.
    wanted = {name for name in names if runs_of(name)}
    holding = [release for release in knobs.releases() if wanted <= knobs.known_names(release)]
    return (holding[0], holding[-1]) if holding else (None, None)


def _lines(told: Mapping[str, Any]) -> Iterator[str]:
    yield f"{told['experiment']}"
    if told["question"]:
        yield f"    {told['question']}"
    span = f"vLLM {told['first_vllm']} to {told['last_vllm']}" if told["first_vllm"] else "no one release"
    after = "; on others its counterpart takes its place" if told["has_counterpart"] else ""
    yield f"    {told['platform'] or 'any platform'}; {span}{after}"
