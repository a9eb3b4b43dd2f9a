"""Small random checkpoints in the layout of the real ones."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    HubertConfig,
    HubertForSequenceClassification,
    PreTrainedModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
)

from engines.types import Audio
from engines.voice import RATE

SIZE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "classifier_proj_size": 16,
    "initializer_range": 0.5,
}
KINDS = {
    "wav2vec2": (Wav2Vec2Config, Wav2Vec2ForSequenceClassification),
    "hubert": (HubertConfig, HubertForSequenceClassification),
}

Classifier = Callable[..., PreTrainedModel]


@pytest.fixture
def classifier(tmp_path: Path) -> Classifier:
    """Saves `tmp_path / name` with random weights that give clips clearly different answers."""

    def saved(name: str, labels: Sequence[str], kind: str = "wav2vec2", seed: int = 0) -> Any:
        torch.manual_seed(seed)
        named = dict(enumerate(labels))
        config, network = KINDS[kind]
        model: Any = network(
            config(**SIZE, id2label=named, label2id={label: at for at, label in named.items()})
        )
        model.save_pretrained(tmp_path / name)
        extractor: Any = Wav2Vec2FeatureExtractor  # transformers leaves its methods without types
        extractor(do_normalize=True).save_pretrained(tmp_path / name)
        return model.eval()

    return saved


@pytest.fixture
def clips() -> list[Audio]:
    """Noise of several lengths, two of them equal, each of another colour."""
    lengths = (RATE, 2 * RATE, RATE, int(0.3 * RATE))
    return [noise(length, seed) for seed, length in enumerate(lengths)]


def noise(samples: int, seed: int) -> Audio:
    """Noise, smoothed the more the larger the seed is."""
    loud = np.random.default_rng(seed).normal(0, 0.3, samples)
    return Audio(np.convolve(loud, np.ones(seed + 1) / (seed + 1), "same").astype(np.float32), RATE)
