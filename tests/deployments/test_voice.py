"""The parts of a voice model in this process, on the fake engine."""

import asyncio
import pickle
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from deployments.messages import Described, DescribeRequest
from deployments.voice import Ear, Heard, VoiceAttributes, VoiceEncoder, VoiceSpec
from engines.errors import (
    ConfigurationError,
    DeadlineExceeded,
    InvalidInput,
    NotDecodable,
    NothingComputable,
    PresenceError,
    TooLarge,
)
from engines.types import Audio, Demographics, Embeddings, EngineOptions, Runtime
from engines.voice import fake
from engines.voice.attributes import AttributeHeads

Tone = Callable[..., bytes]
SPEC = VoiceSpec("m", "fake-voice", EngineOptions(), max_seconds=2)


def later() -> float:
    return time.time() + 30


async def embedded(encoder: VoiceEncoder, clip: bytes) -> np.ndarray:
    answer = await encoder.embed(clip, later())
    assert isinstance(answer, np.ndarray)
    return answer


async def test_the_same_voice_is_near_and_another_is_far(tone: Tone) -> None:
    encoder = VoiceEncoder(SPEC)
    low, again, high = [await embedded(encoder, tone(hertz)) for hertz in (440, 450, 3000)]
    assert low.shape == (8,)
    assert np.linalg.norm(low) == pytest.approx(1, abs=1e-6)
    assert 1 - low @ again < 0.05
    assert 1 - low @ high > 0.5


async def test_silence_around_the_voice_changes_nothing(tone: Tone) -> None:
    encoder = VoiceEncoder(SPEC)
    bare = tone(440)
    silent = b"\0\0" * 8000
    padded = tone(440, 1.5)[:44] + silent + bare[44:] + silent
    assert 1 - await embedded(encoder, bare) @ await embedded(encoder, padded) < 0.01


async def test_a_bad_clip_in_a_batch_fails_alone(tone: Tone) -> None:
    encoder = VoiceEncoder(SPEC)
    encoder.reconfigure({"max_batch_size": 8, "batch_wait_timeout_s": 0.01})
    clips = [tone(440), b"no sound", tone(440, 0.05), tone(440, level=0), tone(440, 2.5), tone(3000), b""]
    answers = await asyncio.gather(*(encoder.embed(clip, later()) for clip in clips))
    kinds = [np.ndarray, NotDecodable, InvalidInput, InvalidInput, TooLarge, np.ndarray, NotDecodable]
    assert [type(answer) for answer in answers] == kinds
    for clip, answer in zip(clips, answers, strict=True):
        if isinstance(answer, np.ndarray):
            np.testing.assert_allclose(answer, await embedded(encoder, clip), atol=1e-6)


async def test_a_batch_of_bad_clips_never_reaches_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = VoiceEncoder(SPEC)

    def never(self: object, clips: Sequence[Audio]) -> Embeddings:
        raise AssertionError(f"{self} was asked for {len(clips)} clips")

    monkeypatch.setattr(fake.FakeVoice, "embed", never)
    assert isinstance(await encoder.embed(b"no sound", later()), NotDecodable)


async def test_errors_survive_the_way_to_another_process(tone: Tone) -> None:
    encoder = VoiceEncoder(SPEC)
    for clip in (b"no sound", tone(440, level=0), tone(440, 2.5)):
        answer = await encoder.embed(clip, later())
        assert isinstance(answer, PresenceError)
        copy = pickle.loads(pickle.dumps(answer))  # noqa: S301 - what was just written
        assert (type(copy), copy.message) == (type(answer), answer.message)


async def test_a_deadline_that_has_passed_is_answered_as_a_value(tone: Tone) -> None:
    assert isinstance(await VoiceEncoder(SPEC).embed(tone(440), time.time() - 1), DeadlineExceeded)


