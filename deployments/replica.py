"""What every model part has in common inside its Serve replica."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import ray

from deployments.batching import Batcher, BatchObserver
from deployments.together import together
from engines.errors import PresenceError
from engines.types import Runtime

In = TypeVar("In")
Out = TypeVar("Out")


def runtime(threads: int) -> Runtime:
    """What Ray gave this process: the GPU if one was booked, and CPU threads."""
    gpus = ray.get_runtime_context().get_accelerator_ids().get("GPU") if ray.is_initialized() else None
    return Runtime(threads=threads, cuda=bool(gpus))


class BatchedReplica(Generic[In, Out]):
    """One model behind a batcher: warm-up, health, live batching settings.

    Errors of the tree are answered as values: an exception would cross the process border wrapped,
    with its traceback, and be logged as a failure of the replica.
    """

    def __init__(
        self,
        run: Callable[[list[In]], Sequence[Out | PresenceError]],
        probe: In,
        observer: BatchObserver | None = None,
    ) -> None:
        self._probe = probe
        self._batcher = Batcher(run, max_size=1, wait_s=0.0, observer=observer)
        run([probe])

    def reconfigure(self, config: dict[str, float]) -> None:
        """Takes max_batch_size and batch_wait_timeout_s from `user_config`, also while running."""
        self._batcher.max_size = int(config["max_batch_size"])
        self._batcher.wait_s = float(config["batch_wait_timeout_s"])

    async def check_health(self) -> None:
        """Runs the model on a tiny input unless a request just did; Serve replaces a replica that fails."""
        await self._batcher.check(self._probe)

    async def _one(self, item: In, deadline: float) -> Out | PresenceError:
        try:
            return await self._batcher.submit(item, deadline)
        except PresenceError as error:
            return error

    async def _all(self, items: Sequence[In], deadline: float) -> list[Out] | PresenceError:
        try:
            return list(await together(*(self._batcher.submit(item, deadline) for item in items)))
        except PresenceError as error:
            return error
