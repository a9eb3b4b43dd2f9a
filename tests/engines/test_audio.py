"""Decoding: every container and format of samples, one channel, band-limited; damage is told as it is."""

import socket
import tracemalloc
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.audio import MOST_CHANNELS, decode, speech
from engines.errors import InvalidInput, NotDecodable, TooLarge
from engines.types import Audio

RATE = 16_000
JFK_SECONDS = 11.0
SOUND = (
    *("bad_size_field.wav", "clipped.wav", "jfk_16k.flac", "jfk_16k.mp3", "jfk_16k.ogg", "jfk_22050.wav"),
    *("jfk_44100.wav", "jfk_48000.wav", "jfk_48k.opus", "jfk_8000.wav", "jfk_float32_16k.wav"),
    *("jfk_pcm16_16k.wav", "jfk_pcm24_16k.wav", "jfk_snr5.wav", "jfk_stereo_44100.wav", "jfk_u8_16k.wav"),
    "jfk_ulaw_16k.wav",
)
NO_SOUND = ("header_only.wav", "raw_pcm16_16k.pcm", "text_as.wav", "zero_bytes.wav", "nan_float32.wav")
OTHERS = ("noise_5s.wav", "one_sample.wav", "silence_5s.wav", "tone440_5s.wav", "truncated.wav")

# container, encoder, format of samples that the encoder takes
LOSSLESS = [
    *[("wav", f"pcm_{kind}", form) for kind, form in [("u8", "u8"), ("s16le", "s16"), ("s24le", "s32")]],
    *[("wav", f"pcm_{kind}", form) for kind, form in [("s32le", "s32"), ("f32le", "flt"), ("f64le", "dbl")]],
    *[("wav", "pcm_alaw", "s16"), ("wav", "pcm_mulaw", "s16"), ("wav", "adpcm_ms", "s16")],
    *[("aiff", "pcm_s16be", "s16"), ("caf", "pcm_s16le", "s16"), ("au", "pcm_s16be", "s16")],
    *[("flac", "flac", "s16"), ("flac", "flac", "s32"), ("ipod", "alac", "s16p"), ("wv", "wavpack", "fltp")],
    *[("tta", "tta", "s16"), ("matroska", "pcm_f32le", "flt"), ("w64", "pcm_s16le", "s16")],
]
LOSSY = [
    *[
        ("mp3", "libmp3lame", "fltp"),
        ("ipod", "aac", "fltp"),
        ("mp4", "aac", "fltp"),
        ("adts", "aac", "fltp"),
    ],
    *[
        ("ogg", "libopus", "flt"),
        ("webm", "libopus", "flt"),
        ("mpegts", "aac", "fltp"),
        ("mp2", "mp2", "s16"),
    ],
    *[("asf", "wmav2", "fltp"), ("ac3", "ac3", "fltp"), ("flv", "aac", "fltp")],
]


def tone(hertz: float, seconds: float = 1.0, rate: int = 48_000, level: float = 0.5) -> NDArray[np.float32]:
    """Shape (1, n)."""
    time = np.arange(round(seconds * rate)) / rate
    return (level * np.sin(2 * np.pi * hertz * time)).astype(np.float32)[None]


def encoded(
    channels: NDArray[np.float32],
    container: str = "wav",
    codec: str = "pcm_f32le",
    form: str = "flt",
    rate: int = 48_000,
    layout: str | None = None,
) -> bytes:
    """A file of that sound. channels: shape (channels, n)."""
    layout = layout or {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1", 16: "hexadecagonal"}[len(channels)]
    file = BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, format=form, layout=layout, bit_rate=128_000)
        add(output, stream, channels, rate, layout)
    return file.getvalue()


