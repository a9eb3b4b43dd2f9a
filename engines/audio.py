"""Encoded sound to samples. Decoding is FFmpeg's, through PyAV: https://pyav.basswood-io.com/."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from io import BytesIO
from itertools import groupby

import av
import numpy as np
from av.audio.fifo import AudioFifo
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.container import InputContainer
from numpy.typing import NDArray

from engines.errors import InvalidInput, NotDecodable, TooLarge
from engines.ffmpeg import limit_allocations
from engines.types import Audio

FORMATS = (
    "aac",
    "ac3",
    "aiff",
    "amr",
    "ape",
    "asf",
    "au",
    "avi",
    "caf",
    "eac3",
    "flac",
    "flv",
    "matroska",
    "mov",
    "mp3",
    "mpeg",
    "mpegts",
    "ogg",
    "tta",
    "w64",
    "wav",
    "wv",
)
"""Containers that are opened, by FFmpeg's names. None of them names another file or a network address."""

CODECS = (
    *("aac", "aac_latm", "ac3", "eac3", "dca", "alac", "ape", "flac", "tta", "wavpack"),
    *("mp1", "mp1float", "mp2", "mp2float", "mp3", "mp3float", "opus", "speex", "vorbis"),
    *("amrnb", "amrwb", "g722", "g726", "gsm", "gsm_ms", "wmav1", "wmav2", "wmapro", "wmalossless"),
    *("adpcm_ima_qt", "adpcm_ima_wav", "adpcm_ms", "adpcm_swf", "adpcm_yamaha"),
    *sorted(name for name in av.codecs_available if name.startswith("pcm_")),
)
"""Decoders that are run: of sound only, so that the pictures of a video are never decoded."""

OPENING = {
    "format_whitelist": ",".join(FORMATS),
    "codec_whitelist": ",".join(CODECS),
    "protocol_whitelist": "none",
    "probesize": "1000000",
}
"""The bytes are all that FFmpeg reads: no protocol is called "none". A megabyte tells the format."""

MOST_CHANNELS = 16
LEAST_RATE, MOST_RATE = 4_000, 384_000
"""Samples a second."""

MOST_CHANGES = 8
"""A filter is computed for each rate: a clip that changes it with every frame would be slow for ever."""

MOST_PACKETS = 1_000
"""For each second of sound. A small file can hold millions of packets with one sample or none."""

BLOCK = 16_384
"""Samples that are worked on together: a packet holds few."""

RESAMPLING = {"filter_size": "128", "cutoff": "0.96"}
"""Keeps 90 % of the band to 0.1 dB; what lies 2 % above it is more than 90 dB down."""

FRAME_SECONDS = 0.02
RELATIVE_LEVEL = 10 ** (-40 / 20)
LEAST_LEVEL = 10 ** (-60 / 20)
MARGIN_SECONDS = 0.1

limit_allocations()


def decode(data: bytes, rate: int, max_seconds: float) -> Audio:
    """The first track of sound as one channel, the mean of all, at `rate` samples a second.

    Samples outside -1..1 are clipped. Of a damaged or truncated file, what can be decoded counts, whatever
    its header claims.

    Raises NotDecodable for bytes that hold no sound of a known format, for samples that are no numbers, for
    more than MOST_CHANNELS channels, and for a rate outside LEAST_RATE..MOST_RATE or changing more than
    MOST_CHANGES times; TooLarge as soon as more than max_seconds are decoded.
    """
    try:
        with av.open(BytesIO(data), "r", container_options=OPENING, metadata_errors="ignore") as container:
            parts = list(_resampled(_limited(_frames(container), max_seconds), rate))
    except (av.FFmpegError, ValueError, OverflowError):
        raise NotDecodable(
            "the bytes are no sound of a known format (wav, flac, mp3, ogg, m4a, webm and others)"
        ) from None
    samples = np.concatenate([np.empty(0, np.float32), *parts])
    if not len(samples):
        raise NotDecodable("no samples can be decoded from the clip")
    return Audio(np.clip(samples, -1, 1), rate)


def _frames(container: InputContainer) -> Iterator[AudioFrame]:
    """Every frame that can be decoded; the rest of a file that cannot be read is left out."""
    if not container.streams.audio:
        raise NotDecodable("the bytes hold no track of sound")
    stream = container.streams.audio[0]
    codec = getattr(stream.codec_context, "name", "an unknown format")  # FFmpeg may have no decoder
    if codec not in CODECS:
        raise NotDecodable(f"the sound is encoded as {codec}, which is not read")
    packets, seconds = 0, 0.0
    with suppress(av.FFmpegError, IndexError):  # the file ends in the middle, or begins another stream there
        for packet in container.demux(stream):
            frames: list[AudioFrame] = []
            with suppress(av.FFmpegError):  # the packet is damaged
                frames = packet.decode()
            for frame in frames:
                yield frame
                seconds += frame.samples / frame.sample_rate
            packets += 1
            if packets > MOST_PACKETS * (1 + seconds):
                raise NotDecodable(f"the clip is damaged, or cut into over {MOST_PACKETS} packets a second")


