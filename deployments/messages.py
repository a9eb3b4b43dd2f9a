"""What crosses between the gateway and the model replicas."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from engines.store import Filter, Match, Space, Stored
from engines.tts.formats import Target
from engines.types import Aliveness, Box, Demographics, Image

Crops: TypeAlias = dict[str, tuple[Image, ...]]
"""Crops of one face by the part that takes them: recognizer, genderage, expression, liveness."""

Selection: TypeAlias = Literal["all", "largest", "score"]
"""Which faces are cropped: every one, the largest, or the one with the best score."""


@dataclass(frozen=True, slots=True)
class DetectRequest:
    """One picture to look at.

    image: the encoded file. threshold: least score kept, 0..1; None: the model's own.
    reply_limit: bytes of crops that the answer may carry; None: any number.
    """

    image: bytes = field(repr=False)
    crops: tuple[str, ...] = ()
    select: Selection = "all"
    threshold: float | None = None
    reply_limit: int | None = None


@dataclass(frozen=True, slots=True)
class FoundFace:
    """A face and its crops (none unless asked for).

    A replica that holds all parts of a model answers with what they made of the crops instead:
    embedding, shape (dim,); told; alive.
    """

    box: Box
    score: float
    crops: Crops = field(default_factory=dict, repr=False)
    embedding: NDArray[np.float32] | None = field(default=None, repr=False)
    told: Demographics | None = None
    alive: Aliveness | None = None


@dataclass(frozen=True, slots=True)
class FoundFaces:
    """The faces of one picture, best score first.

    complete: False when the crops would have exceeded `reply_limit` and were left out.
    """

    faces: tuple[FoundFace, ...]
    complete: bool = True

    @property
    def nbytes(self) -> int:
        """Bytes of all crops."""
        parts = (part for face in self.faces for crops in face.crops.values() for part in crops)
        return sum(part.nbytes for part in parts)


@dataclass(frozen=True, slots=True)
class DescribeRequest:
    """One clip whose speaker is to be described.

    clip: the encoded file. heads: some of "emotion" and "age_gender".
    """

    clip: bytes = field(repr=False)
    heads: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Described:
    """A clip of so many seconds, and what the heads tell of its speaker."""

    seconds: float
    told: Demographics


@dataclass(frozen=True, slots=True)
class SpeakRequest:
    """A text to speak.

    target: the format of the answer. voice, language, speed, instructions, params: as of
    engines.tts.Utterance; "" means the model's own. reference: the encoded recording of a voice. any_voice: a
    voice that the model does not have means its own. whole: the bytes come at the end, with a header that
    tells the length. backend, weights: which model is meant, of a deployment that loads models on demand.
    """

    text: str = field(repr=False)
    target: Target
    voice: str = ""
    language: str = ""
    speed: float = 1.0
    instructions: str = field(default="", repr=False)
    params: dict[str, str] = field(default_factory=dict)
    reference: bytes | None = field(default=None, repr=False)
    any_voice: bool = False
    whole: bool = False
    backend: str = ""
    weights: str = ""


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """One query of a space. query: shape (dim,); only: which records are meant; k: matches at most.

    with_embeddings: tell those of the matches too.
    """

    space: Space
    query: NDArray[np.float32] = field(repr=False)
    k: int
    only: Filter = field(default_factory=Filter)
    with_embeddings: bool = False


class Found(NamedTuple):
    """Matches, best first. age_s: how many seconds old the answer may be; 0: it is of this moment.

    embeddings: shape (dim,), by position, where they were asked for; None where they were not.
    """

    matches: tuple[Match, ...]
    age_s: float = 0.0
    embeddings: dict[int, NDArray[np.float32]] | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the records that match, by position, and how many match in all."""

    records: tuple[Stored, ...]
    total: int
