"""Small random checkpoints of the real classes, in the layout of the published ones."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BarkConfig,
    BarkModel,
    EncodecConfig,
    EncodecFeatureExtractor,
    GenerationConfig,
    MusicgenConfig,
    MusicgenForConditionalGeneration,
    PreTrainedTokenizerFast,
)

WORDS = ["[PAD]", "[UNK]", "</s>", *"abcdefghijklmnopqrstuvwxyz", "hello", "world", "cello", "rave"]
HOP = 16
"""Samples a frame of the codec."""


def codec(codebooks: int, rate: int) -> dict[str, Any]:
    """EnCodec with `codebooks` codebooks of 16 entries and rate / HOP frames a second."""
    return EncodecConfig(
        sampling_rate=rate,
        target_bandwidths=[rate / HOP * 4 * codebooks / 1000],
        upsampling_ratios=[4, 4],
        hidden_size=16,
        num_filters=4,
        num_lstm_layers=1,
        codebook_size=16,
    ).to_dict()


def randomize(model: Any) -> None:
    """Gives the codebooks of the codec entries that differ: they are zeros until they are trained."""
    for name, values in model.named_buffers():
        if name.endswith("codebook.embed"):
            values.normal_()


def tokenizer(directory: Path) -> None:
    """One token a known word."""
    pad, unknown, end = WORDS[:3]
    words = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token=unknown))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    fast: Any = PreTrainedTokenizerFast
    made = fast(tokenizer_object=words, pad_token=pad, unk_token=unknown, eos_token=end)
    made.save_pretrained(directory)


def save_bark(directory: Path, seed: int = 0) -> Any:
    """A Bark with 8 codebooks that speaks up to 24 semantic tokens, and the presets of `presets`."""
    torch.manual_seed(seed)
    small = {"num_layers": 1, "num_heads": 2, "hidden_size": 16, "initializer_range": 0.5}
    model: Any = BarkModel(
        BarkConfig(
            semantic_config={**small, "block_size": 64, "input_vocab_size": 100, "output_vocab_size": 40},
            coarse_acoustics_config={
                **small,
                "block_size": 96,
                "input_vocab_size": 80,
                "output_vocab_size": 80,
            },
            fine_acoustics_config={
                **small,
                "block_size": 64,
                "input_vocab_size": 17,
                "output_vocab_size": 17,
            },
            codec_config=codec(8, 16_000),
        )
    )
    randomize(model)
    generation: Any = GenerationConfig  # transformers leaves its methods without types
    model.generation_config = generation(**bark_generation())
    model.save_pretrained(directory)
    tokenizer(directory)
    presets(directory)
    return model.eval()


def bark_generation() -> dict[str, Any]:
    """Tokens of text from 50 up, 32 semantic ones, two coarse codebooks of 16 from 32 up."""
    return {
        "sample_rate": 16_000,
        "codebook_size": 16,
        "semantic_config": {
            "do_sample": True,
            "eos_token_id": 32,
            "max_new_tokens": 24,
            "text_encoding_offset": 50,
            "text_pad_token": 98,
            "semantic_infer_token": 99,
            "semantic_vocab_size": 32,
            "max_input_semantic_length": 16,
        },
        "coarse_acoustics_config": {
            "do_sample": True,
            "coarse_semantic_pad_token": 70,
            "coarse_infer_token": 71,
            "max_coarse_input_length": 16,
            "max_coarse_history": 30,
            "sliding_window_len": 12,
        },
        "fine_acoustics_config": {
            "temperature": 0.5,
            "max_fine_history_length": 16,
            "max_fine_input_length": 32,
        },
    }


def presets(directory: Path) -> None:
    """v2/en_speaker_4 and de_speaker_1, each in three files, and one that was not downloaded."""
    random = np.random.default_rng(0)
    table: dict[str, Any] = {"repo_or_path": "someone/else"}
    (directory / "speaker_embeddings" / "v2").mkdir(parents=True)
    for name in ("v2/en_speaker_4", "de_speaker_1", "v2/fr_speaker_0"):
        shapes = {"semantic_prompt": (20,), "coarse_prompt": (2, 30), "fine_prompt": (8, 30)}
        table[name] = {part: f"speaker_embeddings/{name}_{part}.npy" for part in shapes}
        for part, shape in shapes.items():
            if "fr_" not in name:
                np.save(directory / table[name][part], random.integers(0, 16, shape), allow_pickle=False)
    (directory / "speaker_embeddings_path.json").write_text(json.dumps(table))


def save_musicgen(directory: Path, channels: int = 1, seed: int = 0) -> Any:
    """A MusicGen with 2 codebooks a channel, 100 frames a second."""
    torch.manual_seed(seed)
    model: Any = MusicgenForConditionalGeneration(
        MusicgenConfig(
            text_encoder={
                "model_type": "t5",
                "vocab_size": len(WORDS),
                "d_model": 16,
                "d_kv": 8,
                "d_ff": 32,
                "num_layers": 1,
                "num_heads": 2,
            },
            audio_encoder=codec(2, 1_600),
            decoder={
                "vocab_size": 16,
                "hidden_size": 16,
                "ffn_dim": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "num_codebooks": 2 * channels,
                "audio_channels": channels,
                "pad_token_id": 16,
                "bos_token_id": 16,
                "initializer_factor": 0.5,
            },
        )
    )
    randomize(model)
    generation = model.generation_config
    generation.decoder_start_token_id = generation.pad_token_id = generation.bos_token_id = 16
    generation.do_sample, generation.guidance_scale, generation.max_length = True, 3.0, 1500
    model.save_pretrained(directory)
    tokenizer(directory)
    extractor: Any = EncodecFeatureExtractor
    extractor(feature_size=channels, sampling_rate=1_600).save_pretrained(directory)
    return model.eval()
