"""Rows of length 1, and rows that have no direction."""

import numpy as np
import pytest

from engines.embedding import unit_rows


def test_rows_become_unit_rows() -> None:
    found = unit_rows(np.array([[3, 4], [0, -2], [1e-10, 0]], np.float32))
    assert found == pytest.approx(np.array([[0.6, 0.8], [0, -1], [1, 0]]))
    assert found.dtype == np.float32


def test_a_row_of_zeros_stays_zeros() -> None:
    assert np.array_equal(unit_rows(np.zeros((2, 4), np.float32)), np.zeros((2, 4), np.float32))


def test_extreme_magnitudes_keep_their_direction() -> None:
    rows = np.array([[1e-30, 0.0], [3e30, 4e30], [1e38, 1e38]], np.float32)
    expected = np.array([[1, 0], [0.6, 0.8], [0.5**0.5, 0.5**0.5]])
    assert unit_rows(rows) == pytest.approx(expected)
