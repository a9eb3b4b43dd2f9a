"""The fake keeps the promises that flows rely on."""

import numpy as np
import pytest

from engines.errors import ConfigurationError
from engines.face import FaceEngine
from engines.face.fake import FakeFace
from engines.types import Box, Demographics, EngineOptions, Image, Runtime

ENGINE: FaceEngine = FakeFace(EngineOptions())
RED, BLUE, GREY = (0, 0, 200), (200, 0, 0), (120, 120, 120)


def solid(colour: tuple[int, int, int], width: int = 64, height: int = 48) -> Image:
    return np.full((height, width, 3), colour, np.uint8)


def embed(*images: Image) -> np.ndarray:
    detector, crops = ENGINE.load_detector(Runtime()), []
    for image in images:
        (face,) = detector.detect(image)
        crops.append(ENGINE.align(image, face))
    return ENGINE.load_recognizer(Runtime()).embed(crops)


def test_it_needs_no_weights_and_says_what_it_can() -> None:
    assert ENGINE.weights() == []
    assert (ENGINE.dim, ENGINE.has_attributes, ENGINE.verify_threshold) == (4, True, 0.1)


def test_the_threshold_is_an_option() -> None:
    assert FakeFace(EngineOptions(options={"verify_threshold": "0.4"})).verify_threshold == 0.4
    with pytest.raises(ConfigurationError, match="option verify_threshold:3 must be"):
        FakeFace(EngineOptions(options={"verify_threshold": "3"}))


def test_the_middle_half_is_the_face() -> None:
    (face,) = ENGINE.load_detector(Runtime()).detect(solid(GREY))
    assert face.box == Box(16, 12, 32, 24)
    assert face.landmarks.shape == (5, 2)
    assert ENGINE.align(solid(GREY), face).shape == (24, 32, 3)


def test_a_dark_picture_has_no_face() -> None:
    detector = ENGINE.load_detector(Runtime())
    assert detector.detect(solid((7, 7, 7))) == []
    assert len(detector.detect(solid((8, 8, 8)))) == 1


def test_brighter_is_surer_and_the_threshold_counts() -> None:
    detector = ENGINE.load_detector(Runtime())
    (dim,), (bright,) = detector.detect(solid(GREY)), detector.detect(solid((255, 255, 255)))
    assert 0.5 < dim.score < bright.score == 1.0
    assert detector.detect(solid(GREY), dim.score + 0.01) == []
    assert len(detector.detect(solid(GREY), dim.score)) == 1


def test_near_colours_are_one_person_and_far_ones_two() -> None:
    rows = embed(solid(RED), solid((5, 5, 190)), solid(BLUE), solid(RED))
    assert rows.shape == (4, 4)
    assert rows.dtype == np.float32
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(4), abs=1e-6)
    distances = 1 - rows @ rows.T
    assert distances[0, 3] == pytest.approx(0, abs=1e-6)
    assert 0 < distances[0, 1] < ENGINE.verify_threshold < distances[0, 2]


def test_no_crops_no_embeddings() -> None:
    assert ENGINE.load_recognizer(Runtime()).embed([]).shape == (0, 4)


def test_attributes_come_from_colours() -> None:
    image = solid((0, 51, 200))
    (face,) = ENGINE.load_detector(Runtime()).detect(image)
    head = ENGINE.load_attributes(Runtime())
    (red,) = head.analyze([ENGINE.attribute_crops(image, face)])
    assert red.age == pytest.approx(20)
    assert red.gender == {"Man": 0.0, "Woman": 1.0}
    (blue,) = head.analyze([(solid(BLUE),)])
    assert blue == Demographics(age=0.0, gender={"Man": 1.0, "Woman": 0.0})
    assert head.analyze([]) == []


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (5, 3), (400, 1)])
def test_tiny_pictures_have_their_face_too(size: tuple[int, int]) -> None:
    assert np.linalg.norm(embed(solid(RED, *size))) == pytest.approx(1, abs=1e-6)
