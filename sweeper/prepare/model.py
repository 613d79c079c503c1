"""The model that is served: a path that the engine can open, and what can be found out of its build."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from sweeper import config
from sweeper.config import Settings, model_layers
from sweeper.errors import ConfigError, nearest
from sweeper.models import config_json, tiny
from sweeper.prepare import hub_config
from sweeper.prepare.interpreter import find_python
from sweeper.records import Model, Platform
from sweeper.records.model import DESCRIBES
from sweeper.space.space import Space

_MEASURED = Platform.MI300X
"""A platform that refuses no model for what is not known of it."""


def provide_model(settings: Settings) -> Model:
    """Return the model with a path the engine can open; the tiny one is made when it is first needed."""
    if settings.model.path != "tiny":
        return settings.model
    if settings.platform is Platform.SIMULATED:
        return replace(settings.model, revision=tiny.revision())
    made = tiny.describe(settings.outputs / "models" / "tiny-llama")
    return replace(made, path=str(Path(made.path).absolute()), name=settings.model.name)


def from_anywhere(model: Model) -> Model:
    """Return a model whose folder is named in full: an engine runs in a folder of its trial's."""
    path = Path(model.path)
    return replace(model, path=str(path.absolute())) if path.is_dir() else model


def named(name: str, *, config_dir: Path | None = None, python: str | None = None) -> Model:
    """Return the model that one word names.

    Args:
        name: A file of conf/model, a config.json or its folder, or an id of the hub.
        config_dir: A folder of the user's own groups.
        python: The interpreter of vLLM's environment, for an id that no file of conf/model has; without it,
            it is looked for where users have it.

    Returns:
        The model. Where nothing is known of its build, ``no_shape_because`` says why.

    Raises:
        ConfigError: It names nothing, or a config.json that cannot be read.
    """
    known = config.groups(config_dir)["model"]
    if name in known:
        return _composed(f"model={name}", config_dir)
    if Path(name).exists():
        return config_json.read(Path(name))
    if "/" in name.strip("/") and not name.startswith(("/", ".", "~")):
        return looked_up(_composed(f"model.path={name}", config_dir), python=python or _python())
    raise ConfigError(
        f"model: there is no '{name}'; expected a name of conf/model ({', '.join(known)}), the path of a "
        f"config.json or its folder, or an id of the hub (org/name). Choose one.{nearest(name, known)}"
    )


def _composed(override: str, config_dir: Path | None) -> Model:
    composed = config.compose_run([override, f"platform={_MEASURED}"], config_dir=config_dir)
    return config.settings(composed, platform=_MEASURED).model


def _python() -> str | None:
    try:
        return find_python(None, Platform.CPU)
    except ConfigError:
        return None


def looked_up(model: Model, *, python: str | None) -> Model:
    """Return a model with what vLLM's interpreter finds of its id, where the configuration does not say it.

    Args:
        model: Of a platform that measures.
        python: The interpreter; None where there is none.

    Raises:
        ConfigError: It finds another model than conf/model has under the name.
    """
    is_described = model.built is not None and not model.looked_up
    if is_described or Path(model.path).exists() or model.path == "tiny":
        return model
    if python is None:
        return _unknown(model, "no interpreter of vLLM was found to ask")
    found = hub_config.look_up(model.path, revision=model.revision, python=python)
    if found.config is None:
        return _unknown(model, found.why)
    where = f"config.json of {model.path}"
    try:
        own = config_json.describe(found.config, where=where, name=model.name, path=model.path)
    except ConfigError as exc:
        is_unread = config_json.is_unknown_build(found.config)
        return _unread(model, config_json.why_unknown(found.config) if is_unread else str(exc))
    model_layers.refuse_borrowed_name(own, [config.conf_folder()], name=model.name)
    names = [name for name in DESCRIBES if name in model.looked_up or getattr(model, name) is None]
    return replace(
        model,
        **{name: getattr(own, name) for name in names},
        described_by=f"its config.json, found by {python}",
        no_shape_because=None,
        looked_up=tuple(names),
    )


def _unknown(model: Model, why: str) -> Model:
    """Say why nothing was found; what a file of conf/model says of the id holds."""
    if model.built is not None:
        return model
    return replace(model, no_shape_because=f"{model.no_shape_because}, and {why}")


def _unread(model: Model, why: str) -> Model:
    """Say that its own config.json cannot be read; then no other file speaks for it."""
    nothing: dict[str, Any] = dict.fromkeys(model.looked_up)
    return replace(model, **nothing, described_by=None, looked_up=(), no_shape_because=why)


def with_models(space: Space, change: Callable[[Model], Model]) -> Space:
    """Return a space whose series have their models changed, such as by ``from_anywhere``."""
    return replace(
        space,
        series=tuple(
            series if series.model is None else replace(series, model=change(series.model))
            for series in space.series
        ),
    )
