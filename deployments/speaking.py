"""One text on its way to encoded sound, step by step; each step is synchronous and takes a while."""

import threading
import time
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from deployments.messages import SpeakRequest
from engines.audio import decode
from engines.errors import ConfigurationError, InvalidInput, NotDecodable, PresenceError, TooLarge
from engines.tts import Synthesizer, TtsEngine, Utterance
from engines.tts.encoding import Encoder
from engines.tts.model import TtsModel
from engines.tts.sentences import Phrase, clean, phrases
from engines.tts.shaping import Joiner, Limiter, Samples, Tempo
from engines.types import Audio, EngineOptions, Runtime

MOST_SECONDS = 1800.0
"""Of sound from one text: what a file that is sent whole takes in memory stays below 200 MB."""

REFERENCE_RATE = 24_000
MOST_REFERENCE_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Speaker:
    """A loaded model. voice, recording: what it speaks with when a request says nothing."""

    engine: TtsEngine
    synthesizer: Synthesizer
    voice: str = ""
    recording: Audio | None = None

    @classmethod
    def load(
        cls, engine: str, options: EngineOptions, runtime: Runtime, voice: str = "", recording: str = ""
    ) -> "Speaker":
        """Loads the weights. Raises ConfigurationError."""
        model = TtsModel(engine, options, recording)
        model.require_files()
        heard = _recording(model.recording) if model.recording else None
        return cls(model.engine, model.engine.load(runtime), voice, heard)

    def utterance(self, request: SpeakRequest) -> Utterance:
        """What the request asks of the engine, without its text.

        Raises InvalidInput, NotDecodable, TooLarge.
        """
        voice = request.voice
        if request.any_voice and voice not in {one.name for one in self.synthesizer.voices}:
            voice = ""
        reference = None
        if request.reference is not None:
            if not self.engine.clones:
                raise InvalidInput(
                    "voice: this model speaks with no voice of the library; name one of its own"
                )
            reference = decode(request.reference, REFERENCE_RATE, MOST_REFERENCE_SECONDS)
        elif not voice:
            voice, reference = self.voice, self.recording
        return Utterance(
            "",
            voice,
            request.language,
            request.speed if self.engine.own_speed else 1.0,
            request.instructions if self.engine.follows_instructions else "",
            reference,
            request.params,
        )


def _recording(path: Path) -> Audio:
    try:
        return decode(path.read_bytes(), REFERENCE_RATE, MOST_REFERENCE_SECONDS)
    except (OSError, NotDecodable, TooLarge) as error:
        reason = error.message if isinstance(error, PresenceError) else "it cannot be read"
        raise ConfigurationError(f"tts.audio_path: {path.name}: {reason}") from None


@dataclass(frozen=True, slots=True)
class Step:
    """What one step made: encoded bytes, of so many characters and seconds of sound, in so many seconds."""

    data: bytes = b""
    characters: int = 0
    sound_s: float = 0.0
    took_s: float = 0.0


class Shaper:
    """What lies between the engine and the encoder: joints, pace, level.

    pace: 1 leaves it; pauses follow it. joins: phrases are cut free of silence and joined with pauses.
    """

    def __init__(self, rate: int, pace: float, joins: bool) -> None:
        self._joiner = Joiner(rate) if joins else None
        self._filters: list[Tempo | Limiter] = [Limiter(rate)]
        if pace != 1.0:
            self._filters.insert(0, Tempo(rate, pace))

    def feed(self, samples: Samples) -> Samples:
        """What can be told once these samples are known."""
        return self._filtered(self._joiner.feed(samples) if self._joiner else samples)

    def end(self, pause: float) -> Samples:
        """The end of a phrase and its pause, in seconds."""
        return self._filtered(self._joiner.end(pause) if self._joiner else np.empty(0, np.float32))

    def finish(self) -> Samples:
        """The rest. The object is of no further use."""
        rest = np.empty(0, np.float32)
        for shaper in self._filters:
            rest = np.concatenate([shaper.feed(rest), shaper.finish()])
        return rest

    def _filtered(self, samples: Samples) -> Samples:
        for shaper in self._filters:
            samples = shaper.feed(samples)
        return samples


class Speech:
    """A text being spoken, one sentence a step, until `done`. gone: set when nobody listens any more.

    A sentence of which the model can speak nothing is left out, unless that is all of them. Raises
    InvalidInput, NotDecodable and TooLarge when it is made, PresenceError in a step.
    """

    def __init__(self, speaker: Speaker, request: SpeakRequest, gone: threading.Event) -> None:
        engine, rate = speaker.engine, speaker.synthesizer.rate
        self.done = False
        self._synthesizer, self._gone = speaker.synthesizer, gone
        self._utterance = speaker.utterance(request)
        self._left = deque(_parts(engine, request))
        self._shaper = Shaper(rate, 1.0 if engine.own_speed else request.speed, joins=engine.splits_text)
        self._encoder = Encoder(request.target, rate, whole=request.whole)
        self._refused: InvalidInput | None = None
        self._samples = 0
        self._made = bytearray()

    def step(self) -> Step:
        """Speaks the next sentence; after the last one the file is finished."""
        began = time.perf_counter()
        phrase = self._left.popleft()
        count = 0
        for samples in self._shaped(phrase):
            count += len(samples)
            if (self._samples + count) / self._synthesizer.rate > MOST_SECONDS:
                raise TooLarge(f"the text makes more than {MOST_SECONDS:g} seconds of sound")
            self._made += self._encoder.feed(samples)
        self._samples += count
        if not self._left and not self._gone.is_set():
            self.done = True
            self._made += self._finished()
        sound_s = count / self._synthesizer.rate
        return Step(self._taken(), len(phrase.text), sound_s, time.perf_counter() - began)

    def _taken(self) -> bytes:
        """What was made; before the first sound nothing, as it may end in an error."""
        if not self._samples:
            return b""
        taken, self._made = bytes(self._made), bytearray()
        return taken

    def _shaped(self, phrase: Phrase) -> Iterator[Samples]:
        for piece in self._spoken(phrase.text):
            yield self._shaper.feed(piece)
        yield self._shaper.end(phrase.pause / self._utterance.speed)
        if not self._left:
            yield self._shaper.finish()

    def _spoken(self, text: str) -> Iterator[Samples]:
        """The engine's own pieces, until nobody listens."""
        pieces = self._synthesizer.speak(replace(self._utterance, text=text))
        try:
            for piece in pieces:
                if self._gone.is_set():
                    return
                yield piece
        except InvalidInput as error:
            self._refused = self._refused or error
        finally:
            if isinstance(pieces, Generator):
                pieces.close()

    def _finished(self) -> bytes:
        if not self._samples:
            raise self._refused or InvalidInput("input: the text holds nothing that this model can speak")
        return self._encoder.finish()


def _parts(engine: TtsEngine, request: SpeakRequest) -> list[Phrase]:
    if engine.splits_text:
        return phrases(request.text, request.language)
    if not (text := clean(request.text).strip()):
        raise InvalidInput("input: the text is empty")
    return [Phrase(text, 0)]
