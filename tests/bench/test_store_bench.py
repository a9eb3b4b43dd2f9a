"""The benchmark of the store on very little."""

import json
from pathlib import Path

import pytest

from bench.store import main


def test_every_part_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = tmp_path / "figures.json"
    sizes = ["--records", "300", "1200", "--dim", "16", "--seconds", "0.2", "--rounds", "3"]
    main([*sizes, "--directory", str(tmp_path), "--json", str(figures)])
    told = json.loads(figures.read_text())
    enrolled = [(row["through"], row["clients"]) for row in told["enrolled"]]
    assert enrolled == [("journal", 1), ("journal", 32), ("store", 1), ("store", 32)]
    assert all(row["per_s"] > 0 and 0 < row["p50_ms"] <= row["p95_ms"] for row in told["enrolled"])
    for row, kept, records in zip(told["searched"], told["kept"], (300, 1200), strict=True):
        assert (row["records"], kept["records"], row["dim"]) == (records, records, 16)
        assert row["ratio"] == pytest.approx(row["bare_per_s"] / row["per_s"])
        assert kept["snapshot_bytes_each"] > 16 * 4
        assert kept["journal_bytes_each"] > 16 * 4
    assert list(tmp_path.iterdir()) == [figures], "nothing is left behind"
    assert "load average" in capsys.readouterr().out
