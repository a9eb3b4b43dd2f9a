"""Labelled files: which are found, which are refused, and what each engine makes of them."""

from pathlib import Path

import numpy as np
import pytest

from engines.errors import ConfigurationError
from graphs import samples
from graphs.samples import Sample, Skipped
from graphs.settings import Media, ModelFile

DLIB = ModelFile(name="faces", backend="dlib-resnet")
GE2E = ModelFile(name="voices", backend="resemblyzer-ge2e", options={"emotion_model": ""})


def folders(directory: Path, **files: list[str]) -> Path:
    """A directory with such files in such folders."""
    for person, names in files.items():
        for name in names:
            (directory / person / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / person / name).write_bytes(b"?")
    return directory


def test_every_file_of_every_folder_is_a_sample(tmp_path: Path) -> None:
    directory = folders(
        tmp_path, anna=["b.jpg", "more/a.jpg", ".hidden"], bert=["c.wav"], **{".git": ["config"]}
    )
    (directory / "README").write_text("not in a folder")
    found = samples.samples(directory)
    assert [(one.person, one.path.name) for one in found] == [
        ("anna", "b.jpg"),
        ("anna", "a.jpg"),
        ("bert", "c.wav"),
    ]


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({}, "has no folders; one for each person is expected"),
        ({"anna": ["a.jpg", "b.jpg"]}, "files of 1 people; at least two people are needed"),
        ({"anna": ["a.jpg"], "bert": ["b.jpg"]}, "one file a person; at least two of one person are needed"),
    ],
)
def test_files_that_make_no_pairs_are_refused(tmp_path: Path, files: dict[str, list[str]], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        samples.samples(folders(tmp_path, **files))


def test_empty_folders_are_nobody(tmp_path: Path) -> None:
    (folders(tmp_path, anna=["a.jpg", "b.jpg"]) / "bert").mkdir()
    with pytest.raises(ConfigurationError, match="files of 1 people"):
        samples.samples(tmp_path)


def test_a_directory_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is no directory"):
        samples.samples(tmp_path / "nowhere")


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "MOST_FILES", 2)
    with pytest.raises(ConfigurationError, match="has 3 files; take a sample of at most 2"):
        samples.samples(folders(tmp_path, anna=["a", "b"], bert=["c"]))


def test_the_model_is_the_first_of_its_kind_or_the_named_one() -> None:
    other = ModelFile(name="others", backend="fake")
    assert samples.chosen([GE2E, DLIB, other], "face", None) is DLIB
    assert samples.chosen([GE2E, DLIB, other], "face", "others") is other
    with pytest.raises(ConfigurationError, match="no face model is named 'voices'; there are: faces, others"):
        samples.chosen([GE2E, DLIB, other], "face", "voices")
    with pytest.raises(ConfigurationError, match="no voice model is configured or installed"):
        samples.chosen([DLIB], "voice", None)


def test_a_model_whose_weights_are_missing_is_named(tmp_path: Path) -> None:
    model = ModelFile(
        name="zoo", backend="opencv-zoo", options={"detector_onnx": "a.onnx", "recognizer_onnx": "b.onnx"}
    )
    with pytest.raises(ConfigurationError, match=r"model zoo: missing weights: .*a\.onnx"):
        samples.opened(model, "face", tmp_path, Media())


def test_a_face_is_the_largest_of_the_picture(shared: Path, tmp_path: Path) -> None:
    pictures = shared / "media" / "faces"
    embed, threshold = samples.opened(DLIB, "face", tmp_path, Media())
    assert threshold == 0.08
    alone = embed((pictures / "lfw" / "Anna_Kournikova" / "Anna_Kournikova_0001.jpg").read_bytes())
    assert alone.shape == (128,)
    assert np.linalg.norm(alone) == pytest.approx(1)


def test_what_cannot_be_read_is_named_with_the_reason(shared: Path, tmp_path: Path) -> None:
    broken = shared / "media" / "images"
    noface = next(path for path in sorted((broken / "noface").iterdir()) if path.suffix in {".jpg", ".png"})
    text = tmp_path / "notes.txt"
    text.write_text("no picture")
    embed, _ = samples.opened(DLIB, "face", tmp_path, Media())
    files = [Sample("anna", noface), Sample("anna", text), Sample("bert", tmp_path / "gone.jpg")]
    told = [answer for _, answer in samples.embedded(files, embed, Media())]
    assert told[0] == Skipped(f"anna/{noface.name}", "no face detected in the picture")
    assert isinstance(told[1], Skipped)
    assert told[1].reason.startswith("the bytes are no picture of a known format")
    assert told[2] == Skipped("bert/gone.jpg", "No such file or directory")


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    large = tmp_path / "large.wav"
    large.write_bytes(bytes(2000))

    def embed(data: bytes) -> np.ndarray:
        raise AssertionError(f"{len(data)} bytes were read")

    ((_, told),) = samples.embedded([Sample("anna", large)], embed, Media(max_bytes=1000))
    assert told == Skipped("anna/large.wav", "the file is larger than media.max_bytes, 1000")


def test_a_clip_is_decoded_and_silence_is_no_speaker(shared: Path, tmp_path: Path) -> None:
    speaker = sorted((shared / "media" / "audio" / "speakers").iterdir())[0]
    embed, threshold = samples.opened(GE2E, "voice", tmp_path, Media())
    assert 0 < threshold < 1
    one, two = (embed(path.read_bytes()) for path in sorted(speaker.iterdir())[:2])
    assert 1 - one @ two < 0.25
    text = tmp_path / "notes.txt"
    text.write_text("no sound")
    ((_, told),) = samples.embedded([Sample("anna", text)], embed, Media())
    assert isinstance(told, Skipped)
    assert told.reason.startswith("the bytes are no sound of a known format")
