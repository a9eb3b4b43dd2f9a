"""Writes a small random Parler-TTS: `python parler_checkpoint.py DIRECTORY`.

A program, and not imported: the package parler-tts has an environment of its own, see test_parler.py, and
what it depends on brings a package `tests` of its own.
"""

import sys
from importlib import import_module
from pathlib import Path

WORDS = ["[PAD]", "[UNK]", "</s>", "hello", "world", "a", "deep", "high", "voice", "slow"]


def save(directory: Path) -> None:
    """Parler-TTS with a small EnCodec in the place of its codec, which has one size only."""
    torch, transformers, parler = (import_module(name) for name in ("torch", "transformers", "parler_tts"))
    torch.manual_seed(0)
    size = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    text = transformers.T5Config(vocab_size=len(WORDS), **size)
    codec = transformers.EncodecConfig(
        sampling_rate=1_600,
        target_bandwidths=[2.0],
        upsampling_ratios=[4, 4],
        hidden_size=16,
        num_filters=4,
        num_lstm_layers=1,
        codebook_size=16,
    )
    decoder = parler.ParlerTTSDecoderConfig(
        vocab_size=18,
        hidden_size=16,
        ffn_dim=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_codebooks=2,
        pad_token_id=16,
        eos_token_id=16,
        bos_token_id=17,
        initializer_factor=0.5,
    )
    config = parler.ParlerTTSConfig.from_sub_models_config(text, codec, decoder, vocab_size=len(WORDS))
    model = parler.ParlerTTSForConditionalGeneration(config)
    for name, values in model.named_buffers():
        if name.endswith("codebook.embed"):  # zeros until they are trained
            values.normal_()
    settings = {"pad_token_id": 16, "eos_token_id": 16, "bos_token_id": 17, "decoder_start_token_id": 17}
    model.generation_config = transformers.GenerationConfig(**settings, do_sample=True, max_length=40)
    model.save_pretrained(directory)
    save_tokenizer(directory)


def save_tokenizer(directory: Path) -> None:
    tokenizers, fast = import_module("tokenizers"), import_module("transformers").PreTrainedTokenizerFast
    pad, unknown, end = WORDS[:3]
    table = {word: place for place, word in enumerate(WORDS)}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(table, unk_token=unknown))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made = fast(tokenizer_object=words, pad_token=pad, unk_token=unknown, eos_token=end)
    made.save_pretrained(directory)


if __name__ == "__main__":
    save(Path(sys.argv[1]))
