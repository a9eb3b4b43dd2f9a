"""Voice flows: verify, analyze, embed. Plain objects that hold Protocols; no HTTP in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from deployments.messages import DescribeRequest
from deployments.together import together
from engines.errors import NothingComputable
from engines.types import Demographics
from graphs.choice import choose
from graphs.clients.voice import VoiceAttributes, VoiceEncoder
from graphs.demographics import only
from graphs.media import MediaReader, naming
from graphs.similarity import confidence, cosine_distance


@dataclass(frozen=True, slots=True)
class VoiceNode:
    """One voice model in the graph: its parts and the numbers that its answers depend on.

    threshold: default cosine distance. heads: "emotion" and "age_gender", those that `attributes` can run.
    """

    name: str
    threshold: float
    encoder: VoiceEncoder
    attributes: VoiceAttributes | None = None
    heads: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VoiceVerification:
    """Whether two clips are of the same speaker.

    distance: cosine distance, 0..2. confidence: 0..100, 0 at the threshold and beyond.
    """

    verified: bool
    distance: float
    threshold: float
    confidence: float
    model: str


@dataclass(frozen=True, slots=True)
class AnalyzedClip:
    """A clip of so many seconds, and what was computed of its speaker."""

    seconds: float
    told: Demographics = field(default_factory=Demographics)


HEAD_OF_ACTION = {"age": "age_gender", "gender": "age_gender", "emotion": "emotion"}
OPTION_OF_HEAD = {"age_gender": "age_gender_model", "emotion": "emotion_model"}
"""Which head computes which action, and which option of the model file enables it."""


class VoiceFlow:
    """What can be asked of voices. `models` keeps the order in which a default is chosen.

    kinds: what every model of the service is for, by name.
    """

    def __init__(
        self,
        models: Mapping[str, VoiceNode],
        media: MediaReader,
        kinds: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._models = models
        self._media = media
        self._kinds = kinds

    def node(self, name: str | None) -> VoiceNode:
        """The model of that name, the first one when no name is given. Raises UnknownModel."""
        return choose(self._models, name, "voice", self._kinds)

    async def verify(
        self, model: str | None, clips: tuple[str, str], threshold: float | None, deadline: float
    ) -> VoiceVerification:
        """Compares the speakers of two clips (URL, data URI or base64).

        threshold: cosine distance; None means the model's own. deadline: seconds since the epoch.
        Raises UnknownModel and the errors of media and models.
        """
        node = self.node(model)
        one, two = await together(
            self._embedding(node, clips[0], "audio1", deadline),
            self._embedding(node, clips[1], "audio2", deadline),
        )
        distance = cosine_distance(one, two)
        limit = threshold or node.threshold
        return VoiceVerification(
            verified=distance <= limit,
            distance=distance,
            threshold=limit,
            confidence=confidence(distance, limit),
            model=node.name,
        )

    async def embed(self, model: str | None, clip: str, deadline: float) -> tuple[np.ndarray, str]:
        """Embedding of the speaker, shape (dim,), L2 norm 1, and the model's name."""
        node = self.node(model)
        return await self._embedding(node, clip, "audio", deadline), node.name

    async def analyze(
        self, model: str | None, clip: str, actions: Sequence[str], deadline: float
    ) -> AnalyzedClip:
        """Age, gender, emotion of the speaker (those of `actions`, all when empty).

        What cannot be told stays None. Raises NothingComputable when that is everything.
        """
        node = self.node(model)
        heads = wanted_heads(node, actions)
        if node.attributes is None or not heads:
            raise nothing_computable(node, actions)
        data = await self._media.read(clip, "audio", deadline)
        with naming("audio"):
            described = await node.attributes.describe(DescribeRequest(data, heads), deadline)
        told = only(described.told, actions)
        if told == Demographics():
            raise nothing_computable(node, actions)
        return AnalyzedClip(described.seconds, told)

    async def _embedding(self, node: VoiceNode, clip: str, field_name: str, deadline: float) -> np.ndarray:
        data = await self._media.read(clip, field_name, deadline)
        with naming(field_name):
            return await node.encoder.embed(data, deadline)


def wanted_heads(node: VoiceNode, actions: Sequence[str]) -> tuple[str, ...]:
    """The heads of the model that the actions need; no actions: all of them."""
    asked = {HEAD_OF_ACTION[action] for action in actions}
    return tuple(head for head in node.heads if not actions or head in asked)


def nothing_computable(node: VoiceNode, actions: Sequence[str]) -> NothingComputable:
    """The error that says which options of the model file would enable what was asked."""
    asked = actions or tuple(HEAD_OF_ACTION)
    options = dict.fromkeys(OPTION_OF_HEAD[HEAD_OF_ACTION[action]] for action in asked)
    return NothingComputable(
        f'model "{node.name}" does not tell {", ".join(asked)}; its model file enables that with '
        f"the option {' or '.join(options)}"
    )
