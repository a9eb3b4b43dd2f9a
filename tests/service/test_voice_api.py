"""The voice routes over HTTP against the running application, on real recordings."""

import base64
import json
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import numpy as np
import pytest

pytestmark = pytest.mark.service

Encode = Callable[[Path], str]
GE2E = "resemblyzer-ge2e"
VERIFY, ANALYZE, EMBED = "/v1/voice/verify", "/v1/voice/analyze", "/v1/voice/embed"
REGISTER, IDENTIFY, FORGET = "/v1/voice/register", "/v1/voice/identify", "/v1/voice/forget"


def post(client: httpx.Client, path: str, **body: object) -> dict[str, Any]:
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def refused(client: httpx.Client, path: str, status: int, **body: object) -> str:
    """The message of an error of that status, which tells nothing that is not the caller's."""
    response = client.post(path, json=body)
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    assert error["code"] == status
    assert set(error) <= {"code", "message", "type", "param"}
    for leak in ("Traceback", "/home", "/var", "site-packages", ".py"):
        assert leak not in error["message"]
    return str(error["message"])


@pytest.fixture(scope="module")
def audio(shared: Path) -> Path:
    return shared / "media" / "audio"


@pytest.fixture(scope="module")
def speakers(audio: Path, picture: Encode) -> dict[str, list[str]]:
    """Three recordings of each of ten people, as base64."""
    people = sorted((audio / "speakers").iterdir())
    return {person.name: [picture(path) for path in sorted(person.glob("*.flac"))[:3]] for person in people}


@pytest.fixture
def alice(speakers: dict[str, list[str]]) -> list[str]:
    return speakers["1998"]


@pytest.fixture
def bob(speakers: dict[str, list[str]]) -> list[str]:
    return speakers["2414"]


@pytest.fixture
def edge(audio: Path, picture: Encode) -> Callable[[str], str]:
    """A file of edge_cases as base64."""
    return lambda name: picture(audio / "edge_cases" / name)


@pytest.fixture
def store() -> str:
    """A store that no other test uses."""
    return f"v-{uuid4().hex}"


def distance(client: httpx.Client, one: str, two: str) -> float:
    return float(post(client, VERIFY, model=GE2E, audio1=one, audio2=two)["distance"])


def test_verify_tells_same_from_different(client: httpx.Client, alice: list[str], bob: list[str]) -> None:
    same = post(client, VERIFY, model=GE2E, audio1=alice[0], audio2=alice[1])
    other = post(client, VERIFY, model=GE2E, audio1=alice[0], audio2=bob[0])
    fields = {"verified", "distance", "threshold", "confidence", "model", "processing_time_ms"}
    assert set(same) == set(other) == fields
    assert same["verified"] is True
    assert other["verified"] is False
    assert same["distance"] <= same["threshold"] == 0.25 < other["distance"]
    assert same["confidence"] == pytest.approx((1 - same["distance"] / 0.25) * 100, abs=0.01)
    assert other["confidence"] == 0
    assert same["model"] == GE2E
    assert same["processing_time_ms"] > 0


def test_every_pair_of_ten_people_is_nearer_to_itself(
    client: httpx.Client, speakers: dict[str, list[str]]
) -> None:
    """Same-speaker distances stay below LocalAI's ceiling of 0.4; strangers are farther on average."""
    with ThreadPoolExecutor(8) as pool:
        clips = [clip for person in speakers.values() for clip in person[:2]]
        answers = pool.map(lambda clip: post(client, EMBED, model=GE2E, audio=clip)["embedding"], clips)
        rows = np.array(list(answers)).reshape(len(speakers), 2, -1)
    distances = 1 - rows[:, 0] @ rows[:, 1].T
    same, others = np.diag(distances), distances[~np.eye(len(speakers), dtype=bool)]
    assert same.max() < 0.4
    assert same.max() < np.median(others)
    assert (np.argmin(distances, axis=1) == np.arange(len(speakers))).all()


def test_one_recording_twice_is_the_same_voice(client: httpx.Client, alice: list[str]) -> None:
    answer = post(client, VERIFY, model=GE2E, audio1=alice[0], audio2=alice[0])
    assert answer["distance"] < 0.05
    assert answer["confidence"] > 80


