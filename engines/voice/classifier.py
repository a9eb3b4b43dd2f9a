"""Audio classifiers of transformers: a network that ends in one plain classification head.

Source: https://huggingface.co/docs/transformers/tasks/audio_classification
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

from engines.errors import ConfigurationError, InvalidInput
from engines.pretrained import FAILURES, directory
from engines.torch_device import device
from engines.types import Audio, Runtime
from engines.voice import RATE
from engines.voice.lengths import equal

logger = logging.getLogger("presence.voice")

WINDOW_S = 30
"""Attention takes time that grows with the square of a clip's length: a longer clip is told in equal parts
of at most this many seconds, and the mean of their probabilities is its answer.
"""
LEAST_S = 0.1
GPU_BATCH = 8

UNUSED = ("masked_spec_embed",)
"""Weights that only training uses; some checkpoints leave them out."""
PRETRAINING = ("quantizer.", "project_q.", "project_hid.")
"""Heads of wav2vec 2.0's pretraining; some checkpoints still carry them beside their own head."""


class AudioClassifier:
    """A checkpoint, loaded. Thread-safe.

    Clips of one length run together on a GPU, GPU_BATCH at a time; all others alone. wav2vec2-base normalises
    over the whole clip (`feat_extract_norm: group`) and knows no attention mask, so padding would change its
    answer, and on a CPU a batch takes as long as its clips one by one. tests/engines/voice/test_classifier.py
    shows what padding does.
    """

    def __init__(self, source: str, models_dir: Path, runtime: Runtime) -> None:
        """Loads a checkpoint, downloads it where it is not at hand; see engines/hub.py.

        Raises ConfigurationError, without a path, for a checkpoint that is no plain classifier.
        """
        self._device = device(runtime)
        self._most = GPU_BATCH if runtime.cuda else 1
        try:
            self._extract, self._net = _load(directory(source, models_dir))
            self._net.to(self._device).eval()
            self.labels: tuple[str, ...] = tuple(
                str(label) for _, label in sorted(self._net.config.id2label.items())
            )
            told = self.classify([Audio(np.full(RATE, 1e-3, np.float32), RATE)])
        except FAILURES as error:
            logger.warning("%s could not be loaded: %s: %s", source, type(error).__name__, error)
            raise ConfigurationError(
                "its files are incomplete, damaged, or no audio classifier of transformers; config.json, "
                "preprocessor_config.json and model.safetensors (or pytorch_model.bin) are expected"
            ) from error
        if told.shape != (1, len(self.labels)) or not np.isfinite(told).all():
            raise ConfigurationError("its network gives no probabilities: the weights are damaged")

    def classify(self, clips: Sequence[Audio]) -> NDArray[np.float32]:
        """Probabilities, shape (len(clips), len(labels)). clips: at RATE; InvalidInput below LEAST_S."""
        parts = [part for clip in clips for part in _parts(clip)]
        owners = [place for place, clip in enumerate(clips) for _ in _parts(clip)]
        told = np.empty((len(parts), len(self.labels)), np.float32)
        for group in equal([len(part) for part in parts], self._most):
            told[group] = self._run([parts[place] for place in group])
        return np.stack([told[np.equal(owners, place)].mean(axis=0) for place in range(len(clips))])

    def _run(self, parts: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """parts: of one length. Returns shape (len(parts), len(labels))."""
        inputs = self._extract(list(parts), sampling_rate=RATE, return_tensors="pt").to(self._device)
        with torch.inference_mode():
            shares = torch.softmax(self._net(**inputs).logits.float(), dim=-1)
        return np.asarray(shares.cpu().numpy(), np.float32)


def _parts(clip: Audio) -> NDArray[np.float32]:
    """Shape (n, samples): the clip in equal parts of at most WINDOW_S."""
    if clip.seconds < LEAST_S:
        raise InvalidInput(f"the clip lasts {clip.seconds:.2f} s; at least {LEAST_S} s are needed")
    count = -(-len(clip.samples) // (WINDOW_S * RATE))
    length = len(clip.samples) // count
    return clip.samples[: count * length].reshape(count, length)


def _load(found: Path) -> tuple[Any, Any]:
    """Feature extractor and network; code that comes with a checkpoint is never run."""
    net, info = AutoModelForAudioClassification.from_pretrained(
        found, output_loading_info=True, local_files_only=True, trust_remote_code=False
    )
    _refuse_another_head(net, info)
    extractors: Any = AutoFeatureExtractor  # transformers leaves its methods without types
    extract = extractors.from_pretrained(found, local_files_only=True, trust_remote_code=False)
    if getattr(extract, "sampling_rate", RATE) != RATE:
        raise ConfigurationError(f"it takes {extract.sampling_rate} samples a second, not {RATE}")
    return extract, net


def _refuse_another_head(net: Any, info: dict[str, Any]) -> None:
    """Refuses a checkpoint whose weights would partly be dropped, or made up at random."""
    kind = type(net).__name__
    invented = sorted(key for key in info["missing_keys"] if not key.endswith(UNUSED))
    dropped = sorted(key for key in info["unexpected_keys"] if not key.startswith(PRETRAINING))
    trained = list(net.config.architectures or [kind])
    if not invented and not dropped and kind in trained:
        return
    wrong = [
        f"{', '.join(keys[:4])} {fate}"
        for keys, fate in ((dropped, "would be dropped"), (invented, "would be random"))
        if keys
    ]
    raise ConfigurationError(
        f"it was trained as {', '.join(trained)} and does not fit {kind}"
        f"{': ' if wrong else ''}{'; '.join(wrong)}; name a checkpoint with a plain {kind} head"
    )
