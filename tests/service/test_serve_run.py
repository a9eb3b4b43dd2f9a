"""Plain `serve run` on the embedded profile: with the variables of docs/deployment.md, and with fewer."""

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from bench.service import free_port

pytestmark = pytest.mark.service

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(sys.executable).parent
START_S = 400
"""Far more than it takes; two services may start at once, on two cores."""


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short one: Ray's sockets lie in it."""
    path = Path(tempfile.mkdtemp(prefix="run-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def variables(home: Path) -> dict[str, str]:
    """Those of the page that are not left to the reader, for one machine."""
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


@pytest.mark.parametrize("bare", [False, True], ids=["as the page says", "without variables of Serve"])
def test_the_embedded_profile_runs(directory: Path, bare: bool) -> None:
    config = yaml.safe_load((ROOT / "config" / "local.yaml").read_text(encoding="utf-8"))
    port = config["http_options"]["port"] = free_port()
    written, log, url = directory / "local.yaml", directory / "log", f"http://127.0.0.1:{port}"
    written.write_text(yaml.safe_dump(config), encoding="utf-8")
    given = variables(directory)
    if bare:
        given = {name: text for name, text in given.items() if not name.startswith("RAY_SERVE_")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [PROGRAMS / "serve", "run", written],
            cwd=ROOT,
            env=given,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        answers = list(readiness(url, process, log))
        waiting = [answer for answer in answers if answer.status_code == 503 and not bare]
        names = {entry["name"] for entry in config["applications"][0]["args"]["models"]}
        for answer in waiting:
            told = answer.json()
            assert told["status"] == "starting"
            assert set(told["loading"]) <= {*names, "store"}
        assert {answer.status_code for answer in answers} <= {200, 404, 503}
        spoken = httpx.post(f"{url}/tts", json={"model": "espeak-ng", "input": "ready"}, trust_env=False)
        assert (spoken.status_code, spoken.content[:4]) == (200, b"RIFF")
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
