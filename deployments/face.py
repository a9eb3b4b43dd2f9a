"""The parts of a face model, each its own Serve deployment.

The detector makes every crop that later steps need, so that the full picture never leaves its replica.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from deployments.messages import Crops, DetectRequest, FoundFace, FoundFaces
from deployments.metrics import BatchMetrics
from deployments.replica import BatchedReplica, runtime
from engines.errors import NotDecodable, PresenceError
from engines.face.model import CropNames, FaceModel
from engines.image import decode
from engines.types import Aliveness, Box, Demographics, EngineOptions, Face, Image, Runtime


@dataclass(frozen=True, slots=True)
class FaceSpec:
    """What a replica needs to load its part. name: the model's name, for metrics."""

    name: str
    engine: str
    options: EngineOptions
    threads: int = 1
    max_pixels: int = 50_000_000


def _given(spec: FaceSpec) -> Runtime:
    """What the replica may use. OpenCV keeps to it too: its idle threads would spin on the other cores."""
    cv2.setNumThreads(spec.threads)
    return runtime(spec.threads)


def blank(size: int) -> Image:
    """A grey picture of size x size pixels: the tiny input of warm-up and health checks."""
    return np.full((size, size, 3), 127, np.uint8)


class FaceDetector(BatchedReplica[DetectRequest, FoundFaces]):
    """Decodes pictures, finds faces, and crops them."""

    def __init__(self, spec: FaceSpec) -> None:
        self._model = FaceModel(spec.engine, spec.options)
        self._detector = self._model.engine.load_detector(_given(spec))
        self._max_pixels = spec.max_pixels
        probe = DetectRequest(cv2.imencode(".png", blank(64))[1].tobytes())
        super().__init__(self._run, probe, BatchMetrics(spec.name, "detector"))

    async def detect(self, request: DetectRequest, deadline: float) -> FoundFaces | PresenceError:
        """Faces of one picture; NotDecodable or TooLarge as a value."""
        return await self._one(request, deadline)

    def _run(self, requests: list[DetectRequest]) -> list[FoundFaces | PresenceError]:
        return [self._look(request) for request in requests]

    def _look(self, request: DetectRequest) -> FoundFaces | PresenceError:
        try:
            image = decode(request.image, self._max_pixels)
            faces = self._detector.detect(image, request.threshold)
        except PresenceError as error:
            return error
        except cv2.error:
            return NotDecodable("the picture cannot be processed")
        found = FoundFaces(tuple(self._crop(image, face, request.crops) for face in select(faces, request)))
        if request.reply_limit is not None and found.nbytes > request.reply_limit:
            bare = tuple(replace(face, crops={}) for face in found.faces)
            return FoundFaces(bare, complete=False)
        return found

    def _crop(self, image: Image, face: Face, wanted: CropNames) -> FoundFace:
        return FoundFace(face.box, face.score, self._model.crops(image, face, wanted))


def select(faces: list[Face], request: DetectRequest) -> list[Face]:
    """The faces that the request means."""
    if not faces or request.select == "all":
        return faces
    if request.select == "largest":
        return [max(faces, key=lambda face: face.box.area)]
    return [max(faces, key=lambda face: face.score)]


class FaceRecognizer(BatchedReplica[Image, np.ndarray]):
    """Aligned crops to embeddings, batched over the crops of all requests."""

    def __init__(self, spec: FaceSpec) -> None:
        engine = FaceModel(spec.engine, spec.options).engine
        self._recognizer = engine.load_recognizer(_given(spec))
        whole = Face(Box(0, 0, 128, 128), 1.0, FRONTAL)
        super().__init__(self._run, engine.align(blank(128), whole), BatchMetrics(spec.name, "recognizer"))

    async def embed(self, crops: Sequence[Image], deadline: float) -> list[np.ndarray] | PresenceError:
        """One embedding of shape (dim,), L2 norm 1, for each crop."""
        return await self._all(crops, deadline)

    def _run(self, crops: list[Image]) -> list[np.ndarray | PresenceError]:
        return list(self._recognizer.embed(crops))


FRONTAL = np.array([[44, 54], [84, 54], [64, 76], [49, 96], [79, 96]], np.float32)
"""Eyes, nose and mouth corners of an upright face in a picture of 128 x 128 pixels."""


