"""The tables of the journal and how a database comes to have them.

Migrations are numbered from 1; a database holds the number of the newest one it went through.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from uuid import uuid4

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    inspect,
    select,
    update,
)

from engines.errors import ConfigurationError, StoreCorrupt
from engines.store.database import Database

TABLES = MetaData()
POSITION = BigInteger().with_variant(Integer, "sqlite")  # SQLite: the key of the row itself

META = Table(
    "meta",
    TABLES,
    Column("schema_version", Integer, nullable=False),
    Column("identity", Text, nullable=False),
    Column("compaction_began_at", Double, nullable=False, server_default="0"),
    Column("compacted_at", Double, nullable=False, server_default="0"),
    Column("compacted_position", POSITION, nullable=False, server_default="0"),
    Column("compacted_revision", POSITION, nullable=False, server_default="0"),
)
"""One row. identity: random, made with the journal.

compacted_*: when the tables were last rewritten, and up to where nothing that was erased is left in them.
compaction_began_at: of one that did not end well, else 0. Of Postgres; SQLite erases at once.
"""

HEAD = Table(
    "head",
    TABLES,
    Column("position", POSITION, nullable=False),
    Column("revision", POSITION, nullable=False, server_default="0"),
)
"""One row: the newest position, how many updates there were. Whoever writes holds its lock to the commit."""

SPACES = Table(
    "spaces",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("namespace", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("dim", Integer, nullable=False),
    Column("living", Integer, nullable=False),
    UniqueConstraint("namespace", "model"),
)
"""dim: of every living record; free again when there is none. living: how many there are."""

RECORDS = Table(
    "records",
    TABLES,
    Column("position", POSITION, primary_key=True, autoincrement=False),
    Column("space_id", Integer, ForeignKey("spaces.id"), nullable=False),
    Column("namespace", Text, nullable=False),
    Column("id", Text),
    Column("name", Text, nullable=False),
    Column("value", Text),
    Column("created_at", Double, nullable=False),
    Column("deleted_position", POSITION),
    Column("revision", POSITION, nullable=False, server_default="0"),
    Column("checksum", BigInteger),
)
"""namespace: that of the space. A deleted record has a deleted_position, and no id, name, value or checksum.

checksum: see `engines.store.rows.record_checksum`.

revision: of the update that last replaced its name, labels or value; 0 if none did, or it was deleted.
"""

LIVING = RECORDS.c.deleted_position.is_(None)
DELETED = RECORDS.c.deleted_position.is_not(None)

Index(
    "records_id",
    RECORDS.c.namespace,
    RECORDS.c.id,
    unique=True,
    sqlite_where=LIVING,
    postgresql_where=LIVING,
)
Index(
    "records_listed",
    RECORDS.c.namespace,
    RECORDS.c.position,
    RECORDS.c.space_id,
    sqlite_where=LIVING,
    postgresql_where=LIVING,
)
Index(
    "records_name",
    RECORDS.c.namespace,
    RECORDS.c.name,
    RECORDS.c.position,
    sqlite_where=LIVING,
    postgresql_where=LIVING,
)
Index(
    "records_deleted",
    RECORDS.c.deleted_position,
    unique=True,
    sqlite_where=DELETED,
    postgresql_where=DELETED,
)

REVISED = Index(
    "records_revised",
    RECORDS.c.revision,
    sqlite_where=RECORDS.c.revision > 0,
    postgresql_where=RECORDS.c.revision > 0,
)

EMBEDDINGS = Table(
    "embeddings",
    TABLES,
    Column("position", POSITION, ForeignKey("records.position"), primary_key=True, autoincrement=False),
    Column("vector", LargeBinary, nullable=False),
    Column("checksum", BigInteger, nullable=False),
)
"""Of living records only, beside their rows so that lists and filters read none of it.

