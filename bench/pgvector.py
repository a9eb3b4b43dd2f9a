"""The store in Postgres: `python -m bench.pgvector --url postgresql://user@host/empty_database`.

For each size: searches through `VectorStore` that compare with every record, then the building of the HNSW
index and the same searches through it, with the part of them whose best match is the best of all; 64 searches
at a time in one statement, beside the same from 4 threads over connections of their own; registrations with
and without an index; how long calls wait while the tables are rewritten so that a deletion leaves them.
Vectors are made as for `bench.index`. The database must be empty; it is left filled.
"""

import argparse
import asyncio
import json
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console
from rich.table import Table
from sqlalchemy import create_engine, text

from bench.index import samples
from bench.report import cores, machine, percentile
from bench.store import APPENDED, FOUND, TOGETHER, record, timed
from deployments.messages import SearchRequest
from deployments.store import StoreSpec, VectorStore
from engines.errors import StoreUnavailable
from engines.store import Filter, NewRecord, Space
from engines.store.index_options import IndexOptions
from engines.store.pgvector import PgVectorJournal
from engines.types import Embeddings
from graphs.settings import Store

POOL = 4
"""Threads that search over connections of their own."""
HALF = Filter(labels={"half": "1"})
"""What half of the records carry."""


@dataclass(frozen=True, slots=True)
class Row:
    """One size, "compared" with all or through "hnsw". Milliseconds: medians, and 95 % where it says so.

    recall: part of the searches whose best match is the best of all. filtered: by a label that half of the
    records have. together, pooled: TOGETHER searches, in one statement and from POOL threads. ready_s: to
    write the records, or to build the index. bytes_each: of a record in its tables, or in the index.
    """

    records: int
    dim: int
    way: str
    recall: float
    p50_ms: float
    p95_ms: float
    filtered_ms: float
    together_ms: float
    pooled_ms: float
    register_p50_ms: float
    register_p95_ms: float
    ready_s: float
    bytes_each: float


@dataclass(frozen=True, slots=True)
class Erasure:
    """A rewriting of all tables, beside calls one after the other: the longest of each kind.

    stored_s: reads of names, as searches in memory make. search_s: by pgvector, without its index as soon as
    that is dropped. refused: registrations that got no lock in time.
    """

    records: int
    took_s: float
    stored_s: float
    search_s: float
    register_s: float
    refused: int


@dataclass(frozen=True, slots=True)
class Task:
    """What is searched. queries: shape (n, dim); best: position of the best match of each."""

    space: Space
    queries: Embeddings
    best: Sequence[int]
    rounds: int


def person(space: Space, vector: np.ndarray, number: int) -> NewRecord:
    """A record of `bench.store`, with a label that half of all have."""
    return replace(record(vector, number), space=space, labels={"half": str(number % 2)})


def fill(journal: PgVectorJournal, space: Space, rows: Embeddings) -> None:
    """Writes all, in transactions of APPENDED."""
    people = [person(space, row, number) for number, row in enumerate(rows)]
    for start in range(0, len(people), APPENDED):
        journal.append(people[start : start + APPENDED])


def searched(spec: StoreSpec, task: Task) -> dict[str, float]:
    """Through `VectorStore`."""

    async def run(store: VectorStore) -> dict[str, float]:
        await store.reconfigure({"max_batch_size": TOGETHER})
        right: list[bool] = []

        async def ask(number: int, together: int, only: Filter | None = None) -> float:
            asked = [(number * together + one) % len(task.queries) for one in range(together)]
            requests = [
                SearchRequest(task.space, task.queries[one], FOUND, only or Filter()) for one in asked
            ]
            began = time.perf_counter()
            outcomes = await asyncio.gather(*(store.search(one, math.inf) for one in requests))
            took = 1000 * (time.perf_counter() - began)
            for one, outcome in zip(asked, outcomes, strict=True):
                if isinstance(outcome, Exception):
                    raise outcome
                if only is None:
                    right.append(outcome.matches[0].position == task.best[one])
            return took

        for number in range(5):  # connections are made, pages are read
            await ask(number, 1)
        right.clear()
        alone = [await ask(number, 1) for number in range(4 * task.rounds)]
        return {
            "p50_ms": median(alone),
            "p95_ms": percentile(alone, 0.95),
            "together_ms": median([await ask(number, TOGETHER) for number in range(task.rounds)]),
            "filtered_ms": median([await ask(number, 1, HALF) for number in range(task.rounds)]),
            "recall": float(np.mean(right)),
        }

    with closing(VectorStore(spec)) as store:
        return asyncio.run(run(store))


def pooled(journal: PgVectorJournal, task: Task) -> float:
    """Milliseconds of TOGETHER searches from POOL threads."""

    def search(query: np.ndarray) -> None:
        journal.search(task.space, query[np.newaxis], FOUND)

    with ThreadPoolExecutor(POOL) as pool:
        return median(
            1000 * timed(lambda: list(pool.map(search, task.queries[:TOGETHER]))) for _ in range(task.rounds)
        )


def registered(journal: PgVectorJournal, task: Task, first: int) -> list[float]:
    """Milliseconds of registrations of one record each; they are deleted again."""
    people = [person(task.space, row, first + number) for number, row in enumerate(task.queries[:50])]
    took = [1000 * timed(partial(journal.append, [one])) for one in people]
    journal.delete(task.space.namespace, [one.id for one in people])
    return took


