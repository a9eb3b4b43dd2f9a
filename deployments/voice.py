"""The parts of a voice model, each its own Serve deployment. Clips come as the files that clients sent."""

import io
import wave
from dataclasses import dataclass

import numpy as np

from deployments.messages import Described, DescribeRequest
from deployments.metrics import BatchMetrics
from deployments.replica import BatchedReplica, runtime
from engines.audio import decode, speech
from engines.errors import PresenceError
from engines.types import Audio, Demographics, EngineOptions
from engines.voice import RATE
from engines.voice.model import VoiceModel


@dataclass(frozen=True, slots=True)
class VoiceSpec:
    """What a replica needs to load its part. name: the model's name, for metrics."""

    name: str
    engine: str
    options: EngineOptions
    threads: int = 1
    max_seconds: float = 300.0


@dataclass(frozen=True, slots=True)
class Heard:
    """A clip of so many seconds, and the speech in it."""

    seconds: float
    speech: Audio


class Ear:
    """Decodes clips and finds the speech in them.

    max_seconds: longest clip. least_seconds: least speech.
    """

    def __init__(self, max_seconds: float, least_seconds: float) -> None:
        self._max_seconds = max_seconds
        self._least_seconds = least_seconds

    def hear(self, clip: bytes) -> Heard | PresenceError:
        """The speech of one clip; NotDecodable, TooLarge or InvalidInput as a value."""
        try:
            audio = decode(clip, RATE, self._max_seconds)
            return Heard(audio.seconds, speech(audio, self._least_seconds))
        except PresenceError as error:
            return error

    def tone(self) -> bytes:
        """A WAV file that is just long enough: the tiny input of warm-up and health checks."""
        count = int((self._least_seconds + 0.5) * RATE)
        samples = (8000 * np.sin(2 * np.pi * 220 / RATE * np.arange(count))).astype("<i2")
        with io.BytesIO() as file:
            with wave.open(file, "wb") as out:
                out.setparams((1, 2, RATE, count, "NONE", ""))
                out.writeframes(samples.tobytes())
            return file.getvalue()


class VoiceEncoder(BatchedReplica[bytes, np.ndarray]):
    """Encoded clips to embeddings of their speakers, batched over the clips of all requests."""

    def __init__(self, spec: VoiceSpec) -> None:
        engine = VoiceModel(spec.engine, spec.options).engine
        self._encoder = engine.load_encoder(runtime(spec.threads))
        self._ear = Ear(spec.max_seconds, engine.least_seconds)
        super().__init__(self._run, self._ear.tone(), BatchMetrics(spec.name, "encoder"))

    async def embed(self, clip: bytes, deadline: float) -> np.ndarray | PresenceError:
        """Embedding of shape (dim,), L2 norm 1; what is wrong with the clip as a value."""
        return await self._one(clip, deadline)

    def _run(self, clips: list[bytes]) -> list[np.ndarray | PresenceError]:
        heard = [self._ear.hear(clip) for clip in clips]
        good = [one.speech for one in heard if isinstance(one, Heard)]
        embeddings = iter(self._encoder.embed(good) if good else ())
        return [next(embeddings) if isinstance(one, Heard) else one for one in heard]


class VoiceAttributes(BatchedReplica[DescribeRequest, Described]):
    """Age, gender and emotion of speakers. A head loads, or is fetched, when it is first asked for."""

    def __init__(self, spec: VoiceSpec) -> None:
        model = VoiceModel(spec.engine, spec.options)
        self._heads = model.heads.load(runtime(spec.threads))
        self._ear = Ear(spec.max_seconds, model.engine.least_seconds)
        self._running = False
        probe = DescribeRequest(self._ear.tone())
        super().__init__(self._run, probe, BatchMetrics(spec.name, "attributes"))

    async def describe(self, request: DescribeRequest, deadline: float) -> Described | PresenceError:
        """What the wanted heads say of one clip; NothingComputable as a value."""
        return await self._one(request, deadline)

    async def check_health(self) -> None:
        """Hears a tiny clip, unless a batch runs: fetching a head may take longer than a check may."""
        if not self._running:
            await super().check_health()

    def _run(self, requests: list[DescribeRequest]) -> list[Described | PresenceError]:
        self._running = True
        try:
            heard = [self._ear.hear(request.clip) for request in requests]
            answers: dict[int, Described | PresenceError] = {
                index: one for index, one in enumerate(heard) if isinstance(one, PresenceError)
            }
            for heads in {request.heads for request in requests}:
                clips = {
                    index: one
                    for index, one in enumerate(heard)
                    if isinstance(one, Heard) and requests[index].heads == heads
                }
                answers |= zip(clips, self._told(list(clips.values()), heads), strict=True)
            return [answers[index] for index in range(len(requests))]
        finally:
            self._running = False

    def _told(self, clips: list[Heard], heads: tuple[str, ...]) -> list[Described | PresenceError]:
        if not clips or not heads:
            return [Described(clip.seconds, Demographics()) for clip in clips]
        try:
            told = self._heads.analyze([clip.speech for clip in clips], heads)
        except PresenceError as error:
            return [error] * len(clips)
        return [Described(clip.seconds, said) for clip, said in zip(clips, told, strict=True)]
