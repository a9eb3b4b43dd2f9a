"""Connections to one SQLite file or one Postgres database; its errors become those of the store."""

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy.exc
from sqlalchemy import URL, Connection, Engine, create_engine, event, func, make_url, select
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from engines.errors import ConfigurationError, PresenceError, StoreCorrupt, StoreFull, StoreUnavailable
from engines.store.driver_errors import kind_of

LOCK_TIMEOUT_S = 10
"""How long a call waits for another process's write before it raises StoreUnavailable."""

PAGE_BYTES = 8192
"""Of a new SQLite file: a page takes three embeddings of 512 numbers. A file keeps the size of its pages."""

_SCHEMA_LOCK = 0x70726573  # any two numbers that the program alone uses as advisory locks
_UPKEEP_LOCK = 0x76656374


class Database:
    """Where the journal's tables live. Thread-safe.

    Messages of its errors hold no password, no directory and nothing that was written.
    """

    def __init__(self, url: str) -> None:
        """Connects to nothing yet. url: `sqlite:///file`, `sqlite:////directory/file` or `postgresql://...`.

        Raises ConfigurationError for another URL, and StoreUnavailable when the file cannot be made.
        """
        parsed = parse_url(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        database = parsed.database or ""
        self.name = Path(database).name if self.is_sqlite else f"the Postgres database {database!r}"
        self._turn = threading.Lock()
        self._glancing = threading.Lock()
        self._kept: PoolProxiedConnection | None = None
        if self.is_sqlite:
            self._make_file(Path(database))
        self._engine = self._engine_of(parsed)
        if not self.is_sqlite:
            _check_options(parsed)
        self._reads = self._engine if self.is_sqlite else self._isolated("AUTOCOMMIT")
        self._writes = self._engine if self.is_sqlite else self._isolated("READ COMMITTED")
        if self.is_sqlite:
            event.listen(self._engine, "connect", _settings)

    def _engine_of(self, url: URL) -> Engine:
        sqlite = {"timeout": LOCK_TIMEOUT_S}
        postgres = {
            "connect_timeout": LOCK_TIMEOUT_S,
            "client_encoding": "utf8",
            # A machine that has vanished is told from one that computes: libpq's own settings.
            "tcp_user_timeout": LOCK_TIMEOUT_S * 1000,
            "keepalives_idle": LOCK_TIMEOUT_S // 2,
            "keepalives_interval": 2,
            "keepalives_count": 3,
        }
        try:
            return create_engine(
                url,
                connect_args=sqlite if self.is_sqlite else _unless_given(url, postgres),
                hide_parameters=True,
                pool_size=8,
                max_overflow=24,
                pool_timeout=LOCK_TIMEOUT_S,
                pool_pre_ping=not self.is_sqlite,
            )
        except ImportError:
            raise ConfigurationError(
                "the store's URL names Postgres, whose driver is not installed: install presence[postgres]"
            ) from None

    def _isolated(self, level: str) -> Engine:
        return self._engine.execution_options(isolation_level=level)

    def _make_file(self, path: Path) -> None:
        """An empty file is an empty database; nobody but its owner may read people's embeddings."""
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.touch(mode=0o600)
        except OSError as error:
            raise StoreUnavailable(f"{self.name} cannot be opened: {error.strerror}") from None

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """The driver's message stays behind: it may quote what was written."""
        try:
            yield
        except sqlalchemy.exc.TimeoutError:
            raise StoreUnavailable(f"{self.name}: every connection is in use") from None
        except sqlalchemy.exc.DBAPIError as error:
            kind, label = kind_of(error)
            if kind is None:
                raise
            raise kind(self._message(kind, label)) from None

    def _message(self, kind: type[PresenceError], label: str) -> str:
        if kind is StoreFull:
            return f"the disk of {self.name} is full; nothing was written"
        if kind is StoreCorrupt:
            return f"{self.name} is damaged ({label}): stop the service and restore a backup"
        return f"{self.name} cannot be read or written now ({label})"

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection on which every statement by itself sees one state of the database."""
        with self._translated(), self._reads.connect() as connection:
            yield connection

    def glance(self, statement: str) -> Sequence[Any]:
        """Rows of a statement that reads little and is asked often.

        SQLite: by the driver alone, on a connection that is kept for it: SQLAlchemy takes several times as
        long as the statement.
        """
        if not self.is_sqlite:
            with self.reading() as connection:
                return connection.exec_driver_sql(statement).all()
        with self._glancing, self._translated():
            if self._kept is None:
                self._kept = self._engine.raw_connection()
            try:
                cursor = self._kept.cursor()
                cursor.execute(statement)
                return cursor.fetchall()
            except sqlite3.Error as error:
                self._kept.invalidate()
                self._kept = None
                raise sqlalchemy.exc.DBAPIError(statement, None, error) from error

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A connection on which all statements see the same state."""
        engine = self._engine if self.is_sqlite else self._isolated("REPEATABLE READ")
        with self._translated(), engine.connect() as connection:
            if self.is_sqlite:
                connection.exec_driver_sql("BEGIN")
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction, committed at the end of the block; of this process one at a time.

        SQLite: no other process writes meanwhile.
        """
        with self._turn, self._translated(), self._writes.begin() as connection:
            if self.is_sqlite:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                connection.exec_driver_sql(
                    f"SELECT set_config('lock_timeout', '{LOCK_TIMEOUT_S}s', true),"
                    " set_config('idle_in_transaction_session_timeout', '30s', true)"
                )
            yield connection

    @contextmanager
    def migrating(self) -> Iterator[Connection]:
        """As `writing`, and no other process migrates meanwhile."""
        with self.writing() as connection:
            if not self.is_sqlite:
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})")
                encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
                if encoding != "UTF8":
                    raise ConfigurationError(f"{self.name} is encoded as {encoding}: create it as UTF8")
            yield connection

    def use_log(self) -> None:
        """SQLite: write-ahead log from now on, for readers and one writer at once. Postgres: nothing."""
        if not self.is_sqlite:
            return
        give_up = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            try:
                with self.reading() as connection:
                    connection.exec_driver_sql("PRAGMA journal_mode = WAL").scalar_one()
            # SQLite itself does not wait when two switch at once.
            except StoreUnavailable as error:
                if isinstance(error, StoreFull) or time.monotonic() > give_up:
                    raise
                time.sleep(0.01)
            else:
                return

    def empty_log(self, wait_s: float) -> bool:
        """SQLite: copies the log into the file and cuts it to length 0, so that it holds nothing erased.

        False when a reader of an old state did not end within wait_s, or the disk is full.
        Postgres: True; its server recycles its log.
        """
        if not self.is_sqlite:
            return True
        try:
            with self.reading() as connection:
                connection.exec_driver_sql(f"PRAGMA busy_timeout = {int(wait_s * 1000)}")
                try:
                    busy = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()[0]
                finally:
                    connection.exec_driver_sql(f"PRAGMA busy_timeout = {LOCK_TIMEOUT_S * 1000}")
        except StoreUnavailable:
            return False
        return not busy

    def analyze(self, tables: list[str]) -> None:
        """Postgres: tells its planner how large the tables are; it does so itself within minutes.

        Without, it takes large tables for empty ones and compares every record with every label.
        """
        if self.is_sqlite:
            return
        with suppress(StoreUnavailable), self.reading() as connection:
            connection.exec_driver_sql(f"ANALYZE {', '.join(tables)}")

    @contextmanager
    def taking_turns(self) -> Iterator[Connection | None]:
        """Postgres: a connection for work that one process does for all, None while another is at it.

        Every statement commits by itself.
        """
        with self.reading() as connection:
            is_ours = connection.execute(select(func.pg_try_advisory_lock(_UPKEEP_LOCK))).scalar_one()
            try:
                yield connection if is_ours else None
            finally:
                if is_ours and not connection.invalidated:
                    connection.execute(select(func.pg_advisory_unlock(_UPKEEP_LOCK)))

    def rewrite(self) -> None:
        """SQLite: writes the living rows anew and gives the rest of the space back; readers go on.

        Raises StoreUnavailable when a reader of an old state does not end.
        """
        with self._turn, self.reading() as connection:
            connection.exec_driver_sql("VACUUM")
        if not self.empty_log(LOCK_TIMEOUT_S):
            raise StoreUnavailable(f"{self.name} is being read; its log still holds what was erased")

    def close(self) -> None:
        """Ends the connections that nobody uses."""
        with self._glancing:
            if self._kept is not None:
                self._kept.close()
                self._kept = None
        self._engine.dispose()


def _unless_given(url: URL, defaults: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in defaults.items() if name not in url.query}


def parse_url(url: str) -> URL:
    """The URL of a store, for SQLAlchemy. Raises ConfigurationError for one that names no store."""
    advice = "use sqlite:////directory/presence.db or postgresql://user:password@host/database"
    try:
        parsed = make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise ConfigurationError(f"the store's URL cannot be read: {advice}") from None
    if parsed.drivername in {"postgres", "postgresql", "postgresql+psycopg"} and parsed.database:
        return parsed.set(drivername="postgresql+psycopg")
    is_file = parsed.database and not parsed.database.startswith((":memory:", "file:"))
    if parsed.drivername in {"sqlite", "sqlite+pysqlite"} and is_file and not parsed.host:
        if parsed.query:
            raise ConfigurationError(
                f"the store's URL has options, which a SQLite file does not take: {advice}"
            )
        return parsed
    raise ConfigurationError(f"the store's URL names no SQLite file and no Postgres database: {advice}")


def _check_options(url: URL) -> None:
    """Raises ConfigurationError for an option behind the question mark that Postgres does not have."""
    import psycopg.conninfo  # noqa: PLC0415 - it may be missing where nobody asks for Postgres

    try:
        psycopg.conninfo.make_conninfo(**dict.fromkeys(url.query, ""))
    except psycopg.Error as error:
        raise ConfigurationError(f"the store's URL cannot be used: {str(error).strip()}") from None


def _settings(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
    """Of every SQLite connection. Transactions begin where `Database` says so and nowhere else."""
    connection.isolation_level = None
    pragmas = (f"page_size = {PAGE_BYTES}", "synchronous = FULL", "foreign_keys = ON", "secure_delete = ON")
    for pragma in pragmas:
        connection.execute(f"PRAGMA {pragma}")
