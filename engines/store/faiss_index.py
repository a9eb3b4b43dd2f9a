"""Vectors of one space in FAISS, found by their position in the journal.

A row of the FAISS index belongs to the position of the same row in an ascending array. A removed row is
overwritten at once, so that nothing of its embedding stays in memory or gets into a file: with NaN where
rows are compared one by one (no comparison with NaN holds, so it is never among the best), with zeros in
a graph, which leads past it. Removed rows leave in bulk with compaction.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import faiss as faiss_library
import numpy as np
from numpy.typing import NDArray

from engines.errors import ConfigurationError, InvalidInput, StoreCorrupt
from engines.store import Positions
from engines.store.sealed_file import opened, written
from engines.types import Embeddings

faiss: Any = faiss_library  # its type stubs lack half of what is used here

Kind = Literal["flat", "flat-fp16", "hnsw", "ivf"]
Rows = NDArray[np.int64]
Found = tuple[NDArray[np.float32], Rows]

DEAD_SHARE = 0.1
"""Removed rows beyond this part of all rows are compacted away."""
DIRECT_SHARE = 0.2
"""Up to this part of all rows, an approximate index compares a chosen set exactly."""
CHUNK = 4096
"""Rows that are copied at a time where single rows are compared."""
BLAS_FROM = 4
"""A flat search of this many queries or more multiplies matrices: measured at 128 and 512 dimensions."""
RETRAIN = 4
"""An IVF index is trained again when it holds this many times what it was trained on."""
GPU_MOST = 2048
"""FAISS on a GPU finds no more than this many at once."""


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """How vectors are kept and searched.

    kind: "flat" and "flat-fp16" (half the memory and faster for a query alone, slower for 16 at a time;
    similarities off by about 1e-3) compare with every record; "hnsw" and "ivf" with some, from
    `approximate_from` records on (fewer are searched flat).
    The call of `add` that reaches it builds the graph or trains the lists, and so does compaction, which
    takes long: 100,000 vectors of 512 dimensions on one core about 100 seconds for hnsw, 15 for ivf.
    nlist: 0 means 4 * sqrt(records). threads: CPU threads of one search. gpu: flat kinds alone.
    """

    kind: Kind = "flat"
    m: int = 32
    ef_construction: int = 80
    ef_search: int = 64
    nlist: int = 0
    nprobe: int = 32
    approximate_from: int = 200_000
    threads: int = 1
    gpu: bool = False

    def check(self) -> None:
        """Raises ConfigurationError when a GPU is asked for that can't be had."""
        if self.gpu and self.kind not in ("flat", "flat-fp16"):
            raise ConfigurationError(f"store: gpu goes with flat and flat-fp16, not with {self.kind}")
        if self.gpu and not faiss.get_num_gpus():
            raise ConfigurationError("store: gpu: FAISS sees no GPU; install faiss-gpu or set gpu to false")


