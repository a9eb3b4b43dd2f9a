"""The table that pgvector searches, beside those of the journal, and how a database comes to have it.

https://github.com/pgvector/pgvector
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy.exc
from numpy.typing import NDArray
from sqlalchemy import BigInteger, Column, Connection, Dialect, ForeignKey, Integer, MetaData, Table
from sqlalchemy.types import UserDefinedType

from engines.errors import ConfigurationError
from engines.store.schema import EMBEDDINGS, without_samples

if TYPE_CHECKING:
    from psycopg.abc import Buffer

MOST_NUMBERS = 16_000
"""Of a vector in pgvector."""

Row = NDArray[np.float32]


class SentVector(bytes):
    """A vector as Postgres receives it: two numbers of 16 bits (dimension, nothing), then the numbers."""

    __slots__ = ()


def _sent(row: Row | None) -> SentVector:
    if row is None:
        raise ValueError("no column of vectors may be empty")
    return SentVector(np.array([len(row), 0], ">i2").tobytes() + row.astype(">f4").tobytes())


class Vector(UserDefinedType[Row]):
    """pgvector's type, of any dimension. Values: shape (dim,), float32."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """The type's name in SQL."""
        return "vector"

    def bind_processor(self, dialect: Dialect) -> Callable[[Row | None], SentVector]:  # noqa: ARG002 - SQLAlchemy names it
        """How the driver gets a value."""
        return _sent


def send_vectors() -> None:
    """Teaches the Postgres driver of this process to send vectors, before a database is opened."""
    try:
        import psycopg  # noqa: PLC0415 - it may be missing; the opening tells what to install
        from psycopg.adapt import Dumper  # noqa: PLC0415 - an extra
    except ImportError:
        return

    class Sent(Dumper):
        format = psycopg.pq.Format.BINARY

        def dump(self, obj: SentVector) -> "Buffer":
            return bytes(obj)

    psycopg.adapters.register_dumper(SentVector, Sent)


PGVECTOR_TABLES = MetaData()

VECTORS_META = Table(
    "vectors_meta",
    PGVECTOR_TABLES,
    Column("schema_version", Integer, nullable=False),
    Column("position", BigInteger, nullable=False),
)
"""One row. position: up to where the journal's steps are in the table of vectors."""

VECTORS = Table(
    "vectors",
    PGVECTOR_TABLES,
    Column("position", BigInteger, ForeignKey(EMBEDDINGS.c.position), primary_key=True, autoincrement=False),
    Column("space_id", Integer, nullable=False),
    Column("unit", Vector, nullable=False),
)
"""Of living records only: a row goes with the embedding it was made from. unit: of length 1, or zeros."""


def _create(connection: Connection) -> None:
    _have_extension(connection)
    for statement in (
        # A row of up to 2,000 numbers fits a page: it is not worth a place elsewhere.
        """CREATE TABLE vectors (
            position BIGINT PRIMARY KEY REFERENCES embeddings ON UPDATE CASCADE ON DELETE CASCADE,
            space_id INTEGER NOT NULL,
            unit vector NOT NULL
        ) WITH (toast_tuple_target = 8160)""",
        "CREATE INDEX vectors_space ON vectors (space_id)",
        "CREATE TABLE vectors_meta (schema_version INTEGER NOT NULL, position BIGINT NOT NULL)",
        "INSERT INTO vectors_meta VALUES (0, 0)",
    ):
        connection.exec_driver_sql(statement)


def _have_extension(connection: Connection) -> None:
    """Creates the extension where it is missing. Raises ConfigurationError that tells who must do what."""
    known = connection.exec_driver_sql(
        "SELECT installed_version, default_version FROM pg_available_extensions WHERE name = 'vector'"
    ).one_or_none()
    if known is None:
        raise ConfigurationError(
            "store: pgvector: the Postgres server has no extension named vector: install pgvector there"
        )
    version = known.installed_version or known.default_version
    if tuple(map(int, version.split(".")[:2])) < (0, 5):
        raise ConfigurationError(f"store: pgvector {version} has no HNSW indexes: install 0.5 or newer")
    if known.installed_version is None:
        try:
            connection.exec_driver_sql("CREATE EXTENSION vector")
        except sqlalchemy.exc.ProgrammingError:
            raise ConfigurationError(
                "store: pgvector: the database's user may not create the extension: "
                "let a superuser run CREATE EXTENSION vector in it"
            ) from None


def _keep_no_samples(connection: Connection) -> None:
    """The indexes would be built anew under a lock; the upkeep does so beside searches."""
    for name in connection.exec_driver_sql(
        """SELECT relname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
        JOIN pg_am ON pg_am.oid = relam WHERE indrelid = to_regclass('vectors') AND amname = 'hnsw'"""
    ).scalars():
        connection.exec_driver_sql(f"DROP INDEX {name}")
    without_samples(connection, VECTORS.name, {"unit": "vector"})


PGVECTOR_MIGRATIONS: list[Callable[[Connection], None]] = [_create, _keep_no_samples]
"""As the journal's, for these tables."""
