"""Text to the phonemes and ids that Piper's voices were trained on.

Source: https://github.com/rhasspy/piper-phonemize: one "phoneme" is one character of decomposed IPA (NFD),
clauses keep their punctuation, and sentences are told apart by eSpeak NG.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from engines.tts.espeak_process import EspeakProcess

BEGIN, END, PAD = "^", "$", "_"

ENDS = {
    "!": "!܃߹᥄‼❕❗❢❣︕﹗",  # noqa: RUF001 - marks of many scripts
    "?": "?;؟܉፧᥅⁇❓❔⳺⳻︖﹖",
    ".": ".۔܁܄።᙮᠃᠉⳹⳾⸳⸼︒﹒｡",  # noqa: RUF001 - marks of many scripts
    "": "։܀।॥෴།༎჻፨。！．？",  # noqa: RUF001 - marks of many scripts
}
"""What a sentence's last mark becomes; the marks are those that eSpeak NG 1.52 tells apart."""

PAUSES = {
    ", ": ",՝،܂߸༔፣᠂᠈⸲⸴⹁︐︑﹐﹑､",  # noqa: RUF001 - marks of many scripts
    ": ": ":܆܇፥፦᠄⦂︓﹕",
    "; ": ";·؛܈፤–—⁏⸵⸺⸻︔︱︲﹔",  # noqa: RUF001 - marks of many scripts
    "": "¡¿᠁…⋮⋯⋰⋱、︙，：；",  # noqa: RUF001 - marks of many scripts
}
"""What the last mark of any other clause becomes."""

SWITCHES = re.compile(r"\([a-z-]+\)")
"""Names of languages, around words that are spoken in another one."""

MARKS = {mark: (text, True) for text, marks in ENDS.items() for mark in marks} | {
    mark: (text, False) for text, marks in PAUSES.items() for mark in marks
}


def sentences(text: str, voice: str, library: EspeakProcess) -> list[list[str]]:
    """The phonemes of each sentence as eSpeak NG reads it. voice: its identifier.

    Raises InvalidInput for text that the library cannot speak.
    """
    found: list[list[str]] = [[]]
    clauses = library.phonemes(text, voice)
    for place, (ipa, read) in enumerate(clauses):
        mark, ends = _mark(read, place == len(clauses) - 1)
        found[-1] += unicodedata.normalize("NFD", SWITCHES.sub("", ipa) + mark)
        if ends:
            found.append([])
    return [sentence for sentence in found if sentence]


def _mark(read: str, last: bool) -> tuple[str, bool]:
    """What stands for the mark at the end of a clause, and whether a sentence ends there.

    read: the text of the clause; unless it is the last, with the first character of the next one.
    """
    text = read if last else read[:-1]
    tail = text[len(text.rstrip("".join(_closing(text)))) :]
    if "..." in tail:
        return "", False
    marks = [MARKS[character] for character in tail if character in MARKS]
    if marks:
        return marks[0]
    return "", tail.count("\n") > 1


def _closing(text: str) -> set[str]:
    """The characters of a text that are neither letter, digit nor sign of one: marks, quotes, spaces."""
    return {character for character in text if unicodedata.category(character)[0] not in "LNM"}


def characters(text: str) -> list[list[str]]:
    """The phonemes of voices that read letters: the lower-case characters, as one sentence."""
    return [list(unicodedata.normalize("NFD", text.casefold()))]


def ids(phonemes: Iterable[str], table: Mapping[str, Sequence[int]]) -> list[int]:
    """BEGIN, the phonemes and END with PAD between them; what the table does not know is left out.

    Nothing at all where it knows none of the phonemes.
    """
    known = [table[phoneme] for phoneme in phonemes if phoneme in table]
    if not known:
        return []
    pad = table[PAD]
    return [*table[BEGIN], *pad, *(one for part in known for one in (*part, *pad)), *table[END]]
