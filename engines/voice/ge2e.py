"""The GE2E speaker encoder of Resemblyzer: 3 LSTM layers, 256-d. The weights come inside a package.

Sources: https://arxiv.org/abs/1710.10467, https://github.com/resemble-ai/Resemblyzer (Apache-2.0).
"""

from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from engines.errors import ConfigurationError
from engines.options import number
from engines.types import EngineOptions, Runtime
from engines.voice import SpeakerEncoder

PACKAGE = "resemblyzer"
DIM = 256


class Ge2e:
    """The engine: options, file, and its encoder."""

    known_options: ClassVar[dict[str, str]] = {
        "verify_threshold": "cosine distance up to which two clips are of one speaker; 0.25",
    }
    dim = DIM
    least_seconds = 1.0

    def __init__(self, options: EngineOptions) -> None:
        self.verify_threshold = number(options, "verify_threshold", 0.25, 0, 2)

    def weights(self) -> list[Path]:
        """The checkpoint inside the package, which is not imported: it needs the removed pkg_resources.

        Raises ConfigurationError where it is not installed.
        """
        found = find_spec(PACKAGE)
        path = Path(found.origin).parent / "pretrained.pt" if found and found.origin else None
        if path is None or not path.is_file():
            raise ConfigurationError(
                f"package {PACKAGE}, which carries the weights of resemblyzer-ge2e, is not installed: "
                f"pip install --no-deps {PACKAGE}"
            )
        return [path]

    def load_encoder(self, runtime: Runtime) -> SpeakerEncoder:
        """The LSTM on the GPU or the CPU."""
        # Describing a model must not load torch.
        from engines.voice.ge2e_encoder import LstmEncoder  # noqa: PLC0415 - imports torch

        return LstmEncoder(self.weights()[0], runtime)
