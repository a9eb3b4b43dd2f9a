"""Encoded sound to samples."""

from engines.types import Audio


def decode(data: bytes, rate: int, max_seconds: float) -> Audio:
    """One channel at `rate` from any container that FFmpeg reads.

    Raises NotDecodable for bytes that hold no sound, TooLarge for a clip longer than max_seconds.
    """
    raise NotImplementedError


def speech(audio: Audio, least_seconds: float) -> Audio:
    """The clip without leading and trailing silence.

    Raises InvalidInput, with the reason, when it is silent or less than least_seconds is left.
    """
    raise NotImplementedError
