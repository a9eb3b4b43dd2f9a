"""What comes in at the face routes: bad input, large pictures, many faces, URLs."""

import base64
import math
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.service import test_face_api

pytestmark = pytest.mark.service

Encode = Callable[[Path], str]
VERIFY, ANALYZE, EMBED = "/v1/face/verify", "/v1/face/analyze", "/v1/face/embed"
DETECTION, DETECT = "/v1/detection", "/v1/face/detect"
FIELD = {VERIFY: "img2", ANALYZE: "img", EMBED: "img", DETECTION: "image", DETECT: "image"}
"""The field of each route that the tests vary."""


def post(client: httpx.Client, path: str, **body: object) -> dict[str, Any]:
    response = client.post(path, json={"model": "mini", **body})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def refused(client: httpx.Client, path: str, status: int, **body: object) -> dict[str, Any]:
    return test_face_api.refused(client, path, status, **{"model": "mini", **body})


@pytest.fixture(scope="module")
def images(shared: Path) -> Path:
    return shared / "media" / "images"


@pytest.fixture(scope="module")
def group(shared: Path) -> Path:
    """Six people, 1280 x 886 pixels."""
    return shared / "media" / "faces" / "groups" / "t1.jpg"


@pytest.fixture(scope="module")
def one(images: Path, picture: Encode) -> str:
    """A photograph of one person."""
    return picture(images / "broken" / "face_ok.jpg")


def asked(path: str, good: str, **varied: object) -> dict[str, object]:
    """A request that is good but for what is varied; `given` stands for the field of the route."""
    body: dict[str, object] = {FIELD[path]: good, **({"img1": good} if path == VERIFY else {})}
    if "given" in varied:
        body[FIELD[path]] = varied.pop("given")
    return {**body, **varied}


@pytest.mark.parametrize("path", FIELD)
@pytest.mark.parametrize(
    ("name", "status", "told"),
    [
        ("broken/text_as.jpg", 415, "no picture of a known format"),
        ("broken/truncated_half.jpg", 415, "damaged or truncated"),
        ("broken/truncated_header.jpg", 415, "picture"),
        ("broken/zero_bytes.jpg", 400, "empty"),
        ("broken/bomb_30000x30000.png", 413, "the limit is 50000000 pixels"),
    ],
)
def test_what_is_no_picture_is_refused_by_every_route(
    client: httpx.Client,
    picture: Encode,
    images: Path,
    one: str,
    path: str,
    name: str,
    status: int,
    told: str,
) -> None:
    error = refused(client, path, status, **asked(path, one, given=picture(images / name)))
    assert told in error["message"]
    assert error["param"] == FIELD[path]


@pytest.mark.parametrize("path", FIELD)
@pytest.mark.parametrize(
    ("varied", "status", "told"),
    [
        ({"given": None}, 400, "{field}"),
        ({"given": 5}, 400, "{field}"),
        ({"given": "not base64!"}, 400, "base64"),
        ({"model": "nobody"}, 404, 'model "nobody" not found'),
        ({"model": "espeak-ng"}, 404, "this route needs a face model"),
        ({"model": "resemblyzer-ge2e"}, 404, '"resemblyzer-ge2e" is a voice model'),
    ],
)
def test_a_wrong_field_or_model_is_told_by_every_route(
    client: httpx.Client, one: str, path: str, varied: dict[str, object], status: int, told: str
) -> None:
    error = refused(client, path, status, **asked(path, one, **varied))
    assert told.format(field=FIELD[path]) in error["message"]


@pytest.mark.parametrize("path", FIELD)
def test_a_missing_field_is_named_by_every_route(client: httpx.Client, one: str, path: str) -> None:
    body = asked(path, one)
    del body[FIELD[path]]
    assert refused(client, path, 400, **body)["param"] == FIELD[path]


@pytest.mark.parametrize("path", FIELD)
def test_no_key_no_answer(client: httpx.Client, one: str, path: str) -> None:
    with httpx.Client(base_url=client.base_url, trust_env=False) as stranger:
        assert "key" in refused(stranger, path, 401, **asked(path, one))["message"]


@pytest.mark.parametrize(
    ("path", "threshold"),
    [
        *((VERIFY, value) for value in (-0.1, 2.1, "far")),
        *((path, value) for path in (DETECTION, DETECT) for value in (-0.1, 1.1, "far")),
    ],
)
def test_a_threshold_out_of_range_is_named(
    client: httpx.Client, one: str, path: str, threshold: object
) -> None:
    assert refused(client, path, 400, **asked(path, one, threshold=threshold))["param"] == "threshold"


@pytest.mark.parametrize("name", ["noface/white.png", "noface/cat.jpg"])
def test_no_face_is_an_error_where_one_is_needed(
    client: httpx.Client, picture: Encode, images: Path, one: str, name: str
) -> None:
    nobody = picture(images / name)
    for path in (VERIFY, EMBED):
        error = refused(client, path, 404, **asked(path, one, given=nobody))
        assert error["message"] == f"{FIELD[path]}: no face detected in the picture"
        assert error["param"] == FIELD[path]
    assert post(client, ANALYZE, img=nobody) == {"faces": []}
    for path in (DETECTION, DETECT):
        assert post(client, path, image=nobody) == {"detections": []}


def uncompressed(path: Path, size: float) -> tuple[str, float]:
    """The picture enlarged or reduced to about so many bytes as a PNG, as base64, and by how much."""
    with Image.open(path) as opened:
        scale = math.sqrt(size / 3 / opened.width / opened.height)
        new = opened.convert("RGB").resize((round(opened.width * scale), round(opened.height * scale)))
    written = BytesIO()
    new.save(written, "PNG", compress_level=0)
    assert written.tell() == pytest.approx(size, rel=0.01)
    return base64.b64encode(written.getvalue()).decode(), scale


