"""Speed, recall and size of every kind of index: `python -m bench.index`.

The vectors are made: unit vectors in clusters of about ten, as samples of the same person lie. Every
figure is of one thread and of the default `IndexOptions`, except that small sizes are approximated too.
CPU time tells more than the clock where others use the machine.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
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
from engines.store.faiss_index import FaissIndex, IndexOptions, Kind
from engines.types import Embeddings

BATCHES = (1, 16, 64)
QUERIES = 256
SINGLES = 20
"""Additions and removals of one record that are measured."""
SPREAD = 0.8
"""Length of the noise around a centre of length 1: samples of one person are about 0.6 similar."""


@dataclass(frozen=True, slots=True)
class Spent:
    """Milliseconds: on the clock, and of CPU time."""

    wall_ms: float
    cpu_ms: float


@dataclass(frozen=True, slots=True)
class Row:
    """One kind at one size. search: by batch, the whole batch. bytes_each: a record in the file.

    recall: part of the queries whose best match is the best of all. add, remove: one record (median).
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
    compact: Spent
    save: Spent
    load: Spent


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
    build = spent(lambda: index.add(positions, rows))
    search = {size: typical([spent(ask) for ask in asking(index, queries, size)]) for size in BATCHES}
    recall = float(np.mean(index.search(queries, 1)[1][:, 0] == best))
    more = [np.array([len(rows) + number]) for number in range(SINGLES)]
    fewer = [np.array([number * len(rows) // SINGLES]) for number in range(SINGLES)]
    add = typical([spent(partial(index.add, one, queries[:1])) for one in more])
    remove = typical([spent(partial(index.remove, one)) for one in fewer])
    compact = spent(index.compact)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        save = spent(lambda: index.save(path))
        load = spent(lambda: FaissIndex.load(path, options))
        size = path.stat().st_size / len(rows)
    return Row(options.kind, len(rows), dim, recall, size, build, search, add, remove, compact, save, load)


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
    for name in ("add 1", "remove 1", "compact", "save", "load"):
        shown.add_column(name, justify="right")
    for row in rows:
        times = [*row.search.values(), row.add, row.remove, row.compact, row.save, row.load]
        shown.add_row(
            row.kind,
            f"{row.records:,}",
            f"{row.recall:.3f}",
            f"{row.bytes_each:.0f}",
            f"{row.build.cpu_ms / 1000:.1f} ({row.build.wall_ms / 1000:.1f})",
            *(f"{one.cpu_ms:.2f} ({one.wall_ms:.1f})" for one in times),
        )
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
    console.print(f"load average of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    if chosen.json:
        chosen.json.write_text(json.dumps([asdict(row) for row in found], indent=1))


if __name__ == "__main__":
    main()
