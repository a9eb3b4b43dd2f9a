"""Faces: the bare engines, and the photographs that are sent."""

import importlib.util
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np

from bench.engine import EngineSpec, Inputs
from engines.errors import NoFace
from engines.face import Attributes
from engines.face.model import CropNames, FaceModel
from engines.image import decode
from engines.types import Demographics, Embeddings, Face, Image, Runtime

FIELDS = {"verify": ("img1", "img2"), "embed": ("img",), "analyze": ("img",)}
"""Fields of the routes' requests that carry pictures."""


def photographs(shared: Path) -> list[bytes]:
    """Encoded pictures of faces: the test data's where it is there, else those inside insightface."""
    paths = sorted((shared / "media" / "faces" / "lfw").glob("*/*_0001.jpg"))
    if not paths:
        found = importlib.util.find_spec("insightface")
        folder = Path(found.origin).parent / "data" / "images" if found and found.origin else Path()
        paths = [folder / "Tom_Hanks_54745.png", folder / "t1.jpg"]
    return [path.read_bytes() for path in paths]


class BareFace:
    """The parts of one face model on one thread."""

    routes: ClassVar[tuple[str, ...]] = tuple(FIELDS)

    def __init__(self, spec: EngineSpec) -> None:
        cv2.setNumThreads(1)
        self._model = FaceModel(spec.engine, spec.options)
        given, engine = Runtime(threads=1), self._model.engine
        self._detector = engine.load_detector(given)
        self._recognizer = engine.load_recognizer(given)
        self._heads: dict[str, Attributes] = {}
        if engine.has_attributes:
            self._heads["genderage"] = engine.load_attributes(given)
        if self._model.expression.available:
            self._heads["expression"] = self._model.expression.load(given)

    def verify(self, pictures: Inputs) -> float:
        """Cosine distance of the largest faces of two pictures. Raises NoFace."""
        one, two = self._recognizer.embed([self._largest(picture) for picture in pictures])
        return float(np.clip(1 - np.dot(one, two), 0, 2))

    def embed(self, picture: bytes) -> Embeddings:
        """Embedding of the largest face, shape (1, dim). Raises NoFace."""
        return self._recognizer.embed([self._largest(picture)])

    def analyze(self, picture: bytes) -> list[list[Demographics]]:
        """What each head tells of every face."""
        image, faces = self._look(picture)
        crops = [self._crops(image, face, tuple(self._heads)) for face in faces]
        told = [head.analyze([one[name] for one in crops]) for name, head in self._heads.items()]
        return [[said[index] for said in told] for index in range(len(faces))]

    def request(self, route: str, inputs: Inputs) -> int:
        """The work of one request; how many faces it was about."""
        match route:
            case "verify":
                self.verify(inputs)
                return 2
            case "embed":
                return len(self.embed(inputs[0]))
            case "analyze":
                return len(self.analyze(inputs[0]))
        raise ValueError(f"no route {route!r}; known: {', '.join(self.routes)}")

    def is_usable(self, sample: bytes) -> bool:
        """Whether the detector finds a face."""
        return bool(self._look(sample)[1])

    def _look(self, picture: bytes) -> tuple[Image, list[Face]]:
        image = decode(picture)
        return image, self._detector.detect(image)

    def _largest(self, picture: bytes) -> Image:
        image, faces = self._look(picture)
        if not faces:
            raise NoFace("no face detected in the picture")
        face = max(faces, key=lambda one: one.box.area)
        return self._crops(image, face, ("recognizer",))["recognizer"][0]

    def _crops(self, image: Image, face: Face, wanted: CropNames) -> dict[str, tuple[Image, ...]]:
        return self._model.crops(image, face, wanted)
