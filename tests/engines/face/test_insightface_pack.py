"""A small real InsightFace pack on real pictures."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from engines.errors import ConfigurationError
from engines.face.insightface_pack import GenderAge, InsightfacePack, Scrfd
from engines.types import Demographics, EngineOptions, Face, Image, Runtime

MINI = {
    "model_pack": "mini",
    "detector_onnx": "det_500m_bnkps.onnx",
    "recognizer_onnx": "w_mobilefacenet_128d.onnx",
    "genderage_onnx": "genderage.onnx",
}


@pytest.fixture(scope="module")
def root(shared: Path) -> Path:
    return shared / "models/face/insightface"


@pytest.fixture(scope="module")
def mini(root: Path) -> InsightfacePack:
    return InsightfacePack(EngineOptions(options=MINI, models_dir=root))


@pytest.fixture(scope="module")
def detector(mini: InsightfacePack) -> Scrfd:
    return mini.load_detector(Runtime())


@pytest.fixture(scope="module")
def group(shared: Path) -> Image:
    """Six people, 1280x886 pixels."""
    return read(shared / "media/faces/groups/t1.jpg")


@pytest.fixture(scope="module")
def people(detector: Scrfd, group: Image) -> list[Face]:
    return detector.detect(group)


def read(path: Path) -> Image:
    return np.asarray(cv2.imread(str(path)), np.uint8)


def resized(image: Image, width: int, height: int) -> Image:
    return np.asarray(cv2.resize(image, (width, height)), np.uint8)


def numbers(face: Face) -> NDArray[np.float64]:
    """Everything that a face says, for comparisons."""
    box = face.box
    return np.array([box.x, box.y, box.w, box.h, face.score, *face.landmarks.ravel()])


# Detection.


def test_six_people_are_found_best_first(people: list[Face]) -> None:
    assert len(people) == 6
    scores = [face.score for face in people]
    assert scores == sorted(scores, reverse=True)
    for face in people:
        right_eye, left_eye, nose, right_mouth, left_mouth = face.landmarks
        assert right_eye[0] < nose[0] < left_eye[0]
        assert right_mouth[0] < left_mouth[0]
        assert right_eye[1] < nose[1] < right_mouth[1]
        assert face.box.x < nose[0] < face.box.x + face.box.w
        assert face.box.y < nose[1] < face.box.y + face.box.h


def test_a_scaled_down_picture_is_mapped_back(mini: InsightfacePack, root: Path, group: Image) -> None:
    whole = InsightfacePack(EngineOptions(options=MINI | {"det_size": "1280x1280"}, models_dir=root))
    large = whole.load_detector(Runtime()).detect(group)
    small = mini.load_detector(Runtime()).detect(group)
    assert len(large) == len(small) == 6
    left = [sorted(found, key=lambda face: face.box.x) for found in (large, small)]
    for one, other in zip(*left, strict=True):
        assert np.abs(one.landmarks - other.landmarks).max() < one.box.w / 5


@pytest.mark.parametrize(("width", "height"), [(640, 448), (352, 480), (256, 256)])
def test_a_picture_that_fits_is_seen_as_it_is(detector: Scrfd, group: Image, width: int, height: int) -> None:
    picture = resized(group, width, height)
    scores, boxes, points = (np.concatenate(part) for part in detector._net.forward(picture, 0.5))
    best = int(np.argmax(scores))
    face = detector.detect(picture)[0]
    assert face.score == pytest.approx(float(scores[best, 0]))
    assert face.landmarks == pytest.approx(points[best], abs=1e-3)
    assert face.box.x == pytest.approx(boxes[best, 0], abs=1e-3)


def test_the_network_sees_the_smallest_canvas_that_holds_the_picture(root: Path, group: Image) -> None:
    fresh = InsightfacePack(EngineOptions(options=MINI, models_dir=root)).load_detector(Runtime())
    for width, height in [(250, 250), (33, 64), (1280, 886), (640, 640), (100, 1000)]:
        fresh.detect(resized(group, width, height))
    sizes = set(fresh._net.resolution_session_input_sizes)
    assert sizes == {(256, 256), (64, 64), (640, 448), (640, 640), (64, 640)}


def test_many_sizes_share_one_session(root: Path, group: Image) -> None:
    fresh = InsightfacePack(EngineOptions(options=MINI, models_dir=root)).load_detector(Runtime())
    for i in range(30):
        fresh.detect(resized(group, 40 + 20 * i, 620 - 17 * i))
    sessions = fresh._net.resolution_sessions
    assert len(sessions) > 20
    assert {id(one) for one in sessions.values()} == {id(fresh._net.session)}


def test_threads_with_different_sizes_do_not_disturb_each_other(root: Path, group: Image) -> None:
    fresh = InsightfacePack(EngineOptions(options=MINI, models_dir=root)).load_detector(Runtime())
    pictures = [resized(group, 640 - 32 * i, 443 - 20 * i) for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(fresh.detect, pictures * 4))
    alone = [fresh.detect(picture) for picture in pictures]
    assert all(alone)
    for i, found in enumerate(together):
        for one, other in zip(found, alone[i % 8], strict=True):
            assert numbers(one) == pytest.approx(numbers(other))


def test_a_threshold_holds_for_one_call(detector: Scrfd, group: Image, people: list[Face]) -> None:
    between = (people[2].score + people[3].score) / 2
    assert len(detector.detect(group, between)) == 3
    assert len(detector.detect(group)) == 6


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 3000), (3000, 2), (31, 33)])
def test_odd_sizes_are_read(detector: Scrfd, height: int, width: int) -> None:
    assert detector.detect(np.zeros((height, width, 3), np.uint8)) == []


def test_boxes_stay_inside_a_picture_that_cuts_a_face(
    detector: Scrfd, group: Image, people: list[Face]
) -> None:
    cut = np.ascontiguousarray(group[:, int(people[0].box.x + people[0].box.w * 0.2) :])
    found = detector.detect(cut, 0.3)
    assert any(face.box.x == 0 for face in found)
    for face in found:
        assert face.box.y >= 0
        assert face.box.x + face.box.w <= cut.shape[1] + 1e-3
        assert face.box.y + face.box.h <= cut.shape[0] + 1e-3


def test_a_detector_with_a_fixed_input_gets_that_input(tmp_path: Path, root: Path, group: Image) -> None:
    fixed = fix_input(root / "models/mini/det_500m_bnkps.onnx", tmp_path / "fixed.onnx", [1, 3, 320, 320])
    options = MINI | {"detector_onnx": str(fixed)}
    found = InsightfacePack(EngineOptions(options=options, models_dir=root)).load_detector(Runtime())
    assert len(found.detect(group)) == 6
    assert found.detect(resized(group, 200, 138))
    assert found._net.resolution_session_input_sizes == ((320, 320),)


def test_a_detector_without_landmarks_is_refused(tmp_path: Path, root: Path) -> None:
    model = onnx.load(str(root / "models/mini/det_500m_bnkps.onnx"))
    del model.graph.output[6:]
    onnx.save(model, str(tmp_path / "boxes.onnx"))
    options = MINI | {"detector_onnx": str(tmp_path / "boxes.onnx")}
    engine = InsightfacePack(EngineOptions(options=options, models_dir=root))
    with pytest.raises(ConfigurationError, match=r"boxes\.onnx.*landmarks"):
        engine.load_detector(Runtime())


def fix_input(source: Path, target: Path, shape: list[int]) -> Path:
    """The same network, exported for one input shape."""
    model = onnx.load(str(source))
    for dimension, value in zip(model.graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
        dimension.ClearField("dim_param")
        dimension.dim_value = value
    onnx.save(model, str(target))
    return target


# Crops.


@pytest.mark.filterwarnings("ignore:`estimate` is deprecated:FutureWarning")  # the library calls it
def test_the_crop_is_that_of_the_library(mini: InsightfacePack, group: Image, people: list[Face]) -> None:
    from insightface.utils import face_align  # noqa: PLC0415 - takes over a second

    for face in people:
        expected = face_align.norm_crop(group, face.landmarks)
        crop = mini.align(group, face)
        assert crop.shape == (112, 112, 3)
        assert np.abs(crop.astype(int) - expected).max() <= 2


def test_the_attribute_crop_is_that_of_the_library(
    mini: InsightfacePack, group: Image, people: list[Face]
) -> None:
    from insightface.utils import face_align  # noqa: PLC0415 - takes over a second

    for face in people:
        box = face.box
        centre = box.x + box.w / 2, box.y + box.h / 2
        expected, _ = face_align.transform(group, centre, 96, 96 / (max(box.w, box.h) * 1.5), 0)
        (crop,) = mini.attribute_crops(group, face)
        assert crop.shape == (96, 96, 3)
        assert np.abs(crop.astype(int) - expected).max() <= 2


def test_the_attribute_crop_of_a_cut_face_is_that_of_the_library(
    mini: InsightfacePack, detector: Scrfd, group: Image, people: list[Face]
) -> None:
    """The library crops around the box that the network drew, wherever the picture ends."""
    from insightface.utils import face_align  # noqa: PLC0415 - takes over a second

    third = people[2].box
    cut = group[:, int(third.x + third.w * 0.2) :]
    cut = resized(cut, cut.shape[1] // 2, cut.shape[0] // 2)  # fits: the network sees it as it is
    face = min(detector.detect(cut), key=lambda one: one.box.x)
    _, boxes, points = (np.concatenate(part) for part in detector._net.forward(detector._canvas(cut), 0.3))
    left, top, right, bottom = boxes[np.abs(points - face.landmarks).sum(axis=(1, 2)).argmin()]
    assert left < -1
    assert face.box.x == 0

    scale = 96 / (max(right - left, bottom - top) * 1.5)
    centre = (left + right) / 2, (top + bottom) / 2
    expected, _ = face_align.transform(cut, centre, 96, scale, 0)
    (crop,) = mini.attribute_crops(cut, face)
    assert np.abs(crop.astype(int) - expected).max() <= 2


# Embeddings.


def test_a_batch_gives_what_single_crops_give(
    mini: InsightfacePack, group: Image, people: list[Face]
) -> None:
    recognizer = mini.load_recognizer(Runtime())
    crops = [mini.align(group, face) for face in people]
    rows = recognizer.embed(crops)
    assert rows.shape == (6, 128)
    assert rows.dtype == np.float32
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(6), abs=1e-5)
    for row, crop in zip(rows, crops, strict=True):
        assert row == pytest.approx(recognizer.embed([crop])[0], abs=1e-4)
    assert recognizer.embed([]).shape == (0, 128)


def test_a_recognizer_with_a_fixed_batch_gives_the_same(
    tmp_path: Path, mini: InsightfacePack, root: Path, group: Image, people: list[Face]
) -> None:
    source = root / "models/mini/w_mobilefacenet_128d.onnx"
    fixed = fix_input(source, tmp_path / "fixed.onnx", [1, 3, 112, 112])
    options = MINI | {"recognizer_onnx": str(fixed)}
    single = InsightfacePack(EngineOptions(options=options, models_dir=root)).load_recognizer(Runtime())
    crops = [mini.align(group, face) for face in people]
    assert single.embed(crops) == pytest.approx(mini.load_recognizer(Runtime()).embed(crops), abs=1e-4)


def test_people_of_public_photographs_are_told_apart(
    shared: Path, mini: InsightfacePack, detector: Scrfd
) -> None:
    """20 people x 6 photographs: the recognizer's own figure, on the 6,000 pairs of LFW, is 99.52 %."""
    recognizer, names, rows = mini.load_recognizer(Runtime()), [], []
    for path in sorted(shared.glob("media/faces/lfw/*/*.jpg")):
        picture = read(path)
        found = detector.detect(picture)
        assert found, path.name
        face = max(found, key=lambda one: one.box.area)
        names.append(path.parent.name)
        rows.append(recognizer.embed([mini.align(picture, face)])[0])
    assert len(rows) == 120
    same, different = distances(np.array(rows), names)
    accepted, refused = rates(same, different)
    assert np.max(1 - (accepted + refused) / 2) >= 0.9952
    assert np.min(np.maximum(accepted, refused)) <= 0.01


