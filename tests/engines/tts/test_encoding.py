"""Every format is decoded again, by FFmpeg and by readers of other origin."""

import io
import struct
import wave

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from engines.audio import decode
from engines.errors import InvalidInput
from engines.tts.encoding import Encoder
from engines.tts.formats import FORMATS, LEAST_RATE, MOST_RATE, Target
from engines.types import Audio

HEADERLESS = {"pcm": "s16le", "ulaw": "mulaw", "alaw": "alaw"}
RATES = (16_000, 22_050, 24_000, 44_100)


def tone(rate: int, seconds: float = 2.0, hertz: float = 440.0) -> NDArray[np.float32]:
    return np.asarray(0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate), np.float32)


def encoded(target: Target, rate: int, samples: NDArray[np.float32], whole: bool) -> tuple[list[bytes], int]:
    """What feeding a tenth of a second at a time returns, what finishing returns, and the rate."""
    encoder = Encoder(target, rate, whole)
    step = rate // 10
    parts = [encoder.feed(samples[start : start + step]) for start in range(0, len(samples), step)]
    return [*parts, encoder.finish()], encoder.rate


def decoded(name: str, data: bytes, rate: int) -> Audio:
    """Samples as FFmpeg reads them, at the rate of the file; headerless formats are given their rate."""
    if name in HEADERLESS:
        options = {"sample_rate": str(rate), "ch_layout": "mono"}
        with av.open(io.BytesIO(data), "r", format=HEADERLESS[name], options=options) as container:
            parts = [frame.to_ndarray().ravel() for frame in container.decode(audio=0)]
        return Audio(np.concatenate(parts).astype(np.float32) / np.float32(32768), rate)
    with av.open(io.BytesIO(data), "r") as container:
        found = container.streams.audio[0].rate
    return decode(data, found, 60)


def pitch(audio: Audio) -> float:
    """The strongest frequency, in hertz."""
    spectrum = np.abs(np.fft.rfft(audio.samples * np.hanning(len(audio.samples))))
    return float(np.argmax(spectrum)) * audio.rate / len(audio.samples)


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "stream"])
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_holds_the_sound(name: str, rate: int, whole: bool) -> None:
    parts, made = encoded(Target(name), rate, tone(rate), whole)
    audio = decoded(name, b"".join(parts), made)
    assert audio.rate == (48_000 if name == "opus" else made)
    exact = whole and name != "aac"  # ADTS has no place for the length
    assert audio.seconds == pytest.approx(2.0, abs=0.001 if exact else 0.13)
    assert pitch(audio) == pytest.approx(440, abs=2)
    middle = audio.samples[audio.rate // 2 : audio.rate * 3 // 2]
    assert np.abs(middle).max() == pytest.approx(0.5, abs=0.06)
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.5 / np.sqrt(2), abs=0.03)


@pytest.mark.parametrize("name", FORMATS)
def test_a_stream_comes_while_it_is_fed(name: str) -> None:
    parts, _ = encoded(Target(name), 24_000, tone(24_000), whole=False)
    assert sum(map(len, parts[:10])) > 0.3 * sum(map(len, parts))  # half of the sound is fed by then


@pytest.mark.parametrize("name", FORMATS)
def test_a_whole_file_comes_at_the_end(name: str) -> None:
    parts, _ = encoded(Target(name), 24_000, tone(24_000), whole=True)
    assert not any(parts[:-1])
    assert parts[-1]


@pytest.mark.parametrize("name", ["wav", "mp3", "flac", "opus"])
def test_the_header_of_a_whole_file_tells_its_length(name: str) -> None:
    parts, _ = encoded(Target(name), 24_000, tone(24_000), whole=True)
    with av.open(io.BytesIO(parts[-1]), "r") as container:
        assert container.duration == pytest.approx(2_000_000, abs=20_000)  # microseconds


def test_a_whole_wav_is_a_plain_one() -> None:
    samples = tone(16_000)
    parts, _ = encoded(Target("wav"), 16_000, samples, whole=True)
    with wave.open(io.BytesIO(parts[-1])) as file:
        assert file.getparams()[:4] == (1, 2, 16_000, 32_000)
        pcm = np.frombuffer(file.readframes(32_000), "<i2")
    assert np.abs(pcm / 32768 - samples).max() < 1 / 32768


def test_a_streamed_wav_claims_the_most_that_it_can() -> None:
    parts, _ = encoded(Target("wav"), 16_000, tone(16_000), whole=False)
    header = b"".join(parts)[:44]
    unknown = 0xFFFFFFFF
    assert header == struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", unknown, b"WAVE", b"fmt ", 16, 1, 1, 16_000, 32_000, 2, 16, b"data", unknown),
    )


