"""A folder of files, on this machine or behind a URL: list, read, write whole, put aside.

What is written here is either there whole or not at all, whatever happens meanwhile. On a file system that
is a file written aside and renamed; an object store takes an object in one put and shows it only then.
Whatever pyarrow opens can be given: ``file://``, ``s3://``, ``gs://``, ``abfs://``, ``hdfs://``.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

from sweeper.errors import ConfigError, StoreError
from sweeper.text import confidential, urls
from sweeper.text.writing import PARTIAL, write_aside

Location = Path | str
"""Where something lies: a path, or a URL."""

# pyarrow's names of the stores that show an object only when it is complete; a rename there is a copy.
_OBJECT_STORES = frozenset({"s3", "gcs", "abfs"})


class Folder:
    """One folder, which need not exist before something is written into it."""

    def __init__(self, filesystem: Any, path: str, *, location: Location) -> None:
        """Name a folder of an opened file system.

        Args:
            filesystem: A ``pyarrow.fs.FileSystem``.
            path: The folder as that file system names it.
            location: How a person names it.
        """
        self.location = location
        self._filesystem = filesystem
        self._path = path.rstrip("/")

    @property
    def is_local(self) -> bool:
        """Whether it lies in a file system that this machine has mounted."""
        return isinstance(self.location, Path)

    def at(self, name: str) -> Location:
        """Describe where one of its files lies."""
        if isinstance(self.location, Path):
            return self.location / name
        return urls.below(self.location, name)

    def below(self, name: str) -> Folder:
        """Return a folder in it."""
        return Folder(self._filesystem, self._of(name), location=self.at(name))

    def names(self) -> list[str]:
        """Return the names of the files directly in it, in order; none where there is no such folder.

        Raises:
            StoreError: It does not answer.
        """
        try:
            if self._filesystem.get_file_info(self._path).type != fs.FileType.Directory:
                return []
            found = self._filesystem.get_file_info(fs.FileSelector(self._path, allow_not_found=True))
        except OSError as exc:
            raise StoreError(_no_answer(self.location, exc)) from exc
        return sorted(info.base_name for info in found if info.is_file)

    def others(self) -> list[str]:
        """Return the names of what lies directly in it but is no file, in order: folders, dangling links.

        Raises:
            StoreError: It does not answer.
        """
        files = set(self.names())
        if isinstance(self.location, Path) and self.location.is_dir():
            return sorted(path.name for path in self.location.iterdir() if path.name not in files)
        return []

    def holds(self, name: str) -> bool:
        """Return whether it has a file of this name.

        Raises:
            StoreError: It does not answer.
        """
        try:
            return bool(self._filesystem.get_file_info(self._of(name)).is_file)
        except OSError as exc:
            raise StoreError(_no_answer(self.location, exc)) from exc

    def read(self, name: str) -> Any:
        """Return a file's content.

        Returns:
            A ``pyarrow.Buffer``; its meaning, and whether it is whole, is the reader's to find out.

        Raises:
            StoreError: The file is not there, or the folder does not answer.
        """
        try:
            with self._filesystem.open_input_file(self._of(name)) as file:
                return file.read_buffer()
        except OSError as exc:
            raise StoreError(_no_answer(self.at(name), exc)) from exc

    def write(self, name: str, content: Any) -> None:
        """Write a file whole, in the place of one that is there.

        Args:
            content: Bytes or a ``pyarrow.Buffer``, complete: a stream that breaks off half-way would leave
                a half-written object behind.

        Raises:
            StoreError: It cannot be written; what was there before is untouched.
        """
        try:
            if isinstance(self.location, Path):
                _write_and_sync(self.location, name, content)
            else:
                self._put(name, content)
        except OSError as exc:
            raise StoreError(
                f"{self.at(name)}: cannot be written ({exc}); expected a writable place with free space. "
                "Make room or mend its rights, then start the study again: it goes on where it stopped."
            ) from exc

    def move_aside(self, name: str, into: str) -> Location:
        """Move a file, or what is none, into a folder in this one, under a name that is free there.

        Raises:
            StoreError: It cannot be moved.
        """
        target = self.below(into)
        taken = {*target.names(), *target.others()}
        names = itertools.chain([name], (f"{name}.{number}" for number in itertools.count(1)))
        free = next(each for each in names if each not in taken)
        try:
            self._filesystem.create_dir(target._path, recursive=True)
            self._filesystem.move(self._of(name), target._of(free))
        except OSError as exc:
            raise StoreError(f"{self.at(name)}: cannot be moved to {target.at(free)} ({exc}).") from exc
        return target.at(free)

    def _put(self, name: str, content: Any) -> None:
        is_object_store = self._filesystem.type_name in _OBJECT_STORES
        path = self._of(name) if is_object_store else self._of(PARTIAL.format(name=name))
        if not is_object_store:
            self._filesystem.create_dir(self._path, recursive=True)
        with self._filesystem.open_output_stream(path) as stream:
            stream.write(content)
        if not is_object_store:
            self._filesystem.move(path, self._of(name))
        kept = self._filesystem.get_file_info(self._of(name)).size
        if kept != len(content):
            raise OSError(f"of {len(content)} bytes written, {kept} are there")

    def _of(self, name: str) -> str:
        return f"{self._path}/{name}"


def open_folder(location: Location, *, where: str) -> Folder:
    """Open a folder by its path or URL; nothing is made or asked yet where that can be helped.

    Args:
        location: A path, or a URL that pyarrow knows.
        where: The key or argument that names it, for a message.

    Raises:
        ConfigError: The URL names nothing that pyarrow opens.
    """
    if isinstance(location, Path) or not urls.is_url(location):
        return _local(Path(location))
    try:
        filesystem, path = fs.FileSystem.from_uri(location)
    except (pa.ArrowException, ImportError, OSError, ValueError) as exc:
        raise ConfigError(
            f"{where}: '{confidential.masked(location)}' cannot be opened ({exc}); expected a folder, or a "
            "URL that pyarrow opens, such as s3://bucket/folder, gs://bucket/folder or file:///folder. "
            "Correct it, or set the variables that its store asks for."
        ) from exc
    if filesystem.type_name == "local":
        return _local(Path(path))
    return Folder(filesystem, path, location=location)


def _local(path: Path) -> Folder:
    return Folder(fs.LocalFileSystem(), str(path), location=path)


def _write_and_sync(folder: Path, name: str, content: Any) -> None:
    """Write aside, then rename; after that a loss of power takes neither the file nor its name."""
    write_aside(folder, name, content, before_rename=sync)
    sync(folder)


def sync(path: Path) -> None:
    """Wait until a file or the names in a folder are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _no_answer(location: Location, exc: OSError) -> str:
    return (
        f"{location}: cannot be read ({exc}); expected a place that this machine can reach and may read. "
        "Mend its rights or the connection, then start again: what is stored there is kept."
    )
