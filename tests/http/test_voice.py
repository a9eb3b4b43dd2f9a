"""The voice routes of the HTTP application with the fake engine in this process."""

import base64
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployments.messages import Described, DescribeRequest
from deployments.voice import VoiceEncoder, VoiceSpec
from engines.errors import PresenceError
from engines.types import Demographics, EngineOptions
from graphs.face import FaceFlow
from graphs.http.application import http_application
from graphs.media import MediaReader, MediaRules
from graphs.services import Services
from graphs.settings import Gateway, ModelFile
from graphs.store import Registrations
from graphs.stores import Stores
from graphs.tts import SpeechFlow
from graphs.voice import VoiceFlow, VoiceNode
from graphs.voices import VoiceLibrary

VERIFY, ANALYZE, EMBED = "/v1/voice/verify", "/v1/voice/analyze", "/v1/voice/embed"
REGISTER, IDENTIFY, FORGET = "/v1/voice/register", "/v1/voice/identify", "/v1/voice/forget"
GARBAGE = base64.b64encode(b"no sound").decode()
TOLD = Demographics(age=41.5, gender={"Female": 0.9, "Male": 0.1}, emotion={"neutral": 0.7, "sad": 0.3})


class Parts:
    """The encoder of the fake engine, and attributes that tell the same of everybody."""

    def __init__(self) -> None:
        self._encoder = VoiceEncoder(VoiceSpec("fake", "fake-voice", EngineOptions(), max_seconds=2))

    async def embed(self, clip: bytes, deadline: float) -> np.ndarray:
        answer = await self._encoder.embed(clip, deadline)
        if isinstance(answer, PresenceError):
            raise answer
        return answer

    async def describe(self, request: DescribeRequest, deadline: float) -> Described:  # noqa: ARG002 - the protocol names them
        return Described(0.5, TOLD)


class Ready:
    """A status in which everything is."""

    async def states(self) -> dict[str, str]:
        return {}


@pytest.fixture
def app(local_store: Any) -> FastAPI:
    """Two voice models over the same parts, the first without heads, and a face model's name."""
    parts = Parts()
    media = MediaReader(MediaRules(max_bytes=200_000))
    nodes = {
        "bare": VoiceNode("bare", 0.25, parts),
        "talker": VoiceNode("talker", 0.3, parts, parts, ("emotion", "age_gender")),
    }
    kinds = {"bare": "voice", "talker": "voice", "portrait": "face"}
    services = Services(
        settings=Gateway(),
        models=(ModelFile(name="bare", backend="fake-voice"),),
        status=Ready(),
        face=FaceFlow({}, media, kinds),
        voice=VoiceFlow(nodes, media, kinds),
        speech=SpeechFlow({}, VoiceLibrary(local_store)),
        library=VoiceLibrary(local_store),
        media=media,
        people={kind: Registrations(kind, local_store) for kind in ("face", "voice")},
        stores=Stores(local_store),
        started_at=0,
    )
    return http_application(services)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as opened:
        yield opened


@pytest.fixture(scope="session")
def clips(tone: Callable[..., bytes]) -> dict[str, str]:
    """Clips as base64 by name."""
    made = {
        "ALICE": tone(440),
        "BOB": tone(3000),
        "SILENT": tone(440, level=0),
        "SHORT": tone(440, 0.05),
        "LONG": tone(440, 2.5),
        "LARGE": tone(440, 7.0),
    }
    return {name: base64.b64encode(clip).decode() for name, clip in made.items()}


