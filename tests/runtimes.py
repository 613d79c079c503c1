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
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from sweeper.processes import process as processes
from tests.surroundings import running

ROOT = Path(__file__).resolve().parents[1]
SHELL = "localhost/sweeper-shell:1"
"""The image that every runtime has."""

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


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """A container runtime that works, with a storage of its own.

    Attributes:
        name: podman or docker.
        daemon: Docker's, which is this test's own; podman has none.
    """

    name: str
    daemon: subprocess.Popen[bytes] | None = None

    def __call__(self, *words: str, given: bytes | None = None) -> str:
        done = subprocess.run([self.name, *words], input=given, capture_output=True, check=False, timeout=120)
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

    def idle(self, name: str) -> None:
        """Run a container of this name that waits."""
        self("run", "--detach", "--name", name, "--network", "host", SHELL, "sleep", "600")

    def remove(self, *names: str) -> None:
        """End containers at once; those that are not there are no fault."""
        at_once = [] if self.daemon else ["--time", "0"]
        subprocess.run([self.name, "rm", "--force", *at_once, *names], capture_output=True, check=False)


def mounts_of_this_machine(*more: Path) -> list[str]:
    """Words that mount, read-only, what the programs of this machine and of these tests need."""
    interpreters = {Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parents[1]}
    system = {Path(name) for name in ("/usr", "/lib", "/lib64", "/etc/ssl") if Path(name).exists()}
    wanted = sorted({*interpreters, *system, *more})
    # This repository is mounted by the product itself.
    kept = [path for path in wanted if not any(path != o and path.is_relative_to(o) for o in (*wanted, ROOT))]
    return [word for path in kept for word in ("--volume", f"{path}:{path}:ro")]


@contextmanager
def opened(folder: Path, name: str = "podman") -> Iterator[Runtime]:
    """Set a runtime up, and take away all that it ran and kept; skip the test where no container can run."""
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed: no container is run")
    folder.mkdir(parents=True, exist_ok=True)
    with (
        pytest.MonkeyPatch.context() as patch,
        (_docker if name == "docker" else _podman)(folder, patch) as found,
    ):
        found.image(SHELL)
        reason = _why_none_runs(name)
        if reason is not None:
            pytest.skip(f"{name} starts no container here: {reason}")
        yield found
        if found.daemon is None or found.daemon.poll() is None:
            found.remove(*found.running())


@contextmanager
def _podman(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    storage, settings = folder / "storage.conf", folder / "containers.conf"
    storage.write_text(
        f'[storage]\ndriver = "{_driver()}"\ngraphroot = "{folder}/graph"\nrunroot = "{folder}/run"\n'
    )
    settings.write_text('[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "none"\n')
    patch.setenv("CONTAINERS_STORAGE_CONF", str(storage))
    patch.setenv("CONTAINERS_CONF", str(settings))
    podman = Runtime(name="podman")
    podman.image(SHELL)
    if _why_none_runs("podman") is not None:
        with settings.open("a") as file:
            path = json.dumps(str(_without_limits(folder)))
            file.write(f'runtime = "sweeper"\n[engine.runtimes]\nsweeper = [{path}]\n')
    yield podman


@contextmanager
def _docker(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    """Start a daemon of our own, whose socket and storage lie in a folder, and which makes no network."""
    if shutil.which("dockerd") is None or os.getuid() != 0:
        pytest.skip("docker: no daemon is started for a test, which takes dockerd and root")
    socket = f"unix://{folder}/socket"
    command = [
        *("dockerd", "--bridge=none", "--iptables=false", "--ip6tables=false", "--host", socket),
        *("--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec", "--pidfile", f"{folder}/pid"),
        *("--add-runtime", f"sweeper={_without_limits(folder)}", "--default-runtime", "sweeper"),
    ]
    environment = {**os.environ, "TMPDIR": str(folder)}
    with (
        (folder / "log").open("wb") as log,
        running(command, stdout=log, stderr=log, env=environment) as daemon,
    ):
        patch.setenv("DOCKER_HOST", socket)
        try:
            _wait_for(daemon, folder / "log")
            yield Runtime(name="docker", daemon=daemon)
        finally:
            daemon.terminate()
            daemon.wait(timeout=60)
            _end_shims(folder)
            _unmount(folder)


def _end_shims(folder: Path) -> None:
    """End what a killed daemon leaves: a small program beside each container."""
    for process in processes.marked("TMPDIR", str(folder)):
        if "containerd-shim" in processes.title(process.pid):
            os.kill(process.pid, signal.SIGKILL)


def _unmount(folder: Path) -> None:
    """Take away the mounts that a daemon leaves below a folder, such as that of its network namespace."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    for path in reversed([path for path in mounts if Path(path).is_relative_to(folder)]):
        subprocess.run(["umount", "--lazy", path], check=True)


def _wait_for(daemon: subprocess.Popen[bytes], log: Path) -> None:
    while subprocess.run(["docker", "ps"], capture_output=True, check=False).returncode != 0:
        if daemon.poll() is not None:
            said = log.read_text(encoding="utf-8").strip().splitlines() or ["nothing"]
            pytest.skip(f"docker: its daemon does not run here: {said[-1]}")
        time.sleep(0.2)


def _without_limits(folder: Path) -> Path:
    path, runc = folder / "without-limits", shutil.which("runc") or "/usr/sbin/runc"
    path.write_text(_WITHOUT_LIMITS.format(python=sys.executable, runc=runc))
    path.chmod(0o755)
    return path


def _why_none_runs(name: str) -> str | None:
    words = (name, "run", "--rm", "--network", "host", SHELL, "sh", "-c", "true")
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
