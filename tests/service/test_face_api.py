"""The face routes over HTTP against the running application, on real photographs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.service

Picture = Callable[[Path], str]


def post(client: httpx.Client, path: str, **body: object) -> dict[str, Any]:
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def refused(client: httpx.Client, path: str, status: int, **body: object) -> dict[str, Any]:
    response = client.post(path, json=body)
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    assert error["code"] == status
    assert set(error) <= {"code", "message", "type", "param"}
    for leak in ("Traceback", "/home", "/var", "site-packages", ".py"):
        assert leak not in error["message"]
    return error


@pytest.fixture
def faces(shared: Path) -> Path:
    return shared / "media" / "faces"


@pytest.fixture
def kerry(faces: Path) -> list[Path]:
    return sorted((faces / "lfw" / "John_Kerry").glob("*.jpg"))


@pytest.fixture
def serra(faces: Path) -> list[Path]:
    return sorted((faces / "lfw" / "Jose_Serra").glob("*.jpg"))


@pytest.mark.parametrize("model", ["dlib-resnet", "mini"])
def test_verify_tells_same_from_different(
    client: httpx.Client, picture: Picture, kerry: list[Path], serra: list[Path], model: str
) -> None:
    same = post(client, "/v1/face/verify", model=model, img1=picture(kerry[0]), img2=picture(kerry[1]))
    other = post(client, "/v1/face/verify", model=model, img1=picture(kerry[0]), img2=picture(serra[0]))
    assert same["verified"] is True
    assert other["verified"] is False
    assert same["distance"] < same["threshold"] < other["distance"]
    assert 0 < same["confidence"] <= 100
    assert other["confidence"] == 0
    assert same["model"] == model
    assert same["processing_time_ms"] > 0
    assert not [name for name in same if "real" in name or "antispoof" in name]
    for area in (same["img1_area"], same["img2_area"]):
        assert area["x"] >= 0
        assert area["y"] >= 0
        assert area["x"] + area["w"] <= 250
        assert area["y"] + area["h"] <= 250
        assert area["w"] > 50


def test_a_fused_model_answers_the_same_numbers(
    client: httpx.Client, picture: Picture, kerry: list[Path], faces: Path
) -> None:
    pair = {"img1": picture(kerry[0]), "img2": picture(kerry[1]), "anti_spoofing": True}
    split, fused = (post(client, "/v1/face/verify", model=model, **pair) for model in ("mini", "mini-fused"))
    assert fused.keys() == split.keys()
    for key in ("verified", "img1_area", "img2_area", "img1_is_real", "img2_is_real"):
        assert fused[key] == split[key]
    for key in ("distance", "confidence", "img1_antispoof_score", "img2_antispoof_score"):
        assert fused[key] == pytest.approx(split[key], abs=1e-3)
    group = picture(faces / "groups" / "t1.jpg")
    whole = [post(client, "/v1/face/analyze", model=model, img=group) for model in ("mini", "mini-fused")]
    assert whole[0] == whole[1]


def test_verify_of_one_picture_with_itself_is_exact(
    client: httpx.Client, picture: Picture, kerry: list[Path]
) -> None:
    answer = post(client, "/v1/face/verify", model="mini", img1=picture(kerry[0]), img2=picture(kerry[0]))
    assert answer["distance"] == pytest.approx(0, abs=1e-5)
    assert answer["confidence"] == pytest.approx(100, abs=0.1)


def test_without_a_model_the_first_one_answers(
    client: httpx.Client, picture: Picture, kerry: list[Path]
) -> None:
    answer = post(client, "/v1/face/verify", img1=picture(kerry[0]), img2=picture(kerry[1]))
    assert answer["model"] == "dlib-resnet"
    assert answer["threshold"] == pytest.approx(0.08)


def test_threshold_of_the_request_decides(client: httpx.Client, picture: Picture, kerry: list[Path]) -> None:
    body = {"model": "mini", "img1": picture(kerry[0]), "img2": picture(kerry[1])}
    usual = post(client, "/v1/face/verify", **body)
    strict = post(client, "/v1/face/verify", **body, threshold=usual["distance"] / 2)
    assert usual["verified"] is True
    assert strict["verified"] is False
    assert strict["confidence"] == 0
    assert post(client, "/v1/face/verify", **body, threshold=0)["threshold"] == pytest.approx(0.6)


def test_yunet_and_sface_verify_by_the_threshold_that_is_asked_for(
    client: httpx.Client, picture: Picture, kerry: list[Path]
) -> None:
    one, other = picture(kerry[0]), picture(kerry[1])
    same = post(client, "/v1/face/verify", model="opencv", img1=one, img2=one, threshold=0.4)
    assert (same["verified"], same["model"]) == (True, "opencv")
    assert (same["distance"], same["threshold"]) == (pytest.approx(0, abs=1e-5), pytest.approx(0.4))
    two = post(client, "/v1/face/verify", model="opencv", img1=one, img2=other)
    assert two["distance"] > 1e-4
    assert two["threshold"] == pytest.approx(0.5)


def test_data_uris_and_raw_base64_are_the_same_picture(
    client: httpx.Client, picture: Picture, kerry: list[Path]
) -> None:
    raw = picture(kerry[0])
    uri = f"data:image/jpeg;name=x.jpg;base64,{raw}"
    answer = post(client, "/v1/face/verify", model="mini", img1=raw, img2=uri)
    assert answer["distance"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(("model", "dim"), [("dlib-resnet", 128), ("mini", 128), ("opencv", 128)])
def test_embed_is_a_unit_vector(
    client: httpx.Client, picture: Picture, kerry: list[Path], model: str, dim: int
) -> None:
    answer = post(client, "/v1/face/embed", model=model, img=picture(kerry[0]))
    assert set(answer) == {"embedding", "dim", "model"}
    assert answer["dim"] == dim == len(answer["embedding"])
    assert answer["model"] == model
    assert np.linalg.norm(answer["embedding"]) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("model", ["mini", "opencv"])
@pytest.mark.parametrize("route", ["/v1/detection", "/v1/face/detect"])
def test_detection_finds_the_group(
    client: httpx.Client, picture: Picture, faces: Path, model: str, route: str
) -> None:
    group = faces / "groups" / "t1.jpg"
    with Image.open(group) as opened:
        width, height = opened.size
    found = post(client, route, model=model, image=picture(group))["detections"]
    assert len(found) == 6
    for face in found:
        assert face["class_name"] == "face"
        assert 0.5 <= face["confidence"] <= 1
        assert face["x"] >= 0
        assert face["y"] >= 0
        assert face["x"] + face["width"] <= width
        assert face["y"] + face["height"] <= height
    scores = [face["confidence"] for face in found]
    assert scores == sorted(scores, reverse=True)
    assert len(post(client, route, model=model, image=picture(group), threshold=0.999)["detections"]) < 6


def test_analyze_tells_age_gender_and_expression(
    client: httpx.Client, picture: Picture, kerry: list[Path], faces: Path
) -> None:
    man = post(client, "/v1/face/analyze", model="mini", img=picture(kerry[0]))["faces"][0]
    assert man["dominant_gender"] == "Man"
    assert man["gender"] == {"Man": 1.0, "Woman": 0.0}
    assert 20 < man["age"] < 90
    assert man["face_confidence"] > 0.5
    assert "race" not in man
    assert "is_real" not in man
    happy = post(client, "/v1/face/analyze", model="mini", img=picture(faces / "expressions" / "happy.jpg"))
    assert happy["faces"][0]["dominant_emotion"] == "happy"
    assert sum(happy["faces"][0]["emotion"].values()) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("actions", "present", "absent"),
    [
        (["age"], {"age"}, {"gender", "dominant_gender", "emotion"}),
        (["gender"], {"gender", "dominant_gender"}, {"age", "emotion"}),
        (["emotion"], {"emotion", "dominant_emotion"}, {"age", "gender"}),
        (["race"], set(), {"age", "gender", "emotion", "race"}),
    ],
)
def test_actions_are_honoured(
    client: httpx.Client,
    picture: Picture,
    kerry: list[Path],
    actions: list[str],
    present: set[str],
    absent: set[str],
) -> None:
    face = post(client, "/v1/face/analyze", model="mini", img=picture(kerry[0]), actions=actions)["faces"][0]
    assert present <= set(face)
    assert not absent & set(face)


def test_a_model_without_heads_returns_bare_regions(
    client: httpx.Client, picture: Picture, kerry: list[Path]
) -> None:
    face = post(client, "/v1/face/analyze", model="opencv", img=picture(kerry[0]))["faces"][0]
    assert set(face) == {"region", "face_confidence"}


def test_analyze_describes_every_face_of_a_group(client: httpx.Client, picture: Picture, faces: Path) -> None:
    answer = post(client, "/v1/face/analyze", model="mini", img=picture(faces / "groups" / "t1.jpg"))
    assert len(answer["faces"]) == 6
    genders = [face["dominant_gender"] for face in answer["faces"]]
    assert {"Man", "Woman"} == set(genders)


@pytest.mark.parametrize(
    ("name", "real"),
    [("image_T1.jpg", True), ("image_F1.jpg", False), ("image_F2.jpg", False), ("rgb_fake.jpg", False)],
)
def test_liveness_tells_living_faces_from_prints_and_screens(
    client: httpx.Client, picture: Picture, faces: Path, name: str, real: bool
) -> None:
    encoded = picture(faces / "spoof" / name)
    face = post(client, "/v1/face/analyze", model="mini", img=encoded, anti_spoofing=True)["faces"][0]
    assert face["is_real"] is real
    assert 0 <= face["antispoof_score"] <= 1
    same = post(client, "/v1/face/verify", model="mini", img1=encoded, img2=encoded, anti_spoofing=True)
    assert same["distance"] == pytest.approx(0, abs=1e-5)
    assert same["verified"] is real
    assert same["img1_is_real"] is same["img2_is_real"] is real
    assert same["img1_antispoof_score"] == pytest.approx(face["antispoof_score"], abs=1e-4)


def test_liveness_without_weights_is_refused(
    client: httpx.Client, picture: Picture, kerry: list[Path]
) -> None:
    one = picture(kerry[0])
    error = refused(client, "/v1/face/verify", 412, model="opencv", img1=one, img2=one, anti_spoofing=True)
    assert "antispoof_v2_onnx" in error["message"]
    refused(client, "/v1/face/analyze", 412, model="opencv", img=one, anti_spoofing=True)


def test_no_face_is_told_by_its_field(
    client: httpx.Client, picture: Picture, kerry: list[Path], shared: Path
) -> None:
    nobody = picture(shared / "media" / "images" / "noface" / "white.png")
    error = refused(client, "/v1/face/verify", 404, model="mini", img1=picture(kerry[0]), img2=nobody)
    assert error["message"] == "img2: no face detected in the picture"
    refused(client, "/v1/face/embed", 404, model="mini", img=nobody)
    assert post(client, "/v1/face/analyze", model="mini", img=nobody) == {"faces": []}
    assert post(client, "/v1/face/analyze", model="mini", img=nobody, anti_spoofing=True) == {"faces": []}
    assert post(client, "/v1/detection", model="mini", image=nobody) == {"detections": []}


def test_unknown_model_points_to_the_list(client: httpx.Client, picture: Picture, kerry: list[Path]) -> None:
    error = refused(client, "/v1/face/embed", 404, model="nobody", img=picture(kerry[0]))
    assert error["message"] == 'model "nobody" not found. To see available models, call GET /v1/models'


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({"img1": "x"}, 400, "img2"),
        ({"img1": "", "img2": ""}, 400, "img1"),
        ({"img1": "!!! not base64", "img2": "!!!"}, 400, "base64"),
        ({"img1": 5, "img2": 6}, 400, "img1"),
        ({"img1": "aGVsbG8=", "img2": "aGVsbG8=", "threshold": -0.1}, 400, "threshold"),
        ({"img1": "aGVsbG8=", "img2": "aGVsbG8=", "threshold": "nan"}, 400, "threshold"),
        ({"img1": "aGVsbG8=", "img2": "aGVsbG8="}, 415, "picture"),
        ({"img1": "ftp://example.com/a.jpg", "img2": "aGVsbG8="}, 400, "http"),
        ({"img1": "http://127.0.0.1/a.jpg", "img2": "aGVsbG8="}, 400, "not allowed"),
        ({"img1": "http://169.254.169.254/latest", "img2": "aGVsbG8="}, 400, "not allowed"),
    ],
)
def test_bad_input_is_refused_with_the_reason(
    client: httpx.Client, body: dict[str, object], status: int, told: str
) -> None:
    assert told in refused(client, "/v1/face/verify", status, model="mini", **body)["message"]


def test_a_body_that_is_no_json_is_refused(client: httpx.Client) -> None:
    response = client.post("/v1/face/verify", content=b"{", headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert response.json()["error"]["message"] == "the request body is not valid JSON"


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("face_ok.jpg", 200),
        ("face_gray.jpg", 200),
        ("face_cmyk.jpg", 200),
        ("face_exif3.jpg", 200),
        ("face_exif6.jpg", 200),
        ("face_exif8.jpg", 200),
        ("face_rgba.png", 200),
        ("face_gray16.png", 200),
        ("face.webp", 200),
        ("face.bmp", 200),
        ("face.gif", 200),
        ("face.tiff", 200),
        ("png_named.jpg", 200),
        ("one_pixel.png", 404),
        ("tiny_12x12.png", 404),
        ("truncated_half.jpg", 415),
        ("truncated_header.jpg", 415),
        ("text_as.jpg", 415),
        ("zero_bytes.jpg", 400),
        ("bomb_30000x30000.png", 413),
    ],
)
def test_every_kind_of_picture_is_answered(
    client: httpx.Client, picture: Picture, shared: Path, name: str, status: int
) -> None:
    broken = shared / "media" / "images" / "broken" / name
    response = client.post("/v1/face/embed", json={"model": "mini", "img": picture(broken)})
    assert response.status_code == status, response.text


def test_exif_orientation_turns_the_picture_upright(
    client: httpx.Client, picture: Picture, shared: Path
) -> None:
    broken = shared / "media" / "images" / "broken"
    for name in ("face_exif3.jpg", "face_exif6.jpg", "face_exif8.jpg"):
        answer = post(
            client,
            "/v1/face/verify",
            model="mini",
            img1=picture(broken / "face_ok.jpg"),
            img2=picture(broken / name),
        )
        assert answer["distance"] < 0.1, name


def test_the_body_limit_answers_413(client: httpx.Client) -> None:
    response = client.post("/v1/face/embed", json={"img": "A" * (16 * 2**20)})
    assert response.status_code == 413
    assert response.json()["error"]["code"] == 413
