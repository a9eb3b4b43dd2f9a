"""`presence calibrate`, as it is typed."""

import json
import shutil
import struct
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from graphs.cli import main

EMPTY = {"applications": [{"name": "presence", "args": {"models": []}}]}


def run(*arguments: str | Path, **environment: str) -> Result:
    environment = {"PRESENCE_MODELS_DIR": "", **environment}
    return CliRunner().invoke(main, ["calibrate", *map(str, arguments)], env=environment)


def subset(source: Path, target: Path, people: int, files: int) -> Path:
    """The first files of the first people."""
    for person in sorted(source.iterdir())[:people]:
        (target / person.name).mkdir(parents=True)
        for file in sorted(person.iterdir())[:files]:
            shutil.copy(file, target / person.name)
    return target


@pytest.fixture
def speakers(shared: Path, tmp_path: Path) -> Path:
    """Three speakers with two clips."""
    return subset(shared / "media" / "audio" / "speakers", tmp_path / "speakers", 3, 2)


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    """A config whose one voice model is quick."""
    config = tmp_path / "fake.yaml"
    model = {"name": "fake", "backend": "fake-voice", "options": ["emotion_model:"]}
    config.write_text(yaml.safe_dump({"applications": [{"name": "presence", "args": {"models": [model]}}]}))
    return config


@pytest.fixture
def people(shared: Path, tmp_path: Path) -> Path:
    """Three people with two photographs."""
    return subset(shared / "media" / "faces" / "lfw", tmp_path / "people", 3, 2)


def is_png(path: Path) -> bool:
    """Whether a file is a picture of some size."""
    data = path.read_bytes()
    return data.startswith(b"\x89PNG") and min(struct.unpack(">II", data[16:24])) > 200


def test_speakers_are_told_apart_and_a_threshold_is_suggested(speakers: Path, tmp_path: Path) -> None:
    (speakers / sorted(speakers.iterdir())[0].name / "notes.txt").write_text("no sound")
    ended = run(speakers, "--kind", "voice", "--out", tmp_path / "out", "--models-dir", tmp_path)
    assert ended.exit_code == 0, ended.output
    assert "resemblyzer-ge2e: 6 files of 3 people, 1 skipped" in ended.stdout
    assert "notes.txt: the bytes are no sound of a known format" in ended.stderr
    told = json.loads((tmp_path / "out" / "calibration.json").read_text())
    assert (told["same"]["pairs"], told["different"]["pairs"]) == (3, 12)
    assert told["equal_error_rate"] < 0.1
    assert told["same"]["percentiles"]["50"] < told["different"]["percentiles"]["1"]
    assert told["suggested"]["far"] <= 0.01
    assert f'  - "verify_threshold:{told["suggested"]["threshold"]:g}"' in ended.stdout
    assert "12 pairs of two people are too few to be sure of a FAR of 0.1%" in ended.stdout
    assert is_png(tmp_path / "out" / "histogram.png")
    assert is_png(tmp_path / "out" / "roc.png")


def test_the_suggested_line_is_one_of_a_model_file(speakers: Path, tmp_path: Path, fake: Path) -> None:
    (tmp_path / "models").mkdir()
    arguments = (speakers, "--kind", "voice", "--config", fake, "--models-dir", tmp_path / "models")
    ended = run(*arguments)
    lines = ended.stdout[ended.stdout.index("options:") :]
    document = {"backend": "fake-voice", **yaml.safe_load(lines)}
    (tmp_path / "models" / "mine.yaml").write_text(yaml.safe_dump(document))
    again = run(*arguments, "--model", "mine")
    assert again.exit_code == 0, again.output
    assert f"now: {document['options'][0].replace(':', ' ')} accepts" in again.stdout


def test_faces_are_told_apart(people: Path, tmp_path: Path) -> None:
    ended = run(people, "--kind", "face", "--models-dir", tmp_path)
    assert ended.exit_code == 0, ended.output
    assert "dlib-resnet: 6 files of 3 people, 0 skipped" in ended.stdout
    assert "now: verify_threshold 0.08 accepts" in ended.stdout


def test_a_model_is_found_as_the_service_finds_it(speakers: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(EMPTY))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "fake.yaml").write_text("backend: fake-voice\n")
    arguments = (speakers, "--kind", "voice", "--config", config)
    ended = run(*arguments, PRESENCE_MODELS_DIR=str(tmp_path / "models"))
    assert "fake: 6 files of 3 people" in ended.stdout, ended.output
    elsewhere = {"applications": [{"name": "presence", "args": {"models_dir": str(tmp_path / "none")}}]}
    config.write_text(yaml.safe_dump(elsewhere))
    ended = run(*arguments, PRESENCE_MODELS_DIR=str(tmp_path / "models"))
    assert "no voice model is configured or installed" in ended.stderr
    ended = run(*arguments, "--models-dir", tmp_path / "models")
    assert ended.exit_code == 0, ended.output


@pytest.mark.parametrize(
    ("make", "why"),
    [
        ([], "has no folders"),
        (["anna/a.wav", "anna/b.wav"], "files of 1 people"),
        (["anna/a.wav", "bert/b.wav"], "one file a person"),
        (["anna/a.wav", "anna/b.wav", "bert/c.wav"], "of what could be read there are files of 0 people"),
    ],
)
def test_wrong_input_is_told_without_a_traceback(
    tmp_path: Path, fake: Path, make: list[str], why: str
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name in make:
        (data / name).parent.mkdir(exist_ok=True)
        (data / name).write_bytes(b"no sound")
    ended = run(data, "--kind", "voice", "--config", fake)
    assert ended.exit_code == 1
    assert why in ended.stderr
    assert "Traceback" not in ended.output


def test_no_picture_without_matplotlib(
    speakers: Path, tmp_path: Path, fake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphs.cli_calibrate.find_spec", lambda _: None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    arguments = (speakers, "--kind", "voice", "--config", fake)
    ended = run(*arguments, "--out", tmp_path / "out")
    assert ended.exit_code == 1
    assert "--out draws with matplotlib: install presence[calibrate]" in ended.stderr
    assert not (tmp_path / "out").exists()
    assert run(*arguments).exit_code == 0


def test_a_place_that_cannot_be_written_is_named(speakers: Path, tmp_path: Path, fake: Path) -> None:
    (tmp_path / "out").write_text("a file")
    ended = run(speakers, "--kind", "voice", "--config", fake, "--out", tmp_path / "out")
    assert ended.exit_code == 1
    assert f"{tmp_path / 'out'}: File exists" in ended.stderr
