"""A voice model as its model file describes it: a speaker engine, and the attribute heads beside it."""

from engines import registry
from engines.options import refuse_unknown, require_files
from engines.types import EngineOptions
from engines.voice import VoiceEngine
from engines.voice.attributes import AttributeHeads


class VoiceModel:
    """Speaker engine and attribute heads of one model. Loads no weights.

    Raises ConfigurationError for an option that nobody knows or whose value is wrong.
    """

    def __init__(self, engine: str, options: EngineOptions) -> None:
        kind = registry.load("voice", engine)
        self._options = options
        self.engine: VoiceEngine = kind(options)
        self.heads = AttributeHeads(options)
        refuse_unknown(options.options, {*kind.known_options, *AttributeHeads.known_options})

    def require_weights(self) -> None:
        """Raises ConfigurationError that names the weight files that do not exist."""
        require_files(self.engine.weights(), self._options)
