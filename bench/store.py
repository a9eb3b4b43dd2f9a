"""The store in one process beside bare FAISS: `python -m bench.store`.

Four parts: registrations a second into a journal in SQLite; searches through the store beside the same
searches in an index of FAISS alone, taking turns; the time to start, from a snapshot and from the journal;
the room that a record takes. The vectors are made as those of `bench.index`. FAISS uses one thread.
"""

import argparse
import asyncio
import gc
import json
import math
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import faiss as faiss_library
import numpy as np
import uvloop
from rich.console import Console

from bench.index import samples
from bench.report import cores, figures, machine, percentile
from deployments.messages import SearchRequest
from deployments.store import StoreSpec, VectorStore
from engines.store import NewRecord, Space
from engines.store.journal import SqlJournal
from engines.store.replica import StoreReplica
from engines.store.segment import BLAS_FROM
from engines.types import Embeddings

faiss: Any = faiss_library  # its type stubs lack half of what is used here

SPACE = Space("face/default", "bench")
CLIENTS = (1, 32)
TOGETHER = 64
"""Searches of one batch."""
ASKERS = 2 * TOGETHER
"""Callers who search one after another, so that the next batch has come when one is answered."""
BATCHES = 8
"""Batches of which throughput is told, each round."""
FOUND = 5
"""Records that each search asks for."""
RATIO_WANTED = 1.3
"""Most times that the store may take of the bare search for as many searches in batches."""
APPENDED = 1000
"""Records of one transaction while the journal is filled."""


@dataclass(frozen=True, slots=True)
class Enrolled:
    """Registrations of one sample each. through: "store" with its batches, "journal" from threads."""

    through: str
    clients: int
    per_s: float
    p50_ms: float
    p95_ms: float


@dataclass(frozen=True, slots=True)
class Searched:
    """One size. Medians and 95 % of one search; medians of TOGETHER at a time until all are answered.

    bare_per_s, per_s: searches in batches of TOGETHER; those of the store for ASKERS callers.
    ratio: of these, bare over store. cpu_ratio: store over bare of the CPU time of the process meanwhile,
    which the machine's other work hardly changes.
    """

    records: int
    dim: int
    bare_p50_ms: float
    bare_p95_ms: float
    p50_ms: float
    p95_ms: float
    bare_together_ms: float
    together_ms: float
    bare_per_s: float
    per_s: float
    ratio: float
    cpu_ratio: float


@dataclass(frozen=True, slots=True)
class Kept:
    """Seconds and bytes of one size.

    fill_s: to write the journal, in transactions of APPENDED. memory: growth of the process, a record.
    search_meanwhile_ms: the longest of the single searches, one after another, while the snapshot is written.
    name: memory of a record's id, name and label, kept once it was found.
    """

    records: int
    fill_s: float
    from_journal_s: float
    snapshot_s: float
    search_meanwhile_ms: float
    from_snapshot_s: float
    journal_bytes_each: float
    snapshot_bytes_each: float
    memory_bytes_each: float
    name_bytes_each: float


def record(vector: np.ndarray, number: int) -> NewRecord:
    """A person with one label."""
    name = f"person {number}"
    return NewRecord(f"{number:032x}", SPACE, vector, name, {"badge": str(number)}, created_at=1.0)


