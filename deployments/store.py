"""The store as a Serve deployment: every replica answers with every acknowledged write."""

import asyncio
import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from deployments.batching import Batcher
from deployments.messages import Found, Page, SearchRequest
from deployments.metrics import BatchMetrics
from engines.errors import InvalidInput, PresenceError
from engines.store import Answer, Filter, Journal, NewRecord, Searcher, Stored
from engines.store.index_options import IndexOptions
from engines.store.journal import SqlJournal
from engines.store.pgvector import PgVectorJournal
from engines.store.replica import StoreReplica
from engines.store.snapshot import SnapshotFolder

T = TypeVar("T")

logger = logging.getLogger("presence.store")

READERS = 4
"""Threads for reads of the journal beside searches and writes."""

KEEP_UP_EVERY_S = 15.0
"""Seconds between looks at what the searcher should build or write, at the most."""


@dataclass(frozen=True, slots=True)
class StoreSpec:
    """What a replica needs. url: of the journal; snapshots: directory, None for none.

    kind: "faiss" searches in the replica's memory, "pgvector" in Postgres: without snapshots.
    compact_every_s: how often deletions are made to leave Postgres's tables, None for never.
    allow_stale: whether searches go on from memory while the journal is away.
    """

    url: str
    kind: Literal["faiss", "pgvector"] = "faiss"
    index: IndexOptions = field(default_factory=IndexOptions)
    snapshots: Path | None = None
    snapshot_every_s: float = 300.0
    compact_every_s: float | None = 86_400.0
    allow_stale: bool = False


def _opened(spec: StoreSpec) -> tuple[Journal, Searcher]:
    if spec.kind == "pgvector":
        both = PgVectorJournal(spec.url, spec.index)
        if spec.snapshots and spec.snapshots.is_dir():  # of the other kind: nobody would replace them
            SnapshotFolder(spec.snapshots, both.identity()).clear()
        return both, both
    journal = SqlJournal(spec.url)
    return journal, StoreReplica(
        journal,
        spec.index,
        spec.snapshots,
        snapshot_every_s=spec.snapshot_every_s,
        remember=spec.allow_stale,
    )


