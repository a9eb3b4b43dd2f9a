"""From a face in a picture to the square that a network takes. Needs no weights."""

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.types import Box, Image

ARCFACE_POINTS = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Where ArcFace and SFace want the landmarks in a crop of 112x112 pixels: eye on the left of the picture,
eye on the right, nose, corners of the mouth on the left and the right.

Source: https://github.com/deepinsight/insightface/blob/master/python-package/insightface/utils/face_align.py
"""


def similarity(points: NDArray[np.float32], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rotation, scale and shift, shape (2, 3), that brings points nearest to the target.

    points, target: shape (n, 2). With points as complex numbers it is w = a z + b, and its least
    squares solution equals Umeyama's (IEEE PAMI 13(4), 1991), for in the plane it cannot mirror.
    """
    z, w = points.astype(np.float64) @ [1, 1j], target @ [1, 1j]
    centred = z - z.mean()
    spread = max(np.vdot(centred, centred).real, np.finfo(np.float64).tiny)
    a = np.vdot(centred, w - w.mean()) / spread
    b = w.mean() - a * z.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def arcface_crop(image: Image, landmarks: NDArray[np.float32]) -> Image:
    """The aligned face, 112x112, black where it leaves the picture. landmarks: shape (5, 2), pixels."""
    return _warp(image, similarity(landmarks, ARCFACE_POINTS), 112)


def square_crop(image: Image, box: Box, size: int, margin: float) -> Image:
    """The square around the box's centre, `margin` times its longer side, scaled to size x size pixels.

    Black where it leaves the picture.
    """
    scale = size / (max(box.w, box.h, 1.0) * margin)
    x, y = box.x + box.w / 2, box.y + box.h / 2
    return _warp(image, np.array([[scale, 0, size / 2 - x * scale], [0, scale, size / 2 - y * scale]]), size)


def _warp(image: Image, matrix: NDArray[np.float64], size: int) -> Image:
    return np.asarray(cv2.warpAffine(image, matrix, (size, size)), dtype=np.uint8)
