"""YuNet and SFace, the face models of the OpenCV Zoo: small, fast, free for commercial use.

Sources: https://github.com/opencv/opencv_zoo/tree/main/models/face_detection_yunet (MIT),
https://github.com/opencv/opencv_zoo/tree/main/models/face_recognition_sface (Apache-2.0). The int8
variants of both files work the same.
"""

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import ClassVar

import cv2
import numpy as np
import onnxruntime as ort

from engines import onnx
from engines.embedding import unit_rows
from engines.errors import ConfigurationError, NothingComputable
from engines.face import Attributes
from engines.face.alignment import arcface_crop
from engines.face.detection import Size, faces, shrink
from engines.options import file, number, size
from engines.types import Embeddings, EngineOptions, Face, Image, Runtime

NMS_THRESHOLD = 0.3
TOP_K = 5000


class OpencvZoo:
    """The engine: options, files, and its parts."""

    known_options: ClassVar[dict[str, str]] = {
        "detector_onnx": "YuNet's file, under the models directory",
        "recognizer_onnx": "SFace's file, under the models directory",
        "det_size": "WxH: larger pictures are scaled down to this before detection, others are kept; 640x640",
        "det_thresh": "least detection score, 0 to 1; 0.5",
        "verify_threshold": "cosine distance below which two faces are the same person; 0.50",
    }
    dim = 128
    has_attributes = False

    def __init__(self, options: EngineOptions) -> None:
        self.detector_file = file(options, "detector_onnx")
        self.recognizer_file = file(options, "recognizer_onnx")
        self.det_size = size(options, "det_size", (640, 640))
        self.det_thresh = number(options, "det_thresh", 0.5, 0, 1)
        self.verify_threshold = number(options, "verify_threshold", 0.50, 0, 2)

    def weights(self) -> list[Path]:
        """Detector and recognizer."""
        return [self.detector_file, self.recognizer_file]

    def load_detector(self, runtime: Runtime) -> "YuNet":
        """YuNet runs on the CPU, wherever the replica is."""
        return YuNet(self.detector_file, self.det_size, self.det_thresh, runtime)

    def load_recognizer(self, runtime: Runtime) -> "SFace":
        """SFace on the GPU or the CPU, by ONNX Runtime."""
        return SFace(onnx.session(self.recognizer_file, runtime))

    def load_attributes(self, runtime: Runtime) -> Attributes:  # noqa: ARG002 - the protocol names it
        """Raises NothingComputable: the zoo has no network for age and gender."""
        raise NothingComputable("opencv-zoo has no attribute model; ask `has_attributes` first")

    def align(self, image: Image, face: Face) -> Image:
        """112x112, equal to FaceRecognizerSF.alignCrop."""
        return arcface_crop(image, face.landmarks)

    def attribute_crops(self, image: Image, face: Face) -> tuple[Image, ...]:  # noqa: ARG002 - the protocol names them
        """None: there is no attribute model."""
        return ()


class YuNet:
    """The detector.

    OpenCV's object keeps size and threshold between calls, so one picture at a time: under a lock.
    It pads to multiples of 32 by itself.
    """

    def __init__(self, path: Path, bound: Size, threshold: float, runtime: Runtime) -> None:
        cv2.setNumThreads(runtime.threads)  # OpenCV has one pool a process
        try:
            self._net = cv2.FaceDetectorYN.create(str(path), "", bound, threshold, NMS_THRESHOLD, TOP_K)
        except cv2.error as error:
            raise ConfigurationError(
                f"{path} is not a readable YuNet file; install the model again"
            ) from error
        self._bound, self._threshold, self._lock = bound, threshold, Lock()

    def detect(self, image: Image, threshold: float | None = None) -> list[Face]:
        """Faces with 5 landmarks: eyes, nose, corners of the mouth; left in the picture first."""
        small, scale = shrink(image, self._bound)
        with self._lock:
            self._net.setScoreThreshold(self._threshold if threshold is None else threshold)
            self._net.setInputSize((small.shape[1], small.shape[0]))
            _, rows = self._net.detect(small)
        if rows is None:
            return []
        table = np.asarray(rows, dtype=np.float32)  # (n, 15): left, top, width, height, 5 points, score
        corners = np.hstack([table[:, :2], table[:, :2] + table[:, 2:4]])
        points = table[:, 4:14].reshape(-1, 5, 2)
        return faces(corners, table[:, 14], points, scale, (image.shape[1], image.shape[0]))


class SFace:
    """The recognizer: 112x112 pixels, red, green, blue, values 0..255; the network normalises them."""

    def __init__(self, net: ort.InferenceSession) -> None:
        self._net = net

    def embed(self, crops: Sequence[Image]) -> Embeddings:
        """Shape (len(crops), 128)."""
        if not crops:
            return np.empty((0, OpencvZoo.dim), np.float32)
        blob = cv2.dnn.blobFromImages(list(crops), swapRB=True)
        return unit_rows(onnx.run(self._net, np.asarray(blob, np.float32)))
