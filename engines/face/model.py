"""A face model as its model file describes it: an engine, and the optional heads beside it."""

from collections.abc import Callable
from pathlib import Path

from engines import registry
from engines.face import FaceEngine
from engines.face.expression import Expression
from engines.face.minifasnet import MiniFasNet
from engines.options import refuse_unknown, require_files
from engines.types import EngineOptions, Face, Image

CropNames = tuple[str, ...]


class FaceModel:
    """Engine, liveness and expression of one model. Loads no weights.

    Raises ConfigurationError for an option that nobody knows or whose value is wrong.
    """

    def __init__(self, engine: str, options: EngineOptions) -> None:
        kind = registry.load("face", engine)
        self._options = options
        self.engine: FaceEngine = kind(options)
        self.liveness = MiniFasNet(options)
        self.expression = Expression(options)
        known = {*kind.known_options, *MiniFasNet.known_options, *Expression.known_options}
        refuse_unknown(options.options, known)

    @property
    def weights(self) -> list[Path]:
        """Every weight file of the model."""
        return [*self.engine.weights(), *self.liveness.weights(), *self.expression.weights()]

    def require_weights(self) -> None:
        """Raises ConfigurationError that names the weight files that do not exist."""
        require_files(self.weights, self._options)

    def crops(self, image: Image, face: Face, wanted: CropNames) -> dict[str, tuple[Image, ...]]:
        """The crops of one face for the wanted parts: recognizer, genderage, expression, liveness."""
        makers: dict[str, Callable[[Image, Face], tuple[Image, ...]]] = {
            "recognizer": lambda picture, one: (self.engine.align(picture, one),),
            "genderage": self.engine.attribute_crops,
            "expression": self.expression.crops,
            "liveness": self.liveness.crops,
        }
        return {name: makers[name](image, face) for name in wanted}
