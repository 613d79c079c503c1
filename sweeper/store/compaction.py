"""Small parts brought together into larger files, so that thousands of trials are stored and read cheaply.

A part repeats the description of all its columns, which outweighs its few rows by far. So once there are
many, their rows go into one larger file. It takes the parts' place in one step, whatever happens meanwhile:

1. A folder beside ``measurements/`` gets the larger file, and links to the files that stay as they are.
2. The two folders exchange their names, which the file system does at once.
3. What was merged is removed with the folder that held it.

A process that is killed before the second step leaves the parts as they were, after it the larger file in
their stead: no reader, ``pandas.read_parquet`` on the folder among them, meets a row twice or misses one. The
folder beside is tidied away by the next owner of the study. Where a file system cannot exchange two folders
(NFS, an object store), parts stay small.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

import pyarrow as pa

from sweeper.errors import StoreError
from sweeper.store import parts
from sweeper.store.files import Folder, open_folder, sync

FULL_TRIALS = 1000
"""A file of so many trials is left as it is: merging it again would cost more than it saves."""

NOTHING_KNOWN: Mapping[str, pa.Table] = MappingProxyType({})
"""No part is known but from its file."""

_AT_CWD = -100
_EXCHANGE = 2  # RENAME_EXCHANGE of renameat2(2)


def compact(
    folder: Folder, *, schema: pa.Schema, least: int, known: Mapping[str, pa.Table] = NOTHING_KNOWN
) -> int:
    """Bring the small parts of a folder together.

    Args:
        folder: The parts; this process is the only writer.
        schema: Columns of all of them.
        least: With fewer small parts, nothing is done.
        known: Parts by name, as this process wrote them; the others are read.

    Returns:
        How many files became one; 0 where nothing was done.

    Raises:
        StoreError: A part cannot be read, or the larger file cannot be written; the parts are as they were.
    """
    names = [name for name in folder.names() if parts.is_visible(name)]
    small = [name for name in names if not parts.is_compacted(name)]
    place = _real(folder)
    if len(small) < least or place is None or not _can_exchange(place):
        return 0
    tables = {
        name: known[name] if name in known else parts.read(folder, name)
        for name in names
        if not parts.is_compacted(name) or _is_short(folder, name)
    }
    provenance = parts.mark(parts.schema_of(folder, small[0]), "provenance")
    whole = pa.concat_tables([parts.conform(table, schema) for table in tables.values()])
    # Hundreds of pieces of a row each take Parquet several times as long as one.
    whole = whole.combine_chunks()
    beside = _beside(place)
    try:
        beside.mkdir()
        for name in names:
            if name not in tables:
                _link(place / name, beside / name)
        parts.write(
            whole,
            open_folder(beside, where="study.results"),
            parts.compacted_name(names),
            provenance=provenance,
        )
        beside.chmod(stat.S_IMODE(place.stat().st_mode))
        _exchange(place, beside)
        sync(place.parent)
    except OSError as exc:
        raise StoreError(
            f"{beside}: cannot be written ({exc}); expected room for a second copy of {place}. Make room, "
            "then start the study again; its results are all there."
        ) from exc
    finally:
        tidy(folder)
    return len(tables)


def tidy(folder: Folder) -> None:
    """Remove what a compaction leaves beside the parts, after one that was killed, too.

    What somebody else put there meanwhile is kept: it is moved to the parts.

    Raises:
        StoreError: It cannot be removed, or a part cannot be read.
    """
    place = _real(folder)
    if place is None or not _beside(place).is_dir():
        return
    beside = _beside(place)
    try:
        stored = parts.trials_in(folder, folder.names())
        left = open_folder(beside, where="study.results")
        for path in sorted(beside.iterdir()):
            if not _is_leftover(path.name, left, stored):
                _move_into(path, place)
        sync(place)
        shutil.rmtree(beside)
    except OSError as exc:
        raise StoreError(
            f"{beside}: cannot be removed ({exc}); expected a writable folder. Mend its rights, then start "
            "the study again; its results are all there."
        ) from exc


def _is_leftover(name: str, beside: Folder, stored: Collection[str]) -> bool:
    """Return whether a file is half-written, or all of its trials are stored in another file."""
    if not parts.is_visible(name):
        return name.endswith(".partial")
    try:
        return set(parts.trials_in(beside, [name])) <= set(stored)
    except parts.UnreadablePartError:
        return True


def _move_into(path: Path, place: Path) -> None:
    """Move a file or a folder, into a folder of its name where there is one."""
    target = place / path.name
    if not (path.is_dir() and target.is_dir()):
        path.replace(target)
        return
    for inner in path.iterdir():
        _move_into(inner, target)


def _real(folder: Folder) -> Path | None:
    """Return the folder itself, not a link to it; None where it is not in a file system of this machine."""
    place = folder.location
    return place.resolve() if isinstance(place, Path) and place.is_dir() else None


def _beside(place: Path) -> Path:
    return place.with_name(f".{place.name}.compacting")


def _is_short(folder: Folder, name: str) -> bool:
    return parts.rows_in(folder, name) < FULL_TRIALS


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)
        sync(target)


def _can_exchange(place: Path) -> bool:
    """Try it on two empty folders: a merge that cannot be put in place would be made for nothing."""
    one, other = (place.with_name(f".{place.name}.exchange-{number}") for number in (1, 2))
    try:
        one.mkdir(exist_ok=True)
        other.mkdir(exist_ok=True)
        _exchange(one, other)
    except OSError:
        return False
    finally:
        for path in (one, other):
            with suppress(OSError):
                path.rmdir()
    return True


def _exchange(one: Path, other: Path) -> None:
    """Exchange the names of two folders at once.

    Raises:
        OSError: The file system or the C library cannot.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        raise OSError("no renameat2 in the C library")
    if rename(_AT_CWD, os.fsencode(one), _AT_CWD, os.fsencode(other), _EXCHANGE) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
