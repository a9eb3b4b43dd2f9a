"""How Postgres comes to hold nothing more of what was deleted or replaced: its tables are written anew.

Its plain `VACUUM` leaves the bytes where they are until something is written over them.
https://www.postgresql.org/docs/16/sql-vacuum.html
"""

import time

from sqlalchemy import Connection, text

from engines.errors import ConfigurationError, StoreUnavailable
from engines.store.hnsw import drop_indexes
from engines.store.pgvector_schema import VECTORS, VECTORS_META
from engines.store.schema import RECORDS, TABLES

LOOK_EVERY_S = 0.2
"""How often it is seen whether older transactions have ended."""

_HAS_VECTORS = text(
    """
    SELECT count(*) = 2 FROM pg_class WHERE oid IN (to_regclass(:vectors), to_regclass(:meta))
    AND relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass(:records))
    """
)
"""Whether pgvector's tables are there, beside the journal's."""

_IS_OWNED = text("SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass(:table)")

_IS_SEEN = text(
    """
    SELECT age(pg_snapshot_xmin(pg_current_snapshot())::xid) > age(:mark ::xid)
    OR EXISTS (SELECT FROM pg_stat_activity
        WHERE (datname = current_database() OR datname IS NULL) AND pid <> pg_backend_pid()
        AND greatest(age(backend_xid), age(backend_xmin)) > age(:mark ::xid)
        AND pid NOT IN (SELECT pid FROM pg_stat_progress_vacuum))
    OR EXISTS (SELECT FROM pg_prepared_xacts WHERE database = current_database()
        AND age(transaction) > age(:mark ::xid))
    OR EXISTS (SELECT FROM pg_replication_slots WHERE age(xmin) > age(:mark ::xid))
    """
)
"""Whether a transaction that began before the mark may still read what was deleted before it.

Writing ones of other databases count: what they leave running is the oldest that a snapshot here may see.
"""

_IS_KEPT = text("SELECT age(relfrozenxid) > age(:mark ::xid) FROM pg_class WHERE oid = to_regclass(:table)")
"""Whether a table that was just rewritten may hold rows that were deleted before the mark.

A rewritten table's relfrozenxid is the oldest transaction that it was kept readable for.
"""


def rewrite_tables(connection: Connection, name: str, patience_s: int) -> None:
    """Rewrites the journal's tables, and pgvector's where it is there, without its HNSW indexes.

    One table after the other is locked meanwhile. `keep_indexes` builds the indexes again.

    connection: commits each statement. name: of the database, for messages. patience_s: how long to wait for
    transactions of others. Raises ConfigurationError for a role that does not own the tables: Postgres would
    pass over them with no more than a warning. Raises StoreUnavailable when a transaction goes on that may
    read what was deleted: Postgres would keep it.
    """
    tables = [table.name for table in TABLES.sorted_tables]
    names = {"vectors": VECTORS.name, "meta": VECTORS_META.name, "records": RECORDS.name}
    if connection.execute(_HAS_VECTORS, names).scalar_one():
        tables.append(VECTORS.name)
    for table in tables:
        if not connection.execute(_IS_OWNED, {"table": table}).scalar_one():
            raise ConfigurationError(f"{name}: only the owner of its tables can compact them")
    mark = {"mark": connection.exec_driver_sql("SELECT pg_current_xact_id()::xid::text").scalar_one()}
    give_up = time.monotonic() + patience_s
    while connection.execute(_IS_SEEN, mark).scalar_one():
        if time.monotonic() > give_up:
            raise StoreUnavailable(f"{name} is being read; its tables still hold what was erased")
        time.sleep(LOOK_EVERY_S)
    connection.exec_driver_sql(f"SET lock_timeout = '{patience_s}s'")
    connection.exec_driver_sql("SET statement_timeout = 0")  # a large table takes longer than any query
    try:
        for table in tables:
            if table == VECTORS.name:
                drop_indexes(connection)  # to build them again would hold the lock for so long
            connection.exec_driver_sql(f"VACUUM (FULL, ANALYZE) {table}")
    finally:
        if not connection.invalidated:
            connection.exec_driver_sql("RESET lock_timeout")
            connection.exec_driver_sql("RESET statement_timeout")
    if any(connection.execute(_IS_KEPT, {**mark, "table": table}).scalar_one() for table in tables):
        raise StoreUnavailable(f"{name} was being read; its tables still hold what was erased")
