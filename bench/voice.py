"""Voices: the bare engine, and the recordings that are sent."""

import io
import wave
from itertools import islice, zip_longest
from pathlib import Path
from typing import ClassVar

import numpy as np

from bench.engine import EngineSpec, Inputs
from engines.audio import decode, speech
from engines.errors import PresenceError
from engines.types import Audio, Embeddings, Runtime
from engines.voice import RATE
from engines.voice.model import VoiceModel

FIELDS = {"verify": ("audio1", "audio2"), "embed": ("audio",)}
"""Fields of the routes' requests that carry clips."""

MAX_SECONDS = 300.0
NOISE_SECONDS = (3, 6, 9, 12)


def recordings(shared: Path) -> list[bytes]:
    """Encoded clips: of every speaker of the test data the first, then the second; else noise."""
    speakers = sorted((shared / "media" / "audio" / "speakers").glob("*"))
    columns = zip_longest(*(sorted(speaker.glob("*.flac")) for speaker in speakers))
    paths = [path for column in islice(columns, 2) for path in column if path]
    return [path.read_bytes() for path in paths] or [_noise(seconds) for seconds in NOISE_SECONDS]


def _noise(seconds: int) -> bytes:
    """A WAV file: what an encoder costs depends on the length of a clip, not on what is said."""
    samples = np.random.default_rng(seconds).normal(0, 3000, seconds * RATE).astype("<i2")
    with io.BytesIO() as file:
        with wave.open(file, "wb") as out:
            out.setparams((1, 2, RATE, len(samples), "NONE", ""))
            out.writeframes(samples.tobytes())
        return file.getvalue()


class BareVoice:
    """The encoder of one voice model on one thread."""

    routes: ClassVar[tuple[str, ...]] = tuple(FIELDS)

    def __init__(self, spec: EngineSpec) -> None:
        engine = VoiceModel(spec.engine, spec.options).engine
        self._least_seconds = engine.least_seconds
        self._encoder = engine.load_encoder(Runtime(threads=1))

    def verify(self, clips: Inputs) -> float:
        """Cosine distance of the speakers of two clips."""
        one, two = self._encoder.embed([self._speech(clip) for clip in clips])
        return float(np.clip(1 - np.dot(one, two), 0, 2))

    def embed(self, clip: bytes) -> Embeddings:
        """Embedding of the speaker, shape (1, dim)."""
        return self._encoder.embed([self._speech(clip)])

    def request(self, route: str, inputs: Inputs) -> int:
        """The work of one request; how many clips it was about."""
        match route:
            case "verify":
                self.verify(inputs)
                return 2
            case "embed":
                return len(self.embed(inputs[0]))
        raise ValueError(f"no route {route!r}; known: {', '.join(self.routes)}")

    def is_usable(self, sample: bytes) -> bool:
        """Whether there is enough speech in it."""
        try:
            self._speech(sample)
        except PresenceError:
            return False
        return True

    def _speech(self, clip: bytes) -> Audio:
        return speech(decode(clip, RATE, MAX_SECONDS), self._least_seconds)
