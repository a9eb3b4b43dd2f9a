"""A text-to-speech model as its model file describes it."""

from pathlib import Path

from engines import registry
from engines.errors import ConfigurationError
from engines.options import refuse_unknown, require_files
from engines.tts import TtsEngine
from engines.types import EngineOptions


class TtsModel:
    """The engine of one model, and the recording whose voice it speaks with. Loads no weights.

    recording: a file of sound, relative ones under the models directory; "" for none. Raises
    ConfigurationError for an option that nobody knows or whose value is wrong, for a recording where the
    engine clones no voice, and for one outside the models directory.
    """

    def __init__(self, engine: str, options: EngineOptions, recording: str = "") -> None:
        kind = registry.load("tts", engine)
        self._options = options
        self.engine: TtsEngine = kind(options)
        refuse_unknown(options.options, kind.known_options)
        self.recording = self._inside(options.models_dir, recording) if recording else None
        if recording and not self.engine.clones:
            raise ConfigurationError(
                "tts.audio_path: this backend speaks with no recording's voice; use tts.voice"
            )

    def require_files(self) -> None:
        """Raises ConfigurationError that names the weight files, or the recording, that do not exist."""
        recording = [self.recording] if self.recording else []
        require_files([*self.engine.weights(), *recording], self._options)

    def _inside(self, directory: Path, name: str) -> Path:
        path = (directory / name).resolve()
        if not path.is_relative_to(directory.resolve()):
            raise ConfigurationError(f"tts.audio_path: {name} lies outside the models directory")
        return path
