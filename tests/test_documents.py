"""What the README files and docs/ say works as pasted: every command and every YAML block of theirs.

A command is run here, on the simulated platform or on a stubbed node, or it stands in ``ELSEWHERE`` with the
reason why it cannot run here. A sweep is run as its plan, which reads, checks and places what it would.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from analysis import cli as analysis_cli
from sweeper import cli, config
from sweeper.records import Platform
from sweeper.search import database
from tests import standin_sglang
from tests.engines.test_attach import wait_until_it_answers
from tests.standin_server import write_interpreter

ROOT = Path(__file__).resolve().parents[1]
RECORDED = ROOT / "tests" / "recorded" / "rocm_6.2_spx"
DOCUMENTS = (
    *(ROOT / "README.md", ROOT / "conf" / "README.md", ROOT / "examples" / "README.md"),
    *sorted((ROOT / "docs").glob("*.md")),
)

# What begins a command, and why it is not run here.
ELSEWHERE = {
    "make demo": "installs; what it runs is the sweep of case2_sched_steps, which is run here",
    "make test": "is what runs this test",
    "python3.11 -m venv": "installs",
    ".venv/bin/pip": "installs",
    ".venv/bin/ruff": "make check runs it",
    ".venv/bin/mypy": "make check runs it",
    "python -m pytest": "is what runs this test",
    "python -m sweeper cpu-vllm": "installs 3 GB; make test runs it",
    "python -m sweeper install-client": "installs 1.5 GB; its steps are in tests/clients",
    "pip install": "installs",
    "ray start": "needs machines of a cluster; tests/executors/test_cluster.py starts two nodes",
    "sudo amd-smi": "changes a GPU",
    "amd-smi static": "needs a GPU",
    "export ": "sets a variable of the next command",
    "python -m sweeper dashboard": "serves until it is stopped; tests/cli/test_cli.py starts it",
    "python -m sweeper watch": "serves until it is stopped; tests/cli/test_watch.py starts it",
    "python benchmarks/": "takes minutes",
    "python -m analysis validation": "takes minutes; tests/analysis/test_validation.py runs its parts",
    "python -m sweeper calibrate": "takes minutes; tests/calibrate runs its parts",
    "python -m sweeper study.name=toy": "needs its plug-in; tests/kinds/test_extending.py installs it",
    "python -m sweeper study.name=chats": "needs its plug-in; tests/kinds/test_extending.py installs it",
    "python -m sweeper engine.image=": "needs an image; tests/test_container_studies.py makes two",
    "docker run": "needs GPUs; tests/engines/test_containers.py makes it",
    "python -m sweeper interference": "takes minutes; tests/sweep/test_interference.py runs it",
}

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}

# A place in a document that stands for a place of the reader's own.
PLACES = {
    "/path/to/vllm/bin/python": "vllm/python",
    "/shared/vllm/bin/python": "vllm/python",
    "/path/to/sglang/bin/python": "sglang/python",
}


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block of a document, with the file that the line above names, or a command within a line."""

    document: Path
    language: str
    text: str
    file: str | None = None

    @property
    def commands(self) -> Iterator[str]:
        """Its commands: lines are joined where they go on, comments are left out."""
        for line in self.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield from " ".join(shlex.quote(word) for word in words).split(" '&&' ")


def blocks() -> Iterator[Block]:
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        fenced = r"^(?:`([\w./]+\.yaml)`:\n\n)?```(\w+)\n(.*?)^```"
        for file, language, body in re.findall(fenced, text, re.MULTILINE | re.DOTALL):
            yield Block(document=path, language=language, text=body, file=file or None)
        prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
        for span in re.findall(r"`(python -m (?:sweeper|analysis)\b[^`<\[]*)`", prose):
            # A row of a table may shorten what the row above it says.
            yield Block(document=path, language="bash", text=" ".join(span.split()))
        for line in re.findall(r"^    (python -m (?:sweeper|analysis)\b.*)$", prose, re.MULTILINE):
            yield Block(document=path, language="bash", text=line)


