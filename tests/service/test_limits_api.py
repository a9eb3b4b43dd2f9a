"""Limits over HTTP: deadlines, clients that leave or dawdle, sizes, admission, hostile bodies."""

import base64
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

pytestmark = pytest.mark.service

IN_FLIGHT = 32
MAX_BODY_BYTES = 2**20
DEADLINE_S = 2.0
EXPORT_S = 60
"""Replicas report their metrics every ten seconds or so."""

Picture = Callable[[Path], str]
Serve = Callable[[dict[str, Any]], AbstractContextManager["Service"]]


class Service(Protocol):
    """The running service, as the fixture describes it."""

    url: str
    port: int
    key: str

    def client(self, timeout_s: float = 60) -> httpx.Client: ...


class Dawdler:
    """One POST on a connection of its own, sent as far as the test wishes."""

    def __init__(self, service: Service, path: str, **body: object) -> None:
        self._body = json.dumps(body).encode()
        self._socket = socket.create_connection(("127.0.0.1", service.port), timeout=60)
        lines = (
            f"POST {path} HTTP/1.1",
            "host: localhost",
            f"x-api-key: {service.key}",
            "content-type: application/json",
            f"content-length: {len(self._body)}",
        )
        self._socket.sendall("\r\n".join((*lines, "", "")).encode())

    def send_half(self) -> None:
        half = len(self._body) // 2
        self._socket.sendall(self._body[:half])
        self._body = self._body[half:]

    def send_rest(self) -> None:
        self._socket.sendall(self._body)

    def status(self) -> int:
        """Status of the answer; waits for it."""
        return int(self._socket.recv(16).split()[1])

    def close(self) -> None:
        self._socket.close()


