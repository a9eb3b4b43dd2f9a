"""What `presence serve` tells Ray before it starts on this machine alone.

`environment()` returns variables that must be set before `ray` is imported, `start()` calls `ray.init`,
`protect_token()` writes the token that Ray asks of every call between its processes, and `lengthen_turns()`
keeps these from interrupting the models.
What listens after that, and what protects it, is the table in docs/ports.md.
"""

import os
import random
import secrets
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped] # it ships without types

from engines.errors import ConfigurationError

MAX_DIRECTORY_LENGTH = 38
"""Longest private directory: HAProxy appends the node's 56 digits, and a Unix socket path holds 97 bytes."""

MAX_MESSAGE_BYTES = 64 * 2**20
"""Largest call between replicas: a request body of 15 MiB and its envelope, with room for larger settings."""

OBJECT_STORE_BYTES = 256 * 2**20
"""Shared memory for values passed by reference. Calls between replicas go by value, so it is hardly used."""


STARTS = 3
"""How often Ray is started before `presence serve` gives up."""

LATE = "timed out during startup"
"""What Ray says, in an error of no type of its own, when its processes are not there after 30 s."""

OWN_PORTS = range(30_100, 32_768)
"""Of HAProxy: above those of gateway replicas, below those that Linux hands out to whoever wants any."""


def environment(*, port: int, directory: Path) -> dict[str, str]:
    """Variables to set before Ray is imported.

    Args:
        port: port of the HTTP front.
        directory: private directory of this run (mode 0700); everything that HAProxy writes lies in it.

    Raises:
        ConfigurationError: the directory's path is too long for HAProxy's Unix sockets.
    """
    if len(str(directory)) > MAX_DIRECTORY_LENGTH:
        raise ConfigurationError(
            f"{directory}: the path of the run's directory has more than {MAX_DIRECTORY_LENGTH} characters; "
            "set TMPDIR to a shorter one"
        )
    return _ray() | _serve(port) | _haproxy(directory)


def _ray() -> dict[str, str]:
    return {
        # One machine: Ray's own servers (GCS, raylet, workers, agents) bind to 127.0.0.1. The switch was
        # made for other systems; on Linux too it is the only one, as ray.init resolves loopback away.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # Every call between Ray's processes carries the token. The default; named, it needs no warning.
        "RAY_AUTH_MODE": "token",
        # Nothing is reported to anyone.
        "RAY_USAGE_STATS_ENABLED": "0",
        # Replicas answer requests: no lower priority than the rest of the machine (default 15).
        "RAY_worker_niceness": "0",
    }


