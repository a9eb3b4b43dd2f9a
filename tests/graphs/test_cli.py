"""The `presence serve` command up to the point where Ray starts: what it reads and what it refuses."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from typer.testing import CliRunner, Result

from graphs import cli
from graphs.settings import AppArgs

Serve = Callable[..., Result]
ROOT = Path(__file__).resolve().parents[2]
LOCAL: dict[str, Any] = yaml.safe_load((ROOT / "config" / "local.yaml").read_text(encoding="utf-8"))


class Started:
    """What would have been run."""

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}
        self.arguments = AppArgs()

    def __call__(self, data: dict[str, Any], arguments: AppArgs) -> None:
        self.data, self.arguments = data, arguments


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    """Stands where Ray would start."""
    seen = Started()
    monkeypatch.setattr(cli, "run", seen)
    return seen


@pytest.fixture
def serve(started: Started, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Runs `presence serve` with the arguments."""
    del started
    monkeypatch.delenv("PRESENCE_API_KEYS", raising=False)
    return lambda *arguments: CliRunner().invoke(cli.main, ["serve", *map(str, arguments)])


def config(path: Path, args: object = None, **more: object) -> Path:
    """A config file: local.yaml with other arguments of the application, or other top-level keys."""
    data = {**LOCAL, **more}
    if args is not None:
        data["applications"] = [{**LOCAL["applications"][0], "args": args}]
    path.write_text(yaml.safe_dump(data))
    return path


def refused(result: Result) -> str:
    """The message of a refusal, without a traceback."""
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.startswith("error ")
    assert result.stdout == ""
    return result.stderr


def test_the_defaults_are_the_embedded_profile_on_loopback(serve: Serve, started: Started) -> None:
    result = serve()
    assert result.exit_code == 0
    assert started.data["http_options"]["host"] == "127.0.0.1"
    assert started.data["http_options"]["port"] == 8080
    assert {"dlib-resnet", "resemblyzer-ge2e"} <= {model.name for model in started.arguments.models}


@pytest.mark.parametrize("name", ["local.yaml", "config/local.yaml"])
def test_configs_of_presence_are_found_from_anywhere(
    serve: Serve, started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert serve("--config", name).exit_code == 0
    assert started.data["http_options"]["port"] == 8080


def test_a_config_of_the_working_directory_goes_before_one_of_presence(
    serve: Serve, started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config(tmp_path / "local.yaml", http_options={"host": "127.0.0.1", "port": 9999})
    assert serve("--config", "local.yaml").exit_code == 0
    assert started.data["http_options"]["port"] == 9999


@pytest.mark.parametrize("name", ["nowhere.yaml", "nowhere/local.yaml", "/nowhere/local.yaml", "."])
def test_an_unknown_config_is_named(serve: Serve, started: Started, name: str) -> None:
    assert f"{name}: not readable" in refused(serve("--config", name))
    assert started.data == {}


@pytest.mark.parametrize("given", [None, {}, {"root_path": "/api"}])
def test_where_nobody_says_the_address_it_is_of_this_machine(
    serve: Serve, started: Started, tmp_path: Path, given: dict[str, str] | None
) -> None:
    assert serve("--config", config(tmp_path / "c.yaml", http_options=given)).exit_code == 0
    assert started.data["http_options"] == {"host": "127.0.0.1", "port": 8080, **(given or {})}


def test_host_port_and_models_directory_go_before_the_config(
    serve: Serve, started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written = config(tmp_path / "c.yaml", {"models_dir": "/elsewhere"})
    result = serve("--config", written, "--host", "::1", "--port", 9000, "--models-dir", "mine")
    assert result.exit_code == 0
    assert started.data["http_options"] == {**LOCAL["http_options"], "host": "::1", "port": 9000}
    assert started.arguments.models_dir == tmp_path / "mine"


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({"gateway": {"replicas": 2}}, "c.yaml: applications.presence.args: gateway.replicas: unknown key"),
        ({"banana": 1}, "banana: unknown key; remove it or correct its spelling"),
        ({"gateway": {"deadline_s": 0}}, "gateway.deadline_s: Input should be greater than 0"),
        ({"models": [{"name": "a"}]}, "models.0.backend: Field required"),
        (
            {"models": [{"name": "a", "backend": "fake", "options": ["[x]"]}]},
            "option '[x]' is not of the form",
        ),
        ([1], "applications.presence.args"),
        ({"media": {"allow_networks": "10.0.0.0/8"}}, "allow_networks: a list is expected; write [one, two]"),
    ],
)
def test_a_wrong_argument_is_told_by_its_key(
    serve: Serve, started: Started, tmp_path: Path, args: object, told: str
) -> None:
    written = config(tmp_path / "c.yaml", args)
    for more in ([], ["--models-dir", tmp_path]):
        assert told in refused(serve("--config", written, *more))
    assert started.data == {}


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"applications": []}, "applications: missing"),
        ({"applications": 5}, "applications: one is expected, named presence"),
        ({"applications": [5]}, "applications: one is expected, named presence"),
        ({"applications": [{"name": "other"}]}, "applications: one is expected, named presence"),
        ({"applications": LOCAL["applications"] * 2}, "applications: one is expected, named presence"),
        (
            {"applications": [{**LOCAL["applications"][0], "deployments": []}]},
            "applications.deployments: say it in the `deployment` of the model",
        ),
        ({"http_options": [1]}, "http_options: a mapping is expected"),
        ({"http_options": {"host": 5, "port": 80}}, "http_options.host: 5 is no address"),
        ({"http_options": {"host": "127.0.0.1", "port": "http"}}, "http_options.port: 'http' is no number"),
        ({"http_options": {"host": "127.0.0.1", "port": 65536}}, "http_options.port: 65536 is no number"),
    ],
)
def test_a_wrong_config_is_told_by_its_key(
    serve: Serve, started: Started, tmp_path: Path, more: dict[str, object], told: str
) -> None:
    assert told in refused(serve("--config", config(tmp_path / "c.yaml", **more)))
    assert started.data == {}


