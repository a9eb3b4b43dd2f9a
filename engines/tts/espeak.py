"""eSpeak NG: formant synthesis of more than a hundred languages; library and data come inside a package.

Source: https://github.com/espeak-ng/espeak-ng (GPL-3.0), package espeakng-loader.
"""

from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import ClassVar

import espeakng_loader
import numpy as np
from numpy.typing import NDArray

from engines.errors import InvalidInput
from engines.options import whole
from engines.tts import Utterance, Voice
from engines.tts.espeak_process import EspeakProcess, process
from engines.tts.espeak_voices import EspeakVoices
from engines.tts.sentences import clean
from engines.tts.shaping import FASTEST, SLOWEST, Tempo
from engines.types import EngineOptions, Runtime

SLOWEST_WORDS, FASTEST_WORDS = 80, 900
"""Words a minute between which the library changes its pace itself."""

DEFAULT_VOICE = "en-us+f5"
"""Of the variants that do not clip, the one that a recognizer understands best: docs/accuracy.md."""

RANGES = {
    "rate": (80, 450, 175),
    "pitch": (0, 99, 50),
    "range": (0, 99, 50),
    "volume": (0, 200, 100),
    "word_gap": (0, 100, 0),
}
"""Lowest, highest and usual value of each number."""


class Espeak:
    """The engine: options, and its synthesizer."""

    known_options: ClassVar[dict[str, str]] = {
        "voice": "who speaks when a request names nobody: a language, and a variant after +; en-us+f5",
        "rate": "words a minute at speed 1, 80 to 450; 175",
        "pitch": "0 to 99; 50",
        "range": "how much the pitch varies, 0 to 99; 50",
        "volume": "percent, 0 to 200; 100",
        "word_gap": "pause between words, in hundredths of a second, 0 to 100; 0",
    }
    own_speed: ClassVar[bool] = True
    follows_instructions: ClassVar[bool] = False
    clones: ClassVar[bool] = False
    splits_text: ClassVar[bool] = True

    def __init__(self, options: EngineOptions) -> None:
        self.voice = options.options.get("voice", DEFAULT_VOICE)
        self.numbers = {
            name: whole(options, name, usual, low, high) for name, (low, high, usual) in RANGES.items()
        }

    def weights(self) -> list[Path]:
        """The library inside the package."""
        return [Path(espeakng_loader.get_library_path())]

    def load(self, runtime: Runtime) -> "EspeakSynthesizer":  # noqa: ARG002 - the protocol names it
        """Raises ConfigurationError for an unknown voice and where the library cannot be started."""
        return EspeakSynthesizer(process(), self.voice, self.numbers)


class EspeakSynthesizer:
    """Speaks; all synthesizers of a process share one library, and wait for one another."""

    def __init__(self, library: EspeakProcess, voice: str, numbers: dict[str, int]) -> None:
        self._library = library
        self._voices = EspeakVoices(library.languages, library.variants, voice)
        self._numbers = numbers

    @property
    def rate(self) -> int:
        """22050."""
        return self._library.rate

    @property
    def voices(self) -> list[Voice]:
        """Every language, and every variant of the default language."""
        return self._voices.listed

    def speak(self, utterance: Utterance) -> Iterator[NDArray[np.float32]]:
        """Pieces of at most a tenth of a second at the voice's own pace.

        `params` takes the numbers of the options for this utterance. Neither SSML nor phonemes are read: they
        are spoken as they are written. Raises InvalidInput for an unknown voice, language or number, for a
        speed outside SLOWEST..FASTEST, and for text of which nothing can be spoken.
        """
        voice = self._voices.identifier(utterance.voice, utterance.language)
        numbers = self._numbers | _numbers(utterance.params)
        if not SLOWEST <= utterance.speed <= FASTEST:
            raise InvalidInput(f"speed must be between {SLOWEST:g} and {FASTEST:g}")
        words = numbers["rate"] * utterance.speed
        numbers["rate"] = round(min(max(words, SLOWEST_WORDS), FASTEST_WORDS))
        sound = self._library.speak(clean(utterance.text), voice, numbers)
        bounded = SLOWEST_WORDS <= words <= FASTEST_WORDS
        return _audible(sound, None if bounded else Tempo(self.rate, words / numbers["rate"]))


def _audible(
    sound: Generator[NDArray[np.int16], None, None], tempo: Tempo | None
) -> Iterator[NDArray[np.float32]]:
    """Raises InvalidInput where all of it is silent."""
    heard = False
    with closing(sound):
        for piece in sound:
            heard = heard or bool(piece.any())
            samples = piece.astype(np.float32) / np.float32(32768)
            yield tempo.feed(samples) if tempo else samples
    if not heard:
        raise InvalidInput("espeak-ng finds nothing in the text that it can speak")
    if tempo:
        yield tempo.finish()


def _numbers(params: dict[str, str]) -> dict[str, int]:
    """The values of a request. Raises InvalidInput for unknown names and for what is not in its range."""
    found = {}
    for name, text in params.items():
        if name == "seed":  # the library varies its pitch at random, and cannot repeat it
            continue
        if name not in RANGES:
            raise InvalidInput(f'parameter "{name[:40]}" is unknown; known: {", ".join(RANGES)}')
        low, high, _ = RANGES[name]
        if not (text.isdecimal() and len(text) <= 3 and low <= int(text) <= high):
            raise InvalidInput(f"parameter {name} must be a whole number between {low} and {high}")
        found[name] = int(text)
    return found