def _limited(frames: Iterator[AudioFrame], max_seconds: float) -> Iterator[AudioFrame]:
    seconds, limit = Fraction(0), Fraction(max_seconds)
    for frame in frames:
        if not LEAST_RATE <= frame.sample_rate <= MOST_RATE:
            raise NotDecodable(
                f"the clip has {frame.sample_rate} samples a second; {LEAST_RATE} to {MOST_RATE} are read"
            )
        if not 1 <= frame.layout.nb_channels <= MOST_CHANNELS:
            raise NotDecodable(
                f"the clip has {frame.layout.nb_channels} channels; 1 to {MOST_CHANNELS} are read"
            )
        seconds += Fraction(frame.samples, frame.sample_rate)
        if seconds > limit:
            raise TooLarge(f"the clip is longer than the limit of {max_seconds:g} seconds")
        yield frame


def _resampled(frames: Iterator[AudioFrame], rate: int) -> Iterator[NDArray[np.float32]]:
    """One channel at `rate`. Some streams change on the way: each stretch has its own filter."""
    for change, ((source, _, _), stretch) in enumerate(groupby(frames, key=_kind)):
        if change > MOST_CHANGES:
            raise NotDecodable(f"the clip changes its rate or channels more than {MOST_CHANGES} times")
        blocks = _mono(stretch)
        yield from blocks if source == rate else _filtered(blocks, source, rate)


def _kind(frame: AudioFrame) -> tuple[int, str, str]:
    return frame.sample_rate, frame.layout.name, frame.format.name


def _mono(frames: Iterator[AudioFrame]) -> Iterator[NDArray[np.float32]]:
    """The mean of the channels, -1..1, of frames that are all of one kind.

    Interleaved first: PyAV miscounts the planes of frames with 8 channels and more.
    """
    interleaved = AudioResampler("flt")
    for block in _blocks(frames):
        for part in interleaved.resample(block):
            channels = part.layout.nb_channels
            values = part.to_ndarray().reshape(-1, channels)
            if not np.isfinite(values).all():
                raise NotDecodable("the clip holds samples that are not finite numbers")
            yield np.asarray(np.clip(values, -1, 1) @ np.full(channels, 1 / channels), np.float32)


def _blocks(frames: Iterator[AudioFrame]) -> Iterator[AudioFrame]:
    joined = AudioFifo()
    for frame in frames:
        frame.pts = None
        joined.write(frame)
        yield from joined.read_many(BLOCK)
    yield from joined.read_many(BLOCK, partial=True)


def _filtered(blocks: Iterable[NDArray[np.float32]], source: int, rate: int) -> Iterator[NDArray[np.float32]]:
    resampler = AudioResampler("flt", "mono", rate, options=RESAMPLING)
    for block in blocks:
        frame = AudioFrame.from_ndarray(block[None], format="flt", layout="mono")
        frame.sample_rate = source
        yield from (part.to_ndarray()[0] for part in resampler.resample(frame))
    yield from (part.to_ndarray()[0] for part in resampler.resample(None))


def speech(audio: Audio, least_seconds: float) -> Audio:
    """The clip without leading and trailing silence; a tenth of a second of it is kept at each end.

    Silent is a frame of 20 ms whose level is 40 dB below the loudest frame's, or below -60 dB of full
    scale. The level is the standard deviation, so a constant offset is silence.

    Raises InvalidInput, with the reason, when it is silent or less than least_seconds is left.
    """
    step = max(1, round(audio.rate * FRAME_SECONDS))
    levels = _levels(audio.samples, step)
    loud = np.flatnonzero(levels >= max(LEAST_LEVEL, RELATIVE_LEVEL * levels.max(initial=0)))
    if not len(loud):
        raise InvalidInput("the clip is silent: no part of it reaches -60 dB of full scale")
    first, last = int(loud[0]) * step, min((int(loud[-1]) + 1) * step, len(audio.samples))
    if (seconds := (last - first) / audio.rate) < least_seconds:
        raise InvalidInput(
            f"the clip holds {seconds:.2f} seconds of sound without its leading and trailing silence; "
            f"at least {least_seconds:g} are needed"
        )
    margin = round(audio.rate * MARGIN_SECONDS)
    return Audio(audio.samples[max(0, first - margin) : last + margin], audio.rate)


def _levels(samples: NDArray[np.float32], step: int) -> NDArray[np.float64]:
    """Standard deviation of each `step` samples; of what is left at the end, too."""
    if not len(samples):
        return np.empty(0)
    exact, starts = samples.astype(np.float64), np.arange(0, len(samples), step)
    counts = np.diff(starts, append=len(samples))
    means, squares = (np.add.reduceat(part, starts) / counts for part in (exact, exact**2))
    return np.asarray(np.sqrt(np.maximum(squares - means**2, 0)))
