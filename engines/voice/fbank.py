"""Kaldi's log mel filter banks, as speaker networks were trained on them.

Sources: https://kaldi-asr.org/doc/feat.html, https://github.com/csukuangfj/kaldi-native-fbank.
"""

from dataclasses import dataclass

import kaldi_native_fbank
import numpy as np
from numpy.typing import NDArray

from engines.types import Audio
from engines.voice import RATE


@dataclass(frozen=True, slots=True)
class Fbank:
    """How features are computed.

    scale: what samples of -1..1 are multiplied by. window: povey or hamming. bins: mel bands from 20 Hz up.
    length_ms, shift_ms: of a frame, and from one to the next. cmn: each band's mean over the clip is removed.
    """

    scale: float
    window: str
    bins: int = 80
    length_ms: float = 25.0
    shift_ms: float = 10.0
    cmn: bool = True

    def features(self, clip: Audio) -> NDArray[np.float32]:
        """Shape (frames, bins), natural logarithms. clip: at RATE, at least one frame long."""
        computed = kaldi_native_fbank.OnlineFbank(self._options())
        computed.accept_waveform(RATE, clip.samples * np.float32(self.scale))
        computed.input_finished()
        rows = np.stack([computed.get_frame(index) for index in range(computed.num_frames_ready)])
        return np.asarray(rows - rows.mean(axis=0) if self.cmn else rows, np.float32)

    def _options(self) -> kaldi_native_fbank.FbankOptions:
        options = kaldi_native_fbank.FbankOptions()
        frames = options.frame_opts
        frames.samp_freq, frames.dither, frames.window_type = RATE, 0.0, self.window
        frames.frame_length_ms, frames.frame_shift_ms = self.length_ms, self.shift_ms
        options.mel_opts.num_bins = self.bins
        return options
