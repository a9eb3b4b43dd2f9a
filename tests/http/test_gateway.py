"""The HTTP application with the fake engine in this process: routes, documents, middlewares in order."""

import base64
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import cv2
import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployments.face import FaceAttributes, FaceDetector, FaceRecognizer, FaceSpec
from deployments.messages import Crops, DetectRequest, FoundFaces
from engines.errors import PresenceError
from engines.types import Aliveness, Demographics, EngineOptions, Image
from graphs.clients.store import Store
from graphs.face import FaceFlow, FaceNode
from graphs.http.apidoc import page
from graphs.http.application import http_application
from graphs.http.gateway import media_rules
from graphs.media import MediaReader
from graphs.services import Services
from graphs.settings import AppArgs, Gateway, Media, ModelFile
from graphs.store import Registrations
from graphs.stores import Stores
from graphs.tts import SpeechFlow
from graphs.voice import VoiceFlow
from graphs.voices import VoiceLibrary

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
REFRESH = "python -m graphs.http.apidoc docs/api.md"
FACE_ROUTES = ("/v1/face/verify", "/v1/face/analyze", "/v1/face/embed", "/v1/face/detect", "/v1/detection")


def picture(colour: tuple[int, int, int], side: int = 64) -> str:
    image = np.full((side, side, 3), colour, np.uint8)
    return base64.b64encode(cv2.imencode(".png", image)[1].tobytes()).decode()


RED, BLUE, DARK = picture((30, 30, 220)), picture((220, 30, 30)), picture((0, 0, 0))
LARGE = picture((30, 30, 220), 101)
"""More pixels than the detector takes."""
GARBAGE = base64.b64encode(b"no picture").decode()


def value(answer: T | PresenceError) -> T:
    if isinstance(answer, PresenceError):
        raise answer
    return answer


class Parts:
    """Detector, recognizer and attributes of the fake engine, and a liveness that trusts everybody."""

    def __init__(self) -> None:
        spec = FaceSpec("fake", "fake", EngineOptions(), max_pixels=100 * 100)
        self._detector, self._recognizer = FaceDetector(spec), FaceRecognizer(spec)
        self._attributes = FaceAttributes(spec)

    async def detect(self, request: DetectRequest, deadline: float) -> FoundFaces:
        return value(await self._detector.detect(request, deadline))

    async def embed(self, crops: Sequence[Image], deadline: float) -> list[np.ndarray]:
        return value(await self._recognizer.embed(crops, deadline))

    async def analyze(self, faces: Sequence[Crops], deadline: float) -> list[Demographics]:
        return value(await self._attributes.analyze(faces, deadline))

    async def score(self, faces: Sequence[tuple[Image, ...]], deadline: float) -> list[Aliveness]:  # noqa: ARG002 - the protocol names it
        return [Aliveness(0.75, likeliest=True) for _ in faces]


class States:
    """A status that says what it is told to."""

    def __init__(self, **states: str) -> None:
        self.told = states

    async def states(self) -> dict[str, str]:
        return self.told


def application(
    states: States | None = None, keys: frozenset[str] = frozenset(), echo: bool = True, **gateway: object
) -> FastAPI:
    """Two models over the same parts; the second has liveness. The store is not asked."""
    store = cast(Store, None)
    parts = Parts()
    bare = FaceNode("fake", 0.1, parts, parts, parts, ("genderage",))
    alive = FaceNode("alive", 0.1, parts, parts, parts, ("genderage",), parts)
    media = MediaReader(media_rules(AppArgs(media=Media(max_bytes=2000))))
    models = (ModelFile(name="fake", backend="fake", license="MIT"), ModelFile(name="alive", backend="fake"))
    services = Services(
        settings=Gateway.model_validate(gateway),
        models=models,
        status=states or States(fake="ready", alive="ready"),
        face=FaceFlow({"fake": bare, "alive": alive}, media),
        voice=VoiceFlow({}, media),
        speech=SpeechFlow({}, VoiceLibrary(store)),
        library=VoiceLibrary(store),
        media=media,
        people={"face": Registrations("face", store)},
        stores=Stores(store),
        started_at=1_700_000_000,
        api_keys=keys,
    )
    return http_application(services, echo_request_ids=echo)


def client_of(app: FastAPI) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://test")


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(application()) as opened:
        yield opened


