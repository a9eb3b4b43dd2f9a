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
from engines.face import Attributes
from engines.face.alignment import square_crop
from engines.options import optional_file
from engines.types import Demographics, EngineOptions, Face, Image, Runtime

LABELS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
SIDE = 64
MARGIN = 1.1
"""Side of the crop over the longer side of the box."""


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
        """The square around the face, 64x64."""
        return (square_crop(image, face.box, SIDE, MARGIN),)

    def load(self, runtime: Runtime) -> Attributes:
        """The network, loaded."""
        return _MiniXception(onnx.session(self.weights()[0], runtime))


class _MiniXception:
    def __init__(self, net: ort.InferenceSession) -> None:
        self._net = net
        self._channels_last = net.get_inputs()[0].shape[-1] == 1

    def analyze(self, crops: Sequence[tuple[Image, ...]]) -> list[Demographics]:
        """Probability of each expression; the network takes grey values from -1 to 1."""
        if not crops:
            return []
        grey = np.stack([cv2.cvtColor(face[0], cv2.COLOR_BGR2GRAY) for face in crops])
        scaled = np.asarray((grey / 255 - 0.5) * 2, np.float32)
        batch = scaled[..., None] if self._channels_last else scaled[:, None]
        return [
            Demographics(emotion={label: float(share) for label, share in zip(LABELS, shares, strict=True)})
            for shares in onnx.run(self._net, batch)
        ]
