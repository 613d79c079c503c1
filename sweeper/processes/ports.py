"""TCP ports of this machine: who listens on one, and a free one that stays ours."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from types import TracebackType

from sweeper.errors import EngineError, FailureClass
from sweeper.processes.process import PROC, living, read_proc

_LISTEN = "0A"


def listeners(port: int) -> set[int]:
    """Ids of the processes that hold a TCP socket listening on this port.

    Empty when no process listens, or when the holder belongs to a user whose files we may not read.
    """
    sockets = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    if not sockets:
        return set()
    return {status.process.pid for status in living() if sockets & set(_open_files(status.process.pid))}


def is_listened_on(port: int) -> bool:
    """Whether anybody listens on this TCP port, be it a user whose files we may not read."""
    return any(_listening_inodes(port))


class ReservedPort:
    """A free TCP port on loopback, kept from other takers until it is released.

    The kernel hands out a port that no process has bound, and this socket stays bound to it without
    listening. A server that sets SO_REUSEADDR, as vLLM and asyncio do, may still bind and listen on it,
    while no other process that asks the kernel for any free port is given this one. So there is no moment
    between choosing and using a port in which another process can take it by chance.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            self._socket.bind(("127.0.0.1", 0))
        except OSError as exc:
            self._socket.close()
            raise EngineError(
                f"port: no free TCP port on 127.0.0.1 ({exc}); expected one. End programs that hold ports.",
                failure=FailureClass.PORT,
            ) from exc
        # Only after the choice: with it, the kernel may choose a port that others share.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.port: int = self._socket.getsockname()[1]

    def release(self) -> None:
        """Release the port; safe to call twice."""
        self._socket.close()

    def __enter__(self) -> ReservedPort:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def _open_files(pid: int) -> Iterator[str]:
    folder = PROC / str(pid) / "fd"
    with contextlib.suppress(OSError):
        for fd in folder.iterdir():
            with contextlib.suppress(OSError):
                yield str(fd.readlink())


def _listening_inodes(port: int) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        for line in read_proc(PROC / "net" / table).splitlines()[1:]:
            fields = line.split()
            local, state, inode = fields[1], fields[3], fields[9]
            if state == _LISTEN and int(local.rpartition(":")[2], 16) == port:
                yield inode