@pytest.fixture(scope="module")
def api() -> dict[str, Any]:
    """The OpenAPI description."""
    return application().openapi()


def test_the_page_of_the_api_is_up_to_date() -> None:
    kept = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert page(application()) == kept, f"docs/api.md is out of date; run: {REFRESH}"


def test_every_route_is_described(api: dict[str, Any]) -> None:
    assert set(FACE_ROUTES) < set(api["paths"])
    assert {"/v1/models", "/healthz", "/readyz", "/version", "/metrics"} < set(api["paths"])
    for path, methods in api["paths"].items():
        for operation in methods.values():
            assert operation["description"], path
            assert operation["tags"], path


def test_no_route_answers_422(api: dict[str, Any]) -> None:
    assert "422" not in json.dumps(api)
    assert "ValidationError" not in json.dumps(api)


def test_every_error_is_documented_with_its_body(api: dict[str, Any]) -> None:
    for path in FACE_ROUTES:
        responses = api["paths"][path]["post"]["responses"]
        assert {"400", "401", "404", "413", "415", "503", "504"} <= set(responses)
        assert ("412" in responses) is (path in ("/v1/face/verify", "/v1/face/analyze"))
        for status in set(responses) - {"200"}:
            schema = responses[status]["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/ErrorResponse"}
            assert responses[status]["description"]


def test_every_reference_leads_somewhere(api: dict[str, Any]) -> None:
    text = json.dumps(api)
    named = set(api["components"]["schemas"])
    used = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert used == named


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/face/verify", {"img1": RED, "img2": BLUE}, 200),
        ("/v1/face/verify", {"img1": RED, "img2": BLUE, "unknown": 1, "anti_spoofing": False}, 200),
        ("/v1/face/verify", {"model": "alive", "img1": RED, "img2": RED, "anti_spoofing": True}, 200),
        ("/v1/face/verify", {"model": None, "img1": RED, "img2": RED, "threshold": None}, 200),
        ("/v1/face/verify", {"img1": RED, "img2": RED, "anti_spoofing": None}, 200),
        ("/v1/face/verify", {"img1": RED}, 400),
        ("/v1/face/verify", {"img1": RED, "img2": None}, 400),
        ("/v1/face/verify", {"img1": RED, "img2": RED, "threshold": 2.1}, 400),
        ("/v1/face/verify", {"model": "x" * 129, "img1": RED, "img2": RED}, 400),
        ("/v1/face/verify", {"model": "nobody", "img1": RED, "img2": RED}, 404),
        ("/v1/face/verify", {"img1": DARK, "img2": RED}, 404),
        ("/v1/face/verify", {"img1": RED, "img2": RED, "anti_spoofing": True}, 412),
        ("/v1/face/verify", {"img1": RED, "img2": GARBAGE}, 415),
        ("/v1/face/verify", {"img1": RED, "img2": "A" * 4000}, 413),
        ("/v1/face/analyze", {"img": RED}, 200),
        ("/v1/face/analyze", {"img": DARK}, 200),
        ("/v1/face/analyze", {"img": RED, "actions": None, "anti_spoofing": None}, 200),
        ("/v1/face/analyze", {"img": None}, 400),
        ("/v1/face/analyze", {"img": RED, "actions": ["age", "race"]}, 200),
        ("/v1/face/analyze", {"img": RED, "actions": ["shoe size"]}, 400),
        ("/v1/face/analyze", {"img": RED, "anti_spoofing": True}, 412),
        ("/v1/face/embed", {"img": RED}, 200),
        ("/v1/face/embed", {"img": DARK}, 404),
        ("/v1/face/embed", {"img": ""}, 400),
        ("/v1/face/detect", {"image": RED}, 200),
        ("/v1/detection", {"image": RED, "prompt": "faces", "points": [], "boxes": []}, 200),
        ("/v1/detection", {"image": RED, "prompt": None, "points": None, "boxes": None}, 200),
        ("/v1/detection", {"image": RED, "threshold": 1.5}, 400),
        ("/v1/detection", {"image": None}, 400),
    ],
)
async def test_each_answer_is_one_that_its_route_documents(
    client: httpx.AsyncClient, api: dict[str, Any], path: str, body: dict[str, object], status: int
) -> None:
    answer = await client.post(path, json=body)
    assert answer.status_code == status, answer.text
    assert str(status) in api["paths"][path]["post"]["responses"]
    assert ("error" in answer.json()) is (status != 200)


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/face/verify", {"img1": RED, "img2": GARBAGE}, "img2"),
        ("/v1/face/verify", {"img1": "A" * 4000, "img2": RED}, "img1"),
        ("/v1/face/verify", {"img1": DARK, "img2": RED}, "img1"),
        ("/v1/face/verify", {"img1": RED, "img2": LARGE}, "img2"),
        ("/v1/face/analyze", {"img": GARBAGE}, "img"),
        ("/v1/face/embed", {"img": "http://127.0.0.1/a.jpg"}, "img"),
        ("/v1/detection", {"image": "no base64!"}, "image"),
        ("/v1/detection", {"image": GARBAGE}, "image"),
    ],
)
async def test_what_is_wrong_with_a_picture_names_its_field(
    client: httpx.AsyncClient, path: str, body: dict[str, object], param: str
) -> None:
    error = (await client.post(path, json=body)).json()["error"]
    assert error["param"] == param
    assert error["message"].startswith(f"{param}: ")
    assert error["message"].count(f"{param}:") == 1