def timed(call: Callable[[], object]) -> float:
    """Seconds."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def enrolled_in_store(url: str, rows: Embeddings, clients: int, seconds: float) -> Enrolled:
    """Through `VectorStore`, whose batches become transactions."""

    async def run() -> list[float]:
        await store.reconfigure({"max_batch_size": TOGETHER})
        numbers, took = count(), list[float]()
        until = time.perf_counter() + seconds

        async def client() -> None:
            while (began := time.perf_counter()) < until:
                number = next(numbers)
                one = record(rows[number % len(rows)], number)
                outcome = await store.register([one], math.inf)
                if isinstance(outcome, Exception):
                    raise outcome
                took.append(time.perf_counter() - began)

        await asyncio.gather(*(client() for _ in range(clients)))
        return took

    with closing(VectorStore(StoreSpec(url))) as store:
        return _enrolled("store", clients, seconds, uvloop.run(run()))


def enrolled_in_journal(url: str, rows: Embeddings, clients: int, seconds: float) -> Enrolled:
    """Through `SqlJournal` from as many threads."""
    journal, numbers, took = SqlJournal(url), count(), list[float]()
    until = time.perf_counter() + seconds

    def client() -> None:
        while (began := time.perf_counter()) < until:
            number = next(numbers)
            journal.append([record(rows[number % len(rows)], number)])
            took.append(time.perf_counter() - began)

    with ThreadPoolExecutor(clients) as pool:
        for task in [pool.submit(client) for _ in range(clients)]:
            task.result()
    journal.close()
    return _enrolled("journal", clients, seconds, took)


def _enrolled(through: str, clients: int, seconds: float, took: Sequence[float]) -> Enrolled:
    milliseconds = [1000 * one for one in took]
    return Enrolled(
        through, clients, len(took) / seconds, median(milliseconds), percentile(milliseconds, 0.95)
    )


def kept(url: str, folder: Path, rows: Embeddings) -> Kept:
    """Fills a journal and starts replicas on it."""
    journal = SqlJournal(url)
    numbered = [range(start, min(start + APPENDED, len(rows))) for start in range(0, len(rows), APPENDED)]

    def fill() -> None:
        for numbers in numbered:
            journal.append([record(rows[number], number) for number in numbers])

    fill_s = timed(fill)
    snapshots = folder / "snapshots"
    before = resident_bytes()
    replica = StoreReplica(journal, snapshots=snapshots)
    from_journal = timed(replica.catch_up)
    memory = resident_bytes() - before
    snapshot, longest = saved_beside_searches(replica, rows[:1])
    del replica
    gc.collect()
    from_snapshot = timed(StoreReplica(journal, snapshots=snapshots).catch_up)
    names = name_bytes(journal, min(len(rows), 10_000))
    journal.close()
    size = sum(path.stat().st_size for path in folder.glob("presence.db*"))
    saved = sum(path.stat().st_size for path in snapshots.rglob("*.index"))
    many = len(rows)
    each = size / many, saved / many, memory / many, names
    return Kept(many, fill_s, from_journal, snapshot, 1000 * longest, from_snapshot, *each)


def saved_beside_searches(replica: StoreReplica, query: Embeddings) -> tuple[float, float]:
    """Seconds that a snapshot takes, and the longest search meanwhile."""
    replica.search(SPACE, query, FOUND)
    searches: list[float] = []
    with ThreadPoolExecutor(1) as pool:
        saving = pool.submit(timed, replica.snapshot)
        while not saving.done():
            searches.append(timed(partial(replica.search, SPACE, query, FOUND)))
    return saving.result(), max(searches)


def name_bytes(journal: SqlJournal, count: int) -> float:
    """Memory of each of the first records without its embedding."""
    tracemalloc.start()
    stored = journal.stored(range(1, count + 1))
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size / len(stored)


def resident_bytes() -> int:
    """Memory of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


@dataclass(slots=True)
class Spent:
    """Milliseconds and CPU milliseconds of one way to search, by round."""

    took: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def note(self, began: float, cpu_began: float) -> None:
        """Of a round that began then, by `perf_counter` and `process_time`, and ends now."""
        self.took.append(1000 * (time.perf_counter() - began))
        self.cpu.append(1000 * (time.process_time() - cpu_began))


async def asked(store: VectorStore, queries: Embeddings, callers: int) -> None:
    """All queries, by so many callers who take turns. Raises RuntimeError unless all find enough."""
    left = iter(queries)

    async def caller() -> None:
        for query in left:
            outcome = await store.search(SearchRequest(SPACE, query, FOUND), math.inf)
            if isinstance(outcome, Exception):
                raise outcome
            if len(outcome.matches) != FOUND:
                raise RuntimeError(f"{len(outcome.matches)} records were found, not {FOUND}")

    await asyncio.gather(*(caller() for _ in range(callers)))