def metric(client: httpx.Client, name: str, **labels: str) -> float:
    """Sum over the samples of a metric that carry the labels."""
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    samples = re.findall(rf"^{name}({{.*}}) (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return sum(float(value) for tags, value in samples if all(one in tags for one in wanted))


def wait_for_metric(client: httpx.Client, least: float, name: str, **labels: str) -> float:
    """Its value once it has reached `least`; replicas report every few seconds."""
    until = time.monotonic() + EXPORT_S
    while (value := metric(client, name, **labels)) < least and time.monotonic() < until:
        time.sleep(0.5)  # nothing announces a report
    return value


def assert_error(response: httpx.Response, *statuses: int) -> None:
    assert response.status_code in statuses, response.text
    error = response.json()["error"]
    assert error["code"] == response.status_code
    assert set(error) <= {"code", "message", "type", "param"}
    assert "Traceback" not in error["message"]


@pytest.fixture(scope="module")
def heavy() -> str:
    """A plain picture just below the limit of pixels: a small file, long to decode."""
    encoded = BytesIO()
    Image.new("RGB", (7000, 7000), (127, 127, 127)).save(encoded, "png")
    return base64.b64encode(encoded.getvalue()).decode()


@pytest.fixture(scope="module")
def photograph(shared: Path, picture: Picture) -> str:
    return picture(shared / "media" / "faces" / "lfw" / "John_Kerry" / "John_Kerry_0001.jpg")


@pytest.fixture(scope="module")
def small(shared: Path, serve_with: Serve) -> Iterator[Service]:
    """A service with narrow limits, and detectors that look at one picture at a time.

    Of `narrow`, one more request may wait for the detector.
    """
    options = {
        "engine": "insightface",
        "model_pack": "mini",
        "root": str(shared / "models" / "face" / "insightface"),
        "detector_onnx": "det_500m_bnkps.onnx",
        "recognizer_onnx": "w_mobilefacenet_128d.onnx",
    }
    model = {"name": "mini", "backend": "insightface", "options": options}
    gateway = {"max_in_flight": IN_FLIGHT, "max_body_bytes": MAX_BODY_BYTES, "deadline_s": DEADLINE_S}
    one_more = {"max_batch_size": 1, "max_ongoing_requests": 1, "max_queued_requests": 1}
    models = [
        {**model, "deployment": {"detector": {"max_batch_size": 1}}},
        {**model, "name": "narrow", "deployment": {"detector": one_more}},
    ]
    with serve_with({"models": models, "gateway": gateway}) as started:
        yield started


def test_requests_past_their_deadline_get_504_and_their_work_is_dropped(
    small: Service, heavy: str, photograph: str
) -> None:
    part = {"model": "mini", "role": "detector"}
    with small.client() as client, ThreadPoolExecutor(IN_FLIGHT) as pool:
        ran = metric(client, "ray_presence_items_total", **part)
        body = {"model": "mini", "image": heavy}

        answers = list(pool.map(lambda _: client.post("/v1/detection", json=body), range(IN_FLIGHT)))

        late = [answer for answer in answers if answer.status_code != 200]
        assert len(late) > IN_FLIGHT / 2
        for answer in late:
            assert_error(answer, 504)
        assert wait_for_metric(client, IN_FLIGHT / 2, "ray_presence_items_expired_total", **part) <= IN_FLIGHT
        assert metric(client, "ray_presence_items_total", **part) - ran < IN_FLIGHT / 2
        assert client.post("/v1/face/embed", json={"model": "mini", "img": photograph}).status_code == 200


def test_work_of_clients_that_left_never_reaches_the_model(
    service: Service, heavy: str, photograph: str
) -> None:
    part = {"model": "mini", "role": "detector"}
    calls = "ray_serve_deployment_processing_latency_ms_count"
    control = {"deployment": "mini.detector", "route": "/v1/face/detect"}
    picture = {"model": "mini", "image": photograph}
    with service.client() as client, ExitStack() as stack:
        controls = metric(client, calls, **control)
        assert client.post("/v1/face/detect", json=picture).status_code == 200
        assert wait_for_metric(client, controls + 1, calls, **control) == controls + 1
        ran = metric(client, "ray_presence_items_total", **part)  # all before is reported
        busy = [Dawdler(service, "/v1/detection", model="mini", image=heavy) for _ in range(4)]
        for one in busy:
            stack.callback(one.close)
            one.send_rest()
        for _ in range(50):
            leaver = Dawdler(service, "/v1/detection", model="mini", image=photograph)
            leaver.send_rest()
            leaver.close()

        answer = client.post("/v1/face/detect", json=picture)

        assert answer.status_code == 200
        assert [one.status() for one in busy] == [200] * 4
        assert wait_for_metric(client, controls + 2, calls, **control) == controls + 2
        assert metric(client, "ray_presence_items_total", **part) - ran < 5 + 25


def test_clients_that_dawdle_block_nobody(small: Service, photograph: str) -> None:
    with small.client() as client, ExitStack() as stack:
        slow = [Dawdler(small, "/v1/face/embed", model="mini", img=photograph) for _ in range(8)]
        for one in slow:
            stack.callback(one.close)
            one.send_half()
        for _ in range(8):
            answer = client.post("/v1/face/embed", json={"model": "mini", "img": photograph})
            assert answer.status_code == 200
        for one in slow:
            one.send_rest()
            assert one.status() == 200


def test_beyond_the_requests_in_flight_the_answer_is_to_come_back(small: Service, photograph: str) -> None:
    body = {"model": "mini", "img": photograph}
    with small.client() as client, ExitStack() as stack:
        for _ in range(2 * IN_FLIGHT):
            held = Dawdler(small, "/v1/face/embed", **body)
            stack.callback(held.close)
            held.send_half()
        refused = until(503, lambda: client.post("/v1/face/embed", json=body))
        assert_error(refused, 503)
        assert int(refused.headers["retry-after"]) >= 1
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 200
        stack.close()
        assert until(200, lambda: client.post("/v1/face/embed", json=body)).status_code == 200


def test_beyond_the_queue_of_a_model_the_answer_is_to_come_back(
    small: Service, heavy: str, photograph: str
) -> None:
    body = {"model": "narrow", "image": heavy}
    with small.client() as client, ThreadPoolExecutor(IN_FLIGHT) as pool:
        answers = list(pool.map(lambda _: client.post("/v1/detection", json=body), range(IN_FLIGHT)))
        refused = [answer for answer in answers if answer.status_code == 503]
        assert len(refused) > IN_FLIGHT / 2
        for answer in refused:
            assert_error(answer, 503)
            assert answer.json()["error"]["message"] == "the model is busy; try again"
            assert int(answer.headers["retry-after"]) >= 1
        other = {"model": "narrow", "img": photograph}
        assert until(200, lambda: client.post("/v1/face/embed", json=other)).status_code == 200


def until(status: int, ask: Callable[[], httpx.Response]) -> httpx.Response:
    """The first answer with that status, or the last of a hundred."""
    for _ in range(100):
        answer = ask()
        if answer.status_code == status:
            break
    return answer


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
def test_a_body_over_the_limit_is_refused(small: Service, declared: bool) -> None:
    content = b'{"img": "' + b"A" * MAX_BODY_BYTES + b'"}'
    headers = {"content-type": "application/json"}
    with small.client() as client:
        chunks = iter([content[: MAX_BODY_BYTES // 2], content[MAX_BODY_BYTES // 2 :]])
        answer = client.post("/v1/face/embed", content=content if declared else chunks, headers=headers)
        assert_error(answer, 413)
        assert client.get("/healthz").status_code == 200


DEEP = b"[" * 100_000 + b"]" * 100_000

HOSTILE = {
    "lone surrogate in a data URI": b'{"img": "data:\\ud800,\\ud800", "img1": "data:,\\ud800", "img2": "x"}',
    "nothing": b"",
    "null": b"null",
    "list": b"[]",
    "NUL bytes": bytes(100),
    "deep list": DEEP,
    "deep mapping": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "deep field": b'{"model": "mini", "img": ' + DEEP + b"}",
    "deep unknown field": b'{"img": "aGVsbG8=", "img1": "aGVsbG8=", "img2": "aGVsbG8=", "x": ' + DEEP + b"}",
    "integer of 10,000 digits": b'{"img1": "aGVsbG8=", "img2": "aGVsbG8=", "threshold": '
    + b"9" * 10_000
    + b"}",
    "infinite": b'{"img1": "aGVsbG8=", "img2": "aGVsbG8=", "threshold": 1e999}',
    "not a number": b'{"img1": "aGVsbG8=", "img2": "aGVsbG8=", "threshold": NaN}',
    "invalid UTF-8": b'{"model": "\xff\xfe", "img": "x"}',
    "lone surrogate": b'{"model": "\\ud800", "img": "x", "img1": "x", "img2": "x"}',
    "lone surrogate in base64": b'{"img": "\\ud800", "img1": "\\ud800", "img2": "\\ud800"}',
    "lone surrogate in a URL": b'{"img": "http://\\ud800/", "img1": "http://\\ud800/", "img2": "http://a/"}',
    "NUL in a name": b'{"model": "mini\\u0000", "img": "aGVsbG8=", "img1": "aGVsbG8=", "img2": "aGVsbG8="}',
    "NUL in a URL": b'{"img": "http://a\\u0000b/", "img1": "http://a\\u0000b/", "img2": "aGVsbG8="}',
    "fields given twice": b'{"img": "aGVsbG8=", "img": 5, "img1": "aGVsbG8=", "img1": 5, "img2": "aGVsbG8="}',
    "10,000 actions": json.dumps({"img": "aGVsbG8=", "actions": ["fly"] * 10_000}).encode(),
    "10,000 known actions": json.dumps({"img": "aGVsbG8=", "actions": ["age"] * 10_000}).encode(),
    "name of a million characters": json.dumps({"model": "m" * 10**6, "img": "aGVsbG8="}).encode(),
    "ten million characters": json.dumps({"img": "!" * 10**7}).encode(),
}


@pytest.mark.parametrize("route", ["/v1/face/verify", "/v1/face/analyze", "/v1/face/embed", "/v1/detection"])
def test_hostile_bodies_are_refused(client: httpx.Client, route: str) -> None:
    for body in HOSTILE.values():
        answer = client.post(route, content=body, headers={"content-type": "application/json"})
        assert_error(answer, 400, 404, 413, 415)


@pytest.mark.parametrize(
    "content_type",
    [
        b"text/plain",
        b"multipart/form-data",
        b"multipart/form-data; boundary=x",
        b"application/xml",
        b"application/json; charset=utf-16",
        b"application/json;;;=",
        b"",
        b"\xff",
    ],
)
def test_any_content_type_is_answered(client: httpx.Client, content_type: bytes) -> None:
    body = b'{"model": "mini", "img": "aGVsbG8="}'
    assert_error(
        client.post("/v1/face/embed", content=body, headers={b"content-type": content_type}), 400, 415
    )


def test_any_method_and_path_is_answered(client: httpx.Client) -> None:
    for method, path in (
        ("TRACE", "/v1/face/embed"),
        ("PUT", "/v1/face/embed"),
        ("POST", "/v1/face/%00"),
        ("GET", "/v1/models/%ff%fe"),
        ("GET", "/v1/" + "a" * 8000),
    ):
        assert_error(client.request(method, path), 404, 405)


texts = st.text(max_size=50) | st.sampled_from(["mini", "data:,", "data:;base64,", "http://", "aGVsbG8=", ""])
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=10,
)
fields = st.sampled_from(["model", "img", "img1", "img2", "image", "threshold", "actions", "anti_spoofing"])


@settings(max_examples=100, deadline=None, database=None, derandomize=True)
@given(
    route=st.sampled_from(["/v1/face/verify", "/v1/face/analyze", "/v1/face/embed", "/v1/detection"]),
    body=st.dictionaries(fields, anything) | anything,
)
def test_whatever_the_fields_hold_is_refused(service: Service, route: str, body: object) -> None:
    with service.client() as client:
        content = json.dumps(body).encode()
        answer = client.post(route, content=content, headers={"content-type": "application/json"})
    assert_error(answer, 400, 404, 412, 415)
