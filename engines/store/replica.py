"""One reader of the journal: indexes in memory that have applied it up to some position.

Vectors and queries are L2-normalised on their way into an index, so that similarities are cosines.

Before each search it asks the journal for its state and applies what is missing, so that every search
sees every write that was acknowledged before it, by whichever replica. Names and labels of records that were
found stay in memory until the journal tells that they were changed or deleted.

`keep_up` builds graphs and lists, and writes snapshots, while searches and changes go on.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.embedding import unit_rows
from engines.errors import StoreCorrupt, StoreUnavailable
from engines.store import Answer, Change, Filter, Journal, Match, Positions, Space, Stored
from engines.store.faiss_index import FaissIndex, check
from engines.store.index_options import IndexOptions
from engines.store.snapshot import SnapshotFolder
from engines.types import Embeddings

logger = logging.getLogger("presence.store")

CHUNK = 10_000
"""Steps of the journal that are read and applied at a time."""
BREATH_S = 0.001
"""Pause between two steps of the upkeep that searches have to wait for: they go first."""
PATIENCE_S = 1.0
"""A journal that took longer to fail is not asked again for a while where memory may answer."""
AWAY_S = 5.0
"""How long."""
LONG_VALUE = 1000
"""A record whose value has more characters is read each time that it is found."""


class StoreReplica:
    """Safe to use from many threads; searches and changes take turns.

    snapshots: a folder for snapshots of this journal alone, or None; how often `keep_up` writes one.
    remember: keep names, labels and values of all records in memory, not only of those that were found, and
    embeddings as they were written where they are no model's, so that the replica can answer when the journal
    can't be read.
    clock: seconds, ascending.
    """

    def __init__(
        self,
        journal: Journal,
        options: IndexOptions | None = None,
        snapshots: Path | None = None,
        *,
        snapshot_every_s: float = 300.0,
        remember: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal = journal
        self._options = options or IndexOptions()
        check(self._options)
        self._snapshots = snapshots
        self._clock = clock
        self._lock = threading.RLock()
        self._upkeep = threading.Lock()
        self._snapshot_every_s = snapshot_every_s
        self._snapshot_at = clock() + snapshot_every_s
        self._indexes: dict[Space, FaissIndex] = {}
        self._remember_all = remember
        self._known: dict[int, Stored] = {}
        self._written: dict[int, NDArray[np.float32]] = {}
        self._position = 0
        self._revision = 0
        self._started = False
        self._fresh_at: float | None = None
        self._away_until = -math.inf

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
            state = self._journal.state()
            if state.position < self._position or state.revision < self._revision:
                logger.warning("the journal ends before what was applied: the indexes are built anew")
                self._forget(state.revision)
            while self._position < state.position:
                changes = self._journal.changes(self._position, limit)
                if not changes:
                    raise StoreCorrupt(
                        f"the journal ends at {state.position} but has nothing behind {self._position}"
                    )
                self._apply(changes)
            if self._revision < state.revision:
                self._revise(state.revision)
            self._fresh_at = now
            return self._position

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

        with_embeddings: tell them too; from memory only those that are no model's.
        Names and labels are those of this moment. Raises StoreUnavailable when the journal can't be
        read; with allow_stale, and a replica that remembers, memory answers then and tells its age.
        Raises InvalidInput when the queries have another dimension than the space.
        """
        began = self._clock()
        may_remember = allow_stale and self._remember_all and self._fresh_at is not None
        if may_remember and began < self._away_until:
            return self._stale(space, queries, k, only, with_embeddings)
        try:
            matches = self._search(space, queries, k, only)
            found = {match.position for each in matches for match in each} if with_embeddings else None
            return Answer(matches, embeddings=self._journal.embeddings(list(found)) if found else {})
        except StoreUnavailable:
            if not may_remember:
                raise
            if self._clock() - began > PATIENCE_S:
                self._away_until = self._clock() + AWAY_S
        return self._stale(space, queries, k, only, with_embeddings)

    def snapshot(self) -> int:
        """Makes the folder hold one snapshot, of this moment; returns its position.

        Nothing of what is deleted by now is then in memory or in a snapshot: indexes erase what they
        remove, and older snapshots are removed. When another replica wrote one of this moment, it stays.
        Searches and changes go on meanwhile. Raises StoreUnavailable, StoreFull and StoreCorrupt.
        """
        with self._upkeep:
            with self._lock:
                position, folder = self.catch_up(), self._folder()
                if folder is None:
                    return position
                everything, indexes = self._indexes, dict(self._indexes)
                for index in indexes.values():
                    index.hold()
            try:
                folder.write(position, indexes)
            finally:
                with self._lock:
                    for index in indexes.values():
                        index.release()
                    if self._indexes is not everything:  # the journal was set back meanwhile
                        folder.clear()
            return position

    def keep_up(self) -> None:
        """See `Searcher`: a snapshot when its time has come, then the indexes that are due."""
        if self._snapshots and self._clock() >= self._snapshot_at:
            self._snapshot_at = self._clock() + self._snapshot_every_s
            self.snapshot()
        self.build()

    def build(self) -> None:
        """Builds the graphs and lists that are due, and puts recent records into those that are there.

        Searches and changes go on meanwhile. Raises StoreUnavailable and StoreCorrupt.
        """
        with self._upkeep:
            with self._lock:
                self.catch_up()
                indexes = list(self._indexes.values())
            for index in indexes:
                self._build(index)

    def _build(self, index: FaissIndex) -> None:
        if index.due():
            with self._lock:
                index.hold()
            try:
                made = index.rebuilt()
                with self._lock:
                    index.adopt(made)
            finally:
                with self._lock:
                    index.release()
        is_more = True
        while is_more:
            with self._lock:
                is_more = index.absorb()
            time.sleep(BREATH_S)

    def _folder(self) -> SnapshotFolder | None:
        """Of the journal as it is named now."""
        return SnapshotFolder(self._snapshots, self._journal.identity()) if self._snapshots else None

    def _start(self) -> None:
        """Once: begins at the newest snapshot."""
        if self._started:
            return
        self._revision = self._journal.state().revision
        folder = self._folder()
        if folder and (found := folder.newest(self._options)):
            for space, index in found.indexes.items():
                self._read_names(index.positions.tolist())
                self._read_embeddings(space, index.positions.tolist())
            self._indexes, self._position = found.indexes, found.position
        self._started = True

    def _forget(self, revision: int) -> None:
        """The snapshots too: they may tell of positions that now mean other records."""
        if folder := self._folder():
            folder.clear()
        self._indexes, self._position = {}, 0
        self._known, self._written, self._revision = {}, {}, revision

    def _revise(self, revision: int) -> None:
        """Names, labels and values that were replaced up to a revision."""
        changed = self._journal.revised(self._revision)
        if self._remember_all:
            self._read_names(changed)
        else:
            for position in changed:
                self._known.pop(position, None)
        self._revision = revision

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
        for record in gone:
            self._known.pop(record, None)
            self._written.pop(record, None)
        self._read_names([change.record for each in added.values() for change in each])
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
        if self._remember_all and not space.model:
            self._written.update(zip(positions.tolist(), vectors, strict=True))

    def _read_names(self, positions: Sequence[int]) -> None:
        """Of a replica that remembers all."""
        if self._remember_all:
            for start in range(0, len(positions), CHUNK):
                self._known.update(self._journal.stored(positions[start : start + CHUNK]))

    def _read_embeddings(self, space: Space, positions: Sequence[int]) -> None:
        """Of a replica that remembers all, and a space without a model."""
        if self._remember_all and not space.model:
            for start in range(0, len(positions), CHUNK):
                self._written.update(self._journal.embeddings(positions[start : start + CHUNK]))

    def _search(self, space: Space, queries: Embeddings, k: int, only: Filter | None) -> list[list[Match]]:
        """Looks again, deeper, while records that were deleted after the index was asked are in the way."""
        depth = k
        with self._lock:
            while True:
                self.catch_up()
                chosen = None if only is None or only == Filter() else self._journal.matching(space, only)
                similarities, positions = self._find(space, queries, depth, chosen)
                matches = _matches(similarities, positions, self._known)
                if sum(map(len, matches)) == np.count_nonzero(positions >= 0):
                    return matches if depth == k else [found[:k] for found in matches]
                asked = set(positions.ravel().tolist()) - {-1}
                stored = self._stored(asked)
                matches = _matches(similarities, positions, stored)
                everything = bool((positions[:, -1:] < 0).all())
                if len(stored) == len(asked) or everything or all(len(found) >= k for found in matches):
                    return [found[:k] for found in matches]
                depth = k + len(asked) - len(stored)

    def _stored(self, positions: Set[int]) -> dict[int, Stored]:
        """The records at these positions that live, those that are not known yet as the journal has them.

        Called with the lock held: what is read then is at least as new as the revision that was applied.
        """
        found = {position: self._known[position] for position in positions if position in self._known}
        if missing := [position for position in positions if position not in found]:
            for position, one in self._journal.stored(missing).items():
                found[position] = one
                if one.value is None or len(one.value) <= LONG_VALUE:
                    self._known[position] = one
        return found

    def _find(
        self, space: Space, queries: Embeddings, k: int, chosen: Positions | None
    ) -> tuple[NDArray[np.float32], Positions]:
        index = self._indexes.get(space)
        if index is None or not len(index):
            index = FaissIndex(queries.shape[-1])
        return index.search(unit_rows(queries), k, chosen)

    def _stale(
        self, space: Space, queries: Embeddings, k: int, only: Filter | None, with_embeddings: bool
    ) -> Answer:
        with self._lock:
            every = only in (None, Filter())
            chosen = None if every or only is None else _matching(self._known.values(), space, only)
            similarities, positions = self._find(space, queries, k, chosen)
            matches = _matches(similarities, positions, self._known)
            found = {match.position for each in matches for match in each} if with_embeddings else set()
            embeddings = {position: self._written[position] for position in found & self._written.keys()}
            return Answer(matches, self.age_s or 0.0, embeddings)


def _matches(
    similarities: NDArray[np.float32], positions: Positions, stored: Mapping[int, Stored]
) -> list[list[Match]]:
    """Of each query, the records that still live."""
    return [
        [
            Match(position, similarity, one)
            for similarity, position in zip(near, found, strict=True)
            if (one := stored.get(position)) is not None
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
