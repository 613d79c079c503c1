"""What a client needs before a trial is worth starting, looked at once and said in one sentence."""

from __future__ import annotations

import importlib.util
import shlex
from collections.abc import Iterable
from pathlib import Path

from sweeper import knobs
from sweeper.clients import conversations, given_arguments, sendable
from sweeper.engines import packages
from sweeper.errors import ConfigError, MissingFileError
from sweeper.kinds import CLIENTS, DATASETS, ENGINES, opened
from sweeper.records import ClientSpec, EngineSpec, LoadPoint, TrialSpec
from sweeper.records.plurals import amount

# From here on the sampler fills up with repetitions (benchmarks/benchmark_dataset.py, which came with 0.8);
# sample_sharegpt_requests of earlier scripts does not.
_REPEATS = "0.8.0"

SHAREGPT_FILE = "ShareGPT_V3_unfiltered_cleaned_split.json"
SHAREGPT_URL = (
    "https://huggingface.co/datasets/anon8231489123/ShareGPT_Vicuna_unfiltered/resolve/main/" + SHAREGPT_FILE
)
"""Where the source documents take ShareGPT from."""


def is_script(spec: TrialSpec) -> bool:
    """Return whether this trial's benchmark is the script of vLLM's repository.

    It is where the engine's release has no usable command; unless ``client.python`` alone is given, which
    names the environment of a later release whose command is used instead.
    """
    return _is_script(spec.client, spec.engine)


def check(client: ClientSpec, load_points: Iterable[LoadPoint], *, engine: EngineSpec) -> None:
    """Check that a client can send these load points to this engine; the simulated one needs nothing.

    Raises:
        ConfigError: A file, a package or a flag of the release is missing; nothing was started.
    """
    if ENGINES[engine.kind].is_modelled:
        return
    points, kind = tuple(load_points), CLIENTS[client.kind]
    if kind.check is not None:
        opened(kind.check)(client, points, engine)
    for point in points:
        place = DATASETS[point.dataset].check
        if place is not None:
            opened(place)(point)
        if _is_script(client, engine) and knobs.release_key(engine.release) < knobs.release_key(_REPEATS):
            _check_enough(point, release=engine.release)


def check_sharegpt(point: LoadPoint) -> None:
    """Check the ShareGPT file of a load point; as ``check_sharegpt_file``."""
    check_sharegpt_file(point.dataset_path, output_len=point.output_len)


def check_sharegpt_file(path: str | None, *, output_len: int | None = None) -> None:
    """Check that the ShareGPT file is there and whole, and that something of it may pass vLLM's sampler.

    Raises:
        MissingFileError: It is not there; the message holds the command that makes one like it, and the one
            that fetches it.
        ConfigError: It is damaged, or nothing of it passes.
    """
    got = "is not given" if path is None else _why_no_sharegpt(Path(path), output_len=output_len)
    if got is None:
        return
    is_missing = path is None or not Path(path).exists()
    target = path if path is not None and is_missing else "sharegpt.json"
    raise (MissingFileError if is_missing else ConfigError)(
        f"workload.dataset_path: {got}; expected a file in ShareGPT's format for dataset sharegpt. Make one "
        f"with the same lengths: python -m sweeper sharegpt {shlex.quote(target)} (or download "
        f"{SHAREGPT_FILE} from {SHAREGPT_URL}). Then set workload.dataset_path={shlex.quote(target)}."
    )


def check_prefix_repetition(point: LoadPoint) -> None:
    """Check that as many requests are sent as are asked for.

    Raises:
        ConfigError: The prefixes cannot be shared out evenly, of which the benchmark would send fewer.
    """
    prefixes = point.option("num_prefixes")
    if isinstance(prefixes, int) and point.num_prompts % prefixes:
        raise ConfigError(
            f"workload.num_prompts: is {point.num_prompts} with {prefixes} prefixes; expected a multiple of "
            "workload.options.num_prefixes, for the benchmark sends each prefix equally often. Change one."
        )


def check_text_file(point: LoadPoint) -> None:
    """Check that there is a text to take lines from.

    Raises:
        ConfigError: There is no file, or nothing in it.
    """
    path = None if point.dataset_path is None else Path(point.dataset_path)
    if path is None or not path.is_file() or not path.stat().st_size:
        got = "is not given" if path is None else f"{path} is no file with text in it"
        raise ConfigError(
            f"workload.dataset_path: {got}; expected a text file for dataset {point.dataset}, such as "
            "sonnet.txt of vLLM's folder benchmarks/. Set workload.dataset_path=PATH."
        )


def repetitions(points: Iterable[LoadPoint], *, engine: EngineSpec) -> tuple[str, ...]:
    """Describe of which load points prompts are sent more than once, a sentence for each file and number."""
    if ENGINES[engine.kind].is_modelled:
        return ()
    said: dict[str, None] = {}
    for point in points:
        again = repeated_prompts(point)
        if again is not None:
            sentence = (
                f"workload: {point.dataset_path} has conversations for {point.num_prompts - again} of "
                f"{amount(point.num_prompts, 'request')} at most: vLLM's sampler sends some again, and "
                "what is sent again may be answered from the prefix cache (column repeated_prompts)"
            )
            said[sentence] = None
    return tuple(said)


