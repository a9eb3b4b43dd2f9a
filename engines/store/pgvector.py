"""The journal in Postgres, searched by Postgres: pgvector keeps a vector beside each living embedding.

Whoever writes through this class writes the vectors in the same transaction. What others wrote, such as a
replica that searches in memory, is made up for before the next search. A vector goes with its embedding, so
deletions need nothing.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager

import numpy as np
from sqlalchemy import ColumnElement, Connection, Select, bindparam, cast, insert, inspect, select, update

from engines.embedding import unit_rows
from engines.errors import ConfigurationError, InvalidInput
from engines.store import Answer, Filter, Match, NewRecord, Space, Stored
from engines.store.changes import changes
from engines.store.database import Database
from engines.store.hnsw import keep_indexes, problems_of_vectors
from engines.store.index_options import IndexOptions
from engines.store.journal import SqlJournal
from engines.store.nearest import MOST_NEAR, Near, Searched, nearest, of_space, searched
from engines.store.pgvector_schema import (
    MOST_NUMBERS,
    PGVECTOR_MIGRATIONS,
    VECTORS,
    VECTORS_META,
    Row,
    Vector,
    send_vectors,
)
from engines.store.reading import matches, records
from engines.store.rows import check_text, chunks
from engines.store.schema import META, RECORDS, prepare
from engines.types import Embeddings

CHUNK = 1000
"""Steps of the journal whose vectors are written in one transaction."""


class PgVectorJournal(SqlJournal):
    """Keeps the promises of `Journal` and of `Searcher`."""

    def __init__(self, url: str, options: IndexOptions | None = None) -> None:
        """Makes the tables, and the extension `vector`, where there are none.

        options: "hnsw" searches spaces of `approximate_from` records through an index once that is built,
        "flat" compares always. Raises as `SqlJournal`, and ConfigurationError when the URL is not of
        Postgres or its server has no pgvector.
        """
        require_postgres(url)
        self._options = options or IndexOptions()
        send_vectors()
        super().__init__(url)
        with ExitStack() as undo:
            undo.callback(self.close)
            prepare(self._database, VECTORS_META, PGVECTOR_MIGRATIONS)
            undo.pop_all()

    def _check(self, records: Sequence[NewRecord]) -> None:
        """Raises InvalidInput for embeddings of more than 16,000 numbers, too."""
        super()._check(records)
        for record in records:
            if record.embedding.size > MOST_NUMBERS:
                raise InvalidInput(f"pgvector holds embeddings of at most {MOST_NUMBERS} numbers")

    @contextmanager
    def _writing(self) -> Iterator[tuple[Connection, int]]:
        with super()._writing() as (connection, head):
            yield connection, head
            _fill(connection)

    def catch_up(self) -> int:
        """Writes the vectors that are missing; returns the position up to which they are there then."""
        while True:
            with self._database.reading() as connection:
                position = int(connection.execute(select(VECTORS_META.c.position)).scalar_one())
            if position >= self.head():
                return position
            with self._writing():
                """Writing alone fills."""

    def search(
        self,
        space: Space,
        queries: Embeddings,
        k: int,
        only: Filter | None = None,
        *,
        with_embeddings: bool = False,
        allow_stale: bool = False,  # noqa: ARG002 - there is no memory to answer from
    ) -> Answer:
        """See `Searcher`. Where the index finds too few that pass the filter, all that pass are compared."""
        if k < 1:
            raise InvalidInput("at least one match must be asked for")
        check_text("the namespace", space.namespace)
        check_text("the model", space.model)
        conditions = [] if only in (None, Filter()) else matches(space.namespace, only)
        while True:
            with self._database.snapshot() as connection:
                breadth = max(self._options.ef_search, min(k, MOST_NEAR))
                here = searched(connection, space, breadth)
                if not here.is_behind:
                    found = self._nearest(connection, here, queries, k, conditions)
                    wanted = {position for near in found for position, _ in near} if with_embeddings else ()
                    return Answer(_matched(connection, found), embeddings=self.embeddings(list(wanted)))
            self.catch_up()

    def _nearest(
        self,
        connection: Connection,
        space: Searched,
        queries: Embeddings,
        k: int,
        conditions: Sequence[ColumnElement[bool]],
    ) -> list[Near]:
        if space.space_id is None or not space.living:
            return [[] for _ in queries]
        if space.dim != queries.shape[-1]:
            raise InvalidInput(
                f"embeddings of this space have {space.dim} dimensions, not {queries.shape[-1]}"
            )
        units, here = unit_rows(queries), [of_space(space.space_id)]
        chosen = select(RECORDS.c.position).where(*conditions)
        wanted = [*here, VECTORS.c.position.in_(chosen)] if conditions else here
        if not space.is_indexed or self._options.kind == "flat" or k > MOST_NEAR:
            return nearest(connection, units, k, wanted)
        breadth = max(k, self._options.ef_search) if conditions else k
        found = nearest(connection, units, breadth, here, space.dim)
        if conditions:
            found = _filtered(connection, found, chosen)
        # What the filter drops takes places in what the index finds, and so do rows that were deleted since
        # Postgres vacuumed last.
        short = [number for number, near in enumerate(found) if len(near) < min(k, space.living)]
        if short:
            for number, near in zip(short, nearest(connection, units[short], k, wanted), strict=True):
                found[number] = near
        return [near[:k] for near in found]

    def keep_up(self) -> None:
        """Builds the HNSW indexes that are missing, drops those of no more use; searches go on meanwhile."""
        keep_indexes(self._database, self._options)

    def verify(self) -> list[str]:
        """See `SqlJournal`; the vectors too."""
        found = super().verify()
        if not found:
            with self._database.snapshot() as connection:
                found.extend(problems_of_vectors(connection))
        return found


def opened(url: str, *, make: bool = True) -> SqlJournal:
    """The journal at a URL; where pgvector searches it, one that writes its vectors too.

    make: whether tables that are not there are made; else their absence raises ConfigurationError.
    Raises as `SqlJournal` and `PgVectorJournal`.
    """
    with closing(Database(url)) as database, database.reading() as connection:
        tables = inspect(connection)
        if not make and not tables.has_table(META.name):
            raise ConfigurationError(f"there is no store in {database.name}; --url names another")
        is_searched = tables.has_table(VECTORS_META.name)
    return PgVectorJournal(url) if is_searched else SqlJournal(url)


def require_postgres(url: str) -> None:
    """Raises ConfigurationError for the URL of another database."""
    if not url.startswith(("postgresql:", "postgresql+psycopg:", "postgres:")):
        raise ConfigurationError(
            "store: pgvector lives in Postgres: set store.url or PRESENCE_STORE_URL to "
            "postgresql://user:password@host/database"
        )


def _fill(connection: Connection) -> None:
    """Vectors of the next CHUNK steps. connection: holds the lock of the journal."""
    position = connection.execute(select(VECTORS_META.c.position)).scalar_one()
    steps = changes(connection, position, CHUNK)
    if not steps:
        return
    added = [
        {"at": step.position, "vector": _unit(step.space, step.embedding)}
        for step in steps
        if step.embedding is not None
    ]
    if added:
        row = select(bindparam("at", type_=RECORDS.c.position.type), RECORDS.c.space_id, _VECTOR)
        of_record = row.where(RECORDS.c.position == bindparam("at"))
        connection.execute(insert(VECTORS).from_select(["position", "space_id", "unit"], of_record), added)
    connection.execute(update(VECTORS_META).values(position=steps[-1].position))


_VECTOR = cast(bindparam("vector", type_=Vector), Vector)


def _unit(space: Space, embedding: Row) -> Row:
    if embedding.size > MOST_NUMBERS:
        raise ConfigurationError(
            f"{space.namespace!r} holds embeddings of {embedding.size} numbers, pgvector at most "
            f"{MOST_NUMBERS}: delete them, or set store.kind to faiss"
        )
    return np.asarray(unit_rows(embedding[np.newaxis])[0])


def _filtered(connection: Connection, found: Sequence[Near], chosen: Select[int]) -> list[Near]:
    """Those of the chosen positions."""
    positions = sorted({position for near in found for position, _ in near})
    passed: set[int] = set()
    for chunk in chunks(positions):
        passed.update(connection.execute(chosen.where(RECORDS.c.position.in_(chunk))).scalars())
    return [[one for one in near if one[0] in passed] for near in found]


def _matched(connection: Connection, found: Sequence[Near]) -> list[list[Match]]:
    positions = sorted({position for near in found for position, _ in near})
    stored: dict[int, Stored] = {}
    for chunk in chunks(positions):
        chosen = select(RECORDS.c.position).where(RECORDS.c.position.in_(chunk))
        stored |= {record.position: record for record in records(connection, chosen)}
    return [
        [Match(position, similarity, stored[position]) for position, similarity in near] for near in found
    ]
