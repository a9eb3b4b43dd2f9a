"""What an error of the SQLite or Postgres driver means for the store."""

import sqlite3

import sqlalchemy.exc

from engines.errors import PresenceError, StoreCorrupt, StoreFull, StoreUnavailable

_SQLITE_ERRORS: dict[int, type[PresenceError]] = {
    sqlite3.SQLITE_FULL: StoreFull,
    # The index of the log is a memory map; its file cannot grow when the disk is full.
    sqlite3.SQLITE_IOERR_SHMSIZE: StoreFull,
    sqlite3.SQLITE_BUSY: StoreUnavailable,
    sqlite3.SQLITE_LOCKED: StoreUnavailable,
    sqlite3.SQLITE_CANTOPEN: StoreUnavailable,
    sqlite3.SQLITE_IOERR: StoreUnavailable,
    sqlite3.SQLITE_NOMEM: StoreUnavailable,
    sqlite3.SQLITE_PERM: StoreUnavailable,
    sqlite3.SQLITE_PROTOCOL: StoreUnavailable,
    sqlite3.SQLITE_READONLY: StoreUnavailable,
    sqlite3.SQLITE_CONSTRAINT: StoreCorrupt,
    sqlite3.SQLITE_CORRUPT: StoreCorrupt,
    sqlite3.SQLITE_ERROR: StoreCorrupt,  # a table or column is missing
    sqlite3.SQLITE_FORMAT: StoreCorrupt,
    sqlite3.SQLITE_MISMATCH: StoreCorrupt,
    sqlite3.SQLITE_NOTADB: StoreCorrupt,
}
"""By extended or primary result code: https://sqlite.org/rescode.html."""

_POSTGRES_ERRORS: dict[str, type[PresenceError]] = {
    "53100": StoreFull,
    "08": StoreUnavailable,
    "25006": StoreUnavailable,  # a standby: read-only
    "25P03": StoreUnavailable,  # ended by the server: idle in a transaction
    "28": StoreUnavailable,
    "3D": StoreUnavailable,
    "40": StoreUnavailable,
    "42501": StoreUnavailable,  # no right to read or write
    "53": StoreUnavailable,
    "55": StoreUnavailable,
    "57": StoreUnavailable,
    "58": StoreUnavailable,
    "23": StoreCorrupt,
    "42703": StoreCorrupt,  # a column is missing
    "42P": StoreCorrupt,  # a table is missing or another's
    "XX001": StoreCorrupt,
    "XX002": StoreCorrupt,
}
"""By SQLSTATE or its beginning: https://www.postgresql.org/docs/16/errcodes-appendix.html."""


def kind_of(error: sqlalchemy.exc.DBAPIError) -> tuple[type[PresenceError] | None, str]:
    """The store's error for a driver's, and the driver's own name for it."""
    cause = error.orig
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", None)
        if code is None:  # raised by the driver itself: text that is not UTF-8
            is_text = "decode" in str(cause).lower()
            return (StoreCorrupt if is_text else None), type(cause).__name__
        kind = _SQLITE_ERRORS.get(code) or _SQLITE_ERRORS.get(code & 0xFF)
        return kind, cause.sqlite_errorname
    state: str | None = getattr(cause, "sqlstate", None)
    if state is None:  # the connection was refused, lost or closed
        lost = isinstance(error, sqlalchemy.exc.OperationalError | sqlalchemy.exc.InterfaceError)
        return (StoreUnavailable if lost else None), "no connection"
    known = (_POSTGRES_ERRORS.get(state[:length]) for length in (5, 3, 2))
    return next((kind for kind in known if kind), None), state
