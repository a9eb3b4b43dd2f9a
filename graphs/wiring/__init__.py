"""What the builder binds, and tells the gateway, of each model."""

from dataclasses import dataclass

from graphs.wiring.face import FaceWiring
from graphs.wiring.tts import OnDemandWiring, TtsWiring
from graphs.wiring.voice import VoiceWiring


@dataclass(frozen=True, slots=True)
class Wirings:
    """Every model by its kind, in the order in which a default is chosen.

    on_demand: what loads text-to-speech models by request.
    """

    faces: tuple[FaceWiring, ...] = ()
    voices: tuple[VoiceWiring, ...] = ()
    speech: tuple[TtsWiring, ...] = ()
    on_demand: OnDemandWiring | None = None
