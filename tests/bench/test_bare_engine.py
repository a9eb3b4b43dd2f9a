"""The bare loop does what the routes do, on real weights."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from bench.__main__ import photographs
from bench.engine import BareEngine, BareProcesses, EngineSpec, Task, loop
from bench.service import model_entries
from engines.errors import NoFace
from engines.types import EngineOptions

DLIB = EngineSpec("dlib-resnet", EngineOptions())


@pytest.fixture(scope="module")
def dlib() -> BareEngine:
    return BareEngine(DLIB)


@pytest.fixture(scope="module")
def mini(shared: Path) -> BareEngine:
    return BareEngine(EngineSpec.of(model_entries(shared)["mini"]))


def lfw(shared: Path, name: str) -> bytes:
    return (shared / "media" / "faces" / "lfw" / name[:-5] / f"{name}.jpg").read_bytes()


def test_an_entry_of_the_service_names_the_same_engine(shared: Path) -> None:
    spec = EngineSpec.of(model_entries(shared)["mini"])
    assert spec.engine == "insightface"
    assert spec.options.options["recognizer_onnx"] == "w_mobilefacenet_128d.onnx"
    assert EngineSpec.of({"name": "x", "backend": "insightface", "options": ["engine:opencv"]}) == EngineSpec(
        "opencv-zoo", EngineOptions()
    )


def test_verify_tells_one_person_from_two(dlib: BareEngine, shared: Path) -> None:
    one, same, other = (
        lfw(shared, name) for name in ("Bill_Clinton_0001", "Bill_Clinton_0002", "Ariel_Sharon_0001")
    )
    assert dlib.verify((one, same)) < 0.08 < dlib.verify((one, other))


def test_embed_is_a_unit_vector_of_the_largest_face(dlib: BareEngine) -> None:
    embedding = dlib.embed(photographs()[-1])
    assert embedding.shape == (1, 128)
    assert (embedding**2).sum() == pytest.approx(1, abs=1e-5)


def test_a_picture_without_a_face_is_refused(dlib: BareEngine, shared: Path) -> None:
    picture = next(path for path in sorted((shared / "media/images/noface").iterdir()) if path.is_file())
    assert not dlib.shows_face(picture.read_bytes())
    with pytest.raises(NoFace):
        dlib.embed(picture.read_bytes())


def test_analyze_asks_every_head_of_every_face(mini: BareEngine, shared: Path) -> None:
    told = mini.analyze((shared / "media/faces/groups/t1.jpg").read_bytes())
    assert len(told) == 6
    for demographics, expression in told:
        assert demographics.age is not None
        assert demographics.gender is not None
        assert expression.emotion is not None


def test_analyze_without_heads_finds_the_faces(dlib: BareEngine, shared: Path) -> None:
    assert len(dlib.analyze(lfw(shared, "Bill_Clinton_0001"))) == 1


def test_a_loop_goes_through_the_requests_in_turn(dlib: BareEngine) -> None:
    requests = tuple((picture,) for picture in photographs()[-1:] * 2)
    made = loop(dlib, Task("analyze", requests, seconds=60, most=3))
    assert len(made.took_ms) == 3
    assert made.faces >= 3
    assert made.rate == pytest.approx(3 / made.elapsed_s)
    assert 0 < sum(made.took_ms) <= made.elapsed_s * 1000


def test_a_loop_without_time_does_one_request(dlib: BareEngine) -> None:
    picture = photographs()[-1]
    made = loop(dlib, Task("verify", ((picture, picture),), seconds=0, most=10))
    assert len(made.took_ms) == 1
    assert made.faces == 2


def test_an_unknown_route_is_refused(dlib: BareEngine) -> None:
    with pytest.raises(ValueError, match=r"identify.*verify, embed, analyze"):
        dlib.request("identify", (b"",))


def test_processes_of_their_own_do_the_same_work() -> None:
    grey = cv2.imencode(".png", np.full((200, 200, 3), 127, np.uint8))[1].tobytes()
    with BareProcesses(DLIB, 2) as bare:
        pictures = bare.with_faces([grey, *photographs()[-1:]])
        task = Task("embed", tuple((picture,) for picture in pictures), seconds=60, most=2)
        alone, together = bare.one(task), bare.all(task)
    assert [len(one.took_ms) for one in (alone, *together)] == [2, 2, 2]
    assert pictures == photographs()[-1:]
