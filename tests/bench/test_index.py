"""The benchmark of indexes on very little."""

import json
from pathlib import Path

import numpy as np
import pytest

from bench.index import main, samples


def test_every_kind_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--records", "300", "--dim", "16", "--json", str(tmp_path / "figures.json")])
    rows = json.loads((tmp_path / "figures.json").read_text())
    assert [row["kind"] for row in rows] == ["flat", "flat-fp16", "hnsw", "ivf"]
    assert rows[0]["recall"] == 1
    assert all(0.8 <= row["recall"] <= 1 for row in rows)
    assert all(list(row["search"]) == ["1", "16", "64"] for row in rows)
    assert rows[1]["bytes_each"] < rows[0]["bytes_each"] < 2 * rows[1]["bytes_each"]
    assert [row["building"] is None for row in rows] == [True, True, False, False]
    assert all(0 < row["absorbing"]["p50_ms"] <= row["absorbing"]["longest_ms"] for row in rows[2:])
    assert "load average" in capsys.readouterr().out


def test_samples_of_a_person_are_nearer_than_others() -> None:
    one, two = samples(200, 64, 5, seed=1), samples(200, 64, 5, seed=2)
    near = one @ two.T
    assert np.linalg.norm(one, axis=1) == pytest.approx(np.ones(200))
    assert 0.4 < float(np.median(near.max(axis=1))) < 0.9
    assert float(np.median(near)) < 0.2