def _serve(port: int) -> dict[str, str]:
    # A port that a stopped replica freed must not be taken by another service while HAProxy still lists it.
    lowest = 20_000 + 100 * (port % 100)
    return {
        # The front is HAProxy, which talks to gateway replicas directly; replicas call each other by gRPC.
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        # On a busy machine the front starts in more than the usual 5 s, and the service would not start.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
        # A replica whose health check failed three times is not waited for: its successor needs the GPU.
        "RAY_SERVE_FORCE_STOP_UNHEALTHY_REPLICAS": "1",
        # An older HAProxy keeps its connections as long as a text may be spoken, and some (default 120).
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "330",
        # What is logged is in the file at once; "optimized" keeps a thousand lines back.
        "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",
        # Who governs looks four times a second, not ten: half of what it takes while nobody asks.
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.25",
        # Replicas add their counts up for a second, not for 0.1 s: a quarter of what one that rests takes.
        "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "1000",
        # A picture from the gateway to a detector is larger than gRPC's default of 4 MiB.
        "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(MAX_MESSAGE_BYTES),
        # Ports of the gateway replicas behind HAProxy.
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(lowest),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(lowest + 100),
        # A replica that stops lets requests in flight end, but needs no 30 s for distant load balancers.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    }


def _haproxy(directory: Path) -> dict[str, str]:
    fallback, statistics, metrics = free_ports(OWN_PORTS, 3)
    return {
        # Statistics, metrics and the administration socket stay private (graphs/haproxy.py).
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(Path(sys.executable).with_name("presence-haproxy")),
        # Free ports rather than fixed ones, so that two services can run on one machine.
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(statistics),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        # Names of one letter: Unix socket paths are short.
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(directory / "a"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(directory / "m"),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(directory / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(directory),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(directory / "state"),
        # Access log of HAProxy: to a socket that nobody reads. The default opens a UDP port for syslog.
        "RAY_SERVE_HAPROXY_LOG_TARGET": str(directory / "l"),
    }


def free_ports(among: range, count: int) -> list[int]:
    """Distinct ports of 127.0.0.1 that are free now, any of these."""
    return list(islice(filter(_is_free, random.sample(among, len(among))), count))


def _is_free(port: int) -> bool:
    with socket.socket() as server:
        try:
            server.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def init_options(*, directory: Path) -> dict[str, Any]:
    """Arguments of `ray.init` for a Ray of this process, on this machine alone.

    Args:
        directory: private directory of this run; Ray's sockets, logs and spilled objects lie in it.
    """
    return {
        "address": "local",  # a new Ray, whatever RAY_ADDRESS says
        "include_dashboard": False,  # a web page and a job server that nobody here asks for
        "log_to_driver": False,  # logs of the replicas stay in files
        "logging_level": "WARNING",
        "object_store_memory": OBJECT_STORE_BYTES,
        "_temp_dir": str(directory / "r"),
    }


def lengthen_turns() -> None:
    """Has this process and all that it starts scheduled as SCHED_BATCH, unless it has a policy of its own.

    Ray's threads wake a thousand times a second, and more. By the usual policy, SCHED_OTHER, one that wakes
    interrupts a model where every core computes; by this one it waits for the scheduler's next tick, at most
    10 ms. An idle core takes it at once by either.
    Source: https://man7.org/linux/man-pages/man7/sched.7.html
    """
    if sys.platform == "linux" and os.sched_getscheduler(0) == os.SCHED_OTHER:
        with suppress(PermissionError):  # of a sandbox
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def start(init: Callable[..., object], *, directory: Path, tell: Callable[[str], object]) -> None:
    """Starts a Ray of this process; again where its processes took longer than the 30 s that it waits.

    Args:
        init: `ray.init`.
        directory: private directory of this run.
        tell: gets a line for people when it starts again.

    Raises:
        ConfigurationError: they took longer each time.
    """
    for tries_left in reversed(range(STARTS)):
        try:
            init(**init_options(directory=directory))
            return
        except Exception as error:
            if LATE in str(error):
                _end_processes(directory)
                if tries_left:
                    tell("Ray did not start within 30 s, and is started again: the machine is busy")
                    continue
                raise ConfigurationError(f"Ray did not start within 30 s, in {STARTS} tries") from None
            raise


def _end_processes(directory: Path) -> None:
    """Ends what a Ray of that directory started below this process and left there."""
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if any(str(directory) in argument for argument in child.cmdline()):
                child.kill()


def end_monitors(node: Any) -> None:
    """Ends two of Ray's processes that have nothing to do on one machine; `ray.init` cannot leave them out.

    One forwards logs to the process that started Ray, which asks for none, and reads every file all the time;
    the other would ask a cloud for more machines.

    Args:
        node: Ray's own object of this machine.
    """
    node.kill_log_monitor(check_alive=False)
    node.kill_monitor(check_alive=False)


def while_it_lives(node: Any, call: Callable[[], object]) -> None:
    """Calls it, and waits for its end or for that of a process of Ray: then no answer would come.

    Whoever ends a group of processes, as `timeout` and systemd do, ends Ray's too.

    Args:
        node: Ray's own object of this machine.
        call: asks Ray for something.
    """
    running = threading.Thread(target=call, daemon=True)
    running.start()
    while running.is_alive() and not node.dead_processes():
        running.join(0.1)


def protect_token(path: Path | None = None) -> Path:
    """The file of Ray's token, readable by its owner only; written here if there is none.

    Ray itself would write it readable by every user of the machine. An existing token is kept, as other
    Rays of this user may run with it.

    Args:
        path: the file, when RAY_AUTH_TOKEN_PATH names one; else ~/.ray/auth_token. One of another user stays
            as it is.

    Raises:
        ConfigurationError: the file cannot be written or made private.
    """
    path = path or Path.home() / ".ray" / "auth_token"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            there = path.stat()
            if there.st_uid == os.getuid() and there.st_mode & 0o077:
                path.chmod(0o600)
            return path
    except OSError as error:
        raise ConfigurationError(f"{path}: Ray's token cannot be kept there: {error.strerror}") from None
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_hex(32))
    return path
