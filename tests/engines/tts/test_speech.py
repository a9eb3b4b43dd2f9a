"""A text, spoken, joined, limited and encoded: what a caller hears in every format."""

import io

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from engines.audio import decode
from engines.tts import Utterance
from engines.tts.encoding import Encoder
from engines.tts.espeak import Espeak, EspeakSynthesizer
from engines.tts.formats import Target
from engines.tts.sentences import phrases
from engines.tts.shaping import CEILING, Joiner, Limiter
from engines.types import EngineOptions, Runtime

TEXT = "Dr. Smith paid $3.50 for it. Really? Yes!\n\nIt was, as everybody knows, the 2nd of May."


@pytest.fixture(scope="module")
def spoken() -> tuple[list[NDArray[np.float32]], EspeakSynthesizer]:
    """The pieces as they come, each of them limited."""
    espeak = Espeak(EngineOptions()).load(Runtime())
    joiner, limiter, pieces = Joiner(espeak.rate), Limiter(espeak.rate), []
    for phrase in phrases(TEXT, "en"):
        pieces += [limiter.feed(joiner.feed(piece)) for piece in espeak.speak(Utterance(phrase.text))]
        pieces.append(limiter.feed(joiner.end(phrase.pause)))
    return [*pieces, limiter.finish()], espeak


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("name", ["wav", "mp3", "aac", "flac", "opus"])
def test_speech_in_every_format(
    spoken: tuple[list[NDArray[np.float32]], EspeakSynthesizer], name: str, whole: bool
) -> None:
    pieces, espeak = spoken
    seconds = sum(map(len, pieces)) / espeak.rate
    encoder = Encoder(Target(name), espeak.rate, whole)
    data = b"".join([*(encoder.feed(piece) for piece in pieces), encoder.finish()])
    with av.open(io.BytesIO(data), "r") as container:
        rate = container.streams.audio[0].rate
    audio = decode(data, rate, 60)
    assert rate == {"opus": 48_000}.get(name, 22_050)
    assert audio.seconds == pytest.approx(seconds, abs=0.15)
    assert 0.2 < np.abs(audio.samples).max() <= 1
    assert np.count_nonzero(np.abs(audio.samples) > 0.99) < 5
    assert 0.03 < np.sqrt(np.mean(audio.samples**2)) < 0.3


def test_phrases_are_heard_apart(spoken: tuple[list[NDArray[np.float32]], EspeakSynthesizer]) -> None:
    pieces, espeak = spoken
    samples = np.concatenate(pieces)
    loud = np.flatnonzero(np.abs(samples) > 0.002)
    gaps = np.diff(loud) / espeak.rate
    assert [round(gap, 1) for gap in gaps[gaps > 0.25]] == pytest.approx([0.35, 0.35, 0.65], abs=0.1)
    assert np.abs(samples).max() <= CEILING
