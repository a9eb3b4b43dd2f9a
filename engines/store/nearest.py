"""The statements by which Postgres finds the nearest vectors: exactly, or through an HNSW index of the space.

pgvector's `<#>` is the negative inner product. An HNSW index is of one space and one dimension. It needs all
numbers in the statement but the vectors themselves: the planner compares them with the index's condition.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import (
    ColumnElement,
    Connection,
    Double,
    Integer,
    Values,
    and_,
    cast,
    column,
    exists,
    func,
    literal,
    literal_column,
    select,
    table,
    true,
    values,
)

from engines.store import Space
from engines.store.pgvector_schema import VECTORS, VECTORS_META, Row, Vector
from engines.store.schema import HEAD, SPACES
from engines.types import Embeddings

MOST_INDEXED = 2000
"""Numbers of a vector in an HNSW index."""
MOST_NEAR = 1000
"""Records that one search through an HNSW index can find."""

Near = list[tuple[int, float]]
"""Positions and similarities, best first."""


def index_name(space_id: int, dim: int) -> str:
    """Of the HNSW index of a space."""
    return f"vectors_{space_id}_{dim}"


@dataclass(frozen=True, slots=True)
class Searched:
    """A space as one transaction sees it; space_id and dim are None when it never held a record.

    living: how many records. is_behind: whether steps of the journal are still missing.
    is_indexed: whether HNSW can be asked.
    """

    space_id: int | None
    dim: int | None
    living: int
    is_behind: bool
    is_indexed: bool


def searched(connection: Connection, space: Space, ef_search: int) -> Searched:
    """The space now. ef_search: breadth of searches through HNSW, for the rest of the transaction."""
    name = func.concat("vectors_", SPACES.c.id, "_", SPACES.c.dim)
    index = table("pg_index", column("indexrelid"), column("indisvalid"))
    query = select(
        SPACES.c.id,
        SPACES.c.dim,
        func.coalesce(SPACES.c.living, 0),
        VECTORS_META.c.position < HEAD.c.position,
        exists().where(index.c.indexrelid == func.to_regclass(name), index.c.indisvalid),
        func.set_config("hnsw.ef_search", str(ef_search), literal_column("true")),
    ).select_from(
        HEAD.join(VECTORS_META, true()).outerjoin(
            SPACES, and_(SPACES.c.namespace == space.namespace, SPACES.c.model == space.model)
        )
    )
    return Searched(*connection.execute(query).one()[:5])


def nearest(
    connection: Connection,
    units: Embeddings,
    k: int,
    conditions: Sequence[ColumnElement[bool]],
    dim: int | None = None,
) -> list[Near]:
    """What each query finds. units: shape (n, dim), of length 1. conditions: on rows of `VECTORS`.

    dim: of the HNSW index to be asked; None compares with every row. Equal ones are ordered by position.
    """
    probes = _probes(units)
    unit: ColumnElement[Row] = VECTORS.c.unit
    if dim is not None:
        unit = literal_column(f"(vectors.unit::vector({dim}))", Vector)
        conditions = [*conditions, func.vector_dims(VECTORS.c.unit) == literal_column(str(dim))]
    distance: ColumnElement[float] = unit.op("<#>", return_type=Double())(probes.c.probe)
    order = [distance] if dim is not None else [distance, VECTORS.c.position]
    near = (
        select(VECTORS.c.position, distance.label("distance"))
        .where(*conditions)
        .order_by(*order)
        .limit(literal_column(str(k)))
        .lateral("near")
    )
    found: list[Near] = [[] for _ in units]
    query = select(probes.c.number, near.c.position, near.c.distance).select_from(probes.join(near, true()))
    query = query.order_by(probes.c.number, near.c.distance, near.c.position)
    for number, position, negative in connection.execute(query):
        found[number].append((position, -negative))
    return found


def _probes(units: Embeddings) -> Values:
    rows: list[tuple[ColumnElement[int], ColumnElement[Row]]] = [
        (literal_column(str(number)), cast(literal(unit, Vector), Vector))
        for number, unit in enumerate(units)
    ]
    return values(column("number", Integer), column("probe", Vector), name="probes").data(rows)


def of_space(space_id: int) -> ColumnElement[bool]:
    """The vectors of a space."""
    return VECTORS.c.space_id == literal_column(str(space_id))
