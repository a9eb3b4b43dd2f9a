"""What the service listens on with its defaults, and what another machine can do with it."""

import ipaddress
import json
import re
import secrets
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

import psutil  # type: ignore[import-untyped]  # ships no types
import pytest

from tests.other_machine import OtherMachine, other_machine

pytestmark = pytest.mark.service

PORTS_PAGE = Path(__file__).resolve().parents[2] / "docs" / "ports.md"

PROBE = """
import json, socket, sys
import grpc

host, token, *ports = sys.argv[1:]
METHODS = ["HandleRequest", "HandleRequestStreaming", "HandleRequestWithRejection",
           "HandleRequestWithRejectionStreaming"]

def status(port, method, metadata):
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        call = channel.unary_stream(f"/ray.serve.ASGIService/{method}")
        try:
            list(call(b"", timeout=10, metadata=metadata))
        except grpc.RpcError as error:
            return error.code().name
    return "OK"

def seen(port):
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError as error:
        return {"closed": str(error)}
    return {
        "without": [status(port, method, ()) for method in METHODS],
        "wrong": status(port, METHODS[0], (("authorization", "Bearer wrong"),)),
        "right": status(port, METHODS[0], (("authorization", f"Bearer {token}"),)),
    }

print(json.dumps({port: seen(int(port)) for port in ports}))
"""

ASK = """
import sys
import httpx

url, key = sys.argv[1:]
answer = httpx.get(url, headers={"Authorization": f"Bearer {key}"}, timeout=30, trust_env=False)
print(answer.status_code, answer.text)
"""


class Service(Protocol):
    """The running service, as the fixture describes it."""

    url: str
    port: int
    pid: int


class Listener(NamedTuple):
    """One listening socket."""

    process: str
    port: int
    on_loopback: bool
    kind: socket.SocketKind


class Row(NamedTuple):
    """One line of the documented table."""

    process: str
    interface: str


@pytest.fixture
def listeners(default_service: Service) -> list[Listener]:
    return listening(default_service)


def listening(service: Service) -> list[Listener]:
    """Every TCP socket that listens and every UDP socket, of the command and all that it started."""
    command = psutil.Process(service.pid)
    children = command.children(recursive=True)
    names = {child.pid: name for child in children if (name := _name(child))}
    names[command.pid] = "presence serve"
    return [
        Listener(names[item.pid], item.laddr.port, _is_loopback(item.laddr.ip), item.type)
        for item in psutil.net_connections("inet")
        if item.pid in names and (item.status == psutil.CONN_LISTEN or item.type == socket.SOCK_DGRAM)
    ]


def _name(process: psutil.Process) -> str:
    """`ray::ServeReplica` of ray::ServeReplica:app:name, `monitor.py` of a script, else the executable.

    "" for a process that has just ended.
    """
    try:
        words: list[str] = [word for word in process.cmdline() if word]
    except psutil.NoSuchProcess:
        words = []
    if not words:
        return ""
    if title := re.match(r"ray::\w+", words[0]):
        return title[0]
    scripts = [word for word in words if word.endswith(".py")]
    return Path((scripts or words)[0]).name


def _is_loopback(text: str) -> bool:
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address):
        return (address.ipv4_mapped or address).is_loopback
    return address.is_loopback


@pytest.fixture(scope="module")
def documented() -> set[Row]:
    """The rows of the first table of docs/ports.md."""
    lines = PORTS_PAGE.read_text(encoding="utf-8").partition("## A cluster")[0].splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| `")]
    return {Row(row[0].strip("`"), row[2]) for row in cells}


@pytest.fixture
def outside() -> Iterator[OtherMachine]:
    with other_machine() as other:
        yield other


def test_every_listener_is_documented_with_its_interface(
    listeners: list[Listener], documented: set[Row]
) -> None:
    found = {Row(item.process, "loopback" if item.on_loopback else "all") for item in listeners}

    assert found <= documented


