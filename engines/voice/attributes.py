"""Emotion, age and gender of a speaker."""

from typing import ClassVar

from engines.types import EngineOptions, Runtime
from engines.voice import VoiceAttributes


class AttributeHeads:
    """The attribute heads of one model, as its options describe them. Loads no weights."""

    known_options: ClassVar[dict[str, str]] = {}

    def __init__(self, options: EngineOptions) -> None:
        self._options = options

    @property
    def names(self) -> tuple[str, ...]:
        """Which of "emotion" and "age_gender" the options enable."""
        return ()

    def load(self, runtime: Runtime) -> VoiceAttributes:
        """Cheap: a head loads (or is fetched) when it is first asked for."""
        raise NotImplementedError
