"""The parts of a face model in this process: the fake engine, and MiniFASNet on its real weights."""

import asyncio
import pickle
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from bench.service import model_entries
from deployments.face import (
    FaceAttributes,
    FaceDetector,
    FaceLiveness,
    FaceRecognizer,
    FaceSpec,
    FusedFace,
    select,
)
from deployments.messages import Crops, DetectRequest, FoundFace, FoundFaces
from engines import onnx
from engines.errors import ConfigurationError, DeadlineExceeded, NotDecodable, PresenceError, TooLarge
from engines.types import Box, EngineOptions, Face, Image, Runtime

RED = (30, 30, 220)
BLUE = (220, 30, 30)
DARK = (0, 0, 0)
SPEC = FaceSpec("m", "fake", EngineOptions())


def plain(colour: tuple[int, int, int], side: int = 64) -> Image:
    return np.full((side, side, 3), colour, np.uint8)


def file(colour: tuple[int, int, int], side: int = 64) -> bytes:
    return cv2.imencode(".png", plain(colour, side))[1].tobytes()


def later() -> float:
    return time.time() + 30


async def found(detector: FaceDetector, request: DetectRequest) -> FoundFaces:
    answer = await detector.detect(request, later())
    assert isinstance(answer, FoundFaces)
    return answer


async def test_the_detector_crops_what_later_steps_need() -> None:
    answer = await found(FaceDetector(SPEC), DetectRequest(file(RED), ("recognizer", "genderage")))
    (face,) = answer.faces
    assert answer.complete
    assert face.box == Box(16, 16, 32, 32)
    assert set(face.crops) == {"recognizer", "genderage"}
    assert all(part.shape == (32, 32, 3) for parts in face.crops.values() for part in parts)
    assert answer.nbytes == 2 * 32 * 32 * 3


async def test_nothing_asked_nothing_cropped() -> None:
    answer = await found(FaceDetector(SPEC), DetectRequest(file(RED)))
    assert answer.faces[0].crops == {}
    assert answer.nbytes == 0


async def test_no_face_is_an_empty_answer() -> None:
    answer = await found(FaceDetector(SPEC), DetectRequest(file(DARK), ("recognizer",)))
    assert answer == FoundFaces(())


async def test_the_least_score_of_the_request_counts() -> None:
    detector = FaceDetector(SPEC)
    (face,) = (await found(detector, DetectRequest(file(RED)))).faces
    assert (await found(detector, DetectRequest(file(RED), threshold=face.score - 0.01))).faces
    assert not (await found(detector, DetectRequest(file(RED), threshold=face.score + 0.01))).faces


async def test_good_and_bad_pictures_in_one_batch_answer_each_for_itself() -> None:
    detector = FaceDetector(FaceSpec("m", "fake", EngineOptions(), max_pixels=100 * 100))
    detector.reconfigure({"max_batch_size": 8, "batch_wait_timeout_s": 0.01})
    good = DetectRequest(file(RED))
    requests = [good, DetectRequest(b"no picture"), DetectRequest(file(RED, 101)), good, DetectRequest(b"")]
    answers = await asyncio.gather(*(detector.detect(request, later()) for request in requests))
    kinds = [FoundFaces, NotDecodable, TooLarge, FoundFaces, NotDecodable]
    assert [type(answer) for answer in answers] == kinds


async def test_errors_survive_the_way_to_another_process() -> None:
    detector = FaceDetector(FaceSpec("m", "fake", EngineOptions(), max_pixels=10))
    for request in (DetectRequest(file(RED)), DetectRequest(b"no picture")):
        answer = await detector.detect(request, later())
        assert isinstance(answer, NotDecodable | TooLarge)
        copy = pickle.loads(pickle.dumps(answer))  # noqa: S301 - what was just written
        assert type(copy) is type(answer)
        assert copy.message == answer.message


