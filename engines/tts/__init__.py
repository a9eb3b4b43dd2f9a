"""Text-to-speech engines and what they promise.

An engine is a cheap description: it checks its options and weight files when it is made, and loads
weights only when its synthesizer is asked for. Synthesizers are synchronous and thread-safe.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from engines.types import Audio, EngineOptions, Runtime


@dataclass(frozen=True, slots=True)
class Utterance:
    """What one call speaks: a sentence or two, never empty.

    voice: a name that the engine knows, "" for its default. language: BCP 47 or the engine's own code,
    "" for the voice's. speed: 1 is the voice's own pace; only engines with `own_speed` see another value.
    instructions: how to speak, free text, for engines with `follows_instructions`. reference: a recording
    of the voice to speak with, for engines with `clones`. params: further values of the request, by name.
    """

    text: str
    voice: str = ""
    language: str = ""
    speed: float = 1.0
    instructions: str = ""
    reference: Audio | None = None
    params: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Voice:
    """A voice of an engine. name: what requests call it. languages: BCP 47 codes, most fitting first."""

    name: str
    languages: tuple[str, ...] = ()
    gender: str = ""


class Synthesizer(Protocol):
    """Speaks."""

    @property
    def rate(self) -> int:
        """Samples a second of everything that it speaks."""
        ...

    @property
    def voices(self) -> Sequence[Voice]:
        """The voices that it has by name; empty where voices are described or cloned instead."""
        ...

    def speak(self, utterance: Utterance) -> Iterator[NDArray[np.float32]]:
        """The sound of an utterance in pieces, one channel, values -1..1, each piece as soon as it is there.

        Closing the iterator stops the synthesis. Raises InvalidInput for a voice or language that it does
        not know, and for text of which nothing can be spoken.
        """
        ...


class TtsEngine(Protocol):
    """One family of text-to-speech models.

    known_options maps each option of the model file to one line that says what it does.
    own_speed: it changes its pace itself. follows_instructions: it reads `instructions`.
    clones: it speaks with the voice of a recording. splits_text: long text may be spoken sentence by
    sentence; a model of music takes all of it as one description.
    """

    known_options: ClassVar[dict[str, str]]
    own_speed: ClassVar[bool]
    follows_instructions: ClassVar[bool]
    clones: ClassVar[bool]
    splits_text: ClassVar[bool]

    def __init__(self, options: EngineOptions) -> None:
        """Checks the options. Raises ConfigurationError that names the option and the remedy."""
        ...

    def weights(self) -> list[Path]:
        """Every weight file that must be on disk before the start; the caller checks that they exist."""
        ...

    def load(self, runtime: Runtime) -> Synthesizer:
        """Loads the weights; raises ConfigurationError for files that are no such model."""
        ...
