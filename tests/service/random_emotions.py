"""Writes a small random emotion classifier into a directory: `python random_emotions.py DIRECTORY`."""

import sys

import torch
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForSequenceClassification

torch.manual_seed(0)
labels = dict(enumerate(("neu", "hap", "ang", "sad")))
config = Wav2Vec2Config(
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=32,
    conv_dim=(16,) * 7,
    num_conv_pos_embeddings=16,
    num_conv_pos_embedding_groups=4,
    classifier_proj_size=16,
    initializer_range=0.5,
    id2label=labels,
    label2id={label: index for index, label in labels.items()},
)
Wav2Vec2ForSequenceClassification(config).save_pretrained(sys.argv[1])
Wav2Vec2FeatureExtractor().save_pretrained(sys.argv[1])  # type: ignore[no-untyped-call] # it is not annotated
