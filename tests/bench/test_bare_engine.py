"""The bare loop does what the routes do, on real weights."""

from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from bench import face
from bench.engine import BareProcesses, EngineSpec, Task, loop
from bench.face import BareFace
from bench.service import SHARED, model_entries
from bench.voice import BareVoice
from engines.errors import NoFace
from engines.types import EngineOptions

DLIB = EngineSpec("dlib-resnet", EngineOptions())


def photographs() -> list[bytes]:
    return face.photographs(SHARED)


@pytest.fixture(scope="module")
def dlib() -> BareFace:
    return BareFace(DLIB)


@pytest.fixture(scope="module")
def mini(shared: Path) -> BareFace:
    return BareFace(EngineSpec.of(model_entries(shared)["mini"]))


def lfw(shared: Path, name: str) -> bytes:
    return (shared / "media" / "faces" / "lfw" / name[:-5] / f"{name}.jpg").read_bytes()


def test_an_entry_of_the_service_names_the_same_engine(shared: Path) -> None:
    spec = EngineSpec.of(model_entries(shared)["mini"])
    assert spec.engine == "insightface"
    assert spec.options.options["recognizer_onnx"] == "w_mobilefacenet_128d.onnx"
    assert EngineSpec.of({"name": "x", "backend": "insightface", "options": ["engine:opencv"]}) == EngineSpec(
        "opencv-zoo", EngineOptions()
    )


def test_verify_tells_one_person_from_two(dlib: BareFace, shared: Path) -> None:
    one, same, other = (
        lfw(shared, name) for name in ("Bill_Clinton_0001", "Bill_Clinton_0002", "Ariel_Sharon_0001")
    )
    assert dlib.verify((one, same)) < 0.08 < dlib.verify((one, other))


def test_embed_is_a_unit_vector_of_the_largest_face(dlib: BareFace) -> None:
    embedding = dlib.embed(photographs()[-1])
    assert embedding.shape == (1, 128)
    assert (embedding**2).sum() == pytest.approx(1, abs=1e-5)


def test_a_picture_without_a_face_is_refused(dlib: BareFace, shared: Path) -> None:
    picture = next(path for path in sorted((shared / "media/images/noface").iterdir()) if path.is_file())
    assert not dlib.is_usable(picture.read_bytes())
    with pytest.raises(NoFace):
        dlib.embed(picture.read_bytes())


def test_analyze_asks_every_head_of_every_face(mini: BareFace, shared: Path) -> None:
    told = mini.analyze((shared / "media/faces/groups/t1.jpg").read_bytes())
    assert len(told) == 6
    for demographics, expression in told:
        assert demographics.age is not None
        assert demographics.gender is not None
        assert expression.emotion is not None


def test_analyze_without_heads_finds_the_faces(dlib: BareFace, shared: Path) -> None:
    assert len(dlib.analyze(lfw(shared, "Bill_Clinton_0001"))) == 1


def test_a_loop_goes_through_the_requests_in_turn(dlib: BareFace) -> None:
    requests = tuple((picture,) for picture in photographs()[-1:] * 2)
    made = loop(dlib, Task("analyze", requests, seconds=60, most=3))
    assert len(made.took_ms) == 3
    assert made.items >= 3
    assert made.rate == pytest.approx(3 / made.elapsed_s)
    assert 0 < sum(made.took_ms) <= made.elapsed_s * 1000


def test_a_loop_without_time_does_one_request(dlib: BareFace) -> None:
    picture = photographs()[-1]
    made = loop(dlib, Task("verify", ((picture, picture),), seconds=0, most=10))
    assert len(made.took_ms) == 1
    assert made.items == 2


def test_an_unknown_route_is_refused(dlib: BareFace) -> None:
    with pytest.raises(ValueError, match=r"identify.*verify, embed, analyze"):
        dlib.request("identify", (b"",))


def test_processes_of_their_own_do_the_same_work() -> None:
    grey = cv2.imencode(".png", np.full((200, 200, 3), 127, np.uint8))[1].tobytes()
    with BareProcesses(partial(BareFace, DLIB), 2) as bare:
        pictures = bare.usable([grey, *photographs()[-1:]])
        task = Task("embed", tuple((picture,) for picture in pictures), seconds=60, most=2)
        alone, together = bare.one(task), bare.all(task)
    assert [len(one.took_ms) for one in (alone, *together)] == [2, 2, 2]
    assert pictures == photographs()[-1:]


@pytest.fixture(scope="module")
def ge2e() -> BareVoice:
    return BareVoice(EngineSpec.of(model_entries()["resemblyzer-ge2e"]))


def test_verify_tells_one_speaker_from_two(ge2e: BareVoice, shared: Path) -> None:
    one, same, other = (
        (shared / "media" / "audio" / "speakers" / name).read_bytes()
        for name in ("1998/1998-15444-0000.flac", "1998/1998-15444-0001.flac", "2414/2414-128291-0000.flac")
    )
    assert ge2e.verify((one, same)) < 0.25 < ge2e.verify((one, other))
    assert ge2e.embed(one).shape == (1, 256)
    assert [ge2e.request(route, (one, same)) for route in ge2e.routes] == [2, 1]


def test_a_clip_without_speech_is_no_sample(ge2e: BareVoice, shared: Path) -> None:
    edge = shared / "media" / "audio" / "edge_cases"
    assert ge2e.is_usable((edge / "jfk_16k.ogg").read_bytes())
    assert not ge2e.is_usable((edge / "silence_5s.wav").read_bytes())
    assert not ge2e.is_usable((edge / "text_as.wav").read_bytes())
    with pytest.raises(ValueError, match=r"analyze.*verify, embed"):
        ge2e.request("analyze", (b"",))
