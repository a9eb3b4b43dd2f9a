"""The figures of a verification report, on distances whose answer is known by hand."""

import numpy as np
import pytest

from bench.verification import Pairs, accuracy, all_pairs, best_threshold, equal_error_rate, tar_at_far


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
