"""Face engines and what they promise.

A face engine is a cheap description: it checks its options and weight files when it is made, and
loads weights only when one of its parts is asked for. The parts are synchronous and thread-safe.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Protocol

from engines.types import Aliveness, Demographics, Embeddings, EngineOptions, Face, Image, Runtime


class Detector(Protocol):
    """Finds faces."""

    def detect(self, image: Image, threshold: float | None = None) -> list[Face]:
        """Faces, best score first, boxes clipped to the picture.

        threshold: least score kept, 0..1; None means the model's own. An empty list means no face.
        Never enlarges the picture beyond what the engine's own option says.
        """
        ...


class Recognizer(Protocol):
    """Turns aligned crops into embeddings."""

    def embed(self, crops: Sequence[Image]) -> Embeddings:
        """Shape (len(crops), dim), rows L2-normalised. The crops come from the engine's `align`."""
        ...


class Attributes(Protocol):
    """Tells age, gender or expression."""

    def analyze(self, crops: Sequence[tuple[Image, ...]]) -> list[Demographics]:
        """One answer for each face, from the crops that the engine's `attribute_crops` made of it."""
        ...


class Liveness(Protocol):
    """Tells a living face from a print or a screen."""

    def score(self, crops: Sequence[tuple[Image, ...]]) -> list[Aliveness]:
        """One answer for each face, from its crops."""
        ...


class FaceEngine(Protocol):
    """One family of face models.

    `known_options` maps each option of the model file to one line that says what it does.
    """

    known_options: ClassVar[dict[str, str]]

    def __init__(self, options: EngineOptions) -> None:
        """Checks the options. Raises ConfigurationError that names the option and the remedy."""
        ...

    @property
    def verify_threshold(self) -> float:
        """Default cosine distance below which two faces are the same person."""
        ...

    @property
    def dim(self) -> int | None:
        """Length of the embeddings where it is known before loading, else None."""
        ...

    @property
    def has_attributes(self) -> bool:
        """Whether `load_attributes` can be called."""
        ...

    def weights(self) -> list[Path]:
        """Every weight file that the parts will open; the caller checks that they exist."""
        ...

    def load_detector(self, runtime: Runtime) -> Detector: ...

    def load_recognizer(self, runtime: Runtime) -> Recognizer: ...

    def load_attributes(self, runtime: Runtime) -> Attributes:
        """Raises NothingComputable where `has_attributes` is False."""
        ...

    def align(self, image: Image, face: Face) -> Image:
        """The crop that the recognizer takes. Needs no weights."""
        ...

    def attribute_crops(self, image: Image, face: Face) -> tuple[Image, ...]:
        """The crops that the attribute models take. Needs no weights."""
        ...