def distances(rows: NDArray[np.float32], names: list[str]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cosine distances of the pairs of one person, and of two."""
    cosine, pairs = 1 - rows @ rows.T, np.triu_indices(len(rows), 1)
    same = np.equal.outer(np.array(names), np.array(names))[pairs]
    return cosine[pairs][same], cosine[pairs][~same]


def rates(
    same: NDArray[np.float32], different: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The parts wrongly accepted and wrongly refused, for thresholds 0, 0.001 ... 2."""
    thresholds = np.arange(0, 2, 0.001)
    accepted = np.searchsorted(np.sort(different), thresholds) / len(different)
    refused = 1 - np.searchsorted(np.sort(same), thresholds) / len(same)
    return accepted, refused


# Age and gender.


@pytest.fixture(scope="module")
def attributes(mini: InsightfacePack) -> GenderAge:
    return mini.load_attributes(Runtime())


def test_a_batch_of_faces_says_what_the_library_says_of_each(
    mini: InsightfacePack, attributes: GenderAge, group: Image, people: list[Face]
) -> None:
    class LibraryFace(dict[str, Any]):
        def __init__(self, face: Face) -> None:
            self.bbox = np.array([face.box.x, face.box.y, face.box.x + face.box.w, face.box.y + face.box.h])

    answers = attributes.analyze([mini.attribute_crops(group, face) for face in people])
    assert len(answers) == 6
    for answer, face in zip(answers, people, strict=True):
        gender, age = attributes._net.get(group, LibraryFace(face))
        assert answer.gender == {"Man": float(gender), "Woman": 1.0 - gender}
        assert answer.age is not None
        assert round(answer.age) == age
        assert answer.emotion is None


def test_men_and_women_are_told(
    shared: Path, mini: InsightfacePack, detector: Scrfd, attributes: GenderAge
) -> None:
    def analyze(name: str) -> list[Demographics]:
        answers = []
        for path in sorted(shared.glob(f"media/faces/lfw/{name}/*.jpg")):
            face = max(detector.detect(read(path)), key=lambda one: one.box.area)
            answers += attributes.analyze([mini.attribute_crops(read(path), face)])
        return answers

    men = [answer.gender for answer in analyze("Bill_Clinton")]
    women = [answer.gender for answer in analyze("Winona_Ryder")]
    assert men.count({"Man": 1.0, "Woman": 0.0}) >= 5
    assert women.count({"Man": 0.0, "Woman": 1.0}) >= 5


def test_no_crops_give_no_answers(attributes: GenderAge) -> None:
    assert attributes.analyze([]) == []


def test_a_head_that_is_none_is_refused(root: Path) -> None:
    options = MINI | {"genderage_onnx": "w_mobilefacenet_128d.onnx"}
    engine = InsightfacePack(EngineOptions(options=options, models_dir=root))
    with pytest.raises(ConfigurationError, match="gender and age"):
        engine.load_attributes(Runtime())


def test_a_pack_without_the_head_makes_no_crops_for_it(root: Path, group: Image, people: list[Face]) -> None:
    without = {name: file for name, file in MINI.items() if name != "genderage_onnx"}
    engine = InsightfacePack(EngineOptions(options=without, models_dir=root))
    assert engine.attribute_crops(group, people[0]) == ()
    assert [path.name for path in engine.weights()] == [MINI["detector_onnx"], MINI["recognizer_onnx"]]


@pytest.mark.parametrize(
    ("option", "load"),
    [
        ("detector_onnx", InsightfacePack.load_detector),
        ("recognizer_onnx", InsightfacePack.load_recognizer),
        ("genderage_onnx", InsightfacePack.load_attributes),
    ],
)
def test_a_file_that_is_no_network_is_named(
    tmp_path: Path, root: Path, option: str, load: Callable[[InsightfacePack, Runtime], object]
) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"<html>not found</html>")
    engine = InsightfacePack(EngineOptions(options=MINI | {option: str(broken)}, models_dir=root))
    with pytest.raises(ConfigurationError, match=r"broken\.onnx"):
        load(engine, Runtime())
