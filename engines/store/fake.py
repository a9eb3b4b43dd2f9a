"""A journal in memory that keeps the promise: for tests and for trying things out."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from engines.errors import InvalidInput, StoreUnavailable
from engines.store import Change, Filter, NewRecord, Positions, Space, State, Stored


class MemoryJournal:
    """Keeps the promise of `Journal` until the process ends. available: set it to False to take it away."""

    def __init__(self) -> None:
        self.available = True
        self._identity = uuid4().hex
        self._lock = threading.RLock()
        self._steps: list[Change] = []
        self._living: dict[int, Stored] = {}
        self._revision = 0
        self._revised: dict[int, int] = {}

    def identity(self) -> str:
        """Random text, made with the journal."""
        self._check()
        return self._identity

    def append(self, records: Sequence[NewRecord]) -> list[int]:
        """Writes all or none. Raises InvalidInput when an embedding's length does not fit its space."""
        with self._lock:
            self._check()
            dims = {space: dim for space, (dim, _) in self.spaces().items()}
            for one in records:
                if dims.setdefault(one.space, len(one.embedding)) != len(one.embedding):
                    raise InvalidInput(f"embeddings of this space have {dims[one.space]} dimensions")
            return [self._append(one) for one in records]

    def put(self, records: Sequence[NewRecord]) -> None:
        """Writes all or none; a record whose id lives takes the new value."""
        with self._lock:
            for one, position in zip(records, self.append(records), strict=True):
                if self._living[position].value != one.value:
                    self.update(one.space.namespace, one.id, value=one.value)

    def delete(self, namespace: str, ids: Sequence[str]) -> list[str]:
        """Deletes what lives; returns the ids that were deleted."""
        with self._lock:
            self._check()
            found = [one for name in dict.fromkeys(ids) if (one := self._find(namespace, name))]
            for one in found:
                del self._living[one.position]
                self._steps[one.position - 1] = replace(self._steps[one.position - 1], embedding=None)
                self._steps.append(Change(len(self._steps) + 1, one.position, one.space))
            return [one.id for one in found]

    def update(
        self,
        namespace: str,
        record_id: str,
        *,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        value: str | None = None,
    ) -> bool:
        """Replaces what is given. False when no such record lives."""
        with self._lock:
            self._check()
            one = self._find(namespace, record_id)
            if one is None:
                return False
            self._living[one.position] = replace(
                one,
                name=one.name if name is None else name,
                labels=one.labels if labels is None else dict(labels),
                value=one.value if value is None else value,
            )
            self._revision += 1
            self._revised[one.position] = self._revision
            return True

    def head(self) -> int:
        """The newest position; 0 in an empty journal."""
        with self._lock:
            self._check()
            return len(self._steps)

    def state(self) -> State:
        """The head and the newest revision."""
        with self._lock:
            return State(self.head(), self._revision)

    def revised(self, after: int) -> list[int]:
        """Positions of the living records that were updated behind a revision."""
        with self._lock:
            self._check()
            return [
                one for one, revision in self._revised.items() if revision > after and one in self._living
            ]

    def changes(self, after: int, limit: int) -> list[Change]:
        """The steps behind a position, in order, at most `limit`."""
        with self._lock:
            self._check()
            return self._steps[after : after + limit]

    def stored(self, positions: Sequence[int]) -> dict[int, Stored]:
        """The living records at these positions."""
        with self._lock:
            self._check()
            return {one: self._living[one] for one in positions if one in self._living}

    def get(self, namespace: str, record_id: str) -> Stored | None:
        """The living record of that id."""
        with self._lock:
            self._check()
            return self._find(namespace, record_id)

    def listed(self, namespace: str, chosen: Filter, *, after: int, limit: int) -> list[Stored]:
        """Living records by position behind `after`, at most `limit`."""
        with self._lock:
            self._check()
            return [one for one in self._chosen(namespace, chosen) if one.position > after][:limit]

    def count(self, namespace: str, chosen: Filter) -> int:
        """How many living records match."""
        with self._lock:
            self._check()
            return len(list(self._chosen(namespace, chosen)))

    def matching(self, space: Space, chosen: Filter) -> Positions:
        """Positions of the living records of a space that match."""
        with self._lock:
            self._check()
            found = [one.position for one in self._chosen(space.namespace, chosen) if one.space == space]
            return np.array(found, np.int64)

    def embeddings(self, positions: Sequence[int]) -> dict[int, NDArray[np.float32]]:
        """Embeddings of living records."""
        with self._lock:
            self._check()
            found = {one: self._steps[one - 1].embedding for one in positions if one in self._living}
            return {one: embedding for one, embedding in found.items() if embedding is not None}

    def holding(self, prefix: str, record_id: str) -> list[str]:
        """Namespaces that start so and hold a living record of that id, sorted."""
        with self._lock:
            self._check()
            holders = (one.space.namespace for one in self._living.values() if one.id == record_id)
            return sorted(name for name in holders if name.startswith(prefix))

    def spaces(self) -> dict[Space, tuple[int, int]]:
        """Every space with its dimension and how many records live in it."""
        with self._lock:
            self._check()
            found: dict[Space, tuple[int, int]] = {}
            for one in self._living.values():
                found[one.space] = one.dim, found.get(one.space, (0, 0))[1] + 1
            return found

    def compact_when_due(self, every_s: float) -> None:
        """Nothing is left behind."""

    def close(self) -> None:
        """Nothing to end."""

    def _check(self) -> None:
        if not self.available:
            raise StoreUnavailable("the journal can't be read or written now")

    def _append(self, one: NewRecord) -> int:
        known = self._find(one.space.namespace, one.id)
        if known is not None:
            return known.position
        position, embedding = len(self._steps) + 1, np.array(one.embedding, np.float32)
        self._steps.append(Change(position, position, one.space, embedding))
        self._living[position] = Stored(
            position, one.id, one.space, len(embedding), one.name, dict(one.labels), one.value, one.created_at
        )
        return position

    def _find(self, namespace: str, record_id: str) -> Stored | None:
        records = self._living.values()
        return next((one for one in records if (one.space.namespace, one.id) == (namespace, record_id)), None)

    def _chosen(self, namespace: str, chosen: Filter) -> Iterator[Stored]:
        for one in self._living.values():
            if (
                one.space.namespace == namespace
                and chosen.name in (None, one.name)
                and chosen.labels.items() <= one.labels.items()
            ):
                yield one
