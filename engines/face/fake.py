"""A deterministic face engine without weights, for tests of flows and of the graph.

A picture darker than 8 of 255 on average has no face; any other has one, its middle half. Colours stand
for people: near colours give near embeddings. Pictures whose red exceeds their blue show a woman.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from engines.embedding import unit_rows
from engines.face.detection import faces
from engines.options import number
from engines.types import Demographics, Embeddings, EngineOptions, Face, Image, Runtime

DARK = 8.0


class FakeFace:
    """The engine; it is its own parts."""

    known_options: ClassVar[dict[str, str]] = {"verify_threshold": "cosine distance; 0.1"}
    dim = 4
    has_attributes = True

    def __init__(self, options: EngineOptions) -> None:
        self.verify_threshold = number(options, "verify_threshold", 0.1, 0, 2)

    def weights(self) -> list[Path]:
        """None."""
        return []

    def load_detector(self, runtime: Runtime) -> "FakeFace":  # noqa: ARG002 - the protocol names it
        """Itself."""
        return self

    load_recognizer = load_detector
    load_attributes = load_detector

    def detect(self, image: Image, threshold: float | None = None) -> list[Face]:
        """The middle half of a picture that is not dark; its score grows with the brightness."""
        height, width = image.shape[:2]
        brightness = float(image.mean())
        score = 0.5 + brightness / 510
        if brightness < DARK or score < (threshold or 0.0):
            return []
        corners = np.array([[width / 4, height / 4, 3 * width / 4, 3 * height / 4]], np.float32)
        points = np.zeros((1, 5, 2), np.float32)
        return faces(corners, np.array([score], np.float32), points, np.ones(2), (width, height))

    def embed(self, crops: Sequence[Image]) -> Embeddings:
        """The mean colour, centred, and a constant."""
        colours = [[*(crop.reshape(-1, 3).mean(axis=0) - 127.5), 20.0] for crop in crops]
        return unit_rows(np.array(colours, np.float32).reshape(-1, 4))

    def analyze(self, crops: Sequence[tuple[Image, ...]]) -> list[Demographics]:
        """Age is the mean of green; gender by red and blue."""
        return [_tell(face[0].reshape(-1, 3).mean(axis=0)) for face in crops]

    def align(self, image: Image, face: Face) -> Image:
        """The pixels of the box."""
        left, top = int(face.box.x), int(face.box.y)
        part = image[top : top + max(1, int(face.box.h)), left : left + max(1, int(face.box.w))]
        return np.ascontiguousarray(part)

    def attribute_crops(self, image: Image, face: Face) -> tuple[Image, ...]:
        """The same pixels."""
        return (self.align(image, face),)


def _tell(colour: np.ndarray) -> Demographics:
    woman = float(colour[2] > colour[0])
    return Demographics(age=float(colour[1]) / 2.55, gender={"Man": 1 - woman, "Woman": woman})
