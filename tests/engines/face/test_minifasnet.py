"""Liveness with the real networks, on real faces, prints and screens."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.errors import ConfigurationError, LivenessUnavailable
from engines.face import Liveness
from engines.face.insightface_pack import InsightfacePack
from engines.face.minifasnet import MiniFasNet, scaled_crop
from engines.image import decode
from engines.types import Box, EngineOptions, Face, Image, Runtime

V2 = {"antispoof_v2_onnx": "MiniFASNetV2.onnx"}
V1SE = {"antispoof_v1se_onnx": "MiniFASNetV1SE.onnx"}
MINI = {
    "model_pack": "mini",
    "detector_onnx": "det_500m_bnkps.onnx",
    "recognizer_onnx": "w_mobilefacenet_128d.onnx",
}
LANDMARKS = np.zeros((5, 2), np.float32)


def face(box: Box) -> Face:
    return Face(box, 1.0, LANDMARKS)


def gradient(width: int, height: int) -> Image:
    """Blue tells the column, green the row."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0], image[..., 1] = np.arange(width), np.arange(height)[:, None]
    return image


@pytest.fixture(scope="module")
def head(shared: Path) -> Callable[[dict[str, str]], MiniFasNet]:
    folder = shared / "models/face/minifasnet"
    return lambda options: MiniFasNet(EngineOptions(options=options, models_dir=folder))


@pytest.fixture(scope="module")
def spoof(shared: Path) -> dict[str, tuple[Image, Face]]:
    """The four pictures and the largest face of each, as SCRFD finds it."""
    pack = InsightfacePack(EngineOptions(options=MINI, models_dir=shared / "models/face/insightface"))
    detector, found = pack.load_detector(Runtime()), {}
    for path in sorted((shared / "media/faces/spoof").glob("*.jpg")):
        image = decode(path.read_bytes())
        found[path.stem] = image, max(detector.detect(image), key=lambda one: one.box.area)
    return found


# Options.


def test_nothing_configured() -> None:
    nothing = MiniFasNet(EngineOptions())
    assert (nothing.available, nothing.weights(), nothing.threshold) == (False, [], 0.5)
    assert nothing.crops(gradient(50, 50), face(Box(10, 10, 20, 20))) == ()
    with pytest.raises(LivenessUnavailable, match="no liveness weights"):
        nothing.load(Runtime())


@pytest.mark.parametrize(("options", "files"), [(V2, 1), (V1SE, 1), (V2 | V1SE, 2), (V1SE | V2, 2)])
def test_files_lie_under_the_models_directory(options: dict[str, str], files: int) -> None:
    made = MiniFasNet(EngineOptions(options=options, models_dir=Path("/models")))
    assert made.available
    assert sorted(made.weights()) == sorted(Path("/models") / name for name in options.values())
    assert len(made.crops(gradient(50, 50), face(Box(10, 10, 20, 20)))) == files


@pytest.mark.parametrize("value", ["1.5", "-0.1", "half"])
def test_a_bad_threshold_is_named(value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"option antispoof_threshold:{value} must be"):
        MiniFasNet(EngineOptions(options={"antispoof_threshold": value}))


def test_the_threshold_is_read() -> None:
    assert MiniFasNet(EngineOptions(options={"antispoof_threshold": "0.8"})).threshold == 0.8
    assert set(MiniFasNet.known_options) == {*V2, *V1SE, "antispoof_threshold"}


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "MiniFASNetV2.onnx").write_bytes(b"no network")
    broken = MiniFasNet(EngineOptions(options=V2, models_dir=tmp_path))
    with pytest.raises(ConfigurationError, match=r"MiniFASNetV2\.onnx is not a readable ONNX file"):
        broken.load(Runtime())


# Crops.


def span(crop: Image, channel: int) -> tuple[int, int]:
    """First and last column (0) or row (1) of a gradient that a crop shows, to the pixels' interpolation."""
    return int(crop[..., channel].min()), int(crop[..., channel].max())


