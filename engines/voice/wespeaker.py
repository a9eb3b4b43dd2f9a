"""Speaker networks in ONNX: WeSpeaker's, and ERes2Net and CAM++ of 3D-Speaker.

Sources: https://github.com/wenet-e2e/wespeaker (Apache-2.0; weights CC BY 4.0),
https://github.com/modelscope/3D-Speaker (Apache-2.0).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException

from engines import onnx
from engines.embedding import unit_rows
from engines.errors import ConfigurationError
from engines.options import number, optional_file, whole
from engines.types import Audio, Embeddings, EngineOptions, Runtime
from engines.voice import RATE
from engines.voice.fbank import Fbank
from engines.voice.lengths import equal

BATCH = 8
"""Clips of one length that run together."""

MOST_SECONDS = 20
"""A longer clip is embedded in equal parts: ResNet34 takes 10 kB a frame in each of several layers."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a family of networks was trained, and the cosine distance that tells two speakers apart by it."""

    fbank: Fbank
    threshold: float


RECIPES = {
    "wespeaker": Recipe(Fbank(scale=32_768.0, window="hamming"), 0.30),
    "3d-speaker": Recipe(Fbank(scale=1.0, window="povey"), 0.28),
}
FAMILY_NAMES = ("eres2net", "campplus", "cam++", "3dspeaker", "3d-speaker", "3d_speaker")
"""A file whose name holds one of these is of 3D-Speaker where no option says otherwise."""


class WeSpeaker:
    """The engine: options, file, and its encoder."""

    known_options: ClassVar[dict[str, str]] = {
        "model_path": "the network's ONNX file, under the models directory; parameters.model",
        "onnx": "the same, by LocalAI's other name",
        "recipe": "wespeaker or 3d-speaker: how features are computed, and the threshold; by the file's name",
        "sample_rate": "16000, the only one",
        "fbank_num_mel_bins": "bands of the features; 80",
        "fbank_frame_length_ms": "length of a frame in milliseconds; 25",
        "fbank_frame_shift_ms": "from one frame to the next in milliseconds; 10",
        "fbank_cmn": "true or false: remove each band's mean over the clip; true",
        "verify_threshold": "cosine distance up to which two clips are of one speaker; 0.30, 3D-Speaker 0.28",
        "threshold": "the same, by LocalAI's other name",
        "providers": "read and ignored: the replica's GPU decides",
    }
    dim = None
    least_seconds = 0.5

    def __init__(self, options: EngineOptions) -> None:
        self._path = _file(options)
        self._family = _family(options, self._path)
        recipe = RECIPES[self._family]
        whole(options, "sample_rate", RATE, RATE, RATE)
        self.fbank = replace(
            recipe.fbank,
            bins=whole(options, "fbank_num_mel_bins", 80, 4, 256),
            length_ms=number(options, "fbank_frame_length_ms", 25, 5, 100),
            shift_ms=number(options, "fbank_frame_shift_ms", 10, 1, 100),
            cmn=_flag(options, "fbank_cmn", default=True),
        )
        threshold = number(options, "threshold", recipe.threshold, 0, 2)
        self.verify_threshold = number(options, "verify_threshold", threshold, 0, 2)

    def weights(self) -> list[Path]:
        """The network."""
        return [self._path]

    def load_encoder(self, runtime: Runtime) -> "OnnxEncoder":
        """The network on the GPU or the CPU."""
        net = onnx.session(self._path, runtime)
        stated = net.get_modelmeta().custom_metadata_map.get("framework", self._family)
        if stated != self._family:
            raise ConfigurationError(
                f"{self._path.name} was trained by {stated}: set recipe:{stated} if it is one of "
                f"{', '.join(RECIPES)}; others are not supported"
            )
        try:
            return OnnxEncoder(net, self.fbank)
        except (Fail, InvalidArgument, RuntimeException, ValueError) as error:
            raise ConfigurationError(
                f"{self._path.name} is no speaker network of one input, features [clip, frame, "
                f"{self.fbank.bins}], their transpose or samples [clip, sample]: {error}"
            ) from error


class OnnxEncoder:
    """Clips to embeddings. Thread-safe, as ONNX Runtime is.

    Clips of one length run together, others alone: statistics over time and convolutions at the end of a
    clip see any padding.
    """

    def __init__(self, net: ort.InferenceSession, fbank: Fbank) -> None:
        """Raises ValueError, or what ONNX Runtime raises, for a network that gives no embedding of noise."""
        self._net, self._fbank = net, fbank
        shape = net.get_inputs()[0].shape
        self._takes_samples = len(shape) == 2
        self._transposed = len(shape) == 3 and shape[1] == fbank.bins and shape[2] != fbank.bins
        noise = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
        self._dim = self._run([self._input(noise)]).shape[1]

    def embed(self, clips: Sequence[Audio]) -> Embeddings:
        """Shape (len(clips), dim). Of a clip above MOST_SECONDS, the mean of its parts' embeddings."""
        if not clips:
            return np.empty((0, self._dim), np.float32)
        parts = [_parts(clip.samples) for clip in clips]
        inputs = [self._input(part) for of_clip in parts for part in of_clip]
        rows = np.empty((len(inputs), self._dim), np.float32)
        for group in equal([len(one) for one in inputs], BATCH):
            rows[group] = self._run([inputs[place] for place in group])
        of_clips = np.split(unit_rows(rows), np.cumsum([len(of_clip) for of_clip in parts])[:-1])
        return unit_rows(np.stack([of_clip.mean(axis=0) for of_clip in of_clips]))

    def _input(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Shape (frames, bins), or (samples,) for a network that takes samples."""
        return samples if self._takes_samples else self._fbank.features(Audio(samples, RATE))

    def _run(self, inputs: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        batch = np.stack(inputs)
        rows = onnx.run(self._net, batch.transpose(0, 2, 1) if self._transposed else batch)
        return rows.reshape(len(inputs), -1)


def _parts(samples: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Equal parts of at most MOST_SECONDS; the few samples that do not divide are left out."""
    count = -(-len(samples) // (MOST_SECONDS * RATE)) or 1
    return list(samples[: len(samples) // count * count].reshape(count, -1))


def _file(options: EngineOptions) -> Path:
    path = optional_file(options, "model_path") or optional_file(options, "onnx")
    if path is None and options.model:
        path = options.models_dir / options.model
    if path is None:
        raise ConfigurationError("option model_path is missing; name the ONNX file of the models directory")
    return path


def _family(options: EngineOptions, path: Path) -> str:
    named = any(name in path.name.lower() for name in FAMILY_NAMES)
    family = options.options.get("recipe", "3d-speaker" if named else "wespeaker")
    if family not in RECIPES:
        raise ConfigurationError(f"option recipe:{family} must be one of {', '.join(RECIPES)}")
    return family


def _flag(options: EngineOptions, name: str, default: bool) -> bool:
    text = options.options.get(name, str(default)).lower()
    if text not in {"true", "false"}:
        raise ConfigurationError(f"option {name}:{text} must be true or false")
    return text == "true"
