"""Piper's interface on a small network: the length and pitch of its tone tell what it was given."""

# ruff: noqa: RUF001 - phonemes are written in IPA

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from engines import registry
from engines.errors import ConfigurationError, InvalidInput
from engines.tts import Utterance
from engines.tts.phonemes import ids
from engines.tts.piper import LEVEL, Piper, PiperSynthesizer
from engines.types import EngineOptions, Runtime

NAME = "it-riccardo_fasol-x-low.onnx"
HOP = 256
TABLE = {
    symbol: [number]
    for number, symbol in enumerate(
        "_^$ !',-.:;?abcdefghijklmnopqrstuvwxyzæðŋɐɑɒɔəɚɛɜɡɪɫɹɾʃʊʌʒˈˌːθ\u0303\u0329"
    )
}


def network(speakers: bool) -> onnx.ModelProto:
    """HOP * length_scale samples for each id, of a tone whose angle a sample is 0.05 + noise_w + sid / 10."""
    f, i = TensorProto.FLOAT, TensorProto.INT64
    constants = {
        "hop": np.float32(HOP),
        "base": np.float32(0.05),
        "tenth": np.float32(0.1),
        "quiet": np.float32(0.2),
        "zero": np.float32(0),
        "one": np.float32(1),
        "first": np.int64(0),
        "second": np.int64(1),
        "third": np.int64(2),
        "shape": np.array([1, 1, 1, -1], np.int64),
        "scalar": np.array([], np.int64),
    }
    nodes = [
        helper.make_node("Reshape", ["input_lengths", "scalar"], ["count"]),
        helper.make_node("Cast", ["count"], ["ids"], to=f),
        helper.make_node("Gather", ["scales", "second"], ["length"]),
        helper.make_node("Gather", ["scales", "third"], ["rhythm"]),
        helper.make_node("Mul", ["ids", "hop"], ["usual"]),
        helper.make_node("Mul", ["usual", "length"], ["samples"]),
        helper.make_node("Range", ["zero", "samples", "one"], ["time"]),
        helper.make_node("Add", ["base", "rhythm"], ["own"]),
    ]
    inputs = [("input", i, [1, "n"]), ("input_lengths", i, [1]), ("scales", f, [3])]
    step = "own"
    if speakers:
        inputs.append(("sid", i, [1]))
        nodes += [
            helper.make_node("Reshape", ["sid", "scalar"], ["speaker"]),
            helper.make_node("Cast", ["speaker"], ["number"], to=f),
            helper.make_node("Mul", ["number", "tenth"], ["more"]),
            helper.make_node("Add", ["own", "more"], ["step"]),
        ]
        step = "step"
    nodes += [
        helper.make_node("Mul", ["time", step], ["angle"]),
        helper.make_node("Sin", ["angle"], ["wave"]),
        helper.make_node("Mul", ["wave", "quiet"], ["tone"]),
        helper.make_node("Reshape", ["tone", "shape"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "voice",
        [helper.make_tensor_value_info(*one) for one in inputs],
        [helper.make_tensor_value_info("output", f, [1, 1, 1, "t"])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)


def described(**more: Any) -> dict[str, Any]:
    """As release v0.0.2 describes a voice of one speaker."""
    return {
        "audio": {"sample_rate": 16_000},
        "espeak": {"voice": "it"},
        "inference": {"noise_scale": 0.667, "length_scale": 1, "noise_w": 0.0},
        "phoneme_map": {},
        "phoneme_id_map": TABLE,
        "num_symbols": 130,
        "num_speakers": 1,
        "speaker_id_map": {},
        **more,
    }


def engine(directory: Path, speakers: bool = False, description: object = None, **options: str) -> Piper:
    onnx.save(network(speakers), directory / NAME)
    text = json.dumps(described() if description is None else description)
    (directory / f"{NAME}.json").write_text(text, encoding="utf-8")
    return Piper(EngineOptions(NAME, options, directory))


def loaded(
    directory: Path, speakers: bool = False, description: object = None, **options: str
) -> PiperSynthesizer:
    return engine(directory, speakers, description, **options).load(Runtime())


@pytest.fixture
def voice(tmp_path: Path) -> PiperSynthesizer:
    return loaded(tmp_path)


MANY = described(
    espeak={"voice": "en-us"},
    num_speakers=3,
    speaker_id_map={"anna": 2, "bob": 0, "carl": 1},
    language={"code": "en_US", "family": "en"},
    phoneme_type="espeak",
)


@pytest.fixture
def choir(tmp_path: Path) -> PiperSynthesizer:
    return loaded(tmp_path, speakers=True, description=MANY)


def sound(synthesizer: PiperSynthesizer, text: str, **how: Any) -> NDArray[np.float32]:
    return np.concatenate(list(synthesizer.speak(Utterance(text, **how))))


def angle(samples: NDArray[np.float32]) -> float:
    """Of the tone, a sample."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 1 << 18))
    return float(np.argmax(spectrum)) * 2 * np.pi / (1 << 18)


def test_the_registry_knows_it() -> None:
    assert registry.load("tts", "piper") is Piper


def test_the_voice_of_the_seed_by_its_file_name(voice: PiperSynthesizer) -> None:
    samples = sound(voice, "Ciao, sono Ettore")
    assert voice.rate == 16_000
    assert len(samples) == HOP * len(ids("tʃˈao, sˌono ˈɛtːore", TABLE))
    assert np.abs(samples).max() == pytest.approx(LEVEL)
    assert [one.name for one in voice.voices] == ["it-riccardo_fasol-x-low"]
    assert voice.voices[0].languages == ("it",)


def test_weights_are_the_network_and_its_description(tmp_path: Path) -> None:
    folder = tmp_path / "vits-piper-it_IT-paola-medium"
    folder.mkdir()
    made = Piper(EngineOptions(f"{folder.name}/it_IT-paola-medium.onnx", {}, tmp_path))
    assert made.weights() == [folder / "it_IT-paola-medium.onnx", folder / "it_IT-paola-medium.onnx.json"]


def test_sentences_come_one_by_one(voice: PiperSynthesizer) -> None:
    pieces = list(voice.speak(Utterance("Ciao. Come stai? Bene!")))
    assert len(pieces) == 3
    assert all(np.abs(piece).max() == pytest.approx(LEVEL) for piece in pieces)


@pytest.mark.parametrize("speed", [0.25, 0.5, 2, 4])
def test_speed_changes_the_length(voice: PiperSynthesizer, speed: float) -> None:
    usual, changed = sound(voice, "Ciao, sono Ettore"), sound(voice, "Ciao, sono Ettore", speed=speed)
    assert len(usual) / len(changed) == pytest.approx(speed, rel=0.01)
    assert angle(changed) == pytest.approx(angle(usual), abs=0.001)


def test_speakers_by_name_and_number(choir: PiperSynthesizer) -> None:
    angles = [angle(sound(choir, "Hello there.", voice=one)) for one in ("bob", "carl", "anna", "2", "")]
    assert angles == pytest.approx([0.05, 0.15, 0.25, 0.25, 0.05], abs=0.001)
    assert {one.name for one in choir.voices} == {"anna", "bob", "carl"}
    assert choir.voices[0].languages == ("en-us", "en")


def test_options_are_heard_and_parameters_come_first(tmp_path: Path) -> None:
    usual = loaded(tmp_path)
    changed = loaded(tmp_path, length_scale="2", noise_w="0.1")
    assert len(sound(changed, "Ciao")) == 2 * len(sound(usual, "Ciao"))
    assert angle(sound(changed, "Ciao")) == pytest.approx(0.15, abs=0.001)
    params = {"length_scale": "3", "noise_w": "0.2", "noise_scale": "0", "seed": "7"}
    assert len(sound(changed, "Ciao", params=params)) == 3 * len(sound(usual, "Ciao"))
    assert angle(sound(changed, "Ciao", params=params)) == pytest.approx(0.25, abs=0.001)


def test_the_default_speaker_is_an_option(tmp_path: Path) -> None:
    assert angle(sound(loaded(tmp_path, True, MANY, voice="carl"), "Hello")) == pytest.approx(0.15, abs=0.001)
    with pytest.raises(ConfigurationError, match="option voice:nobody"):
        loaded(tmp_path, True, MANY, voice="nobody")


def test_speakers_without_names_have_numbers(tmp_path: Path) -> None:
    made = loaded(tmp_path, True, MANY | {"speaker_id_map": {}, "num_speakers": 2})
    assert [one.name for one in made.voices] == ["0", "1"]
    assert angle(sound(made, "Hello", voice="1")) == pytest.approx(0.15, abs=0.001)


def test_voices_that_read_letters(tmp_path: Path) -> None:
    made = loaded(tmp_path, description=described(phoneme_type="text", espeak={"voice": "xx"}))
    assert len(sound(made, "Ab")) == HOP * len(ids("ab", TABLE))
    with pytest.raises(InvalidInput, match="at most"):
        sound(made, "a" * 5000)


@pytest.mark.parametrize(
    "how",
    [
        *({"voice": one} for one in ("nobody", "3", "-1", "9" * 5000, "../anna")),
        *({"language": one} for one in ("de", "xx", "\ud800")),
        *({"speed": one} for one in (0, 0.2, 5, float("nan"))),
        *(
            {"params": {name: value}}
            for name in ("noise_w", "length_scale")
            for value in ("x", "-1", "nan", "11")
        ),
        {"params": {"colour": "1"}},
    ],
)
def test_what_it_does_not_know_is_refused(choir: PiperSynthesizer, how: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as caught:
        sound(choir, "Hello", **how)
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("text", ["", "  ", "Ciao.", "漢字", "\x00"])
def test_text_without_a_sound_of_the_voice_is_refused(tmp_path: Path, text: str) -> None:
    made = loaded(tmp_path, description=described(phoneme_id_map={**{one: [0] for one in "_^$"}, "ʘ": [1]}))
    with pytest.raises(InvalidInput, match="no sound"):
        sound(made, text)


def test_languages_of_the_voice_are_spoken_wherever_they_are(choir: PiperSynthesizer) -> None:
    for language in ("en", "en-US", "en_GB", "EN"):
        assert len(sound(choir, "Hello", language=language))


def test_threads_share_a_voice(choir: PiperSynthesizer) -> None:
    names = ["bob", "carl", "anna"] * 5
    with ThreadPoolExecutor(4) as pool:
        angles = list(pool.map(lambda name: angle(sound(choir, "Hello there.", voice=name)), names))
    assert angles == pytest.approx([0.05, 0.15, 0.25] * 5, abs=0.001)


@pytest.mark.parametrize(
    "description",
    [
        {},
        [],
        "text",
        described(espeak={}),
        described(espeak={"voice": "nothing"}),
        described(audio={"sample_rate": "fast"}),
        described(phoneme_id_map={"a": [1]}),
        described(phoneme_id_map=None),
        described(phoneme_type="pinyin"),
        described(num_speakers=2),
    ],
)
def test_a_wrong_description_is_a_configuration_error(tmp_path: Path, description: object) -> None:
    with pytest.raises(ConfigurationError) as caught:
        loaded(tmp_path, description=description)
    assert str(tmp_path) not in caught.value.message


def test_wrong_files_are_configuration_errors(tmp_path: Path) -> None:
    made = engine(tmp_path)
    shutil.copy(tmp_path / f"{NAME}.json", tmp_path / NAME)
    with pytest.raises(ConfigurationError, match="not a readable ONNX file"):
        made.load(Runtime())
    (tmp_path / f"{NAME}.json").unlink()
    with pytest.raises(ConfigurationError, match="does not describe"):
        made.load(Runtime())
    with pytest.raises(ConfigurationError, match=r"parameters\.model"):
        Piper(EngineOptions())
    with pytest.raises(ConfigurationError, match="length_scale"):
        Piper(EngineOptions(NAME, {"length_scale": "0"}))