def commands() -> list[tuple[str, str]]:
    found = {
        (str(block.document.relative_to(ROOT)), command)
        for block in blocks()
        if block.language in ("bash", "sh")
        for command in block.commands
    }
    return sorted(found)


def yaml_blocks() -> list[Block]:
    return [block for block in blocks() if block.language == "yaml"]


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs of the studies that the documents name, run small on the simulated platform."""
    folder = tmp_path_factory.mktemp("studies")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        small = ["executor=inline", "platform=simulated", "workload.num_prompts=20"]
        for name in ("case2_sched_steps-simulated", "A", "B"):
            assert cli.main(["+experiment=case2_sched_steps", *small, f"study.name={name}"]) == cli.OK
        assert cli.main(["traffic", str(ROOT / "examples" / "requests.csv")]) == cli.OK
    return folder


@pytest.fixture
def machine(tmp_path: Path, studies: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A reader's folder, with an interpreter of vLLM and an amd-smi that answers as on an MI300X node."""
    shutil.copytree(studies / "outputs", tmp_path / "outputs")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    tools = tmp_path / "tools"
    tools.mkdir()
    stub = tools / "amd-smi"
    stub.write_text(
        f"#!{sys.executable}\nimport pathlib, sys\n"
        f"folder = pathlib.Path({str(RECORDED)!r})\n"
        "print((folder / (sys.argv[1] + '.json')).read_text(encoding='utf-8'), end='')\n"
    )
    stub.chmod(0o755)
    write_interpreter(tmp_path / "vllm")
    standin_sglang.write_interpreter(tmp_path / "sglang")
    write_interpreter(tmp_path / ".venv-vllm" / "bin")
    (tmp_path / "path" / "to").mkdir(parents=True)
    (tmp_path / "path" / "to" / "config.json").write_text(json.dumps(LLAMA), encoding="utf-8")
    for block in blocks():
        if block.file is not None:
            path = tmp_path / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("ENDPOINT_KEY", "a-key")
    return tmp_path


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where an endpoint answers that somebody else started."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    interpreter = write_interpreter(tmp_path_factory.mktemp("endpoint"))
    words = ["-m", "vllm.entrypoints.openai.api_server", "--served-model-name", "tiny", "--port", str(port)]
    process = subprocess.Popen([str(interpreter), *words], env={**os.environ, "VLLM_API_KEY": "a-key"})
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_it_answers(url)
        yield url
    finally:
        process.kill()
        process.wait()


def reason_elsewhere(command: str) -> str | None:
    plain = command.replace(".venv/bin/python ", "python ")
    return next((reason for start, reason in ELSEWHERE.items() if plain.startswith(start)), None)


def only_composes(words: list[str]) -> bool:
    """Whether a sweep speaks to a machine that is not here: then only its configuration is checked."""
    return any(word.startswith(("executor.address=", "study.storage=")) for word in words)