async def test_verify_answers_localais_fields(client: httpx.AsyncClient) -> None:
    answer = (await client.post("/v1/face/verify", json={"img1": RED, "img2": RED})).json()
    assert answer.pop("processing_time_ms") > 0
    assert answer == {
        "verified": True,
        "distance": pytest.approx(0, abs=1e-6),
        "threshold": 0.1,
        "confidence": pytest.approx(100, abs=1e-3),
        "model": "fake",
        "img1_area": {"x": 16, "y": 16, "w": 32, "h": 32},
        "img2_area": {"x": 16, "y": 16, "w": 32, "h": 32},
    }
    body = {"model": "alive", "img1": RED, "img2": RED, "anti_spoofing": True}
    checked = (await client.post("/v1/face/verify", json=body)).json()
    assert checked["img1_is_real"] is checked["img2_is_real"] is True
    assert checked["img1_antispoof_score"] == checked["img2_antispoof_score"] == 0.75


async def test_the_threshold_0_means_the_models_own(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/face/verify", json={"img1": RED, "img2": RED, "threshold": 0})
    assert answer.json()["threshold"] == 0.1
    answer = await client.post("/v1/detection", json={"image": RED, "threshold": 0})
    assert len(answer.json()["detections"]) == 1


async def test_analyze_answers_what_was_asked(client: httpx.AsyncClient) -> None:
    (face,) = (await client.post("/v1/face/analyze", json={"img": RED})).json()["faces"]
    assert set(face) == {"region", "face_confidence", "age", "gender", "dominant_gender"}
    assert face["gender"] == {"Man": 0.0, "Woman": 1.0}
    assert face["dominant_gender"] == "Woman"
    body = {"model": "alive", "img": RED, "actions": ["age"], "anti_spoofing": True}
    (face,) = (await client.post("/v1/face/analyze", json=body)).json()["faces"]
    assert set(face) == {"region", "face_confidence", "age", "is_real", "antispoof_score"}


async def test_embed_and_detect_answer_their_fields(client: httpx.AsyncClient) -> None:
    embedded = (await client.post("/v1/face/embed", json={"img": RED})).json()
    assert (embedded["dim"], len(embedded["embedding"]), embedded["model"]) == (4, 4, "fake")
    (found,) = (await client.post("/v1/detection", json={"image": RED})).json()["detections"]
    assert 0.5 < found.pop("confidence") < 1
    assert found == {"x": 16, "y": 16, "width": 32, "height": 32, "class_name": "face"}


@pytest.mark.parametrize(
    "content",
    [
        '{"image": "RED", "threshold": NaN}',
        '{"image": "RED", "threshold": Infinity}',
        '{"image": "\\ud800"}',
        '{"model": "\\ud800", "image": "RED"}',
        '{"image": ' + "[" * 5000,
        '{"image": "RED", "boxes": [1e999]}',
    ],
    ids=["nan", "infinity", "surrogate", "surrogate model", "deep", "infinite boxes"],
)
async def test_strange_json_is_a_wrong_request_or_harmless(client: httpx.AsyncClient, content: str) -> None:
    answer = await client.post("/v1/detection", content=content.replace("RED", RED))
    allowed = {200, 400} if "boxes" in content else {400}
    assert answer.status_code in allowed, answer.text


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([RED, DARK, GARBAGE]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
FIELDS = st.sampled_from(["model", "img", "img1", "img2", "image", "threshold", "actions", "anti_spoofing"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(FACE_ROUTES), body=ANYTHING | st.dictionaries(FIELDS, ANYTHING, max_size=5))
async def test_no_body_is_answered_beyond_the_documents(
    client: httpx.AsyncClient, api: dict[str, Any], path: str, body: object
) -> None:
    answer = await client.post(path, content=json.dumps(body))
    assert str(answer.status_code) in api["paths"][path]["post"]["responses"], answer.text
    assert answer.json()


async def test_models_are_listed_in_order_with_their_state() -> None:
    async with client_of(application(States(fake="ready"))) as client:
        listed = (await client.get("/v1/models")).json()
        assert (await client.get("/models")).json() == listed
    assert listed["data"] == [
        {
            "id": name,
            "object": "model",
            "created": 1_700_000_000,
            "owned_by": "presence",
            "capability": "face",
            "backend": "fake",
            "license": license_,
            "state": state,
        }
        for name, license_, state in (("fake", "MIT", "ready"), ("alive", "", "loading"))
    ]


async def test_readiness_names_what_is_missing() -> None:
    states = States(fake="loading", alive="failed")
    async with client_of(application(states)) as client:
        answer = await client.get("/readyz")
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert answer.json() == {"status": "starting", "loading": ["fake"], "failed": ["alive"]}
        assert (await client.get("/healthz")).status_code == 200
        states.told = {"fake": "ready", "alive": "ready"}
        answer = await client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ready", "loading": [], "failed": []}


async def test_the_version_names_ray(client: httpx.AsyncClient) -> None:
    answer = await client.get("/version")
    assert answer.json()["ray"] == "2.60.0"


async def test_a_deadline_that_passes_answers_504() -> None:
    async with client_of(application(deadline_s=1e-9)) as client:
        answer = await client.post("/v1/face/embed", json={"img": RED})
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == 504


async def test_strangers_are_refused_before_their_body_counts() -> None:
    async with client_of(application(keys=frozenset({"k"}), max_body_bytes=2000)) as client:
        large = {"img": "A" * 3000}
        assert (await client.post("/v1/face/embed", json=large)).status_code == 401
        assert (
            await client.post("/v1/face/embed", json=large, headers={"x-api-key": "k"})
        ).status_code == 413
        assert (await client.get("/version")).status_code == 401
        for path in ("/healthz", "/readyz", "/docs", "/openapi.json"):
            assert (await client.get(path)).status_code == 200


async def test_browsers_may_call_from_the_named_origins_alone() -> None:
    async with client_of(application(cors_origins=("https://app.example",), keys=frozenset({"k"}))) as client:
        for origin, allowed in (("https://app.example", True), ("https://evil.example", False)):
            answer = await client.get("/v1/models", headers={"origin": origin})
            assert answer.status_code == 401
            assert (answer.headers.get("access-control-allow-origin") == origin) is allowed


@pytest.mark.parametrize("echo", [True, False])
async def test_the_request_id_is_answered_unless_the_server_does_it(echo: bool) -> None:
    async with client_of(application(echo=echo)) as client:
        answer = await client.get("/healthz", headers={"x-request-id": "abc"})
    assert answer.headers.get("x-request-id") == ("abc" if echo else None)


async def test_unknown_routes_and_methods_answer_in_the_one_shape(client: httpx.AsyncClient) -> None:
    for method, path, status in (("GET", "/nothing", 404), ("GET", "/v1/face/verify", 405)):
        answer = await client.request(method, path)
        assert answer.status_code == answer.json()["error"]["code"] == status


async def test_a_body_without_a_content_type_is_json(client: httpx.AsyncClient) -> None:
    body = json.dumps({"img": RED})
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert (await client.post("/v1/face/embed", content=body)).status_code == 200
    assert (await client.post("/v1/face/embed", content=body, headers=form)).status_code == 200


def test_the_media_rules_come_from_the_settings() -> None:
    given_rules = Media(max_bytes=5, fetch_timeout_s=2, allow_urls=False, allow_networks=("10.0.0.0/8",))
    rules = media_rules(AppArgs(media=given_rules))
    assert (rules.max_bytes, rules.fetch_timeout_s, rules.allow_urls) == (5, 2, False)
    assert rules.allow_networks == ("10.0.0.0/8",)
