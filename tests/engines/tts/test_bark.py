"""Bark on a small random checkpoint of its real classes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BarkProcessor

from engines.errors import ConfigurationError, InvalidInput
from engines.tts import Utterance
from engines.tts.bark import Bark, BarkSynthesizer, is_preset
from engines.types import EngineOptions, Runtime

SEED = {"seed": "7"}


def loaded(tmp_path: Path, model: str = "bark", **options: str) -> BarkSynthesizer:
    return Bark(EngineOptions(model, options, tmp_path)).load(Runtime(threads=1))


def spoken(synthesizer: BarkSynthesizer, text: str = "hello world", **more: Any) -> np.ndarray:
    [piece] = synthesizer.speak(Utterance(text, **more))
    return piece


def test_it_says_what_transformers_itself_says(bark: Any, tmp_path: Path) -> None:
    synthesizer = loaded(tmp_path)
    processors: Any = BarkProcessor  # transformers leaves its methods without types
    inputs = processors.from_pretrained(tmp_path / "bark")("hello", "v2/en_speaker_4", max_length=16)
    torch.manual_seed(7)
    expected = bark.generate(**inputs, semantic_min_new_tokens=1).numpy()[0]
    assert np.ptp(expected) > 0.01
    sound = spoken(synthesizer, "hello", voice="v2/en_speaker_4", params=SEED)
    np.testing.assert_allclose(sound, expected.clip(-1, 1), atol=1e-5)
    assert sound.dtype == np.float32
    assert synthesizer.rate == 16_000


@pytest.mark.usefixtures("bark")
def test_a_seed_repeats_the_sound_and_leaves_the_other_random_numbers_alone(tmp_path: Path) -> None:
    synthesizer = loaded(tmp_path)
    torch.manual_seed(1)
    first = spoken(synthesizer, params=SEED)
    after = torch.rand(1)
    np.testing.assert_array_equal(spoken(synthesizer, params=SEED), first)
    assert not np.array_equal(spoken(synthesizer, params={"seed": "8"}), first)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after)


@pytest.mark.usefixtures("bark")
def test_options_of_the_model_file_hold_until_a_request_gives_others(tmp_path: Path) -> None:
    plain, seeded = loaded(tmp_path), loaded(tmp_path, seed="7", temperature="1.5")
    told = {"seed": "7", "temperature": "1.5"}
    np.testing.assert_array_equal(spoken(seeded), spoken(plain, params=told))
    assert not np.array_equal(spoken(plain, params=SEED), spoken(plain, params=told))
    assert not np.array_equal(spoken(seeded, params={"seed": "9"}), spoken(seeded))


@pytest.mark.usefixtures("bark")
def test_a_likely_end_ends_the_speech_but_never_before_it_began(tmp_path: Path) -> None:
    synthesizer = loaded(tmp_path)
    assert 0 < len(spoken(synthesizer, params={"min_eos_p": "0.001"})) < len(spoken(synthesizer, params=SEED))


@pytest.mark.usefixtures("bark")
def test_voices_are_the_presets_whose_files_are_there(tmp_path: Path) -> None:
    synthesizer = loaded(tmp_path)
    assert {voice.name: voice.languages for voice in synthesizer.voices} == {
        "v2/en_speaker_4": ("en",),
        "de_speaker_1": ("de",),
    }
    one, other = (
        spoken(synthesizer, voice=name, params=SEED) for name in ("v2/en_speaker_4", "de_speaker_1")
    )
    assert not np.array_equal(one, other)
    for unknown in ("v2/fr_speaker_0", "../bark/speaker_embeddings/v2/en_speaker_4", "repo_or_path"):
        with pytest.raises(InvalidInput, match=r"is unknown; known: v2/en_speaker_4, de_speaker_1"):
            spoken(synthesizer, voice=unknown)


@pytest.mark.usefixtures("bark")
def test_a_preset_in_the_place_of_the_model_becomes_the_voice(tmp_path: Path) -> None:
    named = loaded(tmp_path, "v2/en_speaker_4", checkpoint="bark")
    asked = spoken(loaded(tmp_path), voice="v2/en_speaker_4", params=SEED)
    np.testing.assert_array_equal(spoken(named, params=SEED), asked)
    assert not np.array_equal(spoken(named, voice="de_speaker_1", params=SEED), asked)
    with pytest.raises(ConfigurationError, match="bark: it has no voice preset v2/fr_speaker_0"):
        loaded(tmp_path, "v2/fr_speaker_0", checkpoint="bark")


@pytest.mark.parametrize("name", ["v2/en_speaker_4", "de_speaker_1", "announcer", "v2/announcer"])
def test_names_of_presets(name: str) -> None:
    assert is_preset(name)
    assert not is_preset(f"suno/{name}")


@pytest.mark.usefixtures("bark")
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"text": "hello " * 17}, "the text has 17 tokens; 16 can be spoken at once"),
        ({"text": " \n"}, "nothing that can be spoken"),
        ({"text": "hello", "language": "xx"}, 'language "xx" is unknown'),
        ({"text": "hello", "params": {"temperature": "hot"}}, "temperature:hot must be a number between"),
        ({"text": "hello", "params": {"seed": "-1"}}, "seed:-1 must be a number between"),
        ({"text": "hello", "params": {"do_sample": "perhaps"}}, "do_sample:perhaps must be true or false"),
        ({"text": "hello", "params": {"min_eos_p": "0"}}, "min_eos_p:0 must be a number between"),
    ],
)
def test_what_cannot_be_spoken(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    synthesizer = loaded(tmp_path)
    with pytest.raises(InvalidInput, match=message):
        spoken(synthesizer, **given)
    assert len(spoken(synthesizer, language="en-GB"))


@pytest.mark.usefixtures("bark")
@pytest.mark.parametrize("damage", ["shape", "range", "bytes"])
def test_a_damaged_preset_is_refused_before_anybody_asks_for_it(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "bark" / "speaker_embeddings" / "v2" / "en_speaker_4_coarse_prompt.npy"
    if damage == "bytes":
        file.write_bytes(b"no array")
    else:
        np.save(file, np.zeros(9, int) if damage == "shape" else np.full((2, 30), 16))
    with pytest.raises(ConfigurationError, match=r"^bark: its ") as raised:
        loaded(tmp_path)
    assert str(tmp_path) not in raised.value.message


@pytest.mark.usefixtures("bark")
def test_a_checkpoint_without_presets_has_no_voices(tmp_path: Path) -> None:
    (tmp_path / "bark" / "speaker_embeddings_path.json").unlink()
    synthesizer = loaded(tmp_path)
    assert synthesizer.voices == ()
    assert len(spoken(synthesizer))
    with pytest.raises(InvalidInput, match="known: none"):
        spoken(synthesizer, voice="v2/en_speaker_4")


@pytest.mark.usefixtures("bark")
def test_another_model_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "bark" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"architectures": ["MusicgenModel"]}))
    with pytest.raises(
        ConfigurationError, match="bark: it is a checkpoint of MusicgenModel, not of BarkModel"
    ):
        loaded(tmp_path)


def test_wrong_options_and_sources_are_refused_when_the_engine_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="top_k:many"):
        Bark(EngineOptions(options={"top_k": "many"}))
    with pytest.raises(ConfigurationError, match="'nowhere' is neither a directory"):
        Bark(EngineOptions("nowhere", models_dir=tmp_path))
    (tmp_path / "empty").mkdir()
    assert Bark(EngineOptions("empty", models_dir=tmp_path)).weights() == [tmp_path / "empty" / "config.json"]
    assert Bark(EngineOptions(models_dir=tmp_path)).weights() == []
