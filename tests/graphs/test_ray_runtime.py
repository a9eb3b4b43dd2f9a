"""What Ray is told, checked against the installed Ray."""

import importlib.util
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from threading import Event

import pytest

from engines.errors import ConfigurationError
from graphs import ray_runtime

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


POLICIES = """
import os, subprocess, sys
from graphs import ray_runtime

os.sched_setscheduler(0, int(sys.argv[1]), os.sched_param(0))
ray_runtime.lengthen_turns()
print(os.sched_getscheduler(0), flush=True)
subprocess.run([sys.executable, "-c", "import os; print(os.sched_getscheduler(0))"], check=True)
"""
"""Prints its own policy and that of a process that it starts."""


@pytest.mark.skipif(sys.platform != "linux", reason="the policies are Linux' own")
@pytest.mark.parametrize(("given", "then"), [("SCHED_OTHER", "SCHED_BATCH"), ("SCHED_IDLE", "SCHED_IDLE")])
def test_all_processes_let_a_model_finish_its_turn(given: str, then: str) -> None:
    command = [sys.executable, "-c", POLICIES, str(getattr(os, given))]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == [str(getattr(os, then))] * 2


class SlowRay:
    """`ray.init` of a machine where the first starts take too long; each leaves a process behind."""

    def __init__(self, late: int, *, error: str = f"The current node {ray_runtime.LATE}.") -> None:
        self.left: list[subprocess.Popen[bytes]] = []
        self._late = late
        self._error = error

    def init(self, *, _temp_dir: str, **_: object) -> None:
        if len(self.left) < self._late:
            script = "import time; print('here', flush=True); time.sleep(60)"
            command = [sys.executable, "-c", script, _temp_dir]
            process = subprocess.Popen(command, stdout=subprocess.PIPE)
            self.left.append(process)
            # Linux lets a parent go on a moment before a new program's arguments can be read.
            assert process.stdout is not None
            with process.stdout as said:
                assert said.readline() == b"here\n"
            raise Exception(self._error)


def test_the_installed_ray_says_so_when_its_processes_are_late() -> None:
    spec = importlib.util.find_spec("ray._private.node")
    assert spec is not None
    assert spec.origin is not None
    assert ray_runtime.LATE in Path(spec.origin).read_text()


def test_a_ray_whose_processes_are_late_is_started_again(tmp_path: Path) -> None:
    ray, told = SlowRay(late=2), list[str]()
    ray_runtime.start(ray.init, directory=tmp_path, tell=told.append)
    assert [process.wait(10) for process in ray.left] == [-signal.SIGKILL] * 2
    assert len(told) == 2


def test_a_ray_that_is_late_each_time_is_given_up(tmp_path: Path) -> None:
    ray = SlowRay(late=ray_runtime.STARTS)
    with pytest.raises(ConfigurationError, match="did not start within 30 s, in 3 tries"):
        ray_runtime.start(ray.init, directory=tmp_path, tell=print)
    assert [process.wait(10) for process in ray.left] == [-signal.SIGKILL] * 3


def test_other_errors_of_ray_are_its_own(tmp_path: Path) -> None:
    ray = SlowRay(late=1, error="no memory")
    with pytest.raises(Exception, match="no memory"):
        ray_runtime.start(ray.init, directory=tmp_path, tell=print)
    (left,) = ray.left
    left.kill()
    assert left.wait() == -signal.SIGKILL


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


def test_a_token_of_another_user_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "auth_token"
    path.write_text("kept")
    path.chmod(0o444)
    monkeypatch.setattr(os, "getuid", lambda: path.stat().st_uid + 1)

    assert ray_runtime.protect_token(path).read_text() == "kept"
    assert stat.S_IMODE(path.stat().st_mode) == 0o444


def test_a_token_that_cannot_be_kept_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    with pytest.raises(ConfigurationError, match="auth_token: Ray's token cannot be kept there: "):
        ray_runtime.protect_token(tmp_path / "file" / "auth_token")


def test_tokens_differ(tmp_path: Path) -> None:
    first = ray_runtime.protect_token(tmp_path / "first").read_text()
    assert ray_runtime.protect_token(tmp_path / "second").read_text() != first


def test_the_token_lies_in_the_home_directory_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ray_runtime.protect_token() == tmp_path / ".ray" / "auth_token"


class Node:
    """Ray's own object of a machine. dead: processes that have ended; looked: somebody asked for them."""

    def __init__(self) -> None:
        self.dead: list[object] = []
        self.looked = Event()

    def dead_processes(self) -> list[object]:
        self.looked.set()
        return self.dead


def test_an_answer_of_a_ray_that_has_ended_is_not_waited_for() -> None:
    node, asked, answer = Node(), Event(), Event()

    def ends() -> None:
        node.dead.append("raylet")
        asked.set()
        answer.wait(60)

    ray_runtime.while_it_lives(node, ends)
    assert asked.is_set()
    answer.set()


def test_an_answer_of_a_ray_that_lives_is_waited_for() -> None:
    node, done = Node(), Event()

    def takes_its_time() -> None:
        if node.looked.wait(60):
            done.set()

    ray_runtime.while_it_lives(node, takes_its_time)
    assert done.is_set()
