"""Some vectors of a space in one FAISS index, found by their position in the journal.

A row of the FAISS index belongs to the position of the same row in an ascending array. A removed row is
overwritten at once, so that nothing of its embedding stays in memory or gets into a file: with NaN where
rows are compared one by one (no comparison with NaN holds, so it is never among the best), with zeros in
a graph, which leads past it.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import faiss as faiss_library
import numpy as np
from numpy.typing import NDArray

from engines.errors import StoreCorrupt
from engines.store import Positions
from engines.store.index_options import IndexOptions, Kind
from engines.types import Embeddings

faiss: Any = faiss_library  # its type stubs lack half of what is used here

Rows = NDArray[np.int64]
Found = tuple[NDArray[np.float32], Positions]

DEAD_SHARE = 0.1
"""Removed rows beyond this part of all rows are given back."""
DIRECT_SHARE = 0.2
"""Up to this part of all rows, an approximate index compares a chosen set exactly."""
CHUNK = 4096
"""Rows that are copied at a time."""
BLAS_FROM = 4
"""A flat search of this many queries or more multiplies matrices: measured at 128 and 512 dimensions."""
GPU_MOST = 2048
"""FAISS on a GPU finds no more than this many at once."""


class Segment:
    """Its owner serialises calls. While it is frozen its rows stay where they are, so that `vectors` and
    `write` may run beside `search` and `remove`.
    """

    def __init__(self, index: Any, options: IndexOptions) -> None:
        """index: of FAISS, empty and trained."""
        self.frozen = False
        self.positions: Positions = np.empty(0, np.int64)
        self._alive: NDArray[np.bool_] = np.empty(0, np.bool_)
        self._living = 0
        self._index = index
        self._options = options
        self._on_gpu: Any = None

    def __len__(self) -> int:
        """How many records can be found."""
        return self._living

    @property
    def kind(self) -> Kind:
        """What FAISS has here."""
        if isinstance(self._index, faiss.IndexHNSW):
            return "hnsw"
        if isinstance(self._index, faiss.IndexIVF):
            return "ivf"
        return "flat" if isinstance(self._index, faiss.IndexFlat) else "flat-fp16"

    @property
    def is_flat(self) -> bool:
        """Whether a search compares with every record."""
        return isinstance(self._index, faiss.IndexFlatCodes)

    @property
    def is_worn(self) -> bool:
        """Whether too many rows are of removed records."""
        return len(self._alive) - self._living > DEAD_SHARE * len(self._alive)

    def living(self, limit: int | None = None) -> Positions:
        """Of the records that can be found, ascending; the first of them with a limit."""
        return self.positions[np.flatnonzero(self._alive)[:limit]]

    def add(self, positions: Positions, vectors: Embeddings) -> None:
        """Adds records whose positions ascend and are above all that it has."""
        self._tune()
        self._index.add(vectors)
        if self._on_gpu is not None:
            self._on_gpu.add(vectors)
        self.positions = np.append(self.positions, positions)
        self._alive = np.append(self._alive, np.ones(len(positions), np.bool_))
        self._living += len(positions)

    def remove(self, positions: Positions) -> None:
        """Removes records and erases their vectors; unknown positions are ignored."""
        rows = self._rows(positions)
        if not len(rows):
            return
        self._alive[rows] = False
        self._living -= len(rows)
        self._on_gpu = None
        self._erase(rows)
        if self.is_worn:
            self.compact()

    def compact(self) -> None:
        """Gives back the rows of removed records, where it is flat and not frozen."""
        if self.frozen or not self.is_flat or self._living == len(self._alive):
            return
        self._index.remove_ids(np.flatnonzero(~self._alive))
        self.positions = self.positions[self._alive]
        self._alive = np.ones(len(self.positions), np.bool_)

    def vectors(self, positions: Positions) -> Iterator[tuple[Positions, Embeddings]]:
        """Records that live, some at a time; those that are removed meanwhile may be missing."""
        rows = self._rows(positions)
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            vectors = self._index.reconstruct_batch(part)
            whole = np.isfinite(vectors).all(axis=1)
            yield self.positions[part[whole]], vectors[whole]

    def search(self, queries: Embeddings, k: int, only: Positions | None) -> Found:
        """Similarities and positions of about `k` records, in any order; -1 where there is none.

        queries: shape (n, dim), n at least 1. At most k columns."""
        rows = None if only is None else self._rows(only)
        count = min(k, self._living if rows is None else len(rows))
        if not count:
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        self._tune()
        similarities, found = self._nearest(queries, count, rows)
        return similarities, np.where(found < 0, -1, self.positions[found])

    def write(self, write: Callable[[bytes], object]) -> int:
        """The parts of a file, which `read` takes; returns how many records can be found in it.

        Nothing of what was removed before is in the file. A record that is removed meanwhile may be in it,
        with its vector or without: it has to be removed again from what is read.
        """
        alive = self._alive.copy()
        write(len(alive).to_bytes(8, "little"))
        write(self.positions.astype("<i8").tobytes())
        write(alive.tobytes())
        faiss.write_index(self._index, faiss.PyCallbackIOWriter(write))
        return int(np.count_nonzero(alive))

    @classmethod
    def read(cls, read: Callable[[int], bytes], options: IndexOptions) -> "Segment":
        """What `write` wrote. Raises StoreCorrupt when it is nothing of the kind."""
        count = int.from_bytes(read(8), "little")
        try:
            positions = np.frombuffer(read(8 * count), "<i8").astype(np.int64)
            alive = np.frombuffer(read(count), np.bool_).copy()
            segment = cls(faiss.read_index(faiss.PyCallbackIOReader(read)), options)
        except (ValueError, RuntimeError) as problem:
            raise StoreCorrupt("no index of this version") from problem
        segment.positions, segment._alive = positions, alive
        segment._living = int(np.count_nonzero(alive))
        return segment

    def _tune(self) -> None:
        """FAISS keeps the number of threads for each calling thread, the BLAS threshold for all."""
        faiss.omp_set_num_threads(self._options.threads)
        faiss.cvar.distance_compute_blas_threshold = BLAS_FROM * self._index.d

    def _rows(self, positions: Positions) -> Rows:
        """Rows of those positions that can be found, ascending."""
        wanted = np.unique(positions)
        rows: Rows = np.searchsorted(self.positions, wanted)
        inside = rows < len(self.positions)
        rows, wanted = rows[inside], wanted[inside]
        found: Rows = rows[(self.positions[rows] == wanted) & self._alive[rows]]
        return found

    def _erase(self, rows: Rows) -> None:
        """Overwrites vectors where they lie."""
        if self.kind == "ivf":
            nothing = np.full(self._index.code_size, 0xFF, np.uint8)
            places = faiss.rev_swig_ptr(self._index.direct_map.array.data(), len(self._alive))
            for row, place in zip(rows.tolist(), places[rows].tolist(), strict=True):
                number, offset = place >> 32, place & 0xFFFFFFFF
                self._index.invlists.update_entry(number, offset, row, faiss.swig_ptr(nothing))
            return
        codes = (self._index if self.is_flat else faiss.downcast_index(self._index.storage)).codes
        values = faiss.rev_swig_ptr(codes.data(), codes.size()).reshape(len(self._alive), -1)
        values[rows] = 0xFF if self.is_flat else 0  # all bits set: NaN in fp32 and in fp16

    def _nearest(self, queries: Embeddings, count: int, rows: Rows | None) -> Found:
        """Similarities and rows."""
        if self.is_flat:
            return self._flat_search(queries, count) if rows is None else self._direct(queries, count, rows)
        if rows is not None and len(rows) <= DIRECT_SHARE * len(self._alive):
            return self._direct(queries, count, rows)
        wanted = self._alive
        if rows is not None:
            wanted = np.zeros_like(self._alive)
            wanted[rows] = True
        chosen = None if wanted.all() else faiss.IDSelectorBitmap(np.packbits(wanted, bitorder="little"))
        if self.kind == "hnsw":
            how = faiss.SearchParametersHNSW(efSearch=max(self._options.ef_search, count), sel=chosen)
        else:
            how = faiss.SearchParametersIVF(nprobe=self._options.nprobe, sel=chosen)
        similarities, found = self._index.search(queries, count, params=how)
        # What is not wanted takes places in what lies near: a query that found too few looks at every one.
        short = np.flatnonzero((found < 0).any(axis=1))
        if len(short):
            similarities[short], found[short] = self._direct(queries[short], count, np.flatnonzero(wanted))
        return similarities, found

    def _flat_search(self, queries: Embeddings, count: int) -> Found:
        """On the GPU where one is asked for; the index is sent there again, compacted, after a removal."""
        index = self._index
        if self._options.gpu and count <= GPU_MOST and not (self.frozen and self._on_gpu is None):
            if self._on_gpu is None:
                self.compact()
                how = faiss.GpuClonerOptions()
                how.useFloat16 = self._options.kind == "flat-fp16"
                self._on_gpu = faiss.index_cpu_to_gpu(_gpu_resources(), 0, self._index, how)
            index = self._on_gpu
        found: Found = index.search(queries, count)
        return found

    def _direct(self, queries: Embeddings, count: int, rows: Rows) -> Found:
        """Compares with these rows alone, exactly."""
        similarities = np.empty((len(queries), 0), np.float32)
        found = np.empty((len(queries), 0), np.int64)
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            vectors = self._index.reconstruct_batch(part)
            near, which = faiss.knn(queries, vectors, min(count, len(part)), faiss.METRIC_INNER_PRODUCT)
            similarities = np.hstack([similarities, near])
            found = np.hstack([found, np.where(which < 0, -1, part[which])])
            best = np.lexsort((found, -similarities))[:, :count]
            similarities = np.take_along_axis(similarities, best, axis=1)
            found = np.take_along_axis(found, best, axis=1)
        return similarities, found


@cache
def _gpu_resources() -> Any:
    """One for the process: each takes a part of the GPU's memory."""
    return faiss.StandardGpuResources()


def flat(dim: int, options: IndexOptions) -> Any:
    """An empty index that compares with every record; a GPU keeps halves by itself."""
    if options.kind == "flat-fp16" and not options.gpu:
        return faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    return faiss.IndexFlatIP(dim)


def hnsw(dim: int, options: IndexOptions) -> Any:
    """An empty graph."""
    graph = faiss.IndexHNSWFlat(dim, options.m, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = options.ef_construction
    return graph


def ivf(nlist: int, sample: Embeddings) -> Any:
    """Empty lists, around centres of the sample, at least as many vectors as lists."""
    dim = sample.shape[1]
    lists = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, nlist, faiss.METRIC_INNER_PRODUCT)
    lists.cp.min_points_per_centroid = 1
    lists.cp.max_points_per_centroid = len(sample)
    lists.train(sample)
    lists.make_direct_map(True)  # rows can be read back
    return lists
