"""A synthesizer in this process, on the fake engine: one tone a word, 50 ms a character."""

import asyncio
import io
import pickle
import threading
import time
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from deployments.messages import SpeakRequest
from deployments.tts import PIECE_BYTES, OnDemandSpec, OnDemandSynthesizer, Synthesizer, TtsSpec
from engines import registry
from engines.audio import decode
from engines.errors import (
    ConfigurationError,
    DeadlineExceeded,
    InvalidInput,
    PresenceError,
    TooLarge,
    UnknownModel,
)
from engines.tts import Utterance
from engines.tts.fake import FakeTts
from engines.tts.formats import Target
from engines.types import EngineOptions

SPEC = TtsSpec("m", "fake-tts", EngineOptions())
TEXT = "Hello world. This is the second sentence. Here is the third one!"


def later() -> float:
    return time.time() + 30


async def pieces(replica: Any, request: SpeakRequest, deadline: float | None = None) -> list[Any]:
    return [piece async for piece in replica.speak(request, deadline or later())]


async def sound(replica: Any, text: str = TEXT, name: str = "wav", **more: Any) -> bytes:
    parts = await pieces(replica, SpeakRequest(text, Target(name), **more))
    assert all(isinstance(part, bytes) for part in parts), parts
    return b"".join(parts)


async def error_of(replica: Any, text: str = TEXT, **more: Any) -> PresenceError:
    (answer,) = await pieces(replica, SpeakRequest(text, Target(), **more))
    assert isinstance(answer, PresenceError)
    return answer


class Recorder(FakeTts):
    """Remembers what it was asked for; knows speed, instructions and recordings."""

    own_speed: ClassVar[bool] = True
    follows_instructions: ClassVar[bool] = True
    clones: ClassVar[bool] = True
    asked: ClassVar[list[Utterance]] = []
    closed: ClassVar[list[str]] = []
    at_word: ClassVar[threading.Event | None] = None
    go_on: ClassVar[threading.Event | None] = None
    made: ClassVar[list[EngineOptions]] = []

    def __init__(self, options: EngineOptions) -> None:
        super().__init__(options)
        if options.model == "missing":
            raise ConfigurationError(f"missing weights: {options.models_dir}/missing; install them")
        Recorder.made.append(options)

    def speak(self, utterance: Utterance) -> Iterator[np.ndarray]:
        Recorder.asked.append(utterance)
        try:
            for piece in super().speak(utterance):
                if Recorder.at_word and Recorder.go_on:
                    Recorder.at_word.set()
                    Recorder.go_on.wait(10)
                yield piece
        finally:
            Recorder.closed.append(utterance.text)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> type[Recorder]:
    """The engine "recorder"; what it remembers begins anew."""
    monkeypatch.setitem(registry.ENGINES["tts"], "recorder", "engines.tts.fake:Recorder")
    monkeypatch.setattr("engines.tts.fake.Recorder", Recorder, raising=False)
    for name in ("asked", "closed", "made"):
        monkeypatch.setattr(Recorder, name, [])
    return Recorder


def recording(tone: Any, seconds: float = 1.0) -> bytes:
    made: bytes = tone(330, seconds)
    return made


