"""The journal in SQL: SQLite for one machine, Postgres for a cluster."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    Connection,
    ScalarSelect,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    select,
    update,
)

from engines.errors import InvalidInput, StoreCorrupt
from engines.store import Change, Filter, NewRecord, Positions, Space, State, Stored
from engines.store.appending import Additions
from engines.store.changes import changes
from engines.store.compaction import Compaction
from engines.store.database import Database
from engines.store.group_commit import GroupCommit
from engines.store.reading import matches, records
from engines.store.rows import (
    check_filter,
    check_record,
    check_text,
    chunks,
    read_vector,
    record_checksum,
)
from engines.store.schema import EMBEDDINGS, HEAD, LABELS, LIVING, META, RECORDS, SPACES, TABLES, prepare
from engines.store.verification import problems

_TABLES = [table.name for table in TABLES.sorted_tables]

_STATE = "SELECT position, revision FROM head"  # written out: every search reads it

ERASE_WAIT_S = 5.0
"""How long a deletion waits for readers of SQLite's log."""
ERASE_EVERY_S = 0.5
"""How often it is tried again until they have ended."""


class SqlJournal:
    """A `Journal` in a SQLite file or a Postgres database; see `Database` for the URL."""

    def __init__(self, url: str) -> None:
        """Makes the tables where there are none.

        Raises ConfigurationError for a URL or a version of the tables that is not known,
        StoreUnavailable when nothing answers, StoreCorrupt for a file that is no database.
        """
        self._database = Database(url)
        self._appends = GroupCommit(self._append_calls)
        self._eraser: threading.Thread | None = None
        self._erasing = threading.Lock()
        self._closed = threading.Event()
        self._compaction = Compaction(self._database)
        with ExitStack() as undo:
            undo.callback(self._database.close)
            prepare(self._database)
            self._erase(wait_s=0.0)
            undo.pop_all()

    def identity(self) -> str:
        """See `Journal`."""
        with self._database.reading() as connection:
            return str(connection.execute(select(META.c.identity)).scalar_one())

    def append(self, records: Sequence[NewRecord]) -> list[int]:
        """See `Journal`. Calls of several threads share a transaction; one that is refused fails alone."""
        self._check(records)
        return self._appends.append(records) if records else []

    def _check(self, records: Sequence[NewRecord]) -> None:
        for record in records:
            check_record(record)

    def _append_calls(self, calls: list[Sequence[NewRecord]]) -> list[list[int] | InvalidInput]:
        with self._writing() as (connection, head):
            additions = Additions(connection, head, calls)
            outcomes = [additions.plan(call) for call in calls]
            additions.write()
        self._grown(head, additions.head)
        return outcomes

    def put(self, records: Sequence[NewRecord]) -> None:
        """See `Journal`. What was replaced is erased as by a deletion."""
        self._check(records)
        with self._writing() as (connection, head):
            additions = Additions(connection, head, [records])
            outcome = additions.plan(records)
            if isinstance(outcome, InvalidInput):
                raise outcome
            additions.write()
            living = {at: one.value for at, one in zip(outcome, records, strict=True) if at <= head}
            replaced = _replace_values(connection, living)
        self._grown(head, additions.head)
        if replaced:
            self._erase(ERASE_WAIT_S)

    def _grown(self, before: int, now: int) -> None:
        if now >= 1024 and now.bit_length() > before.bit_length():  # it has doubled
            self._database.analyze(_TABLES)

    def delete(self, namespace: str, ids: Sequence[str]) -> list[str]:
        """See `Journal`. SQLite: the log is emptied too, so that no file holds what was erased."""
        check_text("the namespace", namespace)
        for record_id in ids:
            check_text("the id", record_id)
        with self._writing() as (connection, head):
            found = _living(connection, namespace, list(dict.fromkeys(ids)))
            if found:
                _delete(connection, head, list(found.values()))
        if found:
            self._erase(ERASE_WAIT_S)
        return list(found)

    def update(
        self,
        namespace: str,
        record_id: str,
        *,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        value: str | None = None,
    ) -> bool:
        """See `Journal`. What was replaced is erased as by a deletion."""
        check_text("the id", record_id)
        check_filter(namespace, Filter(name, labels or {}))
        if value is not None:
            check_text("the value", value, most_bytes=None)
        with self._writing() as (connection, _):
            found = _living(connection, namespace, [record_id])
            if not found:
                return False
            position = found[record_id]
            (before,) = records(connection, select(RECORDS.c.position).where(RECORDS.c.position == position))
            after = replace(
                before,
                name=before.name if name is None else name,
                labels=before.labels if labels is None else labels,
                value=before.value if value is None else value,
            )
            revised = update(RECORDS).where(RECORDS.c.position == position)
            texts = {"name": after.name, "value": after.value, "checksum": record_checksum(after)}
            connection.execute(revised.values(revision=_next_revision(connection), **texts))
            if labels is not None:
                connection.execute(delete(LABELS).where(LABELS.c.position == position))
                rows = [{"position": position, "key": k, "value": v} for k, v in labels.items()]
                if rows:
                    connection.execute(insert(LABELS), rows)
        self._erase(ERASE_WAIT_S)
        return True

    def _erase(self, wait_s: float) -> None:
        """Empties SQLite's log; where a reader prevents it, a thread does so soon after it has ended."""
        if self._database.empty_log(wait_s):
            return
        with self._erasing:
            if self._eraser is None:
                self._eraser = threading.Thread(target=self._erase_later, name="eraser", daemon=True)
                self._eraser.start()

    def _erase_later(self) -> None:
        while not self._closed.wait(ERASE_EVERY_S):
            with self._erasing:  # whoever is prevented meanwhile starts the next thread
                if self._database.empty_log(wait_s=0.0):
                    self._eraser = None
                    return

    @contextmanager
    def _writing(self) -> Iterator[tuple[Connection, int]]:
        """A transaction that holds the lock of the journal to its commit, and the newest position."""
        with self._database.writing() as connection:
            yield connection, _state(connection.execute(select(HEAD).with_for_update()).all()).position

    def head(self) -> int:
        """See `Journal`."""
        return self.state().position

    def state(self) -> State:
        """See `Journal`."""
        return _state(self._database.glance(_STATE))

    def revised(self, after: int) -> list[int]:
        """See `Journal`."""
        # The comparison with 0 lets the databases use the index, which holds no other rows.
        behind = (RECORDS.c.revision > literal_column("0"), RECORDS.c.revision > after)
        with self._database.reading() as connection:
            return list(connection.execute(select(RECORDS.c.position).where(*behind)).scalars())

    def changes(self, after: int, limit: int) -> list[Change]:
        """See `Journal`. Raises StoreCorrupt for a step that is missing or damaged."""
        with self._database.reading() as connection:
            return changes(connection, max(after, 0), limit)

    def stored(self, positions: Sequence[int]) -> dict[int, Stored]:
        """See `Journal`."""
        found: dict[int, Stored] = {}
        with self._database.reading() as connection:
            for chunk in chunks(positions):
                chosen = select(RECORDS.c.position).where(RECORDS.c.position.in_(chunk), LIVING)
                found |= {record.position: record for record in records(connection, chosen)}
        return found

    def get(self, namespace: str, record_id: str) -> Stored | None:
        """See `Journal`."""
        check_text("the namespace", namespace)
        check_text("the id", record_id)
        chosen = select(RECORDS.c.position).where(
            RECORDS.c.namespace == namespace, RECORDS.c.id == record_id, LIVING
        )
        with self._database.reading() as connection:
            return next(iter(records(connection, chosen)), None)

    def holding(self, prefix: str, record_id: str) -> list[str]:
        """See `Journal`."""
        check_text("the id", record_id)
        known = select(SPACES.c.namespace).where(
            SPACES.c.living > 0, SPACES.c.namespace.startswith(prefix, autoescape=True)
        )
        there = select(RECORDS.c.namespace).where(
            RECORDS.c.namespace.in_(known), RECORDS.c.id == record_id, LIVING
        )
        with self._database.reading() as connection:
            return sorted(connection.execute(there).scalars())

    def listed(self, namespace: str, chosen: Filter, *, after: int, limit: int) -> list[Stored]:
        """See `Journal`."""
        page = (
            select(RECORDS.c.position)
            .where(*matches(namespace, chosen), RECORDS.c.position > after)
            .order_by(RECORDS.c.position)
            .limit(limit)
        )
        with self._database.reading() as connection:
            return records(connection, page)

    def count(self, namespace: str, chosen: Filter) -> int:
        """See `Journal`."""
        if chosen == Filter():
            check_text("the namespace", namespace)
            query = select(func.sum(SPACES.c.living)).where(SPACES.c.namespace == namespace)
        else:
            query = select(func.count()).select_from(RECORDS).where(*matches(namespace, chosen))
        with self._database.reading() as connection:
            return int(connection.execute(query).scalar_one() or 0)

    def matching(self, space: Space, chosen: Filter) -> Positions:
        """See `Journal`. Ascending."""
        check_text("the model", space.model)
        model = select(SPACES.c.id).where(
            SPACES.c.namespace == space.namespace, SPACES.c.model == space.model
        )
        query = select(RECORDS.c.position).where(
            *matches(space.namespace, chosen), RECORDS.c.space_id == model.scalar_subquery()
        )
        with self._database.reading() as connection:
            return np.sort(np.array(connection.execute(query).scalars().all(), dtype=np.int64))

    def embeddings(self, positions: Sequence[int]) -> dict[int, NDArray[np.float32]]:
        """See `Journal`. Raises StoreCorrupt for one that is damaged."""
        found: dict[int, NDArray[np.float32]] = {}
        with self._database.reading() as connection:
            for chunk in chunks(positions):
                query = select(EMBEDDINGS).where(EMBEDDINGS.c.position.in_(chunk))
                for row in connection.execute(query).all():
                    found[row.position] = read_vector(row.position, row.vector, row.checksum)
        return found

    def spaces(self) -> dict[Space, tuple[int, int]]:
        """See `Journal`. A space in which nothing lives has no dimension and is left out."""
        with self._database.reading() as connection:
            rows = connection.execute(select(SPACES).where(SPACES.c.living > 0).order_by(SPACES.c.id)).all()
        return {Space(row.namespace, row.model): (row.dim, row.living) for row in rows}

    def verify(self) -> list[str]:
        """What is wrong with the database, one sentence each; reads all of it."""
        found: list[str] = []
        try:
            with self._database.snapshot() as connection:
                found.extend(problems(connection))
        except StoreCorrupt as error:
            found.append(error.message)
        return found

    def compact(self) -> None:
        """Gives the space of deleted records back, and with it what they were; calls of others may wait.

        Raises StoreUnavailable when a reader does not end, or another process is at it, and StoreFull: there
        must be room for a copy. Postgres: ConfigurationError for a role that does not own the tables.
        """
        self._compaction.now()

    def compact_when_due(self, every_s: float) -> None:
        """See `Journal`."""
        self._compaction.when_due(every_s)

    def close(self) -> None:
        """See `Journal`. No other method may be called afterwards."""
        self._closed.set()
        if eraser := self._eraser:
            eraser.join()
        self._database.close()