def test_a_crop_is_the_box_enlarged_about_its_centre() -> None:
    crop = scaled_crop(gradient(250, 200), Box(100, 80, 40, 30), 2.7)  # centre 120, 95; 108 x 81 pixels
    assert crop.shape == (80, 80, 3)
    assert crop.dtype == np.uint8
    assert span(crop, 0) == pytest.approx((66, 174), abs=1)
    assert span(crop, 1) == pytest.approx((54, 135), abs=1)


def test_of_a_face_that_the_picture_cuts_the_crop_is_about_the_centre_of_all_of_it() -> None:
    """Drawn from -40 to 60, 10 is the middle; the picture allows 2.49 times 100, from -114 to 134."""
    made = MiniFasNet(EngineOptions(options=V2, models_dir=Path("/models")))
    one = Face(Box(0, 40, 60, 100), 1.0, LANDMARKS, drawn=Box(-40, 40, 100, 100))
    (crop,) = made.crops(gradient(250, 250), one)
    assert span(crop, 0) == pytest.approx((0, 134), abs=1)
    assert span(crop, 1) == pytest.approx((0, 214), abs=1)


def test_a_crop_keeps_its_far_corner() -> None:
    """From 100 - 39.5 to 100 + 39.5, cut to whole pixels, both ends included: 80 pixels, not scaled."""
    image = gradient(250, 200)
    assert (scaled_crop(image, Box(90, 90, 20, 20), 3.95) == image[60:140, 60:140]).all()


def test_a_crop_never_exceeds_what_the_picture_allows() -> None:
    """A face of 100 x 50 in 201 x 151 can grow to twice its size only, in both directions."""
    crop = scaled_crop(gradient(201, 151), Box(50, 50, 100, 50), 4.0)
    assert span(crop, 0) == pytest.approx((0, 200), abs=1)
    assert span(crop, 1) == pytest.approx((25, 125), abs=1)


def test_nor_what_its_height_allows() -> None:
    crop = scaled_crop(gradient(151, 201), Box(50, 50, 50, 100), 4.0)
    assert span(crop, 0) == pytest.approx((25, 125), abs=1)
    assert span(crop, 1) == pytest.approx((0, 200), abs=1)


def test_a_crop_at_the_border_is_cut_there() -> None:
    crop = scaled_crop(gradient(250, 200), Box(0, 0, 40, 40), 2.7)  # reaches from -34 to 74
    assert span(crop, 0) == pytest.approx((0, 74), abs=1)
    assert span(crop, 1) == pytest.approx((0, 74), abs=1)


@pytest.mark.parametrize("box", [Box(0, 0, 1, 1), Box(0, 0, 0, 0), Box(0.2, 0.4, 0.1, 3)])
@pytest.mark.parametrize("size", [(1, 1), (2, 7), (500, 1)])
def test_degenerate_boxes_and_pictures_give_a_crop(box: Box, size: tuple[int, int]) -> None:
    assert scaled_crop(np.full((*size, 3), 7, np.uint8), box, 4.0).shape == (80, 80, 3)


def test_the_second_crop_sees_more() -> None:
    made = MiniFasNet(EngineOptions(options=V2 | V1SE))
    near, far = made.crops(gradient(250, 200), face(Box(110, 90, 20, 20)))
    assert span(near, 0) == pytest.approx((93, 147), abs=1)
    assert span(far, 0) == pytest.approx((80, 160), abs=1)


# Scores.


def scores(model: MiniFasNet, pictures: dict[str, tuple[Image, Face]]) -> dict[str, float]:
    crops = [model.crops(image, one) for image, one in pictures.values()]
    told = model.load(Runtime()).score(crops)
    return {name: one.score for name, one in zip(pictures, told, strict=True)}


def test_a_living_face_passes_and_prints_and_screens_do_not(
    head: Callable[[dict[str, str]], MiniFasNet], spoof: dict[str, tuple[Image, Face]]
) -> None:
    """Probabilities depend on the box: by SCRFD's, YuNet's and dlib's boxes at several sizes F1 has 0.05 to
    0.19, F2 up to 0.24, rgb_fake up to 0.05, T1 always 1.00.
    """
    model = head(V2 | V1SE)
    told = scores(model, spoof)
    assert told["image_T1"] > 0.99
    assert told["image_F1"] < 0.3
    assert told["image_F2"] < 0.05
    assert told["rgb_fake"] < 0.1
    assert {name for name, score in told.items() if score >= model.threshold} == {"image_T1"}


