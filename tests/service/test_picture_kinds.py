"""One photograph in every kind of file: over HTTP each shows the same face at the same place."""

import base64
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import Base

from engines.image import UPRIGHT
from tests.service.test_face_api import post

pytestmark = pytest.mark.service


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    written = BytesIO()
    picture.save(written, kind, **options)
    return written.getvalue()


def held(picture: Image.Image, orientation: int) -> bytes:
    """A JPEG of a camera that was held so, and says so."""
    undo = {6: 8, 8: 6}.get(orientation, orientation)
    exif = Image.Exif()
    exif[Base.Orientation] = orientation
    return saved(picture.transpose(UPRIGHT[undo]), "JPEG", quality=95, exif=exif)


def deep(picture: Image.Image, kind: str, mode: str) -> bytes:
    """16 bits for each value of a pixel. mode: L, RGB or RGBA."""
    values = np.asarray(picture.convert(mode)).astype(np.uint16) * 257
    if mode != "L":
        values[..., :3] = values[..., 2::-1]  # OpenCV writes blue first
    return cv2.imencode(f".{kind}", values)[1].tobytes()


def moving(picture: Image.Image, kind: str) -> bytes:
    """An animation whose later frames show nobody."""
    black = Image.new("RGB", picture.size)
    return saved(picture, kind, save_all=True, append_images=[black, black], duration=100)


def palette(picture: Image.Image) -> bytes:
    """A PNG of 255 colours and a transparent one, which is its border."""
    few = picture.quantize(255)
    few.paste(255, (0, 0, few.width, 20))
    return saved(few, "PNG", transparency=255)


KINDS: dict[str, Callable[[Image.Image], bytes]] = {
    **{f"exif {number}": partial(held, orientation=number) for number in UPRIGHT},
    **{f"moving {kind}": partial(moving, kind=kind) for kind in ("GIF", "WEBP", "PNG")},
    "16-bit grey PNG": lambda one: deep(one, "png", "L"),
    "16-bit grey TIFF": lambda one: deep(one, "tiff", "L"),
    "16-bit colour PNG": lambda one: deep(one, "png", "RGB"),
    "16-bit colour and alpha PNG": lambda one: deep(one, "png", "RGBA"),
    "CMYK JPEG": lambda one: saved(one.convert("CMYK"), "JPEG", quality=95),
    "CMYK TIFF": lambda one: saved(one.convert("CMYK"), "TIFF"),
    "grey JPEG": lambda one: saved(one.convert("L"), "JPEG", quality=95),
    "grey and alpha PNG": lambda one: saved(one.convert("LA"), "PNG"),
    "palette with transparency PNG": palette,
    "progressive JPEG": lambda one: saved(one, "JPEG", quality=95, progressive=True),
    "AVIF": lambda one: saved(one, "AVIF", quality=90),
}


@pytest.fixture(scope="module")
def photograph(shared: Path) -> Image.Image:
    """One person, 512 x 640 pixels, all of them opaque."""
    with Image.open(shared / "media" / "images" / "broken" / "face_ok.jpg") as opened:
        return opened.convert("RGB")


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_face_is_at_the_same_place(client: httpx.Client, photograph: Image.Image, kind: str) -> None:
    plain, given = (
        base64.b64encode(data).decode() for data in (saved(photograph, "PNG"), KINDS[kind](photograph))
    )
    told = post(client, "/v1/face/verify", model="mini", img1=plain, img2=given)
    areas = [list(told[name].values()) for name in ("img1_area", "img2_area")]
    assert areas[1] == pytest.approx(areas[0], abs=6)
    assert told["distance"] < told["threshold"] / 4
    assert len(post(client, "/v1/detection", model="mini", image=given)["detections"]) == 1
