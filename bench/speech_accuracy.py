"""How well speech is understood: `python -m bench.speech_accuracy`.

A voice speaks twenty plain sentences, and PocketSphinx with its own American English model writes down what
it hears: https://github.com/cmusphinx/pocketsphinx. It was trained on people: a figure compares voices of one
kind; a person understands more of a synthetic voice than it does.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pocketsphinx import Config, Decoder
from rich.console import Console
from rich.table import Table

from engines import registry
from engines.audio import decode
from engines.tts import Synthesizer, TtsEngine, Utterance
from engines.tts.encoding import Encoder
from engines.tts.formats import Target
from engines.tts.sentences import phrases
from engines.tts.shaping import Joiner, Limiter
from engines.types import Audio, EngineOptions, Runtime

RATE = 16_000
"""Samples a second that PocketSphinx hears."""

SENTENCES = (
    "The house is very old.",
    "She opened the door and walked in.",
    "We will go to the market tomorrow.",
    "My brother works in a large office.",
    "Please close the window before you leave.",
    "The children are playing in the garden.",
    "He bought a new car last week.",
    "I would like a cup of coffee.",
    "The train leaves at seven in the morning.",
    "They have lived here for many years.",
    "It was raining when we arrived.",
    "The teacher asked a simple question.",
    "You can find the answer in this book.",
    "Her father is a doctor at the hospital.",
    "The meeting will start in ten minutes.",
    "We need more time to finish the work.",
    "The river runs through the middle of the town.",
    "He did not understand what she said.",
    "There is a small table next to the bed.",
    "The weather was cold but the sun was shining.",
)


@dataclass(frozen=True, slots=True)
class Heard:
    """One sentence, what was heard of it, and how many words of it were wrong, missing or added."""

    said: str
    heard: str
    errors: int

    @property
    def words(self) -> int:
        """Words that were said."""
        return len(words(self.said))


def spoken(synthesizer: Synthesizer, text: str, voice: str = "", speed: float = 1) -> Audio:
    """A text as a caller would get it, at RATE, with a little silence before and after it."""
    encoder = Encoder(Target("wav", RATE), synthesizer.rate, whole=True)
    joiner, limiter = Joiner(synthesizer.rate), Limiter(synthesizer.rate)
    silence = np.zeros(synthesizer.rate // 4, np.float32)
    encoder.feed(silence)
    for phrase in phrases(text, "en"):
        for piece in synthesizer.speak(Utterance(phrase.text, voice, speed=speed)):
            encoder.feed(limiter.feed(joiner.feed(piece)))
        encoder.feed(limiter.feed(joiner.end(phrase.pause)))
    encoder.feed(limiter.finish())
    encoder.feed(silence)
    return decode(encoder.finish(), RATE, 60)


def listener() -> Decoder:
    """PocketSphinx with the model inside its package."""
    return Decoder(Config(loglevel="FATAL", cmn="batch"))


def hear(decoder: Decoder, audio: Audio) -> str:
    """The words that it hears in a clip at RATE."""
    decoder.start_utt()
    decoder.process_raw((audio.samples * 32767).astype("<i2").tobytes(), full_utt=True)
    decoder.end_utt()
    found = decoder.hyp()
    return str(found.hypstr) if found else ""


def words(text: str) -> list[str]:
    """The words of a sentence, in lower case."""
    return text.lower().strip(".").split()


def errors(said: Sequence[str], heard: Sequence[str]) -> int:
    """Words to replace, drop or add so that one becomes the other (Levenshtein's distance)."""
    row = list(range(len(heard) + 1))
    for number, one in enumerate(said, 1):
        before, row = row, [number]
        for place, other in enumerate(heard, 1):
            row.append(min(before[place] + 1, row[-1] + 1, before[place - 1] + (one != other)))
    return row[-1]


def measure(synthesizer: Synthesizer, voice: str = "", speed: float = 1) -> list[Heard]:
    """Every sentence, spoken and heard."""
    decoder, found = listener(), []
    for said in SENTENCES:
        heard = hear(decoder, spoken(synthesizer, said, voice, speed))
        found.append(Heard(said, heard, errors(words(said), words(heard))))
    return found


def word_error_rate(found: Sequence[Heard]) -> float:
    """Errors for each word that was said."""
    return sum(one.errors for one in found) / sum(one.words for one in found)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m bench.speech_accuracy", description=__doc__)
    parser.add_argument("--engine", default="espeak-ng", help="of the registry; espeak-ng")
    parser.add_argument("--voices", default="", help="names, with commas between them; default: the engine's")
    parser.add_argument("--speed", type=float, default=1, help="0.25 to 4; 1")
    parser.add_argument("--sentences", action="store_true", help="print what was heard")
    given = parser.parse_args()
    engine: TtsEngine = registry.load("tts", given.engine)(EngineOptions())
    synthesizer, console = engine.load(Runtime()), Console(width=150)
    table = Table("voice", "words", "errors", "word error rate")
    for voice in given.voices.split(","):
        found = measure(synthesizer, voice, given.speed)
        total, wrong = sum(one.words for one in found), sum(one.errors for one in found)
        table.add_row(voice or "the default", str(total), str(wrong), f"{word_error_rate(found):.1%}")
        for one in found if given.sentences else ():
            console.print(f"{one.errors}  {one.said}  ->  {one.heard}")
    console.print(table)


if __name__ == "__main__":
    main()
