"""Text to phrases that are spoken one by one.

Sentences are told apart by sentencex, which knows the abbreviations, quotes and full stops of about 300
languages: https://github.com/wikimedia/sentencex (MIT).
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

import sentencex

from engines.errors import InvalidInput

LONGEST = 300
"""Characters of a phrase, about 20 seconds of speech."""

FIRST = 100
"""Characters up to which a comma ends the first phrase, so that sound comes early."""

BLOCK = 5_000
"""Characters in which sentences are looked for at once: for Japanese, the time grows with the square."""

PARAGRAPH_PAUSE, SENTENCE_PAUSE, CLAUSE_PAUSE, WORD_PAUSE = 0.6, 0.3, 0.15, 0.03
"""Seconds."""

ENDS = re.compile(r"[.!?…։؟۔।॥፧።။។༎]['\")\]»”’]*(?=\s)|[。！？｡][」』”’）]*")  # noqa: RUF001 - stops of many scripts
CLAUSES = re.compile(r"[,;:،؛፣၊·][\"'”’)]*(?=\s)|\s(?=[–—-]\s)|[，、；：—]")  # noqa: RUF001 - stops of many scripts
SPACES = re.compile(r"\s+")
BREAKS = re.compile(r"\r\n?|[\n\v\f\x1c-\x1e\x85\u2028\u2029]")
KEPT_FORMATS = "\u200c\u200d"
"""Zero-width joiners, which letters of many scripts need; other invisible characters are dropped."""


@dataclass(frozen=True, slots=True)
class Phrase:
    """A part of a text, and the seconds of silence that follow it at the usual pace; 0 at the end."""

    text: str
    pause: float


def phrases(text: str, language: str = "", longest: int = LONGEST, first: int = FIRST) -> list[Phrase]:
    """The text as sentences in their order, none longer than `longest` characters.

    A blank line ends a paragraph; a line ends a sentence unless the next begins in lower case. Longer
    sentences are cut after a comma or the like, else between words, else anywhere. A first sentence of more
    than `first` characters ends at its last comma within them. Parts without letter or digit are left out.
    language: BCP 47, "" for English rules, which tell full stops of all scripts.

    Raises InvalidInput for text without a letter or digit.
    """
    found: list[Phrase] = []
    for paragraph in paragraphs(clean(text)):
        part = [piece for line in paragraph for piece in _sentences(line, language, longest)]
        if part := _spoken(part):
            found += [*part[:-1], Phrase(part[-1].text, PARAGRAPH_PAUSE)]
    if not found:
        raise InvalidInput("the text holds nothing that can be spoken: it has no letter and no digit")
    found[-1] = Phrase(found[-1].text, 0)
    return [*_early(found[0], first), *found[1:]]


def clean(text: str) -> str:
    """Composed characters (NFC) without control characters, halves of surrogate pairs and unassigned ones.

    Lines end with a line feed.
    """
    return "".join(map(_kept, unicodedata.normalize("NFC", BREAKS.sub("\n", text))))


def _kept(character: str) -> str:
    match unicodedata.category(character):
        case "Cf":
            return character if character in KEPT_FORMATS else ""
        case "Cc" | "Cs" | "Co" | "Cn":
            return "\n" if character == "\n" else " "
    return character


def paragraphs(text: str) -> Iterator[list[str]]:
    """The lines of each paragraph; a line that begins in lower case continues the one before."""
    for paragraph in re.split(r"\n\s*\n", text):
        lines: list[str] = []
        for line in filter(None, (SPACES.sub(" ", one).strip() for one in paragraph.split("\n"))):
            if lines and line[0].islower():
                lines[-1] += f" {line}"
            else:
                lines.append(line)
        if lines:
            yield lines


def _sentences(line: str, language: str, longest: int) -> Iterator[Phrase]:
    """Sentences of a line, cut to their greatest length."""
    code = language.replace("_", "-").partition("-")[0].lower()
    code = code if re.fullmatch("[a-z]{2,3}", code) else "en"
    for block in cut(line, BLOCK):
        for sentence in _joined(sentencex.segment(code, block.text)):
            *parts, last = cut(sentence, longest)
            yield from parts
            yield Phrase(last.text, SENTENCE_PAUSE)


def _joined(sentences: list[str]) -> Iterator[str]:
    """Sentences, each with the bare numbers before it: "1." and "Buy milk." are one."""
    held = ""
    for sentence in filter(None, (one.strip() for one in sentences)):
        held = f"{held} {sentence}".strip()
        if any(character.isalpha() for character in sentence):
            yield held
            held = ""
    if held:
        yield held


def cut(text: str, longest: int) -> list[Phrase]:
    """Parts of at most `longest` characters, cut where it is heard least; the last has no pause."""
    parts: list[Phrase] = []
    while len(text) > longest:
        end, pause = _border(text, longest)
        parts.append(Phrase(text[:end].strip(), pause))
        text = text[end:].strip()
    return [*parts, Phrase(text, 0)]


def _border(text: str, longest: int) -> tuple[int, float]:
    """Where to cut, at most at `longest`, and the pause there."""
    head = text[: longest + 1]
    for pattern, pause in ((ENDS, SENTENCE_PAUSE), (CLAUSES, CLAUSE_PAUSE), (SPACES, WORD_PAUSE)):
        ends = [match.end() for match in pattern.finditer(head) if longest // 3 <= match.end() <= longest]
        if ends:
            return ends[-1], pause
    for end in range(longest, longest // 3, -1):
        if not unicodedata.category(text[end]).startswith("M") and text[end - 1] != "\u200d":
            return end, 0.0
    return longest, 0.0


def _spoken(parts: list[Phrase]) -> list[Phrase]:
    return [one for one in parts if any(character.isalnum() for character in one.text)]


def _early(phrase: Phrase, first: int) -> list[Phrase]:
    """The first phrase, in two where it is long and has a comma in time."""
    if len(phrase.text) <= first:
        return [phrase]
    ends = [match.end() for match in CLAUSES.finditer(phrase.text[: first + 1])]
    halves = (phrase.text[: ends[-1]].strip(), phrase.text[ends[-1] :].strip()) if ends else ("", "")
    parts = _spoken([Phrase(halves[0], CLAUSE_PAUSE), Phrase(halves[1], phrase.pause)])
    return parts if len(parts) == 2 else [phrase]
