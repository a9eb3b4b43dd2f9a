"""The benchmark of identify on a hundred people, beside the running default service."""

import base64
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.identify import CLIENTS, ROUTES, STORE, dimension, fill, measured, table

pytestmark = pytest.mark.service


def test_both_routes_are_measured(default_service: Any, shared: Path) -> None:
    photograph = min((shared / "media" / "faces" / "lfw" / "John_Kerry").glob("*.jpg"))
    picture = base64.b64encode(photograph.read_bytes()).decode()
    body = {"model": "dlib-resnet", "img": picture}
    dim = dimension(default_service.port, body)
    fill(default_service.log.parent / ".presence", "dlib-resnet", 100, dim)
    with default_service.client() as client:
        found = client.post("/v1/face/identify", json={**body, "store": STORE, "top_k": 100}).json()
    assert len(found["matches"]) == 100

    took = measured(default_service.port, [{**body, "store": STORE}], 0.4, 1)

    assert set(took) == {(route, clients) for route in ROUTES for clients in CLIENTS}
    assert all(one > 0 for each in took.values() for one in each)
    console = Console(width=120, record=True)
    console.print(table(took))
    shown = console.export_text()
    assert [line.split()[1] for line in shown.splitlines() if line.startswith("│")] == ["1", "16"]


def test_any_answer_but_200_is_no_figure(default_service: Any) -> None:
    with pytest.raises(RuntimeError, match="embed"):
        measured(default_service.port, [{"model": "nobody", "img": ""}], 0.1, 1)
