"""Prometheus metrics of every model part, beside those that Serve itself exports."""

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
            "presence_queue_wait_ms",
            "Time that the first item of a batch waited",
            boundaries=MILLISECONDS,
            tag_keys=keys,
        )
        self._model = Histogram(
            "presence_model_ms", "Time a batch ran", boundaries=MILLISECONDS, tag_keys=keys
        )

    def batch(self, size: int, wait_s: float, model_s: float) -> None:
        """Records one batch."""
        self._items.inc(size, tags=self._tags)
        self._size.observe(size, tags=self._tags)
        self._model.observe(model_s * 1000, tags=self._tags)
        self._wait.observe(wait_s * 1000, tags=self._tags)

    def expired(self, items: int) -> None:
        """Records items that were dropped."""
        self._expired.inc(items, tags=self._tags)


RATIOS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2, 5, 10, 20]


class SpeechMetrics:
    """What a synthesizer speaks and how fast. The tag model is ours."""

    def __init__(self, model: str) -> None:
        keys: Any = ("model",)
        self._tags = {"model": model}
        self._characters = Counter("presence_tts_characters", "Characters spoken", tag_keys=keys)
        self._seconds = Counter("presence_tts_audio_seconds", "Seconds of sound spoken", tag_keys=keys)
        self._abandoned = Counter(
            "presence_tts_abandoned", "Texts that were begun and not spoken to their end", tag_keys=keys
        )
        self._factor = Histogram(
            "presence_tts_real_time_factor",
            "Seconds that a sentence took over seconds of its sound",
            boundaries=RATIOS,
            tag_keys=keys,
        )
        self._first = Histogram(
            "presence_tts_first_piece_ms",
            "Time from a request to its first piece of sound",
            boundaries=MILLISECONDS,
            tag_keys=keys,
        )

    def sentence(self, characters: int, sound_s: float, took_s: float) -> None:
        """Records one sentence with sound."""
        self._characters.inc(characters, tags=self._tags)
        self._seconds.inc(sound_s, tags=self._tags)
        self._factor.observe(took_s / sound_s, tags=self._tags)

    def first_piece(self, waited_s: float) -> None:
        """Records how long a request waited for its first piece."""
        self._first.observe(waited_s * 1000, tags=self._tags)

    def abandoned(self) -> None:
        """Records a text that was left in the middle: its client had gone, or its deadline passed."""
        self._abandoned.inc(1, tags=self._tags)