class VectorStore:
    """Journal and searcher. Searches of many callers become one call, writes one transaction."""

    def __init__(self, spec: StoreSpec) -> None:
        self._journal, self._searcher = _opened(spec)
        self._allow_stale = spec.allow_stale
        self._searcher.catch_up()
        self._searches: Batcher[SearchRequest, Found] = Batcher(
            self._search_all, max_size=1, wait_s=0.0, observer=BatchMetrics("store", "search")
        )
        self._writes: Batcher[NewRecord, int] = Batcher(
            self._append_all, max_size=1, wait_s=0.0, observer=BatchMetrics("store", "write")
        )
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="journal")
        self._upkeeper = ThreadPoolExecutor(1, thread_name_prefix="upkeep")  # it may be at it for minutes
        self._compact_every_s = spec.compact_every_s
        self._keep_up_every_s = min(
            spec.snapshot_every_s, spec.compact_every_s or KEEP_UP_EVERY_S, KEEP_UP_EVERY_S
        )
        self._upkeep: asyncio.Task[None] | None = None

    async def reconfigure(self, config: dict[str, float]) -> None:
        """Takes max_batch_size from `user_config`; starts the upkeep."""
        self._searches.max_size = self._writes.max_size = int(config["max_batch_size"])
        if self._upkeep is None:
            self._upkeep = asyncio.create_task(self._keep_up())

    def close(self) -> None:
        """Waits for reads and upkeep, and ends the connections; nothing may be called afterwards."""
        if self._upkeep is not None:
            self._upkeep.cancel()
        self._readers.shutdown()
        self._upkeeper.shutdown()
        self._journal.close()

    async def check_health(self) -> None:
        """The process answers; a journal that is away is no reason to restart a replica."""

    async def register(self, records: Sequence[NewRecord], deadline: float) -> list[int] | PresenceError:
        """Positions of the records, once they are durable."""
        try:
            return list(await asyncio.gather(*(self._writes.submit(record, deadline) for record in records)))
        except PresenceError as error:
            return error

    async def put(self, records: Sequence[NewRecord], _: float) -> bool | PresenceError:
        """Writes records; one whose id lives keeps its embedding and takes the new value."""

        def write() -> bool:
            self._journal.put(records)
            return True

        return await self._read(write)

    async def search(self, request: SearchRequest, deadline: float) -> Found | PresenceError:
        """The nearest records of a space, best first."""
        try:
            return await self._searches.submit(request, deadline)
        except PresenceError as error:
            return error

    async def delete(self, request: tuple[str, Sequence[str]], _: float) -> list[str] | PresenceError:
        """Deletes ids of a namespace; the ids that lived."""
        return await self._read(partial(self._journal.delete, *request))

    async def update(
        self, request: tuple[str, str, str | None, Mapping[str, str] | None], _: float
    ) -> bool | PresenceError:
        """Namespace, id, new name and new labels (None: as they are). False when no such record lives."""
        namespace, record_id, name, labels = request
        return await self._read(partial(self._journal.update, namespace, record_id, name=name, labels=labels))

    async def get(self, request: tuple[str, str], _: float) -> Stored | PresenceError | None:
        """The living record of a namespace and id."""
        return await self._read(partial(self._journal.get, *request))

    async def listed(self, request: tuple[str, Filter, int, int], _: float) -> Page | PresenceError:
        """Namespace, filter, position to start behind, limit."""
        namespace, chosen, after, limit = request

        def page() -> Page:
            records = self._journal.listed(namespace, chosen, after=after, limit=limit)
            return Page(tuple(records), self._journal.count(namespace, chosen))

        return await self._read(page)

    async def holding(self, request: tuple[str, str], _: float) -> list[str] | PresenceError:
        """Namespaces that start with the first and hold a record of the second, an id; sorted."""
        return await self._read(partial(self._journal.holding, *request))

    async def _read(self, call: Callable[[], T]) -> T | PresenceError:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._readers, call)
        except PresenceError as error:
            return error

    async def _keep_up(self) -> None:
        """The replica whose turn comes first does it for all that share the folder or the database."""
        loop = asyncio.get_running_loop()
        works: list[Callable[[], None]] = [self._searcher.keep_up]
        if self._compact_every_s is not None:
            works.insert(0, partial(self._journal.compact_when_due, self._compact_every_s))
        while True:
            await asyncio.sleep(self._keep_up_every_s)
            for work in works:
                (outcome,) = await asyncio.gather(
                    loop.run_in_executor(self._upkeeper, work), return_exceptions=True
                )
                if isinstance(outcome, PresenceError):
                    logger.warning("upkeep of the store: %s", outcome.message)
                elif isinstance(outcome, BaseException):  # it is tried again: without it nothing is erased
                    logger.error("upkeep of the store failed", exc_info=outcome)

    def _append_all(self, records: list[NewRecord]) -> list[int | PresenceError]:
        """One transaction; when a record is refused, one for each, so that it is refused alone."""
        try:
            return list(self._journal.append(records))
        except InvalidInput as error:
            if len(records) == 1:
                return [error]
        except PresenceError as error:
            return [error] * len(records)
        return [self._append_all([record])[0] for record in records]

    def _search_all(self, requests: list[SearchRequest]) -> list[Found | PresenceError]:
        """One call of the searcher for the requests that share space and filter."""
        answers: dict[int, Found | PresenceError] = {}
        groups: dict[Hashable, list[int]] = {}
        for index, request in enumerate(requests):
            chosen = request.only.name, frozenset(request.only.labels.items())
            kind = request.space, len(request.query), chosen, request.with_embeddings
            groups.setdefault(kind, []).append(index)
        for together in groups.values():
            answers.update(zip(together, self._search([requests[i] for i in together]), strict=True))
        return [answers[index] for index in range(len(requests))]

    def _search(self, requests: list[SearchRequest]) -> Sequence[Found | PresenceError]:
        first = requests[0]
        depth = max(request.k for request in requests)
        queries = np.concatenate([request.query for request in requests]).reshape(len(requests), -1)
        try:
            answer = self._searcher.search(
                first.space,
                queries,
                depth,
                first.only,
                with_embeddings=first.with_embeddings,
                allow_stale=self._allow_stale,
            )
        except PresenceError as error:
            return [error] * len(requests)
        found = [
            Found(tuple(matches[: request.k]), answer.age_s)
            for request, matches in zip(requests, answer.matches, strict=True)
        ]
        if first.with_embeddings:
            return [_with_embeddings(one, answer) for one in found]
        return found


def _with_embeddings(found: Found, answer: Answer) -> Found:
    positions = [match.position for match in found.matches]
    return found._replace(
        embeddings={one: answer.embeddings[one] for one in positions if one in answer.embeddings}
    )
