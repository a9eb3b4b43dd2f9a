"""YuNet with its real weights; SFace's code path with small networks of SFace's interface."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import cv2
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from engines.errors import ConfigurationError, NothingComputable
from engines.face import Detector
from engines.face.opencv_zoo import OpencvZoo
from engines.types import EngineOptions, Face, Image, Runtime

YUNET = "face_detection_yunet_2023mar.onnx"


def sface(path: Path, batch: int | str = 1, scale: float = 1.0) -> Path:
    """A random network of SFace's interface: `data` (batch, 3, 112, 112) to `fc1` (batch, 128)."""
    random = np.random.default_rng(7)
    kernel = (0.2 * random.standard_normal((8, 3, 3, 3))).astype(np.float32)
    dense = (scale * 0.05 * random.standard_normal((128, 8 * 14 * 14))).astype(np.float32)
    constants = {"mean": np.float32(127.5), "std": np.float32(1 / 128), "kernel": kernel, "dense": dense}
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("Sub", ["data", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "std"], ["scaled"]),
        helper.make_node("Conv", ["scaled", "kernel"], ["edges"], strides=[8, 8], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["edges"], ["bright"]),
        helper.make_node("Flatten", ["bright"], ["flat"]),
        helper.make_node("Gemm", ["flat", "dense"], ["fc1"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "sface",
        [helper.make_tensor_value_info("data", kind, [batch, 3, 112, 112])],
        [helper.make_tensor_value_info("fc1", kind, [batch, 128])],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opset = helper.make_opsetid("", 13)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), str(path))
    return path


@pytest.fixture
def make(shared: Path, tmp_path: Path) -> Callable[..., OpencvZoo]:
    def engine(**options: str) -> OpencvZoo:
        recognizer = sface(tmp_path / "sface.onnx")
        files = {"detector_onnx": YUNET, "recognizer_onnx": str(recognizer)}
        return OpencvZoo(EngineOptions(options=files | options, models_dir=shared / "models/face/yunet"))

    return engine


@pytest.fixture
def zoo(make: Callable[..., OpencvZoo]) -> OpencvZoo:
    return make()


@pytest.fixture
def detector(zoo: OpencvZoo) -> Detector:
    return zoo.load_detector(Runtime())


@pytest.fixture(scope="module")
def group(shared: Path) -> Image:
    """Six people, 1280x886 pixels."""
    return read(shared / "media/faces/groups/t1.jpg")


def read(path: Path) -> Image:
    return np.asarray(cv2.imread(str(path)), np.uint8)


def numbers(face: Face) -> NDArray[np.float64]:
    """Everything that a face says, for comparisons."""
    box = face.box
    return np.array([box.x, box.y, box.w, box.h, face.score, *face.landmarks.ravel()])


def by_place(found: list[Face]) -> list[Face]:
    return sorted(found, key=lambda face: face.box.x)


def test_six_people_are_found_best_first(detector: Detector, group: Image) -> None:
    found = detector.detect(group)
    assert len(found) == 6
    scores = [face.score for face in found]
    assert scores == sorted(scores, reverse=True)
    assert 0.5 <= scores[-1] <= scores[0] <= 1
    for face in found:
        right_eye, left_eye, nose, right_mouth, left_mouth = face.landmarks
        assert right_eye[0] < nose[0] < left_eye[0]
        assert right_mouth[0] < left_mouth[0]
        assert right_eye[1] < nose[1] < right_mouth[1]
        assert face.box.x < nose[0] < face.box.x + face.box.w
        assert face.box.y < nose[1] < face.box.y + face.box.h


def test_a_picture_larger_than_det_size_is_mapped_back(make: Callable[..., OpencvZoo], group: Image) -> None:
    whole = make(det_size="1280x1280").load_detector(Runtime()).detect(group)
    small = make(det_size="480x480").load_detector(Runtime()).detect(group)
    assert len(small) == len(whole) == 6
    for one, other in zip(by_place(whole), by_place(small), strict=True):
        assert np.abs(one.landmarks - other.landmarks).max() < one.box.w / 5
        assert abs(one.box.area / other.box.area - 1) < 0.25