class Heads:
    """Tells age and gender of every clip; the emotion cannot be fetched."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, tuple[str, ...]]] = []
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def analyze(self, clips: Sequence[Audio], heads: Sequence[str]) -> list[Demographics]:
        self.asked.append((len(clips), tuple(heads)))
        self.entered.set()
        self.go_on.wait(10)
        if tuple(heads) == ("emotion",):
            raise NothingComputable("the emotion model is not at hand")
        return [Demographics(age=10 * clip.seconds) for clip in clips]


@pytest.fixture
def heads(monkeypatch: pytest.MonkeyPatch) -> Heads:
    """The heads of every model that is made from now on."""
    made = Heads()

    def load(self: AttributeHeads, runtime: Runtime) -> Heads:  # noqa: ARG001 - the signature is the original's
        return made

    monkeypatch.setattr(AttributeHeads, "load", load)
    return made


async def test_heads_are_asked_once_for_the_clips_that_want_the_same(heads: Heads, tone: Tone) -> None:
    attributes = VoiceAttributes(SPEC)
    attributes.reconfigure({"max_batch_size": 8, "batch_wait_timeout_s": 0.05})
    both, emotion = ("emotion", "age_gender"), ("emotion",)
    wanted = [(tone(440), both), (tone(440, 1.0), both), (tone(440), emotion), (b"no sound", both)]
    answers = await asyncio.gather(
        *(attributes.describe(DescribeRequest(clip, names), later()) for clip, names in wanted)
    )
    assert answers[0] == Described(0.5, Demographics(age=5))
    assert answers[1] == Described(1.0, Demographics(age=10))
    assert isinstance(answers[2], NothingComputable)
    assert isinstance(answers[3], NotDecodable)
    assert sorted(heads.asked) == [(1, emotion), (2, both)]


async def test_the_start_and_health_checks_ask_no_head(heads: Heads) -> None:
    attributes = VoiceAttributes(SPEC)
    await attributes.check_health()
    assert heads.asked == []


async def test_a_head_that_loads_for_minutes_leaves_the_replica_healthy(heads: Heads, tone: Tone) -> None:
    attributes = VoiceAttributes(SPEC)
    heads.go_on.clear()
    slow = asyncio.create_task(attributes.describe(DescribeRequest(tone(440), ("age_gender",)), later()))
    assert await asyncio.to_thread(heads.entered.wait, 10)
    await asyncio.wait_for(attributes.check_health(), 5)
    assert not slow.done()
    heads.go_on.set()
    assert isinstance(await slow, Described)


async def test_real_heads_that_are_not_at_hand_stop_neither_start_nor_health(tone: Tone) -> None:
    options = EngineOptions(options={"emotion_model": "no such directory", "age_gender_model": ""})
    attributes = VoiceAttributes(VoiceSpec("m", "fake-voice", options))
    await attributes.check_health()
    answer = await attributes.describe(DescribeRequest(tone(440), ("emotion",)), later())
    assert isinstance(answer, NothingComputable)
    assert "emotion_model" in answer.message


@pytest.mark.parametrize("part", [VoiceEncoder, VoiceAttributes])
async def test_every_part_answers_the_health_check(part: type[VoiceEncoder] | type[VoiceAttributes]) -> None:
    replica = part(SPEC)
    replica.reconfigure({"max_batch_size": 4, "batch_wait_timeout_s": 0.0})
    await replica.check_health()


async def test_a_model_that_has_broken_fails_the_health_check(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = VoiceEncoder(SPEC)

    def broken(self: object, clips: Sequence[Audio]) -> Embeddings:  # noqa: ARG001 - the signature is the original's
        raise RuntimeError("out of memory")

    monkeypatch.setattr(fake.FakeVoice, "embed", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        await encoder.check_health()


@pytest.mark.parametrize("least_seconds", [0.1, 1.6, 3.0])
def test_the_tone_of_the_health_check_is_long_enough(least_seconds: float) -> None:
    ear = Ear(10, least_seconds)
    heard = ear.hear(ear.tone())
    assert isinstance(heard, Heard)
    assert heard.speech.seconds >= least_seconds


def test_a_wrong_option_makes_no_replica() -> None:
    with pytest.raises(ConfigurationError, match="unknown option 'banana'"):
        VoiceEncoder(VoiceSpec("m", "fake-voice", EngineOptions(options={"banana": "1"})))


def test_clips_stay_out_of_what_is_logged() -> None:
    assert repr(DescribeRequest(b"secret", ("emotion",))) == "DescribeRequest(heads=('emotion',))"
    assert "samples" not in repr(Heard(1.0, Audio(np.zeros(1, np.float32), 16_000)))
