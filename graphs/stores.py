"""LocalAI's generic stores: keys are vectors, values are text."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from deployments.messages import SearchRequest
from deployments.together import together
from engines.errors import InvalidInput
from engines.store import NewRecord, Space
from graphs.clients.store import Store

Key = tuple[float, ...]

TOGETHER = 32
"""Keys of one request that are read at a time: well below what a replica's queue holds."""


@dataclass(frozen=True, slots=True)
class Entries:
    """Keys with their values; similarities (cosine, -1..1) only where something was searched for.

    age_s: how old the answer may be, 0 unless the journal is away.
    """

    keys: tuple[Key, ...] = ()
    values: tuple[str, ...] = ()
    similarities: tuple[float, ...] = ()
    age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Stores:
    """Keys are told apart by exact equality as 32-bit floats. Each store is a namespace of its own."""

    store: Store = field(repr=False)

    async def set(self, name: str, keys: Sequence[Key], values: Sequence[str], deadline: float) -> None:
        """Writes each value under its key; a key that is there takes the new value."""
        if not keys or len(keys) != len(values):
            raise InvalidInput("keys and values: as many of one as of the other, at least one")
        space = self._space(name)
        vectors = [_vector(key) for key in keys]
        if len({len(vector) for vector in vectors}) > 1:
            raise InvalidInput("keys: all of one length")
        latest = {key_id(vector): (vector, value) for vector, value in zip(vectors, values, strict=True)}
        records = [NewRecord(one, space, vector, value=value) for one, (vector, value) in latest.items()]
        await self.store.put(records, deadline)

    async def get(self, name: str, keys: Sequence[Key], deadline: float) -> Entries:
        """The entries of the keys that are there, in the order of the request."""
        if not keys:
            raise InvalidInput("keys: at least one")
        namespace = self._space(name).namespace
        vectors = [_vector(key) for key in keys]
        ids = [key_id(vector) for vector in vectors]
        found: dict[str, str] = {}
        for start in range(0, len(ids), TOGETHER):
            calls = (self.store.get((namespace, one), deadline) for one in ids[start : start + TOGETHER])
            for stored in await together(*calls):
                if stored is not None:
                    found[stored.id] = stored.value or ""
        there = [(one, vector) for one, vector in zip(ids, vectors, strict=True) if one in found]
        return Entries(
            tuple(tuple(vector.tolist()) for _, vector in there), tuple(found[one] for one, _ in there)
        )

    async def delete(self, name: str, keys: Sequence[Key], deadline: float) -> None:
        """Deletes the entries of the keys; those that are not there are no error."""
        if not keys:
            raise InvalidInput("keys: at least one")
        ids = [key_id(_vector(key)) for key in keys]
        await self.store.delete((self._space(name).namespace, ids), deadline)

    async def find(self, name: str, key: Key, top_k: int, deadline: float) -> Entries:
        """The entries nearest to a key by cosine similarity, best first."""
        request = SearchRequest(self._space(name), _vector(key), top_k, with_embeddings=True)
        found = await self.store.search(request, deadline)
        vectors = found.embeddings or {}
        living = [match for match in found.matches if match.position in vectors]
        return Entries(
            tuple(tuple(vectors[match.position].tolist()) for match in living),
            tuple(match.stored.value or "" for match in living),
            tuple(min(max(match.similarity, -1.0), 1.0) for match in living),
            found.age_s,
        )

    def _space(self, name: str) -> Space:
        return Space(f"stores/{name}", "")


def key_id(vector: np.ndarray) -> str:
    """The id of a key: a digest of its 32-bit floats; -0 equals 0."""
    return hashlib.sha256((vector + 0.0).astype("<f4").tobytes()).hexdigest()


def _vector(key: Key) -> np.ndarray:
    with np.errstate(over="ignore"):  # what overflows becomes infinite and is refused
        vector = np.asarray(key, np.float32)
    if not vector.size or not np.isfinite(vector).all():
        raise InvalidInput("keys: finite numbers, at least one")
    return vector