async def test_the_whole_file_tells_its_length_and_the_stream_does_not() -> None:
    replica = Synthesizer(SPEC)
    whole, streamed = await sound(replica, whole=True), await sound(replica)
    with wave.open(io.BytesIO(whole)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
        assert file.getnframes() == (len(whole) - 44) // 2
    assert streamed[40:44] == b"\xff" * 4
    assert streamed[44:] == whole[44:]


async def test_a_stream_brings_each_sentence_by_itself() -> None:
    replica = Synthesizer(SPEC)
    parts = await pieces(replica, SpeakRequest(TEXT, Target("pcm", sample_rate=16_000)))
    assert len(parts) == 3
    assert len(await pieces(replica, SpeakRequest(TEXT, Target(), whole=True))) == 1


async def test_no_piece_is_larger_than_one_message_may_be() -> None:
    text = " ".join(["longwords" * 20] * 3)
    parts = await pieces(Synthesizer(SPEC), SpeakRequest(text, Target("wav", sample_rate=48_000), whole=True))
    assert len(parts) > 1
    assert {len(part) for part in parts[:-1]} == {PIECE_BYTES}


@pytest.mark.parametrize("name", ["wav", "mp3", "aac", "flac", "opus"])
@pytest.mark.parametrize("whole", [True, False])
async def test_every_format_decodes_to_the_sound_that_was_spoken(name: str, whole: bool) -> None:
    replica = Synthesizer(SPEC)
    spoken = decode(await sound(replica, name="wav", whole=True), 16_000, 60)
    heard = decode(await sound(replica, name=name, whole=whole), 16_000, 60)
    assert heard.seconds == pytest.approx(spoken.seconds, abs=0.15)
    assert np.abs(heard.samples).max() == pytest.approx(0.3, abs=0.1)


@pytest.mark.parametrize(("speed", "factor"), [(0.5, 2.0), (2.0, 0.5), (4.0, 0.25), (0.25, 4.0)])
async def test_speed_changes_the_length_and_not_the_pitch(speed: float, factor: float) -> None:
    replica = Synthesizer(SPEC)
    usual = decode(await sound(replica, whole=True), 16_000, 120)
    other = decode(await sound(replica, whole=True, speed=speed), 16_000, 120)
    assert other.seconds == pytest.approx(usual.seconds * factor, rel=0.1)
    spectrum = np.abs(np.fft.rfft(other.samples))
    assert np.argmax(spectrum) / len(other.samples) * 16_000 == pytest.approx(220, abs=10)


async def test_an_engine_with_a_pace_of_its_own_is_told_the_speed(recorder: type[Recorder]) -> None:
    replica = Synthesizer(TtsSpec("m", "recorder", EngineOptions()))
    recorder.asked.clear()
    await sound(replica, speed=2.0, instructions="whisper", language="en", params={"a": "b"})
    first = recorder.asked[0]
    assert (first.speed, first.instructions, first.language, first.params) == (
        2.0,
        "whisper",
        "en",
        {"a": "b"},
    )


async def test_an_engine_without_them_is_not_told(
    monkeypatch: pytest.MonkeyPatch, recorder: type[Recorder]
) -> None:
    monkeypatch.setattr(Recorder, "own_speed", False)
    monkeypatch.setattr(Recorder, "follows_instructions", False)
    replica = Synthesizer(TtsSpec("m", "recorder", EngineOptions()))
    recorder.asked.clear()
    await sound(replica, speed=2.0, instructions="whisper")
    assert {(one.speed, one.instructions) for one in recorder.asked} == {(1.0, "")}


async def test_music_is_asked_for_in_one_piece(
    monkeypatch: pytest.MonkeyPatch, recorder: type[Recorder]
) -> None:
    monkeypatch.setattr(Recorder, "splits_text", False)
    replica = Synthesizer(TtsSpec("m", "recorder", EngineOptions()))
    recorder.asked.clear()
    await sound(replica)
    assert [one.text for one in recorder.asked] == [TEXT]


async def test_the_voice_of_the_model_file_speaks_when_none_is_named() -> None:
    high = Synthesizer(TtsSpec("m", "fake-tts", EngineOptions(), voice="high"))
    assert await sound(high) == await sound(Synthesizer(SPEC), voice="high")
    assert await sound(high, voice="low") == await sound(Synthesizer(SPEC), voice="low")


async def test_an_unknown_voice_is_an_error_unless_any_will_do() -> None:
    replica = Synthesizer(SPEC)
    assert "known: low, high" in (await error_of(replica, voice="alloy")).message
    assert await sound(replica, voice="alloy", any_voice=True) == await sound(replica)
    assert await sound(replica, voice="low", any_voice=True) == await sound(replica, voice="low")


async def test_the_recording_of_the_model_file_is_what_it_speaks_with(
    recorder: type[Recorder], tmp_path: Path, tone: Any
) -> None:
    (tmp_path / "me.wav").write_bytes(recording(tone))
    replica = Synthesizer(TtsSpec("m", "recorder", EngineOptions(models_dir=tmp_path), recording="me.wav"))
    for given, seconds in ((None, 1.0), (recording(tone, 2.0), 2.0)):
        recorder.asked.clear()
        await sound(replica, reference=given)
        reference = recorder.asked[0].reference
        assert reference is not None
        assert reference.seconds == pytest.approx(seconds, abs=0.01)
    recorder.asked.clear()
    await sound(replica, voice="low")
    assert (recorder.asked[0].voice, recorder.asked[0].reference) == ("low", None)


@pytest.mark.parametrize("name", ["me.wav", "../me.wav"])
def test_a_recording_that_is_not_there_stops_the_start(
    recorder: type[Recorder], tmp_path: Path, name: str
) -> None:
    with pytest.raises(ConfigurationError):
        Synthesizer(TtsSpec("m", "recorder", EngineOptions(models_dir=tmp_path), recording=name))
    assert recorder.asked == []


def test_a_recording_that_is_no_sound_stops_the_start(recorder: type[Recorder], tmp_path: Path) -> None:
    (tmp_path / "me.wav").write_bytes(b"no sound")
    with pytest.raises(ConfigurationError, match=r"tts.audio_path: me.wav: the bytes are no sound"):
        Synthesizer(TtsSpec("m", "recorder", EngineOptions(models_dir=tmp_path), recording="me.wav"))
    assert recorder.asked == []


def test_a_voice_that_the_model_does_not_have_stops_the_start() -> None:
    with pytest.raises(ConfigurationError, match=r"tts: voice .*bella.* is unknown"):
        Synthesizer(TtsSpec("m", "fake-tts", EngineOptions(), voice="bella"))


async def test_a_recording_asked_of_a_model_that_clones_nothing(tone: Any) -> None:
    assert "library" in (await error_of(Synthesizer(SPEC), reference=recording(tone))).message


@pytest.mark.parametrize(
    "text", ["", " \n ", "...", "?!", "\ud800", "\0\0", "\u200b\u202e", "\U0001f600" * 5]
)
async def test_text_of_which_nothing_can_be_spoken_is_an_error(text: str) -> None:
    assert isinstance(await error_of(Synthesizer(SPEC), text), InvalidInput)


async def test_a_sentence_that_the_model_cannot_speak_is_left_out(
    monkeypatch: pytest.MonkeyPatch, recorder: type[Recorder]
) -> None:
    original = FakeTts.speak

    def picky(self: FakeTts, utterance: Utterance) -> Iterator[np.ndarray]:
        if "second" in utterance.text:
            raise InvalidInput("of this nothing can be spoken")
        return original(self, utterance)

    monkeypatch.setattr(FakeTts, "speak", picky)
    replica = Synthesizer(TtsSpec("m", "recorder", EngineOptions()))
    assert len(await sound(replica)) < len(await sound(replica, TEXT.replace("second", "middle")))
    assert "of this nothing" in (await error_of(replica, "A second one.")).message
    assert recorder.closed


async def test_sound_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.speaking.MOST_SECONDS", 1.0)
    replica = Synthesizer(SPEC)
    assert isinstance(await error_of(replica, whole=True), TooLarge)
    *sound_before, error = await pieces(replica, SpeakRequest(TEXT, Target()))
    assert (len(sound_before), type(error)) == (1, TooLarge)


async def test_errors_survive_the_way_to_another_process() -> None:
    answer = await error_of(Synthesizer(SPEC), "...")
    copy = pickle.loads(pickle.dumps(answer))  # noqa: S301 - what was just written
    assert (type(copy), copy.message) == (type(answer), answer.message)


async def test_a_deadline_between_sentences_ends_the_stream_with_its_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replica = Synthesizer(SPEC)
    stream = replica.speak(SpeakRequest(TEXT, Target("pcm")), later())
    assert isinstance(await anext(stream), bytes)
    monkeypatch.setattr(time, "time", lambda: 1e12)
    assert [type(piece) async for piece in stream] == [DeadlineExceeded]
    late = await pieces(replica, SpeakRequest(TEXT, Target()), 1.0)
    assert [type(piece) for piece in late] == [DeadlineExceeded]


async def test_when_the_listener_leaves_the_rest_is_not_spoken(recorder: type[Recorder]) -> None:
    replica = Synthesizer(TtsSpec("m", "recorder", EngineOptions()))
    recorder.asked.clear()
    stream = replica.speak(SpeakRequest(TEXT, Target("pcm")), later())
    await anext(stream)
    await stream.aclose()
    await replica.check_health()
    assert [one.text for one in recorder.asked] == ["Hello world.", "One."]


async def test_a_cancelled_request_stops_within_its_sentence(
    recorder: type[Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = Synthesizer(TtsSpec("m", "recorder", EngineOptions()))
    recorder.closed.clear()
    monkeypatch.setattr(Recorder, "at_word", threading.Event())
    monkeypatch.setattr(Recorder, "go_on", threading.Event())
    assert Recorder.at_word is not None
    assert Recorder.go_on is not None
    task = asyncio.create_task(pieces(replica, SpeakRequest("One two three four. Five six.", Target("pcm"))))
    assert await asyncio.to_thread(Recorder.at_word.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    Recorder.go_on.set()
    await replica.check_health()
    assert recorder.closed == ["One two three four.", "One."]
    assert [one.text for one in recorder.asked][-2:] == ["One two three four.", "One."]


async def test_sentences_of_waiting_texts_take_turns(recorder: type[Recorder]) -> None:
    replica = Synthesizer(TtsSpec("m", "recorder", EngineOptions()))
    recorder.asked.clear()
    texts = [" ".join(f"Text {name} {part} ends." for part in ("one", "two", "three")) for name in "abc"]
    await asyncio.gather(*(sound(replica, text) for text in texts))
    order = [one.text.split()[1] for one in recorder.asked]
    assert sorted(order) == list("aaabbbccc")
    assert order[:3] == ["a", "b", "c"]


async def test_a_model_that_has_broken_fails_the_health_check(monkeypatch: pytest.MonkeyPatch) -> None:
    replica = Synthesizer(SPEC)

    def broken(self: object, utterance: Utterance) -> Iterator[np.ndarray]:  # noqa: ARG001 - the original's
        raise RuntimeError("out of memory")

    monkeypatch.setattr(FakeTts, "speak", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        await replica.check_health()


async def test_a_slow_model_is_not_run_by_health_checks(
    monkeypatch: pytest.MonkeyPatch, recorder: type[Recorder]
) -> None:
    monkeypatch.setattr("deployments.tts.QUICK_S", -1.0)
    replica = Synthesizer(TtsSpec("m", "recorder", EngineOptions()))
    recorder.asked.clear()
    await replica.check_health()
    assert recorder.asked == []


async def test_the_voices_of_a_model_are_told() -> None:
    assert [voice.name for voice in await Synthesizer(SPEC).voices(None, later())] == ["low", "high"]


def test_a_wrong_option_makes_no_replica() -> None:
    with pytest.raises(ConfigurationError, match="unknown option 'banana'"):
        Synthesizer(TtsSpec("m", "fake-tts", EngineOptions(options={"banana": "1"})))


def test_what_is_spoken_stays_out_of_what_is_logged() -> None:
    request = SpeakRequest("my secret", Target(), instructions="another", reference=b"my voice")
    assert not {"secret", "another", "my voice"} & set(repr(request).replace("'", " ").split())


async def test_models_on_demand_are_loaded_once_and_the_oldest_leaves(
    recorder: type[Recorder], tmp_path: Path
) -> None:
    replica = OnDemandSynthesizer(OnDemandSpec(EngineOptions(models_dir=tmp_path), loaded=2))
    for weights in ("a", "b", "a", "c", "a", "b"):
        await sound(replica, "Hello.", backend="recorder", weights=weights)
    assert [made.model for made in recorder.made] == ["a", "b", "c", "b"]


async def test_a_model_that_cannot_be_loaded_is_unknown(recorder: type[Recorder], tmp_path: Path) -> None:
    replica = OnDemandSynthesizer(OnDemandSpec(EngineOptions(models_dir=tmp_path)))
    error = await error_of(replica, backend="recorder", weights="missing")
    assert isinstance(error, UnknownModel)
    assert "missing weights: missing; install them" in error.message
    assert str(tmp_path) not in error.message
    await replica.check_health()
    assert recorder.made == []