@pytest.mark.parametrize(("document", "command"), commands())
def test_command_works_as_pasted(
    document: str,
    command: str,
    machine: Path,
    endpoint: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    reason = reason_elsewhere(command)
    if reason is not None:
        pytest.skip(reason)
    if "platform=mi300x" in command:
        monkeypatch.setenv("PATH", f"{machine / 'tools'}:/usr/bin:/bin")
    for place, here in PLACES.items():
        command = command.replace(place, str(machine / here))
    command = command.replace("http://127.0.0.1:8000", endpoint)
    words = shlex.split(command)
    assert words[:2] in (["python", "-m"], [".venv/bin/python", "-m"]), f"{document}: what is {command}?"
    main: Callable[[list[str]], int] = cli.main if words[2] == "sweeper" else analysis_cli.main
    arguments = words[3:]
    if "s3://" in command:
        check_url(arguments)
        return
    if words[2] == "sweeper" and only_composes(arguments):
        composed = config.compose_run(arguments)
        settings = config.settings(composed, platform=Platform.MI300X)
        if settings.storage is not None:
            database.check(settings.storage)
        return
    is_sweep = words[2] == "sweeper" and any("=" in word for word in arguments) and "fit" not in arguments[:1]
    code = main([*arguments, *(["plan=true"] if is_sweep and "plan=true" not in arguments else [])])
    assert code == cli.OK, capsys.readouterr()


def check_url(arguments: list[str]) -> None:
    """Check that the address of an object store is read as one; the store itself is not here."""
    if any("study.results=" in word for word in arguments):
        composed = config.compose_run(arguments)
        assert config.settings(composed, platform=Platform.MI300X).results is not None
    else:
        from sweeper.store.files import open_folder

        assert str(open_folder(arguments[-1], where="a document").location).startswith("s3://")


@pytest.mark.parametrize("block", yaml_blocks(), ids=lambda block: f"{block.document.name}-{block.file}")
def test_yaml_block_is_configuration(block: Block, machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if block.file is not None:
        path = Path(block.file)
        words = ["--config-dir", str(path.parents[1]), f"+experiment={path.stem}"]
    else:
        write_around(block.text, machine / "snippet" / "experiment" / "snippet.yaml")
        words = ["--config-dir", "snippet", "+experiment=snippet"]
    code = cli.main([*words, "platform=simulated", "plan=true"])
    assert code == cli.OK, capsys.readouterr()


def write_around(text: str, path: Path) -> None:
    """Write an experiment around a block that shows a part of one."""
    content = yaml.safe_load(text)
    path.parent.mkdir(parents=True)
    lines = ["# @package _global_", "defaults:", "  - override /workload: random"]
    if "model" not in content:
        lines.append("  - override /model: llama_3_1_8b_instruct")
    needed = {
        "study": "study: {experiment: snippet}",
        "engine": "engine: {release: 0.11.2}",
        "knobs": "knobs: {max_model_len: 8192}",
        "space": "space: {knobs: {max_num_seqs: [64, 256]}}",
    }
    lines += [line for key, line in needed.items() if key not in content]
    path.write_text("\n".join([*lines, text]), encoding="utf-8")


def test_python_of_readme_reads_study(machine: Path) -> None:
    python = [block for block in blocks() if block.language == "python"]
    (block,) = [block for block in python if block.document.name == "README.md"]
    namespace: dict[str, object] = {}
    exec(block.text, namespace)


# Pages and comments that name experiments, other files of conf/, and files of this repository.
NAMING = (
    *DOCUMENTS,
    *sorted((ROOT / "experiments").glob("**/README.md")),
    *(ROOT / "analysis" / "README.md", ROOT / "benchmarks" / "README.md", ROOT / "outputs" / "README.md"),
    *sorted((ROOT / "conf").rglob("*.yaml")),
    *sorted(
        path for path in (ROOT / "examples").rglob("*") if path.suffix in (".sh", ".yaml", ".yml", ".py")
    ),
)
GROUPS = {folder.name for folder in (ROOT / "conf").iterdir() if folder.is_dir()}
# Stands for a name of the reader's own, or of a workload that `traffic` writes from examples/requests.csv.
OWN = {"NAME", "requests"}


def known_names(group: str) -> set[str]:
    """Return what can be chosen of a group of conf/, in examples/ and in blocks that are files, too."""
    shipped = [*(ROOT / "conf" / group).glob("*.yaml"), *(ROOT / "examples" / "conf" / group).glob("*.yaml")]
    written = [Path(block.file) for block in blocks() if block.file is not None]
    return OWN | {path.stem for path in [*shipped, *written] if path.parent.name == group}


@pytest.mark.parametrize("page", NAMING, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_or_a_comment_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    chosen = re.findall(rf"(?<![\w.@/])\+?({'|'.join(sorted(GROUPS))})=(\w+)", text)
    assert [f"{group}={name}" for group, name in chosen if name not in known_names(group)] == []
    folders = "sweeper|tests|benchmarks|analysis|conf|docs|experiments|examples"
    files = re.findall(
        rf"(?<![\w/.<-])((?:{folders})/[\w./-]+\.(?:py|md|csv|jsonl?|ya?ml|sh|ipynb|png)\b)", text
    )
    assert [
        name for name in files if not any((folder / name).exists() for folder in (ROOT, page.parent))
    ] == []
