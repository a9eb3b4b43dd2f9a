"""dlib's detector and ResNet with their real weights, on real photographs."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import dlib
import numpy as np
import pytest
from numpy.typing import NDArray

from engines.errors import ConfigurationError, NothingComputable
from engines.face.dlib_resnet import DlibResnet, HogDetector, Resnet
from engines.image import decode
from engines.types import Box, EngineOptions, Face, Image, Runtime

ENGINE = DlibResnet(EngineOptions())


def engine(**options: str) -> DlibResnet:
    return DlibResnet(EngineOptions(options=options))


def read(path: Path) -> Image:
    return decode(path.read_bytes())


def rgb(image: Image) -> Image:
    return np.ascontiguousarray(image[..., ::-1])


def largest(faces: list[Face]) -> Face:
    return max(faces, key=lambda face: face.box.area)


@pytest.fixture(scope="module")
def detector() -> HogDetector:
    return ENGINE.load_detector(Runtime())


@pytest.fixture(scope="module")
def recognizer() -> Resnet:
    return ENGINE.load_recognizer(Runtime())


@pytest.fixture(scope="module")
def media(shared: Path) -> Path:
    return shared / "media/faces"


@pytest.fixture(scope="module")
def group(media: Path) -> Image:
    """Six people, 1280x886 pixels."""
    return read(media / "groups/t1.jpg")


@pytest.fixture(scope="module")
def people(detector: HogDetector, group: Image) -> list[Face]:
    return detector.detect(group)


# Options and files.


def test_defaults() -> None:
    assert (ENGINE.upsample, ENGINE.det_size, ENGINE.det_thresh) == (0, (1024, 1024), 0.5)
    assert (ENGINE.verify_threshold, ENGINE.dim, ENGINE.has_attributes) == (0.08, 128, False)


def test_every_option_is_read() -> None:
    given = {"upsample": "2", "det_size": "320x240", "det_thresh": "0.7", "verify_threshold": "0.1"}
    made = engine(**given)
    assert (made.upsample, made.det_size, made.det_thresh, made.verify_threshold) == (2, (320, 240), 0.7, 0.1)
    assert set(given) == set(DlibResnet.known_options)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("upsample", "3"),
        ("upsample", "0.5"),
        ("det_size", "big"),
        ("det_thresh", "2"),
        ("verify_threshold", "x"),
    ],
)
def test_a_bad_option_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"option {name}:{value} must be"):
        engine(**{name: value})


def test_the_weights_come_with_a_package() -> None:
    assert len(ENGINE.weights()) == 2
    assert all(path.is_file() for path in ENGINE.weights())


def test_there_are_no_attributes() -> None:
    face = Face(Box(0, 0, 9, 9), 1.0, np.zeros((5, 2), np.float32))
    assert ENGINE.attribute_crops(np.zeros((9, 9, 3), np.uint8), face) == ()
    with pytest.raises(NothingComputable, match="neither age nor gender"):
        ENGINE.load_attributes(Runtime())


# Detection.


def test_a_group_of_six(people: list[Face]) -> None:
    assert len(people) == 6
    scores = [face.score for face in people]
    assert scores == sorted(scores, reverse=True)
    assert all(0.5 <= score < 1 for score in scores)
    for face in people:
        assert face.landmarks.shape == (5, 2)
        assert face.landmarks.dtype == np.float32
        box = face.box
        assert 0 <= box.x < box.x + box.w <= 1280
        assert 0 <= box.y < box.y + box.h <= 886
        x, y = face.landmarks.T
        assert ((box.x < x) & (x < box.x + box.w) & (box.y < y) & (y < box.y + box.h)).all()


def test_it_finds_what_dlib_finds(media: Path, detector: HogDetector) -> None:
    image = read(next((media / "lfw").rglob("*.jpg")))
    boxes, margins, _ = dlib.get_frontal_face_detector().run(rgb(image), 0, 0.0)
    found = detector.detect(image)
    assert len(found) == len(boxes) >= 1
    for face, box, margin in zip(found, boxes, margins, strict=True):
        assert (face.box.x, face.box.y) == (box.left(), box.top())
        assert (face.box.w, face.box.h) == (box.width(), box.height())
        assert face.score == pytest.approx(1 / (1 + np.exp(-margin)), abs=1e-6)


def test_the_threshold_moves_both_ways(detector: HogDetector, group: Image, people: list[Face]) -> None:
    limit = (people[2].score + people[3].score) / 2
    assert len(detector.detect(group, limit)) == 3
    assert len(detector.detect(group, 0.15)) > 6
    assert detector.detect(group, 1.0) == []
    lenient = engine(det_thresh="0.15").load_detector(Runtime())
    assert len(lenient.detect(group)) == len(detector.detect(group, 0.15))


def test_boxes_of_a_scaled_down_picture_fit_the_full_one(group: Image, people: list[Face]) -> None:
    """The group is larger than 1024 pixels; a detector that sees all of its pixels finds the same boxes."""
    full = engine(det_size="4000").load_detector(Runtime()).detect(group)
    assert len(full) == len(people)
    for face in people:
        near = min(full, key=lambda other: abs(other.box.x - face.box.x) + abs(other.box.y - face.box.y))
        assert np.abs(near.landmarks - face.landmarks).max() < 12
        assert near.box.w == pytest.approx(face.box.w, rel=0.2)


@pytest.mark.parametrize(
    ("options", "side"), [({}, 1024), ({"det_size": "512"}, 512), ({"det_size": "4000"}, None)]
)
def test_the_detector_sees_no_more_than_det_size(
    group: Image, monkeypatch: pytest.MonkeyPatch, options: dict[str, str], side: int | None
) -> None:
    detector = engine(**options).load_detector(Runtime())
    inner = Mock(wraps=getattr(detector, "_detector"))  # noqa: B009 - its own
    monkeypatch.setattr(detector, "_detector", inner)
    detector.detect(group)
    assert max(inner.run.call_args.args[0].shape) == (side or max(group.shape))


def test_upsampling_finds_small_faces(media: Path, detector: HogDetector) -> None:
    portrait = read(media / "people/knn_train/biden/biden2.jpg")[::12, ::12]
    assert detector.detect(portrait) == []
    (face,) = engine(upsample="1").load_detector(Runtime()).detect(portrait)
    assert face.box.x + face.box.w <= 100


@pytest.mark.parametrize("name", ["noface/Chicken.jpg", "noface/white.png"])
def test_no_face(shared: Path, detector: HogDetector, name: str) -> None:
    assert detector.detect(read(shared / "media/images" / name)) == []


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (12, 12), (79, 81)])
def test_tiny_and_thin_pictures_have_no_face(detector: HogDetector, shape: tuple[int, int]) -> None:
    assert detector.detect(np.full((*shape, 3), 90, np.uint8)) == []


def test_detection_rate(media: Path, detector: HogDetector) -> None:
    """Of 150 press photographs two show nothing that the detector takes for a face."""
    files = sorted((media / "lfw").rglob("*.jpg")) + sorted((media / "lfw_unknown").glob("*.jpg"))
    missed = [path.name for path in files if not detector.detect(read(path))]
    assert len(files) == 150
    assert len(missed) <= 2


# Recognition.


def test_the_crop_is_dlibs_own(media: Path, detector: HogDetector) -> None:
    """A picture that is not scaled down, so that dlib sees the same landmarks."""
    image = read(media / "people/test_images/obama.jpg")[:1000]
    face = largest(detector.detect(image))
    box = dlib.get_frontal_face_detector()(rgb(image), 0)[0]
    shape = dlib.shape_predictor(str(ENGINE.weights()[0]))(rgb(image), box)
    assert (rgb(ENGINE.align(image, face)) == dlib.get_face_chip(rgb(image), shape, 150, 0.25)).all()


def test_a_crop_of_a_view_is_the_crop_of_its_copy(group: Image, people: list[Face]) -> None:
    mirrored = group[:, ::-1]
    assert (ENGINE.align(mirrored, people[0]) == ENGINE.align(mirrored.copy(), people[0])).all()


def test_embeddings_are_unit_rows_and_do_not_depend_on_the_batch(
    recognizer: Resnet, group: Image, people: list[Face]
) -> None:
    crops = [ENGINE.align(group, face) for face in people[:3]]
    rows = recognizer.embed(crops)
    assert rows.shape == (3, 128)
    assert rows.dtype == np.float32
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(3), abs=1e-6)
    assert rows == pytest.approx(np.vstack([recognizer.embed([crop]) for crop in crops]), abs=1e-6)


def test_no_crops_no_embeddings(recognizer: Resnet) -> None:
    assert recognizer.embed([]).shape == (0, 128)


def test_many_threads_share_the_parts(media: Path, detector: HogDetector, recognizer: Resnet) -> None:
    images = [read(path) for path in sorted((media / "lfw/Anna_Kournikova").glob("*.jpg"))[:4]]

    def embed(image: Image) -> NDArray[np.float32]:
        return np.asarray(recognizer.embed([ENGINE.align(image, largest(detector.detect(image)))])[0])

    alone = [embed(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(embed, images * 2))
    assert (np.array(together) == np.array(alone * 2)).all()


def test_the_default_threshold_tells_people_apart(
    media: Path, detector: HogDetector, recognizer: Resnet
) -> None:
    """Presidents in several portraits: all pairs of one man are below the threshold, all others above."""
    folders = {"obama": ["obama", "obama2", "obama3", "obama_partial_face2"], "biden": ["biden"]}
    files = {
        name: [media / f"people/test_images/{file}.jpg" for file in kept] for name, kept in folders.items()
    }
    files["biden"].append(media / "people/knn_train/biden/biden2.jpg")
    crops, names = [], []
    for name, paths in files.items():
        for path in paths:
            image = read(path)
            crops.append(ENGINE.align(image, largest(detector.detect(image))))
            names.append(name)
    rows = recognizer.embed(crops)
    distances = 1 - rows @ rows.T
    same = np.array(names)[:, None] == np.array(names)
    assert (distances[same] < ENGINE.verify_threshold).all()
    assert (distances[~same] > 1.5 * ENGINE.verify_threshold).all()


def test_errors_on_press_photographs(media: Path, detector: HogDetector, recognizer: Resnet) -> None:
    """Eight people, six photographs each: at the default threshold hardly a stranger passes, most pairs of
    one person do. (All 20 people and 30 more: 94.8 % and 0.18 %.)
    """
    rows, names = [], []
    for folder in sorted((media / "lfw").iterdir())[:8]:
        for path in sorted(folder.glob("*.jpg")):
            image = read(path)
            if faces := detector.detect(image):
                rows.append(recognizer.embed([ENGINE.align(image, largest(faces))])[0])
                names.append(folder.name)
    distances = 1 - np.array(rows) @ np.array(rows).T
    pairs = np.triu_indices(len(names), 1)
    same = (np.array(names)[:, None] == np.array(names))[pairs]
    accepted = distances[pairs] < ENGINE.verify_threshold
    assert accepted[same].mean() > 0.80
    assert accepted[~same].mean() < 0.005


def test_boxes_stay_inside_a_picture_that_cuts_a_face(detector: HogDetector, media: Path) -> None:
    """dlib itself tells boxes that reach beyond the picture."""
    outside = 0
    for path in sorted(media.glob("lfw/*/*.jpg"))[:40:2]:
        picture = read(path)
        box = largest(detector.detect(picture, 0.2)).box
        cut = np.ascontiguousarray(picture[max(int(box.y + 0.06 * box.h), 0) :])
        own, _, _ = dlib.get_frontal_face_detector().run(rgb(cut), 0, -1.0)
        outside += any(one.top() < 0 or one.left() < 0 for one in own)
        for face in detector.detect(cut, 0.2):
            assert 0 <= face.box.x < face.box.x + face.box.w <= cut.shape[1]
            assert 0 <= face.box.y < face.box.y + face.box.h <= cut.shape[0]
    assert outside >= 3
