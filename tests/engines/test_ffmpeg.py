"""A header cannot make FFmpeg take gigabytes."""

import subprocess
import sys
from pathlib import Path

from engines.ffmpeg import MOST_BYTES, limit_allocations

ROOT = Path(__file__).resolve().parents[2]

PEAK = """
import resource, sys
from engines.audio import decode
from engines.errors import NotDecodable

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

claimed = (1_600_000_000).to_bytes(4, "little")
format_ = bytes.fromhex("10000000 0100 0100 803e0000 007d0000 0200 1000")
wave = b"RIFF" + claimed + b"WAVEfmt " + format_ + b"LIST" + claimed + b"INFOISFT" + claimed + bytes(4096)
before = peak()
try:
    decode(wave, 16_000, 60)
except NotDecodable:
    print(peak() - before)
"""


def test_the_library_of_the_wheel_is_found() -> None:
    assert limit_allocations()


def test_a_header_that_claims_gigabytes_gets_none() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PEAK], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert int(ended.stdout) < 2 * MOST_BYTES
