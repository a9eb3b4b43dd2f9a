"""How well distances tell same pairs from different pairs: of faces, of voices, of anything embedded."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Distances = NDArray[np.float64]
"""Shape (n,): cosine distances, 0 (the same) to 2."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Distances of all pairs of the same person and of all pairs of two people."""

    same: Distances
    different: Distances

    def far(self, threshold: float) -> float:
        """False accept rate: the part of different pairs nearer than the threshold."""
        return float(np.mean(self.different < threshold))

    def tar(self, threshold: float) -> float:
        """True accept rate: the part of same pairs nearer than the threshold."""
        return float(np.mean(self.same < threshold))

    def accuracy(self, threshold: float) -> float:
        """Balanced accuracy: of as many same as different pairs, the part that is told right."""
        return (self.tar(threshold) + 1 - self.far(threshold)) / 2


def all_pairs(embeddings: NDArray[np.float32], labels: Sequence[str]) -> Pairs:
    """Every pair once. embeddings: shape (n, dim), rows L2-normalised; labels: whose each row is."""
    rows, columns = np.triu_indices(len(labels), k=1)
    distances = 1 - (embeddings.astype(np.float64) @ embeddings.T)[rows, columns]
    names = np.asarray(labels)
    same = names[rows] == names[columns]
    return Pairs(distances[same], distances[~same])


@dataclass(frozen=True, slots=True)
class Curve:
    """Rates at every threshold that can make a difference, ascending, from accepting none to accepting all.

    Each of shape (n,), n at least 2.
    """

    thresholds: Distances
    tar: NDArray[np.float64]
    far: NDArray[np.float64]


def curve(pairs: Pairs) -> Curve:
    """The receiver operating characteristic: a threshold between each two distances, and the ends."""
    values = np.unique(np.concatenate([pairs.same, pairs.different]))
    above = np.nextafter(values[-1], np.inf)
    between = np.asarray([values[0], *((values[1:] + values[:-1]) / 2), above])
    return Curve(between, _below(pairs.same, between), _below(pairs.different, between))


def _below(distances: Distances, thresholds: Distances) -> NDArray[np.float64]:
    return np.asarray(np.searchsorted(np.sort(distances), thresholds, side="left") / len(distances))


def best_threshold(pairs: Pairs) -> float:
    """The middle of the thresholds of highest balanced accuracy."""
    found = curve(pairs)
    return _middle(found.thresholds, found.far - found.tar)


def equal_error_rate(pairs: Pairs) -> float:
    """Where as many different pairs are accepted as same pairs are refused."""
    threshold = equal_error_threshold(pairs)
    return (pairs.far(threshold) + 1 - pairs.tar(threshold)) / 2


def equal_error_threshold(pairs: Pairs) -> float:
    """The middle of the thresholds at which the two rates of error are nearest to each other."""
    found = curve(pairs)
    return _middle(found.thresholds, np.abs(found.far + found.tar - 1))


def _middle(thresholds: Distances, cost: NDArray[np.float64]) -> float:
    best = thresholds[np.isclose(cost, cost.min(), rtol=0, atol=1e-12)]
    return float(best[len(best) // 2])


def threshold_at_far(pairs: Pairs, far: float) -> float:
    """The highest threshold whose false accept rate is at most `far`; 2, the largest distance, for all."""
    ordered = np.sort(pairs.different)
    allowed = int(far * len(ordered))
    return float(ordered[allowed]) if allowed < len(ordered) else 2.0


def tar_at_far(pairs: Pairs, far: float) -> float:
    """The highest true accept rate whose false accept rate is at most `far`."""
    return pairs.tar(threshold_at_far(pairs, far))


@dataclass(frozen=True, slots=True)
class Accuracy:
    """What a report tells of a verification model. Rates are parts of 1, thresholds cosine distances."""

    same_pairs: int
    different_pairs: int
    eer: float
    best_threshold: float
    best_accuracy: float
    threshold: float
    accuracy: float
    tar: float
    far: float
    tar_at_far_1: float


def accuracy(pairs: Pairs, threshold: float) -> Accuracy:
    """The report of these pairs, with a model's own threshold beside the best one."""
    best = best_threshold(pairs)
    return Accuracy(
        same_pairs=len(pairs.same),
        different_pairs=len(pairs.different),
        eer=equal_error_rate(pairs),
        best_threshold=best,
        best_accuracy=pairs.accuracy(best),
        threshold=threshold,
        accuracy=pairs.accuracy(threshold),
        tar=pairs.tar(threshold),
        far=pairs.far(threshold),
        tar_at_far_1=tar_at_far(pairs, 0.01),
    )