def add(output: Any, stream: Any, channels: NDArray[np.float32], rate: int, layout: str) -> None:
    """Encodes and muxes one stretch of sound, interleaved: PyAV miscounts the planes of 8 channels."""
    samples = np.ascontiguousarray(channels.T).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(samples, format="flt", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    for part in (frame, None):
        output.mux(stream.encode(part))


def level(audio: Audio) -> float:
    """Amplitude of a tone, away from the ends where filters swing in."""
    middle = audio.samples[len(audio.samples) // 4 : -len(audio.samples) // 4]
    return float(np.sqrt(2 * np.mean(middle.astype(np.float64) ** 2)))


def likeness(one: Audio, other: Audio) -> float:
    """Correlation of two clips that should be the same at the same time."""
    length = min(len(one.samples), len(other.samples))
    return float(np.corrcoef(one.samples[:length], other.samples[:length])[0, 1])


@pytest.fixture(scope="module")
def edge_cases(shared: Path) -> Path:
    return shared / "media/audio/edge_cases"


@pytest.fixture(scope="module")
def jfk(edge_cases: Path) -> Audio:
    return decode((edge_cases / "jfk_pcm16_16k.wav").read_bytes(), RATE, 60)


@pytest.mark.parametrize("name", SOUND)
def test_each_real_file_is_the_same_speech(edge_cases: Path, jfk: Audio, name: str) -> None:
    clip = decode((edge_cases / name).read_bytes(), RATE, 60)
    assert clip.rate == RATE
    assert clip.samples.dtype == np.float32
    assert clip.samples.ndim == 1
    assert clip.seconds == pytest.approx(JFK_SECONDS, abs=0.05)
    assert np.abs(clip.samples).max() <= 1
    least = {"jfk_snr5.wav": 0.85, "jfk_8000.wav": 0.97, "clipped.wav": 0.7}.get(name, 0.985)
    assert likeness(clip, jfk) > least


@pytest.mark.parametrize("name", NO_SOUND)
def test_what_is_no_sound_is_refused(edge_cases: Path, name: str) -> None:
    with pytest.raises(NotDecodable):
        decode((edge_cases / name).read_bytes(), RATE, 60)


def test_every_file_of_the_folder_is_tested(edge_cases: Path) -> None:
    assert {path.name for path in edge_cases.iterdir()} == {*SOUND, *NO_SOUND, *OTHERS}


def test_a_truncated_file_counts_as_far_as_it_goes(edge_cases: Path, jfk: Audio) -> None:
    clip = decode((edge_cases / "truncated.wav").read_bytes(), RATE, 60)
    assert clip.seconds == pytest.approx(JFK_SECONDS / 2, abs=0.01)
    assert likeness(clip, jfk) > 0.999


@pytest.mark.parametrize("name", ["jfk_16k.flac", "jfk_16k.mp3", "jfk_16k.ogg", "jfk_48k.opus"])
@pytest.mark.parametrize("part", [0.3, 0.77])
def test_truncated_in_any_codec(edge_cases: Path, jfk: Audio, name: str, part: float) -> None:
    data = (edge_cases / name).read_bytes()
    clip = decode(data[: int(len(data) * part)], RATE, 60)
    assert clip.seconds == pytest.approx(JFK_SECONDS * part, abs=1.5)
    assert likeness(clip, jfk) > 0.98


def test_one_sample_is_a_clip_of_one_sample(edge_cases: Path) -> None:
    assert len(decode((edge_cases / "one_sample.wav").read_bytes(), RATE, 60).samples) == 1


@pytest.mark.parametrize(("container", "codec", "form"), LOSSLESS)
def test_lossless_formats_keep_the_tone(container: str, codec: str, form: str) -> None:
    clip = decode(encoded(tone(440), container, codec, form), 48_000, 60)
    assert clip.seconds == pytest.approx(1, abs=0.05)
    rough = codec in {"pcm_alaw", "pcm_mulaw", "pcm_u8", "adpcm_ms"}
    error = clip.samples[:40_000] - tone(440)[0, :40_000]
    assert np.sqrt(np.mean(error**2)) < (0.02 if rough else 1e-4)


@pytest.mark.parametrize(("container", "codec", "form"), LOSSY)
def test_lossy_formats_keep_the_tone(container: str, codec: str, form: str) -> None:
    clip = decode(encoded(np.repeat(tone(440), 2, axis=0), container, codec, form), RATE, 60)
    assert clip.seconds == pytest.approx(1, abs=0.1)
    assert level(clip) == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("source", [22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000])
def test_resampling_keeps_the_band_and_nothing_above_it(source: int, rate: int) -> None:
    """Tones to 90 % of half the rate survive; from 3 % above it they are 80 dB down."""
    half = rate / 2
    for hertz in (100.0, 0.5 * half, 0.9 * half):
        if hertz < 0.45 * source:
            assert level(decode(encoded(tone(hertz, rate=source), rate=source), rate, 60)) == pytest.approx(
                0.5, rel=0.02
            )
    for hertz in (1.03 * half, 1.2 * half, 1.5 * half, 1.9 * half):
        if hertz < 0.49 * source and rate < source:
            assert level(decode(encoded(tone(hertz, rate=source), rate=source), rate, 60)) < 0.5e-4


@pytest.mark.parametrize("source", [8_000, 11_025, 44_100, 48_000])
def test_resampling_moves_nothing_in_time(source: int) -> None:
    clip = decode(encoded(tone(300, rate=source), rate=source), RATE, 60)
    assert len(clip.samples) == RATE
    inner = slice(2_000, -2_000)
    assert np.abs(clip.samples[inner] - tone(300, rate=RATE)[0, inner]).max() < 1e-3


@pytest.mark.parametrize(
    ("container", "codec", "form", "channels"),
    [
        *[("wav", "pcm_s16le", "s16", channels) for channels in (2, 6, 8, 16)],
        *[("wav", "pcm_f32le", "flt", channels) for channels in (2, 6, 8, 16)],
        *[("ogg", "flac", "s16", channels) for channels in (2, 6, 8)],
        *[("wv", "wavpack", "fltp", channels) for channels in (2, 6, 8, 16)],
    ],
)
def test_channels_are_averaged(container: str, codec: str, form: str, channels: int) -> None:
    same = encoded(np.repeat(tone(440), channels, axis=0), container, codec, form)
    assert level(decode(same, RATE, 60)) == pytest.approx(0.5, rel=0.01)
    one = np.zeros((channels, 48_000), np.float32)
    one[0] = tone(440)
    assert level(decode(encoded(one, container, codec, form), RATE, 60)) == pytest.approx(
        0.5 / channels, rel=0.01
    )


def test_samples_outside_the_range_are_clipped() -> None:
    clip = decode(encoded(tone(440, level=7.0)), RATE, 60)
    assert np.abs(clip.samples).max() == 1
    assert decode(encoded(np.full((1, 4800), 3e38, np.float32)), RATE, 60).samples.max() == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_refused(value: float) -> None:
    samples = tone(440)
    samples[0, 30_000] = value
    with pytest.raises(NotDecodable, match="not finite"):
        decode(encoded(samples), RATE, 60)


def test_the_limit_of_seconds_is_inclusive() -> None:
    data = encoded(tone(440, seconds=2, rate=44_100), rate=44_100)
    assert decode(data, RATE, 2).seconds == pytest.approx(2, abs=1e-3)
    with pytest.raises(TooLarge, match=r"longer than the limit of 1\.99 seconds"):
        decode(data, RATE, 1.99)


def test_an_hour_in_a_small_file_is_never_held_in_memory() -> None:
    data = encoded(np.zeros((1, 3_600 * 4_000), np.float32), "flac", "flac", "s16", 4_000)
    assert len(data) < 1_000_000
    tracemalloc.start()
    with pytest.raises(TooLarge):
        decode(data, RATE, 60)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60 * RATE * 4 * 3


def test_a_header_that_claims_ten_hours_is_not_believed(edge_cases: Path) -> None:
    data = bytearray((edge_cases / "jfk_pcm16_16k.wav").read_bytes()[:32_044])
    data[40:44] = (10 * 3_600 * 32_000).to_bytes(4, "little")
    assert decode(bytes(data), RATE, 60).seconds == pytest.approx(1)


def test_absurd_channels_and_rates_are_refused(edge_cases: Path) -> None:
    data = (edge_cases / "jfk_pcm16_16k.wav").read_bytes()
    for channels in (MOST_CHANNELS + 1, 255):
        with pytest.raises(NotDecodable, match=f"{channels} channels"):
            decode(data[:22] + channels.to_bytes(2, "little") + data[24:], RATE, 60)
    for rate in (1, 3_999, 384_001, 2**31 - 1):
        with pytest.raises(NotDecodable, match=f"{rate} samples a second"):
            decode(data[:24] + rate.to_bytes(4, "little") + data[28:], RATE, 60)


def test_a_stream_may_change_its_rate_but_not_for_ever() -> None:
    one, other = (
        encoded(tone(440, rate=rate), "mp3", "libmp3lame", "fltp", rate) for rate in (44_100, 48_000)
    )
    joined = decode(one + other, RATE, 60)
    assert joined.seconds == pytest.approx(2, abs=0.2)
    for part in (joined.samples[: RATE // 2], joined.samples[-RATE // 2 :]):
        assert level(Audio(part, RATE)) == pytest.approx(0.5, rel=0.05)
    with pytest.raises(NotDecodable, match="changes its rate"):
        decode((one + other) * 6, RATE, 60)


def adts(length: int) -> bytes:
    """An AAC packet of that many bytes, mono at 16 kHz, whose content is zeros."""
    header = bytearray(b"\xff\xf1\x60\x40\x00\x1f\xfc")
    header[4], header[5] = length >> 3, (length & 7) << 5 | 0x1F
    return bytes(header) + bytes(length - 7)


def chopped(channels: NDArray[np.float32], samples: int) -> bytes:
    """That sound with so many samples a packet."""
    file = BytesIO()
    with av.open(file, "w", format="matroska") as output:
        stream: Any = output.add_stream("pcm_f32le", rate=RATE, layout="mono")
        for start in range(0, channels.shape[1], samples):
            part = np.ascontiguousarray(channels[:, start : start + samples])
            frame = av.AudioFrame.from_ndarray(part, format="flt", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
            output.mux(stream.encode(frame))
    return file.getvalue()


MANY_PACKETS = {
    "without a sample, AMR": b"#!AMR\n" + b"\x7c" * 50_000,
    "without a sample, AAC": adts(9) * 5_000,
    "without a sample, behind sound": encoded(tone(440), "adts", "aac", "fltp") + adts(8) * 50_000,
    "of eight samples": chopped(tone(440, 2, RATE), 8),
}


@pytest.mark.parametrize("data", MANY_PACKETS.values(), ids=MANY_PACKETS)
def test_millions_of_tiny_packets_are_not_all_tried(data: bytes) -> None:
    with pytest.raises(NotDecodable, match="packets a second"):
        decode(data, RATE, 60)


def test_short_packets_are_no_damage() -> None:
    clip = decode(chopped(tone(440, 2, RATE), 40), RATE, 60)
    assert np.array_equal(clip.samples, tone(440, 2, RATE)[0])


def video(sounds: Sequence[NDArray[np.float32]]) -> bytes:
    """A film of two grey seconds with those tracks of sound."""
    file = BytesIO()
    with av.open(file, "w", format="mp4") as output:
        pictures = output.add_stream("mpeg4", rate=10, width=64, height=48, pix_fmt="yuv420p")
        tracks = [output.add_stream("aac", rate=48_000, format="fltp", layout="mono") for _ in sounds]
        for index in range(20):
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8), format="rgb24")
            picture.pts, picture.time_base = index, Fraction(1, 10)
            output.mux(pictures.encode(picture))
        output.mux(pictures.encode(None))
        for track, sound in zip(tracks, sounds, strict=True):
            add(output, track, sound, 48_000, "mono")
    return file.getvalue()


def test_of_a_film_the_first_track_of_sound_counts() -> None:
    clip = decode(video([tone(440, 2, level=0.5), tone(440, 2, level=0.1)]), RATE, 60)
    assert clip.seconds == pytest.approx(2, abs=0.1)
    assert level(clip) == pytest.approx(0.5, rel=0.05)


def test_a_film_without_sound_is_refused() -> None:
    with pytest.raises(NotDecodable, match="no track of sound"):
        decode(video([]), RATE, 60)


def test_a_codec_that_is_not_known_is_refused() -> None:
    with pytest.raises(NotDecodable, match="nellymoser"):
        decode(encoded(tone(440, rate=16_000), "flv", "nellymoser", "flt", 16_000), RATE, 60)


@pytest.fixture
def server() -> Iterator[tuple[int, list[bytes]]]:
    """A port of this machine, and what was sent to it."""
    heard: list[bytes] = []

    def listen() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                heard.append(connection.recv(1024))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=listen)
        thread.start()
        yield listener.getsockname()[1], heard
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


HOSTILE = {
    "concat": "ffconcat version 1.0\nfile {name}\n",
    "concat with a path": "ffconcat version 1.0\nfile '{path}'\n",
    "HLS of a file": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{path}\n#EXT-X-ENDLIST\n",
    "HLS of an address": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{url}a.ts\n#EXT-X-ENDLIST\n",
    "SDP": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio {port} RTP/AVP 0\n",
    "DASH": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{url}</BaseURL></MPD>',
    "M3U": "{path}\n{url}a.wav\n",
    "a path": "{path}",
    "an address": "{url}a.wav",
}


@pytest.mark.parametrize("script", HOSTILE.values(), ids=HOSTILE)
def test_no_bytes_make_it_open_another_file_or_address(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: tuple[int, list[bytes]]
) -> None:
    port, heard = server
    path = tmp_path / "secret.wav"
    path.write_bytes(encoded(tone(440)))
    monkeypatch.chdir(tmp_path)
    url = f"http://127.0.0.1:{port}/"
    with pytest.raises(NotDecodable):
        decode(script.format(name=path.name, path=path, url=url, port=port).encode(), RATE, 60)
    assert heard == []


def test_without_the_whitelists_a_script_does_open_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the test above is about: FFmpeg as it comes reads the neighbour file."""
    (tmp_path / "secret.wav").write_bytes(encoded(tone(440)))
    monkeypatch.chdir(tmp_path)
    script = HOSTILE["concat"].format(name="secret.wav").encode()
    with av.open(BytesIO(script), "r") as container:
        assert container.format.name == "concat"
        assert sum(frame.samples for frame in container.decode(audio=0)) == 48_000


def test_damage_writes_nothing_to_the_logs(
    edge_cases: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    data = bytearray((edge_cases / "jfk_16k.mp3").read_bytes())
    data[5_000::37] = bytes(len(data[5_000::37]))
    decode(bytes(data), RATE, 60)
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
    assert caplog.records == []


def test_threads_decode_at_the_same_time(edge_cases: Path) -> None:
    data = [(edge_cases / name).read_bytes() for name in ("jfk_16k.mp3", "jfk_44100.wav", "jfk_48k.opus")]
    alone = [decode(one, RATE, 60).samples for one in data]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda one: decode(one, RATE, 60).samples, data * 4))
    assert all(np.array_equal(clip, alone[index % 3]) for index, clip in enumerate(together))


@settings(max_examples=250, deadline=None, database=None)
@given(
    name=st.sampled_from([*SOUND, *OTHERS]),
    keep=st.floats(0, 1),
    damage=st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.binary(max_size=8)), max_size=12),
)
def test_any_damage_gives_a_clip_or_an_error_of_the_tree(
    name: str, keep: float, damage: list[tuple[float, bool, bytes]], shared: Path
) -> None:
    """Half of the damage falls into the first 200 bytes, where headers are."""
    data = bytearray((shared / "media/audio/edge_cases" / name).read_bytes())
    for place, header, content in damage:
        start = int(place * (200 if header else len(data)))
        data[start : start + len(content)] = content
    try:
        clip = decode(bytes(data[: int(keep * len(data)) if keep < 0.9 else len(data)]), RATE, 20)
    except (NotDecodable, TooLarge):
        return
    assert 0 < clip.seconds <= 20.01
    assert np.isfinite(clip.samples).all()
    assert np.abs(clip.samples).max() <= 1


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=600))
def test_random_bytes_give_an_error_of_the_tree_or_sound(data: bytes) -> None:
    with suppress(NotDecodable, TooLarge):
        assert len(decode(data, RATE, 20).samples)


def clip_of(*parts: tuple[float, float]) -> Audio:
    """A clip of tones. parts: seconds and level of each."""
    return Audio(
        np.concatenate([tone(300, seconds, RATE, level)[0] for seconds, level in parts]).astype(np.float32),
        RATE,
    )


def test_silence_at_the_ends_is_cut_off_but_for_a_margin() -> None:
    kept = speech(clip_of((1.0, 0.0), (0.8, 0.5), (0.5, 0.0), (0.7, 0.5), (2.0, 0.001)), 0.5)
    assert kept.seconds == pytest.approx(0.1 + 2.0 + 0.1, abs=0.03)
    assert kept.rate == RATE
    assert np.abs(kept.samples[: int(0.07 * RATE)]).max() == 0
    assert np.abs(kept.samples[int(0.15 * RATE) :]).max() > 0.4


def test_a_clip_without_silence_is_kept_whole(jfk: Audio) -> None:
    clip = clip_of((1.0, 0.3))
    assert np.array_equal(speech(clip, 1.0).samples, clip.samples)
    assert speech(jfk, 1.0).seconds > 10


def test_a_quiet_recording_is_no_silence(jfk: Audio) -> None:
    quiet = Audio(jfk.samples * np.float32(0.01), RATE)
    assert speech(quiet, 1.0).seconds == pytest.approx(speech(jfk, 1.0).seconds, abs=1.0)


@pytest.mark.parametrize("samples", [np.zeros(RATE), np.full(RATE, 0.4), np.zeros(0), np.full(RATE, 1e-4)])
def test_silence_is_refused_even_with_an_offset(samples: NDArray[np.float64]) -> None:
    with pytest.raises(InvalidInput, match="silent"):
        speech(Audio(samples.astype(np.float32), RATE), 0.5)


def test_too_little_sound_is_refused_with_its_length() -> None:
    with pytest.raises(InvalidInput, match=r"0\.30 seconds of sound .* at least 0\.5"):
        speech(clip_of((1.0, 0.0), (0.3, 0.5), (1.0, 0.0)), 0.5)


@pytest.mark.parametrize("name", ["silence_5s.wav", "one_sample.wav"])
def test_real_silence_is_refused(edge_cases: Path, name: str) -> None:
    with pytest.raises(InvalidInput):
        speech(decode((edge_cases / name).read_bytes(), RATE, 60), 0.5)


@given(st.lists(st.floats(-1, 1, width=32), max_size=400), st.sampled_from([50, 8_000, 48_000]))
def test_any_clip_is_shortened_or_refused(values: list[float], rate: int) -> None:
    audio = Audio(np.array(values, np.float32), rate)
    try:
        kept = speech(audio, 0.001)
    except InvalidInput:
        return
    assert 0 < len(kept.samples) <= len(values)
