"""The steps of the journal in order, as indexes apply them."""

from sqlalchemy import Connection, Row, Select, and_, bindparam, select, union_all

from engines.errors import StoreCorrupt
from engines.store import Change, Space
from engines.store.rows import read_vector
from engines.store.schema import DELETED, EMBEDDINGS, HEAD, RECORDS, SPACES


def _changes() -> Select[int, int, str, str, int | None, bytes | None, int | None]:
    """Additions and deletions behind :after, at most :limit; one statement, so that it sees one state."""
    after, limit = (
        bindparam("after", type_=RECORDS.c.position.type),
        bindparam("limit", type_=HEAD.c.position.type),
    )
    additions = (
        select(RECORDS.c.position, RECORDS.c.position.label("record"))
        .where(RECORDS.c.position > after)
        .order_by(RECORDS.c.position)
        .limit(limit)
        .subquery()
    )
    deletions = (
        select(RECORDS.c.deleted_position.label("position"), RECORDS.c.position.label("record"))
        .where(RECORDS.c.deleted_position > after, DELETED)
        .order_by(RECORDS.c.deleted_position)
        .limit(limit)
        .subquery()
    )
    both = union_all(select(additions), select(deletions)).subquery()
    steps = select(both).order_by(both.c.position).limit(limit).subquery()
    vector_of_addition = and_(EMBEDDINGS.c.position == steps.c.record, steps.c.position == steps.c.record)
    return (
        select(
            steps.c.position,
            steps.c.record,
            SPACES.c.namespace,
            SPACES.c.model,
            RECORDS.c.deleted_position,
            EMBEDDINGS.c.vector,
            EMBEDDINGS.c.checksum,
        )
        .select_from(steps)
        .join(RECORDS, RECORDS.c.position == steps.c.record)
        .join(SPACES, SPACES.c.id == RECORDS.c.space_id)
        .outerjoin(EMBEDDINGS, vector_of_addition)
        .order_by(steps.c.position)
    )


_CHANGES = _changes()


def changes(connection: Connection, after: int, limit: int) -> list[Change]:
    """At most `limit` steps behind position `after`.

    Raises StoreCorrupt for a step that is missing or damaged.
    """
    rows = connection.execute(_CHANGES, {"after": after, "limit": limit}).all()
    for expected, row in enumerate(rows, start=after + 1):
        if row.position != expected:
            raise StoreCorrupt(f"step {expected} of the journal is missing: restore a backup of the store")
    return [_change(row) for row in rows]


def _change(row: Row[int, int, str, str, int | None, bytes | None, int | None]) -> Change:
    """A record that lives has its embedding; one that was deleted has none."""
    space = Space(row.namespace, row.model)
    if row.deleted_position is not None:
        return Change(row.position, row.record, space)
    return Change(row.position, row.record, space, read_vector(row.position, row.vector, row.checksum))
