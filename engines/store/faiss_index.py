"""The vectors of one space in FAISS.

A flat kind has one segment. A graph or lists take long to build, and a graph takes a millisecond and more for
each record: so what is added lies in a flat segment behind it, which a search looks at too, until `absorb`
moves it over, some at a time.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.errors import ConfigurationError, InvalidInput, StoreCorrupt
from engines.store import Positions
from engines.store.index_options import IndexOptions, Kind
from engines.store.sealed_file import opened, written
from engines.store.segment import Found, Segment, faiss, flat, hnsw, ivf
from engines.types import Embeddings

VERSION = 2
"""Of the file."""
RETRAIN = 4
"""Lists are built again when they hold this many times what was there when they were."""
POINTS_PER_LIST = 64
"""Vectors that lists are trained on."""
SLICE: dict[Kind, int] = {"hnsw": 16, "ivf": 256}
"""Records that `absorb` moves: some 10 to 50 ms at 512 dimensions."""


def check(options: IndexOptions) -> None:
    """Raises ConfigurationError when a GPU is asked for that can't be had."""
    if options.gpu and options.kind not in ("flat", "flat-fp16"):
        raise ConfigurationError(f"store: gpu goes with flat and flat-fp16, not with {options.kind}")
    if options.gpu and not faiss.get_num_gpus():
        raise ConfigurationError("store: gpu: FAISS sees no GPU; install faiss-gpu or set gpu to false")