async def test_a_deadline_that_has_passed_is_answered_as_a_value() -> None:
    assert isinstance(
        await FaceDetector(SPEC).detect(DetectRequest(file(RED)), time.time() - 1), DeadlineExceeded
    )


@pytest.mark.parametrize(("spare", "complete"), [(0, True), (-1, False)])
async def test_crops_beyond_the_reply_limit_are_left_out(spare: int, complete: bool) -> None:
    limit = 32 * 32 * 3 + spare
    request = DetectRequest(file(RED), ("recognizer",), reply_limit=limit)
    answer = await found(FaceDetector(SPEC), request)
    assert answer.complete is complete
    assert answer.faces[0].box == Box(16, 16, 32, 32)
    assert bool(answer.faces[0].crops) is complete


def test_opencv_keeps_to_the_threads_of_the_replica() -> None:
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(4)
        FaceDetector(FaceSpec("m", "fake", EngineOptions(), threads=1))
        assert cv2.getNumThreads() == 1
    finally:
        cv2.setNumThreads(before)


def test_selection_takes_the_largest_or_the_best_scored() -> None:
    points = np.zeros((5, 2), np.float32)
    small, large = Face(Box(0, 0, 5, 5), 0.9, points), Face(Box(0, 0, 9, 9), 0.6, points)
    both = [small, large]
    assert select(both, DetectRequest(b"")) == both
    assert select(both, DetectRequest(b"", select="largest")) == [large]
    assert select(both, DetectRequest(b"", select="score")) == [small]
    assert select([], DetectRequest(b"", select="largest")) == []


