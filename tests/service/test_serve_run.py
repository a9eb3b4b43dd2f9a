"""Plain `serve run` on the embedded profile: with the variables of docs/deployment.md, and with fewer."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from bench.service import free_port
from tests.service.plain_ray import ROOT, readiness, short_directory, started, variables

pytestmark = pytest.mark.service


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as path:
        yield path


@pytest.mark.parametrize("bare", [False, True], ids=["as the page says", "without variables of Serve"])
def test_the_embedded_profile_runs(directory: Path, bare: bool) -> None:
    config = yaml.safe_load((ROOT / "config" / "local.yaml").read_text(encoding="utf-8"))
    port = config["http_options"]["port"] = free_port()
    written, log, url = directory / "local.yaml", directory / "log", f"http://127.0.0.1:{port}"
    written.write_text(yaml.safe_dump(config), encoding="utf-8")
    given = variables(directory)
    if bare:
        given = {name: text for name, text in given.items() if not name.startswith("RAY_SERVE_")}
    process = started(["serve", "run", written], given, log)
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
