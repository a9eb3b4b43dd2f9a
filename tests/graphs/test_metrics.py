"""The expositions of several nodes: asked for, and merged."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import ray

from engines.errors import Busy
from graphs.metrics import merge, scrape

ONE = """# HELP ray_presence_items Items
# TYPE ray_presence_items counter
ray_presence_items{node="a"} 3
# HELP ray_only_a x
# TYPE ray_only_a gauge
ray_only_a 1
"""
TWO = """# HELP ray_presence_items Items
# TYPE ray_presence_items counter
ray_presence_items{node="b"} 4
"""


def test_each_family_is_described_once_with_all_its_samples() -> None:
    merged = merge([ONE, "", TWO]).splitlines()
    assert merged == [
        "# HELP ray_presence_items Items",
        "# TYPE ray_presence_items counter",
        'ray_presence_items{node="a"} 3',
        'ray_presence_items{node="b"} 4',
        "# HELP ray_only_a x",
        "# TYPE ray_only_a gauge",
        "ray_only_a 1",
    ]


def test_nothing_to_merge_is_empty() -> None:
    assert merge([]) == ""


class Exporter(BaseHTTPRequestHandler):
    """Of one node; `told` of its server is what it tells, None for a failure."""

    def do_GET(self) -> None:
        told: str | None = self.server.told  # type: ignore[attr-defined] # of the server below
        self.send_response(200 if told and self.path == "/metrics" else 500)
        self.end_headers()
        self.wfile.write((told or "").encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """Nodes as Ray lists them, with the exporters of the first two."""
    listed: list[dict[str, Any]] = []
    monkeypatch.setattr(ray, "nodes", lambda: listed)
    with HTTPServer(("127.0.0.1", 0), Exporter) as one, HTTPServer(("127.0.0.1", 0), Exporter) as two:
        threads = [
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            for server in (one, two)
        ]
        for server, text, thread in zip((one, two), (ONE, TWO), threads, strict=True):
            server.told = text  # type: ignore[attr-defined] # see Exporter
            listed.append(node(server.server_port))
            thread.start()
        listed[0]["server"] = one
        yield listed
        for server, thread in zip((one, two), threads, strict=True):
            server.shutdown()
            thread.join()


def node(port: int | None, *, alive: bool = True) -> dict[str, Any]:
    return {"NodeManagerAddress": "127.0.0.1", "MetricsExportPort": port, "Alive": alive}


async def test_every_living_node_is_asked(nodes: list[dict[str, Any]]) -> None:
    nodes += [node(9, alive=False), node(None)]
    assert await scrape() == merge([ONE, TWO])


async def test_a_node_that_tells_nothing_is_left_out(nodes: list[dict[str, Any]]) -> None:
    nodes[0]["server"].told = None
    nodes.append(node(9))
    assert await scrape() == merge([TWO])


@pytest.mark.parametrize("listed", [[], [node(9)], [node(None)]], ids=["none", "refuses", "no exporter"])
async def test_while_no_node_tells_anything_the_client_is_asked_to_come_back(
    monkeypatch: pytest.MonkeyPatch, listed: list[dict[str, Any]]
) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: listed)
    with pytest.raises(Busy, match="no node exports metrics yet"):
        await scrape()
