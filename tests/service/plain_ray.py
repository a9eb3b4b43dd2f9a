"""What tests of a Ray that `presence serve` did not start share: its variables, and when it answers."""

import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(sys.executable).parent
START_S = 400
"""Far more than it takes; two services may start at once, on two cores."""


@contextmanager
def short_directory() -> Iterator[Path]:
    """Ray's sockets lie in it, whose paths are short."""
    path = Path(tempfile.mkdtemp(prefix="run-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def variables(home: Path) -> dict[str, str]:
    """Those of docs/deployment.md that are not left to the reader, for one machine."""
    page = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    named = dict(re.findall(r"(?:^export |`)(RAY_\w+)=([^\s`]+)", page, re.MULTILINE))
    assert {"RAY_AUTH_MODE", "RAY_SERVE_ENABLE_HA_PROXY", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"} <= set(named)
    wanted = {name: value for name, value in named.items() if "TLS" not in name}
    token = home / ".ray" / "auth_token"
    token.parent.mkdir()
    token.touch(0o600)
    token.write_text(secrets.token_hex(32))
    return {
        **os.environ,
        **wanted,
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(PROGRAMS / "presence-haproxy"),
        "HOME": str(home),
        "RAY_TMPDIR": str(home),
    }


def started(command: Sequence[str | Path], given: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """A program of this environment, in a process group of its own."""
    program, *arguments = command
    with log.open("wb") as output:
        return subprocess.Popen(
            [PROGRAMS / program, *arguments],
            cwd=ROOT,
            env=given,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def readiness(url: str, process: subprocess.Popen[bytes], log: Path) -> Iterator[httpx.Response]:
    """Every answer of /readyz until one is 200."""
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()[-4000:]
        try:
            answer = httpx.get(f"{url}/readyz", timeout=5, trust_env=False)
        except httpx.HTTPError:
            continue
        finally:
            time.sleep(0.1)  # nothing announces readiness but asking
        yield answer
        if answer.status_code == 200:
            return
    pytest.fail(log.read_text()[-4000:])
