"""Models, health, keys, OpenAPI and metrics over HTTP against the running application."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.service


def test_models_are_listed_with_capability_licence_and_state(client: httpx.Client) -> None:
    listed = client.get("/v1/models").json()
    assert listed["object"] == "list"
    models = {model["id"]: model for model in listed["data"]}
    assert list(models) == [
        "dlib-resnet",
        "mini",
        "opencv",
        "mini-fused",
        "resemblyzer-ge2e",
        "talker",
        "espeak-ng",
    ]
    assert models["mini"]["object"] == "model"
    assert models["mini"]["capability"] == "face"
    assert models["mini"]["license"] == "research"
    assert models["mini"]["state"] == "ready"
    assert [models[name]["capability"] for name in ("resemblyzer-ge2e", "talker")] == ["voice", "voice"]


@pytest.mark.parametrize(
    "path",
    [
        *(f"/v1/face/{verb}" for verb in ("verify", "analyze", "embed", "detect", "register", "identify")),
        "/v1/detection",
        *(f"/v1/voice/{verb}" for verb in ("verify", "analyze", "embed", "register", "identify")),
        "/tts",
        "/v1/audio/speech",
    ],
)
def test_a_disabled_model_is_refused_as_by_localai(client: httpx.Client, path: str) -> None:
    media = dict.fromkeys(("img", "img1", "img2", "image", "audio", "audio1", "audio2"), "aGVsbG8=")
    texts = dict.fromkeys(("input", "text", "name", "voice"), "hello")
    answer = client.post(path, json={"model": "off", "model_id": "off", **media, **texts})
    assert answer.status_code == 403, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["type"]) == (403, "model_disabled")
    assert error["message"] == 'model "off" is disabled'


@pytest.mark.parametrize(
    "path",
    ["/v1/text-to-speech/anyone", "/v1/text-to-speech/anyone/stream", "/v1/sound-generation"],
)
def test_a_disabled_model_is_refused_in_elevenlabs_shape(client: httpx.Client, path: str) -> None:
    answer = client.post(path, json={"model_id": "off", "text": "hello"})
    assert answer.status_code == 403, answer.text
    assert answer.json()["detail"] == {"status": "model_disabled", "message": 'model "off" is disabled'}


def test_health_is_public_and_readiness_tells_all_is_loaded(client: httpx.Client) -> None:
    bare = httpx.Client(base_url=client.base_url, trust_env=False)
    with bare:
        assert bare.get("/healthz").status_code == 200
        ready = bare.get("/readyz")
    assert ready.status_code == 200
    assert ready.json() == {"status": "ready", "loading": [], "failed": []}


def test_version_names_ours_and_rays(client: httpx.Client) -> None:
    answer = client.get("/version").json()
    assert re.fullmatch(r"\d+\.\d+\.\d+", answer["version"])
    assert answer["ray"] == "2.60.0"


@pytest.mark.parametrize(
    "headers",
    [{}, {"x-api-key": "wrong"}, {"authorization": "Bearer wrong"}, {"authorization": "Basic dGVzdA=="}],
)
def test_without_a_key_nothing_is_answered(client: httpx.Client, headers: dict[str, str]) -> None:
    with httpx.Client(base_url=client.base_url, trust_env=False) as bare:
        response = bare.get("/v1/models", headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.json()["error"]["message"] == "An authentication key is required"


@pytest.mark.parametrize("carrier", ["x-api-key", "xi-api-key", "authorization"])
def test_a_key_is_taken_from_each_header(client: httpx.Client, carrier: str) -> None:
    key = client.headers["x-api-key"]
    value = f"Bearer {key}" if carrier == "authorization" else key
    with httpx.Client(base_url=client.base_url, trust_env=False) as bare:
        assert bare.get("/v1/models", headers={carrier: value}).status_code == 200


def test_request_ids_are_kept_or_made(client: httpx.Client) -> None:
    assert client.get("/healthz", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    made = client.get("/healthz").headers["x-request-id"]
    assert len(made) >= 16


def test_each_request_is_one_line_of_the_log(service: Any, client: httpx.Client) -> None:
    """In a file of the directory that the command names; nothing of the body, the query or the key.

    Serve writes none of its own, neither of requests nor of calls between replicas.
    """
    own = "trace-of-a-test"
    body = {"model": "nobody", "img": "c2VjcmV0", "store": "private"}
    answer = client.post("/v1/face/identify?colour=grey", json=body, headers={"x-request-id": own})
    assert answer.status_code == 404
    (logs,) = re.findall(r"its logs are in (\S+)", service.log.read_text())
    line = until_logged(Path(logs), own)
    assert re.search(r"^INFO .* POST /v1/face/identify 404 \d+\.\d ms trace-of-a-test$", line)
    for private in ("c2VjcmV0", "grey", "private", client.headers["x-api-key"]):
        assert private not in line
    client.get("/v1/face/registrations", headers={"x-request-id": "asks-the-store"})
    until_logged(Path(logs), "asks-the-store")
    paths = serve_logs(Path(logs), "replica_*.log")
    lines = [line for path in paths for line in path.read_text(errors="replace").splitlines()]
    assert [line for line in lines if own in line] == [line]
    assert not [line for line in lines if " -- CALL " in line]


def serve_logs(directory: Path, names: str) -> list[Path]:
    """Files that Serve keeps, below the directory of Ray's logs."""
    found = list(directory.glob(f"session_latest/logs/serve/{names}"))
    assert found
    return found


