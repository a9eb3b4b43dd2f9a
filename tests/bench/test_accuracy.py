"""The report on faces: pictures of a few people, boxes of enlarged pictures, what the command writes."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from bench import accuracy
from engines.face.fake import FakeFace
from engines.types import EngineOptions

PEOPLE = ("Bill_Clinton", "Andy_Roddick", "Ariel_Sharon")


@pytest.fixture
def data(shared: Path, tmp_path: Path) -> Path:
    """Two pictures of each of three people, in a folder of their own."""
    for name in PEOPLE:
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        for picture in sorted((shared / "media" / "faces" / "lfw" / name).glob("*.jpg"))[:2]:
            (folder / picture.name).symlink_to(picture.resolve())
    return tmp_path / "data"


def test_a_folder_is_a_person(data: Path) -> None:
    (data / PEOPLE[0] / "notes.txt").write_text("no picture")
    assert [one.person for one in accuracy.pictures(data)] == sorted(PEOPLE * 2)


@pytest.mark.parametrize("enlarge", [None, 640])
def test_boxes_are_of_the_picture_as_it_came(enlarge: int | None) -> None:
    picture = np.full((100, 200, 3), 200, np.uint8)
    (face,) = getattr(accuracy, "_detect")(FakeFace(EngineOptions()), picture, enlarge)  # noqa: B009 - its own
    assert (face.box.x, face.box.y, face.box.w, face.box.h) == pytest.approx((50, 25, 100, 50), abs=0.5)


def test_the_command_measures_and_writes(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, nowhere = tmp_path / "figures.json", tmp_path / "nowhere"
    command = ["accuracy", "--data", str(data), "--models", str(nowhere), "--json", str(out)]
    monkeypatch.setattr(sys, "argv", command)
    accuracy.main()
    rows = json.loads(out.read_text())
    assert len(rows) == 2
    for row in rows:
        assert (row["engine"], row["pictures"], row["no_face"]) == ("dlib-resnet", 6, 0)
        assert row["accuracy"]["tar_at_far_1"] == 1
        assert row["accuracy"]["accuracy"] == 1
        assert row["accuracy"]["eer"] == 0