vector: float32, little endian. checksum: see `engines.store.rows.checksum`.
"""

LABELS = Table(
    "labels",
    TABLES,
    Column("position", POSITION, ForeignKey("records.position"), primary_key=True, autoincrement=False),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    sqlite_with_rowid=False,
)
"""Of living records only."""

Index("labels_value", LABELS.c.key, LABELS.c.value, LABELS.c.position)


def _create(connection: Connection) -> None:
    TABLES.create_all(connection, checkfirst=False)
    connection.execute(META.insert().values(schema_version=0, identity=uuid4().hex))
    connection.execute(HEAD.insert().values(position=0))


def _count_revisions(connection: Connection) -> None:
    """A journal that was made just now has them."""
    if any(column["name"] == "revision" for column in inspect(connection).get_columns(HEAD.name)):
        return
    for table in (HEAD, RECORDS):
        connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN revision BIGINT NOT NULL DEFAULT 0")
    REVISED.create(connection)


def _sum_records(connection: Connection) -> None:
    """A journal that was made just now does; records that are there already get theirs when they change."""
    if all(column["name"] != "checksum" for column in inspect(connection).get_columns(RECORDS.name)):
        connection.exec_driver_sql("ALTER TABLE records ADD COLUMN checksum BIGINT")


def without_samples(connection: Connection, table: str, columns: Mapping[str, str]) -> None:
    """Postgres: its planner keeps no values of these columns, and none that it kept. columns: types by name.

    What it keeps stays where records were deleted.
    """
    for name, kind in columns.items():
        connection.exec_driver_sql(  # to name the type drops what was kept
            f"ALTER TABLE {table} ALTER COLUMN {name} TYPE {kind}, ALTER COLUMN {name} SET STATISTICS 0"
        )


def _keep_no_samples(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        without_samples(connection, RECORDS.name, {"id": "text", "name": "text", "value": "text"})
        without_samples(connection, LABELS.name, {"key": "text", "value": "text"})
        without_samples(connection, EMBEDDINGS.name, {"vector": "bytea"})


def _note_compactions(connection: Connection) -> None:
    """A journal that was made just now does."""
    there = {column["name"] for column in inspect(connection).get_columns(META.name)}
    types = {
        "compaction_began_at": "DOUBLE PRECISION",
        "compacted_at": "DOUBLE PRECISION",
        "compacted_position": "BIGINT",
        "compacted_revision": "BIGINT",
    }
    for name in types.keys() - there:
        connection.exec_driver_sql(f"ALTER TABLE meta ADD COLUMN {name} {types[name]} NOT NULL DEFAULT 0")
    connection.execute(update(META).values(compacted_at=time.time()))


MIGRATIONS: list[Callable[[Connection], None]] = [
    _create,
    _count_revisions,
    _sum_records,
    _keep_no_samples,
    _note_compactions,
]
"""Each brings a database from the version before to its own; all run under the lock of the schema."""


def _version(connection: Connection, meta: Table) -> int:
    if not inspect(connection).has_table(meta.name):
        return 0
    versions = connection.execute(select(meta.c.schema_version)).scalars().all()
    if len(versions) != 1 or not isinstance(versions[0], int):
        raise StoreCorrupt("the journal does not say which version its tables have; restore a backup")
    return versions[0]


def prepare(
    database: Database, meta: Table = META, migrations: Sequence[Callable[[Connection], None]] = MIGRATIONS
) -> None:
    """Brings the tables to the newest version; of many processes that open at once, one does.

    meta: holds the version in its one row. Raises ConfigurationError when the tables are of a version that
    this code does not know.
    """
    newest = len(migrations)
    database.use_log()
    with database.reading() as connection:
        found = _version(connection, meta)
    if found < newest:
        with database.migrating() as connection:
            found = _version(connection, meta)
            for migrate in migrations[found:]:
                migrate(connection)
            if found < newest:
                connection.execute(update(meta).values(schema_version=newest))
    if found > newest:
        raise ConfigurationError(
            f"{database.name} has tables of version {found} and this program knows versions up to {newest}: "
            "start a newer presence, or name another database"
        )
