"""Voice flows over the real deployment classes with the fake engine, all in this process."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from deployments.messages import Described, DescribeRequest
from deployments.voice import VoiceEncoder, VoiceSpec
from engines.errors import (
    DeadlineExceeded,
    InvalidInput,
    MediaUnavailable,
    NotDecodable,
    NothingComputable,
    PresenceError,
    TooLarge,
    UnknownModel,
)
from engines.types import Demographics, EngineOptions
from graphs.media import MediaReader, MediaRules
from graphs.voice import VoiceFlow, VoiceNode, wanted_heads

Clip = Callable[..., str]
KINDS = {"one": "voice", "portrait": "face"}
GARBAGE = base64.b64encode(b"no sound").decode()


def later() -> float:
    return time.time() + 30


@dataclass
class Calls:
    """Every call of a part with its deadline. The barrier holds calls until as many are under way."""

    made: list[tuple[str, float]] = field(default_factory=list)
    asked: list[tuple[str, ...]] = field(default_factory=list)
    together: asyncio.Barrier | None = None

    async def note(self, part: str, deadline: float) -> None:
        self.made.append((part, deadline))
        if self.together:
            async with asyncio.timeout(10):
                await self.together.wait()

    @property
    def parts(self) -> list[str]:
        return [part for part, _ in self.made]


class Encoder:
    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._replica = VoiceEncoder(VoiceSpec("one", "fake-voice", EngineOptions(), max_seconds=2))

    async def embed(self, clip: bytes, deadline: float) -> np.ndarray:
        await self._calls.note("embed", deadline)
        answer = await self._replica.embed(clip, deadline)
        if isinstance(answer, PresenceError):
            raise answer
        return answer


class Attributes:
    """Tells what it was made with."""

    def __init__(self, calls: Calls, told: Demographics) -> None:
        self._calls, self._told = calls, told

    async def describe(self, request: DescribeRequest, deadline: float) -> Described:
        await self._calls.note("describe", deadline)
        self._calls.asked.append(request.heads)
        return Described(1.5, self._told)


ALL = Demographics(age=41.5, gender={"Female": 0.9, "Male": 0.1}, emotion={"neutral": 0.7, "sad": 0.3})


def node(
    calls: Calls, told: Demographics = ALL, heads: tuple[str, ...] = ("emotion", "age_gender")
) -> VoiceNode:
    return VoiceNode("one", 0.25, Encoder(calls), Attributes(calls, told) if heads else None, heads)


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
async def media() -> AsyncIterator[MediaReader]:
    reader = MediaReader(MediaRules())
    yield reader
    await reader.close()


@pytest.fixture
def flow(calls: Calls, media: MediaReader) -> VoiceFlow:
    return VoiceFlow({"one": node(calls)}, media, KINDS)


@pytest.fixture
def clip(tone: Callable[..., bytes]) -> Clip:
    """A tone as base64: hertz, seconds, level."""
    return lambda *how: base64.b64encode(tone(*how)).decode()


async def test_verify_tells_same_from_different(flow: VoiceFlow, clip: Clip) -> None:
    same = await flow.verify("one", (clip(440), clip(700)), None, later())
    other = await flow.verify("one", (clip(440), clip(3000)), None, later())
    assert same.verified
    assert not other.verified
    assert 0 <= same.distance < same.threshold == 0.25 < other.distance
    assert same.confidence == pytest.approx((1 - same.distance / 0.25) * 100)
    assert other.confidence == 0
    assert same.model == "one"


async def test_a_distance_equal_to_the_threshold_is_verified(flow: VoiceFlow, clip: Clip) -> None:
    pair = (clip(440), clip(3000))
    distance = (await flow.verify("one", pair, None, later())).distance
    at = await flow.verify("one", pair, distance, later())
    assert (at.verified, at.threshold, at.confidence) == (True, distance, 0)
    assert not (await flow.verify("one", pair, distance * 0.999, later())).verified


async def test_verify_is_one_hop_for_both_clips_together(flow: VoiceFlow, calls: Calls, clip: Clip) -> None:
    calls.together = asyncio.Barrier(2)
    await flow.verify(None, (clip(440), clip(3000)), None, later())
    assert calls.parts == ["embed", "embed"]


async def test_embed_is_one_unit_vector_and_one_hop(flow: VoiceFlow, calls: Calls, clip: Clip) -> None:
    embedding, name = await flow.embed(None, clip(440), later())
    assert embedding.shape == (8,)
    assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-6)
    assert name == "one"
    assert calls.parts == ["embed"]


async def test_the_deadline_goes_with_every_call(flow: VoiceFlow, calls: Calls, clip: Clip) -> None:
    deadline = later()
    await flow.verify("one", (clip(440), clip(440)), None, deadline)
    await flow.analyze("one", clip(440), (), deadline)
    assert {given for _, given in calls.made} == {deadline}
    with pytest.raises(DeadlineExceeded):
        await flow.embed("one", clip(440), time.time() - 1)


async def test_what_is_wrong_with_a_clip_is_told_by_its_field(flow: VoiceFlow, clip: Clip) -> None:
    good = clip(440)
    wrong: list[tuple[str, type[PresenceError], str]] = [
        (GARBAGE, NotDecodable, "no sound"),
        (clip(440, 0.5, 0), InvalidInput, "silent"),
        (clip(440, 0.05), InvalidInput, "seconds"),
        (clip(440, 2.5), TooLarge, "longer than the limit of 2 seconds"),
        ("", InvalidInput, "empty"),
        ("not base64!", InvalidInput, "base64"),
        ("http://127.0.0.1/a.wav", MediaUnavailable, "not allowed"),
    ]
    for sample, kind, told in wrong:
        with pytest.raises(kind, match=rf"^audio2: .*{told}"):
            await flow.verify("one", (good, sample), None, later())
        with pytest.raises(kind, match=rf"^audio1: .*{told}"):
            await flow.verify("one", (sample, good), None, later())
        with pytest.raises(kind, match=rf"^audio: .*{told}"):
            await flow.embed("one", sample, later())


async def test_a_model_of_another_kind_is_told_from_one_that_is_not_there(
    flow: VoiceFlow, clip: Clip
) -> None:
    with pytest.raises(UnknownModel, match='"portrait" is a face model; this route needs a voice model'):
        await flow.embed("portrait", clip(440), later())
    with pytest.raises(UnknownModel, match='"nobody" not found'):
        await flow.embed("nobody", clip(440), later())


async def test_without_any_voice_model_the_remedy_is_told(media: MediaReader, clip: Clip) -> None:
    with pytest.raises(UnknownModel, match="no voice model is installed"):
        await VoiceFlow({}, media, {"portrait": "face"}).embed("portrait", clip(440), later())


@pytest.mark.parametrize(
    ("actions", "told", "asked"),
    [
        ((), ALL, ("emotion", "age_gender")),
        (("age",), Demographics(age=41.5), ("age_gender",)),
        (("gender",), Demographics(gender=ALL.gender), ("age_gender",)),
        (("emotion",), Demographics(emotion=ALL.emotion), ("emotion",)),
        (("emotion", "age"), Demographics(age=41.5, emotion=ALL.emotion), ("emotion", "age_gender")),
    ],
)
async def test_actions_run_only_the_heads_that_they_need(
    flow: VoiceFlow,
    calls: Calls,
    clip: Clip,
    actions: tuple[str, ...],
    told: Demographics,
    asked: tuple[str, ...],
) -> None:
    analyzed = await flow.analyze("one", clip(440), actions, later())
    assert analyzed.told == told
    assert analyzed.seconds == 1.5
    assert calls.asked == [asked]
    assert calls.parts == ["describe"]


async def test_what_can_be_told_is_told_where_some_cannot(
    calls: Calls, media: MediaReader, clip: Clip
) -> None:
    emotion = Demographics(emotion={"happy": 1.0})
    flow = VoiceFlow({"one": node(calls, emotion, ("emotion",))}, media)
    assert (await flow.analyze("one", clip(440), (), later())).told == emotion
    assert (await flow.analyze("one", clip(440), ("age", "emotion"), later())).told == emotion


@pytest.mark.parametrize(
    ("heads", "actions", "options"),
    [
        ((), (), ["age_gender_model", "emotion_model"]),
        ((), ("emotion",), ["emotion_model"]),
        (("emotion",), ("age", "gender"), ["age_gender_model"]),
        (("age_gender",), ("emotion",), ["emotion_model"]),
    ],
)
async def test_nothing_computable_names_the_option_and_reads_no_clip(
    calls: Calls, media: MediaReader, heads: tuple[str, ...], actions: tuple[str, ...], options: list[str]
) -> None:
    flow = VoiceFlow({"one": node(calls, heads=heads)}, media)
    with pytest.raises(NothingComputable, match=r'^model "one" does not tell ') as caught:
        await flow.analyze("one", "no clip", actions, later())
    assert caught.value.message.endswith(" or ".join(options))
    assert calls.made == []


async def test_a_head_that_tells_nothing_of_what_was_asked_is_no_empty_answer(
    calls: Calls, media: MediaReader, clip: Clip
) -> None:
    flow = VoiceFlow({"one": node(calls, Demographics(gender={"Male": 1.0}))}, media)
    with pytest.raises(NothingComputable, match="does not tell age"):
        await flow.analyze("one", clip(440), ("age",), later())


def test_heads_keep_the_order_of_the_model(calls: Calls) -> None:
    assert wanted_heads(node(calls), ("age", "emotion", "gender")) == ("emotion", "age_gender")
    assert wanted_heads(node(calls, heads=()), ()) == ()
