"""Text to speech: which model is meant, with which voice, and the pieces of its sound."""

import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from deployments.messages import SpeakRequest
from engines.errors import InvalidInput, TooLarge, UnknownModel
from engines.tts import Voice
from engines.tts.formats import Target
from graphs.choice import refuse_disabled
from graphs.clients.tts import Synthesizer
from graphs.voices import SCHEME, VoiceLibrary, is_id, profile_id

DEFAULT_NAMES = re.compile(r"tts(-1(-hd)?)?(-\d{4})?|gpt-4o(-mini)?-tts(-[\d-]+)?|eleven_\w+")
"""The models of LocalAI's, OpenAI's and ElevenLabs' examples: the default model, where none has the name."""

FOREIGN_VOICES = re.compile(
    "alloy|ash|ballad|cedar|coral|echo|fable|marin|nova|onyx|sage|shimmer|verse|(?=[^ ]*[0-9])[A-Za-z0-9]{20}"
)
"""OpenAI's voices, ids like those of ElevenLabs: the model's own voice, where it has none of that name."""

VOICES_AS_MODELS = {"bark": re.compile(r"(v2/)?(\w+_speaker_\d+|announcer)")}
"""By backend: what a request calls its model there, and means as its voice."""

MUSIC = "transformers-musicgen"
WEIGHTS = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*")
"""What a request may name of a backend that loads on demand: nothing outside the models directory."""

LEAST_SPEED, MOST_SPEED = 0.25, 4.0
MOST_RATE = 48_000
"""Samples a second: more of them hold nothing of a voice."""

MOST_LISTED = 20


@dataclass(frozen=True, slots=True)
class SpeechNode:
    """One text-to-speech model in the graph. synthesizer is shared by the models that load on demand.

    backend: its engine. weights: what its model file calls `parameters.model`. language: when a request names
    none. music: it makes music of a description. clones: it speaks with the voice of a recording.
    on_demand: it is loaded by the first request that names it.
    """

    name: str
    backend: str
    synthesizer: Synthesizer
    weights: str = ""
    language: str = ""
    music: bool = False
    clones: bool = False
    on_demand: bool = False


@dataclass(frozen=True, slots=True)
class Order:
    """What a request asks for; "" and None mean the default."""

    text: str = field(repr=False)
    target: Target
    model: str = ""
    backend: str = ""
    voice: str = ""
    language: str = ""
    speed: float | None = None
    instructions: str = field(default="", repr=False)
    params: Mapping[str, str] = field(default_factory=dict)
    whole: bool = True


