"""Piper: VITS networks as ONNX files, one a voice, on phonemes of eSpeak NG.

Sources: https://arxiv.org/abs/2106.06103, https://github.com/rhasspy/piper, voices at
https://huggingface.co/rhasspy/piper-voices.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException

from engines import onnx
from engines.errors import ConfigurationError, InvalidInput
from engines.options import number
from engines.tts import Utterance, Voice
from engines.tts.espeak_process import MOST_CHARACTERS, process
from engines.tts.espeak_voices import EspeakVoices
from engines.tts.phonemes import characters, ids, sentences
from engines.tts.piper_voice import TEXT, PiperVoice
from engines.tts.sentences import clean
from engines.tts.shaping import FASTEST, SLOWEST
from engines.types import EngineOptions, Runtime

INPUTS = {"input", "input_lengths", "scales"}
SPEAKER = "sid"

RANGES = {"length_scale": (0.1, 10.0), "noise_scale": (0.0, 2.0), "noise_w": (0.0, 2.0)}

LEVEL, LEAST_PEAK = 0.95, 0.01
"""The peak to which each sentence is raised or lowered, and the lowest that counts as one."""


class Piper:
    """The engine: one file and its description beside it.

    `parameters.model` is the file's name with its extension, under the models directory.
    """

    known_options: ClassVar[dict[str, str]] = {
        "voice": "who speaks when a request names nobody, of a voice with several speakers; the first",
        "length_scale": "how long it speaks, 0.1 to 10, 2 takes twice as long; the voice's own",
        "noise_scale": "how much the sound varies, 0 to 2; the voice's own",
        "noise_w": "how much the rhythm varies, 0 to 2; the voice's own",
    }
    own_speed: ClassVar[bool] = True
    follows_instructions: ClassVar[bool] = False
    clones: ClassVar[bool] = False
    splits_text: ClassVar[bool] = True

    def __init__(self, options: EngineOptions) -> None:
        if not options.model:
            raise ConfigurationError("parameters.model is missing; name a file such as en-us-amy-low.onnx")
        self.path = options.models_dir / options.model
        self.voice = options.options.get("voice", "")
        self.scales = {
            name: number(options, name, 0, *RANGES[name]) for name in RANGES if name in options.options
        }

    def weights(self) -> list[Path]:
        """The network, and its description."""
        return [self.path, self.path.with_name(f"{self.path.name}.json")]

    def load(self, runtime: Runtime) -> "PiperSynthesizer":
        """The network on the GPU or the CPU, by ONNX Runtime."""
        path, described = self.weights()
        voice = PiperVoice.read(described)
        net = onnx.session(path, runtime)
        wanted = INPUTS | ({SPEAKER} if voice.speakers else set())
        if {one.name for one in net.get_inputs()} != wanted:
            raise ConfigurationError(f"{path.name} is no Piper voice: its inputs are not {sorted(wanted)}")
        return PiperSynthesizer(path.stem, voice, net, self.voice, self.scales)


class PiperSynthesizer:
    """Speaks a sentence at a time. Thread-safe: ONNX Runtime's sessions are."""

    def __init__(
        self,
        name: str,
        voice: PiperVoice,
        net: ort.InferenceSession,
        default: str,
        scales: dict[str, float],
    ) -> None:
        self._name, self._voice, self._net, self._default = name, voice, net, default
        self._scales = {one: float(getattr(voice, one)) for one in RANGES} | scales
        if voice.phonemes != TEXT:
            self._library = process()
            files = EspeakVoices(self._library.languages, self._library.variants, voice.espeak)
            self._espeak = files.identifier("", "")
        try:
            self._speaker(default)
        except InvalidInput as error:
            raise ConfigurationError(f"option voice:{default}: {error.message}") from error

    @property
    def rate(self) -> int:
        """As its description says: 16000 of x-low and low voices, 22050 of the others."""
        return self._voice.rate

    @property
    def voices(self) -> list[Voice]:
        """Its speakers; where there is one, the file's name."""
        return [Voice(name, self._voice.languages) for name in self._voice.speakers or [self._name]]

    def speak(self, utterance: Utterance) -> Iterator[NDArray[np.float32]]:
        """One piece a sentence, as eSpeak NG tells them apart.

        `voice` is a speaker's name or number. `params` takes the scales of the options for this utterance.
        Raises InvalidInput for an unknown speaker, a language that is not the voice's, a scale or speed out
        of its range, and for text of which nothing can be spoken.
        """
        speaker = self._speaker(utterance.voice or self._default)
        if utterance.language and not self._voice.speaks(utterance.language):
            raise InvalidInput(
                f'language "{utterance.language[:40]}" is not spoken; this voice speaks '
                f"{', '.join(self._voice.languages)}"
            )
        if not SLOWEST <= utterance.speed <= FASTEST:
            raise InvalidInput(f"speed must be between {SLOWEST:g} and {FASTEST:g}")
        scales = self._scales | _scales(utterance.params)
        scales["length_scale"] /= utterance.speed
        return self._spoken(clean(utterance.text), speaker, scales)

    def _spoken(
        self, text: str, speaker: int | None, scales: dict[str, float]
    ) -> Iterator[NDArray[np.float32]]:
        found = [ids(sentence, self._voice.table) for sentence in self._phonemes(text)]
        if not any(found):
            raise InvalidInput("the voice knows no sound for anything in the text")
        for sentence in filter(None, found):
            yield self._run(sentence, speaker, scales)

    def _phonemes(self, text: str) -> list[list[str]]:
        if self._voice.phonemes != TEXT:
            return sentences(text, self._espeak, self._library)
        if len(text) > MOST_CHARACTERS:
            raise InvalidInput(f"piper speaks at most {MOST_CHARACTERS} characters at once")
        return characters(text)

    def _run(self, sentence: list[int], speaker: int | None, scales: dict[str, float]) -> NDArray[np.float32]:
        """The sound of one sentence, shape (n,), its peak at LEVEL."""
        feeds = {
            "input": np.array([sentence], np.int64),
            "input_lengths": np.array([len(sentence)], np.int64),
            "scales": np.array(
                [scales["noise_scale"], scales["length_scale"], scales["noise_w"]], np.float32
            ),
        }
        if speaker is not None:
            feeds[SPEAKER] = np.array([speaker], np.int64)
        try:
            samples = np.asarray(self._net.run(None, feeds)[0], np.float32).reshape(-1)
        except (Fail, InvalidArgument, RuntimeException) as error:
            raise InvalidInput("the voice's network cannot speak this text") from error
        samples = np.nan_to_num(samples, posinf=0, neginf=0)
        return samples * np.float32(LEVEL / max(LEAST_PEAK, float(np.abs(samples).max(initial=0))))

    def _speaker(self, voice: str) -> int | None:
        """A speaker's number, None where the voice has one. Raises InvalidInput for an unknown one."""
        speakers = self._voice.speakers
        if not voice:
            return min(speakers.values(), default=None)
        if voice in speakers:
            return speakers[voice]
        if voice.isdecimal() and len(voice) < 6 and int(voice) in speakers.values():
            return int(voice)
        if not speakers and voice in (self._name, f"{self._name}.onnx", "0"):
            return None
        known = list(speakers)[:8] or [self._name]
        raise InvalidInput(f'voice "{voice[:40]}" is unknown; known are {", ".join(known)}')


def _scales(params: dict[str, str]) -> dict[str, float]:
    """The values of a request. Raises InvalidInput for unknown names and for what is not in its range."""
    found = {}
    for name, text in params.items():
        if name == "seed":  # the networks draw at random inside, and take none
            continue
        if name not in RANGES:
            raise InvalidInput(f'parameter "{name[:40]}" is unknown; known: {", ".join(RANGES)}')
        low, high = RANGES[name]
        try:
            found[name] = float(text)
        except ValueError:
            found[name] = low - 1
        if not low <= found[name] <= high:
            raise InvalidInput(f"parameter {name} must be a number between {low:g} and {high:g}")
    return found