def searched(url: str, folder: Path, rows: Embeddings, queries: Embeddings, rounds: int) -> Searched:
    """Store and bare FAISS take turns. The bare one answers with rows, the store with people."""
    bare = bare_index(rows)
    spent = {(way, part): Spent() for way in ("bare", "store") for part in ("one", "batch", "batches")}

    async def run() -> None:
        await store.reconfigure({"max_batch_size": TOGETHER})
        for number in range(-1, rounds):  # the first one warms up
            batch = queries[(np.arange(TOGETHER) + TOGETHER * number) % len(queries)]
            for part, several, callers in (
                ("one", batch[:1], 1),
                ("batch", batch, TOGETHER),
                ("batches", np.resize(queries, (BATCHES * TOGETHER, queries.shape[1])), ASKERS),
            ):
                began, cpu_began = time.perf_counter(), time.process_time()
                for start in range(0, len(several), TOGETHER):
                    bare.search(several[start : start + TOGETHER], FOUND)
                if number >= 0:
                    spent["bare", part].note(began, cpu_began)
                began, cpu_began = time.perf_counter(), time.process_time()
                await asked(store, several, callers)
                if number >= 0:
                    spent["store", part].note(began, cpu_began)

    with closing(VectorStore(StoreSpec(url, snapshots=folder / "snapshots"))) as store:
        uvloop.run(run())
    medians = {which: median(each.took) for which, each in spent.items()}
    many = 1000 * BATCHES * TOGETHER
    return Searched(
        records=len(rows),
        dim=rows.shape[1],
        bare_p50_ms=medians["bare", "one"],
        bare_p95_ms=percentile(spent["bare", "one"].took, 0.95),
        p50_ms=medians["store", "one"],
        p95_ms=percentile(spent["store", "one"].took, 0.95),
        bare_together_ms=medians["bare", "batch"],
        together_ms=medians["store", "batch"],
        bare_per_s=many / medians["bare", "batches"],
        per_s=many / medians["store", "batches"],
        ratio=medians["store", "batches"] / medians["bare", "batches"],
        cpu_ratio=median(spent["store", "batches"].cpu) / median(spent["bare", "batches"].cpu),
    )


def bare_index(rows: Embeddings) -> Any:
    """FAISS alone, of one thread, with the threshold that the store sets."""
    faiss.omp_set_num_threads(1)
    faiss.cvar.distance_compute_blas_threshold = BLAS_FROM * rows.shape[1]
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    return index


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints tables, and writes JSON where `--json` says."""
    parser = argparse.ArgumentParser(prog="python -m bench.store", description=__doc__)
    parser.add_argument("--records", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each kind of registration")
    parser.add_argument("--rounds", type=int, default=30, help="of searches, one and many at a time")
    parser.add_argument("--directory", type=Path, help="where the journals lie for the time of the run")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args(arguments)
    console = Console(width=200)
    enrolments: list[Enrolled] = []
    searches: list[Searched] = []
    sizes: list[Kept] = []
    few = samples(1000, chosen.dim, 100, 1)
    for measure in (enrolled_in_journal, enrolled_in_store):
        for clients in CLIENTS:
            with tempfile.TemporaryDirectory(dir=chosen.directory) as folder:
                url = f"sqlite:///{folder}/presence.db"
                enrolments.append(measure(url, few, clients, chosen.seconds))
    console.print(figures("Registrations", enrolments))
    for many in chosen.records:
        people = max(many // 10, 1)
        rows, queries = samples(many, chosen.dim, people, 1), samples(4 * TOGETHER, chosen.dim, people, 2)
        with tempfile.TemporaryDirectory(dir=chosen.directory) as folder:
            url = f"sqlite:///{folder}/presence.db"
            sizes.append(kept(url, Path(folder), rows))
            searches.append(searched(url, Path(folder), rows, queries, chosen.rounds))
        console.print(f"{many:,} records: measured", style="dim")
    console.print(figures("Room and start", sizes))
    console.print(figures(f"Searches; wanted: a ratio of at most {RATIO_WANTED}", searches))
    facts = machine()
    console.print(f"load average of the machine: {facts['load_average']} on {cores()} cores")
    if chosen.json:
        every = {"machine": facts, "enrolled": enrolments, "searched": searches, "kept": sizes}
        chosen.json.write_text(json.dumps(every, indent=1, default=asdict))


if __name__ == "__main__":
    main()
