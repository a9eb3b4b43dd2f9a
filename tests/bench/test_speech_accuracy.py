"""Speech is understood: PocketSphinx hears what eSpeak NG says."""

import pytest

from bench.speech_accuracy import errors, measure, word_error_rate, words
from engines.tts.espeak import Espeak
from engines.types import EngineOptions, Runtime


@pytest.mark.parametrize(
    ("said", "heard", "wrong"),
    [
        ("a b c", "a b c", 0),
        ("a b c", "a c", 1),
        ("a b c", "a x b c", 1),
        ("a b c", "", 3),
        ("a b", "x y z", 3),
    ],
)
def test_errors_are_words_replaced_dropped_or_added(said: str, heard: str, wrong: int) -> None:
    assert errors(words(said), words(heard)) == wrong


def test_twenty_plain_sentences_are_understood() -> None:
    found = measure(Espeak(EngineOptions()).load(Runtime()))
    assert len(found) == 20
    assert word_error_rate(found) < 0.5  # pitch varies at random: 0.25 to 0.38 in docs/accuracy.md