async def test_the_recognizer_embeds_in_the_order_of_the_crops() -> None:
    recognizer = FaceRecognizer(SPEC)
    answer = await recognizer.embed([plain(RED), plain(BLUE), plain(RED)], later())
    assert isinstance(answer, list)
    assert [one.shape for one in answer] == [(4,)] * 3
    np.testing.assert_allclose(np.linalg.norm(answer, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(answer[0], answer[2])
    assert np.dot(answer[0], answer[1]) < 0.5


async def test_attributes_run_the_heads_whose_crops_are_there(shared: Path) -> None:
    network = shared / "models" / "face" / "expression" / "fer2013_mini_XCEPTION.102-0.66.onnx"
    spec = FaceSpec("m", "fake", EngineOptions(options={"expression_onnx": str(network)}))
    grey = (plain(RED),)
    faces: list[Crops] = [{"genderage": grey}, {"expression": grey}, {"genderage": grey, "expression": grey}]
    answer = await FaceAttributes(spec).analyze([*faces, {}], later())
    assert isinstance(answer, list)
    assert [one.age is not None for one in answer] == [True, False, True, False]
    assert [one.gender is not None for one in answer] == [True, False, True, False]
    assert [one.emotion is not None for one in answer] == [False, True, True, False]


def test_every_session_gets_the_threads_of_its_replica(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, session = list[Runtime](), onnx.session

    def seen(path: Path, runtime: Runtime) -> object:
        made.append(runtime)
        return session(path, runtime)

    monkeypatch.setattr(onnx, "session", seen)
    options = model_entries(shared)["mini"]["options"]
    spec = FaceSpec("m", "insightface", EngineOptions(options=options), threads=2)
    for part, networks in ((FaceDetector, 1), (FaceRecognizer, 1), (FaceAttributes, 2), (FaceLiveness, 2)):
        made.clear()
        part(spec)
        assert made == [Runtime(threads=2)] * networks


async def test_liveness_scores_each_face(shared: Path) -> None:
    weights = shared / "models" / "face" / "minifasnet"
    options = {
        "antispoof_v2_onnx": str(weights / "MiniFASNetV2.onnx"),
        "antispoof_v1se_onnx": str(weights / "MiniFASNetV1SE.onnx"),
    }
    liveness = FaceLiveness(FaceSpec("m", "fake", EngineOptions(options=options)))
    grey, red = plain((127, 127, 127), 80), plain(RED, 80)
    answer = await liveness.score([(grey, grey), (red, red), (grey, grey)], later())
    assert isinstance(answer, list)
    assert all(0 <= one.score <= 1 for one in answer)
    assert answer[0].score == pytest.approx(answer[2].score, abs=1e-6)
    assert answer[0].score != pytest.approx(answer[1].score, abs=1e-6)
    await liveness.check_health()


async def test_a_fused_replica_tells_of_liveness_what_its_part_tells(shared: Path) -> None:
    network = shared / "models" / "face" / "minifasnet" / "MiniFASNetV2.onnx"
    spec = FaceSpec("m", "fake", EngineOptions(options={"antispoof_v2_onnx": str(network)}))
    request = DetectRequest(file(RED), ("liveness",))
    (whole,) = (await found(FusedFace(spec), request)).faces
    (apart,) = (await found(FaceDetector(spec), request)).faces
    answer = await FaceLiveness(spec).score([apart.crops["liveness"]], later())
    assert isinstance(answer, list)
    assert whole.alive == answer[0]


@pytest.mark.parametrize("part", [FaceDetector, FaceRecognizer, FaceAttributes])
async def test_every_part_answers_the_health_check(
    part: type[FaceDetector] | type[FaceRecognizer] | type[FaceAttributes],
) -> None:
    replica = part(SPEC)
    replica.reconfigure({"max_batch_size": 4, "batch_wait_timeout_s": 0.0})
    await replica.check_health()


def test_a_wrong_option_makes_no_replica() -> None:
    with pytest.raises(ConfigurationError, match="unknown option 'banana'"):
        FaceDetector(FaceSpec("m", "fake", EngineOptions(options={"banana": "1"})))


def test_pictures_and_crops_stay_out_of_what_is_logged() -> None:
    face = FoundFace(Box(0, 0, 1, 1), 0.5, {"recognizer": (plain(RED),)})
    assert repr(DetectRequest(b"secret")) == (
        "DetectRequest(crops=(), select='all', threshold=None, reply_limit=None)"
    )
    assert "recognizer" not in repr(face)


async def test_a_fused_replica_answers_what_the_parts_would() -> None:
    fused, detector = FusedFace(SPEC), FaceDetector(SPEC)
    request = DetectRequest(file(RED), ("recognizer", "genderage"), reply_limit=1)
    (whole,) = (await found(fused, request)).faces
    (apart,) = (await found(detector, DetectRequest(file(RED), request.crops))).faces
    embeddings = await FaceRecognizer(SPEC).embed(apart.crops["recognizer"], later())
    told = await FaceAttributes(SPEC).analyze([apart.crops], later())
    assert not isinstance(embeddings, PresenceError)
    assert whole.embedding is not None
    assert np.array_equal(whole.embedding, embeddings[0])
    assert [whole.told] == told
    assert (whole.box, whole.score, whole.crops, whole.alive) == (apart.box, apart.score, {}, None)


async def test_a_fused_replica_computes_only_what_is_wanted() -> None:
    fused = FusedFace(SPEC)
    (bare,) = (await found(fused, DetectRequest(file(RED)))).faces
    (embedded,) = (await found(fused, DetectRequest(file(RED), ("recognizer",)))).faces
    assert (bare.embedding, bare.told, bare.crops) == (None, None, {})
    assert embedded.embedding is not None
    assert embedded.told is None
    assert (await found(fused, DetectRequest(file(DARK), ("recognizer",)))).faces == ()


async def test_a_fused_replica_answers_errors_as_values_and_checks_every_part() -> None:
    fused = FusedFace(SPEC)
    fused.reconfigure({"max_batch_size": 4, "batch_wait_timeout_s": 0.0})
    await fused.check_health()
    assert isinstance(
        await fused.detect(DetectRequest(b"no picture", ("recognizer",)), later()), NotDecodable
    )
    late = await fused.detect(DetectRequest(file(RED), ("recognizer",)), time.time() - 1)
    assert isinstance(late, DeadlineExceeded)
