"""MusicGen on a small random checkpoint of its real classes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from engines.errors import ConfigurationError, InvalidInput
from engines.tts import Utterance
from engines.tts.musicgen import MusicGen, MusicGenSynthesizer
from engines.types import EngineOptions, Runtime

Save = Callable[..., Any]
SHORT = {"seed": "7", "duration_seconds": "0.5"}


def loaded(tmp_path: Path, **options: str) -> MusicGenSynthesizer:
    return MusicGen(EngineOptions("musicgen", options, tmp_path)).load(Runtime(threads=1))


def played(synthesizer: MusicGenSynthesizer, text: str = "cello rave", **more: Any) -> np.ndarray:
    [piece] = synthesizer.speak(Utterance(text, **more))
    return piece


@pytest.mark.parametrize("channels", [1, 2])
def test_it_plays_what_transformers_itself_plays(musicgen: Save, tmp_path: Path, channels: int) -> None:
    model = musicgen(channels)
    tokenizers: Any = AutoTokenizer  # transformers leaves its methods without types
    inputs = tokenizers.from_pretrained(tmp_path / "musicgen")("cello rave", return_tensors="pt")
    torch.manual_seed(7)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    expected = model.generate(ids, attention_mask=mask, guidance_scale=3.0, max_new_tokens=51)[0]
    assert expected.shape == (channels, 800)
    sound = played(loaded(tmp_path), params=SHORT)
    np.testing.assert_allclose(sound, expected.numpy().mean(axis=0).clip(-1, 1), atol=1e-5)
    assert np.ptp(sound) > 0.01


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("seconds", ["0.1", "0.73", "2"])
def test_the_sound_is_as_long_as_it_was_asked_to_be(
    musicgen: Save, tmp_path: Path, channels: int, seconds: str
) -> None:
    musicgen(channels)
    synthesizer = loaded(tmp_path)
    assert synthesizer.rate == 1_600
    sound = played(synthesizer, params={"duration_seconds": seconds})
    assert len(sound) == pytest.approx(float(seconds) * 1_600, abs=8)  # half a frame


def test_options_of_the_model_file_hold_until_a_request_gives_others(musicgen: Save, tmp_path: Path) -> None:
    musicgen()
    plain, configured = loaded(tmp_path), loaded(tmp_path, guidance_scale="1", **SHORT)
    told = SHORT | {"guidance_scale": "1"}
    first = played(configured)
    np.testing.assert_array_equal(first, played(plain, params=told))
    for other in ({"seed": "8"}, {"guidance_scale": "9"}, {"temperature": "0.1"}, {"top_k": "1"}):
        assert not np.array_equal(played(plain, params=told | other), first)
    assert len(played(configured, params={"duration_seconds": "0.2"})) == 320
    greedy = {"do_sample": "false", "duration_seconds": "0.5"}
    np.testing.assert_array_equal(played(plain, params=greedy), played(plain, params=greedy))


def test_without_options_it_plays_ten_seconds(musicgen: Save, tmp_path: Path) -> None:
    musicgen()
    assert len(played(loaded(tmp_path))) == 16_000


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"text": " "}, "the text describes nothing"),
        ({"text": "rave " * 513}, "the text has 513 tokens"),
        ({"text": "rave", "voice": "alloy"}, "music has no voices"),
        ({"text": "rave", "params": {"duration_seconds": "31"}}, "duration_seconds:31 must be a number"),
        ({"text": "rave", "params": {"duration_seconds": "nan"}}, "duration_seconds:nan must be a number"),
        ({"text": "rave", "params": {"guidance_scale": "0"}}, "guidance_scale:0 must be a number"),
    ],
)
def test_what_cannot_be_played(musicgen: Save, tmp_path: Path, given: dict[str, Any], message: str) -> None:
    musicgen()
    with pytest.raises(InvalidInput, match=message):
        played(loaded(tmp_path), **given)


def test_its_text_is_not_cut_into_sentences() -> None:
    assert not MusicGen.splits_text


def test_wrong_options_and_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="duration_seconds:0"):
        MusicGen(EngineOptions(options={"duration_seconds": "0"}))
    with pytest.raises(ConfigurationError, match="'nowhere' is neither a directory"):
        MusicGen(EngineOptions("nowhere", models_dir=tmp_path))
    (tmp_path / "empty").mkdir()
    empty = MusicGen(EngineOptions("empty", models_dir=tmp_path))
    assert empty.weights() == [tmp_path / "empty" / "config.json"]
    with pytest.raises(ConfigurationError, match="empty: its files are incomplete, damaged, or no MusicGen"):
        empty.load(Runtime())
    assert MusicGen(EngineOptions(models_dir=tmp_path)).weights() == []