def erased(url: str, options: IndexOptions, task: Task) -> Erasure:
    """After the deletion of one record."""
    done = threading.Event()
    refused: list[StoreUnavailable] = []

    def longest(call: Callable[[PgVectorJournal, int], object]) -> float:
        with closing(PgVectorJournal(url, options)) as own:
            took: list[float] = []
            while not (took and done.is_set()):
                took.append(timed(partial(call, own, len(took))))
            return max(took)

    def read(own: PgVectorJournal, number: int) -> None:
        own.stored([task.best[number % len(task.best)]])

    def search(own: PgVectorJournal, number: int) -> None:
        own.search(task.space, task.queries[number % len(task.queries)][np.newaxis], FOUND)

    def register(own: PgVectorJournal, number: int) -> None:
        try:
            own.append([replace(person(task.space, task.queries[0], 0), id=f"beside {number}")])
        except StoreUnavailable as error:
            refused.append(error)

    with closing(PgVectorJournal(url, options)) as journal, ThreadPoolExecutor(3) as pool:
        journal.append([replace(person(task.space, task.queries[0], 0), id="gone")])
        journal.delete(task.space.namespace, ["gone"])
        calls = [pool.submit(longest, call) for call in (read, search, register)]
        try:
            took = timed(journal.compact)
        finally:
            done.set()
        count = journal.count(task.space.namespace, Filter())
        waited = [call.result() for call in calls]
        return Erasure(count, took, waited[0], waited[1], waited[2], len(refused))


def size(url: str, relations: str) -> int:
    """Bytes of those whose names begin so."""
    engine = create_engine(url)
    query = text(
        "SELECT coalesce(sum(pg_table_size(oid)), 0) FROM pg_class WHERE relname ~ :names AND relnamespace = "
        "(SELECT relnamespace FROM pg_class WHERE oid = 'vectors'::regclass) AND relkind IN ('r', 'i')"
    )
    with engine.connect() as connection:
        total = int(connection.execute(query, {"names": f"^({relations})"}).scalar_one())
    engine.dispose()
    return total


def measured(url: str, rows: Embeddings, queries: Embeddings, rounds: int) -> tuple[list[Row], Erasure]:
    """Both ways at one size, in a space of its own; then an erasure from all that there is."""
    space = Space(f"face/{len(rows)}", "bench")
    settings = Store(kind="pgvector", url=url).index
    options = IndexOptions(**{**settings.model_dump(), "approximate_from": 1})
    best = (queries @ rows.T).argmax(axis=1)
    made: list[Row] = []
    with closing(PgVectorJournal(url, options)) as journal:
        if space in journal.spaces():
            raise SystemExit("the database is not empty")
        first = journal.head() + 1
        task = Task(space, queries, (best + first).tolist(), rounds)
        tables = "records|embeddings|labels|vectors$|vectors_pkey|vectors_space$"
        for way, relations, call in (
            ("compared", tables, partial(fill, journal, space, rows)),
            ("hnsw", "vectors_[0-9]", journal.keep_up),
        ):
            before = size(url, relations)
            ready = timed(call)
            room = (size(url, relations) - before) / len(rows)
            how = replace(options, kind="flat") if way == "compared" else options
            figures = searched(StoreSpec(url, "pgvector", how), task)
            took = registered(journal, task, len(rows))
            made.append(
                Row(
                    records=len(rows),
                    dim=rows.shape[1],
                    way=way,
                    **figures,
                    pooled_ms=pooled(journal, task),
                    register_p50_ms=median(took),
                    register_p95_ms=percentile(took, 0.95),
                    ready_s=ready,
                    bytes_each=room,
                )
            )
    return made, erased(url, options, task)


def server(url: str) -> dict[str, str]:
    """What the figures depend on, beside the machine."""
    engine = create_engine(url)
    with engine.connect() as connection:
        told = {
            name: str(connection.exec_driver_sql(f"SHOW {name}").scalar_one())
            for name in ("server_version", "shared_buffers", "maintenance_work_mem", "fsync")
        }
        version = "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
        told["pgvector"] = str(connection.exec_driver_sql(version).scalar_one())
    engine.dispose()
    return told


def table(title: str, rows: Sequence[Row] | Sequence[Erasure]) -> Table:
    """For people: a column a field."""
    shown = Table(title=title)
    for name in asdict(rows[0]):
        shown.add_column(name.replace("_", " "), justify="right")
    for row in rows:
        shown.add_row(
            *(value if isinstance(value, str) else f"{value:,.4g}" for value in asdict(row).values())
        )
    return shown


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a table, and writes JSON where `--json` says."""
    parser = argparse.ArgumentParser(prog="python -m bench.pgvector", description=__doc__)
    parser.add_argument("--url", required=True, help="of an empty database")
    parser.add_argument("--records", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=30, help="of searches; four times as many one by one")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args(arguments)
    console = Console(width=220)
    rows: list[Row] = []
    erasures: list[Erasure] = []
    for many in chosen.records:
        people = max(many // 10, 1)
        vectors, queries = samples(many, chosen.dim, people, 1), samples(4 * TOGETHER, chosen.dim, people, 2)
        of_size, erasure = measured(chosen.url, vectors, queries, chosen.rounds)
        rows += of_size
        erasures.append(erasure)
        console.print(f"{many:,} records: measured", style="dim")
    console.print(table("Searches by Postgres", rows))
    console.print(table("Tables rewritten", erasures))
    facts = machine() | {"postgres": server(chosen.url)}
    console.print(f"{facts['postgres']}")
    console.print(f"load average of the machine: {facts['load_average']} on {cores()} cores")
    if chosen.json:
        told = {"machine": facts, "rows": rows, "erasures": erasures}
        chosen.json.write_text(json.dumps(told, indent=1, default=asdict))


if __name__ == "__main__":
    main()