def test_the_listing_sees_the_front_and_the_replicas(
    listeners: list[Listener], default_service: Service
) -> None:
    front = [item for item in listeners if item.port == default_service.port]

    assert [(item.process, item.on_loopback) for item in front] == [("haproxy", True)]
    assert {"gcs_server", "raylet", "ray::ServeReplica", "ray::ServeController"} <= {
        item.process for item in listeners
    }


def test_no_udp_port_is_open(listeners: list[Listener]) -> None:
    assert not [item for item in listeners if item.kind == socket.SOCK_DGRAM and not item.on_loopback]


def test_from_outside_nothing_answers_without_the_token(
    listeners: list[Listener], default_service: Service, outside: OtherMachine
) -> None:
    ports = sorted({item.port for item in listeners})
    everywhere = {item.port for item in listeners if not item.on_loopback}

    seen = _probe(outside, _token(default_service.pid), ports)

    assert {port for port, answer in seen.items() if "closed" not in answer} == everywhere
    assert everywhere, "replicas call each other by gRPC, so at least their ports are reachable"
    for port in everywhere:
        assert seen[port]["without"] == ["UNAUTHENTICATED"] * 4
        assert seen[port]["wrong"] == "UNAUTHENTICATED"
        assert seen[port]["right"] not in {"UNAUTHENTICATED", "UNIMPLEMENTED", "UNAVAILABLE"}


def test_at_another_address_the_front_alone_listens(
    serve_with: Callable[..., AbstractContextManager[Service]], outside: OtherMachine, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o644)
    environment = {"RAY_AUTH_TOKEN_PATH": str(token), "PRESENCE_API_KEYS": "wanted"}
    arguments = {"models": [{"name": "fake", "backend": "fake"}], "store": {"directory": str(tmp_path)}}
    with serve_with(arguments, host=outside.here, env=environment) as own:
        (front,) = (item for item in listening(own) if item.port == own.port)
        assert (front.process, front.on_loopback) == ("haproxy", False)
        open_here = {Row(item.process, "all") for item in listening(own) if not item.on_loopback}
        assert open_here == {Row("haproxy", "all"), Row("ray::ServeReplica", "all")}
        assert stat.S_IMODE(token.stat().st_mode) == 0o600

        url = f"{own.url}/v1/models"
        assert _asked(outside, url, "wrong")[0] == 401
        status, body = _asked(outside, url, "wanted")
        assert (status, [model["id"] for model in json.loads(body)["data"]]) == (200, ["fake"])


def test_the_probe_can_reach_this_machine(outside: OtherMachine) -> None:
    """Without it, closed ports could as well mean a broken cable."""
    with socket.create_server((outside.here, 0)) as server:
        port = int(server.getsockname()[1])
        connect = f"import socket; socket.create_connection(('{outside.here}', {port}), timeout=5)"
        subprocess.run(outside.command(sys.executable, "-c", connect), check=True)


def _probe(other: OtherMachine, token: str, ports: list[int]) -> dict[int, dict[str, list[str] | str]]:
    """What each port of this machine answers to a caller on the other."""
    answer = subprocess.run(
        other.command(sys.executable, "-", other.here, token, *map(str, ports)),
        input=PROBE,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return {int(port): seen for port, seen in json.loads(answer).items()}


def _asked(other: OtherMachine, url: str, key: str) -> tuple[int, str]:
    """Status and body that a caller on the other machine gets."""
    words = (sys.executable, "-c", ASK, url, key)
    told = subprocess.run(other.command(*words), capture_output=True, text=True, check=True).stdout
    status, _, body = told.partition(" ")
    return int(status), body


def _token(pid: int) -> str:
    """The token of the Ray that the process started."""
    told = psutil.Process(pid).environ()
    path = told.get("RAY_AUTH_TOKEN_PATH") or Path(told["HOME"]) / ".ray" / "auth_token"
    return Path(path).read_text(encoding="ascii").strip()