@pytest.mark.parametrize("size", [2e6, 5e6, 10e6])
def test_large_pictures_show_the_faces_of_the_small_one(
    client: httpx.Client, picture: Encode, group: Path, size: float
) -> None:
    """They reach the detector through shared memory, the small one by value."""
    small, (large, scale) = picture(group), uncompressed(group, size)
    verdict = post(client, VERIFY, img1=large, img2=small)
    assert verdict["verified"] is True
    assert verdict["distance"] < 0.05
    places = np.array([list(verdict[name].values()) for name in ("img1_area", "img2_area")])
    assert places[0] == pytest.approx(places[1] * scale, abs=15 * scale)
    rows = [post(client, EMBED, img=one)["embedding"] for one in (large, small)]
    assert np.dot(*rows) > 0.95
    for model in ("mini", "mini-fused"):
        told = [post(client, ANALYZE, model=model, img=one)["faces"] for one in (large, small)]
        genders = [sorted(face["dominant_gender"] for face in faces) for faces in told]
        assert genders[0] == genders[1]
        assert len(genders[0]) == 6
    found = [post(client, DETECTION, image=one)["detections"] for one in (large, small)]
    corners = [np.array(sorted((face["x"], face["y"]) for face in faces)) for faces in found]
    assert corners[0] == pytest.approx(corners[1] * scale, abs=15 * scale)


@pytest.fixture(scope="module")
def crowd(shared: Path) -> str:
    """Sixty photographs of one person each, ten in a row, as base64 of one picture."""
    people = sorted((shared / "media" / "faces" / "lfw").iterdir())
    paths = [path for person in people for path in sorted(person.glob("*.jpg"))[:3]]
    tiled = Image.new("RGB", (2500, 1500))
    for number, path in enumerate(paths[:60]):
        with Image.open(path) as opened:
            tiled.paste(opened, (number % 10 * 250, number // 10 * 250))
    written = BytesIO()
    tiled.save(written, "JPEG", quality=90)
    return base64.b64encode(written.getvalue()).decode()


@pytest.mark.parametrize("model", ["mini", "mini-fused"])
@pytest.mark.parametrize("anti_spoofing", [False, True])
def test_every_face_of_a_crowd_is_described(
    client: httpx.Client, crowd: str, model: str, anti_spoofing: bool
) -> None:
    """With those of liveness their crops exceed what an answer by value may carry."""
    found = post(client, DETECTION, model=model, image=crowd)["detections"]
    assert len(found) >= 50
    told = post(client, ANALYZE, model=model, img=crowd, anti_spoofing=anti_spoofing)["faces"]
    assert len(told) == len(found)
    for face, place in zip(told, found, strict=True):
        assert list(face["region"].values()) == [place[key] for key in ("x", "y", "width", "height")]
        assert face["dominant_gender"] in ("Man", "Woman")
        assert ("is_real" in face) is anti_spoofing


@pytest.fixture(scope="module")
def origin(images: Path) -> Iterator[str]:
    """A web server at an address that the service may fetch from: a picture, a text, a redirect."""
    content = {
        "/face.jpg": (images / "broken" / "face_ok.jpg").read_bytes(),
        "/text.jpg": b"a text, not a picture",
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/away":
                self.send_response(302)
                self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/face.jpg")  # type: ignore[attr-defined] # of HTTPServer
                self.end_headers()
            elif self.path in content:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(content[self.path])
            else:
                self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.2", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.2:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_url_is_as_good_as_its_bytes(
    client: httpx.Client, origin: str, one: str, picture: Encode, images: Path
) -> None:
    url, other = f"{origin}/face.jpg", picture(images / "broken" / "face_exif3.jpg")
    fetched, sent = (post(client, VERIFY, img1=img, img2=other) for img in (url, one))
    del fetched["processing_time_ms"], sent["processing_time_ms"]
    assert fetched == {
        key: pytest.approx(value, abs=1e-3) if isinstance(value, float) else value
        for key, value in sent.items()
    }
    assert post(client, DETECTION, image=url) == post(client, DETECTION, image=one)
    assert post(client, ANALYZE, img=url) == post(client, ANALYZE, img=one)
    rows = [post(client, EMBED, img=img)["embedding"] for img in (url, one)]
    assert rows[0] == pytest.approx(rows[1], abs=1e-4)


@pytest.mark.parametrize(
    ("url", "status", "told"),
    [
        ("{origin}/nothing.jpg", 400, "the URL answered with status 404"),
        ("{origin}/text.jpg", 415, "no picture of a known format"),
        ("{origin}/away", 400, "not allowed"),
        ("http://127.0.0.1:{port}/face.jpg", 400, "not allowed"),
        ("http://2130706433:{port}/face.jpg", 400, "not allowed"),
        ("http://0x7f000001:{port}/face.jpg", 400, "not allowed"),
        ("http://0177.0.0.1:{port}/face.jpg", 400, "not allowed"),
        ("http://127.1:{port}/face.jpg", 400, "not allowed"),
        ("http://[::ffff:127.0.0.1]:{port}/face.jpg", 400, "not allowed"),
        ("http://user:secret@127.0.0.2:{port}/face.jpg", 400, "user name or password"),
    ],
)
@pytest.mark.parametrize("path", [VERIFY, EMBED, ANALYZE, DETECTION])
def test_urls_that_lead_to_no_picture_are_refused(
    client: httpx.Client, origin: str, one: str, path: str, url: str, status: int, told: str
) -> None:
    given = url.format(origin=origin, port=origin.rpartition(":")[2])
    error = refused(client, path, status, **asked(path, one, given=given))
    assert told in error["message"]
    assert error["param"] == FIELD[path]
    assert "secret" not in error["message"]
