"""The cases of LocalAI's own tests of faces, on its pictures, and those that group pictures add."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.service.test_face_api import post, refused

pytestmark = pytest.mark.service

CEILING = 0.55
"""The cosine distance below which LocalAI's tests want two pictures of one person, by ArcFace."""
SAME = [
    ("knn_train/obama/obama.jpg", "test_images/obama3.jpg"),
    ("knn_train/obama/obama2.jpg", "test_images/obama_partial_face.jpg"),
    ("knn_train/biden/biden.jpg", "knn_train/biden/biden2.jpg"),
    ("knn_train/rose_leslie/img1.jpg", "knn_train/rose_leslie/img2.jpg"),
    ("knn_train/alex_lacamoire/img1.jpg", "knn_test/alex_lacamoire1.jpg"),
]
DIFFERENT = [
    ("knn_train/obama/obama.jpg", "knn_train/biden/biden.jpg"),
    ("knn_test/obama1.jpg", "knn_train/biden/biden2.jpg"),
    ("knn_train/rose_leslie/img1.jpg", "knn_test/johnsnow_test1.jpg"),
    ("knn_train/alex_lacamoire/img1.jpg", "knn_train/obama/obama2.jpg"),
]
MASKS = ("mask_black.jpg", "mask_blue.jpg", "mask_green.jpg", "mask_white.jpg")
"""Masks alone, without faces: LocalAI's picture of another person is one of them."""


@pytest.fixture(scope="module")
def encoded(shared: Path, picture: Callable[[Path], str]) -> Callable[[str], str]:
    """A picture of the faces, as base64."""
    return lambda name: picture(shared / "media" / "faces" / name)


@pytest.fixture(scope="module")
def six(encoded: Callable[[str], str]) -> str:
    """The picture that LocalAI's tests look at most: six people."""
    return encoded("groups/t1.jpg")


@pytest.fixture
def verify(client: httpx.Client, encoded: Callable[[str], str]) -> Callable[..., dict[str, Any]]:
    """Compares two pictures of `people` by their names."""

    def compared(one: str, other: str, **more: object) -> dict[str, Any]:
        pair = {"img1": encoded(f"people/{one}"), "img2": encoded(f"people/{other}")}
        return post(client, "/v1/face/verify", **pair, **more)

    return compared


@pytest.mark.parametrize(
    ("name", "dlib", "others"),
    [
        ("groups/t1.jpg", 6, 6),
        ("people/two_people.jpg", 2, 2),
        ("people/knn_test/kit_with_rose.jpg", 2, 2),
        ("people/knn_test/obama_and_biden.jpg", 2, 3),  # a child looks down, which HOG does not find
        ("people/test_images/obama_partial_face.jpg", 1, 1),
        *((f"groups/{mask}", 0, 0) for mask in MASKS),
    ],
)
def test_every_face_of_a_picture_is_found(
    client: httpx.Client, encoded: Callable[[str], str], name: str, dlib: int, others: int
) -> None:
    for model, count in (("dlib-resnet", dlib), ("mini", others), ("opencv", others)):
        found = post(client, "/v1/detection", model=model, image=encoded(name))["detections"]
        assert [face["class_name"] for face in found] == ["face"] * count, model


@pytest.mark.parametrize("model", ["dlib-resnet", "mini", "opencv"])
def test_a_picture_is_the_person_that_it_shows(client: httpx.Client, six: str, model: str) -> None:
    rows = [post(client, "/v1/face/embed", model=model, img=six)["embedding"] for _ in range(2)]
    assert sum(value * value for value in rows[0]) == pytest.approx(1, abs=1e-4)
    assert np.dot(*rows) == pytest.approx(1, abs=1e-4)
    same = post(client, "/v1/face/verify", model=model, img1=six, img2=six, threshold=CEILING)
    assert same["verified"] is True
    assert same["distance"] < 0.05
    assert same["threshold"] == pytest.approx(CEILING)


@pytest.mark.parametrize(("model", "ceiling"), [("mini", CEILING), ("dlib-resnet", 0.08)])
def test_one_person_is_below_the_ceiling_and_two_are_above(
    verify: Callable[..., dict[str, Any]], model: str, ceiling: float
) -> None:
    same, different = (
        [verify(*pair, model=model, threshold=ceiling) for pair in pairs] for pairs in (SAME, DIFFERENT)
    )
    assert [one["verified"] for one in same] == [True] * len(SAME)
    assert [one["verified"] for one in different] == [False] * len(DIFFERENT)
    assert max(one["distance"] for one in same) < ceiling < min(one["distance"] for one in different)


@pytest.mark.parametrize("model", ["mini", "dlib-resnet"])
@pytest.mark.parametrize(
    ("both", "larger", "smaller"),
    [
        ("two_people.jpg", "knn_train/biden/biden2.jpg", "knn_train/obama/obama.jpg"),
        ("knn_test/kit_with_rose.jpg", "knn_test/johnsnow_test1.jpg", "knn_train/rose_leslie/img1.jpg"),
    ],
)
def test_of_two_people_the_larger_face_is_meant(
    client: httpx.Client,
    encoded: Callable[[str], str],
    verify: Callable[..., dict[str, Any]],
    model: str,
    both: str,
    larger: str,
    smaller: str,
) -> None:
    """By SCRFD the smaller face has the better score in both pictures, which LocalAI would take."""
    found = post(client, "/v1/detection", model=model, image=encoded(f"people/{both}"))["detections"]
    largest = max(found, key=lambda face: face["width"] * face["height"])
    if model == "mini":
        assert largest != found[0]
    told = verify(both, larger, model=model)
    assert told["verified"] is True
    assert list(told["img1_area"].values()) == [largest[key] for key in ("x", "y", "width", "height")]
    assert verify(both, smaller, model=model)["verified"] is False


@pytest.mark.parametrize("mask", MASKS)
def test_a_mask_without_a_face_is_nobody(
    client: httpx.Client, encoded: Callable[[str], str], six: str, mask: str
) -> None:
    nobody = encoded(f"groups/{mask}")
    error = refused(client, "/v1/face/verify", 404, model="mini", img1=six, img2=nobody)
    assert error["message"] == "img2: no face detected in the picture"
    assert post(client, "/v1/face/analyze", model="mini", img=nobody) == {"faces": []}


def test_everybody_has_an_age_and_a_gender(client: httpx.Client, six: str) -> None:
    for face in post(client, "/v1/face/analyze", model="mini", img=six)["faces"]:
        assert face["face_confidence"] > 0
        assert face["age"] > 0
        assert face["dominant_gender"] in ("Man", "Woman")


def test_a_spoof_fails_the_pair_and_the_living_face_stays_real(
    client: httpx.Client, encoded: Callable[[str], str], six: str
) -> None:
    body = {"model": "mini", "img1": six, "threshold": CEILING, "anti_spoofing": True}
    same = post(client, "/v1/face/verify", **body, img2=six)
    assert same["verified"] is same["img1_is_real"] is same["img2_is_real"] is True
    spoofed = post(client, "/v1/face/verify", **body, img2=encoded("spoof/image_F2.jpg"))
    assert (spoofed["img1_is_real"], spoofed["img2_is_real"]) == (True, False)
    assert spoofed["verified"] is False
    assert spoofed["img2_antispoof_score"] < 0.05
    assert spoofed["img1_antispoof_score"] >= 0.5
