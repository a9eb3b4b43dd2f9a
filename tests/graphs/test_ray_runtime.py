"""What Ray is told, checked against the installed Ray and a real HAProxy."""

import importlib.util
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped]  # ships no types
import pytest

from engines.errors import ConfigurationError
from graphs import haproxy_loopback, ray_runtime

ASK_RAY = """
import json
from ray._private import ray_constants
from ray._raylet import AuthenticationTokenLoader, AuthenticationMode, get_authentication_mode
from ray.serve._private import constants
print(json.dumps({
    "cluster": ray_constants.ENABLE_RAY_CLUSTER,
    "token mode": get_authentication_mode() == AuthenticationMode.TOKEN,
    "header": AuthenticationTokenLoader.instance().get_token_for_http_header(),
    **{name: value for name, value in vars(constants).items() if isinstance(value, (str, int, float))},
}))
"""


@pytest.fixture
def directory() -> Path:
    """A short path; nothing is written to it."""
    return Path("/run/presence")


@pytest.fixture
def longest_directory() -> Iterator[Path]:
    """A directory whose path is as long as is allowed."""
    with tempfile.TemporaryDirectory(prefix="p") as parent:
        padding = ray_runtime.MAX_DIRECTORY_LENGTH - len(parent) - 1
        if padding < 1:
            pytest.skip("TMPDIR is longer than the run's directory may be")
        path = Path(parent) / ("d" * padding)
        path.mkdir()
        yield path


def test_the_installed_ray_reads_what_it_is_told(directory: Path, tmp_path: Path) -> None:
    told = ray_runtime.environment(port=8080, directory=directory)
    token = ray_runtime.protect_token(tmp_path / "token")
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ASK_RAY],
        env=os.environ | told | {"RAY_AUTH_TOKEN_PATH": str(token)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    ray = json.loads(answer)

    assert ray["cluster"] is False
    assert ray["token mode"] is True
    assert token.read_text() in str(ray["header"])
    assert ray["RAY_SERVE_USE_GRPC_BY_DEFAULT"] is True
    serve = {name: value for name, value in told.items() if name.startswith("RAY_SERVE_")}
    # Some of Serve's constants lack the prefix of their variable.
    read = {name: ray.get(name, ray.get(name.removeprefix("RAY_SERVE_"))) for name in serve}
    assert read == {name: _typed(value, like=read[name]) for name, value in serve.items()}


def _typed(value: str, *, like: object) -> object:
    if isinstance(like, bool):
        return value == "1"
    return type(like)(value) if isinstance(like, int | float) else value


def test_everything_haproxy_writes_lies_in_the_private_directory(directory: Path) -> None:
    told = ray_runtime.environment(port=8080, directory=directory)

    paths = {
        name: value
        for name, value in told.items()
        if "HAPROXY" in name and "/" in value and "BINARY" not in name
    }
    assert len(paths) == 6
    assert all(Path(value).is_relative_to(directory) for value in paths.values()), paths


def test_ports_are_free_and_distinct(directory: Path) -> None:
    told = ray_runtime.environment(port=8080, directory=directory)

    ports = {
        int(told[name])
        for name in (
            "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT",
            "RAY_SERVE_HAPROXY_STATS_PORT",
            "RAY_SERVE_HAPROXY_METRICS_PORT",
        )
    }
    assert len(ports) == 3
    assert ports <= set(range(30_100, 32_768)), "Linux hands none of these out unasked"
    for port in ports:
        with socket.socket() as server:
            server.bind(("127.0.0.1", port))


def test_services_on_neighbouring_ports_share_no_replica_ports(directory: Path) -> None:
    ranges = []
    for port in (8080, 8081):
        told = ray_runtime.environment(port=port, directory=directory)
        lowest = int(told["RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT"])
        ranges.append(set(range(lowest, int(told["RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT"]))))

    assert len(ranges[0]) == 100
    assert not ranges[0] & ranges[1]


def test_authentication_is_never_off(directory: Path) -> None:
    assert ray_runtime.environment(port=8080, directory=directory)["RAY_AUTH_MODE"] == "token"


def test_a_directory_too_long_for_sockets_is_refused_with_the_remedy(longest_directory: Path) -> None:
    ray_runtime.environment(port=8080, directory=longest_directory)
    with pytest.raises(ConfigurationError, match="TMPDIR"):
        ray_runtime.environment(port=8080, directory=Path(f"{longest_directory}d"))


def test_init_options_keep_ray_to_this_machine_and_directory(directory: Path) -> None:
    options = ray_runtime.init_options(directory=directory)

    assert options["address"] == "local"
    assert options["include_dashboard"] is False
    assert Path(options["_temp_dir"]).is_relative_to(directory)


def test_a_new_token_is_private(tmp_path: Path) -> None:
    path = ray_runtime.protect_token(tmp_path / "new" / "auth_token")

    assert re.fullmatch("[0-9a-f]{64}", path.read_text())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_an_existing_token_is_kept_and_made_private(tmp_path: Path) -> None:
    path = tmp_path / "auth_token"
    path.write_text("kept")
    path.chmod(0o644)

    ray_runtime.protect_token(path)

    assert path.read_text() == "kept"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_tokens_differ(tmp_path: Path) -> None:
    first = ray_runtime.protect_token(tmp_path / "first").read_text()
    assert ray_runtime.protect_token(tmp_path / "second").read_text() != first


def test_the_token_lies_in_the_home_directory_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ray_runtime.protect_token() == tmp_path / ".ray" / "auth_token"


def test_no_bind_of_serves_own_template_stays_open() -> None:
    spec = importlib.util.find_spec("ray")
    assert spec is not None
    assert spec.origin is not None
    template = (Path(spec.origin).parent / "serve" / "_private" / "haproxy_templates.py").read_text()
    config = re.sub(r"\{\{ config\.\w*port \}\}", "1234", template)
    config = re.sub(r"\{\{ config\.\w*host \}\}", "192.0.2.7", config)
    config = config.replace("{{ config.socket_path }}", "/run/presence/a")

    private = haproxy_loopback.on_loopback(config)

    binds = re.findall(r"^\s*bind (\S+):1234", private, re.MULTILINE)
    assert binds == ["127.0.0.1", "192.0.2.7", "192.0.2.7", "127.0.0.1"]
    assert re.findall(r"stats socket (\S+) mode (\d+)", private) == [("/run/presence/a", "600")]
    assert "option splice-request" in config
    assert "option splice-request" not in private


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("  bind *:8404", "  bind 127.0.0.1:8404"),
        ("    bind :9101", "    bind 127.0.0.1:9101"),
        ("    bind 0.0.0.0:9101", "    bind 127.0.0.1:9101"),
        ("    bind [::]:9101", "    bind 127.0.0.1:9101"),
    ],
)
def test_binds_without_an_address_go_to_loopback(line: str, expected: str) -> None:
    assert haproxy_loopback.on_loopback(f"listen stats\n{line}\n") == f"listen stats\n{expected}\n"


