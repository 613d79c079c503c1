"""What a client needs before a trial is worth starting, looked at once and said in one sentence."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path

from sweeper import knobs
from sweeper.errors import ConfigError
from sweeper.records import ClientSpec, EngineSpec, LoadPoint, TrialSpec

# Bytes: longer than a first conversation by far.
_LOOKED_AT = 2**18

SHAREGPT_FILE = "ShareGPT_V3_unfiltered_cleaned_split.json"
SHAREGPT_URL = (
    "https://huggingface.co/datasets/anon8231489123/ShareGPT_Vicuna_unfiltered/resolve/main/" + SHAREGPT_FILE
)
"""Where the source documents take ShareGPT from."""


def is_script(spec: TrialSpec) -> bool:
    """Tell whether this trial's benchmark is the script of vLLM's repository.

    It is where the engine's release has no usable command; unless ``client.python`` alone is given, which
    names the environment of a later release whose command is used instead.
    """
    return _is_script(spec.client, spec.engine)


def check(client: ClientSpec, load_points: Iterable[LoadPoint], *, engine: EngineSpec) -> None:
    """See that a client can send these load points to this engine; the simulated one needs nothing.

    Raises:
        ConfigError: A file, a package or a flag of the release is missing; nothing was started.
    """
    if engine.kind == "simulated":
        return
    points = tuple(load_points)
    if client.kind == "locust":
        check_locust()
    elif client.kind == "offline":
        _check_offline(client, points, engine)
    elif client.script is not None and not _is_script(client, engine):
        raise ConfigError(_no_script_wanted(client, engine))
    elif engine.kind == "vllm" and _is_script(client, engine):
        from sweeper.clients import bench_script

        bench_script.find_script(client.script, bench_script.SCRIPT, release=engine.release)
        for point in points:
            bench_script.check_point(point, release=engine.release)
    for point in points:
        if point.dataset == "sharegpt":
            check_sharegpt_file(point.dataset_path)


def check_sharegpt_file(path: str | None) -> None:
    """See that the ShareGPT file is there, whole, and what it should be, by its beginning and its end.

    Raises:
        ConfigError: It is not; the message says where to get it, and how to make one like it.
    """
    got = "is not given" if path is None else _why_no_sharegpt(Path(path))
    if got is None:
        return
    raise ConfigError(
        f"workload.dataset_path: {got}; expected a file in ShareGPT's format for dataset sharegpt. "
        f"Download {SHAREGPT_FILE} from {SHAREGPT_URL}, or make a file with the same lengths: "
        "python -m sweeper sharegpt sharegpt.json. Then set workload.dataset_path=PATH."
    )


def _why_no_sharegpt(path: Path) -> str | None:
    """Say what is wrong with a file, without reading all of its hundreds of MB; None where nothing is."""
    if not path.is_file():
        return f"there is no file {path}"
    try:
        with path.open("rb") as file:
            head = file.read(_LOOKED_AT)
            file.seek(max(0, path.stat().st_size - _LOOKED_AT))
            tail = file.read()
    except OSError as exc:
        return f"{path} cannot be read ({exc.strerror})"
    if not head.lstrip().startswith(b"[") or b'"conversations"' not in head or b'"value"' not in head:
        return f"{path} is no JSON list of conversations"
    if not tail.rstrip().endswith(b"]"):
        return f"{path} is cut off: its last character is no ']'"
    return None


def check_locust() -> None:
    """See that Locust is installed beside us.

    Raises:
        ConfigError: It is not.
    """
    if importlib.util.find_spec("locust") is None:
        raise ConfigError(
            "client.kind: is locust, and the package locust is not installed; expected it in the sweeper's "
            "own environment. Install it: pip install 'mi300x-sweeper[locust]'"
        )


def _is_script(client: ClientSpec, engine: EngineSpec) -> bool:
    is_old = knobs.bench_client(engine.release) == "script"
    return is_old and (client.script is not None or client.python is None)


def _no_script_wanted(client: ClientSpec, engine: EngineSpec) -> str:
    return (
        f"client.script: is '{client.script}', and vLLM {engine.release} has the benchmark as a command, "
        "which is used; expected none. Leave it out."
    )


def _check_offline(client: ClientSpec, points: Iterable[LoadPoint], engine: EngineSpec) -> None:
    from sweeper.clients.bench_script import find_script
    from sweeper.engines.offline import FIRST_COMMAND, benchmark_launcher

    has_command = knobs.release_key(engine.release) >= knobs.release_key(FIRST_COMMAND)
    if client.script is not None and has_command:
        raise ConfigError(_no_script_wanted(client, engine))
    for point in points:
        benchmark_launcher(
            point,
            python=engine.python or "",
            release=engine.release,
            scripts=lambda name: find_script(client.script, name, release=engine.release),
        )
