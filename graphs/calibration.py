"""Which threshold fits a verification model, told from the distances of labelled files."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from engines.types import Embeddings
from engines.verification import (
    Distances,
    Pairs,
    all_pairs,
    best_threshold,
    equal_error_rate,
    equal_error_threshold,
    threshold_at_far,
)
from graphs.samples import Kind, Skipped, require_pairs
from graphs.settings import ModelFile

FARS = (0.001, 0.01)
"""False accept rates at which true accept rates are told."""

ERRORS = 30
"""Fewer errors than this do not tell a rate to within 30 % of itself, nine times of ten. Source: Doddington
et al., The NIST speaker recognition evaluation, Speech Communication 31 (2000), the rule of 30.
"""

PERCENTILES = (0, 1, 5, 25, 50, 75, 95, 99, 100)


@dataclass(frozen=True, slots=True)
class Point:
    """What one threshold accepts. threshold: cosine distance; tar, far: parts of 1."""

    threshold: float
    tar: float
    far: float


@dataclass(frozen=True, slots=True)
class Distribution:
    """Cosine distances of pairs. percentiles: per cent -> distance."""

    pairs: int
    percentiles: dict[int, float]


@dataclass(frozen=True, slots=True)
class Calibration:
    """The report. present: the model's threshold now. at_far: wanted false accept rate -> its point."""

    model: str
    kind: Kind
    people: int
    files: int
    skipped: tuple[Skipped, ...]
    same: Distribution
    different: Distribution
    equal_error_rate: float
    equal_error_threshold: float
    at_far: dict[float, Point]
    present: Point
    suggested: Point
    warnings: tuple[str, ...]


def pairs(people: Sequence[str], embeddings: Embeddings) -> Pairs:
    """Every pair once. Raises ConfigurationError where pairs of one or of two people are missing."""
    require_pairs(people, "of what could be read there are ")
    return all_pairs(embeddings, people)


def calibrated(
    model: ModelFile,
    *,
    kind: Kind,
    people: Sequence[str],
    skipped: Sequence[Skipped],
    distances: Pairs,
    present: float,
    far: float,
) -> Calibration:
    """The report. far: false accept rate that the suggestion may have at most, a part of 1.

    The suggestion is the threshold that tells most pairs right, or a lower one where that accepts more
    strangers; three decimals, rounded down.
    """
    best = min(best_threshold(distances), threshold_at_far(distances, far))
    return Calibration(
        model=model.name,
        kind=kind,
        people=len(set(people)),
        files=len(people),
        skipped=tuple(skipped),
        same=_distribution(distances.same),
        different=_distribution(distances.different),
        equal_error_rate=equal_error_rate(distances),
        equal_error_threshold=equal_error_threshold(distances),
        at_far={rate: _point(distances, threshold_at_far(distances, rate)) for rate in FARS},
        present=_point(distances, present),
        suggested=_point(distances, math.floor(best * 1000 + 1e-6) / 1000),
        warnings=tuple(_warnings(len(distances.different), sorted({*FARS, far}))),
    )


def _distribution(distances: Distances) -> Distribution:
    values = np.percentile(distances, PERCENTILES)
    return Distribution(len(distances), dict(zip(PERCENTILES, values.tolist(), strict=True)))


def _point(distances: Pairs, threshold: float) -> Point:
    return Point(threshold, distances.tar(threshold), distances.far(threshold))


def _warnings(different: int, rates: Iterable[float]) -> Iterable[str]:
    for rate in rates:
        if different * rate < ERRORS:
            yield (
                f"{different} pairs of two people are too few to be sure of a FAR of {rate:.1%}: "
                f"take {math.ceil(ERRORS / rate)} or more"
            )
