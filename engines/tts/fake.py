"""A deterministic text-to-speech engine for tests of flows and of the graph: tones, no speech."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from engines.errors import InvalidInput
from engines.tts import Utterance, Voice
from engines.types import EngineOptions, Runtime


class FakeTts:
    """Speaks 50 ms of tone a character; the pitch tells the voice. It is its own synthesizer."""

    known_options: ClassVar[dict[str, str]] = {}
    own_speed: ClassVar[bool] = False
    follows_instructions: ClassVar[bool] = False
    clones: ClassVar[bool] = False
    splits_text: ClassVar[bool] = True
    rate = 16_000
    voices = (Voice("low", ("en",), "male"), Voice("high", ("en",), "female"))
    pitches: ClassVar[dict[str, float]] = {"": 220.0, "low": 110.0, "high": 440.0}

    def __init__(self, options: EngineOptions) -> None:
        self._options = options

    def weights(self) -> list[Path]:
        """None."""
        return []

    def load(self, runtime: Runtime) -> "FakeTts":  # noqa: ARG002 - the protocol names it
        """The engine itself."""
        return self

    def speak(self, utterance: Utterance) -> Iterator[NDArray[np.float32]]:
        """One piece a word. Raises InvalidInput for an unknown voice."""
        if utterance.voice not in self.pitches:
            raise InvalidInput(f'voice "{utterance.voice}" is unknown; known: low, high')
        for word in utterance.text.split():
            time = np.arange(len(word) * self.rate // 20) / self.rate
            yield np.asarray(0.3 * np.sin(2 * np.pi * self.pitches[utterance.voice] * time), np.float32)