def _state(rows: Sequence[Any]) -> State:
    if len(rows) != 1:
        raise StoreCorrupt("the journal does not know its newest position: restore a backup of the store")
    return State(*rows[0])


def _living(connection: Connection, namespace: str, ids: Sequence[str]) -> dict[str, int]:
    """Positions by id, in the order of ids."""
    found: dict[str, int] = {}
    for chunk in chunks(ids):
        query = select(RECORDS.c.id, RECORDS.c.position).where(
            RECORDS.c.namespace == namespace, RECORDS.c.id.in_(chunk), LIVING
        )
        found |= {row.id: row.position for row in connection.execute(query)}
    return {record_id: found[record_id] for record_id in ids if record_id in found}


def _next_revision(connection: Connection) -> ScalarSelect[int]:
    """Of an update; the transaction holds the lock of the journal."""
    connection.execute(update(HEAD).values(revision=HEAD.c.revision + 1))
    return select(HEAD.c.revision).scalar_subquery()


def _replace_values(connection: Connection, values: Mapping[int, str | None]) -> bool:
    """Of living records, by position; whether any was another."""
    changed = []
    for chunk in chunks(list(values)):
        for before in records(connection, select(RECORDS.c.position).where(RECORDS.c.position.in_(chunk))):
            after = replace(before, value=values[before.position])
            if after != before:
                changed.append(
                    {"at": after.position, "new": after.value, "new_checksum": record_checksum(after)}
                )
    if changed:
        revised = update(RECORDS).where(RECORDS.c.position == bindparam("at"))
        new_values = {
            "value": bindparam("new"),
            "checksum": bindparam("new_checksum"),
            "revision": _next_revision(connection),
        }
        connection.execute(revised.values(new_values), changed)
    return bool(changed)


def _delete(connection: Connection, head: int, positions: Sequence[int]) -> None:
    """Erases living records; each takes one of the positions behind head."""
    for chunk in chunks(positions):
        counts = (
            select(RECORDS.c.space_id, func.count())
            .where(RECORDS.c.position.in_(chunk))
            .group_by(RECORDS.c.space_id)
        )
        for space_id, count in connection.execute(counts).all():
            fewer = update(SPACES).where(SPACES.c.id == space_id)
            connection.execute(fewer.values(living=SPACES.c.living - count))
        connection.execute(delete(LABELS).where(LABELS.c.position.in_(chunk)))
        connection.execute(delete(EMBEDDINGS).where(EMBEDDINGS.c.position.in_(chunk)))
    erased = update(RECORDS).where(RECORDS.c.position == bindparam("record"))
    connection.execute(
        erased.values(
            id=None, name="", value=None, checksum=None, revision=0, deleted_position=bindparam("step")
        ),
        [{"record": record, "step": step} for step, record in enumerate(positions, start=head + 1)],
    )
    connection.execute(update(HEAD).values(position=head + len(positions)))
