"""The batcher: company while busy, order, deadlines, cancellation, isolation of failures."""

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest

from deployments.batching import Batcher
from engines.errors import DeadlineExceeded, NotDecodable, PresenceError

LATER = time.time() + 3600


class Gate:
    """A model that doubles numbers, records its batches, and waits until it is let go."""

    def __init__(self, *, shut: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.entered = threading.Event()
        self.go = threading.Event()
        self._changed = threading.Condition()
        if not shut:
            self.go.set()

    def __call__(self, items: list[int]) -> Sequence[int | PresenceError]:
        with self._changed:
            self.batches.append(items)
            self._changed.notify_all()
        self.entered.set()
        assert self.go.wait(10)
        return [NotDecodable("thirteen") if item == 13 else item * 2 for item in items]

    def wait_for_batches(self, count: int) -> None:
        """Keeps the event loop busy until that many have begun."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.batches) >= count, 10)


class Observed:
    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.dropped = 0

    def batch(self, size: int, wait_s: float, model_s: float) -> None:
        assert wait_s >= 0 <= model_s
        self.sizes.append(size)

    def expired(self, items: int) -> None:
        self.dropped += items


async def entered(gate: Gate) -> None:
    assert await asyncio.to_thread(gate.entered.wait, 10)


async def test_answers_each_caller_with_its_own_outcome() -> None:
    batcher = Batcher(Gate(), max_size=4, wait_s=0)
    assert await asyncio.gather(*(batcher.submit(n, LATER) for n in range(10))) == [n * 2 for n in range(10)]


async def test_what_comes_while_the_model_is_busy_forms_the_next_batch() -> None:
    gate = Gate(shut=True)
    observed = Observed()
    batcher = Batcher(gate, max_size=3, wait_s=0, observer=observed)
    first = asyncio.create_task(batcher.submit(1, LATER))
    await entered(gate)
    rest = [asyncio.create_task(batcher.submit(n, LATER)) for n in (2, 3, 4, 5)]
    await asyncio.sleep(0)
    gate.go.set()
    assert await asyncio.gather(first, *rest) == [2, 4, 6, 8, 10]
    assert gate.batches == [[1], [2, 3, 4], [5]]
    assert observed.sizes == [1, 3, 1]


async def test_an_idle_model_that_waits_collects_company() -> None:
    gate = Gate()
    batcher = Batcher(gate, max_size=8, wait_s=0.05)
    await asyncio.gather(*(batcher.submit(n, LATER) for n in range(4)))
    assert gate.batches == [[0, 1, 2, 3]]


async def test_one_bad_item_fails_alone() -> None:
    batcher = Batcher(Gate(), max_size=8, wait_s=0)
    outcomes = await asyncio.gather(*(batcher.submit(n, LATER) for n in (12, 13, 14)), return_exceptions=True)
    assert outcomes[0] == 24
    assert isinstance(outcomes[1], NotDecodable)
    assert outcomes[2] == 28


async def test_a_batch_that_crashes_is_run_item_by_item() -> None:
    def fragile(items: list[int]) -> Sequence[int]:
        return [10 // item for item in items]

    batcher = Batcher(fragile, max_size=8, wait_s=0)
    outcomes = await asyncio.gather(*(batcher.submit(n, LATER) for n in (1, 0, 5)), return_exceptions=True)
    assert outcomes[0] == 10
    assert isinstance(outcomes[1], ZeroDivisionError)
    assert outcomes[2] == 2


async def test_expired_and_abandoned_items_never_reach_the_model() -> None:
    gate = Gate(shut=True)
    observed = Observed()
    batcher = Batcher(gate, max_size=8, wait_s=0, observer=observed)
    running = asyncio.create_task(batcher.submit(1, LATER))
    await entered(gate)
    expired = asyncio.create_task(batcher.submit(2, time.time() - 1))
    abandoned = asyncio.create_task(batcher.submit(3, LATER))
    wanted = asyncio.create_task(batcher.submit(4, LATER))
    await asyncio.sleep(0)
    abandoned.cancel()
    await asyncio.sleep(0)
    gate.go.set()
    assert await running == 2
    assert await wanted == 8
    with pytest.raises(DeadlineExceeded):
        await expired
    assert gate.batches == [[1], [4]]
    assert observed.dropped == 1


async def test_a_full_batch_follows_without_the_event_loop() -> None:
    gate = Gate(shut=True)
    batcher = Batcher(gate, max_size=2, wait_s=0)
    first = asyncio.create_task(batcher.submit(1, LATER))
    await entered(gate)
    rest = [asyncio.create_task(batcher.submit(n, LATER)) for n in (2, 3, 4)]
    await asyncio.sleep(0)
    gate.go.set()
    gate.wait_for_batches(2)
    assert gate.batches == [[1], [2, 3]]
    assert await asyncio.gather(first, *rest) == [2, 4, 6, 8]
    assert gate.batches == [[1], [2, 3], [4]]


@pytest.mark.parametrize("gone", [(2,), (2, 3)])
async def test_what_is_abandoned_while_its_batch_waits_never_reaches_the_model(gone: tuple[int, ...]) -> None:
    gate = Gate(shut=True)
    observed = Observed()
    batcher = Batcher(gate, max_size=2, wait_s=0, observer=observed)
    first = asyncio.create_task(batcher.submit(1, LATER))
    await entered(gate)
    batch = {n: asyncio.create_task(batcher.submit(n, LATER)) for n in (2, 3)}
    await asyncio.sleep(0)
    for number in gone:
        batch[number].cancel()
    await asyncio.sleep(0)
    gate.go.set()
    assert await first == 2
    assert [await batch[n] for n in batch if n not in gone] == [2 * n for n in batch if n not in gone]
    assert await batcher.submit(5, LATER) == 10
    assert [n for each in gate.batches for n in each] == [1, *(n for n in batch if n not in gone), 5]
    assert sum(observed.sizes) == 4 - len(gone)
    assert observed.dropped == 0


async def test_what_expires_while_its_batch_waits_never_reaches_the_model() -> None:
    gate = Gate(shut=True)
    observed = Observed()
    batcher = Batcher(gate, max_size=2, wait_s=0, observer=observed)
    first = asyncio.create_task(batcher.submit(1, LATER))
    await entered(gate)
    late = asyncio.create_task(batcher.submit(2, time.time() + 0.2))
    wanted = asyncio.create_task(batcher.submit(3, LATER))
    await asyncio.sleep(0.3)
    gate.go.set()
    assert (await first, await wanted) == (2, 6)
    with pytest.raises(DeadlineExceeded):
        await late
    assert gate.batches == [[1], [3]]
    assert observed.dropped == 1


async def test_a_burst_is_one_batch_behind_the_other() -> None:
    gate = Gate(shut=True)
    batcher = Batcher(gate, max_size=2, wait_s=0)
    burst = [asyncio.create_task(batcher.submit(n, LATER)) for n in range(6)]
    await entered(gate)
    gate.go.set()
    gate.wait_for_batches(2)
    assert gate.batches == [[0, 1], [2, 3]]
    assert await asyncio.gather(*burst) == [2 * n for n in range(6)]
    assert gate.batches == [[0, 1], [2, 3], [4, 5]]


async def test_a_model_that_raises_what_no_future_holds() -> None:
    def exhausted(items: list[int]) -> Sequence[int]:
        return [next(iter([]))] if 13 in items else items

    batcher = Batcher(exhausted, max_size=4, wait_s=0)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="StopIteration"):
            await batcher.submit(13, LATER)
    assert await batcher.submit(1, LATER) == 1


async def test_a_batch_that_crashes_while_others_wait() -> None:
    """Every caller gets an answer, whichever batches stand behind."""
    runs: list[list[int]] = []

    def fragile(items: list[int]) -> Sequence[int]:
        runs.append(items)
        time.sleep(0.002)
        return [10 // item for item in items]

    batcher = Batcher(fragile, max_size=3, wait_s=0)
    numbers = [number % 4 for number in range(60)]
    outcomes = await asyncio.gather(*(batcher.submit(n, LATER) for n in numbers), return_exceptions=True)
    for number, outcome in zip(numbers, outcomes, strict=True):
        assert isinstance(outcome, ZeroDivisionError) if number == 0 else outcome == 10 // number
    assert max(map(len, runs)) == 3


async def test_probe_passes_the_queue_and_raises_what_is_wrong() -> None:
    batcher = Batcher(Gate(), max_size=8, wait_s=0)
    assert await batcher.probe(3) == 6
    with pytest.raises(NotDecodable):
        await batcher.probe(13)