class FaceAttributes(BatchedReplica[Crops, Demographics]):
    """Age, gender and expression, from the crops that each head takes."""

    def __init__(self, spec: FaceSpec) -> None:
        model = FaceModel(spec.engine, spec.options)
        given = _given(spec)
        self._heads = {
            name: load(given)
            for name, load, there in (
                ("genderage", model.engine.load_attributes, model.engine.has_attributes),
                ("expression", model.expression.load, model.expression.available),
            )
            if there
        }
        whole = Face(Box(0, 0, 128, 128), 1.0, FRONTAL)
        probe = model.crops(blank(128), whole, tuple(self._heads))
        super().__init__(self._run, probe, BatchMetrics(spec.name, "attributes"))

    async def analyze(self, faces: Sequence[Crops], deadline: float) -> list[Demographics] | PresenceError:
        """What the heads whose crops are there say of each face."""
        return await self._all(faces, deadline)

    def _run(self, faces: list[Crops]) -> list[Demographics | PresenceError]:
        answers: list[Demographics] = [Demographics() for _ in faces]
        for name, head in self._heads.items():
            asked = [index for index, crops in enumerate(faces) if name in crops]
            told = head.analyze([faces[index][name] for index in asked]) if asked else []
            for index, said in zip(asked, told, strict=True):
                answers[index] = _merge(answers[index], said)
        return list(answers)


def _merge(one: Demographics, other: Demographics) -> Demographics:
    return Demographics(
        age=other.age if one.age is None else one.age,
        gender=one.gender or other.gender,
        emotion=one.emotion or other.emotion,
    )


class FaceLiveness(BatchedReplica[tuple[Image, ...], Aliveness]):
    """Whether a face is alive, by the MiniFASNet ensemble."""

    def __init__(self, spec: FaceSpec) -> None:
        model = FaceModel(spec.engine, spec.options)
        self._liveness = model.liveness.load(_given(spec))
        whole = Face(Box(32, 32, 64, 64), 1.0, FRONTAL)
        probe = model.liveness.crops(blank(128), whole)
        super().__init__(self._run, probe, BatchMetrics(spec.name, "liveness"))

    async def score(
        self, faces: Sequence[tuple[Image, ...]], deadline: float
    ) -> list[Aliveness] | PresenceError:
        """One answer for each face, from its crops."""
        return await self._all(faces, deadline)

    def _run(self, faces: list[tuple[Image, ...]]) -> list[Aliveness | PresenceError]:
        return list(self._liveness.score(faces))


class FusedFace(FaceDetector):
    """All parts of a model in one replica: a request takes one hop, and the parts scale together."""

    def __init__(self, spec: FaceSpec) -> None:
        super().__init__(spec)
        model = self._model
        self._recognizer = FaceRecognizer(spec)
        heads = model.engine.has_attributes or model.expression.available
        self._attributes = FaceAttributes(spec) if heads else None
        self._alive = FaceLiveness(spec) if model.liveness.available else None

    @property
    def _parts(self) -> list[FaceRecognizer | FaceAttributes | FaceLiveness]:
        there = (self._recognizer, self._attributes, self._alive)
        return [part for part in there if part is not None]

    def reconfigure(self, config: dict[str, float]) -> None:
        """Gives every part the same batching."""
        super().reconfigure(config)
        for part in self._parts:
            part.reconfigure(config)

    async def check_health(self) -> None:
        """Checks every part."""
        await asyncio.gather(super().check_health(), *(part.check_health() for part in self._parts))

    async def detect(self, request: DetectRequest, deadline: float) -> FoundFaces | PresenceError:
        """Faces of one picture with what the wanted parts say of each, instead of the crops."""
        found = await super().detect(replace(request, reply_limit=None), deadline)
        if isinstance(found, PresenceError) or not found.faces or not request.crops:
            return found
        embeddings, told, alive = await asyncio.gather(
            self._embeddings(found.faces, deadline),
            self._told(found.faces, deadline),
            self._scores(found.faces, deadline),
        )
        for answer in (embeddings, told, alive):
            if isinstance(answer, PresenceError):
                return answer
        made = zip(found.faces, embeddings, told, alive, strict=True)
        return FoundFaces(
            tuple(
                FoundFace(face.box, face.score, {}, embedding, said, score)
                for face, embedding, said, score in made
            )
        )

    async def _embeddings(
        self, faces: Sequence[FoundFace], deadline: float
    ) -> Sequence[np.ndarray | None] | PresenceError:
        if "recognizer" not in faces[0].crops:
            return [None] * len(faces)
        return await self._recognizer.embed([face.crops["recognizer"][0] for face in faces], deadline)

    async def _told(
        self, faces: Sequence[FoundFace], deadline: float
    ) -> Sequence[Demographics | None] | PresenceError:
        if self._attributes is None or not {"genderage", "expression"} & set(faces[0].crops):
            return [None] * len(faces)
        return await self._attributes.analyze([face.crops for face in faces], deadline)

    async def _scores(
        self, faces: Sequence[FoundFace], deadline: float
    ) -> Sequence[Aliveness | None] | PresenceError:
        if self._alive is None or "liveness" not in faces[0].crops:
            return [None] * len(faces)
        return await self._alive.score([face.crops["liveness"] for face in faces], deadline)
