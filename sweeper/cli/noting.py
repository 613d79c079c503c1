"""What the dashboard is given of a study: its note before and after, its charts, a picture of each trial."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.errors import AnswerError
from sweeper.records import Platform, TrialResult, TrialState

if TYPE_CHECKING:
    from sweeper.config import Settings
    from sweeper.plan import Planner


def study_note(settings: Settings, planner: Planner) -> str:
    """Write the note of a study that begins: its environment is what is known before the first trial."""
    import sweeper
    from sweeper import dashboard

    facts = {
        "Node": planner.node.summary,
        "Engine": engine_text(planner),
        "Model": planner.model.name,
        "Search": settings.method,
        "Sweeper": f"{sweeper.__version__} (Optuna {version('optuna')}, Python {platform.python_version()})",
        "System": platform.platform(),
    }
    return _note(settings, environment=dashboard.table(facts))


def show_on_dashboard(settings: Settings, charts: Sequence[Path], *, answers: Sequence[str]) -> None:
    """Put the charts and answers of a study that has ended on its page, with what its trials ran on.

    Raises:
        StoreError: The database does not answer.
    """
    from analysis.report import environment
    from analysis.study import Study
    from sweeper import dashboard
    from sweeper.search import storage_url

    frame = Study.load(settings.folder).frame
    dashboard.show_study(
        settings.storage or storage_url(settings.outputs),
        settings.name,
        note=_note(settings, environment=environment(frame), answers=answers),
        files=[path for path in charts if path.suffix == ".png"],
        folder=dashboard.artifacts_folder(settings.outputs),
    )


def illustrator(settings: Settings) -> Callable[[TrialResult], Path | None]:
    """Give what draws a trial for its page.

    The settings of a modelled grid stand side by side in the study's own charts, and drawing one more for
    each would take longer than to model it: they have none.
    """
    is_drawn = settings.method != "grid" or settings.platform is not Platform.SIMULATED
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
    from sweeper import dashboard

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
    if planner.engine.kind == "simulated":
        return f"model of vLLM {planner.engine.release}"
    if planner.engine.kind == "attach":
        return f"attached to {planner.engine.url}"
    if planner.engine.kind == "tgi":
        return f"TGI by {' '.join([*planner.engine.prefix, planner.engine.command])}"
    return f"vLLM {planner.engine.release} at {planner.engine.python}"
