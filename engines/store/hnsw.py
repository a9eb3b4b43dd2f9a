"""The HNSW indexes of pgvector: one for each space that has grown, built while others read and write."""

from collections.abc import Iterator

import numpy as np
from sqlalchemy import Connection, and_, func, select

from engines.embedding import unit_rows
from engines.store.database import Database
from engines.store.index_options import IndexOptions
from engines.store.nearest import MOST_INDEXED, index_name
from engines.store.pgvector_schema import VECTORS, VECTORS_META
from engines.store.rows import read_vector
from engines.store.schema import EMBEDDINGS, RECORDS, SPACES

_EXISTING = """
SELECT relname, indisvalid AND coalesce(attstattarget, -1) = 0 AS is_good
FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid JOIN pg_am ON pg_am.oid = relam
JOIN pg_attribute ON attrelid = indexrelid AND attnum = 1
WHERE indrelid = to_regclass('vectors') AND amname = 'hnsw'
"""
"""is_good: built to its end, and the planner keeps no samples of its vectors."""


def keep_indexes(database: Database, options: IndexOptions) -> None:
    """Builds and drops, one process at a time; another that comes meanwhile does nothing.

    A space keeps its index until fewer than half of `approximate_from` live in it. Raises StoreUnavailable.
    """
    with database.taking_turns() as connection:
        if connection is None:
            return
        large = select(SPACES).where(2 * SPACES.c.living >= options.approximate_from)
        worthy = {
            index_name(row.id, row.dim): row
            for row in connection.execute(large.where(SPACES.c.dim <= MOST_INDEXED))
            if options.kind == "hnsw"
        }
        there = set()
        for name, is_good in connection.exec_driver_sql(_EXISTING).all():
            if is_good and name in worthy:
                there.add(name)
            else:
                connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        for name, space in worthy.items():
            if name not in there and space.living >= options.approximate_from:
                _build(connection, name, space.id, space.dim, options)


def _build(connection: Connection, name: str, space_id: int, dim: int, options: IndexOptions) -> None:
    connection.exec_driver_sql(
        f"CREATE INDEX CONCURRENTLY {name} ON vectors USING hnsw ((unit::vector({dim})) vector_ip_ops) "
        f"WITH (m = {options.m}, ef_construction = {options.ef_construction}) "
        f"WHERE space_id = {space_id} AND vector_dims(unit) = {dim}"
    )
    connection.exec_driver_sql(f"ALTER INDEX {name} ALTER COLUMN 1 SET STATISTICS 0")  # as of the table
    connection.exec_driver_sql("ANALYZE vectors")


def drop_indexes(connection: Connection) -> None:
    """All, where there is a table of vectors."""
    for name, _ in connection.exec_driver_sql(_EXISTING).all():
        connection.exec_driver_sql(f"DROP INDEX {name}")


def problems_of_vectors(connection: Connection) -> Iterator[str]:
    """What is wrong with the vectors, one sentence each; the embeddings are known to be right."""
    applied = connection.execute(select(VECTORS_META.c.position)).scalar_one()
    query = (
        select(
            EMBEDDINGS,
            RECORDS.c.space_id,
            VECTORS.c.space_id.label("found_space"),
            func.vector_send(VECTORS.c.unit).label("sent"),
        )
        .select_from(EMBEDDINGS.join(RECORDS).outerjoin(VECTORS, VECTORS.c.position == EMBEDDINGS.c.position))
        .order_by(EMBEDDINGS.c.position)
        .limit(1000)
    )
    after = 0
    while rows := connection.execute(
        query.where(and_(EMBEDDINGS.c.position > after, EMBEDDINGS.c.position <= applied))
    ).all():
        for row in rows:
            embedding = read_vector(row.position, row.vector, row.checksum)
            unit = None if row.sent is None else np.frombuffer(row.sent, ">f4", offset=4)
            if unit is None or row.found_space != row.space_id:
                yield f"record {row.position} cannot be found by a search in its space"
            elif len(unit) != len(embedding) or not np.allclose(
                unit, unit_rows(embedding[None])[0], atol=1e-6
            ):
                yield f"record {row.position} is searched by a vector that is not its own"
        after = rows[-1].position
