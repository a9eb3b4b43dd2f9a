"""Labelled files, one folder a person, and their embeddings by one model in this process."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engines.errors import ConfigurationError, NoFace, PresenceError, TooLarge
from engines.types import Face, Runtime
from graphs.settings import Media, ModelFile
from graphs.wiring import face, voice

Kind = Literal["face", "voice"]
Embed = Callable[[bytes], NDArray[np.float32]]
"""The bytes of a file to an embedding of shape (dim,); raises a PresenceError where it cannot be read."""

MOST_FILES = 5000
"""They make 12 million pairs, which take about 1 GB."""

WEIGHTS: dict[str, Callable[[Face], float]] = {
    "largest": lambda found: found.box.area,
    "score": lambda found: found.score,
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One file, and the folder that says who is in it."""

    person: str
    path: Path


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that could not be used. file: person/name."""

    file: str
    reason: str


def samples(directory: Path) -> list[Sample]:
    """Every file of every folder. Raises ConfigurationError for a directory that has none of the kind."""
    if not directory.is_dir():
        raise ConfigurationError(f"{directory} is no directory; name one with a folder for each person")
    folders = sorted(path for path in directory.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise ConfigurationError(
            f"{directory} has no folders; one for each person is expected, with their files"
        )
    found = [
        Sample(folder.name, path)
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    ]
    if len(found) > MOST_FILES:
        raise ConfigurationError(f"{directory} has {len(found)} files; take a sample of at most {MOST_FILES}")
    require_pairs([one.person for one in found], f"{directory}: ")
    return found


def require_pairs(people: Sequence[str], where: str) -> None:
    """Raises ConfigurationError unless there are two people, and two files of one of them."""
    if len(set(people)) < 2:
        raise ConfigurationError(f"{where}files of {len(set(people))} people; at least two people are needed")
    if len(set(people)) == len(people):
        raise ConfigurationError(f"{where}one file a person; at least two of one person are needed")


def chosen(models: Iterable[ModelFile], kind: Kind, name: str | None) -> ModelFile:
    """The model of that name, the first of the kind when no name is given. Raises ConfigurationError."""
    fitting = {model.name: model for model in models if model.capability == kind}
    if not fitting:
        raise ConfigurationError(f"no {kind} model is configured or installed")
    if name and name not in fitting:
        raise ConfigurationError(f"no {kind} model is named {name!r}; there are: {', '.join(fitting)}")
    return fitting[name] if name else next(iter(fitting.values()))


def opened(model: ModelFile, kind: Kind, models_dir: Path, media: Media) -> tuple[Embed, float]:
    """The model, loaded in this process, and its present threshold. Raises ConfigurationError."""
    try:
        return {"face": _face, "voice": _voice}[kind](model, models_dir, media)
    except ConfigurationError as error:
        raise ConfigurationError(f"{model.where}: {error.message}") from None


def _face(model: ModelFile, models_dir: Path, media: Media) -> tuple[Embed, float]:
    # A model needs its libraries; importing this module must not load them.
    from engines.face.model import FaceModel  # noqa: PLC0415
    from engines.image import decode  # noqa: PLC0415

    described = FaceModel(model.engine, face.engine_options(model, models_dir))
    described.require_weights()
    engine, runtime, weight = described.engine, _runtime(), WEIGHTS[face.selection(model)]
    detector, recognizer = engine.load_detector(runtime), engine.load_recognizer(runtime)

    def embed(data: bytes) -> NDArray[np.float32]:
        image = decode(data, media.max_pixels)
        found = detector.detect(image)
        if not found:
            raise NoFace("no face detected in the picture")
        row: NDArray[np.float32] = recognizer.embed([engine.align(image, max(found, key=weight))])[0]
        return row

    return embed, engine.verify_threshold


def _voice(model: ModelFile, models_dir: Path, media: Media) -> tuple[Embed, float]:
    from engines.audio import decode, speech  # noqa: PLC0415 - see _face
    from engines.voice import RATE  # noqa: PLC0415
    from engines.voice.model import VoiceModel  # noqa: PLC0415

    described = VoiceModel(model.engine, voice.engine_options(model, models_dir))
    described.require_weights()
    engine = described.engine
    encoder = engine.load_encoder(_runtime())

    def embed(data: bytes) -> NDArray[np.float32]:
        heard = speech(decode(data, RATE, media.max_seconds), engine.least_seconds)
        row: NDArray[np.float32] = encoder.embed([heard])[0]
        return row

    return embed, engine.verify_threshold


def _runtime() -> Runtime:
    return Runtime(threads=len(os.sched_getaffinity(0)))


def embedded(
    files: Iterable[Sample], embed: Embed, media: Media
) -> Iterable[tuple[Sample, NDArray[np.float32] | Skipped]]:
    """Each file with its embedding, or why it has none."""
    for sample in files:
        try:
            if sample.path.stat().st_size > media.max_bytes:
                raise TooLarge(f"the file is larger than media.max_bytes, {media.max_bytes}")
            yield sample, embed(sample.path.read_bytes())
        except PresenceError as error:
            yield sample, Skipped(f"{sample.person}/{sample.path.name}", error.message)
        except OSError as error:
            yield sample, Skipped(f"{sample.person}/{sample.path.name}", error.strerror or "cannot be read")
