"""Face flows over the real deployment classes with the fake engine, all in this process."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from deployments.face import FaceAttributes, FaceDetector, FaceRecognizer, FaceSpec
from deployments.messages import Crops, DetectRequest, FoundFaces, Selection
from engines import registry
from engines.errors import (
    DeadlineExceeded,
    InvalidInput,
    LivenessUnavailable,
    ModelDisabled,
    NoFace,
    NotDecodable,
    PresenceError,
    UnknownModel,
)
from engines.face import fake
from engines.face.model import FaceModel
from engines.types import Aliveness, Box, Demographics, EngineOptions, Face, Image
from graphs.choice import DISABLED
from graphs.clients.store import Store
from graphs.demographics import only
from graphs.face import FaceFlow, FaceNode, wanted_heads
from graphs.media import MediaReader, MediaRules
from graphs.similarity import confidence, cosine_distance
from graphs.store import Registrations

T = TypeVar("T")

RED = (30, 30, 220)
NEARLY_RED = (32, 30, 218)
BLUE = (220, 30, 30)
DARK = (0, 0, 0)


def picture(colour: tuple[int, int, int], side: int = 64) -> str:
    """A picture of one colour (blue, green, red) as base64 of a PNG file."""
    image = np.full((side, side, 3), colour, np.uint8)
    return base64.b64encode(cv2.imencode(".png", image)[1].tobytes()).decode()


def later() -> float:
    return time.time() + 30


@dataclass
class Calls:
    """Every call of a part: its name, how many items it carried, its deadline. A barrier holds calls
    until as many are under way at once."""

    made: list[tuple[str, int, float]] = field(default_factory=list)
    faces: list[Crops] = field(default_factory=list)
    together: dict[str, asyncio.Barrier] = field(default_factory=dict)

    async def note(self, part: str, items: int, deadline: float) -> None:
        self.made.append((part, items, deadline))
        if part in self.together:
            async with asyncio.timeout(10):
                await self.together[part].wait()

    @property
    def parts(self) -> list[tuple[str, int]]:
        return sorted((part, items) for part, items, _ in self.made)


def value(answer: T | PresenceError) -> T:
    if isinstance(answer, PresenceError):
        raise answer
    return answer


class Detector:
    def __init__(self, calls: Calls, spec: FaceSpec) -> None:
        self._calls, self._replica = calls, FaceDetector(spec)

    async def detect(self, request: DetectRequest, deadline: float) -> FoundFaces:
        await self._calls.note("detect", 1, deadline)
        return value(await self._replica.detect(request, deadline))


class Recognizer:
    def __init__(self, calls: Calls, spec: FaceSpec) -> None:
        self._calls, self._replica = calls, FaceRecognizer(spec)

    async def embed(self, crops: Sequence[Image], deadline: float) -> list[np.ndarray]:
        await self._calls.note("embed", len(crops), deadline)
        return value(await self._replica.embed(crops, deadline))


class Attributes:
    def __init__(self, calls: Calls, spec: FaceSpec) -> None:
        self._calls, self._replica = calls, FaceAttributes(spec)

    async def analyze(self, faces: Sequence[Crops], deadline: float) -> list[Demographics]:
        await self._calls.note("analyze", len(faces), deadline)
        self._calls.faces.extend(faces)
        return value(await self._replica.analyze(faces, deadline))


class Scores:
    """Liveness that answers prepared scores. likeliest: whether no spoof is likelier."""

    def __init__(self, calls: Calls, *scores: float, likeliest: Sequence[bool] | None = None) -> None:
        self._calls = calls
        self._told = list(map(Aliveness, scores, likeliest or [True] * len(scores)))

    async def score(self, faces: Sequence[tuple[Image, ...]], deadline: float) -> list[Aliveness]:
        await self._calls.note("score", len(faces), deadline)
        return self._told


def node(calls: Calls, engine: str = "fake", **options: str) -> FaceNode:
    spec = FaceSpec("one", engine, EngineOptions(options=options))
    model = FaceModel(engine, spec.options)
    return FaceNode(
        name="one",
        threshold=model.engine.verify_threshold,
        detector=Detector(calls, spec),
        recognizer=Recognizer(calls, spec),
        attributes=Attributes(calls, spec),
        heads=("genderage", "expression") if model.expression.available else ("genderage",),
    )


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
async def media() -> AsyncIterator[MediaReader]:
    reader = MediaReader(MediaRules())
    yield reader
    await reader.close()


@pytest.fixture
def flow(calls: Calls, media: MediaReader) -> FaceFlow:
    return FaceFlow({"one": node(calls)}, media)


async def test_verify_tells_same_from_different(flow: FaceFlow) -> None:
    same = await flow.verify("one", (picture(RED), picture(NEARLY_RED)), None, later())
    other = await flow.verify("one", (picture(RED), picture(BLUE)), None, later())
    assert same.verified
    assert not other.verified
    assert 0 < same.distance < same.threshold == 0.1 < other.distance
    assert same.confidence == pytest.approx((1 - same.distance / 0.1) * 100)
    assert other.confidence == 0
    assert same.areas == (Box(16, 16, 32, 32), Box(16, 16, 32, 32))
    assert same.model == "one"
    assert same.alive is None


async def test_verify_looks_at_each_picture_once_and_embeds_the_pair_in_one_call(
    flow: FaceFlow, calls: Calls
) -> None:
    await flow.verify(None, (picture(RED), picture(BLUE)), None, later())
    assert calls.parts == [("detect", 1), ("detect", 1), ("embed", 2)]


async def test_verify_takes_two_hops_even_with_liveness(calls: Calls, media: MediaReader) -> None:
    both = asyncio.Barrier(2)
    calls.together = {"detect": asyncio.Barrier(2), "embed": both, "score": both}
    flow = FaceFlow({"one": replace(node(calls), liveness=Scores(calls, 0.9, 0.9))}, media)
    await flow.verify("one", (picture(RED), picture(RED)), None, later(), liveness=True)
    assert [part for part, _, _ in calls.made][:2] == ["detect", "detect"]
    assert calls.parts == [("detect", 1), ("detect", 1), ("embed", 2), ("score", 2)]


async def test_the_threshold_of_the_request_goes_before_the_models(flow: FaceFlow) -> None:
    pair = (picture(RED), picture(NEARLY_RED))
    usual = await flow.verify("one", pair, None, later())
    strict = await flow.verify("one", pair, usual.distance, later())
    loose = await flow.verify("one", (picture(RED), picture(BLUE)), 2.0, later())
    assert not strict.verified
    assert strict.confidence == 0
    assert strict.threshold == usual.distance
    assert loose.verified
    assert loose.threshold == 2.0


@pytest.mark.parametrize(
    ("scores", "likeliest", "threshold", "real"),
    [
        ((0.9, 0.8), (True, True), 0.5, (True, True)),
        ((0.9, 0.2), (True, False), 0.5, (True, False)),
        ((0.2, 0.9), (False, True), 0.5, (False, True)),
        ((0.5, 0.5), (True, True), 0.5, (True, True)),
        ((0.4, 0.4), (True, False), 0.3, (True, False)),
        ((0.4, 0.2), (False, False), 0.3, (False, False)),
        ((0.8, 0.95), (True, True), 0.9, (False, True)),
    ],
)
async def test_a_face_that_is_not_alive_forces_verified_false(
    calls: Calls,
    media: MediaReader,
    scores: tuple[float, float],
    likeliest: tuple[bool, bool],
    threshold: float,
    real: tuple[bool, bool],
) -> None:
    liveness = Scores(calls, *scores, likeliest=likeliest)
    checked = replace(node(calls), liveness=liveness, liveness_threshold=threshold)
    flow = FaceFlow({"one": checked}, media)
    pair = (picture(RED), picture(RED))
    verdict = await flow.verify("one", pair, None, later(), liveness=True)
    assert verdict.alive is not None
    assert tuple(one.is_real for one in verdict.alive) == real
    assert tuple(one.score for one in verdict.alive) == scores
    assert verdict.verified is all(real)
    assert verdict.distance == pytest.approx(0, abs=1e-6)
    unchecked = await flow.verify("one", pair, None, later())
    assert unchecked.verified
    assert unchecked.alive is None


async def test_liveness_without_weights_is_refused_before_anything_is_computed(
    flow: FaceFlow, calls: Calls
) -> None:
    with pytest.raises(LivenessUnavailable, match='model "one" has no liveness weights'):
        await flow.verify("one", (picture(RED), picture(RED)), None, later(), liveness=True)
    with pytest.raises(LivenessUnavailable, match="antispoof_v2_onnx"):
        await flow.analyze("one", picture(RED), (), later(), liveness=True)
    assert calls.made == []


@pytest.mark.parametrize(
    ("images", "named"),
    [((RED, DARK), "img2"), ((DARK, RED), "img1")],
)
async def test_verify_without_a_face_names_the_field(
    flow: FaceFlow, calls: Calls, images: tuple[tuple[int, int, int], tuple[int, int, int]], named: str
) -> None:
    with pytest.raises(NoFace, match=f"^{named}: no face detected in the picture$"):
        await flow.verify("one", (picture(images[0]), picture(images[1])), None, later())
    assert ("embed", 2) not in calls.parts


async def test_no_face_is_an_error_of_embed_and_an_empty_list_elsewhere(flow: FaceFlow) -> None:
    with pytest.raises(NoFace, match=r"^img: no face"):
        await flow.embed("one", picture(DARK), later())
    assert await flow.analyze("one", picture(DARK), (), later()) == []
    assert await flow.detect("one", picture(DARK), None, later()) == ()


async def test_embed_is_one_unit_vector_and_two_hops(flow: FaceFlow, calls: Calls) -> None:
    embedding, name = await flow.embed(None, picture(RED), later())
    assert embedding.shape == (4,)
    assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-6)
    assert name == "one"
    assert calls.parts == [("detect", 1), ("embed", 1)]


async def test_detect_takes_one_hop_and_no_crops(flow: FaceFlow, calls: Calls) -> None:
    (face,) = await flow.detect("one", picture(RED), None, later())
    assert face.box == Box(16, 16, 32, 32)
    assert face.crops == {}
    assert await flow.detect("one", picture(RED), face.score + 0.01, later()) == ()
    assert calls.parts == [("detect", 1), ("detect", 1)]


class Two(fake.FakeFace):
    """A large face with a low score on the left, a small one with a high score on the right."""

    LARGE = Box(0, 0, 40, 40)
    SMALL = Box(44, 0, 20, 20)

    def detect(self, image: Image, threshold: float | None = None) -> list[Face]:  # noqa: ARG002 - the protocol names them
        points = np.zeros((5, 2), np.float32)
        return [Face(self.SMALL, 0.9, points), Face(self.LARGE, 0.6, points)]


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an engine that finds two faces."""
    monkeypatch.setattr(fake, "Two", Two, raising=False)
    monkeypatch.setitem(registry.ENGINES["face"], "two", "engines.face.fake:Two")
    return "two"