def repeated_prompts(point: LoadPoint) -> int | None:
    """Describe how many prompts of a load point are repetitions at least; None where none need be."""
    place = DATASETS[point.dataset].repeated
    if place is None or point.dataset_path is None:
        return None
    found: int | None = opened(place)(point)
    return found


def repeated_in_sharegpt(point: LoadPoint) -> int | None:
    """Count the repetitions at least among the prompts of a ShareGPT file; None where none need be."""
    try:
        return conversations.repeated(
            Path(point.dataset_path or ""), prompts=point.num_prompts, output_len=point.output_len
        )
    except (OSError, conversations.NotShareGptError):
        # The client that sends it reports it.
        return None


def _why_no_sharegpt(path: Path, *, output_len: int | None) -> str | None:
    """Describe what is wrong with a file; None where nothing is."""
    if not path.is_file():
        return f"there is no file {path}"
    try:
        found = conversations.contents(path, output_len=output_len)
    except OSError as exc:
        return f"{path} cannot be read ({exc.strerror})"
    except conversations.NotShareGptError as exc:
        return f"{path} {exc}"
    if not found.entries:
        return f"{path} is an empty list"
    if not found.two_turns:
        return (
            f'{path} has {found.entries} entries, none of which has two turns under "conversations": '
            "a question and its answer"
        )
    if not found.usable:
        return (
            f"{path} has {amount(found.two_turns, 'conversation')}, all too short or too long for "
            "vLLM's sampler, which keeps those of 4 to 1024 tokens asked and 4 to 2048 in all"
        )
    return None


def check_vllm_bench(client: ClientSpec, points: Iterable[LoadPoint], engine: EngineSpec) -> None:
    """Check that the benchmark of the engine's release is there, where it is a script.

    Raises:
        ConfigError: The script is missing or not wanted, or it cannot send a load point.
    """
    is_script = _is_script(client, engine)
    if client.script is not None and not is_script:
        raise ConfigError(_no_script_wanted(client, engine))
    if ENGINES[engine.kind].lies_with_vllm and (is_script or client.python is None):
        given_arguments.check(client.arguments, release=engine.release)
    if ENGINES[engine.kind].lies_with_vllm and is_script:
        from sweeper.clients import bench_script

        bench_script.find_script(client.script, bench_script.SCRIPT, release=engine.release)
        for point in points:
            bench_script.check_point(point, release=engine.release)
    elif client.python is None and ENGINES[engine.kind].lies_with_vllm:
        for point in points:
            sendable.check(point, release=engine.release)
    _check_packages(client.python or engine.python, points)


def _check_packages(python: str | None, points: Iterable[LoadPoint]) -> None:
    """Check that what reads the datasets is installed beside vLLM."""
    for point in points:
        package = DATASETS[point.dataset].package
        if python is not None and package is not None and packages.missing(python, (package,)):
            raise ConfigError(
                f"workload.dataset: is '{point.dataset}', and the environment of {python} has no {package}, "
                "with which vLLM's benchmark reads it; expected it beside vLLM. Install it: "
                f"{packages.install_command(python, package)}"
            )


def check_locust_client(client: ClientSpec, points: Iterable[LoadPoint], engine: EngineSpec) -> None:
    """Check that the client can run; as ``check_locust``."""
    check_locust()


def check_locust() -> None:
    """Check that Locust is installed in our environment.

    Raises:
        ConfigError: It is not.
    """
    if importlib.util.find_spec("locust") is None:
        raise ConfigError(
            "client.kind: is locust, and the package locust is not installed; expected it in the sweeper's "
            "own environment. Install it: pip install 'mi300x-sweeper[locust]'"
        )


def _is_script(client: ClientSpec, engine: EngineSpec) -> bool:
    if ENGINES[engine.kind].lies_without_vllm:
        return False
    is_old = knobs.bench_client(engine.release) == "script"
    return is_old and (client.script is not None or client.python is None)


def _check_enough(point: LoadPoint, *, release: str) -> None:
    again = repeated_prompts(point)
    if again is not None:
        raise ConfigError(
            f"workload.num_prompts: is {point.num_prompts}, and {point.dataset_path} has at most "
            f"{amount(point.num_prompts - again, 'conversation')} that can be sent; expected no more, "
            f"for the script of vLLM {release} sends none twice. Lower it, or take a larger file."
        )


def _no_script_wanted(client: ClientSpec, engine: EngineSpec) -> str:
    if ENGINES[engine.kind].lies_without_vllm:
        return (
            f"client.script: is '{client.script}', and {ENGINES[engine.kind].title} is loaded by the "
            "benchmark that is a command of vLLM; expected none. Leave it out, and name the interpreter of "
            "that vLLM by client.python."
        )
    return (
        f"client.script: is '{client.script}', and vLLM {engine.release} has the benchmark as a command, "
        "which is used; expected none. Leave it out."
    )


def check_offline(client: ClientSpec, points: Iterable[LoadPoint], engine: EngineSpec) -> None:
    """Check that the release has the benchmarks, or their scripts are there.

    Raises:
        ConfigError: One is missing.
    """
    from sweeper.clients.bench_script import find_script
    from sweeper.engines.vllm_offline import FIRST_COMMAND, benchmark_launcher

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
