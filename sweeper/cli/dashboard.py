"""What the dashboard is given of a study: its note before and after, its charts, a picture of each trial."""

from __future__ import annotations

import os
import platform
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.cli.arguments import ConsoleCommand
from sweeper.errors import AnswerError, ConfigError
from sweeper.kinds import ENGINES, SEARCH_METHODS
from sweeper.records import ContainerSpec, EngineSpec, Model, Platform, TrialResult, TrialState

if TYPE_CHECKING:
    from rich.console import Console

    from analysis.study import Study
    from sweeper.config import Settings
    from sweeper.plan.planner import Planner


def study_note(settings: Settings, planner: Planner) -> str:
    """Write the note of a study that begins: its environment is what is known before the first trial."""
    import sweeper
    from sweeper.search import dashboard

    facts = {
        "Node": planner.node.summary,
        "Engine": engine_text(planner),
        "Model": "; ".join(map(model_text, models_of(planner))),
        "Search": settings.method,
        "Sweeper": f"{sweeper.__version__} (Optuna {version('optuna')}, Python {platform.python_version()})",
        "System": platform.platform(),
    }
    return _note(settings, environment=dashboard.table(facts))


def show_on_dashboard(
    settings: Settings, study: Study, charts: Sequence[Path], *, answers: Sequence[str]
) -> None:
    """Put the charts and answers of a study that has ended on its page, with what its trials ran on.

    Raises:
        StoreError: The database does not answer.
    """
    from analysis.report import environment
    from sweeper.search import dashboard, storage_url

    dashboard.show_study(
        settings.storage or storage_url(settings.outputs),
        settings.name,
        note=_note(settings, environment=environment(study.frame), answers=answers),
        files=[path for path in charts if path.suffix == ".png"],
        folder=dashboard.artifacts_folder(settings.outputs),
    )


def illustrator(settings: Settings) -> Callable[[TrialResult], Path | None]:
    """Return what draws a trial for its page.

    The settings of a modelled grid stand side by side in the study's own charts, and drawing one more for
    each would take longer than to model it: they have none.
    """
    is_searched = not SEARCH_METHODS[settings.method].is_exhaustive
    is_drawn = is_searched or settings.platform is not Platform.SIMULATED
    return _picture_of if is_drawn else lambda _: None


def _picture_of(result: TrialResult) -> Path | None:
    from analysis import latencies

    if result.state is not TrialState.COMPLETE:
        return None
    try:
        return latencies.write(result)
    except AnswerError:
        # A full disk: the numbers matter, and the store says so itself.
        return None


def _note(settings: Settings, *, environment: str, answers: Sequence[str] = ()) -> str:
    from sweeper.search import dashboard

    return dashboard.note(
        question=settings.question or settings.name,
        is_simulated=settings.platform is Platform.SIMULATED,
        objectives=settings.objectives,
        bounds=[constraint.name for constraint in settings.constraints],
        environment=environment,
        results=str(settings.results or settings.folder),
        source=settings.source,
        answers=answers,
    )


def engine_text(planner: Planner) -> str:
    """Name what serves, and where it is found."""
    engine = planner.engine
    return ENGINES[engine.kind].words.format(
        release=engine.release,
        version=engine.build or engine.release,
        taken_for=_taken_for(engine),
        python=engine.python if engine.container is None else _image_text(engine.container),
        url=engine.url,
        command=" ".join([*engine.prefix, engine.command]),
    )


def image_lines(planner: Planner) -> list[str]:
    """Name the release in each image that a study compares."""
    return [
        f"image: {_image_text(engine.container)}: vLLM {engine.build or engine.release}{_taken_for(engine)}"
        if ENGINES[engine.kind].is_run_by_python
        else f"image: {_image_text(engine.container)}: {ENGINES[engine.kind].title}"
        for engine in planner.images.values()
        if engine.container is not None
    ]


def _image_text(container: ContainerSpec) -> str:
    return (
        f"{container.python} of image {container.image} ({container.runtime}, {str(container.digest)[:19]})"
    )


def _taken_for(engine: EngineSpec) -> str:
    return "" if engine.build is None else f" (taken for {engine.release}, as engine.release says)"


def models_of(planner: Planner) -> list[Model]:
    """List the models that a study serves: its own, and those of series that name another."""
    own = [series.model or planner.model for series in planner.space.series] or [planner.model]
    return list(dict.fromkeys(own))


def model_text(model: Model) -> str:
    """Name a model, where it is served from if that is not its name, and what is known of its weights."""
    stored = model.quantization
    facts = [
        model.name,
        *([f"served from {model.path}"] if model.path != model.name else []),
        *([f"revision {model.revision}"] if model.revision else []),
        model.dtype or "type of its weights not known",
        *([] if stored is None else [f"{stored.method} weights of {stored.bits:g} bits"]),
        *(["random weights"] if model.is_dummy else []),
        *([f"described by {model.described_by}"] if model.described_by else []),
    ]
    return ", ".join(facts)


def model_lines(planner: Planner) -> list[str]:
    """Describe what is served, and of what it is not known whether it fits."""
    models = models_of(planner)
    if not ENGINES[planner.engine.kind].is_started_by_us:
        return [f"model: {model.name}, prompts by the tokenizer of {model.path}" for model in models]
    lines = [f"model: {model_text(model)}" for model in models]
    if planner.platform is Platform.CPU:
        return lines
    return lines + [
        f"memory: not worked out for {model.name}: {model.no_shape_because}"
        for model in models
        if model.built is None
    ]


class OpenDashboard(ConsoleCommand):
    """Open the Optuna dashboard."""

    name = "dashboard"
    summary = "open the Optuna dashboard on all studies"
    description = "Open the Optuna dashboard on all studies of an outputs folder, on loopback only."

    def declare(self, parser: ArgumentParser) -> None:
        """Declare the outputs folder, the port and the database."""
        parser.add_argument("outputs", type=Path, nargs="?", default=Path("outputs"))
        parser.add_argument("--port", type=int, help="default: 8080, or any free one where that is taken")
        parser.add_argument("--storage", help="the studies' database, where study.storage named another")

    def run(self, options: Namespace, console: Console) -> int:
        """Print the address, and become the dashboard's server."""
        if options.storage is None and not (options.outputs / "optuna.db").exists():
            raise ConfigError(
                f"{options.outputs / 'optuna.db'}: does not exist. Run an experiment first, or name its "
                "outputs folder."
            )
        from sweeper.search import dashboard, database, storage_url

        url = options.storage or storage_url(options.outputs)
        database.check(url)
        port = dashboard.choose_port(options.port)
        command = dashboard.command(url, outputs=options.outputs, port=port)
        console.print(f"http://{dashboard.HOST}:{port}/dashboard  (Ctrl-C ends it)", markup=False)
        console.file.flush()
        os.execv(command[0], command)