@pytest.mark.parametrize(("select", "meant"), [("largest", Two.LARGE), ("score", Two.SMALL)])
async def test_of_several_faces_the_selected_one_is_meant(
    calls: Calls, media: MediaReader, two: str, select: Selection, meant: Box
) -> None:
    flow = FaceFlow({"one": replace(node(calls, two), select=select)}, media)
    verdict = await flow.verify("one", (picture(RED), picture(RED)), None, later())
    assert verdict.areas == (meant, meant)
    assert calls.parts == [("detect", 1), ("detect", 1), ("embed", 2)]


async def test_analyze_and_detect_tell_every_face(calls: Calls, media: MediaReader, two: str) -> None:
    scored = replace(node(calls, two), liveness=Scores(calls, 0.9, 0.1))
    flow = FaceFlow({"one": scored}, media)
    faces = await flow.analyze("one", picture(RED), (), later(), liveness=True)
    assert [face.box for face in faces] == [Two.SMALL, Two.LARGE]
    assert [face.alive.is_real for face in faces if face.alive] == [True, False]
    assert calls.parts == [("analyze", 2), ("detect", 1), ("score", 2)]
    assert [face.box for face in await flow.detect("one", picture(RED), None, later())] == [
        Two.SMALL,
        Two.LARGE,
    ]


