"""What the labels of an audio classifier mean: an emotion, a gender, an age."""

import re
from collections.abc import Sequence

from engines.errors import ConfigurationError

EMOTIONS = {"neu": "neutral", "hap": "happy", "ang": "angry", "sad": "sad"}
"""SUPERB's short forms and the documented words. Source: https://huggingface.co/superb/wav2vec2-base-superb-er."""

GENDERS = {
    "female": "female",
    "woman": "female",
    "f": "female",
    "male": "male",
    "man": "male",
    "m": "male",
    "child": "child",
    "other": "other",
}

DECADES = {
    "teens": 16.0,
    "twenties": 24.5,
    "thirties": 34.5,
    "forties": 44.5,
    "fourties": 44.5,  # as Common Voice writes it
    "fifties": 54.5,
    "sixties": 64.5,
    "seventies": 74.5,
    "eighties": 84.5,
    "nineties": 94.5,
}
"""Middles in years: of 13 to 19, 20 to 29, and so on."""

RANGE = re.compile(r"(\d{1,3})\s*(?:-|_|\u2013|to)\s*(\d{1,3})")
FROM = re.compile(r"(\d{1,3})\s*(?:\+|_?plus|and over|s\b)|(?:>=?|over)\s*(\d{1,3})")
BELOW = re.compile(r"(?:<=?|under|below)\s*(\d{1,3})")
YEARS = re.compile(r"(\d{1,3})")
NUMBERED = re.compile(r"label_?\d+")
"""What transformers calls a label that nobody named."""


def emotions(labels: Sequence[str], shares: Sequence[float]) -> dict[str, float]:
    """Emotion -> probability. Short forms become the documented words, others stay, in lower case."""
    return _summed([EMOTIONS.get(label.lower(), label.lower()) for label in labels], shares)


def genders(labels: Sequence[str], shares: Sequence[float]) -> dict[str, float] | None:
    """Gender ("female", "male", "child", "other") -> probability; None where the labels are of age alone."""
    found = [gender(label) for label in labels]
    return _summed([one for one in found if one], shares) if all(found) else None


def age(labels: Sequence[str], shares: Sequence[float]) -> float | None:
    """Expected age in years: the middles of the labels' bins weighted by probability; None without ages."""
    middles = [years(label) for label in labels]
    known = [middle for middle in middles if middle is not None]
    if len(known) < len(middles):
        return None
    return sum(middle * share for middle, share in zip(known, shares, strict=True))


def require_meaning(labels: Sequence[str]) -> None:
    """Raises ConfigurationError unless every label names a gender, or every label an age, or both."""
    if all(gender(label) for label in labels) or all(years(label) is not None for label in labels):
        return
    raise ConfigurationError(
        f"its labels ({', '.join(labels[:6])}) name neither genders nor ages; write what they mean, such as "
        "female and male, or 20-29, twenties or 25, into id2label of its config.json"
    )


def gender(label: str) -> str | None:
    """The gender that a label such as "male", "F" or "female_20-29" names."""
    words = re.split(r"[^a-z]+", label.lower())
    return next((GENDERS[word] for word in words if word in GENDERS), None)


def years(label: str) -> float | None:
    """Middle of the ages that a label such as "20-29", "twenties", "60+", "<20" or "25" names."""
    text = label.lower()
    if NUMBERED.fullmatch(text):
        return None
    for word, middle in DECADES.items():
        if word in text:
            return middle
    if found := RANGE.search(text):
        return (int(found[1]) + int(found[2])) / 2
    if found := FROM.search(text):
        return int(found[1] or found[2]) + 4.5  # as if the bin were a decade
    if found := BELOW.search(text):
        return int(found[1]) / 2
    found = YEARS.search(text)
    return float(found[1]) if found else None


def _summed(names: Sequence[str], shares: Sequence[float]) -> dict[str, float]:
    """Labels of one meaning are added up."""
    return {
        name: sum(share for one, share in zip(names, shares, strict=True) if one == name) for name in names
    }
