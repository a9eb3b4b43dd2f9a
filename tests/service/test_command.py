"""`presence serve` as a person at a terminal sees it: what it says, and that Ctrl-C ends all of it."""

import os
import re
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped] # it ships without types
import pytest

from bench.service import free_port
from tests.service.conftest import start
from tests.service.many_replicas import until
from tests.service.slow_picture import serving_slowly

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


def test_ctrl_c_answers_what_is_in_flight_first_and_a_second_one_does_not(
    serve_with: Callable[..., Any], tmp_path: Path
) -> None:
    arguments = {
        "models": [{"name": "fake", "backend": "fake", "fused": True}],
        "store": {"directory": str(tmp_path)},
        "media": {"allow_networks": ["127.0.0.0/8"]},
    }
    with (
        serve_with(arguments) as own,
        own.client() as client,
        serving_slowly() as first,
        serving_slowly() as second,
        ThreadPoolExecutor() as pool,
    ):
        told = said_once_ready(own.log)
        command = psutil.Process(own.pid)
        bodies = ({"model": "fake", "img": picture.url} for picture in (first, second))
        embeddings = [pool.submit(client.post, "/v1/face/embed", json=body) for body in bodies]
        assert first.asked.wait(30)
        assert second.asked.wait(30)
        os.killpg(own.pid, signal.SIGINT)
        until(lambda: own.log.read_text().endswith("Ctrl-C again stops at once\n"))
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{own.url}/readyz", trust_env=False)
        first.send.set()
        assert embeddings[0].result().status_code == 200
        assert command.is_running()
        os.killpg(own.pid, signal.SIGINT)
        assert isinstance(embeddings[1].exception(), httpx.RemoteProtocolError)
        assert command.wait(60) == 0
    assert own.log.read_text().removeprefix(told) == (
        "stopping ...\nanswering what is in flight, for 20 s at most; Ctrl-C again stops at once\n"
    )


@pytest.mark.parametrize("worked_s", [0.05, 0.3, 0.8, 1.5])
def test_ctrl_c_while_it_loads_ends_it_without_a_word(tmp_path: Path, worked_s: float) -> None:
    """worked_s: how long a core had worked for it, the same point however busy the machine is."""
    log = tmp_path / "serve.log"
    # What a shell starts in the background ignores Ctrl-C, and so does all that this starts.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = start(["--models-dir", str(tmp_path)], free_port(), log, {"HOME": str(tmp_path)})
    signal.signal(signal.SIGINT, inherited)
    try:
        command = psutil.Process(process.pid)
        while command.cpu_times().user < worked_s and process.poll() is None:
            time.sleep(0.005)  # nothing announces how far it is
        others = command.children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 130
        said = log.read_text()
        assert said == "" or re.fullmatch(r"starting Ray; its logs are in \S+\n", said), said
        assert psutil.wait_procs(others, timeout=10)[1] == []
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)