async def test_analyze_takes_two_hops_even_with_liveness(calls: Calls, media: MediaReader) -> None:
    both = asyncio.Barrier(2)
    calls.together = {"analyze": both, "score": both}
    flow = FaceFlow({"one": replace(node(calls), liveness=Scores(calls, 0.9))}, media)
    (face,) = await flow.analyze("one", picture(RED), (), later(), liveness=True)
    assert face.alive is not None
    assert face.told.gender == {"Man": 0.0, "Woman": 1.0}


@pytest.mark.parametrize(
    ("actions", "told", "heads"),
    [
        ([], {"age", "gender", "emotion"}, {"genderage", "expression"}),
        (["age"], {"age"}, {"genderage"}),
        (["gender"], {"gender"}, {"genderage"}),
        (["emotion"], {"emotion"}, {"expression"}),
        (["age", "emotion", "race"], {"age", "emotion"}, {"genderage", "expression"}),
        (["race"], set(), set()),
    ],
)
async def test_actions_run_only_the_heads_that_they_need(
    shared: Path, calls: Calls, media: MediaReader, actions: list[str], told: set[str], heads: set[str]
) -> None:
    network = shared / "models" / "face" / "expression" / "fer2013_mini_XCEPTION.102-0.66.onnx"
    flow = FaceFlow({"one": node(calls, expression_onnx=str(network))}, media)
    (face,) = await flow.analyze("one", picture(RED), actions, later())
    given_heads = {head for crops in calls.faces for head in crops}
    assert given_heads == heads
    assert {name for name in ("age", "gender", "emotion") if getattr(face.told, name) is not None} == told
    assert face.alive is None


