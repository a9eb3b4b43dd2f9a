"""dlib's HOG detector, five-point landmarks and 128-d ResNet. The weights come inside a package.

Sources: http://dlib.net/face_detector.py.html, http://dlib.net/face_recognition.py.html,
https://github.com/davisking/dlib-models (weights: CC0).
"""

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar

import cv2
import dlib
import numpy as np
from numpy.typing import NDArray

from engines.embedding import unit_rows
from engines.errors import ConfigurationError, NothingComputable
from engines.face import Attributes
from engines.face.detection import Size, faces, shrink
from engines.options import number, size, whole
from engines.types import Embeddings, EngineOptions, Face, Image, Runtime

CHIP = 150
PADDING = 0.25
DIM = 128
PACKAGE = "face_recognition_models"
LANDMARKS = "shape_predictor_5_face_landmarks.dat"
RESNET = "dlib_face_recognition_resnet_model_v1.dat"


@cache
def package_folder() -> Path:
    """Where the package keeps its weights. It is not imported: it needs the removed pkg_resources."""
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ConfigurationError(f"package {PACKAGE} is not installed; it carries the weights of dlib-resnet")
    return Path(found.origin).parent / "models"


class DlibResnet:
    """The engine: options, files, and its parts."""

    known_options: ClassVar[dict[str, str]] = {
        "upsample": "doublings of the picture before detection, 0 to 2, for faces below 80 pixels; 0",
        "det_size": "WxH: larger pictures are scaled down to this before detection; 1024x1024",
        "det_thresh": "least detection score, 0 to 1; 0.5",
        "verify_threshold": "cosine distance below which two faces are the same person; 0.08",
    }
    dim = DIM
    has_attributes = False

    def __init__(self, options: EngineOptions) -> None:
        self.upsample = whole(options, "upsample", 0, 0, 2)
        self.det_size = size(options, "det_size", (1024, 1024))
        self.det_thresh = number(options, "det_thresh", 0.5, 0, 1)
        self.verify_threshold = number(options, "verify_threshold", 0.08, 0, 2)

    def weights(self) -> list[Path]:
        """Landmarks and ResNet; the HOG detector is part of dlib."""
        return [package_folder() / LANDMARKS, package_folder() / RESNET]

    def load_detector(self, runtime: Runtime) -> "HogDetector":  # noqa: ARG002 - dlib runs on one CPU thread
        """HOG detector and landmarks."""
        return HogDetector(package_folder() / LANDMARKS, self.det_size, self.upsample, self.det_thresh)

    def load_recognizer(self, runtime: Runtime) -> "Resnet":  # noqa: ARG002 - dlib runs on one CPU thread
        """The ResNet."""
        return Resnet(package_folder() / RESNET)

    def load_attributes(self, runtime: Runtime) -> Attributes:  # noqa: ARG002 - the protocol names it
        """Raises NothingComputable: dlib has no network for age and gender."""
        raise NothingComputable("dlib-resnet tells neither age nor gender")

    def align(self, image: Image, face: Face) -> Image:
        """150x150 with a quarter of padding, as the ResNet was trained. dlib only moves pixels: any order
        of colours will do.
        """
        left, top = int(face.box.x), int(face.box.y)
        box = dlib.rectangle(left, top, left + int(face.box.w), top + int(face.box.h))
        points = dlib.points([dlib.point(round(float(x)), round(float(y))) for x, y in face.landmarks])
        shape = dlib.full_object_detection(box, points)
        return np.asarray(dlib.get_face_chip(np.ascontiguousarray(image), shape, CHIP, PADDING), np.uint8)

    def attribute_crops(self, image: Image, face: Face) -> tuple[Image, ...]:  # noqa: ARG002 - the protocol names them
        """None: there is no attribute model."""
        return ()


class HogDetector:
    """Histogram of oriented gradients (Dalal and Triggs, CVPR 2005) with dlib's landmarks.

    Scores are the logistic of dlib's margin: 0.5 is dlib's own limit. Landmarks are the four corners of
    the eyes and the nose. dlib objects keep state, so one picture at a time: under a lock.
    """

    def __init__(self, landmarks: Path, bound: Size, upsample: int, threshold: float) -> None:
        self._detector = dlib.get_frontal_face_detector()
        self._landmarks = dlib.shape_predictor(str(landmarks))
        self._bound, self._upsample, self._threshold = bound, upsample, threshold
        self._lock = Lock()

    def detect(self, image: Image, threshold: float | None = None) -> list[Face]:
        """Faces of at least 80 pixels, of 40 with one upsampling."""
        small, scale = shrink(image, self._bound)
        rgb = np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2RGB), np.uint8)
        limit = self._threshold if threshold is None else threshold
        with self._lock:
            boxes, margins, _ = self._detector.run(rgb, self._upsample, _margin(limit))
            points = [self._points(rgb, box) for box in boxes]
        corners = np.array(
            [[box.left(), box.top(), box.right() + 1, box.bottom() + 1] for box in boxes], np.float32
        )
        scores = np.asarray(1 / (1 + np.exp(-np.asarray(margins))), np.float32)
        landmarks = np.array(points, np.float32).reshape(-1, 5, 2)
        return faces(corners.reshape(-1, 4), scores, landmarks, scale, (image.shape[1], image.shape[0]))

    def _points(self, rgb: Image, box: Any) -> NDArray[np.float32]:
        shape = self._landmarks(rgb, box)
        return np.array([[shape.part(i).x, shape.part(i).y] for i in range(5)], np.float32)


def _margin(score: float) -> float:
    """dlib's margin of a score; scores of 0 and 1 would be infinite."""
    bounded = min(max(score, 1e-3), 1 - 1e-6)
    return float(np.log(bounded / (1 - bounded)))


class Resnet:
    """The recognizer: 29 layers, 128 numbers. dlib holds the interpreter while it computes."""

    def __init__(self, path: Path) -> None:
        self._net = dlib.face_recognition_model_v1(str(path))
        self._lock = Lock()

    def embed(self, crops: Sequence[Image]) -> Embeddings:
        """Shape (len(crops), 128)."""
        if not crops:
            return np.empty((0, DIM), np.float32)
        rgb = [np.ascontiguousarray(crop[..., ::-1]) for crop in crops]
        with self._lock:
            rows = self._net.compute_face_descriptor(rgb)
        return unit_rows(np.array(rows, np.float32))
