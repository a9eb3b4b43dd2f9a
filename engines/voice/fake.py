"""A deterministic voice engine for tests of flows and of the graph: no weights, no truth."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from engines import options as read
from engines.embedding import unit_rows
from engines.types import Audio, Embeddings, EngineOptions, Runtime


class FakeVoice:
    """Embeds the shares of eight bands of the spectrum: the same tone is the same speaker."""

    known_options: ClassVar[dict[str, str]] = {"verify_threshold": "default cosine distance, 0..2"}
    dim = 8
    least_seconds = 0.1

    def __init__(self, options: EngineOptions) -> None:
        self.verify_threshold = read.number(options, "verify_threshold", 0.25, 0.0, 2.0)

    def weights(self) -> list[Path]:
        """None."""
        return []

    def load_encoder(self, runtime: Runtime) -> "FakeVoice":  # noqa: ARG002 - the protocol names it
        """The engine itself."""
        return self

    def embed(self, clips: Sequence[Audio]) -> Embeddings:
        """Shape (n, 8), rows L2-normalised."""
        return unit_rows(np.stack([self._bands(clip) for clip in clips]))

    def _bands(self, clip: Audio) -> np.ndarray:
        spectrum = np.abs(np.fft.rfft(clip.samples, 1024 * 16))[1:]
        return np.array([band.sum() for band in np.array_split(spectrum, self.dim)], np.float32) + 1e-6
