"""Which heads a model has, what they tell, and what is told when one cannot be loaded."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from engines.errors import NothingComputable
from engines.types import Audio, EngineOptions, Runtime
from engines.voice import attributes
from engines.voice.attributes import EMOTION_MODEL, AttributeHeads
from engines.voice.fake import FakeVoice
from engines.voice.model import VoiceModel

Save = Callable[..., PreTrainedModel]
EMOTIONS = ("neu", "hap", "ang", "sad")


def heads(models_dir: Path, **options: str) -> AttributeHeads:
    return AttributeHeads(EngineOptions(options=options, models_dir=models_dir))


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ("emotion",)),
        ({"emotion_model": ""}, ()),
        ({"age_gender_model": "them/theirs"}, ("emotion", "age_gender")),
        ({"age_gender_model": "", "emotion_model": "a/b"}, ("emotion",)),
    ],
)
def test_emotion_is_enabled_and_age_and_gender_are_opt_in(
    tmp_path: Path, options: dict[str, str], names: tuple[str, ...]
) -> None:
    assert heads(tmp_path, **options).names == names


def test_the_default_is_the_documented_checkpoint(
    classifier: Save, clips: list[Audio], tmp_path: Path
) -> None:
    classifier(EMOTION_MODEL, EMOTIONS)  # the same path under the models directory stands for the repository
    assert EMOTION_MODEL == "superb/wav2vec2-base-superb-er"
    (told,) = heads(tmp_path).load(Runtime()).analyze(clips[:1], ["emotion"])
    assert told.emotion
    assert list(told.emotion) == ["neutral", "happy", "angry", "sad"]
    assert sum(told.emotion.values()) == pytest.approx(1)
    assert (told.age, told.gender) == (None, None)


def test_both_heads_tell_each_clip_what_it_gets_alone(
    classifier: Save, clips: list[Audio], tmp_path: Path
) -> None:
    classifier("feelings", EMOTIONS)
    classifier("people", ("female_20-29", "female_60+", "male_20-29", "male_60+"), "hubert", seed=1)
    loaded = heads(tmp_path, emotion_model="feelings", age_gender_model="people").load(Runtime())
    both = ("emotion", "age_gender")
    together = loaded.analyze(clips, both)
    for one, clip in zip(together, clips, strict=True):
        (alone,) = loaded.analyze([clip], both)
        assert one.emotion == pytest.approx(alone.emotion, abs=1e-5)
        assert one.gender == pytest.approx(alone.gender, abs=1e-5)
        assert one.age == pytest.approx(alone.age, abs=1e-3)
        assert one.gender
        assert set(one.gender) == {"female", "male"}
        assert 24.5 <= (one.age or 0) <= 64.5


def test_labels_of_gender_alone_tell_no_age(classifier: Save, clips: list[Audio], tmp_path: Path) -> None:
    classifier("people", ("Female", "Male"))
    loaded = heads(tmp_path, age_gender_model="people").load(Runtime())
    (told,) = loaded.analyze(clips[:1], ["age_gender"])
    assert told.age is None
    assert set(told.gender or {}) == {"female", "male"}


def test_what_one_head_tells_is_told_when_the_other_cannot(
    classifier: Save, clips: list[Audio], tmp_path: Path
) -> None:
    classifier("feelings", EMOTIONS)
    classifier("people", ("LABEL_0", "LABEL_1"))
    loaded = heads(tmp_path, emotion_model="feelings", age_gender_model="people").load(Runtime())
    told = loaded.analyze(clips, ["age_gender", "emotion"])
    assert all(one.emotion and one.age is None and one.gender is None for one in told)
    with pytest.raises(NothingComputable) as caught:
        loaded.analyze(clips, ["age_gender"])
    assert caught.value.message.startswith(
        "age and gender cannot be told: age_gender_model:people: its labels (LABEL_0, LABEL_1) name neither"
    )


def test_a_head_that_is_disabled_says_how_to_enable_it(clips: list[Audio], tmp_path: Path) -> None:
    loaded = heads(tmp_path, emotion_model="").load(Runtime())
    with pytest.raises(NothingComputable) as caught:
        loaded.analyze(clips, ["emotion", "age_gender"])
    assert caught.value.message == (
        "the model tells no emotion: its option emotion_model is not set; "
        "the model tells no age and gender: its option age_gender_model is not set"
    )


def test_a_directory_that_is_not_there_is_told_without_its_path(clips: list[Audio], tmp_path: Path) -> None:
    loaded = heads(tmp_path, emotion_model=str(tmp_path / "feelings")).load(Runtime())
    with pytest.raises(NothingComputable) as caught:
        loaded.analyze(clips, ["emotion"])
    assert caught.value.message == (
        "emotion cannot be told: emotion_model:feelings: 'feelings' is neither a directory under the models "
        "directory nor a repository id such as owner/name"
    )


def test_a_failure_is_remembered_for_a_while(
    classifier: Save, clips: list[Audio], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = heads(tmp_path, emotion_model="feelings").load(Runtime())
    with pytest.raises(NothingComputable, match="neither a directory"):
        loaded.analyze(clips, ["emotion"])
    classifier("feelings", EMOTIONS)
    with pytest.raises(NothingComputable, match="neither a directory"):
        loaded.analyze(clips, ["emotion"])
    monkeypatch.setattr(attributes, "RETRY_S", 0.0)
    again = heads(tmp_path, emotion_model="sorrows").load(Runtime())
    with pytest.raises(NothingComputable, match="neither a directory"):
        again.analyze(clips, ["emotion"])
    classifier("sorrows", EMOTIONS)
    assert again.analyze(clips[:1], ["emotion"])[0].emotion


def test_transformers_that_cannot_be_imported(
    classifier: Save, clips: list[Audio], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier("feelings", EMOTIONS)
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "engines.voice.classifier", raising=False)
    loaded = heads(tmp_path, emotion_model="feelings").load(Runtime())
    with pytest.raises(NothingComputable, match="transformers or torch cannot be imported"):
        loaded.analyze(clips, ["emotion"])


def test_a_gpu_that_is_not_there_fails_at_the_start(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(RuntimeError, match="torch finds none"):
        heads(tmp_path).load(Runtime(cuda=True))


def test_a_voice_model_takes_the_options_of_its_heads(tmp_path: Path) -> None:
    options = {"emotion_model": "", "age_gender_model": "a/b", "verify_threshold": "0.5"}
    model = VoiceModel("fake-voice", EngineOptions(options=options, models_dir=tmp_path))
    assert isinstance(model.engine, FakeVoice)
    assert model.heads.names == ("age_gender",)