@pytest.mark.parametrize(
    ("options", "seen"),
    [({}, (640, 443)), ({"det_size": "480x480"}, (480, 332)), ({"det_size": "4000"}, (1280, 886))],
)
def test_the_network_sees_no_more_than_det_size(
    make: Callable[..., OpencvZoo],
    group: Image,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, str],
    seen: tuple[int, int],
) -> None:
    detector = make(**options).load_detector(Runtime())
    net = Mock(wraps=getattr(detector, "_net"))  # noqa: B009 - its own
    monkeypatch.setattr(detector, "_net", net)
    assert detector.detect(group)
    net.setInputSize.assert_called_once_with(seen)
    (looked_at,) = net.detect.call_args.args
    assert looked_at.shape == (seen[1], seen[0], 3)


def test_a_picture_smaller_than_det_size_is_not_enlarged(shared: Path, detector: Detector) -> None:
    picture = read(sorted(shared.glob("media/faces/lfw/Bill_Clinton/*"))[0])
    net = cv2.FaceDetectorYN.create(str(shared / "models/face/yunet" / YUNET), "", (250, 250), 0.5, 0.3, 5000)
    row: Any = net.detect(picture)[1][0]
    face = detector.detect(picture)[0]
    assert face.landmarks.ravel() == pytest.approx(row[4:14])
    assert face.score == pytest.approx(row[14])


def test_a_threshold_holds_for_one_call(detector: Detector, group: Image) -> None:
    scores = [face.score for face in detector.detect(group)]
    between = (scores[2] + scores[3]) / 2
    assert len(detector.detect(group, between)) == 3
    assert [face.score for face in detector.detect(group)] == scores


def test_the_model_has_its_own_threshold(make: Callable[..., OpencvZoo], group: Image) -> None:
    assert make(det_thresh="0.99").load_detector(Runtime()).detect(group) == []


def test_no_face_is_an_empty_list(shared: Path, detector: Detector) -> None:
    assert detector.detect(read(shared / "media/images/noface/white.png")) == []


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 3000), (3000, 2), (31, 33)])
def test_odd_sizes_are_read(detector: Detector, height: int, width: int) -> None:
    assert detector.detect(np.zeros((height, width, 3), np.uint8)) == []


def test_boxes_stay_inside_a_picture_that_cuts_a_face(detector: Detector, group: Image) -> None:
    box = detector.detect(group)[0].box
    cut = np.ascontiguousarray(group[:, int(box.x + box.w * 0.3) :])
    found = detector.detect(cut, 0.3)
    assert any(face.box.x == 0 for face in found)
    for face in found:
        assert face.box.x >= 0
        assert face.box.y >= 0
        assert face.box.x + face.box.w <= cut.shape[1] + 1e-3
        assert face.box.y + face.box.h <= cut.shape[0] + 1e-3


def test_threads_with_different_sizes_do_not_disturb_each_other(detector: Detector, group: Image) -> None:
    sizes = [(320, 222), (400, 277), (640, 443), (500, 346)]
    small = [np.asarray(cv2.resize(group, size), np.uint8) for size in sizes]
    alone = [detector.detect(picture) for picture in small]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(detector.detect, small * 5))
    for i, faces in enumerate(together):
        expected = alone[i % 4]
        assert len(faces) == len(expected) > 0
        for one, other in zip(faces, expected, strict=True):
            assert numbers(one) == pytest.approx(numbers(other))


def test_the_crop_is_that_of_opencv(zoo: OpencvZoo, detector: Detector, group: Image) -> None:
    reference = cv2.FaceRecognizerSF.create(str(zoo.recognizer_file), "")
    for face in detector.detect(group):
        row = np.zeros((1, 15), np.float32)
        row[0, 4:14] = face.landmarks.ravel()
        expected = np.asarray(reference.alignCrop(group, row), np.int16)
        crop = zoo.align(group, face)
        assert crop.shape == (112, 112, 3)
        difference = np.abs(crop.astype(np.int16) - expected)
        assert difference.max() <= 2
        assert difference.mean() < 0.01


