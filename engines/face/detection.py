"""What detectors share: the picture made to fit, and their numbers made faces."""

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.types import Box, Face, Image

Size = tuple[int, int]
"""Width and height in pixels."""


def shrink(image: Image, bound: Size) -> tuple[Image, NDArray[np.float64]]:
    """The picture scaled down to lie inside the bound, never enlarged, and its scale in x and y."""
    height, width = image.shape[:2]
    factor = min(bound[0] / width, bound[1] / height)
    if factor >= 1:
        return image, np.ones(2)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    small = np.asarray(cv2.resize(image, size), dtype=np.uint8)
    return small, np.array([size[0] / width, size[1] / height])


def faces(
    corners: NDArray[np.float32],
    scores: NDArray[np.float32],
    landmarks: NDArray[np.float32],
    scale: NDArray[np.float64],
    picture: Size,
) -> list[Face]:
    """Faces of the full picture, best score first; what lies outside the picture is left out.

    corners: shape (n, 4), left, top, right, bottom. scores: shape (n,). landmarks: shape (n, points, 2).
    All of it in the pixels of the picture that `shrink` made with this scale. picture: the full size.
    """
    full = corners / np.tile(scale, 2)
    landmarks = (landmarks / scale).astype(np.float32)
    found = []
    for i in np.argsort(-scores, kind="stable"):
        left, top, right, bottom = (float(value) for value in full[i])
        drawn = Box(left, top, right - left, bottom - top)
        box = drawn.clip(*picture)
        if box.area > 0:
            found.append(Face(box, min(float(scores[i]), 1.0), landmarks[i], drawn))
    return found