def test_the_threshold_of_the_request_decides(client: httpx.Client, alice: list[str], bob: list[str]) -> None:
    body = {"model": GE2E, "audio1": alice[0], "audio2": bob[0]}
    usual = post(client, VERIFY, **body, threshold=0)
    assert (usual["verified"], usual["threshold"]) == (False, 0.25)
    strict = post(client, VERIFY, **body, threshold=usual["distance"] - 0.01)
    assert (strict["verified"], strict["threshold"]) == (False, usual["distance"] - 0.01)
    loose = post(client, VERIFY, **body, threshold=usual["distance"] + 0.01)
    assert (loose["verified"], loose["threshold"]) == (True, usual["distance"] + 0.01)


def test_without_a_model_the_first_voice_model_answers(client: httpx.Client, alice: list[str]) -> None:
    assert post(client, EMBED, audio=alice[0])["model"] == GE2E
    assert post(client, EMBED, audio=alice[0], model="")["model"] == GE2E


def test_anti_spoofing_is_reported_as_unused(client: httpx.Client, alice: list[str]) -> None:
    body = {"model": GE2E, "audio1": alice[0], "audio2": alice[0]}
    assert post(client, VERIFY, **body, anti_spoofing=True)["unused"] == ["anti_spoofing"]
    assert "unused" not in post(client, VERIFY, **body, anti_spoofing=False)


@pytest.mark.parametrize(("model", "dim"), [(GE2E, 256), ("talker", 8)])
def test_embed_is_a_unit_vector(client: httpx.Client, alice: list[str], model: str, dim: int) -> None:
    answer = post(client, EMBED, model=model, audio=alice[0])
    assert set(answer) == {"embedding", "dim", "model"}
    assert answer["dim"] == dim == len(answer["embedding"])
    assert answer["model"] == model
    assert np.linalg.norm(answer["embedding"]) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("jfk_16k.flac", 0.01),
        ("jfk_16k.mp3", 0.02),
        ("jfk_16k.ogg", 0.02),
        ("jfk_48k.opus", 0.02),
        ("jfk_pcm24_16k.wav", 0.01),
        ("jfk_float32_16k.wav", 0.01),
        ("jfk_u8_16k.wav", 0.1),
        ("jfk_ulaw_16k.wav", 0.05),
        ("jfk_8000.wav", 0.1),
        ("jfk_22050.wav", 0.01),
        ("jfk_44100.wav", 0.01),
        ("jfk_48000.wav", 0.01),
        ("jfk_stereo_44100.wav", 0.01),
        ("bad_size_field.wav", 0.01),
        ("truncated.wav", 0.15),
        ("clipped.wav", 0.25),
    ],
)
def test_one_recording_in_every_form_is_one_voice(
    client: httpx.Client, edge: Callable[[str], str], name: str, most: float
) -> None:
    assert distance(client, edge("jfk_pcm16_16k.wav"), edge(name)) < most


@pytest.mark.parametrize(
    ("name", "status", "told"),
    [
        ("noise_5s.wav", 200, ""),
        ("tone440_5s.wav", 200, ""),
        ("jfk_snr5.wav", 200, ""),
        ("silence_5s.wav", 400, "audio: the clip is silent"),
        ("one_sample.wav", 400, "audio: the clip is silent"),
        ("zero_bytes.wav", 400, "audio: empty"),
        ("nan_float32.wav", 415, "not finite"),
        ("text_as.wav", 415, "no sound"),
        ("header_only.wav", 415, "no samples"),
        ("raw_pcm16_16k.pcm", 415, "no sound"),
    ],
)
@pytest.mark.parametrize("route", [EMBED, REGISTER, IDENTIFY])
def test_every_kind_of_clip_is_answered(
    client: httpx.Client, edge: Callable[[str], str], route: str, name: str, status: int, told: str
) -> None:
    body = {"model": GE2E, "audio": edge(name), "name": "somebody", "store": "edge-cases"}
    if status == 200:
        post(client, route, **body)
    else:
        assert told in refused(client, route, status, **body)


def test_too_short_and_too_long_are_told_with_the_limit(
    client: httpx.Client, tone: Callable[..., bytes]
) -> None:
    short, long = (base64.b64encode(tone(440, seconds)).decode() for seconds in (0.2, 31))
    assert "0.20 seconds" in refused(client, EMBED, 400, model=GE2E, audio=short)
    assert "30 seconds" in refused(client, EMBED, 413, model=GE2E, audio=long)