def test_embeddings_are_those_of_opencv(zoo: OpencvZoo, detector: Detector, group: Image) -> None:
    crops = [zoo.align(group, face) for face in detector.detect(group)]
    reference = cv2.FaceRecognizerSF.create(str(zoo.recognizer_file), "")
    found = zoo.load_recognizer(Runtime()).embed(crops)
    assert found.shape == (6, OpencvZoo.dim)
    assert found.dtype == np.float32
    for row, crop in zip(found, crops, strict=True):
        raw = np.asarray(reference.feature(crop))[0]
        assert row == pytest.approx(raw / np.linalg.norm(raw), abs=1e-5)


def test_a_graph_with_a_free_batch_answers_the_same(
    make: Callable[..., OpencvZoo], tmp_path: Path, group: Image
) -> None:
    free = make(recognizer_onnx=str(sface(tmp_path / "free.onnx", batch="n"))).load_recognizer(Runtime())
    crops = [np.ascontiguousarray(group[i : i + 112, i : i + 112]) for i in range(0, 500, 100)]
    assert free.embed(crops) == pytest.approx(make().load_recognizer(Runtime()).embed(crops), abs=1e-5)


def test_a_network_without_an_answer_gives_zeros(
    make: Callable[..., OpencvZoo], tmp_path: Path, group: Image
) -> None:
    dumb = make(recognizer_onnx=str(sface(tmp_path / "zero.onnx", scale=0))).load_recognizer(Runtime())
    assert np.array_equal(dumb.embed([group[:112, :112]]), np.zeros((1, 128), np.float32))


def test_no_crops_give_no_embeddings(zoo: OpencvZoo) -> None:
    assert zoo.load_recognizer(Runtime()).embed([]).shape == (0, 128)


def test_an_int8_detector_works_the_same(
    make: Callable[..., OpencvZoo], shared: Path, tmp_path: Path, group: Image
) -> None:
    from onnxruntime.quantization import quantize_static  # noqa: PLC0415 - one test needs it

    class Calibration:
        pictures = iter([{"input": cv2.dnn.blobFromImage(cv2.resize(group, (640, 640)))}])

        def get_next(self) -> dict[str, Any] | None:
            return next(self.pictures, None)

    path = tmp_path / "yunet_int8.onnx"
    source = shared / "models/face/yunet" / YUNET
    quantize_static(str(source), str(path), Calibration(), per_channel=True)
    found = make(detector_onnx=str(path)).load_detector(Runtime()).detect(group)
    assert 4 <= len(found) <= 6


def test_the_engine_says_what_it_has(zoo: OpencvZoo) -> None:
    assert [path.name for path in zoo.weights()] == [YUNET, "sface.onnx"]
    assert all(path.is_file() for path in zoo.weights())
    assert (zoo.dim, zoo.verify_threshold, zoo.has_attributes) == (128, 0.5, False)
    with pytest.raises(NothingComputable, match="attribute"):
        zoo.load_attributes(Runtime())


def test_there_are_no_attribute_crops(zoo: OpencvZoo, detector: Detector, group: Image) -> None:
    assert zoo.attribute_crops(group, detector.detect(group)[0]) == ()


def test_a_threshold_is_read(make: Callable[..., OpencvZoo]) -> None:
    assert make(verify_threshold="0.6").verify_threshold == 0.6


@pytest.mark.parametrize("missing", ["detector_onnx", "recognizer_onnx"])
def test_both_files_must_be_named(missing: str) -> None:
    given = {"detector_onnx": "a.onnx", "recognizer_onnx": "b.onnx"}
    del given[missing]
    with pytest.raises(ConfigurationError, match=missing):
        OpencvZoo(EngineOptions(options=given))


def test_a_file_that_is_no_network_is_named(make: Callable[..., OpencvZoo], tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"<html>not found</html>")
    with pytest.raises(ConfigurationError, match=r"broken\.onnx"):
        make(detector_onnx=str(broken)).load_detector(Runtime())
    with pytest.raises(ConfigurationError, match=r"broken\.onnx"):
        make(recognizer_onnx=str(broken)).load_recognizer(Runtime())
