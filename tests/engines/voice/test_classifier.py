"""Audio classifiers on small random checkpoints, among them those that transformers would mangle."""

import json
import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, Wav2Vec2FeatureExtractor

from engines.errors import ConfigurationError, InvalidInput
from engines.types import Audio, Runtime
from engines.voice import RATE
from engines.voice.classifier import WINDOW_S, AudioClassifier

Save = Callable[..., PreTrainedModel]
LABELS = ("neu", "hap", "ang", "sad")
EXTRACTOR: Any = Wav2Vec2FeatureExtractor  # transformers leaves its methods without types
EXTRACT = EXTRACTOR(do_normalize=True)


def by_hand(net: PreTrainedModel, clips: Sequence[Audio]) -> np.ndarray:
    """What transformers itself says of each clip alone."""
    rows = []
    for clip in clips:
        inputs = EXTRACT(clip.samples, sampling_rate=RATE, return_tensors="pt")
        with torch.inference_mode():
            rows.append(net(**inputs).logits.softmax(-1)[0].numpy())
    return np.stack(rows)


def rewrite(directory: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    """Changes the weights of a saved checkpoint."""
    file = directory / "model.safetensors"
    save_file(change(load_file(file)), file, {"format": "pt"})


def configure(directory: Path, **values: object) -> None:
    """Changes the configuration of a saved checkpoint."""
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert"])
def test_a_batch_of_mixed_lengths_gives_each_clip_the_answer_that_it_gets_alone(
    classifier: Save, clips: list[Audio], tmp_path: Path, kind: str
) -> None:
    net = classifier("head", LABELS, kind)
    loaded = AudioClassifier("head", tmp_path, Runtime())
    assert loaded.labels == LABELS
    expected = by_hand(net, clips)
    assert np.ptp(expected, axis=0).max() > 0.01  # the clips are told apart at all
    np.testing.assert_allclose(loaded.classify(clips), expected, atol=1e-5)


def test_clips_of_one_length_run_together_on_a_gpu_without_a_change(
    classifier: Save, clips: list[Audio], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = classifier("head", LABELS)
    loaded = AudioClassifier("head", tmp_path, Runtime())
    monkeypatch.setattr(loaded, "_most", 8)  # as on a GPU
    sizes: list[int] = []
    run = loaded._run

    def counted(parts: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        sizes.append(len(parts))
        return run(parts)

    monkeypatch.setattr(loaded, "_run", counted)
    np.testing.assert_allclose(loaded.classify(clips), by_hand(net, clips), atol=1e-5)
    assert sizes == [2, 1, 1]


def test_padding_would_change_the_answer(classifier: Save, clips: list[Audio]) -> None:
    net = classifier("head", LABELS)
    padded = EXTRACT(
        [clip.samples for clip in clips[:2]], sampling_rate=RATE, padding=True, return_tensors="pt"
    )
    with torch.inference_mode():
        told = net(**padded).logits.softmax(-1)[0].numpy()
    assert np.abs(told - by_hand(net, clips[:1])[0]).max() > 1e-3


def test_a_long_clip_is_told_in_parts(classifier: Save, clips: list[Audio], tmp_path: Path) -> None:
    net = classifier("head", LABELS)
    first, second = (Audio(np.resize(clip.samples, WINDOW_S * RATE), RATE) for clip in clips[1:3])
    long = Audio(np.concatenate([first.samples, second.samples]), RATE)
    told = AudioClassifier("head", tmp_path, Runtime()).classify([long])
    np.testing.assert_allclose(told, by_hand(net, [first, second]).mean(axis=0, keepdims=True), atol=1e-4)


def test_a_clip_too_short_for_the_network_is_refused(classifier: Save, tmp_path: Path) -> None:
    classifier("head", LABELS)
    loaded = AudioClassifier("head", tmp_path, Runtime())
    with pytest.raises(InvalidInput, match=r"lasts 0\.02 s"):
        loaded.classify([Audio(np.zeros(320, np.float32), RATE)])


def test_silence_has_an_answer(classifier: Save, tmp_path: Path) -> None:
    classifier("head", LABELS)
    told = AudioClassifier("head", tmp_path, Runtime()).classify([Audio(np.zeros(RATE, np.float32), RATE)])
    assert told.sum() == pytest.approx(1)


def test_many_threads_get_the_same_answers(classifier: Save, clips: list[Audio], tmp_path: Path) -> None:
    net = classifier("head", LABELS)
    loaded = AudioClassifier("head", tmp_path, Runtime())
    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(lambda clip: loaded.classify([clip])[0], clips * 4))
    np.testing.assert_allclose(told, np.tile(by_hand(net, clips), (4, 1)), atol=1e-5)


def test_threads_are_those_of_the_replica(classifier: Save, tmp_path: Path) -> None:
    classifier("head", LABELS)
    before = torch.get_num_threads()
    AudioClassifier("head", tmp_path, Runtime(threads=2))
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_a_gpu_that_is_not_there_is_no_silent_fall_back(classifier: Save, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    classifier("head", LABELS)
    with pytest.raises(RuntimeError, match="torch finds none"):
        AudioClassifier("head", tmp_path, Runtime(cuda=True))


def test_pickled_weights_with_the_names_of_old_checkpoints(
    classifier: Save, clips: list[Audio], tmp_path: Path
) -> None:
    net = classifier("head", LABELS)
    weights = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): tensor
        for name, tensor in net.state_dict().items()
        if name != "wav2vec2.masked_spec_embed"  # only training needs it
    }
    (tmp_path / "head" / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "head" / "pytorch_model.bin")
    loaded = AudioClassifier("head", tmp_path, Runtime())
    np.testing.assert_allclose(loaded.classify(clips), by_hand(net, clips), atol=1e-5)


def test_heads_left_over_from_pretraining_do_no_harm(classifier: Save, tmp_path: Path) -> None:
    classifier("head", LABELS)
    rewrite(tmp_path / "head", lambda weights: weights | {"project_q.weight": torch.zeros(4, 4)})
    assert AudioClassifier("head", tmp_path, Runtime()).labels == LABELS


def age_gender_head(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Audeering's two heads in place of the plain one."""
    kept = {name: tensor for name, tensor in weights.items() if name.startswith("wav2vec2.")}
    heads = {
        f"{head}.{layer}.weight": torch.ones(2, 16)
        for head in ("age", "gender")
        for layer in ("dense", "out")
    }
    return kept | heads


def test_a_head_that_transformers_would_drop_is_refused(classifier: Save, tmp_path: Path) -> None:
    classifier("head", LABELS)
    rewrite(tmp_path / "head", age_gender_head)
    configure(tmp_path / "head", architectures=["Wav2Vec2ForSpeechClassification"])
    with pytest.raises(ConfigurationError) as caught:
        AudioClassifier("head", tmp_path, Runtime())
    assert caught.value.message == (
        "it was trained as Wav2Vec2ForSpeechClassification and does not fit "
        "Wav2Vec2ForSequenceClassification: "
        "age.dense.weight, age.out.weight, gender.dense.weight, gender.out.weight would be dropped; "
        "classifier.bias, classifier.weight, projector.bias, projector.weight would be random; "
        "name a checkpoint with a plain Wav2Vec2ForSequenceClassification head"
    )


def test_the_same_under_the_name_of_the_plain_head_is_refused(classifier: Save, tmp_path: Path) -> None:
    classifier("head", LABELS)
    rewrite(tmp_path / "head", age_gender_head)
    with pytest.raises(ConfigurationError, match=r"age\.dense\.weight.* would be dropped; classifier.bias"):
        AudioClassifier("head", tmp_path, Runtime())


def test_a_second_head_beside_the_plain_one_is_refused(classifier: Save, tmp_path: Path) -> None:
    classifier("head", LABELS)
    rewrite(tmp_path / "head", lambda weights: weights | {"age.dense.weight": torch.zeros(4, 4)})
    with pytest.raises(ConfigurationError, match=r"age\.dense\.weight would be dropped; name"):
        AudioClassifier("head", tmp_path, Runtime())


def test_a_missing_layer_is_refused(classifier: Save, tmp_path: Path) -> None:
    classifier("head", LABELS)
    rewrite(tmp_path / "head", lambda weights: {k: w for k, w in weights.items() if "layers.1." not in k})
    with pytest.raises(ConfigurationError, match=r"wav2vec2.encoder.layers.1.* would be random"):
        AudioClassifier("head", tmp_path, Runtime())


def test_weights_of_the_same_names_but_another_class_are_refused(classifier: Save, tmp_path: Path) -> None:
    classifier("head", LABELS)
    configure(tmp_path / "head", architectures=["TheirOwnPooling"])
    with pytest.raises(ConfigurationError, match="it was trained as TheirOwnPooling and does not fit"):
        AudioClassifier("head", tmp_path, Runtime())


def test_code_that_comes_with_a_checkpoint_is_not_run(classifier: Save, tmp_path: Path) -> None:
    classifier("head", LABELS)
    mark = tmp_path / "ran"
    (tmp_path / "head" / "custom.py").write_text(f"open({str(mark)!r}, 'w')\n")
    configure(
        tmp_path / "head",
        model_type="theirs",
        auto_map={"AutoConfig": "custom.Config", "AutoModelForAudioClassification": "custom.Model"},
    )
    with pytest.raises(ConfigurationError, match="no audio classifier of transformers"):
        AudioClassifier("head", tmp_path, Runtime())
    assert not mark.exists()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "preprocessor_config.json"])
