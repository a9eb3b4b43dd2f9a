"""The figures of a verification report, on distances whose answer is known by hand."""

import numpy as np
import pytest

from engines.verification import (
    Pairs,
    accuracy,
    all_pairs,
    best_threshold,
    curve,
    equal_error_rate,
    equal_error_threshold,
    tar_at_far,
    threshold_at_far,
)


def pairs(same: list[float], different: list[float]) -> Pairs:
    return Pairs(np.array(same), np.array(different))


def test_every_pair_counts_once() -> None:
    embeddings = np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32)
    found = all_pairs(embeddings, ["anna", "anna", "bert"])
    assert found.same == pytest.approx([0.4])
    assert sorted(found.different) == pytest.approx([0.2, 1.0])


def test_people_who_lie_apart_are_told_without_error() -> None:
    found = accuracy(pairs([0.1, 0.2, 0.3], [0.6, 0.8]), 0.25)
    assert found.eer == 0
    assert found.best_accuracy == 1
    assert found.best_threshold == pytest.approx(0.45)
    assert found.tar_at_far_1 == 1
    assert found.tar == pytest.approx(2 / 3)
    assert found.far == 0
    assert found.accuracy == pytest.approx((2 / 3 + 1) / 2)
    assert (found.same_pairs, found.different_pairs) == (3, 2)


def test_equal_errors_meet_where_one_of_four_is_wrong_on_both_sides() -> None:
    assert equal_error_rate(pairs([0.1, 0.2, 0.3, 0.7], [0.4, 0.8, 0.9, 1.0])) == pytest.approx(0.25)


def test_the_equal_error_threshold_lies_in_the_middle_of_the_gap() -> None:
    assert equal_error_threshold(pairs([0.1, 0.2], [0.4, 0.8])) == pytest.approx(0.3)


def test_accuracy_weighs_same_and_different_pairs_alike() -> None:
    found = pairs([0.1, 0.9], [0.5] * 10 + [1.0] * 90)
    assert found.accuracy(0.3) == pytest.approx(0.75)
    assert best_threshold(found) == pytest.approx(0.95)
    assert found.accuracy(0.95) == pytest.approx(0.95)


def test_true_accepts_at_a_rate_of_false_ones() -> None:
    found = pairs([0.05, 0.35, 0.95], [i / 10 for i in range(1, 11)])
    assert tar_at_far(found, 0.0) == pytest.approx(1 / 3)
    assert tar_at_far(found, 0.3) == pytest.approx(2 / 3)
    assert tar_at_far(found, 1.0) == 1


def test_the_highest_threshold_of_a_rate_of_false_accepts() -> None:
    found = pairs([0.05], [i / 10 for i in range(1, 11)])
    assert threshold_at_far(found, 0.0) == pytest.approx(0.1)
    assert threshold_at_far(found, 0.3) == pytest.approx(0.4)
    assert found.far(threshold_at_far(found, 0.3)) == pytest.approx(0.3)
    assert threshold_at_far(found, 1.0) == 2


def test_the_curve_counts_what_each_threshold_accepts() -> None:
    rng = np.random.default_rng(0)
    found = Pairs(rng.normal(0.3, 0.1, 50), rng.normal(0.7, 0.1, 200))
    line = curve(found)
    assert len(line.thresholds) == 251
    assert (line.tar[0], line.far[0], line.tar[-1], line.far[-1]) == (0, 0, 1, 1)
    for place in range(0, 251, 31):
        threshold = float(line.thresholds[place])
        assert line.tar[place] == pytest.approx(found.tar(threshold))
        assert line.far[place] == pytest.approx(found.far(threshold))


def test_distances_that_are_all_one_tell_nothing() -> None:
    found = pairs([0.5], [0.5, 0.5])
    assert equal_error_rate(found) == pytest.approx(0.5)
    assert found.accuracy(best_threshold(found)) == pytest.approx(0.5)


def test_a_million_pairs_are_no_trouble() -> None:
    rng = np.random.default_rng(0)
    found = Pairs(rng.normal(0.3, 0.1, 100_000), rng.normal(0.7, 0.1, 900_000))
    assert equal_error_rate(found) == pytest.approx(0.0228, abs=0.002)
    assert best_threshold(found) == pytest.approx(0.5, abs=0.01)
