"""SpeechBrain's ECAPA-TDNN: 192 numbers a clip, trained on VoxCeleb 1 and 2.

Sources: https://huggingface.co/speechbrain/spkrec-ecapa-voxceleb (Apache-2.0), Desplanques et al.,
arXiv:2005.07143. The package is an extra, presence[speechbrain]: torchaudio fits one torch only.
"""

import logging
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, ClassVar

import numpy as np
import torch

from engines import hub
from engines.embedding import unit_rows
from engines.errors import ConfigurationError
from engines.options import number
from engines.torch_device import device
from engines.types import Audio, Embeddings, EngineOptions, Runtime
from engines.voice import RATE
from engines.voice.lengths import equal

logger = logging.getLogger("presence.voice")

SOURCE = "speechbrain/spkrec-ecapa-voxceleb"
DIM = 192
HYPERPARAMETERS = "hyperparams.yaml"
PATTERNS = (HYPERPARAMETERS, "*.ckpt", "*.txt")
BATCH = 16
"""Clips of one length that run together."""

INSTALL = "install presence[speechbrain], which brings a torchaudio and a torch that fit each other"


FAILURES = (
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    UnpicklingError,
    ValueError,
)


class SpeechBrainEcapa:
    """The engine: options, and the checkpoint.

    A source must be trusted: its hyperparams.yaml is a program. HyperPyYAML makes whatever Python objects it
    names, as SpeechBrain itself warns.
    """

    known_options: ClassVar[dict[str, str]] = {
        "source": "checkpoint in SpeechBrain's layout, which must be trusted: repository id, or directory "
        f"under the models directory; {SOURCE}",
        "verify_threshold": "cosine distance up to which two clips are of one speaker; 0.25",
        "threshold": "the same, by LocalAI's other name",
    }
    least_seconds = 0.5

    def __init__(self, options: EngineOptions) -> None:
        self._source = options.options.get("source") or options.model or SOURCE
        self._models_dir = options.models_dir
        self.verify_threshold = number(
            options, "verify_threshold", number(options, "threshold", 0.25, 0, 2), 0, 2
        )
        self._directory = hub.local(self._source, self._models_dir)
        for package in ("speechbrain", "torchaudio"):
            if find_spec(package) is None:
                raise ConfigurationError(f"backend speechbrain needs the package {package}: {INSTALL}")

    @property
    def dim(self) -> int | None:
        """192 for the published checkpoint; another source says it when it is loaded."""
        return DIM if self._source == SOURCE else None

    def weights(self) -> list[Path]:
        """The hyperparameters of a directory, which name the rest; nothing of a repository: it is fetched."""
        return [self._directory / HYPERPARAMETERS] if self._directory else []

    def load_encoder(self, runtime: Runtime) -> "EcapaEncoder":
        """Loads the checkpoint, downloads it where it is not at hand; see engines/hub.py."""
        classifier, failures = _speechbrain()
        place = device(runtime)
        directory = hub.checkpoint(self._source, self._models_dir, PATTERNS)
        try:
            return EcapaEncoder(_load(classifier, directory, place))
        except failures as error:
            logger.warning("%s could not be loaded: %s: %s", self._source, type(error).__name__, error)
            raise ConfigurationError(
                f"source:{hub.shown(self._source)} is no checkpoint for SpeechBrain's EncoderClassifier: "
                f"{HYPERPARAMETERS} or a file that it names is missing, damaged or of another kind"
            ) from error


class EcapaEncoder:
    """Waveforms to embeddings. Thread-safe.

    Clips of one length run together, others alone: features are normalised over the clip, convolutions see
    what stands behind its end, and squeeze-and-excitation averages, so that a padded clip gets another
    embedding than alone even when its length is told. tests/engines/voice/test_speechbrain_ecapa.py shows
    both.
    """

    def __init__(self, model: Any) -> None:
        """Raises RuntimeError where the network gives no embedding of a second of noise."""
        self._model = model
        noise = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
        probe = self.embed([Audio(noise, RATE)])
        if probe.ndim != 2 or not np.isfinite(probe).all():
            raise RuntimeError("the network gives no embedding")
        self._dim = probe.shape[1]

    def embed(self, clips: Sequence[Audio]) -> Embeddings:
        """Shape (len(clips), dim), rows L2-normalised."""
        if not clips:
            return np.empty((0, self._dim), np.float32)
        rows: dict[int, np.ndarray] = {}
        for group in equal([len(clip.samples) for clip in clips], BATCH):
            waves = torch.from_numpy(np.stack([clips[place].samples for place in group]))
            with torch.inference_mode():
                told = self._model.encode_batch(waves).squeeze(1).cpu().numpy()
            rows.update(zip(group, told, strict=True))
        return unit_rows(np.stack([rows[place] for place in range(len(clips))]))


def _speechbrain() -> tuple[Any, tuple[type[Exception], ...]]:
    """SpeechBrain's class, and what it raises for a checkpoint that is damaged or of another kind.

    The import takes seconds, and fails where torchaudio does not fit torch.
    """
    try:
        from ruamel.yaml.error import YAMLError  # noqa: PLC0415 - comes with SpeechBrain
        from speechbrain.inference.classifiers import EncoderClassifier  # noqa: PLC0415 - imports torch
    except (AttributeError, ImportError, OSError, RuntimeError) as error:
        logger.warning("speechbrain cannot be imported: %s: %s", type(error).__name__, error)
        raise ConfigurationError(f"speechbrain or torchaudio cannot be imported: {INSTALL}") from error
    return EncoderClassifier, (*FAILURES, YAMLError)


def _load(classifier: Any, directory: Path, place: torch.device) -> Any:
    """The model on its device. Its files are read where they lie: nothing is linked or copied."""
    model = classifier.from_hparams(
        source=str(directory),
        overrides={"pretrained_path": str(directory)},
        overrides_must_match=False,
        run_opts={"device": "cuda:0" if place.type == "cuda" else "cpu"},
    )
    _require_all_weights(model)
    return model


def _require_all_weights(model: Any) -> None:
    """Raises ValueError where SpeechBrain, which only logs it, left weights of the network at random."""
    path = model.hparams.pretrainer.paths["embedding_model"]
    stored = set(torch.load(path, map_location="cpu", weights_only=True))
    needed = set(model.mods.embedding_model.state_dict())
    if unlike := [key for key in stored ^ needed if not key.endswith("num_batches_tracked")]:
        raise ValueError(f"weights without a counterpart: {', '.join(sorted(unlike)[:4])}")