def filled(body: dict[str, Any], clips: dict[str, str]) -> dict[str, Any]:
    """The body with clips for their names."""
    return {
        name: clips.get(value, value) if isinstance(value, str) else value for name, value in body.items()
    }


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (VERIFY, {"audio1": "ALICE", "audio2": "BOB"}, 200),
        (VERIFY, {"audio1": "ALICE", "audio2": "BOB", "unknown": 1, "anti_spoofing": True}, 200),
        (VERIFY, {"model": None, "audio1": "ALICE", "audio2": "ALICE", "threshold": None}, 200),
        (VERIFY, {"audio1": "ALICE"}, 400),
        (VERIFY, {"audio1": "ALICE", "audio2": "BOB", "threshold": 2.1}, 400),
        (VERIFY, {"audio1": "ALICE", "audio2": "BOB", "anti_spoofing": "perhaps"}, 400),
        (VERIFY, {"model": "nobody", "audio1": "ALICE", "audio2": "ALICE"}, 404),
        (VERIFY, {"model": "portrait", "audio1": "ALICE", "audio2": "ALICE"}, 404),
        (VERIFY, {"audio1": "SILENT", "audio2": "ALICE"}, 400),
        (VERIFY, {"audio1": "ALICE", "audio2": "SHORT"}, 400),
        (VERIFY, {"audio1": "ALICE", "audio2": "LONG"}, 413),
        (VERIFY, {"audio1": "ALICE", "audio2": "LARGE"}, 413),
        (VERIFY, {"audio1": "ALICE", "audio2": GARBAGE}, 415),
        (ANALYZE, {"model": "talker", "audio": "ALICE"}, 200),
        (ANALYZE, {"model": "talker", "audio": "ALICE", "actions": ["age", "emotion"]}, 200),
        (ANALYZE, {"model": "talker", "audio": "ALICE", "actions": ["shoe size"]}, 400),
        (ANALYZE, {"model": "talker", "audio": "ALICE", "actions": ["race"]}, 400),
        (ANALYZE, {"audio": "ALICE"}, 501),
        (EMBED, {"audio": "ALICE"}, 200),
        (EMBED, {"audio": ""}, 400),
        (EMBED, {"audio": "data:audio/wav;base64,"}, 400),
        (EMBED, {"audio": "%%%"}, 400),
        (EMBED, {"audio": "http://127.0.0.1/a.wav"}, 400),
        (EMBED, {"audio": "ftp://example.com/a.wav"}, 400),
        (REGISTER, {"audio": "ALICE", "name": "Alice"}, 200),
        (REGISTER, {"audio": "ALICE", "name": " "}, 400),
        (REGISTER, {"audio": "SILENT", "name": "Alice"}, 400),
        (IDENTIFY, {"audio": "ALICE", "top_k": 0}, 200),
        (IDENTIFY, {"audio": "ALICE", "top_k": 1001}, 400),
        (IDENTIFY, {"audio": GARBAGE}, 415),
        (FORGET, {"id": "nobody"}, 404),
        (FORGET, {"id": ""}, 400),
        ("/v1/face/embed", {"model": "bare", "img": "ALICE"}, 404),
    ],
)
async def test_each_answer_is_one_that_its_route_documents(
    app: FastAPI,
    client: httpx.AsyncClient,
    clips: dict[str, str],
    path: str,
    body: dict[str, Any],
    status: int,
) -> None:
    answer = await client.post(path, json=filled(body, clips))
    assert answer.status_code == status, answer.text
    assert str(status) in app.openapi()["paths"][path]["post"]["responses"]
    assert ("error" in answer.json()) is (status != 200)


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (VERIFY, {"audio1": "ALICE", "audio2": GARBAGE}, "audio2"),
        (VERIFY, {"audio1": "SILENT", "audio2": "ALICE"}, "audio1"),
        (VERIFY, {"audio1": "ALICE", "audio2": "LONG"}, "audio2"),
        (EMBED, {"audio": "LARGE"}, "audio"),
        (EMBED, {"audio": "http://127.0.0.1/a.wav"}, "audio"),
    ],
)
async def test_what_is_wrong_with_a_clip_names_its_field(
    client: httpx.AsyncClient, clips: dict[str, str], path: str, body: dict[str, object], param: str
) -> None:
    error = (await client.post(path, json=filled(body, clips))).json()["error"]
    assert error["param"] == param
    assert error["message"].startswith(f"{param}: ")
    assert error["message"].count(f"{param}:") == 1


async def test_verify_answers_localais_fields(client: httpx.AsyncClient, clips: dict[str, str]) -> None:
    body = {"audio1": clips["ALICE"], "audio2": clips["ALICE"]}
    answer = (await client.post(VERIFY, json=body)).json()
    assert answer.pop("processing_time_ms") > 0
    assert answer == {
        "verified": True,
        "distance": pytest.approx(0, abs=1e-6),
        "threshold": 0.25,
        "confidence": pytest.approx(100, abs=1e-3),
        "model": "bare",
    }
    answer = (await client.post(VERIFY, json={"model": "talker", "threshold": 0, **body})).json()
    assert (answer["model"], answer["threshold"]) == ("talker", 0.3)


async def test_anti_spoofing_is_reported_as_unused_only_when_asked(
    client: httpx.AsyncClient, clips: dict[str, str]
) -> None:
    body = {"audio1": clips["ALICE"], "audio2": clips["ALICE"]}
    for asked, unused in ((True, ["anti_spoofing"]), (False, None)):
        answer = (await client.post(VERIFY, json={**body, "anti_spoofing": asked})).json()
        assert answer.get("unused") == unused
        assert answer["verified"] is True