@pytest.mark.parametrize("content", [b"a: [", b"\xff\xfe\x00", b"- list", b""])
def test_what_is_no_config_is_refused(serve: Serve, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.yaml").write_bytes(content)
    told = refused(serve("--config", tmp_path / "c.yaml"))
    assert "c.yaml: " in told
    assert told.count("\n") == 1


def test_arguments_may_be_left_out(serve: Serve, started: Started, tmp_path: Path) -> None:
    bare = [{"name": "presence", "import_path": "graphs.app:app", "args": None}]
    assert serve("--config", config(tmp_path / "c.yaml", applications=bare)).exit_code == 0
    assert started.arguments == AppArgs()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.org"])
def test_beyond_loopback_keys_are_needed(
    serve: Serve, started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    told = refused(serve("--host", host))
    assert f"refusing to listen on {host} without API keys" in told
    for remedy in ("gateway.api_keys_file", "PRESENCE_API_KEYS", "--insecure-public"):
        assert remedy in told
    assert started.data == {}
    assert serve("--host", host, "--insecure-public").exit_code == 0
    keyed = config(tmp_path / "c.yaml", {"gateway": {"api_keys_file": str(tmp_path / "keys")}})
    assert serve("--host", host, "--config", keyed).exit_code == 0
    monkeypatch.setenv("PRESENCE_API_KEYS", "k")
    assert serve("--host", host).exit_code == 0
    monkeypatch.setenv("PRESENCE_API_KEYS", "")
    refused(serve("--host", host))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_loopback_needs_no_keys(serve: Serve, host: str) -> None:
    assert serve("--host", host).exit_code == 0


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080"),
        ("localhost", "http://localhost:8080"),
        ("0.0.0.0", "http://127.0.0.1:8080"),
        ("::", "http://127.0.0.1:8080"),
        ("::1", "http://[::1]:8080"),
        ("fd00::5", "http://[fd00::5]:8080"),
    ],
)
def test_the_service_is_asked_for_where_it_listens(
    host: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def get(url: str, **_: object) -> httpx.Response:
        asked.append(str(httpx.URL(url)))
        return httpx.Response(200)

    monkeypatch.setattr(httpx, "get", get)
    assert cli._answers(f"{cli._url(host, 8080)}/readyz")
    assert asked == [f"{url}/readyz"]


def test_messages_are_shown_as_they_are(serve: Serve, tmp_path: Path) -> None:
    assert "[bold]c[/red].yaml" in refused(serve("--config", tmp_path / "[bold]c[/red].yaml"))


@pytest.mark.parametrize(
    "arguments", [["--port", "0"], ["--port", "65536"], ["--port", "http"], ["--workers", "2"], ["extra"]]
)
def test_wrong_usage_ends_with_2(serve: Serve, started: Started, arguments: list[str]) -> None:
    assert serve(*arguments).exit_code == 2
    assert started.data == {}


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., str]:
    """Runs the real command, which must refuse to start: its message."""

    def refusal(*arguments: str) -> str:
        ended = subprocess.run(
            [str(Path(sys.executable).parent / "presence"), "serve", *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, "HOME": str(tmp_path)},
        )
        assert ended.returncode == 1
        assert ended.stdout == ""
        assert "Traceback" not in ended.stderr
        return ended.stderr

    return refusal


def test_a_model_that_cannot_be_bound_ends_before_ray_starts(
    tmp_path: Path, command: Callable[..., str]
) -> None:
    (tmp_path / "broken.yaml").write_text("backend: fake\noptions: [banana:1]\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = command("--models-dir", str(tmp_path), "--port", str(port))
    assert told.startswith(f"error {tmp_path / 'broken.yaml'}: model broken: unknown option 'banana'")


def test_a_port_that_is_taken_is_told_before_ray_starts(command: Callable[..., str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        told = command("--port", str(port))
    assert told.startswith(f"error cannot listen on 127.0.0.1 port {port}: Address already in use")
    assert "--port" in told


def test_an_address_that_is_not_ours_is_told(command: Callable[..., str]) -> None:
    told = command("--host", "192.0.2.1", "--insecure-public")
    assert "cannot listen on 192.0.2.1 port 8080: Cannot assign requested address" in told


def test_help_lists_the_commands() -> None:
    told = CliRunner().invoke(cli.main, ["--help"])
    assert told.exit_code == 0
    assert "serve" in told.stdout
    assert "models" in told.stdout
    assert "List, install and remove models." in told.stdout
    options = CliRunner().invoke(cli.main, ["serve", "--help"]).stdout
    for option in ("--config", "--host", "--port", "--models-dir", "--insecure-public"):
        assert option in options


def test_no_command_shows_the_help() -> None:
    assert CliRunner().invoke(cli.main, []).exit_code == 2