class FaissIndex:
    """Keeps the promise of `Index`. Its owner serialises calls, but `save` and `rebuilt` may run beside
    searches and changes between `hold` and `release`.
    """

    def __init__(self, dim: int, options: IndexOptions | None = None) -> None:
        self.dim = dim
        self._options = options or IndexOptions()
        check(self._options)
        self._segments = [Segment(flat(dim, self._options), self._options)]
        self._held: list[Segment] = []
        self._last = -1
        self._built_for = 0

    def __len__(self) -> int:
        """How many records can be found."""
        return sum(len(segment) for segment in self._segments)

    @property
    def positions(self) -> Positions:
        """Of all that can be found, ascending."""
        return np.concatenate([segment.living() for segment in self._segments])

    def add(self, positions: Positions, vectors: Embeddings) -> None:
        """Adds records by position, ascending; those not above all that were ever added are ignored.

        Raises InvalidInput when the positions descend or the vectors have another dimension."""
        self._check(vectors)
        fresh = positions > self._last
        positions, vectors = positions[fresh], np.ascontiguousarray(vectors[fresh], np.float32)
        if (np.diff(positions) <= 0).any():
            raise InvalidInput("positions must ascend")
        if not len(positions):
            return
        if self._segments[-1].frozen or not self._segments[-1].is_flat:
            self._segments.append(Segment(flat(self.dim, self._options), self._options))
        self._segments[-1].add(positions, vectors)
        self._last = int(positions[-1])

    def remove(self, positions: Positions) -> None:
        """Removes records and erases their vectors; unknown positions are ignored."""
        for segment in self._segments:
            segment.remove(positions)

    def search(
        self, queries: Embeddings, k: int, only: Positions | None = None
    ) -> tuple[NDArray[np.float32], Positions]:
        """Similarities (inner products, best first) and positions, shape (n, k) each; -1 fills up.

        only: search among these positions alone. Equal similarities are ordered by position.
        Raises InvalidInput when the queries have another dimension, or k is less than 1.
        """
        self._check(queries)
        if k < 1:
            raise InvalidInput("at least one match must be asked for")
        queries = np.ascontiguousarray(queries, np.float32)
        found = [segment.search(queries, k, only) for segment in self._segments if len(segment)]
        if not found or not len(queries):
            none = np.full((len(queries), k), -1)
            return none.astype(np.float32), none.astype(np.int64)
        if len(found) > 1:
            found = [(np.hstack([near for near, _ in found]), np.hstack([where for _, where in found]))]
        return _filled(*_best(*found[0], k), k)

    def due(self) -> bool:
        """Whether `rebuilt` should be called: the index does not suit the records that it holds."""
        main = self._segments[0]
        if main.kind != self._wanted():
            return True
        grown = main.kind == "ivf" and len(self) >= RETRAIN * self._built_for
        return grown or (main.is_worn and not main.is_flat)

    def hold(self) -> None:
        """Until `release`, what is there only changes by erasing what is removed; additions lie aside."""
        self._held = list(self._segments)
        for segment in self._held:
            segment.frozen = True

    def release(self) -> None:
        """Takes in what lay aside."""
        self._held = []
        for segment in self._segments:
            segment.frozen = False
            if segment.is_worn:
                segment.compact()
        while len(self._segments) > 1 and self._segments[-2].is_flat:
            aside = self._segments.pop()
            for positions, vectors in aside.vectors(aside.living()):
                self._segments[-1].add(positions, vectors)

    def rebuilt(self) -> Segment:
        """The one segment that suits the records that were there at `hold`, for `adopt`. Takes long."""
        kind = self._wanted()
        faiss.omp_set_num_threads(self._options.threads)
        if kind == "hnsw":
            index = hnsw(self.dim, self._options)
        elif kind == "ivf" and len(sample := self._sample()):
            index = ivf(min(self._lists(), len(sample)), sample)
        else:
            index = flat(self.dim, self._options)
        made = Segment(index, self._options)
        for positions, vectors in self._records():
            made.add(positions, vectors)
        return made

    def adopt(self, made: Segment) -> None:
        """What `rebuilt` made, in the place of what was held; what was removed meanwhile is erased in it."""
        living = np.concatenate([segment.living() for segment in self._held])
        made.remove(np.setdiff1d(made.positions, living, assume_unique=True))
        self._segments = [made, *self._segments[len(self._held) :]]
        self._held = [made]
        self._built_for = len(made)

    def absorb(self) -> bool:
        """Moves some records into the graph or the lists; whether more are waiting."""
        if len(self._segments) == 1:
            return False
        main, recent = self._segments
        some = recent.living(SLICE[main.kind])
        for positions, vectors in recent.vectors(some):
            main.add(positions, vectors)
        recent.remove(some)
        if not len(recent):
            del self._segments[1]
        return len(self._segments) > 1

    def build(self) -> None:
        """All that is due, at once, by the owner alone."""
        if self.due():
            self.hold()
            self.adopt(self.rebuilt())
            self.release()
        while self.absorb():
            pass

    def save(self, path: Path) -> int:
        """Writes what is there, or what was there at `hold`; returns how many records the file holds.

        Nothing of what was removed before is in the file. A record that is removed meanwhile may be in it,
        with its vector or without: it has to be removed again from what is loaded. Raises OSError.
        """
        segments = self._held or self._segments
        head = {
            "version": VERSION,
            "dim": self.dim,
            "segments": len(segments),
            "built_for": self._built_for,
        }
        with written(path) as write:
            write(json.dumps(head).encode() + b"\n")
            return sum(segment.write(write) for segment in segments)

    @classmethod
    def load(cls, path: Path, options: IndexOptions | None = None) -> "FaissIndex":
        """Reads what `save` wrote, of whatever kind it was.

        Raises OSError and StoreCorrupt, also for halves where whole numbers are wanted."""
        with opened(path) as file:
            try:
                head = json.loads(file.readline())
                if head["version"] != VERSION:
                    raise StoreCorrupt(f"{path.name} is of another version")
                loaded = cls(head["dim"], options)
                loaded._segments = [Segment.read(file.read, loaded._options) for _ in range(head["segments"])]
                loaded._built_for = head["built_for"]
            except (ValueError, KeyError) as problem:
                raise StoreCorrupt(f"{path.name} is no index of this version") from problem
        if loaded._options.kind != "flat-fp16" and any(one.kind == "flat-fp16" for one in loaded._segments):
            raise StoreCorrupt(f"{path.name} has vectors of half precision alone")
        ever = np.concatenate([segment.positions for segment in loaded._segments])
        loaded._last = int(ever[-1]) if len(ever) else -1
        return loaded

    def _check(self, vectors: Embeddings) -> None:
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise InvalidInput(
                f"embeddings of this space have {self.dim} dimensions, not {vectors.shape[-1]}"
            )

    def _wanted(self) -> Kind:
        """The kind that suits so many records. A graph and lists stay until half of them have gone."""
        if self._options.kind in ("flat", "flat-fp16"):
            return "flat" if self._options.gpu else self._options.kind
        least = self._options.approximate_from / (1 if self._segments[0].is_flat else 2)
        return self._options.kind if len(self) >= least else "flat"

    def _records(self) -> Iterator[tuple[Positions, Embeddings]]:
        """All that were there at `hold` and live, some at a time."""
        for segment in self._held:
            yield from segment.vectors(segment.living())

    def _lists(self) -> int:
        return self._options.nlist or max(1, int(4 * np.sqrt(len(self))))

    def _sample(self) -> Embeddings:
        """What lists are trained on, of all that were there at `hold`."""
        every = max(1, len(self) // (POINTS_PER_LIST * self._lists()))
        some = [np.empty((0, self.dim), np.float32)]
        for segment in self._held:
            some.extend(vectors for _, vectors in segment.vectors(segment.living()[::every]))
        return np.concatenate(some)


def _best(similarities: NDArray[np.float32], positions: Positions, k: int) -> Found:
    """The k best of each row, best first, equal ones by position; both are -1 where there is none."""
    in_order = similarities.shape[1] <= k and (similarities[:, 1:] < similarities[:, :-1]).all()
    if in_order and (positions >= 0).all():
        return similarities, positions
    similarities = np.where(positions < 0, -np.inf, similarities)
    best = np.lexsort((positions, -similarities))[:, :k]
    positions = np.take_along_axis(positions, best, axis=1)
    similarities = np.take_along_axis(similarities, best, axis=1)
    similarities[positions < 0] = -1
    return similarities.astype(np.float32), positions


def _filled(similarities: NDArray[np.float32], positions: Positions, k: int) -> Found:
    """Filled up to k columns with -1."""
    missing = k - positions.shape[1]
    if not missing:
        return similarities, positions
    return (
        np.pad(similarities, ((0, 0), (0, missing)), constant_values=-1),
        np.pad(positions, ((0, 0), (0, missing)), constant_values=-1),
    )
