"""The library of voices over a real journal."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from engines.audio import decode
from engines.errors import InvalidInput, NotDecodable, TooLarge, UnknownRecord
from graphs.voices import NAMESPACE, PAGE, PART_BYTES, RATE, Profile, VoiceLibrary, profile_id

Tone = Callable[..., bytes]


def later() -> float:
    return time.time() + 30


async def add(library: VoiceLibrary, clip: bytes, name: str = "Ada", **more: str) -> Profile:
    told = {"description": "", "language": "", "transcript": "", **more}
    return await library.add(clip, name=name, **told, deadline=later())


@pytest.fixture
def library(local_store: Any) -> VoiceLibrary:
    return VoiceLibrary(local_store, most=3, max_seconds=20)


@pytest.fixture(scope="session")
def noise(tone: Tone) -> bytes:
    """Sixteen seconds that no codec makes small."""
    samples = np.random.default_rng(1).integers(-9000, 9000, 256_000).astype("<i2")
    return tone(1, 16.0)[:44] + samples.tobytes()


async def test_a_voice_is_kept_listed_heard_and_deleted(library: VoiceLibrary, tone: Tone) -> None:
    kept = await add(library, tone(330, 1.5), " Ada ", description="calm", language="en", transcript="hm")
    assert (kept.name, kept.description, kept.language, kept.transcript) == ("Ada", "calm", "en", "hm")
    assert profile_id(kept.voice) == kept.id
    assert await library.listed(later()) == [kept]
    assert await library.get(kept.id, later()) == kept
    heard = decode(await library.recording(kept.id, later()), RATE, 10)
    assert heard.seconds == pytest.approx(1.5, abs=0.001)
    assert np.argmax(np.abs(np.fft.rfft(heard.samples))) / heard.seconds == pytest.approx(330, abs=1)
    await library.delete(kept.id, later())
    assert await library.listed(later()) == []
    for call in (library.get, library.recording, library.delete):
        with pytest.raises(UnknownRecord):
            await call(kept.id, later())


async def test_a_large_recording_is_kept_in_parts(
    library: VoiceLibrary, noise: bytes, local_store: Any
) -> None:
    kept = await add(library, noise)
    assert kept.size > PART_BYTES
    recording = await library.recording(kept.id, later())
    assert len(recording) == kept.size
    assert decode(recording, RATE, 20).seconds == pytest.approx(16, abs=0.01)
    await library.delete(kept.id, later())
    for part in range(3):
        assert await local_store.get((NAMESPACE, f"{kept.id}.{part}"), later()) is None


async def test_the_newest_comes_first_and_the_library_is_bounded(library: VoiceLibrary, tone: Tone) -> None:
    for name in ("one", "two", "three"):
        await add(library, tone(330, 1.0), name)
    assert [one.name for one in await library.listed(later())] == ["three", "two", "one"]
    with pytest.raises(TooLarge, match="3 voices already"):
        await add(library, tone(330, 1.0), "four")
    await library.delete((await library.listed(later()))[0].id, later())
    await add(library, tone(330, 1.0), "four")
    assert [one.name for one in await library.listed(later())] == ["four", "two", "one"]


async def test_more_than_a_page_is_listed(
    local_store: Any, tone: Tone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphs.voices.PAGE", 2)
    assert PAGE > 2
    library = VoiceLibrary(local_store)
    for number in range(5):
        await add(library, tone(330, 1.0), str(number))
    assert [one.name for one in await library.listed(later())] == ["4", "3", "2", "1", "0"]


@pytest.mark.parametrize(
    ("seconds", "level", "error"), [(0.5, 0.3, InvalidInput), (21, 0.3, TooLarge), (0, 0.3, NotDecodable)]
)
async def test_a_recording_that_is_no_good_is_refused(
    library: VoiceLibrary, tone: Tone, seconds: float, level: float, error: type[Exception]
) -> None:
    with pytest.raises(error, match="audio: "):
        await add(library, tone(330, seconds, level))
    assert await library.listed(later()) == []


async def test_bytes_that_are_no_sound_are_refused(library: VoiceLibrary) -> None:
    for clip in (b"", b"no sound", b"\0" * 1000):
        with pytest.raises(NotDecodable):
            await add(library, clip)


@pytest.mark.parametrize(
    "told",
    [
        {"name": " "},
        {"name": "a" * 81},
        {"description": "a" * 501},
        {"language": "a" * 36},
        {"transcript": "a" * 4001},
    ],
)
async def test_what_is_told_of_a_voice_is_bounded(
    library: VoiceLibrary, tone: Tone, told: dict[str, str]
) -> None:
    with pytest.raises(InvalidInput, match=next(iter(told))):
        await add(library, tone(330, 1.0), **told)


@pytest.mark.parametrize(
    "unknown", ["", "nobody", "../x", "\0", "a" * 5000, "00000000-0000-4000-8000-000000000000"]
)
async def test_an_id_that_is_not_there_is_unknown(library: VoiceLibrary, unknown: str) -> None:
    with pytest.raises(UnknownRecord):
        await library.get(unknown, later())


async def test_only_names_of_the_library_name_a_profile() -> None:
    assert profile_id("alloy") is None
    assert profile_id("localai://other/1") is None