def until_logged(directory: Path, words: str) -> str:
    """The one line that ends so, in the files of the gateway's replicas."""
    give_up = time.monotonic() + 30
    while time.monotonic() < give_up:
        lines = [
            line
            for path in serve_logs(directory, "*Gateway*.log")
            for line in path.read_text(errors="replace").splitlines()
            if line.endswith(words)
        ]
        if lines:
            (line,) = lines
            return line
        time.sleep(0.2)  # nothing announces a line
    pytest.fail(f"no line with {words}")


def test_an_odd_request_id_is_not_logged(service: Any, client: httpx.Client) -> None:
    odd = "x" * 200
    assert client.get("/v1/models", headers={"x-request-id": odd}).status_code == 200
    (logs,) = re.findall(r"its logs are in (\S+)", service.log.read_text())
    client.get("/v1/models", headers={"x-request-id": "after-the-odd-one"})
    until_logged(Path(logs), "after-the-odd-one")
    gateways = serve_logs(Path(logs), "*Gateway*.log")
    lines = [line for path in gateways for line in path.read_text(errors="replace").splitlines()]
    assert not [line for line in lines if line.endswith(odd)]


def test_cors_lets_the_named_origin_in(client: httpx.Client) -> None:
    preflight = {"origin": "https://app.example", "access-control-request-method": "POST"}
    with httpx.Client(base_url=client.base_url, trust_env=False) as bare:
        answer = bare.options("/v1/face/verify", headers=preflight)
        stranger = bare.options("/v1/face/verify", headers={**preflight, "origin": "https://evil.example"})
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert "access-control-allow-origin" not in stranger.headers


def test_openapi_documents_every_error_of_every_route(client: httpx.Client) -> None:
    api: dict[str, Any] = client.get("/openapi.json").json()
    nouns = [f"/v1/{kind}/{verb}" for kind in ("face", "voice") for verb in ("verify", "analyze", "embed")]
    for path in (*nouns, "/v1/detection", "/v1/voice/register", "/v1/voice/identify"):
        route = api["paths"][path]["post"]
        assert {"200", "400", "401", "404", "413", "415", "503", "504"} <= set(route["responses"])
        assert "422" not in route["responses"]
        assert route["description"]
    assert "412" in api["paths"]["/v1/face/verify"]["post"]["responses"]


def test_unknown_routes_and_methods_answer_in_the_one_shape(client: httpx.Client) -> None:
    missing = client.get("/v1/nothing")
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == 404
    wrong = client.get("/v1/face/verify")
    assert wrong.status_code == 405
    assert wrong.json()["error"]["code"] == 405


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_monitors_may_ask_for_the_head_alone(client: httpx.Client, path: str) -> None:
    answer = client.head(path)
    assert (answer.status_code, answer.content) == (200, b"")


def test_metrics_name_every_deployment(
    client: httpx.Client, picture: Callable[[Path], str], shared: Path
) -> None:
    face = picture(shared / "media" / "faces" / "spoof" / "image_T1.jpg")
    for model in ("dlib-resnet", "mini", "mini-fused", "opencv"):
        body = {"model": model, "img1": face, "img2": face, "anti_spoofing": model == "mini"}
        assert client.post("/v1/face/verify", json=body).status_code == 200
    assert client.post("/v1/face/analyze", json={"model": "mini", "img": face}).status_code == 200
    clip = picture(shared / "media" / "audio" / "jfk.flac")
    body = {"model": "resemblyzer-ge2e", "audio": clip}
    assert client.post("/v1/voice/embed", json=body).status_code == 200
    faces = [f"{model}.{part}" for model in ("dlib-resnet", "mini") for part in ("detector", "recognizer")]
    faces += ["mini.attributes", "mini.liveness", "mini-fused.fused", "opencv.detector", "opencv.recognizer"]
    others = ["resemblyzer-ge2e.encoder", "talker.attributes", "espeak-ng.synthesizer", "store", "Gateway"]
    batches = ("items_total", "batch_size_count", "queue_wait_ms_count", "model_ms_count")
    missing = [f'ray_presence_{name}{{.*deployment="{part}"' for name in batches for part in faces]
    missing += [f'deployment="{name}"' for name in others]
    until = time.monotonic() + 60  # replicas report to their node every few seconds
    while time.monotonic() < until:
        answer = client.get("/metrics")
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        text = answer.text
        missing = [pattern for pattern in missing if not re.search(pattern, text)]
        if not missing:
            return
        time.sleep(1)
    assert not missing
