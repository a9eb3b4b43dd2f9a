"""`serve deploy` as docs/deployment.md has it: a change of the config replaces every replica under load."""

import asyncio
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped] # it ships without types
import pytest
import yaml

from bench.service import free_port
from tests.service.enrolling import Enrolment, all_registered
from tests.service.many_replicas import until
from tests.service.plain_ray import PROGRAMS, ROOT, readiness, short_directory, started, variables
from tests.service.slow_picture import SlowPicture

pytestmark = pytest.mark.service

DEADLINE_S = 200
"""Of a request that outlasts all of it, on a busy machine too."""
SERVES_DEFAULT_S = 20
"""How long Serve waits by itself for what a replica still does."""
REPLACED_S = 300
"""Far more than it takes."""

SAMPLE_RATE = 22_050
"""Of espeak-ng, in Hz; a sample has two bytes."""

Replicas = Callable[[int], dict[int, str]]
Deploy = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Cluster:
    """A Ray of one node. deploy: `serve deploy` of the application with these arguments."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path
    deploy: Deploy


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Ray as the page starts it, but on loopback."""
    with short_directory() as home:
        dashboard, port, log = free_port(), free_port(), home / "log"
        # A gateway that stops stays for as long as a request needs, not for distant load balancers too.
        given = {**variables(home), "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1"}
        config, address = home / "config.yaml", f"http://127.0.0.1:{dashboard}"

        def deploy(arguments: dict[str, Any]) -> None:
            application = {"name": "presence", "import_path": "graphs.app:app", "args": arguments}
            http = {"host": "127.0.0.1", "port": port}
            config.write_text(yaml.safe_dump({"http_options": http, "applications": [application]}))
            command = [str(PROGRAMS / "serve"), "deploy", str(config), "--address", address]
            subprocess.run(command, cwd=ROOT, env=given, check=True, capture_output=True, timeout=120)

        loopback = ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--temp-dir={home}/r"]
        ports = {
            "port": free_port(),
            "dashboard-port": dashboard,
            "dashboard-agent-listen-port": free_port(),
            "ray-client-server-port": free_port(),
            "min-worker-port": 0,
            "max-worker-port": 0,
        }
        options = [*loopback, *(f"--{name}={number}" for name, number in ports.items()), "--num-cpus=4"]
        head = ["ray", "start", "--head", "--block", "--include-dashboard=true"]
        process = started([*head, *options], given, log)
        try:
            until(lambda: "Ray runtime started" in log.read_text() or process.poll() is not None)
            assert process.poll() is None, log.read_text()
            yield Cluster(f"http://127.0.0.1:{port}", process, log, deploy)
        finally:
            # Asked to end, `ray start` waits half a minute for processes of its own.
            with suppress(psutil.NoSuchProcess):
                for child in psutil.Process(process.pid).children(recursive=True):
                    with suppress(psutil.NoSuchProcess):
                        child.kill()
            process.kill()
            process.wait(10)


def settings(num_cpus: float) -> dict[str, Any]:
    """num_cpus: of every part, which no replica can change while it runs."""
    given = {"num_cpus": num_cpus}
    face = dict.fromkeys(("detector", "recognizer", "attributes"), given)
    return {
        "models": [
            {"name": "fake", "backend": "fake", "deployment": face},
            {"name": "espeak-ng", "backend": "espeak-ng", "deployment": {"synthesizer": given}},
        ],
        "gateway": {"num_replicas": 2, **given, "deadline_s": DEADLINE_S},
        "media": {"fetch_timeout_s": DEADLINE_S, "allow_networks": ["127.0.0.0/8"]},
        "store": {"replicas": given},
    }


async def test_a_change_of_the_config_costs_no_request(
    cluster: Cluster,
    slow_picture: SlowPicture,
    replicas: Replicas,
    record_property: Callable[[str, object], None],
) -> None:
    cluster.deploy(settings(num_cpus=0.1))
    assert [answer.status_code for answer in readiness(cluster.url, cluster.process, cluster.log)][-1] == 200
    first = replicas(cluster.process.pid)

    def left() -> set[str]:
        return {name for pid, name in replicas(cluster.process.pid).items() if pid in first}

    def successors() -> list[str]:
        return sorted(name for pid, name in replicas(cluster.process.pid).items() if pid not in first)

    sentences = 200
    text = {"model": "espeak-ng", "input": "A slow listener hears it. " * sentences, "stream": True}
    picture = {"model": "fake", "img": slow_picture.url}
    enrolment = Enrolment(cluster.url, count(1), clients=4)
    async with (
        httpx.AsyncClient(base_url=cluster.url, timeout=2 * DEADLINE_S, trust_env=False) as client,
        asyncio.timeout(REPLACED_S),
        asyncio.TaskGroup() as tasks,
    ):
        async with enrolment.running():
            await enrolment.more(20)
            embedding = tasks.create_task(client.post("/v1/face/embed", json=picture))
            await asyncio.to_thread(slow_picture.asked.wait, DEADLINE_S)
            async with client.stream("POST", "/tts", json=text) as speech:
                pieces = speech.aiter_raw()
                heard = [await anext(pieces)]
                began = time.monotonic()
                await asyncio.to_thread(cluster.deploy, settings(num_cpus=0.11))
                while successors() != sorted(first.values()):
                    await enrolment.more(1)
                record_property("replaced_after_s", round(time.monotonic() - began, 1))
                await asyncio.sleep(SERVES_DEFAULT_S + 2)
                assert left() == {"Gateway"}, "what holds a request stays, and nothing else"
                heard += [piece async for piece in pieces]
        slow_picture.send.set()
        answer = await embedding
    assert answer.status_code == 200, answer.text
    assert sum(map(len, heard)) > sentences * 2 * SAMPLE_RATE, "over a second each; a cut answer is an error"
    record_property("acknowledged", len(enrolment.acknowledged))
    assert (enrolment.refused, enrolment.cut, enrolment.lost) == ([], [], [])
    with httpx.Client(base_url=cluster.url, timeout=DEADLINE_S, trust_env=False) as opened:
        assert all_registered(opened) == (enrolment.acknowledged, len(enrolment.acknowledged))
    await asyncio.to_thread(until, lambda: not left())
