"""Phonemes and ids against examples that were checked by hand and with Piper's own program."""

# ruff: noqa: RUF001 - phonemes are written in IPA

import pytest

from engines.tts.espeak_process import process
from engines.tts.espeak_voices import EspeakVoices
from engines.tts.phonemes import characters, ids, sentences


def phonemes(text: str, voice: str = "en-us") -> list[str]:
    library = process()
    identifier = EspeakVoices(library.languages, library.variants, voice).identifier("", "")
    return ["".join(sentence) for sentence in sentences(text, identifier, library)]


@pytest.mark.parametrize(
    ("voice", "text", "expected"),
    [
        ("en-us", "Hello, world. How are you?", ["həlˈoʊ, wˈɜːld.", "hˈaʊ ɑːɹ juː?"]),
        ("en-us", "no mark", ["nˈoʊ mˈɑːɹk"]),
        ("en-us", "ok: yes; no, go!", ["ˌoʊkˈeɪ: jˈɛs; nˈoʊ, ɡˈoʊ!"]),
        ("en-us", "What?! Yes!!!", ["wˌʌt?", "jˈɛs!"]),
        ("en-us", 'He said "stop." Then', ["hiː sˈɛd stˈɑːp.", "ðˈɛn"]),
        ("en-us", "(one.) two", ["wˌʌn.", "tˈuː"]),
        ("en-us", "one -- two – three", ["wˈʌn tˈuː; θɹˈiː"]),
        ("en-us", "3.5 e.g. this... End", ["θɹˈiː pɔɪnt fˈaɪv fˌɔːɹɛɡzˈæmpəl ðˈɪsˈɛnd"]),
        ("en-us", "one\n\ntwo", ["wˌʌn", "tˈuː"]),
        ("de", "Guten Tag, wie geht's?", ["ɡˈuːtən tˈɑːk, viː ɡˈeːts?"]),
        ("de", "Das ist ein Computer.", ["das ɪst aɪn kɔmpjˈuːtɜ."]),
        ("it", "Ciao, sono Ettore", ["tʃˈao, sˌono ˈɛtːore"]),
        ("cmn", "你好，世界。好", ["ni2χˈɑu2s.ˈi.5 tɕˈiɛ5", "χˈɑu2"]),
        ("ar", "كيف حالك؟", ["kˈajfa ħˈaːlik?"]),
    ],
)
def test_sentences(voice: str, text: str, expected: list[str]) -> None:
    assert phonemes(text, voice) == expected


def test_accents_are_phonemes_of_their_own() -> None:
    (nasal,) = phonemes("bon", "fr")
    assert nasal == "bˈɔ\u0303"


def test_ids_by_the_published_rule() -> None:
    table = {"_": [0], "^": [1], "$": [2], " ": [3], ",": [8], "h": [20], "ə": [59], "ˈ": [120], "x": [7, 9]}
    assert ids("hə, ˈ", table) == [1, 0, 20, 0, 59, 0, 8, 0, 3, 0, 120, 0, 2]
    assert ids("hqx", table) == [1, 0, 20, 0, 7, 9, 0, 2]  # q is unknown, x has two ids
    assert ids("qq", table) == ids("", table) == []


def test_letters_of_voices_that_read_text() -> None:
    assert characters("Éa") == [["e", "\u0301", "a"]]