class SpeechFlow:
    """What can be asked of text to speech. `models` keeps the order in which a default is chosen.

    ad_hoc: nodes by backend, that speak with any model of it. kinds: what every model of the service is for.
    """

    def __init__(
        self,
        models: Mapping[str, SpeechNode],
        library: VoiceLibrary,
        ad_hoc: Mapping[str, SpeechNode] = MappingProxyType({}),
        kinds: Mapping[str, str] = MappingProxyType({}),
        max_characters: int = 10_000,
    ) -> None:
        self._models = models
        self._library = library
        self._ad_hoc = ad_hoc
        self._kinds = kinds
        self._max_characters = max_characters

    async def speak(self, order: Order, deadline: float) -> AsyncGenerator[bytes, None]:
        """Pieces of encoded sound; the first is there when this returns. Whoever stops early closes it.

        Raises InvalidInput, TooLarge, UnknownModel, UnknownRecord and the errors of models.
        """
        node, order = self.select(order)
        pieces = node.synthesizer.speak(await self._request(node, order, deadline), deadline)
        first = await anext(pieces, b"")
        return _continued(first, pieces)

    async def whole(self, order: Order, deadline: float) -> bytes:
        """All of it at once, with a header that tells its length."""
        async with aclosing(await self.speak(order, deadline)) as pieces:
            return b"".join([piece async for piece in pieces])

    async def voices(self, deadline: float) -> list[tuple[SpeechNode, Sequence[Voice]]]:
        """Every model that speaks with the voices that it has by name.

        A model that loads on demand tells none: it would have to be loaded.
        """
        return [
            (node, () if node.on_demand else await node.synthesizer.voices(deadline))
            for node in self._models.values()
            if not node.music
        ]

    def select(self, order: Order) -> tuple[SpeechNode, Order]:
        """The model that is meant, and the order with what the model's name said of the voice.

        Raises UnknownModel that lists what is installed, ModelDisabled.
        """
        refuse_disabled(order.model, self._kinds)
        name, backend = order.model, order.backend
        if backend and (preset := VOICES_AS_MODELS.get(backend)) and preset.fullmatch(name):
            order = replace(order, model="", voice=order.voice or name)
            name = ""
        node = self._named(name, backend) if name else self._first(backend)
        if node is None and backend in self._ad_hoc and (not name or WEIGHTS.fullmatch(name)):
            return self._ad_hoc[backend], replace(order, model=name)
        if node is None and not backend and DEFAULT_NAMES.fullmatch(name):
            node = self._first("")
        if node is None:
            raise UnknownModel(self._unknown(name, backend))
        return node, replace(order, model=node.weights)

    def music(self, order: Order) -> Order:
        """The same order of a model that makes music: the one that it names, else the first.

        Raises UnknownModel that says how to install one.
        """
        if order.model and not DEFAULT_NAMES.fullmatch(order.model):
            return order if self._named(order.model, "") else replace(order, backend=MUSIC)
        found = next((node.name for node in self._models.values() if node.music), "")
        if not found and MUSIC not in self._ad_hoc:
            raise UnknownModel(
                f"no model that makes music is installed: write a model file with backend {MUSIC}, "
                "or name that backend in speech.on_demand.backends"
            )
        return replace(order, model=found, backend="" if found else MUSIC)

    async def by_voice(self, order: Order, voice_id: str, deadline: float) -> Order:
        """The same order with the voice of that id; without a model in the order, the voice tells it.

        voice_id: a voice of the model, MODEL:VOICE, MODEL, or the id of a profile. Raises UnknownRecord.
        """
        model = "" if DEFAULT_NAMES.fullmatch(order.model) else order.model
        if is_id(voice_id):
            await self._library.get(voice_id, deadline)
            cloning = next((node.name for node in self._models.values() if node.clones), "")
            return replace(order, model=model or cloning, voice=SCHEME + voice_id)
        before, colon, after = voice_id.partition(":")
        if before in self._models and model in ("", before):
            return replace(order, model=before, voice=after if colon else "")
        return replace(order, model=model, voice=voice_id)

    def _named(self, name: str, backend: str) -> SpeechNode | None:
        """By the name of the model, else by that of its weights, with their directory or without."""
        fitting = [node for node in self._models.values() if backend in ("", node.backend)]
        ways: list[Callable[[SpeechNode], str]] = [
            lambda node: node.name,
            lambda node: node.weights,
            lambda node: node.weights.rpartition("/")[2],
        ]
        return next((node for way in ways for node in fitting if way(node) == name), None)

    def _first(self, backend: str) -> SpeechNode | None:
        fitting = [node for node in self._models.values() if backend in ("", node.backend)]
        return next((node for node in fitting if backend or not node.music), None)

    def _unknown(self, name: str, backend: str) -> str:
        if name in self._kinds and name not in self._models:
            return f'model "{name}" is a {self._kinds[name]} model; this route needs a tts model'
        meant = f'model "{name[:100]}"' if name else "a text-to-speech model"
        listed = [f"{node.name} ({node.backend})" for node in self._models.values()]
        listed += [f"any model of backend {one}" for one in self._ad_hoc]
        more = f" and {len(listed) - MOST_LISTED} more" if len(listed) > MOST_LISTED else ""
        return (
            f"{meant}{f' of backend {backend[:100]!r}' if backend else ''} not found. "
            f"Installed: {', '.join(listed[:MOST_LISTED]) or 'none'}{more}. "
            "Install one with `presence models install`"
        )

    async def _request(self, node: SpeechNode, order: Order, deadline: float) -> SpeakRequest:
        if not order.text.strip():
            raise InvalidInput("input: the text is empty")
        if (order.target.sample_rate or 0) > MOST_RATE:
            raise InvalidInput(f"sample_rate: at most {MOST_RATE}")
        if len(order.text) > self._max_characters:
            raise TooLarge(f"input: more than {self._max_characters} characters")
        voice, reference = order.voice, None
        if (found := profile_id(voice)) is not None:
            voice, reference = "", await self._library.recording(found, deadline)
        params = dict(order.params)
        return SpeakRequest(
            text=order.text,
            target=order.target,
            voice=voice,
            language=order.language or node.language,
            speed=speed_of(params.pop("speed", order.speed)),
            instructions=order.instructions,
            params=params,
            reference=reference,
            any_voice=FOREIGN_VOICES.fullmatch(voice) is not None,
            whole=order.whole,
            backend=node.backend,
            weights=order.model,
        )


async def _continued(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(rest):
        yield first
        async for piece in rest:
            yield piece


def speed_of(value: float | str | None) -> float:
    """How fast, 1 for None. Raises InvalidInput for what is no number from LEAST_SPEED to MOST_SPEED."""
    try:
        speed = 1.0 if value is None else float(value)
    except ValueError:
        speed = 0.0
    if not LEAST_SPEED <= speed <= MOST_SPEED:
        raise InvalidInput(f"speed: a number from {LEAST_SPEED:g} to {MOST_SPEED:g}")
    return speed
