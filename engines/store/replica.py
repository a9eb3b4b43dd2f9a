"""One reader of the journal: indexes in memory that have applied it up to some position.

Vectors and queries are L2-normalised on their way into an index, so that similarities are cosines.

Before each search it asks the journal for its head and applies what is missing, so that every search
sees every write that was acknowledged before it, by whichever replica.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.embedding import unit_rows
from engines.errors import StoreCorrupt, StoreUnavailable
from engines.store import Change, Filter, Journal, Match, Positions, Space, Stored
from engines.store.faiss_index import FaissIndex, IndexOptions
from engines.store.snapshot import SnapshotFolder
from engines.types import Embeddings

logger = logging.getLogger("presence.store")

CHUNK = 10_000
"""Steps of the journal that are read and applied at a time."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What each query found, best first. age_s: 0, or how many seconds old the answer may be."""

    matches: list[list[Match]]
    age_s: float = 0.0


class StoreReplica:
    """Safe to use from many threads; searches and changes take turns.

    snapshots: a folder for snapshots of this journal alone, or None.
    remember: keep names and labels in memory too, as they were when they were first read, so that the
    replica can answer when the journal can't be read.
    clock: seconds, ascending.
    """

    def __init__(
        self,
        journal: Journal,
        options: IndexOptions | None = None,
        snapshots: Path | None = None,
        *,
        remember: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal = journal
        self._options = options or IndexOptions()
        self._options.check()
        self._snapshots = snapshots
        self._clock = clock
        self._lock = threading.RLock()
        self._indexes: dict[Space, FaissIndex] = {}
        self._remembered: dict[int, Stored] | None = {} if remember else None
        self._position = 0
        self._started = False
        self._fresh_at: float | None = None

    @property
    def position(self) -> int:
        """Up to where the journal has been applied."""
        return self._position

    @property
    def age_s(self) -> float | None:
        """Seconds since it last had applied all of the journal; None if it never had."""
        return None if self._fresh_at is None else self._clock() - self._fresh_at

    def sizes(self) -> dict[Space, int]:
        """How many records of each space are in memory."""
        with self._lock:
            return {space: len(index) for space, index in self._indexes.items()}

    def catch_up(self, limit: int = CHUNK) -> int:
        """Applies what is missing, `limit` steps at a time; returns the position then.

        Raises StoreUnavailable and StoreCorrupt; what was applied until then stays applied.
        """
        with self._lock:
            now = self._clock()
            self._start()
            head = self._journal.head()
            if head < self._position:
                logger.warning("the journal ends before what was applied: the indexes are built anew")
                self._forget()
            while self._position < head:
                changes = self._journal.changes(self._position, limit)
                if not changes:
                    raise StoreCorrupt(f"the journal ends at {head} but has nothing behind {self._position}")
                self._apply(changes)
            self._fresh_at = now
            return self._position

    def search(
        self,
        space: Space,
        queries: Embeddings,
        k: int,
        only: Filter | None = None,
        *,
        allow_stale: bool = False,
    ) -> Answer:
        """The `k` most similar living records for each query, shape (n, dim); fewer when fewer live.

        Names and labels are those of this moment. Raises StoreUnavailable when the journal can't be
        read; with allow_stale, and a replica that remembers, memory answers then and tells its age.
        Raises InvalidInput when the queries have another dimension than the space.
        """
        try:
            return Answer(self._search(space, queries, k, only))
        except StoreUnavailable:
            if not allow_stale or self._remembered is None or self._fresh_at is None:
                raise
        return self._stale(space, queries, k, only)

    def snapshot(self) -> int:
        """Makes the folder hold one snapshot, of this moment; returns its position.

        Nothing of what is deleted by now is then in memory or in a snapshot: indexes erase what they
        remove, and older snapshots are removed. When another replica wrote one of this moment, it stays.
        Searches wait meanwhile. Raises StoreUnavailable, StoreFull and StoreCorrupt.
        """
        with self._lock:
            position = self.catch_up()
            if folder := self._folder():
                folder.write(position, self._indexes)
            return position

    def _folder(self) -> SnapshotFolder | None:
        """Of the journal as it is named now."""
        return SnapshotFolder(self._snapshots, self._journal.identity()) if self._snapshots else None

    def _start(self) -> None:
        """Once: begins at the newest snapshot."""
        if self._started:
            return
        folder = self._folder()
        if folder and (found := folder.newest(self._options)):
            for index in found.indexes.values():
                self._remember(index.positions.tolist())
            self._indexes, self._position = found.indexes, found.position
        self._started = True

    def _forget(self) -> None:
        """The snapshots too: they may tell of positions that now mean other records."""
        if folder := self._folder():
            folder.clear()
        self._indexes, self._position = {}, 0
        if self._remembered is not None:
            self._remembered = {}

    def _apply(self, changes: Sequence[Change]) -> None:
        """Deletions before additions: a space that was emptied may begin again with another dimension."""
        gone = {change.record for change in changes if change.record != change.position}
        removed: dict[Space, list[int]] = {}
        added: dict[Space, list[Change]] = {}
        for change in changes:
            if change.record != change.position:
                removed.setdefault(change.space, []).append(change.record)
            elif change.embedding is not None and change.record not in gone:
                added.setdefault(change.space, []).append(change)
        for space, records in removed.items():
            if space in self._indexes:
                self._indexes[space].remove(np.array(records, np.int64))
        for space, additions in added.items():
            self._add(space, additions)
        if self._remembered is not None:
            for record in gone:
                self._remembered.pop(record, None)
            self._remember([change.record for each in added.values() for change in each])
        self._position = changes[-1].position

    def _add(self, space: Space, additions: Sequence[Change]) -> None:
        vectors = [change.embedding for change in additions if change.embedding is not None]
        dims = {len(vector) for vector in vectors}
        index = self._indexes.get(space)
        if index is not None and len(index):
            dims.add(index.dim)
        if len(dims) != 1:
            raise StoreCorrupt(f"{space.namespace}, {space.model}: embeddings of different lengths {dims}")
        dim = dims.pop()
        if index is None or index.dim != dim:
            index = self._indexes[space] = FaissIndex(dim, self._options)
        positions = np.array([change.position for change in additions], np.int64)
        index.add(positions, unit_rows(np.stack(vectors)))

    def _remember(self, positions: Sequence[int]) -> None:
        if self._remembered is not None:
            for start in range(0, len(positions), CHUNK):
                self._remembered.update(self._journal.stored(positions[start : start + CHUNK]))

    def _search(self, space: Space, queries: Embeddings, k: int, only: Filter | None) -> list[list[Match]]:
        """Looks again, deeper, while records that were deleted after the index was asked are in the way."""
        depth = k
        while True:
            similarities, positions = self._nearest(space, queries, depth, only)
            asked = np.unique(positions[positions >= 0]).tolist()
            stored = self._journal.stored(asked) if asked else {}
            matches = _matches(similarities, positions, stored)
            everything = bool((positions[:, -1:] < 0).all())
            if len(stored) == len(asked) or everything or all(len(found) >= k for found in matches):
                return [found[:k] for found in matches]
            depth = k + len(asked) - len(stored)

    def _nearest(
        self, space: Space, queries: Embeddings, k: int, only: Filter | None
    ) -> tuple[NDArray[np.float32], Positions]:
        """What the index finds after catching up."""
        with self._lock:
            self.catch_up()
            chosen = None if only is None or only == Filter() else self._journal.matching(space, only)
            return self._find(space, queries, k, chosen)

    def _find(
        self, space: Space, queries: Embeddings, k: int, chosen: Positions | None
    ) -> tuple[NDArray[np.float32], Positions]:
        index = self._indexes.get(space)
        if index is None or not len(index):
            index = FaissIndex(queries.shape[-1])
        return index.search(unit_rows(queries), k, chosen)

    def _stale(self, space: Space, queries: Embeddings, k: int, only: Filter | None) -> Answer:
        with self._lock:
            known = self._remembered or {}
            chosen = None if only is None else _matching(known.values(), space, only)
            similarities, positions = self._find(space, queries, k, chosen)
            return Answer(_matches(similarities, positions, known), self.age_s or 0.0)


def _matches(
    similarities: NDArray[np.float32], positions: Positions, stored: Mapping[int, Stored]
) -> list[list[Match]]:
    """Of each query, the records that still live."""
    return [
        [
            Match(position, similarity, stored[position])
            for similarity, position in zip(near, found, strict=True)
            if position in stored
        ]
        for near, found in zip(similarities.tolist(), positions.tolist(), strict=True)
    ]


def _matching(records: Iterable[Stored], space: Space, chosen: Filter) -> Positions:
    """Positions of the records of a space that match, as `Journal.matching` tells them."""
    found = [
        one.position
        for one in records
        if one.space == space
        and chosen.name in (None, one.name)
        and chosen.labels.items() <= one.labels.items()
    ]
    return np.array(found, np.int64)