def test_what_is_wrong_is_told_by_its_field(
    client: httpx.Client, alice: list[str], edge: Callable[[str], str]
) -> None:
    silence, text = edge("silence_5s.wav"), edge("text_as.wav")
    told = refused(client, VERIFY, 400, model=GE2E, audio1=alice[0], audio2=silence)
    assert told.startswith("audio2: the clip is silent")
    assert refused(client, VERIFY, 415, model=GE2E, audio1=text, audio2=alice[0]).startswith("audio1: ")


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "data:audio/flac;base64,",
        "data:;base64,",
        "data:audio/flac;codecs=flac;base64,",
        'data:audio/ogg;codecs="opus";name=a.ogg;base64,',
        "DATA:application/octet-stream;BASE64,",
    ],
)
def test_every_form_of_the_same_bytes_is_the_same_voice(
    client: httpx.Client, alice: list[str], prefix: str
) -> None:
    assert distance(client, alice[0], prefix + alice[0]) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("data:audio/wav;base64,", "empty"),
        ("not base64!", "base64"),
        ("aGVsbG8=x", "base64"),
        ("data:audio/wav;base64", "comma"),
        ("ftp://example.com/a.wav", "http"),
        ("file:///etc/passwd", "http"),
        ("http://127.0.0.1/a.wav", "not allowed"),
        ("http://localhost/a.wav", "not allowed"),
        ("http://169.254.169.254/latest", "not allowed"),
    ],
)
def test_input_that_is_no_clip_is_refused_with_the_reason(
    client: httpx.Client, value: str, told: str
) -> None:
    message = refused(client, EMBED, 400, model=GE2E, audio=value)
    assert message.startswith("audio: ")
    assert told in message


