"""What Serve takes where nothing is computed, measured on very little."""

import re
import subprocess
import sys

import pytest

from bench.floor import row
from bench.load import Load
from tests.service.test_docs import ROOT


def test_a_row_tells_of_one_load() -> None:
    made = Load(took_ms=(1.0, 3.0, 2.0, 9.0), errors={}, elapsed_s=0.5, cpu_s=0.1)
    one = row(2, 16, made, 0.02)
    assert (one.calls, one.at_a_time, one.requests_per_s) == (2, 16, 8.0)
    assert (one.p50_ms, one.p95_ms, one.cpu_ms) == (2.5, 9.0, 5.0)


def test_failed_requests_are_no_figures() -> None:
    with pytest.raises(RuntimeError, match="500"):
        row(1, 1, Load(took_ms=(1.0,), errors={"500": 1}, elapsed_s=1.0, cpu_s=0.1), 0.1)


@pytest.mark.service
def test_every_number_of_calls_is_measured() -> None:
    command = [sys.executable, "-m", "bench.floor", "--seconds", "0.2", "--rounds", "1"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    rows = re.findall(r"^│ +(\d) │ +(\d+) │", ended.stdout, re.MULTILINE)
    assert rows == [("0", "1"), ("0", "16"), ("1", "1"), ("1", "16"), ("2", "1"), ("2", "16")]
