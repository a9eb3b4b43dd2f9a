"""A picture that a request waits for, as long as a test wants."""

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.service.enrolling import PICTURES

HELD_S = 250
"""At most."""


@dataclass(frozen=True)
class SlowPicture:
    """A picture whose server waits for the event `send`; asked: it has been asked for.

    The service must allow the network 127.0.0.0/8.
    """

    url: str
    asked: threading.Event
    send: threading.Event


@contextmanager
def serving_slowly() -> Iterator[SlowPicture]:
    asked, send = threading.Event(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.set()
            send.wait(HELD_S)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(base64.b64decode(PICTURES[0]))

        def handle(self) -> None:
            with suppress(ConnectionError):  # whoever asked may have gone
                super().handle()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield SlowPicture(f"http://127.0.0.1:{server.server_port}/picture.png", asked, send)
        finally:
            send.set()
            server.shutdown()
            thread.join()
