"""Prometheus metrics of every model part, beside those that Serve itself exports."""

from collections.abc import Sequence
from typing import Any

from ray.serve.metrics import Counter, Histogram

MILLISECONDS = [1.0, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 30_000]
ITEMS = [1.0, 2, 4, 8, 16, 32, 64, 128]


class BatchMetrics:
    """Batch size, queue wait, model time and expired items of one model part.

    Serve adds the tags deployment, replica and application; model and role are ours.
    """

    def __init__(self, model: str, role: str) -> None:
        keys: Any = ("model", "role")  # Ray annotates it as a tuple of one
        self._tags = {"model": model, "role": role}
        self._items = Counter("presence_items", "Items that the model ran", tag_keys=keys)
        self._expired = Counter("presence_items_expired", "Items dropped past their deadline", tag_keys=keys)
        self._size = Histogram("presence_batch_size", "Items in a batch", boundaries=ITEMS, tag_keys=keys)
        self._wait = Histogram(
            "presence_queue_wait_ms", "Time an item waited", boundaries=MILLISECONDS, tag_keys=keys
        )
        self._model = Histogram(
            "presence_model_ms", "Time a batch ran", boundaries=MILLISECONDS, tag_keys=keys
        )

    def batch(self, size: int, waits_s: Sequence[float], model_s: float) -> None:
        """Records one batch."""
        self._items.inc(size, tags=self._tags)
        self._size.observe(size, tags=self._tags)
        self._model.observe(model_s * 1000, tags=self._tags)
        for wait in waits_s:
            self._wait.observe(wait * 1000, tags=self._tags)

    def expired(self, items: int) -> None:
        """Records items that were dropped."""
        self._expired.inc(items, tags=self._tags)
