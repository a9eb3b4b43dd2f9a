"""The vocabulary shared by engines, deployments and graphs. Imports nothing of ours."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Image: TypeAlias = NDArray[np.uint8]
"""A picture: shape (height, width, 3), channels blue, green, red, values 0..255, upright."""

Embeddings: TypeAlias = NDArray[np.float32]
"""Shape (n, dim); every row has L2 norm 1."""


@dataclass(frozen=True, slots=True)
class Audio:
    """Sound of one channel. samples: shape (n,), values -1..1. rate: samples a second."""

    samples: NDArray[np.float32] = field(repr=False)
    rate: int

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.samples) / self.rate


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels of the upright picture: top-left corner and size."""

    x: float
    y: float
    w: float
    h: float

    @property
    def area(self) -> float:
        """Square pixels."""
        return self.w * self.h

    def clip(self, width: int, height: int) -> "Box":
        """The part of the box that lies inside a picture of that size (pixels)."""
        left, top = min(max(self.x, 0.0), width), min(max(self.y, 0.0), height)
        right, bottom = min(max(self.x + self.w, 0.0), width), min(max(self.y + self.h, 0.0), height)
        return Box(left, top, right - left, bottom - top)


@dataclass(frozen=True, slots=True)
class Face:
    """One face in a picture.

    box: inside the picture. score: the detector's confidence, 0..1.
    landmarks: shape (n, 2), pixels, in the order that the engine's own aligner expects.
    drawn: the box as the detector drew it, which may reach beyond the picture; None: it is `box`.
    """

    box: Box
    score: float
    landmarks: NDArray[np.float32] = field(repr=False)
    drawn: Box | None = None

    @property
    def outline(self) -> Box:
        """The whole face, also where the picture cuts it: crops are centred on this."""
        return self.drawn or self.box


@dataclass(frozen=True, slots=True)
class Demographics:
    """What an attribute model says of one face or voice. None: the model does not tell.

    age: years, 0..100. gender, emotion: label -> probability, summing to 1.
    """

    age: float | None = None
    gender: dict[str, float] | None = None
    emotion: dict[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Aliveness:
    """What a liveness model says of one face.

    score: probability of a living face, 0..1. likeliest: whether no kind of spoof is more probable.
    """

    score: float
    likeliest: bool


@dataclass(frozen=True, slots=True)
class Runtime:
    """What the replica was given. threads: CPU threads for one inference. cuda: run on the GPU."""

    threads: int = 1
    cuda: bool = False


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """The part of a model file that its engine reads.

    model: `parameters.model`. options: the `options` list as a mapping, all values text.
    models_dir: where relative weight file names are looked up.
    """

    model: str = ""
    options: dict[str, str] = field(default_factory=dict)
    models_dir: Path = Path()