def test_the_ensemble_is_the_mean_of_its_networks(
    head: Callable[[dict[str, str]], MiniFasNet], spoof: dict[str, tuple[Image, Face]]
) -> None:
    both, near, far = (scores(head(options), spoof) for options in (V2 | V1SE, V2, V1SE))
    for name, score in both.items():
        assert score == pytest.approx((near[name] + far[name]) / 2, abs=1e-5)
    assert any(abs(near[name] - far[name]) > 0.05 for name in both)  # else this proves nothing


def test_a_batch_says_what_each_face_alone_says(
    head: Callable[[dict[str, str]], MiniFasNet], spoof: dict[str, tuple[Image, Face]]
) -> None:
    model = head(V2 | V1SE)
    loaded: Liveness = model.load(Runtime())
    crops = [model.crops(image, one) for image, one in spoof.values()]
    together, alone = loaded.score(crops), [loaded.score([one])[0] for one in crops]
    assert [one.score for one in together] == pytest.approx([one.score for one in alone], abs=1e-5)
    assert [one.likeliest for one in together] == [one.likeliest for one in alone]
    assert loaded.score([]) == []


def test_the_network_takes_blue_green_red_as_they_are(
    head: Callable[[dict[str, str]], MiniFasNet], spoof: dict[str, tuple[Image, Face]]
) -> None:
    """The plain recipe: 0..255, channels first, softmax, second class."""
    model = head(V2)
    net = ort.InferenceSession(str(model.weights()[0]), providers=["CPUExecutionProvider"])
    for image, one in spoof.values():
        (crop,) = model.crops(image, one)
        tensor = np.ascontiguousarray(crop.transpose(2, 0, 1)[None]).astype(np.float32)
        logits = np.asarray(net.run(None, {net.get_inputs()[0].name: tensor})[0][0], np.float64)
        share = np.exp(logits[1]) / np.exp(logits).sum()
        assert model.load(Runtime()).score([(crop,)])[0].score == pytest.approx(share, abs=1e-5)


def saying(path: Path, *shares: float) -> Path:
    """A network whose softmax is these shares, whatever it looks at."""
    weights = {
        "nothing": np.zeros((3 * 80 * 80, 3), np.float32),
        "logits": np.log(np.array(shares, np.float32)),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["input"], ["flat"]),
            helper.make_node("MatMul", ["flat", "nothing"], ["zero"]),
            helper.make_node("Add", ["zero", "logits"], ["output"]),
        ],
        "shares",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, 80, 80])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


@pytest.mark.parametrize(
    ("first", "second", "score", "likeliest"),
    [
        ((0.6, 0.35, 0.05), (0.6, 0.35, 0.05), 0.35, False),
        ((0.05, 0.35, 0.6), (0.05, 0.35, 0.6), 0.35, False),
        ((0.3, 0.4, 0.3), (0.3, 0.4, 0.3), 0.4, True),
        ((0.9, 0.05, 0.05), (0.05, 0.9, 0.05), 0.475, False),
        ((0.1, 0.8, 0.1), (0.1, 0.3, 0.6), 0.55, True),
    ],
)
def test_the_likeliest_class_is_that_of_the_mean_shares(
    tmp_path: Path, first: tuple[float, ...], second: tuple[float, ...], score: float, likeliest: bool
) -> None:
    options = {
        name: str(saying(tmp_path / f"{name}.onnx", *shares))
        for name, shares in zip([*V2, *V1SE], [first, second], strict=True)
    }
    model = MiniFasNet(EngineOptions(options=options))
    crops = model.crops(gradient(50, 50), face(Box(10, 10, 20, 20)))
    (told,) = model.load(Runtime()).score([crops])
    assert told.score == pytest.approx(score, abs=1e-6)
    assert told.likeliest is likeliest