@pytest.mark.parametrize("line", ["    bind 127.0.0.1:8080", "    bind 192.0.2.7:8080", "# bind *:80"])
def test_other_lines_stay(line: str) -> None:
    assert haproxy_loopback.on_loopback(line) == line


@dataclass(frozen=True)
class Setup:
    """A configuration as Serve writes it, and what HAProxy will open."""

    config: Path
    admin: Path
    statistics: int
    metrics: int


@pytest.fixture
def written(longest_directory: Path) -> Setup:
    statistics, metrics = ray_runtime.free_ports(ray_runtime.OWN_PORTS, 2)
    node = longest_directory / ("0" * 56)
    node.mkdir()
    made = Setup(node / "haproxy.cfg", node / "a", statistics, metrics)
    made.config.write_text(
        f"global\n    stats socket {made.admin} mode 666 level admin\n"
        "defaults\n    mode http\n    timeout connect 1s\n    timeout client 1s\n    timeout server 1s\n"
        f"frontend prometheus\n    bind :{metrics}\n"
        f"listen stats\n  bind *:{statistics}\n  stats enable\n"
    )
    return made


def test_haproxy_itself_listens_on_loopback_only(written: Setup) -> None:
    """The real HAProxy in the longest directory; as a daemon (-D) it returns when its sockets listen."""
    pid_file = written.config.with_name("pid")

    subprocess.run(
        [
            sys.executable,
            "-m",
            "graphs.haproxy_loopback",
            "-D",
            "-p",
            str(pid_file),
            "-f",
            str(written.config),
        ],
        check=True,
    )

    pid = int(pid_file.read_text())
    try:
        listening = {tuple(item.laddr) for item in psutil.Process(pid).net_connections("inet")}
        mode = stat.S_IMODE(written.admin.stat().st_mode)
    finally:
        os.kill(pid, signal.SIGTERM)
    assert listening == {("127.0.0.1", written.statistics), ("127.0.0.1", written.metrics)}
    assert mode == 0o600


def test_haproxy_ends_with_the_process_that_started_it(written: Setup) -> None:
    shim = [sys.executable, "-m", "graphs.haproxy_loopback", "-db", "-f", str(written.config)]
    script = f"import subprocess; p = subprocess.Popen({shim!r}); print(p.pid, flush=True); p.wait()"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        haproxy = psutil.Process(int(parent.stdout.readline()))
        while not written.admin.exists():  # its socket appears after it became HAProxy, or never
            assert haproxy.status() != psutil.STATUS_ZOMBIE
        parent.kill()

    haproxy.wait(timeout=30)


def test_haproxy_gets_its_other_arguments_unchanged() -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "graphs.haproxy_loopback", "-v"], capture_output=True, text=True, check=True
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
    arguments = ["-m", "graphs.haproxy_loopback", "-D", "-p", str(pid_file), "-f", str(written.config)]
    subprocess.run([sys.executable, *arguments], check=True)
    try:
        answer = httpx.get(f"http://127.0.0.1:{front}/v1/models", trust_env=False, timeout=20)
    finally:
        os.kill(int(pid_file.read_text()), signal.SIGTERM)
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["error"]["code"] == 503
