"""Text to speech: replicas that split, speak, shape and encode, so that the gateway only moves bytes."""

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from deployments.messages import SpeakRequest
from deployments.metrics import SpeechMetrics
from deployments.replica import runtime
from deployments.speaking import Speaker, Speech
from engines.errors import ConfigurationError, DeadlineExceeded, InvalidInput, PresenceError, UnknownModel
from engines.tts import Utterance, Voice
from engines.types import EngineOptions

T = TypeVar("T")

logger = logging.getLogger("presence.tts")

PIECE_BYTES = 256 * 1024
"""Of encoded sound in one message: gRPC is fastest well below a megabyte."""

PROBE = "One."
QUICK_S = 2.0
"""A model that needs more than this for PROBE speaks it at the start only, not at each health check."""


@dataclass(frozen=True, slots=True)
class TtsSpec:
    """What a replica needs to load its model. name: of the model, for metrics.

    voice: when a request names none. recording: file of the voice to speak with, when there is neither.
    """

    name: str
    engine: str
    options: EngineOptions
    voice: str = ""
    recording: str = ""
    threads: int = 1


class SpeechReplica:
    """What synthesizers have in common: one thread speaks, the sentences of waiting texts take turns.

    Errors of the tree are answered as values, the last piece of a stream: the only one where nothing was
    spoken yet.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="speech")

    def reconfigure(self, config: dict[str, float]) -> None:
        """Nothing of `user_config` concerns it: speech is not batched."""

    async def _speak(
        self, begin: Callable[[threading.Event], tuple[Speech, SpeechMetrics]], deadline: float
    ) -> AsyncGenerator[bytes | PresenceError, None]:
        """The encoded sound in pieces of at most PIECE_BYTES, each as soon as its sentence is spoken."""
        gone, began = threading.Event(), time.perf_counter()
        try:
            speech, metrics = await self._in_thread(partial(begin, gone))
            async for piece in self._pieces(speech, metrics, began, deadline):
                yield piece
        except PresenceError as error:
            yield error
        finally:
            gone.set()

    async def _pieces(
        self, speech: Speech, metrics: SpeechMetrics, began: float, deadline: float
    ) -> AsyncGenerator[bytes, None]:
        spoken = False
        try:
            while not speech.done:
                if time.time() > deadline:
                    raise DeadlineExceeded("the deadline passed before all of the text was spoken")
                step = await self._in_thread(speech.step)
                if step.sound_s:
                    metrics.sentence(step.characters, step.sound_s, step.took_s)
                if step.data and not spoken:
                    metrics.first_piece(time.perf_counter() - began)
                    spoken = True
                for start in range(0, len(step.data), PIECE_BYTES):
                    yield step.data[start : start + PIECE_BYTES]
        finally:
            if spoken and not speech.done:
                metrics.abandoned()

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)


class Synthesizer(SpeechReplica):
    """One model, loaded at the start."""

    def __init__(self, spec: TtsSpec) -> None:
        super().__init__()
        self._speaker = Speaker.load(
            spec.engine, spec.options, runtime(spec.threads), spec.voice, spec.recording
        )
        self._metrics = SpeechMetrics(spec.name)
        self._busy = False
        began = time.perf_counter()
        self._probe()
        self._quick = time.perf_counter() - began <= QUICK_S

    async def speak(
        self, request: SpeakRequest, deadline: float
    ) -> AsyncGenerator[bytes | PresenceError, None]:
        """The encoded sound, each piece as soon as its sentence is spoken; an error as the last piece.

        Whoever leaves stops the synthesis within a sentence. deadline: seconds since the epoch.
        """

        def begin(gone: threading.Event) -> tuple[Speech, SpeechMetrics]:
            return Speech(self._speaker, request, gone), self._metrics

        async for piece in self._speak(begin, deadline):
            yield piece

    async def voices(self, _: None, deadline: float) -> Sequence[Voice]:  # noqa: ARG002 - as all methods
        """The voices that the model has by name."""
        return tuple(self._speaker.synthesizer.voices)

    async def check_health(self) -> None:
        """Speaks a word where that is quick; raises when it fails, and Serve replaces the replica."""
        if self._quick:
            await self._in_thread(self._probe)

    def _probe(self) -> None:
        """Raises ConfigurationError for a voice of the model file that the model does not know."""
        utterance = Utterance(PROBE, self._speaker.voice, reference=self._speaker.recording)
        try:
            for _ in self._speaker.synthesizer.speak(utterance):
                pass
        except InvalidInput as error:
            raise ConfigurationError(f"tts: {error.message}") from error


@dataclass(frozen=True, slots=True)
class OnDemandSpec:
    """What a replica needs to load models by request. options: where weights are looked up.

    loaded: models kept in memory; the least recently used one leaves.
    """

    options: EngineOptions
    loaded: int = 2
    threads: int = 1


class OnDemandSynthesizer(SpeechReplica):
    """Models without a model file, loaded when a request names them by backend and weights."""

    def __init__(self, spec: OnDemandSpec) -> None:
        super().__init__()
        self._spec = spec
        self._speakers: OrderedDict[tuple[str, str], tuple[Speaker, SpeechMetrics]] = OrderedDict()

    async def speak(
        self, request: SpeakRequest, deadline: float
    ) -> AsyncGenerator[bytes | PresenceError, None]:
        """As Synthesizer.speak; UnknownModel where the model cannot be loaded."""

        def begin(gone: threading.Event) -> tuple[Speech, SpeechMetrics]:
            speaker, metrics = self._loaded(request.backend, request.weights)
            return Speech(speaker, request, gone), metrics

        async for piece in self._speak(begin, deadline):
            yield piece

    async def check_health(self) -> None:
        """The process answers."""

    def _loaded(self, backend: str, weights: str) -> tuple[Speaker, SpeechMetrics]:
        """The model, loaded unless it is at hand. Only the one thread of the replica comes here."""
        key = backend, weights
        if key not in self._speakers:
            self._speakers[key] = self._load(backend, weights), SpeechMetrics(f"{backend}:{weights}")
            while len(self._speakers) > self._spec.loaded:
                self._speakers.popitem(last=False)
        self._speakers.move_to_end(key)
        return self._speakers[key]

    def _load(self, backend: str, weights: str) -> Speaker:
        options = replace(self._spec.options, model=weights)
        try:
            return Speaker.load(backend, options, runtime(self._spec.threads))
        except ConfigurationError as error:
            reason = error.message.replace(f"{options.models_dir}/", "")
        except ImportError as error:
            reason = f"the package {error.name} is not installed"
        logger.warning("%s with %r was asked for: %s", backend, weights, reason)
        named = f"the model {weights!r}" if weights else "its model"
        raise UnknownModel(f"backend {backend} cannot load {named} here: {reason}")