def test_pcm_is_little_endian_and_bare() -> None:
    parts, rate = encoded(Target("pcm", 16_000), 16_000, np.array([0, 0.5, -0.5, 1], np.float32), whole=False)
    assert rate == 16_000
    assert b"".join(parts) == struct.pack("<4h", 0, 16_384, -16_384, 32_767)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("name", ["wav", "mp3", "flac", "pcm", "aac"])
def test_a_sample_rate_is_given(name: str, rate: int) -> None:
    parts, made = encoded(Target(name, rate), 22_050, tone(22_050), whole=True)
    audio = decoded(name, parts[-1], rate)
    assert made == audio.rate == rate
    assert audio.seconds == pytest.approx(2.0, abs=0.3 if name == "aac" else 0.001)
    assert pitch(audio) == pytest.approx(440, abs=2)


@pytest.mark.parametrize("rate", [LEAST_RATE, MOST_RATE])
def test_the_least_and_the_most_rate_can_be_read_again(rate: int) -> None:
    parts, made = encoded(Target("wav", rate), 24_000, tone(24_000), whole=True)
    audio = decoded("wav", b"".join(parts), made)
    assert audio.rate == made == rate
    assert pitch(audio) == pytest.approx(440, abs=2)


def test_what_the_new_rate_cannot_hold_is_gone_and_not_folded_back() -> None:
    parts, _ = encoded(Target("wav", 8_000), 24_000, tone(24_000, hertz=5_000), whole=True)
    assert np.abs(decoded("wav", parts[-1], 8_000).samples[800:-800]).max() < 0.001


@pytest.mark.parametrize(
    ("low", "high"), [("mp3_44100_32", "mp3_44100_192"), ("opus_48000_32", "opus_48000_128")]
)
def test_a_bit_rate_is_given(low: str, high: str) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 96_000).astype(np.float32)
    sizes = [
        len(b"".join(encoded(Target.parse(name), 24_000, noise, whole=False)[0])) for name in (low, high)
    ]
    for name, size in zip((low, high), sizes, strict=True):
        assert size * 8 / 4 / 1000 == pytest.approx(int(name.split("_")[2]), rel=0.25)


@pytest.mark.parametrize(
    ("text", "name", "rate", "bits"),
    [
        ("mp3", "mp3", None, None),
        ("mp3_44100_128", "mp3", 44_100, 128_000),
        ("pcm_16000", "pcm", 16_000, None),
        ("ulaw_8000", "ulaw", 8_000, None),
        ("opus_48000_64", "opus", 48_000, 64_000),
    ],
)
def test_formats_of_elevenlabs(text: str, name: str, rate: int | None, bits: int | None) -> None:
    assert Target.parse(text) == Target(name, rate, bits)


@pytest.mark.parametrize(
    "text",
    [
        *("", "ogg", "MP3", "mp3_", "mp3_x", "mp3_44100_128_1", "mp3_44100_9999", "mp3_50000", "wav_1"),
        *("wav_999999", "pcm_16000_64", "ulaw_16000", "opus_44100", "mp3_-1", "mp3_44100_1", "x" * 5000),
    ],
)
def test_formats_that_do_not_exist_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Target.parse(text)
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("rate", [0, -1, 10**9])
def test_absurd_sample_rates_are_refused(rate: int) -> None:
    for name in FORMATS:
        with pytest.raises(InvalidInput):
            Target(name, rate)


@pytest.mark.parametrize("name", FORMATS)
def test_loud_and_broken_samples_are_bounded(name: str) -> None:
    samples = np.concatenate([4 * tone(24_000), np.full(2_400, np.nan), [np.inf, -np.inf]]).astype(np.float32)
    parts, rate = encoded(Target(name), 24_000, samples, whole=True)
    audio = decoded(name, parts[-1], rate)
    assert np.abs(audio.samples).max() <= 1
    assert np.sqrt(np.mean(audio.samples[: audio.rate] ** 2)) > 0.5


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("name", FORMATS)
def test_nothing_is_encoded_without_an_error(name: str, whole: bool) -> None:
    encoder = Encoder(Target(name), 24_000, whole)
    assert encoder.feed(np.empty(0, np.float32)) + encoder.finish() is not None


def test_usual_rates_are_those_of_the_engine_or_the_next_higher() -> None:
    usual = {name: [Target(name).rate(rate) for rate in (16_000, 22_050, 32_000)] for name in FORMATS}
    assert usual["wav"] == usual["flac"] == usual["mp3"] == usual["aac"] == [16_000, 22_050, 32_000]
    assert usual["opus"] == [16_000, 24_000, 48_000]
    assert usual["pcm"] == [24_000] * 3  # what clients of OpenAI's API expect
    assert usual["ulaw"] == usual["alaw"] == [8_000] * 3
