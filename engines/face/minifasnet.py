"""MiniFASNet: tells a living face from a printed or replayed one.

Two small networks look at two crops of the face; their softmax outputs are averaged.
Source: https://github.com/minivision-ai/Silent-Face-Anti-Spoofing (Apache-2.0).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from engines import onnx
from engines.errors import LivenessUnavailable
from engines.face import Liveness
from engines.options import number, optional_file
from engines.types import Aliveness, Box, EngineOptions, Face, Image, Runtime

SIDE = 80
REAL = 1
"""Class of a living face among the three."""


@dataclass(frozen=True, slots=True)
class Network:
    """One network of the ensemble: its file, and how much of the picture around the face it sees."""

    path: Path
    scale: float


class MiniFasNet:
    """The ensemble as a model file describes it; either network works alone."""

    known_options: ClassVar[dict[str, str]] = {
        "antispoof_v2_onnx": "MiniFASNetV2's file, under the models directory",
        "antispoof_v1se_onnx": "MiniFASNetV1SE's file, under the models directory",
        "antispoof_threshold": "least probability of a living face, 0 to 1; 0.5",
    }

    def __init__(self, options: EngineOptions) -> None:
        self.threshold = number(options, "antispoof_threshold", 0.5, 0, 1)
        scales = {"antispoof_v2_onnx": 2.7, "antispoof_v1se_onnx": 4.0}
        named = {scale: optional_file(options, name) for name, scale in scales.items()}
        self._networks = [Network(path, scale) for scale, path in named.items() if path]

    @property
    def available(self) -> bool:
        """Whether at least one network is configured."""
        return bool(self._networks)

    def weights(self) -> list[Path]:
        """The configured networks."""
        return [network.path for network in self._networks]

    def crops(self, image: Image, face: Face) -> tuple[Image, ...]:
        """What each network looks at, 80x80."""
        return tuple(scaled_crop(image, face.outline, network.scale) for network in self._networks)

    def load(self, runtime: Runtime) -> Liveness:
        """The networks, loaded. Raises LivenessUnavailable where none is configured."""
        if not self.available:
            raise LivenessUnavailable("the model has no liveness weights: set antispoof_v2_onnx")
        return _Ensemble([onnx.session(network.path, runtime) for network in self._networks])


def scaled_crop(image: Image, box: Box, scale: float) -> Image:
    """The picture around the box, `scale` times its size as far as the picture allows, 80x80."""
    height, width = image.shape[:2]
    box_w, box_h = max(1.0, box.w), max(1.0, box.h)
    scale = min((height - 1) / box_h, (width - 1) / box_w, scale)
    x, y = box.x + box.w / 2, box.y + box.h / 2
    left, right = (int(np.clip(int(x + side * box_w * scale / 2), 0, width - 1)) for side in (-1, 1))
    top, bottom = (int(np.clip(int(y + side * box_h * scale / 2), 0, height - 1)) for side in (-1, 1))
    part = image[top : bottom + 1, left : right + 1]
    return np.asarray(cv2.resize(part if part.size else image, (SIDE, SIDE)), np.uint8)


class _Ensemble:
    def __init__(self, networks: list[ort.InferenceSession]) -> None:
        self._networks = networks

    def score(self, crops: Sequence[tuple[Image, ...]]) -> list[Aliveness]:
        """Of the mean shares of the networks; all faces in one run of each."""
        if not crops:
            return []
        shares = [
            softmax(onnx.run(network, _blob([face[index] for face in crops])))
            for index, network in enumerate(self._networks)
        ]
        mean = np.mean(shares, axis=0)
        return [Aliveness(float(row[REAL]), bool(row.argmax() == REAL)) for row in mean]


def _blob(crops: list[Image]) -> NDArray[np.float32]:
    """Shape (n, 3, 80, 80), blue, green, red, 0..255."""
    return np.stack(crops).transpose(0, 3, 1, 2).astype(np.float32)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of shares that sum to 1."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)
