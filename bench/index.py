"""Speed, recall and size of every kind of index: `python -m bench.index`.

The vectors are made: unit vectors in clusters of about ten, as samples of the same person lie. Every
figure is of one thread and of the default `IndexOptions`, except that small sizes are approximated too.
CPU time tells more than the clock where others use the machine. What is built beside searches is built once
more, by a replica that is asked one search after another meanwhile.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from engines.embedding import unit_rows
from engines.store import NewRecord, Space
from engines.store.faiss_index import FaissIndex
from engines.store.index_options import IndexOptions, Kind
from engines.store.journal import SqlJournal
from engines.store.replica import StoreReplica
from engines.types import Embeddings

BATCHES = (1, 16, 64)
QUERIES = 256
SINGLES = 20
"""Additions and removals of one record that are measured."""
LATER = 1000
"""Records that are added to a graph or lists that stand."""
SPACE = Space("face/default", "bench")
SPREAD = 0.8
"""Length of the noise around a centre of length 1: samples of one person are about 0.6 similar."""


@dataclass(frozen=True, slots=True)
class Spent:
    """Milliseconds: on the clock, and of CPU time."""

    wall_ms: float
    cpu_ms: float


@dataclass(frozen=True, slots=True)
class Beside:
    """Searches of one query, one after another, while the upkeep of a replica does something for so long."""

    seconds: float
    p50_ms: float
    longest_ms: float


@dataclass(frozen=True, slots=True)
class Row:
    """One kind at one size. search: by batch, the whole batch. bytes_each: a record in the file.

    recall: part of the queries whose best match is the best of all. add, remove: one record (median).
    building: while the graph or the lists are built; absorbing: while LATER records are moved into them.
    """

    kind: str
    records: int
    dim: int
    recall: float
    bytes_each: float
    build: Spent
    search: dict[int, Spent]
    add: Spent
    remove: Spent
    rebuild: Spent
    save: Spent
    load: Spent
    building: Beside | None
    absorbing: Beside | None


def samples(count: int, dim: int, people: int, seed: int) -> Embeddings:
    """Samples of so many people, the same people for every seed."""
    centres = unit_rows(np.random.default_rng(0).standard_normal((people, dim), dtype=np.float32))
    generator = np.random.default_rng(seed)
    rows = centres[generator.integers(0, people, count)]
    rows += generator.standard_normal((count, dim), dtype=np.float32) * np.float32(SPREAD / np.sqrt(dim))
    return unit_rows(rows)


def spent(call: Callable[[], object]) -> Spent:
    """What one call takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return Spent((time.perf_counter() - wall) * 1000, (time.process_time() - cpu) * 1000)


def typical(measured: Sequence[Spent]) -> Spent:
    """Medians."""
    return Spent(median(one.wall_ms for one in measured), median(one.cpu_ms for one in measured))


