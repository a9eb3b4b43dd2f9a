"""The report on voices: who speaks in which file, what the conditions do, what a row tells."""

from io import BytesIO, StringIO
from pathlib import Path
from wave import open as open_wave

import numpy as np
import pytest
from rich.console import Console

from bench.voice_accuracy import CONDITIONS, Recording, across, measure, noisy, recordings, table
from engines.types import Audio, EngineOptions, Runtime
from engines.voice import RATE
from engines.voice.fake import FakeVoice


def tone(hertz: float, seconds: float = 3.5) -> Audio:
    time = np.arange(round(seconds * RATE)) / RATE
    return Audio((0.5 * np.sin(2 * np.pi * hertz * time)).astype(np.float32), RATE)


def saved(path: Path, hertz: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = BytesIO()
    with open_wave(file, "wb") as out:
        out.setparams((1, 2, RATE, 0, "NONE", ""))
        out.writeframes((tone(hertz).samples * 32767).astype("<i2").tobytes())
    path.write_bytes(file.getvalue())


def test_a_folder_or_the_start_of_a_name_tells_who_speaks(tmp_path: Path) -> None:
    saved(tmp_path / "folders/ann/deep/1.wav", 300)
    saved(tmp_path / "names/bob_1.wav", 600)
    saved(tmp_path / "names/bob_2.wav", 600)
    (tmp_path / "names/bob.txt").write_text("no sound")
    found = recordings([tmp_path / "folders", tmp_path / "names"], 1)
    assert [one.person for one in found] == ["folders/ann", "names/bob", "names/bob"]
    assert found[0].clip.seconds == pytest.approx(3.5, abs=0.01)


def test_no_recording_is_compared_with_itself() -> None:
    one = np.eye(3, dtype=np.float32)
    other = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]], np.float32)
    pairs = across(one, other, ["a", "a", "b"])
    assert pairs.same.tolist() == [0, 0]
    assert sorted(pairs.different.tolist()) == [1, 1, 1, 1]


@pytest.mark.parametrize("decibels", [20, 5])
def test_noise_has_its_power(decibels: float) -> None:
    clip = tone(300)
    noise = noisy(clip, decibels).samples - clip.samples
    ratio = 10 * np.log10(np.mean(clip.samples**2) / np.mean(noise**2))
    assert ratio == pytest.approx(decibels, abs=0.5)


def test_conditions_change_the_clip_as_they_say() -> None:
    high, low = tone(6_000), tone(1_000)
    for name, condition in CONDITIONS.items():
        kept = condition(low)
        assert kept.rate == RATE
        assert np.sqrt(np.mean(kept.samples**2)) == pytest.approx(0.354, rel=0.2), name
        expected = {"first 3 seconds": 3, "first 2 seconds": 2, "first second": 1, "first half second": 0.5}
        assert kept.seconds == pytest.approx(expected.get(name, 3.5), abs=0.1), name
    narrow = CONDITIONS["8 kHz, mu-law"](high).samples
    assert np.sqrt(np.mean(narrow**2)) < 0.01


def test_rows_tell_what_was_compared() -> None:
    data = [Recording(str(hertz), tone(hertz)) for hertz in (300, 320, 3_000, 3_100)]
    data = [Recording("low" if at < 2 else "high", one.clip) for at, one in enumerate(data)]
    rows = list(measure("fake", FakeVoice(EngineOptions()), data, 0.25, Runtime()))
    assert [(row.condition, row.other) for row in rows[:3]] == [
        ("as recorded", "the same"),
        ("8 kHz, mu-law", "as recorded"),
        ("8 kHz, mu-law", "the same"),
    ]
    assert len(rows) == 2 * len(CONDITIONS) - 1
    assert (rows[0].accuracy.same_pairs, rows[0].accuracy.different_pairs) == (2, 4)
    assert (rows[1].accuracy.same_pairs, rows[1].accuracy.different_pairs) == (4, 8)
    assert rows[0].accuracy.eer == 0
    assert rows[0].same[-1] < rows[0].different[0]
    console = Console(width=220, file=StringIO(), record=True)
    console.print(table(rows))
    assert "noise, SNR 5 dB" in console.export_text()
