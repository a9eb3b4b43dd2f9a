"""Voice engines and what they promise.

A voice engine is a cheap description: it checks its options and weight files when it is made, and
loads weights only when its encoder is asked for. Encoders are synchronous and thread-safe.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Protocol

from engines.types import Audio, Demographics, Embeddings, EngineOptions, Runtime

RATE = 16_000
"""Samples a second of every clip that a voice engine takes."""


class SpeakerEncoder(Protocol):
    """Turns speech into embeddings of who speaks."""

    def embed(self, clips: Sequence[Audio]) -> Embeddings:
        """Shape (len(clips), dim), rows L2-normalised.

        clips: at RATE, at least `VoiceEngine.least_seconds` long, of any mixture of lengths: each gets
        the embedding that it gets alone, to 1e-4.
        """
        ...


class VoiceAttributes(Protocol):
    """Tells emotion, age and gender of a speaker."""

    def analyze(self, clips: Sequence[Audio], heads: Sequence[str]) -> list[Demographics]:
        """What the heads say of each clip (at RATE); what no head tells stays None.

        heads: some of "emotion" and "age_gender". Raises NothingComputable, with the reason and the
        remedy, where none of the heads that were asked for can be computed; where some can, the others'
        values stay None.
        """
        ...


class VoiceEngine(Protocol):
    """One family of speaker models.

    `known_options` maps each option of the model file to one line that says what it does.
    """

    known_options: ClassVar[dict[str, str]]

    def __init__(self, options: EngineOptions) -> None:
        """Checks the options. Raises ConfigurationError that names the option and the remedy."""
        ...

    @property
    def verify_threshold(self) -> float:
        """Default cosine distance up to which two clips are of the same speaker."""
        ...

    @property
    def dim(self) -> int | None:
        """Length of the embeddings where it is known before loading, else None."""
        ...

    @property
    def least_seconds(self) -> float:
        """Speech, in seconds, below which an embedding would tell nothing."""
        ...

    def weights(self) -> list[Path]:
        """Every weight file that must be on disk before the start; the caller checks that they exist."""
        ...

    def load_encoder(self, runtime: Runtime) -> SpeakerEncoder:
        """Loads the weights; raises ConfigurationError for files that are no such model."""
        ...
