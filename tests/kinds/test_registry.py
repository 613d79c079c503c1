"""Entry points of other packages: found late, imported later, and refused with one sentence."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeper.errors import ConfigError
from sweeper.kinds import ENGINES, EngineKind, Registry, opened
from tests.kinds.plug_ins import install

Add = Callable[..., None]
MODULE = """
from sweeper.kinds import EngineKind
THIRD = EngineKind(name="third", title="Third", engine="third_party:Engine", words="third")
"""


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Add:
    """Install a package with engines, on the path of this test only."""

    def added(name: str, *, module: str = MODULE, **points: str) -> None:
        folder = install(
            tmp_path / name,
            name,
            modules={f"{name}.py": module},
            entry_points={"sweeper.engines": points},
        )
        monkeypatch.syspath_prepend(folder)

    return added


def engines() -> Registry[EngineKind]:
    """A registry that has not looked at the installed packages yet."""
    return Registry("engine.kind", ENGINES.values(), declared_by=EngineKind, group="sweeper.engines")


def test_plug_in_is_listed_last_and_imported_when_it_is_named(add: Add) -> None:
    add("third_party", third="third_party:THIRD")
    known = engines()
    assert list(known) == [*ENGINES, "third"]
    assert "third" in known
    assert "third_party" not in sys.modules
    assert known["third"].title == "Third"
    assert known["third"] is known["third"]
    del sys.modules["third_party"]


def test_unknown_name_is_refused_with_nearest() -> None:
    with pytest.raises(ConfigError, match=r"engine\.kind: is 'vlm'; .* Did you mean 'vllm'\?"):
        engines()["vlm"]
    assert engines().get("vlm") is None


@pytest.mark.parametrize(
    ("module", "place", "reason"),
    [
        ("import no_such_package", "broken:THIRD", r"cannot be imported \(ModuleNotFoundError: "),
        ("raise RuntimeError('on import')", "broken:THIRD", r"cannot be imported \(RuntimeError: on import"),
        ("", "broken:THIRD", r"cannot be imported \(AttributeError: "),
        ("THIRD = 3", "broken:THIRD", r"broken:THIRD is of type int; expected a EngineKind named 'third'"),
        (MODULE.replace('"third"', '"fourth"'), "broken:THIRD", "is named 'fourth'; expected a EngineKind"),
    ],
)
def test_broken_plug_in_is_named_with_its_package(add: Add, module: str, place: str, reason: str) -> None:
    add("broken", module=module, third=place)
    with pytest.raises(
        ConfigError, match=rf"^entry point 'third' in group sweeper\.engines of broken: .*{reason}"
    ):
        engines()["third"]
    sys.modules.pop("broken", None)


def test_broken_plug_in_hurts_nobody_who_does_not_name_it(add: Add) -> None:
    add("broken", module="raise RuntimeError", third="broken:THIRD")
    assert engines()["vllm"].title == "vLLM"


def test_name_of_ours_is_not_taken_by_plug_in(add: Add) -> None:
    add("usurper", vllm="usurper:THIRD")
    with pytest.raises(ConfigError, match="of usurper: declares the name 'vllm', which the sweeper itself"):
        list(engines())


def test_name_is_taken_by_one_package_only(add: Add) -> None:
    add("first", third="first:THIRD")
    add("second", third="second:THIRD")
    with pytest.raises(ConfigError, match=r"declares the name 'third', which entry point 'third' .* has "):
        list(engines())


def test_declaration_that_names_nothing_says_so() -> None:
    with pytest.raises(ConfigError, match=r"^sweeper\.engines\.tgi:Nothing: cannot be imported"):
        opened("sweeper.engines.tgi:Nothing")


def test_declaring_imports_nothing_heavy() -> None:
    heavy = "vllm locust optuna pandas numpy ray hydra sweeper.engines sweeper.clients importlib.metadata"
    program = f"import sys; import sweeper.kinds; print([n for n in {heavy.split()} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