async def test_a_model_without_heads_tells_where_the_faces_are(calls: Calls, media: MediaReader) -> None:
    flow = FaceFlow({"one": replace(node(calls), attributes=None, heads=())}, media)
    (face,) = await flow.analyze("one", picture(RED), ["age"], later())
    assert face.box == Box(16, 16, 32, 32)
    assert face.told == Demographics()
    assert calls.parts == [("detect", 1)]


async def test_models_are_found_by_name_and_the_first_is_the_default(
    calls: Calls, media: MediaReader
) -> None:
    one = node(calls)
    flow = FaceFlow({"b": replace(one, name="b"), "a": replace(one, name="a")}, media)
    for absent in (None, ""):
        assert flow.node(absent).name == "b"
    assert (await flow.embed("a", picture(RED), later()))[1] == "a"
    with pytest.raises(UnknownModel, match=r'model "c" not found\. To see available models, call GET'):
        await flow.embed("c", picture(RED), later())
    with pytest.raises(UnknownModel, match="presence models install"):
        FaceFlow({}, media).node(None)
    for kinds in ({"a": one}, {}):
        with pytest.raises(ModelDisabled, match='model "off" is disabled'):
            FaceFlow(kinds, media, {"off": DISABLED}).node("off")


async def test_the_deadline_reaches_every_part(calls: Calls, media: MediaReader) -> None:
    flow = FaceFlow({"one": replace(node(calls), liveness=Scores(calls, 0.9, 0.9))}, media)
    deadline = later()
    await flow.verify("one", (picture(RED), picture(RED)), None, deadline, liveness=True)
    await flow.embed("one", picture(RED), deadline)
    await flow.analyze("one", picture(RED), (), deadline, liveness=True)
    await flow.detect("one", picture(RED), None, deadline)
    assert {part for part, _, _ in calls.made} == {"detect", "embed", "analyze", "score"}
    assert {given for _, _, given in calls.made} == {deadline}


async def test_a_deadline_that_has_passed_stops_the_flow(flow: FaceFlow, calls: Calls) -> None:
    with pytest.raises(DeadlineExceeded):
        await flow.embed("one", picture(RED), time.time() - 1)
    assert calls.parts == [("detect", 1)]


async def test_what_is_no_picture_is_told(flow: FaceFlow) -> None:
    with pytest.raises(NotDecodable):
        await flow.embed("one", base64.b64encode(b"hello").decode(), later())
    with pytest.raises(InvalidInput, match="img2"):
        await flow.verify("one", (picture(RED), "not base64!"), None, later())


@given(st.floats(0, 2), st.floats(0, 2))
def test_confidence_stays_between_0_and_100(distance: float, threshold: float) -> None:
    assert 0 <= confidence(distance, threshold) <= 100
    assert confidence(threshold, threshold) == 0
    assert confidence(0, threshold) == (100 if threshold else 0)


@given(st.floats(0, 2), st.floats(0, 2), st.floats(0.001, 2))
def test_confidence_never_grows_with_the_distance(one: float, two: float, threshold: float) -> None:
    near, far = sorted((one, two))
    assert confidence(near, threshold) >= confidence(far, threshold)
    assert (confidence(near, threshold) > 0) <= (near < threshold)


