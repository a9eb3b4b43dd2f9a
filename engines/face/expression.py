"""Seven expressions by mini_XCEPTION, trained on FER-2013.

Source: https://github.com/oarriaga/face_classification (MIT), Arriaga et al., arXiv:1710.07557.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import onnxruntime as ort

from engines import onnx
from engines.errors import NothingComputable
from engines.face import Attributes
from engines.face.alignment import square_crop
from engines.options import optional_file
from engines.types import Demographics, EngineOptions, Face, Image, Runtime

LABELS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
SIDE = 64
MARGIN = 1.2
"""Side of the crop over the longer side of the box. By the boxes of SCRFD, YuNet and dlib alike 1.2 tells
six of seven posed photographs right, more than any other of 0.9 to 1.5; disgust is the one it misses.
"""


class Expression:
    """The head as a model file describes it."""

    known_options: ClassVar[dict[str, str]] = {
        "expression_onnx": "mini_XCEPTION's file, under the models directory; adds emotions to analyze",
    }

    def __init__(self, options: EngineOptions) -> None:
        self._path = optional_file(options, "expression_onnx")

    @property
    def available(self) -> bool:
        """Whether the network is configured."""
        return self._path is not None

    def weights(self) -> list[Path]:
        """The configured network."""
        return [self._path] if self._path else []

    def crops(self, image: Image, face: Face) -> tuple[Image, ...]:
        """The square around the face, 64x64; none where the network is not configured."""
        return (square_crop(image, face.outline, SIDE, MARGIN),) if self.available else ()

    def load(self, runtime: Runtime) -> Attributes:
        """The network, loaded. Raises NothingComputable where it is not configured."""
        if self._path is None:
            raise NothingComputable("the model tells no emotions: set expression_onnx")
        return _MiniXception(onnx.session(self._path, runtime))


class _MiniXception:
    def __init__(self, net: ort.InferenceSession) -> None:
        self._net = net

    def analyze(self, crops: Sequence[tuple[Image, ...]]) -> list[Demographics]:
        """Probability of each expression; the network takes (n, 64, 64, 1), grey from -1 to 1."""
        if not crops:
            return []
        grey = np.stack([cv2.cvtColor(face[0], cv2.COLOR_BGR2GRAY) for face in crops])
        batch = np.asarray((grey / 255 - 0.5) * 2, np.float32)[..., None]
        return [
            Demographics(emotion={label: float(share) for label, share in zip(LABELS, shares, strict=True)})
            for shares in onnx.run(self._net, batch)
        ]
