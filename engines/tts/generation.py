"""What torch models that make sound share: one sound at a time, from a seed, checked."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray

from engines.errors import InvalidInput, NothingComputable

logger = logging.getLogger("presence.tts")

UNSPEAKABLE = (AssertionError, ImportError, LookupError, RuntimeError, ValueError)
"""What packages raise for a text that is too long, or of which their alphabet knows nothing."""


class Turn:
    """Lets one thread generate at a time: torch has one source of random numbers a process.

    device: whose random numbers are drawn.
    """

    def __init__(self, device: torch.device) -> None:
        self._lock = Lock()
        self._devices = [device] if device.type == "cuda" else []

    @contextmanager
    def taken(self, seed: int | None) -> Iterator[None]:
        """Without gradients; with a seed the random numbers start from it, and afterwards go on as before."""
        with self._lock, torch.inference_mode():
            if seed is None:
                yield
                return
            with torch.random.fork_rng(self._devices):
                torch.manual_seed(seed)
                yield


@contextmanager
def speakable() -> Iterator[None]:
    """Turns what a package raises for a text that it cannot speak into InvalidInput; memory stays memory."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except UNSPEAKABLE as error:
        logger.warning("an utterance could not be spoken: %s", type(error).__name__)
        raise InvalidInput("the model cannot speak this text; a shorter sentence may help") from error


def sound(values: torch.Tensor) -> NDArray[np.float32]:
    """One channel of a generated sound, shape (n,), clipped to -1..1. values: any shape, one channel.

    Raises NothingComputable for no samples, and for samples that are no numbers.
    """
    samples = np.asarray(values.detach().float().cpu().numpy(), np.float32).reshape(-1)
    if not len(samples) or not np.isfinite(samples).all():
        raise NothingComputable("the model gave no sound for this text")
    return np.clip(samples, -1, 1)
