"""What HAProxy opens, by Serve's own configuration and with a real HAProxy."""

import importlib.util
import os
import re
import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import httpx
import psutil  # type: ignore[import-untyped]  # ships no types
import pytest
from ray.serve._private.haproxy import HAProxyConfig
from ray.serve.config import HTTPOptions

from graphs import haproxy, ray_runtime
from tests.service.slow_picture import serving_slowly


def served(host: str) -> str:
    """Serve's own template for a front at that address, all ports 1234."""
    spec = importlib.util.find_spec("ray")
    assert spec is not None
    assert spec.origin is not None
    template = (Path(spec.origin).parent / "serve" / "_private" / "haproxy_templates.py").read_text()
    config = re.sub(r"\{\{ config\.\w*port \}\}", "1234", template)
    written = HAProxyConfig(http_options=HTTPOptions(host=host)).frontend_host
    config = re.sub(r"\{\{ config\.\w*host \}\}", written, config)
    return config.replace("{{ config.socket_path }}", "/run/presence/a")


def binds(config: str) -> list[str]:
    """Addresses of metrics, front, Serve's gRPC front (which is not enabled) and statistics."""
    return re.findall(r"^\s*bind (\S+):1234", config, re.MULTILINE)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "127.0.0.1", "192.0.2.7"])
def test_statistics_and_metrics_stay_on_this_machine_wherever_the_front_is(host: str) -> None:
    before = served(host)
    front = "*" if host in ("0.0.0.0", "::") else host
    assert binds(haproxy.rewritten(before)) == ["127.0.0.1", front, front, "127.0.0.1"]


@pytest.mark.parametrize(
    ("front", "bound"), [("0.0.0.0", "0.0.0.0"), ("192.0.2.7", "192.0.2.7"), ("::", "[::]"), ("::1", "[::1]")]
)
def test_the_front_is_where_it_was_told_to_be(front: str, bound: str) -> None:
    private = haproxy.rewritten(served("127.0.0.1"), front)
    assert binds(private) == ["127.0.0.1", bound, "127.0.0.1", "127.0.0.1"]


def test_the_administration_socket_is_private_and_requests_are_not_spliced() -> None:
    before = served("127.0.0.1")
    after = haproxy.rewritten(before)
    assert re.findall(r"stats socket (\S+) mode (\d+)", after) == [("/run/presence/a", "600")]
    assert "option splice-request" in before
    assert "option splice-request" not in after
    added = "defaults\n    timeout http-request 30s\n"
    assert added in after
    assert len(before.splitlines()) - len(after.replace(added, "defaults\n").splitlines()) == 1


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("  bind *:8404", "  bind 127.0.0.1:8404"),
        ("    bind :9101", "    bind 127.0.0.1:9101"),
        ("    bind 0.0.0.0:9101", "    bind 127.0.0.1:9101"),
        ("    bind [::]:9101 v4v6", "    bind 127.0.0.1:9101 v4v6"),
    ],
)
def test_however_a_private_address_is_written(line: str, expected: str) -> None:
    assert haproxy.rewritten(f"listen stats\n{line}\n") == f"listen stats\n{expected}\n"


@pytest.mark.parametrize("line", ["frontend mine\n    bind *:8080\n", "listen stats\n# bind *:80\n"])
def test_other_lines_stay(line: str) -> None:
    assert haproxy.rewritten(line, "192.0.2.7") == line


@dataclass(frozen=True)
class Setup:
    """A configuration as Serve writes it, and what HAProxy will open."""

    config: Path
    admin: Path
    statistics: int
    metrics: int
    front: int


@pytest.fixture
def written(longest_directory: Path) -> Setup:
    statistics, metrics, front = ray_runtime.free_ports(ray_runtime.OWN_PORTS, 3)
    node = longest_directory / ("0" * 56)
    node.mkdir()
    made = Setup(node / "haproxy.cfg", node / "a", statistics, metrics, front)
    made.config.write_text(
        f"global\n    stats socket {made.admin} mode 666 level admin\n"
        "defaults\n    mode http\n    timeout connect 1s\n    timeout client 1s\n    timeout server 1s\n"
        f"frontend prometheus\n    bind :{metrics}\n"
        f"listen stats\n  bind *:{statistics}\n  stats enable\n"
        f"frontend http_frontend\n    bind *:{front}\n"
    )
    return made


