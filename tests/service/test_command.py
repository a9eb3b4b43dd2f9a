"""`presence serve` as a person at a terminal sees it: what it says, and that Ctrl-C ends all of it."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped] # it ships without types
import pytest

pytestmark = pytest.mark.service


def said_once_ready(log: Path) -> str:
    """All that it has said once it told the command to try; /readyz may answer a moment before."""
    until = time.monotonic() + 30
    while not log.read_text().endswith("/v1/models\n\n") and time.monotonic() < until:
        time.sleep(0.1)  # nothing announces what it says
    return log.read_text()


def test_it_says_what_is_ready_and_ctrl_c_ends_all_of_it(
    serve_with: Callable[..., Any], tmp_path: Path
) -> None:
    arguments = {"models": [{"name": "fake", "backend": "fake"}], "store": {"directory": str(tmp_path)}}
    with serve_with(arguments) as own:
        told = said_once_ready(own.log)
        command = psutil.Process(own.pid)
        others = command.children(recursive=True)
        os.killpg(own.pid, signal.SIGINT)  # a terminal sends it to all that the command started
        assert command.wait(60) == 0
        _, left = psutil.wait_procs(others, timeout=10)
    assert [one for one in left if one.status() != psutil.STATUS_ZOMBIE] == []
    for part in ("fake.detector", "fake.recognizer", "store", "Gateway"):
        assert f"  ready  {part}  " in told
    assert told.endswith(
        f"presence is ready at {own.url}\nAPI page: {own.url}/docs\n\nTry:\n  curl -s {own.url}/v1/models\n\n"
    )
    assert own.log.read_text().removeprefix(told) == "stopping ...\n"
