"""Expressions with the real network, on one photograph of each."""

from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
import pytest

from engines.errors import ConfigurationError, NothingComputable
from engines.face.expression import LABELS, Expression
from engines.face.insightface_pack import InsightfacePack
from engines.image import decode
from engines.types import Box, EngineOptions, Face, Image, Runtime

OPTIONS = {"expression_onnx": "fer2013_mini_XCEPTION.102-0.66.onnx"}
MINI = {
    "model_pack": "mini",
    "detector_onnx": "det_500m_bnkps.onnx",
    "recognizer_onnx": "w_mobilefacenet_128d.onnx",
}
SHOWN = {
    "angry": "angry",
    "disgusted": "disgust",
    "fearful": "fear",
    "happy": "happy",
    "neutral": "neutral",
    "sad": "sad",
    "surprised": "surprise",
}
"""File of the test data -> label."""


@pytest.fixture(scope="module")
def expression(shared: Path) -> Expression:
    return Expression(EngineOptions(options=OPTIONS, models_dir=shared / "models/face/expression"))


@pytest.fixture(scope="module")
def crops(shared: Path, expression: Expression) -> dict[str, tuple[Image, ...]]:
    """Label -> the crops of the largest face, as SCRFD finds it."""
    pack = InsightfacePack(EngineOptions(options=MINI, models_dir=shared / "models/face/insightface"))
    detector, made = pack.load_detector(Runtime()), {}
    for file, label in SHOWN.items():
        image = decode((shared / f"media/faces/expressions/{file}.jpg").read_bytes())
        face = max(detector.detect(image), key=lambda one: one.box.area)
        made[label] = expression.crops(image, face)
    return made


def test_nothing_configured() -> None:
    nothing = Expression(EngineOptions())
    face = Face(Box(0, 0, 9, 9), 1.0, np.zeros((5, 2), np.float32))
    assert (nothing.available, nothing.weights()) == (False, [])
    assert nothing.crops(np.zeros((9, 9, 3), np.uint8), face) == ()
    with pytest.raises(NothingComputable, match="set expression_onnx"):
        nothing.load(Runtime())


def test_the_file_lies_under_the_models_directory() -> None:
    made = Expression(EngineOptions(options=OPTIONS, models_dir=Path("/models")))
    assert made.available
    assert made.weights() == [Path("/models") / OPTIONS["expression_onnx"]]
    assert set(Expression.known_options) == set(OPTIONS)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "emotions.onnx").write_bytes(b"no network")
    broken = Expression(EngineOptions(options={"expression_onnx": "emotions.onnx"}, models_dir=tmp_path))
    with pytest.raises(ConfigurationError, match=r"emotions\.onnx is not a readable ONNX file"):
        broken.load(Runtime())


def test_the_crop_is_a_coloured_square_about_the_face() -> None:
    image = np.zeros((200, 250, 3), np.uint8)
    image[..., 0], image[..., 1] = np.arange(250), np.arange(200)[:, None]
    face = Face(Box(100, 80, 40, 60), 1.0, np.zeros((5, 2), np.float32))  # centre 120, 110; side 60 x 1.2
    (crop,) = Expression(EngineOptions(options=OPTIONS)).crops(image, face)
    assert crop.shape == (64, 64, 3)
    assert crop.dtype == np.uint8
    assert (int(crop[..., 0].min()), int(crop[..., 0].max())) == pytest.approx((84, 156), abs=2)
    assert (int(crop[..., 1].min()), int(crop[..., 1].max())) == pytest.approx((74, 146), abs=2)


def test_six_of_seven_expressions_are_told(
    expression: Expression, crops: dict[str, tuple[Image, ...]]
) -> None:
    """The network itself is right in 66 % of FER-2013; posed faces are easier. It misses disgust."""
    answers = expression.load(Runtime()).analyze(list(crops.values()))
    likeliest = {}
    for label, answer in zip(crops, answers, strict=True):
        assert answer.emotion is not None
        assert (answer.age, answer.gender) == (None, None)
        assert tuple(answer.emotion) == LABELS
        assert sum(answer.emotion.values()) == pytest.approx(1, abs=1e-4)
        likeliest[label] = max(answer.emotion, key=answer.emotion.__getitem__)
    assert {label for label, told in likeliest.items() if label == told} == set(LABELS) - {"disgust"}


def test_a_batch_says_what_each_face_alone_says(
    expression: Expression, crops: dict[str, tuple[Image, ...]]
) -> None:
    head, faces = expression.load(Runtime()), list(crops.values())
    for answer, face in zip(head.analyze(faces), faces, strict=True):
        (alone,) = head.analyze([face])
        assert answer.emotion == pytest.approx(alone.emotion, abs=1e-5)
    assert head.analyze([]) == []


def test_the_network_takes_grey_from_minus_1_to_1(
    expression: Expression, crops: dict[str, tuple[Image, ...]]
) -> None:
    """The plain recipe of the network's authors."""
    net = ort.InferenceSession(str(expression.weights()[0]), providers=["CPUExecutionProvider"])
    head = expression.load(Runtime())
    for (crop,) in crops.values():
        grey = (np.asarray(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY), np.float32) / 255 - 0.5) * 2
        shares = np.asarray(net.run(None, {net.get_inputs()[0].name: grey[None, ..., None]})[0])[0]
        (answer,) = head.analyze([(crop,)])
        assert answer.emotion == pytest.approx(dict(zip(LABELS, shares.tolist(), strict=True)), abs=1e-5)