@pytest.fixture(scope="module")
def origin(audio: Path) -> Iterator[str]:
    """A web server for the recordings at an address that the service may fetch from."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.2", 0), partial(Handler, directory=str(audio))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.2:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_url_is_fetched(client: httpx.Client, origin: str, picture: Encode, audio: Path) -> None:
    sent = picture(audio / "jfk.flac")
    assert distance(client, sent, f"{origin}/jfk.flac") == pytest.approx(0, abs=1e-5)
    assert "404" in refused(client, EMBED, 400, model=GE2E, audio=f"{origin}/nothing.wav")


def test_a_body_over_the_limit_is_413(client: httpx.Client) -> None:
    refused(client, EMBED, 413, audio="A" * (16 * 2**20))


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "audio"),
        ({"audio": None}, "audio"),
        ({"audio": 5}, "audio"),
        ({"audio": "AAAA", "actions": ["race"]}, "actions.0"),
        ({"audio": "AAAA", "actions": "age"}, "actions"),
        ({"audio": "AAAA", "actions": ["age"] * 17}, "actions"),
    ],
)
def test_wrong_fields_are_named(client: httpx.Client, body: dict[str, Any], param: str) -> None:
    response = client.post(ANALYZE, json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


def test_analyze_without_heads_is_501_and_names_the_options(client: httpx.Client, alice: list[str]) -> None:
    told = refused(client, ANALYZE, 501, model=GE2E, audio=alice[0])
    assert "emotion_model" in told
    assert "age_gender_model" in told
    told = refused(client, ANALYZE, 501, model=GE2E, audio=alice[0], actions=["age"])
    assert "emotion_model" not in told


def test_analyze_tells_what_it_can(client: httpx.Client, picture: Encode, audio: Path) -> None:
    """The emotion head is there, with random weights; the age and gender head cannot be had."""
    clip = picture(audio / "edge_cases" / "jfk_16k.mp3")
    for actions in ([], ["emotion"], ["age", "emotion"]):
        answer = post(client, ANALYZE, model="talker", audio=clip, actions=actions)
        (segment,) = answer["segments"]
        assert set(segment) == {"start", "end", "emotion", "dominant_emotion"}
        assert segment["start"] == 0
        assert segment["end"] == pytest.approx(11, abs=0.1)
        assert set(segment["emotion"]) == {"neutral", "happy", "angry", "sad"}
        assert sum(segment["emotion"].values()) == pytest.approx(1, abs=1e-4)
        assert segment["emotion"][segment["dominant_emotion"]] == max(segment["emotion"].values())


def test_a_head_that_cannot_be_had_is_501_with_reason_and_remedy(
    client: httpx.Client, alice: list[str]
) -> None:
    told = refused(client, ANALYZE, 501, model="talker", audio=alice[0], actions=["age", "gender"])
    assert "age_gender_model" in told
    assert "absent/model" in told
    assert client.get("/readyz").status_code == 200


def test_analyze_refuses_bad_clips_as_the_others_do(client: httpx.Client, edge: Callable[[str], str]) -> None:
    for name, status in (("silence_5s.wav", 400), ("text_as.wav", 415), ("zero_bytes.wav", 400)):
        refused(client, ANALYZE, status, model="talker", audio=edge(name))


def test_bad_clips_leave_good_ones_in_their_batch_alone(
    client: httpx.Client, speakers: dict[str, list[str]], edge: Callable[[str], str]
) -> None:
    good = [person[0] for person in speakers.values()]
    alone = [post(client, EMBED, model=GE2E, audio=clip)["embedding"] for clip in good]
    bad = {"silence_5s.wav": 400, "text_as.wav": 415, "nan_float32.wav": 415, "zero_bytes.wav": 400}
    mixed = [clip for pair in zip(good, [*map(edge, bad)] * 3, strict=False) for clip in pair]
    with ThreadPoolExecutor(len(mixed)) as pool:
        answers = list(pool.map(lambda clip: client.post(EMBED, json={"model": GE2E, "audio": clip}), mixed))
    assert [answer.status_code for answer in answers[1::2]] == ([*bad.values()] * 3)[: len(good)]
    for answer, expected in zip(answers[::2], alone, strict=True):
        assert answer.status_code == 200, answer.text
        np.testing.assert_allclose(answer.json()["embedding"], expected, atol=1e-4)


def test_register_identify_forget(client: httpx.Client, store: str, alice: list[str], bob: list[str]) -> None:
    where = {"model": GE2E, "store": store}
    assert post(client, IDENTIFY, audio=alice[1], **where) == {"matches": []}
    labels = {"team": "press"}
    one = post(client, REGISTER, audio=alice[0], name="Alice", labels=labels, **where)
    two = post(client, REGISTER, audio=bob[0], name="Bob", **where)
    assert set(one) == {"id", "name", "registered_at"}
    assert UUID(one["id"]) != UUID(two["id"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", one["registered_at"])
    near, far = post(client, IDENTIFY, audio=alice[1], **where)["matches"]
    assert set(near) == {"id", "name", "labels", "distance", "confidence", "match"}
    assert (near["id"], near["name"], near["labels"], near["match"]) == (one["id"], "Alice", labels, True)
    assert (far["id"], far["match"], far["confidence"]) == (two["id"], False, 0)
    assert near["distance"] <= 0.25 < far["distance"]
    assert len(post(client, IDENTIFY, audio=alice[1], top_k=1, **where)["matches"]) == 1
    loose = post(client, IDENTIFY, audio=alice[1], threshold=2, **where)["matches"]
    assert [match["match"] for match in loose] == [True, True]
    gone = client.post(FORGET, json={"id": one["id"], "store": store})
    assert (gone.status_code, gone.content) == (204, b"")
    assert [match["id"] for match in post(client, IDENTIFY, audio=alice[1], **where)["matches"]] == [
        two["id"]
    ]
    assert one["id"] in refused(client, FORGET, 404, id=one["id"])


@pytest.mark.parametrize(
    "header",
    [{"content-type": "application/json"}, {"content-type": "application/x-www-form-urlencoded"}, {}],
)
def test_forget_takes_a_body_with_any_header(
    client: httpx.Client, store: str, alice: list[str], header: dict[str, str]
) -> None:
    made = post(client, REGISTER, model=GE2E, audio=alice[0], name="Alice", store=store)
    body = json.dumps({"id": made["id"]}).encode()
    assert client.post(FORGET, content=body, headers=header).status_code == 204


def test_thirty_two_speakers_enrolled_at_once_are_all_found(
    service: Any, store: str, speakers: dict[str, list[str]]
) -> None:
    names = [f"speaker {number}" for number in range(32)]
    clips = [clip for person in speakers.values() for clip in person]

    def enrol(number: int) -> str:
        with service.client() as own:
            clip = clips[number % len(clips)]
            return str(post(own, REGISTER, model=GE2E, audio=clip, name=names[number], store=store)["id"])

    with ThreadPoolExecutor(32) as pool:
        ids = list(pool.map(enrol, range(32)))
    assert len(set(ids)) == 32
    with service.client() as client:
        found = post(client, IDENTIFY, model=GE2E, audio=clips[0], store=store, top_k=100)["matches"]
        assert {match["id"] for match in found} == set(ids)
        distances = [match["distance"] for match in found]
        assert distances == sorted(distances)
        assert found[0]["distance"] == pytest.approx(0, abs=1e-4)
        listed = client.get("/v1/voice/registrations", params={"store": store, "limit": 1}).json()
        assert listed["total"] == 32


def test_several_samples_of_a_person_count_as_one(
    client: httpx.Client, store: str, alice: list[str], bob: list[str]
) -> None:
    where = {"model": GE2E, "store": store}
    for clip in alice[:2]:
        post(client, REGISTER, audio=clip, name="Alice", **where)
    post(client, REGISTER, audio=bob[0], name="Bob", **where)
    found = post(client, IDENTIFY, audio=alice[2], best_per_name=True, **where)["matches"]
    assert [(match["name"], match["match"]) for match in found] == [("Alice", True), ("Bob", False)]


def test_a_registration_is_listed_read_changed_and_deleted(
    client: httpx.Client, store: str, alice: list[str]
) -> None:
    made = post(client, REGISTER, model=GE2E, audio=alice[0], name="Alice", store=store)
    path = f"/v1/voice/registrations/{made['id']}"
    card = {**made, "labels": {}, "model": GE2E, "store": store}
    assert client.get(path).json() == card
    assert client.get("/v1/voice/registrations", params={"store": store}).json() == {
        "data": [card],
        "total": 1,
    }
    changed = client.patch(path, json={"name": "Alicia", "labels": {"team": "ops"}}).json()
    assert changed == {**card, "name": "Alicia", "labels": {"team": "ops"}}
    assert client.delete(path).status_code == 204
    assert client.get(path).status_code == 404


def test_faces_and_voices_do_not_meet(
    client: httpx.Client, store: str, alice: list[str], picture: Encode, shared: Path
) -> None:
    face = picture(sorted((shared / "media" / "faces" / "lfw" / "John_Kerry").glob("*.jpg"))[0])
    voice_id = post(client, REGISTER, model=GE2E, audio=alice[0], name="V", store=store)["id"]
    face_id = post(client, "/v1/face/register", model="mini", img=face, name="F", store=store)["id"]
    voices = post(client, IDENTIFY, model=GE2E, audio=alice[0], store=store)["matches"]
    faces = post(client, "/v1/face/identify", model="mini", img=face, store=store)["matches"]
    assert [match["id"] for match in voices] == [voice_id]
    assert [match["id"] for match in faces] == [face_id]
    refused(client, "/v1/face/forget", 404, id=voice_id)
    refused(client, FORGET, 404, id=face_id)
    for kind, known in (("voice", voice_id), ("face", face_id)):
        listed = client.get(f"/v1/{kind}/registrations", params={"store": store}).json()["data"]
        assert [one["id"] for one in listed] == [known]
        assert client.get(f"/v1/{kind}/registrations/{known}").status_code == 200
        assert client.post(f"/v1/{kind}/forget", json={"id": known}).status_code == 204


def test_models_of_other_dimensions_do_not_meet(client: httpx.Client, store: str, alice: list[str]) -> None:
    ids = {
        model: post(client, REGISTER, model=model, audio=alice[0], name=model, store=store)["id"]
        for model in (GE2E, "talker")
    }
    for model, known in ids.items():
        found = post(client, IDENTIFY, model=model, audio=alice[0], store=store)["matches"]
        assert [match["id"] for match in found] == [known]


@pytest.mark.parametrize(
    ("path", "model", "told"),
    [
        (EMBED, "nobody", 'model "nobody" not found'),
        (VERIFY, "nobody", "GET /v1/models"),
        (ANALYZE, "mini", 'model "mini" is a face model; this route needs a voice model'),
        (REGISTER, "mini", "is a face model"),
        (IDENTIFY, "nobody", "not found"),
        ("/v1/face/embed", GE2E, f'model "{GE2E}" is a voice model; this route needs a face model'),
        ("/v1/face/verify", GE2E, "is a voice model"),
    ],
)
def test_a_model_that_does_not_fit_is_404_with_the_reason(
    client: httpx.Client, alice: list[str], path: str, model: str, told: str
) -> None:
    clip = alice[0]
    fields = dict.fromkeys(("audio", "audio1", "audio2", "img", "img1", "img2"), clip)
    assert told in refused(client, path, 404, model=model, name="x", **fields)
