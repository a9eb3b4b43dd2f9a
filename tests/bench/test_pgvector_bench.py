"""The benchmark of the store in Postgres on very little."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.pgvector import main


def test_every_part_is_measured(tmp_path: Path, postgres: Any, capsys: pytest.CaptureFixture[str]) -> None:
    figures, url = tmp_path / "figures.json", postgres.new_database()
    main(["--url", url, "--records", "100", "200", "--dim", "16", "--rounds", "1", "--json", str(figures)])
    told = json.loads(figures.read_text())
    kinds = [(row["records"], row["dim"], row["way"]) for row in told["rows"]]
    assert kinds == [(many, 16, way) for many in (100, 200) for way in ("compared", "hnsw")]
    for row in told["rows"]:
        assert row["recall"] == 1 if row["way"] == "compared" else row["recall"] > 0.9
        assert 0 < row["p50_ms"] <= row["p95_ms"]
        assert 0 < row["register_p50_ms"] <= row["register_p95_ms"]
        assert row["together_ms"] > 0 < row["pooled_ms"]
        assert row["filtered_ms"] > 0 < row["ready_s"]
        assert row["bytes_each"] > 16 * 4
    assert len(told["erasures"]) == 2
    for erasure in told["erasures"]:
        assert erasure["records"] >= 100
        assert all(erasure[name] > 0 for name in ("took_s", "stored_s", "search_s", "register_s"))
        assert erasure["refused"] == 0
    assert told["machine"]["postgres"]["pgvector"]
    assert "load average" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="not empty"):
        main(["--url", url, "--records", "100", "--dim", "16", "--rounds", "1"])