def measure(options: IndexOptions, rows: Embeddings, queries: Embeddings, best: NDArray[np.int64]) -> Row:
    """Builds, asks, changes and saves one index. best: row of the best match of each query."""
    dim = rows.shape[1]
    index, positions = FaissIndex(dim, options), np.arange(len(rows))
    index.add(positions, rows)
    build = spent(index.build)
    search = {size: typical([spent(ask) for ask in asking(index, queries, size)]) for size in BATCHES}
    recall = float(np.mean(index.search(queries, 1)[1][:, 0] == best))
    more = [np.array([len(rows) + number]) for number in range(SINGLES)]
    fewer = [np.array([number * len(rows) // SINGLES]) for number in range(SINGLES)]
    add = typical([spent(partial(index.add, one, queries[:1])) for one in more])
    remove = typical([spent(partial(index.remove, one)) for one in fewer])
    rebuild = spent(partial(rebuilt, index))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        save = spent(lambda: index.save(path))
        load = spent(lambda: FaissIndex.load(path, options))
        size = path.stat().st_size / len(rows)
    is_built = options.kind in ("hnsw", "ivf")
    beside = built_beside_searches(options, rows, queries) if is_built else (None, None)
    times = build, search, add, remove, rebuild, save, load
    return Row(options.kind, len(rows), dim, recall, size, *times, *beside)


def rebuilt(index: FaissIndex) -> None:
    """As the upkeep does, from the living records."""
    index.hold()
    index.adopt(index.rebuilt())
    index.release()


def built_beside_searches(
    options: IndexOptions, rows: Embeddings, queries: Embeddings
) -> tuple[Beside, Beside]:
    """By a replica, from a journal in SQLite: the whole index, then LATER records more."""
    with tempfile.TemporaryDirectory() as folder:
        journal = SqlJournal(f"sqlite:///{folder}/presence.db")
        replica = StoreReplica(journal, options)
        more = samples(LATER, rows.shape[1], max(len(rows) // 10, 1), 3)
        found = []
        for start in range(0, len(rows), LATER):
            journal.append(people(rows[start : start + LATER], start))
        for several in (queries[:0], more):
            if len(several):
                journal.append(people(several, len(rows)))
            replica.catch_up()
            found.append(beside_searches(replica, queries))
        journal.close()
    return found[0], found[1]


def people(rows: Embeddings, start: int) -> list[NewRecord]:
    """Numbered ones."""
    return [NewRecord(f"{start + number:x}", SPACE, row, "one") for number, row in enumerate(rows)]


def beside_searches(replica: StoreReplica, queries: Embeddings) -> Beside:
    """The upkeep in a thread."""
    took: list[float] = []
    with ThreadPoolExecutor(1) as pool:
        upkeep = pool.submit(spent, replica.build)
        while not upkeep.done() or not took:
            query = queries[len(took) % len(queries)][None]
            took.append(spent(partial(replica.search, SPACE, query, 5)).wall_ms)
    return Beside(upkeep.result().wall_ms / 1000, median(took), max(took))


def asking(index: FaissIndex, queries: Embeddings, size: int) -> list[Callable[[], object]]:
    """Searches with so many queries at a time, others each time, after one that warms up."""
    index.search(queries[:size], 5)
    starts = range(0, min(len(queries), 16 * size), size)
    return [partial(index.search, queries[start : start + size], 5) for start in starts]


def table(rows: Sequence[Row]) -> Table:
    """For people."""
    shown = Table(title="CPU milliseconds (on the clock)")
    for name in ("kind", "records", "recall@1", "B/record", "build s"):
        shown.add_column(name, justify="right")
    for size in BATCHES:
        shown.add_column(f"batch {size}", justify="right")
    for name in ("add 1", "remove 1", "rebuild", "save", "load"):
        shown.add_column(name, justify="right")
    for row in rows:
        times = [*row.search.values(), row.add, row.remove, row.rebuild, row.save, row.load]
        shown.add_row(
            row.kind,
            f"{row.records:,}",
            f"{row.recall:.3f}",
            f"{row.bytes_each:.0f}",
            f"{row.build.cpu_ms / 1000:.1f} ({row.build.wall_ms / 1000:.1f})",
            *(f"{one.cpu_ms:.2f} ({one.wall_ms:.1f})" for one in times),
        )
    return shown


def beside_table(rows: Sequence[Row]) -> Table:
    """For people."""
    shown = Table(title="Searches beside the upkeep: for how long, median and longest of them")
    for name in ("kind", "records", "while it is built", f"while {LATER:,} records are moved into it"):
        shown.add_column(name, justify="right")
    for row in rows:
        if row.building and row.absorbing:
            cells = [
                f"{one.seconds:.1f} s: {one.p50_ms:.1f}, {one.longest_ms:.0f} ms"
                for one in (row.building, row.absorbing)
            ]
            shown.add_row(row.kind, f"{row.records:,}", *cells)
    return shown


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a table, and writes JSON where `--json` says."""
    parser = argparse.ArgumentParser(prog="python -m bench.index", description=__doc__)
    parser.add_argument("--records", type=int, nargs="+", default=[10_000])
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--kinds", nargs="+", choices=get_args(Kind), default=get_args(Kind))
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args(arguments)
    console, found = Console(width=200), []
    for count in chosen.records:
        people = max(count // 10, 1)
        rows, queries = samples(count, chosen.dim, people, 1), samples(QUERIES, chosen.dim, people, 2)
        exact = FaissIndex(chosen.dim)
        exact.add(np.arange(count), rows)
        best = exact.search(queries, 1)[1][:, 0]
        del exact
        for kind in chosen.kinds:
            found.append(measure(IndexOptions(kind=kind, approximate_from=1), rows, queries, best))
            console.print(f"{kind}, {count:,} records: measured", style="dim")
    console.print(table(found))
    console.print(beside_table(found))
    console.print(f"load average of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    if chosen.json:
        chosen.json.write_text(json.dumps([asdict(row) for row in found], indent=1))


if __name__ == "__main__":
    main()