def test_haproxy_itself_opens_what_it_was_told(written: Setup, longest_directory: Path) -> None:
    """The real HAProxy in the longest directory; as a daemon (-D) it returns when its sockets listen."""
    haproxy.tell_front(longest_directory, "127.0.0.2")
    pid_file = written.config.with_name("pid")
    arguments = ["-m", "graphs.haproxy", "-D", "-p", str(pid_file), "-f", str(written.config)]
    subprocess.run([sys.executable, *arguments], check=True)

    pid = int(pid_file.read_text())
    try:
        listening = {tuple(item.laddr) for item in psutil.Process(pid).net_connections("inet")}
        mode = stat.S_IMODE(written.admin.stat().st_mode)
    finally:
        os.kill(pid, signal.SIGTERM)
    private = {("127.0.0.1", written.statistics), ("127.0.0.1", written.metrics)}
    assert listening == private | {("127.0.0.2", written.front)}
    assert mode == 0o600


def test_haproxy_ends_with_the_process_that_started_it(written: Setup) -> None:
    shim = [sys.executable, "-m", "graphs.haproxy", "-db", "-f", str(written.config)]
    script = f"import subprocess; p = subprocess.Popen({shim!r}); print(p.pid, flush=True); p.wait()"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        started = psutil.Process(int(parent.stdout.readline()))
        while not written.admin.exists():  # its socket appears after it became HAProxy, or never
            assert started.status() != psutil.STATUS_ZOMBIE
        parent.kill()

    started.wait(timeout=30)


def test_haproxy_answers_what_is_in_flight_before_it_ends(written: Setup) -> None:
    with serving_slowly() as picture:
        backend = picture.url.removeprefix("http://").partition("/")[0]
        written.config.write_text(
            "defaults\n    mode http\n    timeout connect 9s\n    timeout client 99s\n"
            "    timeout server 99s\n"
            f"frontend front\n    bind 127.0.0.1:{written.front}\n    default_backend slow\n"
            f"backend slow\n    server one {backend}\n"
        )
        url = f"http://127.0.0.1:{written.front}/picture.png"
        program = [sys.executable, "-m", "graphs.haproxy", "-db", "-f", str(written.config)]
        with subprocess.Popen(program), ThreadPoolExecutor() as pool:
            asked = pool.submit(ask_until_there, url)
            assert picture.asked.wait(30)
            assert not haproxy.let_finish(os.getpid(), 0.5, Event().wait)
            with pytest.raises(httpx.ConnectError):
                httpx.get(url, trust_env=False)
            assert not haproxy.let_finish(os.getpid(), 60, lambda _: True), "nobody waits any longer"
            picture.send.set()
            assert haproxy.let_finish(os.getpid(), 30, Event().wait)
            assert asked.result().status_code == 200
    assert haproxy.let_finish(os.getpid(), 0, Event().wait), "there is none"


def ask_until_there(url: str) -> httpx.Response:
    """The answer, once something listens."""
    while True:
        try:
            return httpx.get(url, trust_env=False, timeout=60)
        except httpx.ConnectError:
            time.sleep(0.02)  # nothing announces that it listens


def test_haproxy_gets_its_other_arguments_unchanged() -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "graphs.haproxy", "-v"], capture_output=True, text=True, check=True
    )
    assert answer.stdout.startswith("HAProxy version")


def test_haproxy_without_a_gateway_answers_503_in_the_shape_of_all_errors(written: Setup) -> None:
    (front,) = ray_runtime.free_ports(ray_runtime.OWN_PORTS, 1)
    (nobody,) = ray_runtime.free_ports(ray_runtime.OWN_PORTS, 1)
    page, pid_file = written.config.with_name("500.http"), written.config.with_name("pid")
    page.write_text("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n")
    codes = "".join(f"    errorfile {code} {page}\n" for code in (502, 503, 504))
    written.config.write_text(
        "defaults\n    mode http\n    timeout connect 1s\n    timeout client 9s\n    timeout server 9s\n"
        f"{codes}"
        f"frontend front\n    bind 127.0.0.1:{front}\n    default_backend gone\n"
        f"backend gone\n    server one 127.0.0.1:{nobody}\n"
    )
    arguments = ["-m", "graphs.haproxy", "-D", "-p", str(pid_file), "-f", str(written.config)]
    subprocess.run([sys.executable, *arguments], check=True)
    try:
        answer = httpx.get(f"http://127.0.0.1:{front}/v1/models", trust_env=False, timeout=20)
    finally:
        os.kill(int(pid_file.read_text()), signal.SIGTERM)
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["error"]["code"] == 503
