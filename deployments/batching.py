"""Dynamic batching inside one replica."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, Protocol, TypeVar

from engines.errors import DeadlineExceeded, PresenceError

In = TypeVar("In")
Out = TypeVar("Out")


class BatchObserver(Protocol):
    """Is told what every batch cost."""

    def batch(self, size: int, wait_s: float, model_s: float) -> None:
        """A batch of `size` items ran for model_s seconds; the first to come had waited wait_s seconds."""
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


@dataclass(slots=True)
class _Batch(Generic[In, Out]):
    """late: what the model's thread found past its deadline, no longer among the jobs."""

    jobs: list[_Job[In, Out]]
    late: list[_Job[In, Out]] = field(default_factory=list)
    started_at: float = 0.0
    model_s: float = 0.0


class Batcher(Generic[In, Out]):
    """Runs queued items through the model together, as many as have come while it was busy.

    The model runs in one thread of its own, so that the event loop stays free. An idle model starts
    at once, or after `wait_s` when it should wait for company. As soon as there is a full batch, it waits
    in the model's own queue, so that between two batches the model need not wait for the event loop.
    Items whose caller has gone or whose deadline has passed are dropped before the model sees them. When
    a batch fails as a whole, its items are run one by one, so that only the culprit fails.

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
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        self._launched = 0
        self._is_starting = False
        self._proved = False

    async def submit(self, item: In, deadline: float) -> Out:
        """The model's outcome for one item. deadline: seconds since the epoch.

        Raises the item's own PresenceError, DeadlineExceeded, or what the model raised.
        """
        future: asyncio.Future[Out] = asyncio.get_running_loop().create_future()
        self._queue.append(_Job(item, deadline, time.monotonic(), future))
        self._keep_busy()
        return await future

    async def check(self, item: In) -> None:
        """Probes with the item, unless the last batch since the check before has shown that the model works.

        Raises what `probe` raises.
        """
        proved, self._proved = self._proved, False
        if not proved:
            await self.probe(item)

    async def probe(self, item: In) -> Out:
        """Runs one item past the queue, after what the model was given already: for health checks."""
        loop = asyncio.get_running_loop()
        outcome = (await loop.run_in_executor(self._executor, self._checked, [item]))[0]
        if isinstance(outcome, PresenceError):
            raise outcome
        return outcome

    def _keep_busy(self) -> None:
        """An idle model gets what has come by the next turn of the loop, a busy one a full batch ahead."""
        if self._launched == 1 and len(self._queue) >= self.max_size:
            self._start()
        elif not self._launched and not self._is_starting and self._queue:
            self._is_starting = True
            loop = asyncio.get_running_loop()
            if self.wait_s and len(self._queue) < self.max_size:
                loop.call_later(self.wait_s, self._start)
            else:
                loop.call_soon(self._start)

    def _start(self) -> None:
        self._is_starting = False
        if jobs := self._take():
            self._launch(jobs)
            self._keep_busy()

    def _take(self) -> list[_Job[In, Out]]:
        """The next jobs that are still wanted, at most max_size; the expired ones are answered here."""
        jobs: list[_Job[In, Out]] = []
        late: list[_Job[In, Out]] = []
        now = time.time()
        while self._queue and len(jobs) < self.max_size:
            job = self._queue.popleft()
            if job.deadline < now:
                late.append(job)
            elif not job.future.done():
                jobs.append(job)
        self._refuse(late)
        return jobs

    def _refuse(self, late: list[_Job[In, Out]]) -> None:
        """A caller gives up at the same deadline, so an expired job has often been cancelled already."""
        for job in late:
            if not job.future.done():
                job.future.set_exception(DeadlineExceeded("the deadline passed while the request waited"))
        if late and self._observer:
            self._observer.expired(len(late))

    def _launch(self, jobs: list[_Job[In, Out]]) -> None:
        self._launched += 1
        batch = _Batch(jobs)
        running = asyncio.get_running_loop().run_in_executor(self._executor, self._run_batch, batch)
        running.add_done_callback(partial(self._answer, batch))

    def _run_batch(self, batch: _Batch[In, Out]) -> Sequence[Out | PresenceError]:
        """In the model's thread. While the batch waited for it, some may have lost their callers."""
        now = time.time()
        batch.late = [job for job in batch.jobs if job.deadline < now]
        batch.jobs = [job for job in batch.jobs if job.deadline >= now and not job.future.done()]
        batch.started_at = time.monotonic()
        outcomes = self._checked([job.item for job in batch.jobs]) if batch.jobs else []
        batch.model_s = time.monotonic() - batch.started_at
        return outcomes

    def _answer(self, batch: _Batch[In, Out], ran: "asyncio.Future[Sequence[Out | PresenceError]]") -> None:
        self._launched -= 1
        jobs, error = batch.jobs, ran.exception()
        if error and len(jobs) > 1:
            for job in jobs:
                self._launch([job])
            self._refuse(batch.late)
            return
        self._keep_busy()
        self._refuse(batch.late)
        if self._observer and jobs:
            self._observer.batch(len(jobs), batch.started_at - jobs[0].queued_at, batch.model_s)
        outcomes = [error] if error else ran.result()
        if jobs:
            self._proved = any(not isinstance(outcome, BaseException) for outcome in outcomes)
        for job, outcome in zip(jobs, outcomes, strict=True):
            if job.future.done():
                continue
            if isinstance(outcome, BaseException):
                job.future.set_exception(outcome)
            else:
                job.future.set_result(outcome)

    def _checked(self, items: list[In]) -> Sequence[Out | PresenceError]:
        try:
            outcomes = self._run(items)
        except StopIteration as error:  # no future can hold it
            raise RuntimeError("the model raised StopIteration") from error
        if len(outcomes) != len(items):
            raise RuntimeError(f"the model took {len(items)} items and returned {len(outcomes)} outcomes")
        return outcomes
