"""Face flows: verify, analyze, embed, detect. Plain objects that hold Protocols; no HTTP in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from deployments.messages import Crops, DetectRequest, FoundFace, Selection
from deployments.together import together
from engines.errors import LivenessUnavailable, NoFace
from engines.types import Box, Demographics, Image
from graphs.choice import choose
from graphs.clients.face import FaceAttributes, FaceDetector, FaceLiveness, FaceRecognizer
from graphs.demographics import only
from graphs.media import MediaReader, naming
from graphs.similarity import confidence, cosine_distance


@dataclass(frozen=True, slots=True)
class FaceNode:
    """One face model in the graph: its parts and the numbers that its answers depend on.

    threshold: default cosine distance. select: which face of several is meant.
    heads: attribute heads, "genderage" and "expression", that `attributes` can run.
    """

    name: str
    threshold: float
    detector: FaceDetector
    recognizer: FaceRecognizer
    attributes: FaceAttributes | None = None
    heads: tuple[str, ...] = ()
    liveness: FaceLiveness | None = None
    liveness_threshold: float = 0.5
    select: Selection = "largest"


@dataclass(frozen=True, slots=True)
class Alive:
    """Liveness of one face: the verdict, and the probability of a living face, 0..1."""

    is_real: bool
    score: float


@dataclass(frozen=True, slots=True)
class Verification:
    """Whether two pictures show the same person.

    distance: cosine distance, 0..2. confidence: 0..100, 0 at the threshold and beyond.
    """

    verified: bool
    distance: float
    threshold: float
    confidence: float
    model: str
    areas: tuple[Box, Box]
    alive: tuple[Alive, Alive] | None


@dataclass(frozen=True, slots=True)
class AnalyzedFace:
    """One face with what was computed of it."""

    box: Box
    score: float
    told: Demographics = field(default_factory=Demographics)
    alive: Alive | None = None


HEAD_OF_ACTION = {"age": "genderage", "gender": "genderage", "emotion": "expression"}
"""Which head computes which action; race is computed by none."""


class FaceFlow:
    """What can be asked of faces. `models` keeps the order in which a default is chosen.

    kinds: what every model of the service is for, by name.
    """

    def __init__(
        self,
        models: Mapping[str, FaceNode],
        media: MediaReader,
        kinds: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._models = models
        self._media = media
        self._kinds = kinds

    def node(self, name: str | None) -> FaceNode:
        """The model of that name, the first one when no name is given. Raises UnknownModel."""
        return choose(self._models, name, "face", self._kinds)

    async def verify(
        self,
        model: str | None,
        images: tuple[str, str],
        threshold: float | None,
        deadline: float,
        *,
        liveness: bool = False,
    ) -> Verification:
        """Compares the meant face of two pictures (URL, data URI or base64).

        threshold: cosine distance; None means the model's own. deadline: seconds since the epoch.
        A failed liveness check on either picture forces verified to False.
        Raises NoFace, UnknownModel, LivenessUnavailable and the errors of media and models.
        """
        node = self.node(model)
        wanted = ("recognizer", "liveness") if liveness else ("recognizer",)
        require_liveness(node, liveness)
        faces = await together(
            self._meant(node, images[0], "img1", wanted, deadline),
            self._meant(node, images[1], "img2", wanted, deadline),
        )
        (one, two), alive = await together(
            self._embeddings(node, faces, deadline), self._alive(node, faces, deadline, liveness)
        )
        distance = cosine_distance(one, two)
        limit = threshold or node.threshold
        return Verification(
            verified=distance < limit and all(one.is_real for one in alive),
            distance=distance,
            threshold=limit,
            confidence=confidence(distance, limit),
            model=node.name,
            areas=(faces[0].box, faces[1].box),
            alive=(alive[0], alive[1]) if liveness else None,
        )

    async def embed(self, model: str | None, image: str, deadline: float) -> tuple[np.ndarray, str]:
        """Embedding of the meant face, shape (dim,), L2 norm 1, and the model's name. Raises NoFace."""
        node = self.node(model)
        face = await self._meant(node, image, "img", ("recognizer",), deadline)
        embeddings = await self._embeddings(node, [face], deadline)
        return embeddings[0], node.name

    async def analyze(
        self,
        model: str | None,
        image: str,
        actions: Sequence[str],
        deadline: float,
        *,
        liveness: bool = False,
    ) -> list[AnalyzedFace]:
        """Every face with age, gender, emotion (those of `actions`, all when empty) and liveness.

        What the model has no head for stays None. No face: an empty list.
        """
        node = self.node(model)
        require_liveness(node, liveness)
        heads = wanted_heads(node, actions)
        wanted = (*heads, "liveness") if liveness else heads
        faces = await self._faces(node, image, "img", deadline, crops=wanted)
        if not faces:
            return []
        told, alive = await together(
            self._told(node, faces, heads, deadline), self._alive(node, faces, deadline, liveness)
        )
        return [
            AnalyzedFace(face.box, face.score, only(said, actions), alive[index] if liveness else None)
            for index, (face, said) in enumerate(zip(faces, told, strict=True))
        ]

    async def detect(
        self, model: str | None, image: str, threshold: float | None, deadline: float
    ) -> tuple[FoundFace, ...]:
        """Every face, best score first. threshold: least score, 0..1; None means the model's own."""
        return await self._faces(self.node(model), image, "image", deadline, threshold=threshold)

    async def _faces(
        self,
        node: FaceNode,
        image: str,
        field_name: str,
        deadline: float,
        *,
        crops: tuple[str, ...] = (),
        select: Selection = "all",
        threshold: float | None = None,
    ) -> tuple[FoundFace, ...]:
        """Those that are meant of a picture's faces, with their crops. Errors name the field."""
        data = await self._media.read(image, field_name, deadline)
        with naming(field_name):
            request = DetectRequest(data, crops, select, threshold)
            return (await node.detector.detect(request, deadline)).faces

    async def _meant(
        self, node: FaceNode, image: str, field_name: str, wanted: tuple[str, ...], deadline: float
    ) -> FoundFace:
        faces = await self._faces(node, image, field_name, deadline, crops=wanted, select=node.select)
        if not faces:
            raise NoFace(f"{field_name}: no face detected in the picture", field_name)
        return faces[0]

    async def _embeddings(
        self, node: FaceNode, faces: Sequence[FoundFace], deadline: float
    ) -> list[np.ndarray]:
        """One for each face; those that a fused replica sent along, else the recognizer's."""
        there = [face.embedding for face in faces if face.embedding is not None]
        if len(there) == len(faces):
            return there
        return await node.recognizer.embed([face.crops["recognizer"][0] for face in faces], deadline)

    async def _told(
        self, node: FaceNode, faces: Sequence[FoundFace], heads: tuple[str, ...], deadline: float
    ) -> list[Demographics]:
        if node.attributes is None or not heads:
            return [Demographics() for _ in faces]
        there = [face.told for face in faces if face.told is not None]
        if len(there) == len(faces):
            return there
        crops: list[Crops] = [{head: face.crops[head] for head in heads} for face in faces]
        return await node.attributes.analyze(crops, deadline)

    async def _alive(
        self, node: FaceNode, faces: Sequence[FoundFace], deadline: float, asked: bool
    ) -> list[Alive]:
        if node.liveness is None or not asked:
            return []
        told = [face.alive for face in faces if face.alive is not None]
        if len(told) < len(faces):
            crops: list[tuple[Image, ...]] = [face.crops["liveness"] for face in faces]
            told = await node.liveness.score(crops, deadline)
        return [Alive(one.likeliest and one.score >= node.liveness_threshold, one.score) for one in told]


def require_liveness(node: FaceNode, asked: bool) -> None:
    """Raises LivenessUnavailable when liveness is asked of a model without its weights."""
    if asked and node.liveness is None:
        raise LivenessUnavailable(
            f'model "{node.name}" has no liveness weights; set its options antispoof_v2_onnx and '
            "antispoof_v1se_onnx, or install a gallery entry that brings them"
        )


def wanted_heads(node: FaceNode, actions: Sequence[str]) -> tuple[str, ...]:
    """The heads of the model that the actions need; no actions: all of them."""
    asked = {HEAD_OF_ACTION[action] for action in actions if action in HEAD_OF_ACTION}
    return tuple(head for head in node.heads if not actions or head in asked)
