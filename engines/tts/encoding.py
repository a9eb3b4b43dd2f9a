"""Samples to encoded sound, as they come. Encoding is FFmpeg's, through PyAV: https://pyav.basswood-io.com/."""

from io import BytesIO

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from numpy.typing import NDArray

from engines.audio import RESAMPLING
from engines.tts.formats import Target

OPTIONS = {"fflags": "bitexact+flush_packets"}
"""No name of the library in the file, so that a WAV header has 44 bytes; nothing waits in a buffer."""

MUXER_OPTIONS = {
    "ogg": {"page_duration": "200000"},  # microseconds; a second would delay the first bytes
    "flac": {"metadata_header_padding": "0"},  # 8 KB of nothing would stand before the sound
}


class _Pipe:
    """Takes what a muxer writes. It cannot seek, so headers stay as they are first written."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def write(self, data: bytes) -> int:
        self._bytes += data
        return len(data)

    def take(self) -> bytes:
        """What was written since the last time."""
        taken = bytes(self._bytes)
        self._bytes.clear()
        return taken


class Encoder:
    """One file or stream: feed samples, then finish.

    target: what to make. rate: samples a second of what is fed. whole: hold everything back until the end,
    so that headers tell the true length; without it, each call returns what is ready, and a WAV header claims
    0xFFFFFFFF bytes, the most that it can. Not for use by two threads at once.
    """

    def __init__(self, target: Target, rate: int, whole: bool = False) -> None:
        self.target = target
        self.rate = target.rate(rate)
        self._source = rate
        self._file: BytesIO | _Pipe = BytesIO() if whole else _Pipe()
        muxer = target.format.container
        options = OPTIONS | MUXER_OPTIONS.get(muxer, {})
        self._container = av.open(self._file, "w", format=muxer, options=options)
        stream = self._container.add_stream(target.format.codec, rate=self.rate, layout="mono")
        if not isinstance(stream, AudioStream):
            raise TypeError(f"{target.format.codec} is no codec of sound")
        if bits := target.bits(self.rate):
            stream.bit_rate = bits
        self._stream = stream
        self._resampler = AudioResampler("flt", "mono", self.rate, options=RESAMPLING)
        self._container.start_encoding()

    def feed(self, samples: NDArray[np.float32]) -> bytes:
        """What can be written once these samples are known; often nothing.

        samples: shape (n,), clipped to -1..1; what is no number is silence.
        """
        if len(samples):
            self._encode(np.clip(np.nan_to_num(samples, posinf=1, neginf=-1), -1, 1))
        return self._taken()

    def finish(self) -> bytes:
        """The rest, or with `whole` all of it. The encoder is of no further use."""
        if self._source != self.rate:
            for part in self._resampler.resample(None):
                self._mux(part)
        self._mux(None)
        self._container.close()
        return self._file.getvalue() if isinstance(self._file, BytesIO) else self._file.take()

    def _taken(self) -> bytes:
        return b"" if isinstance(self._file, BytesIO) else self._file.take()

    def _encode(self, samples: NDArray[np.float32]) -> None:
        frame = AudioFrame.from_ndarray(np.asarray(samples, np.float32)[None], format="flt", layout="mono")
        frame.sample_rate = self._source
        if self._source == self.rate:
            self._mux(frame)
            return
        for part in self._resampler.resample(frame):
            self._mux(part)

    def _mux(self, frame: AudioFrame | None) -> None:
        """Encodes a frame, None for what is still inside the codec."""
        if frame is not None:
            frame.pts = None  # the codec counts the samples itself
        for packet in self._stream.encode(frame):
            self._container.mux(packet)