@pytest.mark.parametrize("content", [None, b"", b"{", bytes(1000)])
def test_damaged_files_are_told_without_a_path(
    classifier: Save, tmp_path: Path, name: str, content: bytes | None
) -> None:
    classifier("head", LABELS)
    file = tmp_path / "head" / name
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        AudioClassifier("head", tmp_path, Runtime())
    assert "/" not in caught.value.message


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", bytes(1000), pickle.dumps(print, 2)])
def test_damaged_pickles_are_told(classifier: Save, tmp_path: Path, content: bytes) -> None:
    classifier("head", LABELS)
    (tmp_path / "head" / "model.safetensors").unlink()
    (tmp_path / "head" / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(ConfigurationError, match="incomplete, damaged"):
        AudioClassifier("head", tmp_path, Runtime())


class Touch:
    """Unpickled in full, it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


def test_a_pickle_runs_nothing(classifier: Save, tmp_path: Path) -> None:
    classifier("head", LABELS)
    (tmp_path / "head" / "model.safetensors").unlink()
    torch.save({"weight": Touch(tmp_path / "ran")}, tmp_path / "head" / "pytorch_model.bin")
    with pytest.raises(ConfigurationError, match="incomplete, damaged"):
        AudioClassifier("head", tmp_path, Runtime())
    assert not (tmp_path / "ran").exists()


def test_weights_without_a_number_are_refused(classifier: Save, tmp_path: Path) -> None:
    classifier("head", LABELS)
    rewrite(tmp_path / "head", lambda weights: {k: w * torch.nan for k, w in weights.items()})
    with pytest.raises(ConfigurationError, match="gives no probabilities"):
        AudioClassifier("head", tmp_path, Runtime())


def test_another_sample_rate_is_refused(classifier: Save, tmp_path: Path) -> None:
    classifier("head", LABELS)
    EXTRACTOR(sampling_rate=8000).save_pretrained(tmp_path / "head")
    with pytest.raises(ConfigurationError, match="8000 samples a second, not 16000"):
        AudioClassifier("head", tmp_path, Runtime())
