"""The benchmark of speech on very little."""

import pytest

from bench.speech import Times, bare, entry, table
from graphs.settings import ModelFile


def test_the_bare_engine_is_measured() -> None:
    row = bare(ModelFile.model_validate(entry("espeak-ng")), 0.1)
    assert (row.way, row.clients) == ("bare engine", 1)
    assert row.texts >= 1
    assert 0 < row.first_ms < row.text_ms
    assert row.factor > 0


def test_the_factor_is_of_all_the_sound() -> None:
    row = Times([0.1, 0.3], [1.0, 2.0], 10.0).row("whole", 2, 2.0)
    assert (row.factor, row.text_ms, row.texts) == (0.2, 1500, 2)
    assert row.first_ms == pytest.approx(200)
    assert table([row, row]).row_count == 2
