"""The figures of a calibration, on distances whose answer is known by hand."""

import numpy as np
import pytest

from engines.errors import ConfigurationError
from engines.verification import Pairs
from graphs import calibration
from graphs.calibration import Calibration
from graphs.samples import Skipped
from graphs.settings import ModelFile

MODEL = ModelFile(name="voices", backend="fake-voice")


def told(same: list[float], different: list[float], present: float = 0.25, far: float = 0.01) -> Calibration:
    return calibration.calibrated(
        MODEL,
        kind="voice",
        people=["anna", "anna", "bert"],
        skipped=[Skipped("bert/1.wav", "silent")],
        distances=Pairs(np.array(same), np.array(different)),
        present=present,
        far=far,
    )


def test_people_who_lie_apart_are_separated_in_the_middle_of_the_gap() -> None:
    found = told([0.1, 0.2, 0.3], [0.6, 0.8])
    assert found.equal_error_rate == 0
    assert found.equal_error_threshold == pytest.approx(0.45)
    assert found.suggested == calibration.Point(0.45, 1.0, 0.0)
    assert found.present.tar == pytest.approx(2 / 3)
    assert (found.people, found.files, len(found.skipped)) == (2, 3, 1)


def test_the_suggestion_accepts_no_more_strangers_than_it_may() -> None:
    different = [i / 100 for i in range(20, 120)]
    same = [0.05, 0.1, 0.22, 0.24]
    loose = told(same, different, far=0.1).suggested
    strict = told(same, different, far=0.01).suggested
    assert loose.far <= 0.1
    assert loose.tar == 1
    assert strict == calibration.Point(0.21, 0.5, 0.01)


def test_thresholds_are_rounded_down() -> None:
    found = told([0.1], [0.10078, 0.9])
    assert found.suggested.threshold == 0.1


def test_true_accepts_are_told_at_two_rates_of_false_ones() -> None:
    different = [i / 1000 for i in range(1, 1001)]
    found = told([0.0005, 0.0015, 0.5], different)
    assert found.at_far[0.001].tar == pytest.approx(2 / 3)
    assert found.at_far[0.01].threshold == pytest.approx(0.011)
    assert found.at_far[0.01].far == pytest.approx(0.01)


def test_distributions_tell_pairs_and_percentiles() -> None:
    found = told([0.1, 0.2, 0.3], [0.6, 0.8])
    assert found.same.pairs == 3
    assert found.same.percentiles[0] == pytest.approx(0.1)
    assert found.same.percentiles[50] == pytest.approx(0.2)
    assert found.different.percentiles[100] == pytest.approx(0.8)


def test_too_few_pairs_are_told_plainly() -> None:
    few = told([0.1], [0.5] * 2999)
    assert few.warnings == (
        "2999 pairs of two people are too few to be sure of a FAR of 0.1%: take 30000 or more",
        "2999 pairs of two people are too few to be sure of a FAR of 1.0%: take 3000 or more",
    )
    assert len(told([0.1], [0.5] * 3000).warnings) == 1
    assert told([0.1], [0.5] * 30000).warnings == ()


def test_pairs_are_needed_of_what_could_be_read() -> None:
    rows = np.eye(3, dtype=np.float32)
    assert len(calibration.pairs(["anna", "anna", "bert"], rows).different) == 2
    with pytest.raises(ConfigurationError, match="of what could be read there are files of 1 people"):
        calibration.pairs(["anna", "anna", "anna"], rows)
    with pytest.raises(ConfigurationError, match="of what could be read there are files of 0 people"):
        calibration.pairs([], np.empty((0, 1), np.float32))
