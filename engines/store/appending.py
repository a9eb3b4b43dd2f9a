"""The additions of one transaction: planned against what the journal holds under its lock, then written."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import chain

from sqlalchemy import Connection, bindparam, insert, select, update

from engines.errors import InvalidInput
from engines.store import NewRecord, Space, Stored
from engines.store.rows import chunks, embedding_row, record_checksum
from engines.store.schema import EMBEDDINGS, HEAD, LABELS, LIVING, RECORDS, SPACES


class Additions:
    """What several calls append in one transaction. A call that is refused leaves no trace.

    head: the newest position, planned additions included.
    """

    def __init__(self, connection: Connection, head: int, calls: Sequence[Sequence[NewRecord]]) -> None:
        """connection: holds the lock of the journal, whose newest position is head."""
        self._connection = connection
        self.head = head
        self._added: dict[int, NewRecord] = {}
        self._dims: dict[Space, int] = {}
        self._space_ids: dict[Space, int] = {}
        self._positions: dict[tuple[str, str], int] = {}
        ids: defaultdict[str, list[str]] = defaultdict(list)
        for record in chain.from_iterable(calls):
            ids[record.space.namespace].append(record.id)
        for namespace, wanted in ids.items():
            self._read(namespace, wanted)

    def _read(self, namespace: str, ids: list[str]) -> None:
        """What already lives in a namespace."""
        spaces = select(SPACES).where(SPACES.c.namespace == namespace)
        for row in self._connection.execute(spaces):
            space = Space(namespace, row.model)
            self._space_ids[space] = row.id
            if row.living:
                self._dims[space] = row.dim
        for chunk in chunks(ids):
            found = select(RECORDS.c.id, RECORDS.c.position).where(
                RECORDS.c.namespace == namespace, RECORDS.c.id.in_(chunk), LIVING
            )
            for row in self._connection.execute(found):
                self._positions[namespace, row.id] = row.position

    def plan(self, records: Sequence[NewRecord]) -> list[int] | InvalidInput:
        """The positions of one call's records, or why none of them can be written."""
        new: dict[tuple[str, str], NewRecord] = {}
        dims: dict[Space, int] = {}
        for record in records:
            key = record.space.namespace, record.id
            if key in self._positions or key in new:
                continue
            dim = self._dims.get(record.space) or dims.setdefault(record.space, record.embedding.size)
            if record.embedding.size != dim:
                return InvalidInput(
                    f"the embedding has {record.embedding.size} numbers; "
                    f"{record.space.namespace!r} holds embeddings of {dim} by {record.space.model!r}"
                )
            new[key] = record
        self._dims |= dims
        for position, (key, record) in enumerate(new.items(), start=self.head + 1):
            self._positions[key] = position
            self._added[position] = record
        self.head += len(new)
        return [self._positions[record.space.namespace, record.id] for record in records]

    def write(self) -> None:
        """Everything that was planned; it is durable after the commit."""
        if not self._added:
            return
        self._write_spaces()
        added = self._added.items()
        records = [self._row(position, record) for position, record in added]
        labels = [
            {"position": position, "key": key, "value": value}
            for position, record in added
            for key, value in record.labels.items()
        ]
        self._connection.execute(insert(RECORDS), records)
        self._connection.execute(
            insert(EMBEDDINGS), [embedding_row(position, record.embedding) for position, record in added]
        )
        if labels:
            self._connection.execute(insert(LABELS), labels)
        self._connection.execute(update(HEAD).values(position=self.head))

    def _row(self, position: int, record: NewRecord) -> dict[str, object]:
        """Of the table of records."""
        stored = Stored(
            position,
            record.id,
            record.space,
            record.embedding.size,
            record.name,
            record.labels,
            record.value,
            record.created_at,
        )
        return {
            "position": position,
            "space_id": self._space_ids[record.space],
            "namespace": record.space.namespace,
            "id": record.id,
            "name": record.name,
            "value": record.value,
            "created_at": record.created_at,
            "checksum": record_checksum(stored),
        }

    def _write_spaces(self) -> None:
        counts = Counter(record.space for record in self._added.values())
        for space in counts:
            if space not in self._space_ids:
                row = insert(SPACES).values(namespace=space.namespace, model=space.model, dim=0, living=0)
                self._space_ids[space] = self._connection.execute(row.returning(SPACES.c.id)).scalar_one()
        grown = update(SPACES).where(SPACES.c.id == bindparam("space_id"))
        self._connection.execute(
            grown.values(dim=bindparam("new_dim"), living=SPACES.c.living + bindparam("count")),
            [
                {"space_id": self._space_ids[space], "new_dim": self._dims[space], "count": count}
                for space, count in counts.items()
            ],
        )
