"""Where texts of many languages are cut."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import InvalidInput
from engines.tts.sentences import LONGEST, PARAGRAPH_PAUSE, SENTENCE_PAUSE, clean, phrases

SENTENCES = [
    ("en", ["Dr. Smith met Mr. Jones at 5 p.m. on Friday.", "They talked."]),
    ("en", ["It costs $3.50 at the U.S. store.", "Cheap!"]),
    ("en", ["He lives in the U.S. and works, e.g., in St. Louis.", "Fine."]),
    ("en", ['"Are you coming?" she asked.', '"Yes."']),
    ("en", ["“Hi. How are you?” he said.", "“Fine.”"]),
    ("en", ['He said "Stop."', "Then he left."]),
    ("en", ["Wait... what is that?", "A dog."]),
    ("en", ["Version 2.0.1 is out.", "See example.com for more."]),
    ("en", ["First.", "Second!", "Third?", "Really?!", "Yes!!!"]),
    ("en", ["I met J. R. R. Tolkien.", "He wrote books."]),
    ("en", ["The meeting is on Jan. 5 at No. 10 Downing St. in London.", "Come early."]),
    ("en", ["Prof. Lee (b. 1950) teaches.", "She is kind."]),
    ("en", ["It is 3 p.m.", "We go home."]),
    ("en", ["1. Buy milk.", "2. Call Bob."]),
    ("en", ["Inc. and Ltd. are forms.", "Acme Inc. is one."]),
    ("", ["Dr. Smith is in.", "He waits."]),
    ("en-US", ["Mrs. Smith is in.", "She waits."]),
    ("de", ["Das ist z. B. ein Test.", "Er kam am 3. Mai 1999 an."]),
    ("de-DE", ["Herr Dr. Müller wohnt in der Hauptstr. 5.", "Er ist nett."]),
    ("es", ["El Sr. García llegó.", "¿Qué hora es?", "¡Tarde!"]),
    ("it", ["Il dott. Rossi è qui.", "Ciao!"]),
    ("pt_BR", ["O Sr. Silva chegou.", "A Dra. Ana também."]),
    ("nl", ["Dhr. Jansen komt bijv. om 3 uur.", "Goed."]),
    ("pl", ["To jest np. kot.", "Dobry."]),
    ("ru", ["Он родился в 1990 г. в г. Москве.", "Потом уехал."]),  # noqa: RUF001 - Russian
    ("el", ["Τι κάνεις;", "Είμαι καλά."]),  # noqa: RUF001 - Greek
    ("hy", ["Բարեւ։", "Ինչպես ես։"]),  # noqa: RUF001 - Armenian
    ("ar", ["كيف حالك؟", "أنا بخير."]),
    ("ur", ["یہ ایک جملہ ہے۔", "یہ دوسرا ہے۔"]),  # noqa: RUF001 - Urdu
    ("hi", ["यह एक वाक्य है।", "यह दूसरा है।"]),
    ("am", ["ሰላም።", "እንዴት ነህ?"]),
    ("ko", ["안녕하세요.", "반갑습니다."]),
]
UNSPACED = [
    ("ja", ["今日は良い天気です。", "明日は雨でしょう。", "本当?", "はい!"]),
    ("zh", ["你好。", "今天天气很好！", "你呢？"]),  # noqa: RUF001 - Chinese
    ("", ["你好。", "今天天气很好！", "你呢？"]),  # noqa: RUF001 - Chinese
    ("my", ["ဒါက စာကြောင်းတစ်ခုပါ။", "နောက်တစ်ခုပါ။"]),
]


def texts(text: str, language: str = "") -> list[str]:
    return [phrase.text for phrase in phrases(text, language)]


@pytest.mark.parametrize(("language", "sentences"), SENTENCES)
def test_sentences_of_languages_with_spaces(language: str, sentences: list[str]) -> None:
    assert texts(" ".join(sentences), language) == sentences


@pytest.mark.parametrize(("language", "sentences"), UNSPACED)
def test_sentences_of_languages_without_spaces(language: str, sentences: list[str]) -> None:
    assert texts("".join(sentences), language) == sentences


def test_lines_and_paragraphs() -> None:
    found = phrases("A title\nThe first line\ngoes on here.\r\n\r\n- an item\u2028- Another\n\n \n\nThe end.")
    assert [phrase.text for phrase in found] == [
        *("A title", "The first line goes on here.", "- an item", "- Another", "The end."),
    ]
    assert [phrase.pause for phrase in found] == [
        *(SENTENCE_PAUSE, PARAGRAPH_PAUSE, SENTENCE_PAUSE, PARAGRAPH_PAUSE, 0),
    ]


def test_text_without_punctuation_is_cut_between_words() -> None:
    words = "the quick brown fox jumps over the lazy dog " * 50
    found = phrases(words)
    assert all(LONGEST / 2 < len(phrase.text) <= LONGEST for phrase in found[:-1])
    assert " ".join(phrase.text for phrase in found) == words.strip()


def test_long_sentences_are_cut_after_commas() -> None:
    found = texts("one two three four five six seven, " * 30)
    assert len(found) > 3
    assert all(text.endswith("seven,") for text in found)


@pytest.mark.parametrize("text", ["天気" * 1000, "x" * 2000, "สวัสดี" * 400, "a" * 300 + "b"])
def test_text_without_borders_is_cut_anyway(text: str) -> None:
    found = texts(text)
    assert max(map(len, found)) <= LONGEST
    assert "".join(found) == text
    assert not any(unicodedata.category(part[0]).startswith("M") for part in found)


def test_a_long_first_sentence_begins_with_its_first_clauses() -> None:
    clauses = ["When the sun rises over the mountains,", "and birds sing,"]
    rest = "then everybody who lives in the valley begins to work in the fields by the river."
    assert texts(" ".join([*clauses, rest])) == [" ".join(clauses), rest]
    assert texts("Short, and whole.") == ["Short, and whole."]


@pytest.mark.parametrize(
    "text", ["", " \n\t", "...", "?!", "😀🎉", "— … —", "«»", "\ud83d", "\x00\x01", "\u0301" * 9]
)
def test_text_without_anything_to_speak_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="nothing that can be spoken"):
        phrases(text)


def test_parts_without_anything_to_speak_are_left_out() -> None:
    assert texts("Hello.\n😀 ...\nBye.\n\n***\n\nMore.") == ["Hello.", "Bye.", "More."]


def test_invisible_and_broken_characters_are_gone() -> None:
    assert clean("a\x01b\ud800c\u202ed\ufeffe\u00adf\x1b[0m\uffff") == "a b cdef [0m "
    assert clean("e\u0301 \u0646\u200c\u0645") == "\u00e9 \u0646\u200c\u0645"


@given(st.text(max_size=2000), st.sampled_from(["", "en", "ja", "ar", "zz", "../..", "\ud800", "x" * 50]))
def test_any_text_is_cut_into_bounded_speakable_parts(text: str, language: str) -> None:
    try:
        found = phrases(text, language)
    except InvalidInput:
        assert not any(character.isalnum() for character in clean(text))
        return
    assert all(len(phrase.text) <= LONGEST for phrase in found)
    assert all(any(map(str.isalnum, phrase.text)) for phrase in found)
    assert [phrase.pause > 0 or len(phrase.text) > LONGEST // 3 for phrase in found[:-1]].count(False) == 0
    kept = "".join(character for phrase in found for character in phrase.text if character.isalnum())
    assert kept == "".join(character for character in clean(text) if character.isalnum())


@pytest.mark.parametrize(
    "text", ["今日。", "a b ", "\n", '"a. ', ",  ", ".”", "(", "a\u0301\u0301\u0301", "Dr. "]
)
def test_long_texts_take_a_time_that_grows_with_their_length(text: str) -> None:
    """Quadratic work would run for hours here."""
    found = phrases("A" + text * (500_000 // len(text)), "ja")
    assert max(len(phrase.text) for phrase in found) <= LONGEST
