"""Dynamic batching inside one replica."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from engines.errors import DeadlineExceeded, PresenceError

In = TypeVar("In")
Out = TypeVar("Out")


class BatchObserver(Protocol):
    """Is told what every batch cost."""

    def batch(self, size: int, waits_s: Sequence[float], model_s: float) -> None:
        """A batch of `size` items ran for model_s seconds; its items had waited waits_s seconds."""
        ...

    def expired(self, items: int) -> None:
        """That many items were dropped past their deadline, whether or not their caller still waited."""
        ...


@dataclass(slots=True)
class _Job(Generic[In, Out]):
    item: In
    deadline: float
    queued_at: float
    future: "asyncio.Future[Out]"


class Batcher(Generic[In, Out]):
    """Runs queued items through the model together, as many as have come while it was busy.

    The model runs in one thread of its own, so that the event loop stays free. An idle model starts
    at once, or after `wait_s` when it should wait for company. Items whose caller has gone or whose
    deadline has passed are dropped before the model sees them. When a batch fails as a whole, its
    items are run one by one, so that only the culprit fails.

    run: takes a list and returns as many outcomes; a PresenceError among them is raised to its caller.
    """

    def __init__(
        self,
        run: Callable[[list[In]], Sequence[Out | PresenceError]],
        *,
        max_size: int,
        wait_s: float,
        observer: BatchObserver | None = None,
    ) -> None:
        self.max_size = max_size
        self.wait_s = wait_s
        self._run = run
        self._observer = observer
        self._queue: deque[_Job[In, Out]] = deque()
        self._arrived = asyncio.Event()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        self._worker: asyncio.Task[None] | None = None
        self._proved = False

    async def submit(self, item: In, deadline: float) -> Out:
        """The model's outcome for one item. deadline: seconds since the epoch.

        Raises the item's own PresenceError, DeadlineExceeded, or what the model raised.
        """
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        future: asyncio.Future[Out] = asyncio.get_running_loop().create_future()
        self._queue.append(_Job(item, deadline, time.monotonic(), future))
        self._arrived.set()
        return await future

    async def check(self, item: In) -> None:
        """Probes with the item, unless the last batch since the check before has shown that the model works.

        Raises what `probe` raises.
        """
        proved, self._proved = self._proved, False
        if not proved:
            await self.probe(item)

    async def probe(self, item: In) -> Out:
        """Runs one item past the queue, after at most the batch that is running: for health checks."""
        outcome = (await self._in_thread([item]))[0]
        if isinstance(outcome, PresenceError):
            raise outcome
        return outcome

    async def _work(self) -> None:
        while True:
            await self._arrived.wait()
            if self.wait_s and len(self._queue) < self.max_size:
                await asyncio.sleep(self.wait_s)
            jobs = self._take()
            if not self._queue:
                self._arrived.clear()
            if jobs:
                await self._answer(jobs)

    def _take(self) -> list[_Job[In, Out]]:
        """The next jobs that are still wanted, at most max_size; the expired ones are answered here.

        A caller gives up at the same deadline, so an expired job has often been cancelled already.
        """
        jobs: list[_Job[In, Out]] = []
        expired, now = 0, time.time()
        while self._queue and len(jobs) < self.max_size:
            job = self._queue.popleft()
            late = job.deadline < now
            expired += late
            if job.future.done():
                continue
            if late:
                job.future.set_exception(DeadlineExceeded("the deadline passed while the request waited"))
            else:
                jobs.append(job)
        if expired and self._observer:
            self._observer.expired(expired)
        return jobs

    async def _answer(self, jobs: list[_Job[In, Out]]) -> None:
        started = time.monotonic()
        running = self._in_thread([job.item for job in jobs])
        await asyncio.wait([running])
        if (error := running.exception()) and len(jobs) > 1:
            for job in jobs:
                await self._answer([job])
            return
        if self._observer:
            waits = [started - job.queued_at for job in jobs]
            self._observer.batch(len(jobs), waits, time.monotonic() - started)
        outcomes = [error] if error else running.result()
        self._proved = any(not isinstance(outcome, BaseException) for outcome in outcomes)
        for job, outcome in zip(jobs, outcomes, strict=True):
            if job.future.done():
                continue
            if isinstance(outcome, BaseException):
                job.future.set_exception(outcome)
            else:
                job.future.set_result(outcome)

    def _in_thread(self, items: list[In]) -> "asyncio.Future[Sequence[Out | PresenceError]]":
        return asyncio.get_running_loop().run_in_executor(self._executor, self._checked, items)

    def _checked(self, items: list[In]) -> Sequence[Out | PresenceError]:
        outcomes = self._run(items)
        if len(outcomes) != len(items):
            raise RuntimeError(f"the model took {len(items)} items and returned {len(outcomes)} outcomes")
        return outcomes
