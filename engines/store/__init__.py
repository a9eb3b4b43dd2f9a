"""The store of people: a journal that is the only truth, and indexes that can be rebuilt from it.

Every record has a position in the journal, the order of commits. A deletion is a later position that
points at the record. An index is the result of applying changes in order up to some position.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from engines.types import Embeddings

Positions = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Space:
    """Where records can be compared with each other: one namespace, one model, one dimension.

    namespace: such as "face/default"; model: the name of the model that made the embeddings.
    """

    namespace: str
    model: str


@dataclass(frozen=True, slots=True)
class NewRecord:
    """A record to be written. id: unique in its namespace; embedding: shape (dim,), float32.

    value: free text of the generic stores. created_at: seconds since the epoch.
    """

    id: str
    space: Space
    embedding: NDArray[np.float32] = field(repr=False)
    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    value: str | None = None
    created_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Stored:
    """A living record without its embedding. position: where its addition stands in the journal."""

    position: int
    id: str
    space: Space
    dim: int
    name: str
    labels: Mapping[str, str]
    value: str | None
    created_at: float


class Match(NamedTuple):
    """A record that was found. similarity: inner product, -1..1.

    A tuple: a batch of searches makes hundreds.
    """

    position: int
    similarity: float
    stored: Stored


@dataclass(frozen=True, slots=True)
class Answer:
    """What each query found, best first. age_s: 0, or how many seconds old the answer may be.

    embeddings: by position, shape (dim,), as they were written; where they were asked for.
    """

    matches: list[list[Match]]
    age_s: float = 0.0
    embeddings: Mapping[int, NDArray[np.float32]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Change:
    """One step of the journal.

    position: of the step. record: position of the record that is added (then equal to position) or
    deleted (then smaller). embedding: of an added record that still lives, shape (dim,); None for a
    deletion, and for an addition that a later deletion has erased.
    """

    position: int
    record: int
    space: Space
    embedding: NDArray[np.float32] | None = field(repr=False, default=None)


@dataclass(frozen=True, slots=True)
class State:
    """How far the journal is. position: the newest; revision: how many updates there were."""

    position: int
    revision: int


@dataclass(frozen=True, slots=True)
class Filter:
    """Which records of a namespace are meant; an empty filter means all of them.

    name: exactly this name. labels: all of these, exactly.
    """

    name: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


class Journal(Protocol):
    """The only truth. Synchronous, thread-safe, safe for many processes on the same database.

    Every method may raise StoreUnavailable (no connection, locked), StoreFull (nothing was written)
    and StoreCorrupt (the database contradicts itself; the message says what to do). When a connection
    is lost during a commit, StoreUnavailable leaves open whether it happened: repeating is harmless.
    Methods that take text raise InvalidInput for what no record can have: NUL, broken Unicode, and ids,
    names, namespaces, models, label keys and label values longer than 1000 bytes.
    """

    def identity(self) -> str:
        """Random text, made with the journal and kept for ever: tells snapshots of another journal apart."""
        ...

    def append(self, records: Sequence[NewRecord]) -> list[int]:
        """Writes all or none in one transaction; returns their positions once they are durable.

        A record whose id already lives in its namespace is not written again: its position is
        returned, so that a repeated request is harmless.
        Raises InvalidInput when an embedding's length differs from what its space already holds, or
        its numbers are not finite. A space in which nothing lives takes any length again.
        """
        ...

    def put(self, records: Sequence[NewRecord]) -> None:
        """Writes all or none in one transaction, ids each once; a record whose id lives takes the new value.

        Raises as `append`.
        """
        ...

    def delete(self, namespace: str, ids: Sequence[str]) -> list[str]:
        """Deletes what lives; erases ids, names, labels, values and embeddings in the same transaction.

        Returns the ids that were deleted."""
        ...

    def update(
        self,
        namespace: str,
        record_id: str,
        *,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        value: str | None = None,
    ) -> bool:
        """Replaces the name, the labels, the value, or several, as one more revision.

        False when no such record lives."""
        ...

    def head(self) -> int:
        """The newest position; 0 in an empty journal. Every acknowledged write is at or below it."""
        ...

    def state(self) -> State:
        """The head, and the newest revision: every acknowledged update is at or below it."""
        ...

    def revised(self, after: int) -> list[int]:
        """Positions of the living records that were updated behind a revision, each once."""
        ...

    def changes(self, after: int, limit: int) -> list[Change]:
        """The steps behind a position, in order, at most `limit`. No gaps are ever filled later."""
        ...

    def stored(self, positions: Sequence[int]) -> dict[int, Stored]:
        """The living records at these positions; the deleted ones are missing."""
        ...

    def get(self, namespace: str, record_id: str) -> Stored | None:
        """The living record of that id."""
        ...

    def holding(self, prefix: str, record_id: str) -> list[str]:
        """Namespaces that start so and hold a living record of that id, sorted."""
        ...

    def listed(self, namespace: str, chosen: Filter, *, after: int, limit: int) -> list[Stored]:
        """Living records by position behind `after`, at most `limit`."""
        ...

    def count(self, namespace: str, chosen: Filter) -> int:
        """How many living records match."""
        ...

    def matching(self, space: Space, chosen: Filter) -> Positions:
        """Positions of the living records of a space that match."""
        ...

    def embeddings(self, positions: Sequence[int]) -> dict[int, NDArray[np.float32]]:
        """Embeddings of living records, shape (dim,) each: for export."""
        ...

    def spaces(self) -> dict[Space, tuple[int, int]]:
        """Every space in which records live, with its dimension and how many they are."""
        ...

    def compact_when_due(self, every_s: float) -> None:
        """Where a deletion leaves something behind: removes it, at most once in every_s."""
        ...

    def close(self) -> None:
        """Ends all connections."""
        ...


class Searcher(Protocol):
    """Finds what a journal holds. Synchronous, thread-safe; similarities are cosines.

    Every method may raise StoreUnavailable, StoreFull and StoreCorrupt, as those of the journal.
    """

    def catch_up(self) -> int:
        """Applies what the journal holds and the searcher lacks; returns the position then."""
        ...

    def search(
        self,
        space: Space,
        queries: Embeddings,
        k: int,
        only: Filter | None = None,
        *,
        with_embeddings: bool = False,
        allow_stale: bool = False,
    ) -> Answer:
        """The `k` most similar living records for each query, shape (n, dim); fewer when fewer live.

        with_embeddings: tell them too; a record that is deleted meanwhile has none.
        Every search sees every write that was acknowledged before it, by whichever process.
        allow_stale: a searcher that has a memory may answer from it while the journal is away.
        Raises InvalidInput when the queries have another dimension than the space, or k is less than 1.
        """
        ...

    def keep_up(self) -> None:
        """What makes later searches or starts faster, to be called every few seconds; searches go on."""
        ...


class Index(Protocol):
    """Vectors of one space in memory. Not thread-safe: its owner serialises calls."""

    def add(self, positions: Positions, vectors: Embeddings) -> None:
        """Adds records by position, ascending as in the journal.

        Positions that do not exceed all that were ever added are ignored: applying changes twice is
        harmless. Raises InvalidInput when the vectors have another dimension."""
        ...

    def remove(self, positions: Positions) -> None:
        """Removes records; unknown positions are ignored. None of them is ever found again."""
        ...

    def search(
        self, queries: Embeddings, k: int, only: Positions | None = None
    ) -> tuple[NDArray[np.float32], Positions]:
        """Similarities (inner products, best first) and positions, shape (n, k) each; -1 fills up.

        only: search among these positions alone.
        """
        ...

    def __len__(self) -> int:
        """How many records can be found."""
        ...

    def save(self, path: Path) -> int:
        """Writes the index; nothing of a removed record is in the file. Returns how many records are."""
        ...
