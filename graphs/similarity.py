"""How near two embeddings are, in the numbers that the routes answer with."""

import numpy as np


def cosine_distance(one: np.ndarray, two: np.ndarray) -> float:
    """1 - cosine of two unit vectors, 0..2."""
    return float(np.clip(1.0 - np.dot(one, two), 0.0, 2.0))


def confidence(distance: float, threshold: float) -> float:
    """How far below the threshold a distance lies: 100 at 0, 0 at the threshold and beyond."""
    if threshold <= 0:
        return 0.0
    return min(max((1.0 - distance / threshold) * 100.0, 0.0), 100.0)
