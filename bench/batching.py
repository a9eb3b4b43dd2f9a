"""Own batcher beside `@serve.batch`, on a real Ray cluster: `python -m bench.batching`.

The model sleeps 10 ms and 1 ms more an item, in a thread. Figures of docs/decisions/0001 come from here.
"""

import asyncio
import statistics
import time
from collections.abc import Sequence
from typing import Any

import ray
from ray import serve
from ray.serve.handle import DeploymentHandle
from rich.console import Console
from rich.table import Table

from deployments.batching import Batcher

REQUESTS = 320
CALLERS = 16
MAX_BATCH = 16


def model(items: list[int]) -> list[int]:
    """10 ms and 1 ms an item; answers the size of the batch to each."""
    time.sleep(0.010 + 0.001 * len(items))
    return [len(items)] * len(items)


class ServeBatch:
    """Ray's decorator."""

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=0.0)
    async def run(self, items: list[int]) -> list[int]:
        """One batch."""
        return await asyncio.to_thread(model, items)

    async def ask(self, item: int, wait_s: float) -> int:
        """One item."""
        self.run.set_batch_wait_timeout_s(wait_s)  # type: ignore[attr-defined] # the decorator adds it
        size: int = await self.run(item)
        return size


class OwnBatch:
    """Ours."""

    def __init__(self) -> None:
        self._batcher: Batcher[int, int] = Batcher(model, max_size=MAX_BATCH, wait_s=0.0)

    async def ask(self, item: int, wait_s: float) -> int:
        """One item."""
        self._batcher.wait_s = wait_s
        return await self._batcher.submit(item, time.time() + 60)


class Caller:
    """Asks from inside the cluster, as a gateway does."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    async def load(self, callers: int, wait_s: float) -> tuple[float, float, float]:
        """Requests a second, median milliseconds, mean batch size."""
        took: list[float] = []
        sizes: list[int] = []

        async def caller(share: int) -> None:
            for item in range(share):
                began = time.perf_counter()
                sizes.append(await self._handle.ask.remote(item, wait_s))
                took.append((time.perf_counter() - began) * 1000)

        began = time.perf_counter()
        await asyncio.gather(*(caller(REQUESTS // CALLERS) for _ in range(callers)))
        elapsed = time.perf_counter() - began
        return len(took) / elapsed, statistics.median(took), statistics.fmean(sizes)


def measure(kind: type, waits: Sequence[float], table: Table) -> None:
    """One row a caller count and wait."""
    options: dict[str, Any] = {"max_ongoing_requests": 100, "ray_actor_options": {"num_cpus": 0.1}}
    batched = serve.deployment(**options)(kind).bind()
    handle = serve.run(
        serve.deployment(**options)(Caller).bind(batched), name=kind.__name__, route_prefix=None
    )
    for callers in (1, CALLERS):
        for wait_s in waits:
            rate, median, size = handle.load.remote(callers, wait_s).result()
            table.add_row(
                kind.__name__,
                str(callers),
                f"{wait_s * 1000:.0f}",
                f"{rate:.0f}",
                f"{median:.1f}",
                f"{size:.1f}",
            )
    serve.delete(kind.__name__)


def main() -> None:
    """Prints the table."""
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    table = Table("batcher", "callers", "wait ms", "requests/s", "median ms", "mean batch")
    for kind in (ServeBatch, OwnBatch):
        measure(kind, (0.0, 0.005), table)
    Console().print(table)
    serve.shutdown()  # type: ignore[no-untyped-call] # Ray leaves it without annotations
    ray.shutdown()


if __name__ == "__main__":
    main()