class FaissIndex:
    """Keeps the promise of `Index`. Its owner serialises calls."""

    def __init__(self, dim: int, options: IndexOptions | None = None) -> None:
        self.dim = dim
        self._options = options or IndexOptions()
        self._options.check()
        self._index: Any = self._flat()
        self._on_gpu: Any = None
        self._resources = faiss.StandardGpuResources() if self._options.gpu else None
        self._positions: Positions = np.empty(0, np.int64)
        self._alive: NDArray[np.bool_] = np.empty(0, np.bool_)
        self._last = -1
        self._trained_on = 0
        self._aside: FaissIndex | None = None

    def __len__(self) -> int:
        """How many records can be found."""
        return int(np.count_nonzero(self._alive)) + (len(self._aside) if self._aside else 0)

    @property
    def positions(self) -> Positions:
        """Of all that can be found, ascending."""
        here = self._positions[self._alive]
        return np.append(here, self._aside.positions) if self._aside else here

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
        if self._aside is not None:
            self._aside.add(positions, vectors)
            self._last = int(positions[-1])
            return
        self._tune()
        self._index.add(vectors)
        if self._on_gpu is not None:
            self._on_gpu.add(vectors)
        self._positions = np.append(self._positions, positions)
        self._alive = np.append(self._alive, np.ones(len(positions), np.bool_))
        self._last = int(positions[-1])
        if self._outgrown():
            self._rebuild()

    def remove(self, positions: Positions) -> None:
        """Removes records and erases their vectors; unknown positions are ignored."""
        if self._aside is not None:
            self._aside.remove(positions)
        rows = self._rows(positions)
        if not len(rows):
            return
        self._alive[rows] = False
        self._on_gpu = None
        self._erase(rows)
        if np.count_nonzero(~self._alive) > DEAD_SHARE * len(self._alive):
            self.compact()

    def hold(self) -> None:
        """Until `release`, `save` may run beside searches and changes: what is added is kept aside.

        What is removed is still erased at once.
        """
        self._aside = FaissIndex(self.dim, IndexOptions(threads=self._options.threads))

    def release(self) -> None:
        """Takes in what was kept aside."""
        aside, self._aside = self._aside, None
        if aside is not None and len(aside):
            aside.compact()
            last, self._last = self._last, -1
            self.add(aside.positions, aside._index.reconstruct_n(0, len(aside)))
            self._last = last

    def compact(self) -> None:
        """Gives back the rows of removed records. An approximate index is built anew, which takes long.

        Does nothing while the index is held.
        """
        if self._aside is not None or self._alive.all():
            return
        if self._is_flat():
            self._index.remove_ids(np.flatnonzero(~self._alive))
            self._positions = self._positions[self._alive]
            self._alive = np.ones(len(self._positions), np.bool_)
        else:
            self._rebuild()

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
        self._tune()
        rows = None if only is None else self._rows(only)
        count = min(k, int(np.count_nonzero(self._alive)) if rows is None else len(rows))
        if not count or not len(queries):
            none = np.full((len(queries), k), -1)
            found = none.astype(np.float32), none.astype(np.int64)
        else:
            found = self._filled(*self._nearest(queries, count, rows), k)
        if self._aside is None or not len(self._aside):
            return found
        also = self._aside.search(queries, k, only)
        return _best(np.hstack([found[0], also[0]]), np.hstack([found[1], also[1]]), k)

    def save(self, path: Path) -> int:
        """Writes the index, what is kept aside left out; returns how many records can be found in the file.

        Nothing of what was removed before is in the file. A record that is removed meanwhile may be in it,
        with its vector or without: it has to be removed again from what is loaded. Raises OSError.
        """
        count, alive = len(self._positions), self._alive.copy()
        head = {"dim": self.dim, "count": count, "kind": self._options.kind, "trained": self._trained_on}
        with written(path) as write:
            write(json.dumps(head).encode() + b"\n")
            write(self._positions.astype("<i8").tobytes())
            write(alive.tobytes())
            faiss.write_index(self._index, faiss.PyCallbackIOWriter(write))
        return int(np.count_nonzero(alive))

    @classmethod
    def load(cls, path: Path, options: IndexOptions | None = None) -> "FaissIndex":
        """Reads what `save` wrote, of whatever kind it was. Raises StoreCorrupt and OSError."""
        with opened(path) as file:
            try:
                head = json.loads(file.readline())
                loaded = cls(head["dim"], options)
                loaded._positions = np.frombuffer(file.read(8 * head["count"]), "<i8").astype(np.int64)
                loaded._alive = np.frombuffer(file.read(head["count"]), np.bool_).copy()
                loaded._index = faiss.read_index(faiss.PyCallbackIOReader(file.read))
                loaded._trained_on = head["trained"]
            except (ValueError, KeyError, RuntimeError) as problem:
                raise StoreCorrupt(f"{path.name} is no index of this version") from problem
        loaded._last = int(loaded._positions[-1]) if len(loaded._positions) else -1
        if head["kind"] != loaded._options.kind or loaded._outgrown():
            loaded._rebuild()
        return loaded

    def _check(self, vectors: Embeddings) -> None:
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise InvalidInput(
                f"embeddings of this space have {self.dim} dimensions, not {vectors.shape[-1]}"
            )

    def _tune(self) -> None:
        """FAISS keeps the number of threads for each calling thread, the BLAS threshold for all."""
        faiss.omp_set_num_threads(self._options.threads)
        faiss.cvar.distance_compute_blas_threshold = BLAS_FROM * self.dim

    def _rows(self, positions: Positions) -> Rows:
        """Rows of those positions that can be found, ascending."""
        wanted = np.unique(positions)
        rows: Rows = np.searchsorted(self._positions, wanted)
        inside = rows < len(self._positions)
        rows, wanted = rows[inside], wanted[inside]
        found: Rows = rows[(self._positions[rows] == wanted) & self._alive[rows]]
        return found

    def _is_flat(self) -> bool:
        return isinstance(self._index, faiss.IndexFlatCodes)

    def _erase(self, rows: Rows) -> None:
        """Overwrites vectors where they lie."""
        if isinstance(self._index, faiss.IndexIVF):
            nothing = np.full(self._index.code_size, 0xFF, np.uint8)
            places = faiss.rev_swig_ptr(self._index.direct_map.array.data(), len(self._alive))
            for row, place in zip(rows.tolist(), places[rows].tolist(), strict=True):
                number, offset = place >> 32, place & 0xFFFFFFFF
                self._index.invlists.update_entry(number, offset, row, faiss.swig_ptr(nothing))
            return
        flat = self._is_flat()
        codes = (self._index if flat else faiss.downcast_index(self._index.storage)).codes
        values = faiss.rev_swig_ptr(codes.data(), codes.size()).reshape(len(self._alive), -1)
        values[rows] = 0xFF if flat else 0  # all bits set: NaN in fp32 and in fp16

    def _nearest(self, queries: Embeddings, count: int, rows: Rows | None) -> Found:
        """Similarities and rows of about `count` records, in any order; -1 where there is none."""
        if self._is_flat():
            return self._flat_search(queries, count) if rows is None else self._direct(queries, count, rows)
        if rows is not None and len(rows) <= DIRECT_SHARE * len(self._alive):
            return self._direct(queries, count, rows)
        wanted = self._alive
        if rows is not None:
            wanted = np.zeros_like(self._alive)
            wanted[rows] = True
        chosen = None if wanted.all() else faiss.IDSelectorBitmap(np.packbits(wanted, bitorder="little"))
        if self._options.kind == "hnsw":
            how = faiss.SearchParametersHNSW(efSearch=max(self._options.ef_search, count), sel=chosen)
        else:
            how = faiss.SearchParametersIVF(nprobe=self._options.nprobe, sel=chosen)
        found: Found = self._index.search(queries, count, params=how)
        return found

    def _flat_search(self, queries: Embeddings, count: int) -> Found:
        """On the GPU where one is asked for; the index is sent there again, compacted, after a removal."""
        index = self._index
        is_held = self._aside is not None and self._on_gpu is None
        if self._resources is not None and count <= GPU_MOST and not is_held:
            if self._on_gpu is None:
                self.compact()
                how = faiss.GpuClonerOptions()
                how.useFloat16 = self._options.kind == "flat-fp16"
                self._on_gpu = faiss.index_cpu_to_gpu(self._resources, 0, self._index, how)
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

    def _filled(self, similarities: NDArray[np.float32], rows: Rows, k: int) -> Found:
        """Best first, rows turned into positions, filled up to k with -1."""
        similarities, positions = _best(similarities, np.where(rows < 0, -1, self._positions[rows]), k)
        if positions.shape[1] == k:
            return similarities, positions
        missing = ((0, 0), (0, k - positions.shape[1]))
        return (
            np.pad(similarities, missing, constant_values=-1).astype(np.float32),
            np.pad(positions, missing, constant_values=-1),
        )

    def _outgrown(self) -> bool:
        """Whether the FAISS index must become another one for the records that it holds."""
        rows = len(self._alive)
        if self._options.kind not in ("hnsw", "ivf") or rows < self._options.approximate_from:
            return False
        return self._is_flat() or (self._options.kind == "ivf" and rows >= RETRAIN * self._trained_on)

    def _rebuild(self) -> None:
        """The index that suits the living records, of these alone."""
        rows = np.flatnonzero(self._alive)
        vectors = self._index.reconstruct_batch(rows) if len(rows) else np.empty((0, self.dim), np.float32)
        whole = np.isfinite(vectors).all(axis=1)  # the others were removed while they were being saved
        rows, vectors = rows[whole], vectors[whole]
        self._tune()
        self._index = self._suitable(vectors)
        self._index.add(vectors)
        self._positions = self._positions[rows]
        self._alive = np.ones(len(rows), np.bool_)

    def _suitable(self, vectors: Embeddings) -> Any:
        """An empty index for so many vectors, trained on them where it has to be."""
        if self._options.kind.startswith("flat") or len(vectors) < self._options.approximate_from:
            return self._flat()
        if self._options.kind == "hnsw":
            graph = faiss.IndexHNSWFlat(self.dim, self._options.m, faiss.METRIC_INNER_PRODUCT)
            graph.hnsw.efConstruction = self._options.ef_construction
            return graph
        nlist = self._options.nlist or int(4 * np.sqrt(len(vectors)))
        lists = faiss.IndexIVFFlat(
            faiss.IndexFlatIP(self.dim), self.dim, min(nlist, len(vectors)), faiss.METRIC_INNER_PRODUCT
        )
        lists.cp.min_points_per_centroid = 1
        lists.cp.max_points_per_centroid = 64
        lists.train(vectors)
        lists.make_direct_map(True)  # rows can be read back
        self._trained_on = len(vectors)
        return lists

    def _flat(self) -> Any:
        if self._options.kind == "flat-fp16" and not self._options.gpu:
            half = faiss.ScalarQuantizer.QT_fp16
            return faiss.IndexScalarQuantizer(self.dim, half, faiss.METRIC_INNER_PRODUCT)
        return faiss.IndexFlatIP(self.dim)


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
