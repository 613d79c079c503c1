"""Real containers for tests, without a registry and without a trace on the machine.

Images and containers lie in a storage of their own below a temporary folder. An image is a shell and nothing
else; what runs in it are programs of this machine, mounted read-only. Where the machine's runtime cannot
start a container because it may not raise process limits, as in some sandboxes, a small runtime drops them.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

_WITHOUT_LIMITS = """#!{python}
import json, os, sys
words = sys.argv[1:]
if "create" in words or "run" in words:
    bundle = words[words.index("--bundle") + 1] if "--bundle" in words else os.getcwd()
    path = os.path.join(bundle, "config.json")
    config = json.load(open(path))
    config["process"].pop("rlimits", None)
    json.dump(config, open(path, "w"))
os.execv({runc!r}, ["runc", *words])
"""


@dataclass(frozen=True)
class Podman:
    """A podman that works, with a storage of its own."""

    folder: Path

    def __call__(self, *words: str, given: bytes | None = None) -> str:
        done = subprocess.run(["podman", *words], input=given, capture_output=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def image(self, name: str, *changes: str) -> str:
        """Make an image that holds a shell; `changes` such as ``ENV X=1`` make it another one."""
        words = [word for change in changes for word in ("--change", change)]
        self("import", *words, "-", name, given=_shell())
        return name

    def running(self) -> list[str]:
        """Names of all containers, whether they run or not."""
        return self("ps", "--all", "--format", "{{.Names}}").split()

    def clean(self) -> None:
        subprocess.run(["podman", "rm", "--all", "--force", "--time", "0"], capture_output=True, check=False)


def mounts_of_this_machine(*more: Path) -> list[str]:
    """Words that mount, read-only, what the programs of this machine and of these tests need."""
    interpreters = {Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parents[1]}
    system = {Path(name) for name in ("/usr", "/lib", "/lib64", "/etc/ssl") if Path(name).exists()}
    wanted = sorted({*interpreters, *system, *more})
    # This repository is mounted by the product itself.
    kept = [path for path in wanted if not any(path != o and path.is_relative_to(o) for o in (*wanted, ROOT))]
    return [word for path in kept for word in ("--volume", f"{path}:{path}:ro")]


@contextmanager
def opened(folder: Path) -> Iterator[Podman]:
    """Set podman up (``make``) for a fixture, and take away all that it ran and kept."""
    with pytest.MonkeyPatch.context() as patch:
        found = make(folder, patch)
        yield found
        found.clean()


def make(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Podman:
    """Set podman up for a test; skip the test with the reason where no container can run here."""
    if shutil.which("podman") is None:
        pytest.skip("podman is not installed: no container is run")
    storage, settings = folder / "storage.conf", folder / "containers.conf"
    folder.mkdir(parents=True, exist_ok=True)
    storage.write_text(
        f'[storage]\ndriver = "{_driver()}"\ngraphroot = "{folder}/graph"\nrunroot = "{folder}/run"\n'
    )
    settings.write_text('[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "none"\n')
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(storage))
    monkeypatch.setenv("CONTAINERS_CONF", str(settings))
    podman = Podman(folder)
    podman.image("localhost/sweeper-shell:1")
    if _why_none_runs() is not None:
        runtime, runc = folder / "without-limits", shutil.which("runc") or "/usr/sbin/runc"
        runtime.write_text(_WITHOUT_LIMITS.format(python=sys.executable, runc=runc))
        runtime.chmod(0o755)
        with settings.open("a") as file:
            file.write(f'runtime = "sweeper"\n[engine.runtimes]\nsweeper = [{json.dumps(str(runtime))}]\n')
    reason = _why_none_runs()
    if reason is not None:
        pytest.skip(f"podman starts no container here: {reason}")
    return podman


def _why_none_runs() -> str | None:
    words = ("podman", "run", "--rm", "--network", "host", "localhost/sweeper-shell:1", "sh", "-c", "true")
    done = subprocess.run(words, capture_output=True, check=False, timeout=120, text=True)
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no reason told"])[-1]


def _driver() -> str:
    return os.environ.get("STORAGE_DRIVER") or ("overlay" if os.getuid() == 0 else "vfs")


def _shell() -> bytes:
    """Make the content of an image: a shell, and the folders that programs expect."""
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox is not installed: no image can be made")
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.add(busybox, "bin/busybox")
        for name in ("bin/sh", "bin/sleep"):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
        for name in ("tmp", "etc", "root"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777
            archive.addfile(folder)
    return content.getvalue()
