"""The database that remembers the search: SQLite in a file, or a server named by an SQLAlchemy URL.

A file is owned through the lock in the study's folder. A server may be shared by drivers on several
machines that know nothing of each other's folders, so on PostgreSQL a driver also holds the study by an
advisory lock: the server drops it with the connection, however the driver ends.

Optuna's heartbeats are left out: they beat only inside ``Study.optimize`` (Optuna 5.0), and what a kill left
running is closed by the next driver of the study.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import optuna
import sqlalchemy
from optuna.storages._rdb import models
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from sweeper.errors import ConfigError, StoreError, first_line
from sweeper.text.confidential import masked

_CONNECT_TIMEOUT_S = 10
_LOCK_WAIT_S = 10.0
_LOCK_POLL_S = 0.25
# Between two reports lie whole trials: firewalls and servers drop connections that are idle for so long.
_RECYCLE_S = 1800
# A driver whose machine vanished must not hold its study for the two hours that Linux takes to notice.
_KEEPALIVE = "-c tcp_keepalives_idle=60 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3"

# What to install for a driver that is not called as its package, or is an extra of ours.
_PACKAGE_OF = {
    "MySQLdb": "mysqlclient",
    "psycopg": '"mi300x-sweeper[postgres]"',
    "psycopg2": "psycopg2-binary",
}


def check(url: str) -> None:
    """Check that the package that speaks to this database is here; nothing is connected to.

    Raises:
        ConfigError: It is not a URL, names an unknown kind of database or one in memory, or its package is
            missing.
    """
    try:
        parsed = make_url(url)
        parsed.get_dialect().import_dbapi()
    except (ArgumentError, ValueError) as exc:
        raise ConfigError(
            f"study.storage: '{masked(url)}' names no database ({exc}); expected an SQLAlchemy URL, such as "
            "postgresql+psycopg://user@host/database or sqlite:///file. Correct it."
        ) from exc
    except ImportError as exc:
        driver = str(exc.name)
        raise ConfigError(
            f"study.storage: {parsed.drivername} needs the package '{driver}', which is not installed. "
            f"Run: pip install {_PACKAGE_OF.get(driver, driver)}"
        ) from exc
    if parsed.get_backend_name() == "sqlite" and (parsed.database or ":memory:").endswith(":memory:"):
        raise ConfigError(
            f"study.storage: '{masked(url)}' is a database in memory, which ends with this program; expected "
            "one that remembers. Name a file, such as sqlite:///outputs/optuna.db."
        )


def file_url(path: Path) -> str:
    """Return the SQLAlchemy URL of an SQLite file, whatever characters its path has."""
    text = str(path)
    if not set(text) & set("?#%"):
        return f"sqlite:///{text}"
    # Read as parts of a URL twice: by SQLAlchemy, which unquotes them, and by SQLite.
    return f"sqlite:///file:{quote(quote(text))}?uri=true"


def open_storage(url: str) -> optuna.storages.BaseStorage:
    """Open the database as Optuna's storage; its tables are made where they are missing.

    Raises:
        ConfigError: Its package is missing.
        StoreError: It does not answer, or is no database of Optuna's.
    """
    check(url)
    with _opening(url), _alone(make_url(url)):
        if make_url(url).get_backend_name() == "sqlite":
            storage = optuna.storages.get_storage(url)
        else:
            storage = optuna.storages.RDBStorage(url, engine_kwargs=_engine_options(make_url(url)))
        _complete_indexes(engine_of(storage))
        return storage


@contextlib.contextmanager
def _opening(url: str) -> Iterator[None]:
    """Turn whatever is raised while a database is opened into an error that names it."""
    try:
        yield
    except Exception as exc:
        raise StoreError(
            f"{masked(url)}: cannot be opened as an Optuna study database: {masked(first_line(exc))}. "
            "Move a file away, mend the connection, or give another one with study.storage=..."
        ) from exc


def open_stored(url: str) -> optuna.storages.BaseStorage | None:
    """Open the database to read what it holds; None where it holds nothing yet, and nothing is written.

    Raises:
        ConfigError: Its package is missing.
        StoreError: It does not answer, or is no database of Optuna's.
    """
    check(url)
    file = _file_of(make_url(url))
    # Opening a file that is not there would make it.
    if file is not None and not file.exists():
        return None
    with _opening(url):
        engine = sqlalchemy.create_engine(url, **_engine_options(make_url(url)))
        try:
            # The table that is made last: without it Optuna would go on making them.
            is_there = sqlalchemy.inspect(engine).has_table("alembic_version")
        finally:
            engine.dispose()
        if not is_there:
            return None
        options = _engine_options(make_url(url))
        return optuna.storages.RDBStorage(url, engine_kwargs=options, skip_table_creation=True)


@contextlib.contextmanager
def _alone(url: URL) -> Iterator[None]:
    """Keep other drivers from making the tables of a file meanwhile: the second to make one fails.

    Where nothing can be written beside the file, or its file system has no locks, nobody is kept out.
    """
    with contextlib.ExitStack() as stack:
        path = _file_of(url)
        if path is not None:
            with contextlib.suppress(OSError):
                lock = stack.enter_context(path.with_name(f".{path.name}.lock").open("a"))
                # The kernel drops the lock with its owner, however that ends.
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _file_of(url: URL) -> Path | None:
    """Return the file of an SQLite database, as a path; None of any other."""
    if url.get_backend_name() != "sqlite" or not url.database:
        return None
    text = url.database
    return Path(unquote(text.removeprefix("file:")) if text.startswith("file:") else text)


def _complete_indexes(engine: sqlalchemy.Engine) -> None:
    """Make the indexes that are missing.

    Optuna makes tables and indexes one after the other, and a table that is there counts as whole. After a
    kill in between, nothing would keep a study's name from being taken twice; then neither could be opened.
    """
    inspected = sqlalchemy.inspect(engine)
    for table in models.BaseModel.metadata.sorted_tables:
        if table.indexes:
            there = {index["name"] for index in inspected.get_indexes(table.name)}
            for index in table.indexes:
                if index.name not in there:
                    index.create(engine, checkfirst=True)


@contextlib.contextmanager
def answering(url: str) -> Iterator[None]:
    """Turn what a database says when it is gone into an error that names it.

    Raises:
        StoreError: It does not answer.
    """
    try:
        yield
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as exc:
        raise StoreError(
            f"{masked(url)}: does not answer: {masked(first_line(exc))}. What is finished lies in the "
            "study's results; mend the database and start again: the same command goes on."
        ) from exc


@contextlib.contextmanager
def readable(url: str) -> Iterator[None]:
    """Turn what Optuna raises over rows that it did not write into an error that names the database.

    For the first look at a study only: later the same errors would be defects of this program.

    Raises:
        StoreError: An attribute is no JSON, a parameter is not in its distribution, or the like.
    """
    try:
        yield
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as exc:
        raise StoreError(
            f"{masked(url)}: holds a study that Optuna cannot read ({type(exc).__name__}: "
            f"{masked(first_line(exc))}); expected one that this program wrote. Move it away: results lie "
            "beside it, and the same command makes a new study from them."
        ) from exc


class Ownership:
    """One driver's hold on a study, where several could reach it at once."""

    def __init__(self, storage: optuna.storages.BaseStorage, name: str) -> None:
        """Take hold of the study.

        Raises:
            StoreError: Another driver holds it.
        """
        self._engine: sqlalchemy.Engine | None = getattr(_innermost(storage), "engine", None)
        self._connection: sqlalchemy.Connection | None = None
        if self._engine is not None and self._engine.dialect.name == "postgresql":
            self._connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            self._lock(self._connection, name)

    def release(self) -> None:
        """Release the study and every connection; safe to call twice."""
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
            self._connection = None
        if self._engine is not None:
            self._engine.dispose()

    def _lock(self, connection: sqlalchemy.Connection, name: str) -> None:
        # A driver that was killed just now may still be on its way out, so its lock is waited for.
        deadline = time.monotonic() + _LOCK_WAIT_S
        question = sqlalchemy.text("SELECT pg_try_advisory_lock(:key)")
        while not connection.execute(question, {"key": _lock_key(name)}).scalar():
            if time.monotonic() > deadline:
                self.release()
                raise StoreError(
                    f"study '{name}': another driver works on it in the same database, perhaps on another "
                    "machine. Wait for it, stop it, or give this one another name with study.name=..."
                )
            time.sleep(_LOCK_POLL_S)


def engine_of(storage: optuna.storages.BaseStorage) -> sqlalchemy.Engine:
    """Return what speaks to the database of a storage that ``open_storage`` opened."""
    engine: sqlalchemy.Engine = _innermost(storage).engine
    return engine


def _engine_options(url: URL) -> dict[str, Any]:
    options: dict[str, Any] = {"pool_pre_ping": True, "pool_recycle": _RECYCLE_S}
    if url.get_backend_name() == "postgresql":
        arguments = {"connect_timeout": _CONNECT_TIMEOUT_S, "options": _KEEPALIVE}
        # What the URL says itself stays as it is.
        options["connect_args"] = {k: v for k, v in arguments.items() if k not in url.query}
    return options


def _innermost(storage: optuna.storages.BaseStorage) -> Any:
    """Return the storage that talks to the database: Optuna wraps it in a cache."""
    return getattr(storage, "_backend", storage)


def _lock_key(name: str) -> int:
    """Return the number by which PostgreSQL knows the lock: 64 bits with a sign."""
    digest = hashlib.sha256(f"sweeper study {name}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
