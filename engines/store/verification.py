"""What can be wrong with a journal, looked for in all of its rows."""

from collections.abc import Iterator

from sqlalchemy import Connection, and_, func, or_, select

from engines.errors import StoreCorrupt
from engines.store.reading import damaged, read
from engines.store.rows import read_vector
from engines.store.schema import DELETED, EMBEDDINGS, HEAD, LABELS, LIVING, RECORDS, SPACES

_PAGE = 1000


def problems(connection: Connection) -> Iterator[str]:
    """One sentence each. connection: all of its statements see the same state."""
    if connection.dialect.name == "sqlite":
        for line in connection.exec_driver_sql("PRAGMA integrity_check").scalars().all():
            if line != "ok":
                yield f"SQLite: {line}"
    yield from _steps(connection)
    yield from _counts(connection)
    yield from _belonging(connection)
    yield from _texts(connection)
    yield from _vectors(connection)


def _steps(connection: Connection) -> Iterator[str]:
    """Every position from 1 to the head is one addition or one deletion."""
    heads = connection.execute(select(HEAD.c.position)).scalars().all()
    if len(heads) != 1:
        yield f"there are {len(heads)} newest positions"
        return
    column = RECORDS.c.deleted_position
    additions = connection.execute(
        select(func.count(), func.min(RECORDS.c.position), func.max(RECORDS.c.position))
    ).one()
    deletions = connection.execute(select(func.count(column), func.min(column), func.max(column))).one()
    steps = additions[0] + deletions[0]
    if steps != heads[0]:
        yield f"there are {steps} steps up to position {heads[0]}"
    newest = max(additions[2] or 0, deletions[2] or 0)
    if newest != heads[0]:
        yield f"the newest step is {newest} and the newest position is {heads[0]}"
    other = RECORDS.alias()
    both = select(func.count()).select_from(
        RECORDS.join(other, RECORDS.c.position == other.c.deleted_position)
    )
    twice = connection.execute(both).scalar_one()
    if twice:
        yield f"{twice} positions are both an addition and a deletion"
    newest = select(HEAD.c.revision).scalar_subquery()
    ahead = connection.execute(select(RECORDS.c.position).where(RECORDS.c.revision > newest)).scalars()
    for position in ahead:
        yield f"record {position} was updated by a revision that the journal has not reached"


def _counts(connection: Connection) -> Iterator[str]:
    """Every space knows how many records live in it."""
    living = select(RECORDS.c.space_id, func.count().label("count")).where(LIVING)
    found = living.group_by(RECORDS.c.space_id).subquery()
    query = select(SPACES.c.id, SPACES.c.living, func.coalesce(found.c.count, 0)).select_from(
        SPACES.outerjoin(found, found.c.space_id == SPACES.c.id)
    )
    for space, told, count in connection.execute(query):
        if told != count:
            yield f"space {space} tells of {told} records and holds {count}"


def _belonging(connection: Connection) -> Iterator[str]:
    """Labels belong to living records, and records to a space of their namespace."""
    labels = select(LABELS.c.position).distinct().outerjoin(RECORDS, RECORDS.c.position == LABELS.c.position)
    for position in connection.execute(labels.where(or_(RECORDS.c.position.is_(None), DELETED))).scalars():
        yield f"position {position} has labels and no living record"
    records = select(RECORDS.c.position).outerjoin(SPACES, SPACES.c.id == RECORDS.c.space_id)
    elsewhere = or_(SPACES.c.id.is_(None), SPACES.c.namespace != RECORDS.c.namespace)
    for position in connection.execute(records.where(elsewhere)).scalars():
        yield f"record {position} is in another namespace than its space"


def _texts(connection: Connection) -> Iterator[str]:
    """Every living record is what was written."""
    query = select(RECORDS.c.position).where(LIVING).order_by(RECORDS.c.position).limit(_PAGE)
    after = 0
    while page := connection.execute(query.where(RECORDS.c.position > after)).scalars().all():
        for record, is_whole in read(connection, query.where(RECORDS.c.position > after)):
            if not is_whole:
                yield damaged(record.position)
        after = page[-1]


def _vectors(connection: Connection) -> Iterator[str]:
    """Every living record has its embedding, of its space's dimension; no other has one."""
    query = (
        select(RECORDS.c.position, SPACES.c.dim, EMBEDDINGS.c.vector, EMBEDDINGS.c.checksum)
        .select_from(RECORDS.join(SPACES).outerjoin(EMBEDDINGS))
        .where(LIVING)
        .order_by(RECORDS.c.position)
        .limit(_PAGE)
    )
    after = 0
    while rows := connection.execute(query.where(RECORDS.c.position > after)).all():
        for row in rows:
            try:
                dim = len(read_vector(row.position, row.vector, row.checksum))
            except StoreCorrupt as error:
                yield error.message
                continue
            if dim != row.dim:
                yield f"the embedding of record {row.position} has {dim} numbers, its space {row.dim}"
        after = rows[-1].position
    orphans = select(EMBEDDINGS.c.position).outerjoin(RECORDS, RECORDS.c.position == EMBEDDINGS.c.position)
    lost = or_(RECORDS.c.position.is_(None), and_(DELETED, RECORDS.c.position.is_not(None)))
    for position in connection.execute(orphans.where(lost)).scalars():
        yield f"position {position} has an embedding and no living record"
