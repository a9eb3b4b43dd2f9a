"""Encoded pictures to arrays. Decoding is Pillow's: https://pillow.readthedocs.io/."""

import struct
import zlib
from io import BytesIO

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL import (  # each registers its format here, so that Pillow never searches for one while it opens
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)
from PIL.ExifTags import Base
from PIL.Image import Transpose

from engines.errors import NotDecodable, TooLarge
from engines.types import Image

FORMATS = (
    JpegImagePlugin.JpegImageFile.format,
    PngImagePlugin.PngImageFile.format,
    WebPImagePlugin.WebPImageFile.format,
    GifImagePlugin.GifImageFile.format,
    BmpImagePlugin.BmpImageFile.format,
    TiffImagePlugin.TiffImageFile.format,
    AvifImagePlugin.AvifImageFile.format,
)
"""Formats that are opened. None of them runs another program."""

MAX_PIXELS = 50_000_000

FAILURES = (
    AssertionError,
    EOFError,
    LookupError,
    OSError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What Pillow's decoders raise for damaged files."""

UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
"""How to turn a picture, by its EXIF orientation (CIPA DC-008, tag 0x0112)."""

# Pillow refuses by a limit of its own, without telling the size; `decode` has a limit for each call.
PIL.Image.MAX_IMAGE_PIXELS = None


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> Image:
    """The picture upright, as its EXIF orientation says; of an animation its first frame.

    Transparency becomes white. Grey of 16 bits is scaled to 8; grey of 32 bits, which has no agreed white,
    is stretched from its darkest to its brightest value.

    Raises TooLarge when the header announces more than max_pixels, before any of them is decoded, and
    NotDecodable for bytes that are no picture of the known formats, or a damaged one.
    """
    try:
        with PIL.Image.open(BytesIO(data), formats=FORMATS) as opened:
            _limit(opened.size, max_pixels)
            opened.load()
            return _array(_upright(opened))
    except UnidentifiedImageError:
        names = ", ".join(str(name) for name in FORMATS)
        raise NotDecodable(f"the bytes are no picture of a known format ({names})") from None
    except FAILURES:
        raise NotDecodable("the picture is damaged or truncated") from None


def _limit(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise TooLarge(
            f"the picture has {width} x {height} = {width * height} pixels; the limit is {max_pixels} pixels"
        )


def _upright(picture: PIL.Image.Image) -> PIL.Image.Image:
    try:
        turn = UPRIGHT.get(picture.getexif().get(Base.Orientation, 1))
    except FAILURES:  # damaged EXIF says nothing about the pixels
        return picture
    return picture if turn is None else picture.transpose(turn)


def _array(picture: PIL.Image.Image) -> Image:
    if picture.mode.startswith("I;16"):
        return _bgr(np.rint(np.asarray(picture) / 257))
    if picture.mode in {"I", "F"}:
        return _bgr(_stretched(np.nan_to_num(np.asarray(picture, np.float32)).astype(np.float64)))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = PIL.Image.alpha_composite(PIL.Image.new("RGBA", picture.size, "white"), picture)
    rgb = picture if picture.mode == "RGB" else picture.convert("RGB")
    return np.asarray(cv2.cvtColor(np.asarray(rgb), cv2.COLOR_RGB2BGR), np.uint8)


def _stretched(grey: NDArray[np.float64]) -> NDArray[np.float64]:
    darkest, brightest = grey.min(), grey.max()
    if brightest == darkest:
        return np.clip(grey, 0, 255)
    return np.asarray((grey - darkest) / (brightest - darkest) * 255)


def _bgr(grey: NDArray[np.float64]) -> Image:
    return np.asarray(cv2.cvtColor(grey.astype(np.uint8), cv2.COLOR_GRAY2BGR), np.uint8)