@given(st.lists(st.floats(-1, 1), min_size=4, max_size=4), st.lists(st.floats(-1, 1), min_size=4, max_size=4))
def test_cosine_distance_is_symmetric_and_bounded(one: list[float], two: list[float]) -> None:
    a, b = (np.array([*row, 1.0], np.float32) for row in (one, two))
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    assert 0 <= cosine_distance(a, b) == cosine_distance(b, a) <= 2
    assert cosine_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert cosine_distance(a, -a) == pytest.approx(2, abs=1e-6)


def test_what_was_not_asked_for_is_left_out() -> None:
    told = Demographics(age=30, gender={"Man": 1.0, "Woman": 0.0})
    assert only(told, []) == told
    assert only(told, ["age"]) == Demographics(age=30)
    assert only(told, ["gender"]) == Demographics(gender=told.gender)
    assert only(told, ["race"]) == Demographics()


async def test_heads_that_the_model_lacks_are_not_asked_for(calls: Calls) -> None:
    assert wanted_heads(node(calls), ["emotion"]) == ()
    assert wanted_heads(node(calls), []) == ("genderage",)


def random_arcface(path: Path) -> None:
    """A small random network with ArcFace's interface: n x 3 x 112 x 112 in, 512 numbers out."""
    weights = np.random.default_rng(5).standard_normal((3 * 14 * 14, 512)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("AveragePool", ["input.1"], ["pooled"], kernel_shape=[8, 8], strides=[8, 8]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("MatMul", ["flat", "w"], ["683"]),
        ],
        "arcface",
        [helper.make_tensor_value_info("input.1", TensorProto.FLOAT, ["n", 3, 112, 112])],
        [helper.make_tensor_value_info("683", TensorProto.FLOAT, ["n", 512])],
        [numpy_helper.from_array(weights, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


async def test_512_numbers_of_an_insightface_pack_are_enrolled_found_and_forgotten(
    shared: Path, tmp_path: Path, calls: Calls, media: MediaReader, local_store: Store
) -> None:
    pack = tmp_path / "models" / "buffalo_sc"
    pack.mkdir(parents=True)
    real = shared / "models" / "face" / "insightface" / "models" / "mini" / "det_500m_bnkps.onnx"
    (pack / "det_500m.onnx").symlink_to(real)
    random_arcface(pack / "w600k_mbf.onnx")
    flow = FaceFlow({"one": node(calls, "insightface", model_pack="buffalo_sc", root=str(tmp_path))}, media)
    people = Registrations("face", local_store)
    photographs = [
        base64.b64encode(
            next((shared / "media" / "faces" / "lfw" / name).glob("*.jpg")).read_bytes()
        ).decode()
        for name in ("John_Kerry", "Jose_Serra")
    ]
    ids = []
    for name, photograph in zip(("Ada", "Bob"), photographs, strict=True):
        embedding, model = await flow.embed("one", photograph, later())
        assert embedding.shape == (512,)
        assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-5)
        made = await people.register(embedding, model, name=name, labels={}, store=None, deadline=later())
        ids.append(made.id)
    probe, model = await flow.embed("one", photographs[0], later())

    async def found() -> list[tuple[str, float]]:
        answer = await people.identify(probe, model, threshold=flow.node("one").threshold, deadline=later())
        return [(one.registration.name, one.distance) for one in answer.found]

    (first, near), (second, far) = await found()
    assert (first, second) == ("Ada", "Bob")
    assert near == pytest.approx(0, abs=1e-5)
    assert far > 1e-3
    await people.forget(ids[0], None, later())
    ((left, _),) = await found()
    assert left == "Bob"


async def test_the_first_wrong_picture_ends_the_work_on_the_other(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, waits, ended = MediaReader(MediaRules()), asyncio.Event(), asyncio.Event()

    async def never(url: str) -> bytes:
        waits.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError(url)

    monkeypatch.setattr(reader, "_follow", never)
    flow = FaceFlow({"one": node(calls)}, reader)
    with pytest.raises(InvalidInput, match="img2"):
        await flow.verify("one", ("http://slow.test/", "!"), None, later())
    async with asyncio.timeout(10):
        await ended.wait()
    assert waits.is_set()
    assert calls.made == []