async def test_analyze_is_one_segment_over_the_clip(client: httpx.AsyncClient, clips: dict[str, str]) -> None:
    body = {"model": "talker", "audio": clips["ALICE"]}
    assert (await client.post(ANALYZE, json=body)).json() == {
        "segments": [
            {
                "start": 0,
                "end": 0.5,
                "age": 41.5,
                "dominant_gender": "Female",
                "gender": {"Female": 0.9, "Male": 0.1},
                "dominant_emotion": "neutral",
                "emotion": {"neutral": 0.7, "sad": 0.3},
            }
        ]
    }
    (segment,) = (await client.post(ANALYZE, json={**body, "actions": ["age"]})).json()["segments"]
    assert set(segment) == {"start", "end", "age"}


async def test_analyze_without_heads_names_the_options(
    client: httpx.AsyncClient, clips: dict[str, str]
) -> None:
    error = (await client.post(ANALYZE, json={"audio": clips["ALICE"]})).json()["error"]
    assert error["code"] == 501
    assert "emotion_model" in error["message"]
    assert "age_gender_model" in error["message"]


async def test_embed_answers_its_fields(client: httpx.AsyncClient, clips: dict[str, str]) -> None:
    answer = (
        await client.post(EMBED, json={"audio": f"data:audio/wav;codecs=1;base64,{clips['BOB']}"})
    ).json()
    assert set(answer) == {"embedding", "dim", "model"}
    assert (answer["dim"], len(answer["embedding"]), answer["model"]) == (8, 8, "bare")
    assert np.linalg.norm(answer["embedding"]) == pytest.approx(1, abs=1e-6)


async def test_a_speaker_is_enrolled_found_and_forgotten(
    client: httpx.AsyncClient, clips: dict[str, str]
) -> None:
    enrolled = (
        await client.post(
            REGISTER, json={"audio": clips["ALICE"], "name": "Alice", "labels": {"team": "ops"}}
        )
    ).json()
    assert set(enrolled) == {"id", "name", "registered_at"}
    (match,) = (await client.post(IDENTIFY, json={"audio": clips["ALICE"]})).json()["matches"]
    assert match.pop("distance") == pytest.approx(0, abs=1e-6)
    assert match.pop("confidence") == pytest.approx(100, abs=1e-3)
    assert match == {"id": enrolled["id"], "name": "Alice", "labels": {"team": "ops"}, "match": True}
    (far,) = (await client.post(IDENTIFY, json={"audio": clips["BOB"]})).json()["matches"]
    assert far["match"] is False
    listed = (await client.get("/v1/voice/registrations")).json()
    assert [(one["name"], one["model"]) for one in listed["data"]] == [("Alice", "bare")]
    assert (await client.get("/v1/face/registrations")).json()["total"] == 0
    assert (await client.post("/v1/face/forget", json={"id": enrolled["id"]})).status_code == 404
    body = json.dumps({"id": enrolled["id"]})
    assert (await client.post(FORGET, content=body)).status_code == 204
    assert (await client.post(FORGET, content=body)).status_code == 404


async def test_models_of_one_kind_do_not_see_each_others_people(
    client: httpx.AsyncClient, clips: dict[str, str]
) -> None:
    await client.post(REGISTER, json={"audio": clips["ALICE"], "name": "Alice", "model": "talker"})
    for model, names in (("talker", ["Alice"]), ("bare", [])):
        found = (await client.post(IDENTIFY, json={"audio": clips["ALICE"], "model": model})).json()
        assert [match["name"] for match in found["matches"]] == names


@pytest.mark.parametrize(
    ("path", "model", "told"),
    [
        (EMBED, "portrait", "is a face model; this route needs a voice model"),
        (EMBED, "nobody", "GET /v1/models"),
        ("/v1/face/embed", "talker", "no face model is installed"),
    ],
)
async def test_a_wrong_model_is_told_why(client: httpx.AsyncClient, path: str, model: str, told: str) -> None:
    answer = await client.post(path, json={"model": model, "audio": "AAAA", "img": "AAAA"})
    assert answer.status_code == 404
    assert told in answer.json()["error"]["message"]


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([GARBAGE, "data:audio/webm;codecs=opus;base64,AAAA", "UklGRg=="]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
FIELDS = st.sampled_from(
    ["model", "audio", "audio1", "audio2", "threshold", "actions", "anti_spoofing", "name", "labels", "id"]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from([VERIFY, ANALYZE, EMBED, REGISTER, IDENTIFY, FORGET]),
    body=ANYTHING | st.dictionaries(FIELDS, ANYTHING, max_size=5),
)
async def test_no_body_is_answered_beyond_the_documents(
    app: FastAPI, client: httpx.AsyncClient, path: str, body: object
) -> None:
    answer = await client.post(path, content=json.dumps(body))
    assert str(answer.status_code) in app.openapi()["paths"][path]["post"]["responses"], answer.text
