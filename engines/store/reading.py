"""Living records of the journal, as its callers see them."""

import struct
from collections.abc import Iterator

from sqlalchemy import ColumnElement, Connection, Select, select

from engines.errors import StoreCorrupt
from engines.store import Filter, Space, Stored
from engines.store.rows import check_filter, record_checksum
from engines.store.schema import LABELS, LIVING, RECORDS, SPACES


def matches(namespace: str, chosen: Filter) -> list[ColumnElement[bool]]:
    """Conditions on the rows of living records. Raises InvalidInput for text that no record can have."""
    check_filter(namespace, chosen)
    conditions = [RECORDS.c.namespace == namespace, LIVING]
    if chosen.name is not None:
        conditions.append(RECORDS.c.name == chosen.name)
    for key, value in chosen.labels.items():
        labelled = select(LABELS.c.position).where(LABELS.c.key == key, LABELS.c.value == value)
        conditions.append(RECORDS.c.position.in_(labelled))
    return conditions


def records(connection: Connection, chosen: Select[int]) -> list[Stored]:
    """The records at the chosen positions, ascending. Raises StoreCorrupt when one is damaged."""
    found = []
    for record, is_whole in read(connection, chosen):
        if not is_whole:
            raise StoreCorrupt(damaged(record.position))
        found.append(record)
    return found


def damaged(position: int) -> str:
    """What is told of a record."""
    return f"record {position} is damaged: restore a backup of the store"


def read(connection: Connection, chosen: Select[int]) -> Iterator[tuple[Stored, bool]]:
    """The records at the chosen positions, ascending, and whether each is what was written.

    One without a checksum was written by a version that had none, and counts as whole.
    """
    query = (
        select(RECORDS, SPACES.c.model, SPACES.c.dim, LABELS.c.key, LABELS.c.value.label("label"))
        .select_from(RECORDS.join(SPACES).outerjoin(LABELS))
        .where(RECORDS.c.position.in_(chosen))
        .order_by(RECORDS.c.position)
    )
    found: dict[int, Stored] = {}
    labels: dict[int, dict[str, str]] = {}
    checksums: dict[int, int | None] = {}
    spaces: dict[int, Space] = {}
    for row in connection.execute(query).all():
        if row.position not in found:
            labels[row.position] = {}
            checksums[row.position] = row.checksum
            found[row.position] = Stored(
                row.position,
                row.id,
                spaces.setdefault(row.space_id, Space(row.namespace, row.model)),
                row.dim,
                row.name,
                labels[row.position],
                row.value,
                row.created_at,
            )
        if row.key is not None:
            labels[row.position][row.key] = row.label
    for position, record in found.items():
        yield record, _is_whole(record, checksums[position])


def _is_whole(record: Stored, expected: int | None) -> bool:
    try:
        return expected is None or record_checksum(record) == expected
    except (TypeError, struct.error):  # SQLite tells numbers where text was
        return False
