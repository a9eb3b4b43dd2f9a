"""Real speech of eSpeak NG: heard, measured, hostile, and by many threads at once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from time import monotonic

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines import registry
from engines.errors import ConfigurationError, InvalidInput
from engines.tts import Synthesizer, Utterance
from engines.tts.espeak import Espeak, EspeakSynthesizer
from engines.tts.espeak_process import MOST_CHARACTERS, EspeakProcess, process
from engines.tts.espeak_voices import EspeakVoices
from engines.types import EngineOptions, Runtime

TEXT = "The quick brown fox jumps over the lazy dog near the bank of the river."
CRASHES = [("ti", "\u28ff"), ("en-us", "A." * 500)]
"""Languages and texts that abort the C library (1.52.0)."""


def engine(**options: str) -> EspeakSynthesizer:
    """The plain male voice, whose pitch is the easiest to measure, unless the options say otherwise."""
    return Espeak(EngineOptions(options={"voice": "en-us"} | options)).load(Runtime())


@pytest.fixture(scope="module")
def espeak() -> EspeakSynthesizer:
    return engine()


def sound(synthesizer: Synthesizer, text: str = TEXT, **how: object) -> NDArray[np.float32]:
    return np.concatenate(list(synthesizer.speak(Utterance(text, **how))))  # type: ignore[arg-type] # by name


def alike(first: NDArray[np.float32], second: NDArray[np.float32]) -> bool:
    """Whether two sounds may be of one text.

    The library varies single periods of the pitch at random, and an echo may end one chunk later.
    """
    return bool(len(first) == pytest.approx(len(second), rel=0.05, abs=2300))


def pitch(samples: NDArray[np.float32], rate: int) -> float:
    """Median fundamental frequency in hertz, by autocorrelation of 40 ms windows."""
    size, lags = rate // 25, (rate // 300, rate // 60)
    found = []
    for start in range(0, len(samples) - size, size):
        part = samples[start : start + size] * np.hanning(size)
        likeness = np.correlate(part, part, "full")[size - 1 :]
        lag = lags[0] + int(np.argmax(likeness[lags[0] : lags[1]]))
        if likeness[0] > 1 and likeness[lag] > 0.6 * likeness[0]:
            found.append(rate / lag)
    return float(np.median(found))


def test_the_registry_knows_it() -> None:
    assert registry.capability("espeak-ng") == "tts"
    assert registry.load("tts", "espeak-ng") is Espeak
    assert all(path.is_file() for path in Espeak(EngineOptions()).weights())


def test_it_speaks_loud_and_unclipped() -> None:
    usual = Espeak(EngineOptions()).load(Runtime())
    samples = sound(usual)
    assert usual.rate == 22_050
    assert 3 < len(samples) / usual.rate < 5
    assert 0.3 < np.abs(samples).max() < 1
    assert samples.dtype == np.float32


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("de-DE", "Guten Tag, wie geht es Ihnen?"),
        ("fr", "Bonjour, comment allez-vous ?"),
        ("es-MX", "Buenos días, ¿cómo está usted?"),
        ("it-IT", "Ciao, sono Ettore"),
        ("zh-CN", "你好，今天天气很好。"),  # noqa: RUF001 - Chinese
        ("ja", "こんにちは、元気ですか。"),
        ("hi", "नमस्ते, आप कैसे हैं?"),
        ("ar", "مرحبا، كيف حالك؟"),
        ("ru", "Здравствуйте, как дела?"),
        ("el", "Καλημέρα, τι κάνετε;"),
        ("no", "God dag, hvordan har du det?"),
    ],
)
def test_languages(espeak: EspeakSynthesizer, language: str, text: str) -> None:
    samples = sound(espeak, text, language=language)
    assert 0.7 < len(samples) / espeak.rate < 6
    assert np.abs(samples).max() > 0.2


def test_every_listed_voice_speaks(espeak: EspeakSynthesizer) -> None:
    names = [voice.name for voice in espeak.voices]
    assert len(set(names)) == len(names) > 200
    for name in names:
        assert len(sound(espeak, "mama", voice=name)) > 2000, name


def test_voices_tell_language_and_gender(espeak: EspeakSynthesizer) -> None:
    voices = {voice.name: voice for voice in espeak.voices}
    assert voices["pt-br"].languages[0] == "pt-br"
    assert voices["de"].gender == "male"
    assert voices["en-us+f3"].gender == "female"
    assert pitch(sound(Espeak(EngineOptions()).load(Runtime())), 22_050) > 1.3 * pitch(sound(espeak), 22_050)
    assert pitch(sound(espeak, voice="en-us+f3"), 22_050) > 1.3 * pitch(sound(espeak), 22_050)


@pytest.mark.parametrize(
    ("voice", "language", "files"),
    [
        ("", "", "gmw/en-US"),
        ("", "en", "gmw/en-US"),
        ("", "en-GB", "gmw/en"),
        ("", "en_AU", "gmw/en"),
        ("EN-US+F3", "", "gmw/en-US+f3"),
        ("+f3", "", "gmw/en-US+f3"),
        ("en-gb", "en", "gmw/en"),
        ("en-us+f3", "de-AT", "gmw/de+f3"),
        ("de", "fr", "roa/fr"),
        ("", "zh-TW", "sit/cmn"),
        ("", "no", "gmq/nb"),
        ("", "es-AR", "roa/es"),
        ("pt_BR+Mr serious", "pt", "roa/pt-BR+Mr serious"),
    ],
)
def test_names_of_voices_and_languages(voice: str, language: str, files: str) -> None:
    voices = EspeakVoices(process().languages, process().variants, "en-us")
    assert voices.identifier(voice, language) == files


@pytest.mark.parametrize(
    "how",
    [
        {"voice": "nobody"},
        {"voice": "en-us+nobody"},
        {"voice": "en-us+"},
        {"voice": "+"},
        {"voice": "../../../../etc/passwd"},
        {"voice": "en-us+../f3"},
        {"voice": "\ud800\x00"},
        {"voice": "mb-en1"},
        {"language": "xx"},
        {"language": "\ud800"},
        {"speed": 0.0},
        {"speed": 0.2},
        {"speed": 4.5},
        {"speed": float("nan")},
        {"params": {"pitch": "100"}},
        {"params": {"rate": "-1"}},
        {"params": {"rate": "abc"}},
        {"params": {"rate": "9" * 5000}},
        {"params": {"colour": "1"}},
    ],
)
def test_what_it_does_not_know_is_refused(espeak: EspeakSynthesizer, how: dict[str, object]) -> None:
    with pytest.raises(InvalidInput) as caught:
        list(espeak.speak(Utterance(TEXT, **how)))  # type: ignore[arg-type] # by name
    assert len(caught.value.message) < 250


def test_an_unknown_voice_is_told_some_that_exist(espeak: EspeakSynthesizer) -> None:
    with pytest.raises(InvalidInput, match=r'"nobody" is unknown; known are en-us, .*en-us\+f3'):
        sound(espeak, voice="nobody")


@pytest.mark.parametrize("speed", [0.25, 0.5, 0.75, 1.5, 2, 3, 4])
def test_speed_changes_the_length_and_not_the_pitch(espeak: EspeakSynthesizer, speed: float) -> None:
    usual, changed = sound(espeak), sound(espeak, speed=speed)
    assert len(usual) / len(changed) == pytest.approx(speed, rel=0.1)
    if speed > 3:
        return  # periods of one pitch are too few to be told
    assert pitch(changed, espeak.rate) == pytest.approx(pitch(usual, espeak.rate), rel=0.12)


def test_the_fastest_of_a_fast_voice() -> None:
    fast = engine(rate="450")
    assert len(sound(fast)) / len(sound(fast, speed=4)) == pytest.approx(4, rel=0.15)


def test_options_and_parameters_are_heard(espeak: EspeakSynthesizer) -> None:
    usual = sound(espeak)
    assert pitch(sound(engine(pitch="99")), 22_050) > 1.2 * pitch(usual, 22_050)
    assert alike(sound(engine(pitch="99")), sound(espeak, params={"pitch": "99", "seed": "7"}))
    assert np.abs(sound(engine(volume="20"))).max() < 0.4 * np.abs(usual).max()
    assert len(sound(engine(word_gap="20"))) > 1.2 * len(usual)
    assert alike(sound(engine(voice="de"), "eins"), sound(espeak, "eins", voice="de"))
    assert alike(sound(espeak), usual)  # nothing of one request stays for the next


@pytest.mark.parametrize(
    "options", [{"voice": "nobody"}, {"rate": "1000"}, {"pitch": "x"}, {"volume": "-1"}, {"range": "1.5"}]
)
def test_wrong_options_are_configuration_errors(options: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        engine(**options)


@pytest.mark.parametrize("text", ["", " ", "\x00\x01", "\ud800"])
def test_text_without_anything_to_speak_is_refused(espeak: EspeakSynthesizer, text: str) -> None:
    with pytest.raises(InvalidInput, match="nothing"):
        sound(espeak, text)


def test_markup_is_read_out_and_not_followed(espeak: EspeakSynthesizer) -> None:
    plain = len(sound(espeak, "one two"))
    for text in (
        '<speak>one <break time="9s"/> two</speak>',
        "one [[tu:]] two",
        '<audio src="/etc/passwd">one</audio> two',
        "one \x0120S two",
    ):
        assert plain < len(sound(espeak, text)) < 9 * espeak.rate


def test_text_that_aborts_the_library_is_refused_and_the_next_is_spoken(espeak: EspeakSynthesizer) -> None:
    before = sound(espeak)
    for language, text in CRASHES:
        with pytest.raises(InvalidInput, match="cannot speak this text"):
            sound(espeak, text, language=language)
        assert alike(sound(espeak), before)


def test_too_long_a_text_is_refused(espeak: EspeakSynthesizer) -> None:
    with pytest.raises(InvalidInput, match=str(MOST_CHARACTERS)):
        sound(espeak, "a" * (MOST_CHARACTERS + 1))


@pytest.mark.parametrize("text", ["word ", "x", "9", "'", "(", "\u0301", "\U0001f600"])
def test_long_texts_without_end(espeak: EspeakSynthesizer, text: str) -> None:
    try:
        assert len(sound(espeak, (text * MOST_CHARACTERS)[:MOST_CHARACTERS])) < 60 * espeak.rate
    except InvalidInput:
        assert not text.strip().isalnum()


LANGUAGES = sorted(voice.code for voice in process().languages if len(voice.code) == 2)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=300), st.sampled_from(LANGUAGES))
def test_any_text_is_spoken_or_refused(text: str, language: str) -> None:
    synthesizer = engine()
    try:
        samples = sound(synthesizer, text, language=language)
    except InvalidInput:
        return
    assert len(samples)
    assert np.abs(samples).max() <= 1


def test_many_threads_hear_what_one_hears(espeak: EspeakSynthesizer) -> None:
    jobs = [
        (text, {"voice": voice, "speed": speed})
        for text in ("One two three four five six seven eight.", "Nine ten.")
        for voice in ("en-us", "de+f3", "fr", "cmn")
        for speed in (0.5, 1.0, 2.0)
    ]
    alone = [sound(espeak, text, **how) for text, how in jobs]
    order = list(range(len(jobs))) * 3
    np.random.default_rng(1).shuffle(order)
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda job: sound(espeak, jobs[job][0], **jobs[job][1]), order))
    assert all(alike(heard, alone[job]) for heard, job in zip(together, order, strict=True))


def test_one_crash_does_not_disturb_the_others(espeak: EspeakSynthesizer) -> None:
    language, text = CRASHES[0]
    before = sound(espeak)

    def speak(number: int) -> bool:
        if number % 5:
            return alike(sound(espeak), before)
        with pytest.raises(InvalidInput):
            sound(espeak, text, language=language)
        return True

    with ThreadPoolExecutor(5) as pool:
        assert all(pool.map(speak, range(15)))


def test_closing_stops_the_synthesis(espeak: EspeakSynthesizer) -> None:
    """A hundred long texts are stopped in less time than ten of them take."""
    long = (TEXT + " ") * 13
    start = monotonic()
    for _ in range(10):
        sound(espeak, long)
    ten, start = monotonic() - start, monotonic()
    for _ in range(100):
        pieces = espeak.speak(Utterance(long))
        assert len(next(iter(pieces)))
        pieces.close()  # type: ignore[attr-defined] # a generator
    assert monotonic() - start < ten


def test_nothing_of_a_stopped_text_is_left(espeak: EspeakSynthesizer) -> None:
    before, phonemes = sound(espeak), process().phonemes("Hello.", "gmw/en-US")
    for stopped_after in (1, 5, 20):
        list(islice(espeak.speak(Utterance("She sells. " * 90)), stopped_after))
        assert process().phonemes("Hello.", "gmw/en-US") == phonemes
        assert alike(sound(espeak), before)


def test_an_iterator_that_is_never_begun_costs_nothing(espeak: EspeakSynthesizer) -> None:
    waiting = [espeak.speak(Utterance(TEXT)) for _ in range(100)]
    assert len(sound(espeak))
    del waiting


def test_sound_comes_in_pieces(espeak: EspeakSynthesizer) -> None:
    pieces = list(espeak.speak(Utterance(TEXT)))
    assert max(map(len, pieces)) <= espeak.rate // 9
    slow = list(espeak.speak(Utterance(TEXT, speed=0.25)))
    assert max(map(len, slow)) <= espeak.rate


def test_a_library_that_cannot_be_started_is_a_configuration_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: str
) -> None:
    missing: Callable[[], str] = lambda: f"{tmp_path}/no.so"  # noqa: E731 - one value
    monkeypatch.setattr("engines.tts.espeak_process.espeakng_loader.get_library_path", missing)
    with pytest.raises(ConfigurationError, match="install espeakng-loader") as caught:
        EspeakProcess()
    assert str(tmp_path) not in caught.value.message
