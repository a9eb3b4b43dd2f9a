"""Figures of a report, and its files."""

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import PIL.Image
import pytest
from rich.console import Console

from bench.report import Bare, Report, Served, Verdict, machine, percentile, tables, verdicts, write


def served(concurrency: int, rate: float, p50: float, errors: dict[str, int] | None = None) -> Served:
    return Served(
        model="m",
        route="verify",
        concurrency=concurrency,
        requests=40,
        requests_per_s=rate,
        items_per_s=2 * rate,
        p50_ms=p50,
        p95_ms=math.nan,
        p99_ms=p50,
        errors=errors or {},
        cpu_ms=9.0,
        client_cpu=0.01,
        cores=1.9,
        cpu_by_process={"Gateway": 3.0},
    )


FLOOR = Bare(
    "m",
    "verify",
    2,
    80,
    median_ms=40.0,
    requests_per_s=50.0,
    items_per_s=100.0,
    cpu_ms=4.5,
    cores=1.99,
    quiet=True,
)


def made(*rows: Served) -> Report:
    return Report({"cores": 2, "cpu": "a cpu", "load_average": 0.1}, {"seconds": 4}, rows, (FLOOR,))


@pytest.mark.parametrize(
    ("part", "value"), [(0.5, 5), (0.95, 10), (0.9, 9), (0.99, 10), (0.01, 1), (0.0, 1), (1.0, 10)]
)
def test_percentile_is_the_nearest_rank(part: float, value: int) -> None:
    assert percentile([3, 1, 2, 10, 9, 8, 7, 6, 5, 4], part) == value


def test_percentile_of_nothing_does_not_exist() -> None:
    assert math.isnan(percentile([], 0.5))


def test_a_verdict_compares_throughput_and_the_median_with_the_floor() -> None:
    other = Bare(
        "m",
        "embed",
        2,
        80,
        median_ms=4.0,
        requests_per_s=500.0,
        items_per_s=500.0,
        cpu_ms=3.9,
        cores=2.0,
        quiet=True,
    )
    rows = [served(1, 20.0, 45.5), served(16, 42.5, 300.0)]
    first, second = verdicts(rows, [FLOOR, other])
    assert first == Verdict("m", "verify", {1: 0.4, 16: 0.85}, 5.5, 0.5, quiet=True)
    assert first.throughput_holds is True
    assert first.latency_holds is True
    assert second == Verdict("m", "embed", {}, None, None, quiet=True)
    assert second.throughput_holds is None
    assert second.latency_holds is None


def test_what_does_not_hold_is_said() -> None:
    [verdict] = verdicts([served(1, 20.0, 46.1), served(16, 42.4, 300.0)], [FLOOR])
    assert verdict.throughput_holds is False
    assert verdict.latency_holds is False


def test_the_files_carry_every_figure(tmp_path: Path) -> None:
    write(made(served(1, 20.0, 45.5), served(16, 42.0, 300.0, {"503": 3})), tmp_path / "out")
    data = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert [row["concurrency"] for row in data["service"]] == [1, 16]
    assert data["service"][1]["errors"] == {"503": 3}
    assert data["service"][0]["p95_ms"] is None
    assert data["bare"][0]["median_ms"] == 40.0
    assert data["wanted"] == {"ratio": 0.85, "at": 16, "added_ms": 6.0}
    assert data["verdicts"][0]["ratios"] == {"1": 0.4, "16": 0.84}
    assert data["verdicts"][0]["throughput_holds"] is False
    assert data["verdicts"][0]["latency_holds"] is True
    with PIL.Image.open(tmp_path / "out" / "bench.png") as chart:
        assert chart.format == "PNG"
        assert chart.width > 500


def test_the_table_shows_the_floor_the_service_and_the_verdict() -> None:
    out = io.StringIO()
    Console(file=out, width=200).print(
        tables(made(served(1, 20.0, 46.5), served(16, 42.5, 300.0, {"503": 3})))
    )
    text = out.getvalue()
    assert "bare, 2 processes" in text
    assert "503: 3" in text
    assert "+6.5" in text
    assert "does not hold" in text
    assert "0.85" in text


def test_nothing_holds_on_a_busy_machine() -> None:
    quiet = made(served(1, 20.0, 41.0), served(16, 50.0, 300.0))
    busy = replace(quiet, bare=(replace(FLOOR, cores=1.2, quiet=False),))
    [verdict] = verdicts(busy.served, busy.bare)
    assert verdict.throughput_holds is None
    assert verdict.latency_holds is None
    for report, said in ((quiet, False), (busy, True)):
        out = io.StringIO()
        Console(file=out, width=200).print(tables(report))
        assert ("The machine was busy: 1 of 1 bare loops" in out.getvalue()) is said
        assert ("not told" in out.getvalue()) is said


def test_the_machine_is_described_without_its_name() -> None:
    facts = machine()
    assert facts["cores"] >= 1
    assert facts["packages"]["ray"].startswith("2.")
    assert set(facts) == {
        "cores", "cpu", "memory_gib", "system", "python", "packages", "load_average", "date"
    }  # fmt: skip
