"""Small random checkpoints of coqui-tts's real classes, as its own trainer leaves them."""

import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models

ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def package(module: str) -> Any:
    """A module of coqui-tts."""
    return import_module(f"TTS.{module}")


def save_vits(directory: Path, speakers: Sequence[str] = (), languages: Sequence[str] = ("en",)) -> None:
    configs = package("tts.configs.vits_config")
    directory.mkdir()
    torch.manual_seed(0)
    args = configs.VitsArgs(
        hidden_channels=8,
        hidden_channels_ffn_text_encoder=16,
        num_heads_text_encoder=2,
        num_layers_text_encoder=1,
        num_layers_posterior_encoder=1,
        num_layers_flow=1,
        upsample_initial_channel_decoder=16,
        resblock_kernel_sizes_decoder=[3],
        resblock_dilation_sizes_decoder=[[1, 3, 5]],
        use_speaker_embedding=bool(speakers),
        speaker_embedding_channels=8,
        use_language_embedding=len(languages) > 1,
        embedded_language_dim=4,
    )
    signs = package("tts.configs.shared_configs").CharactersConfig(
        characters_class="TTS.tts.models.vits.VitsCharacters",
        pad="_",
        eos="",
        bos="",
        blank="",
        characters=ALPHABET,
        punctuations="!., ",
        phonemes="",
    )
    config = configs.VitsConfig(
        model_args=args,
        characters=signs,
        text_cleaner="basic_cleaners",
        use_phonemes=False,
        languages=[*languages],
    )
    if speakers:
        table = {name: place for place, name in enumerate(speakers)}
        (directory / "speakers.json").write_text(json.dumps(table))
        config.model_args.speakers_file = str(directory / "speakers.json")
        config.model_args.num_speakers = len(speakers)
    torch.save({"model": package("tts.models.vits").Vits(config).state_dict()}, directory / "model.pth")
    config.save_json(directory / "config.json")


def save_xtts(directory: Path) -> None:
    configs = package("tts.configs.xtts_config")
    directory.mkdir()
    torch.manual_seed(0)
    special = ["[STOP]", "[UNK]", "[SPACE]", "[START]", "[en]", "[fr]"]
    table = {word: place for place, word in enumerate([*special, *ALPHABET, ".", ","])}
    words = Tokenizer(models.BPE(table, [], unk_token=special[1]))
    words.add_special_tokens(special)
    words.save(str(directory / "vocab.json"))
    args = configs.XttsArgs(
        gpt_layers=1,
        gpt_n_model_channels=16,
        gpt_n_heads=2,
        gpt_max_audio_tokens=20,
        gpt_max_text_tokens=40,
        gpt_max_prompt_tokens=8,
        gpt_num_audio_tokens=34,
        gpt_start_audio_token=32,
        gpt_stop_audio_token=33,
        gpt_use_perceiver_resampler=True,
        decoder_input_dim=16,
    )
    config = configs.XttsConfig(model_args=args, languages=["en", "fr"])
    model = package("tts.models.xtts").Xtts(config)
    model.tokenizer = package("tts.layers.xtts.tokenizer").VoiceBpeTokenizer(
        vocab_file=str(directory / "vocab.json")
    )
    model.init_models()
    torch.save({"model": model.state_dict()}, directory / "model.pth")
    speaker = {"gpt_cond_latent": torch.randn(1, 32, 16), "speaker_embedding": torch.randn(1, 512, 1)}
    torch.save({"Ana Florence": speaker}, directory / "speakers_xtts.pth")
    config.save_json(directory / "config.json")
