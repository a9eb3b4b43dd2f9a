"""Decoding: every format and mode, upright, within the limit; damage is told, never raised as it comes."""

import random
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

from engines.errors import NotDecodable, TooLarge
from engines.image import FORMATS, UPRIGHT, decode
from engines.types import Image

WRITABLE = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
QUADRANTS = np.array(
    [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8
)  # red, green, blue, white


def picture(width: int = 64, height: int = 48) -> PIL.Image.Image:
    """Four quadrants of full colour, larger than any blur at their borders."""
    return PIL.Image.fromarray(QUADRANTS).resize((width, height), PIL.Image.Resampling.NEAREST)


def encoded(source: PIL.Image.Image, kind: str, **options: object) -> bytes:
    stream = BytesIO()
    source.save(stream, kind, **options)
    return stream.getvalue()


def oriented(orientation: int) -> PIL.Image.Exif:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    return exif


def corners(image: Image) -> NDArray[np.int64]:
    """Red, green, blue of the middles of the four quadrants, shape (2, 2, 3)."""
    height, width = image.shape[:2]
    rows, columns = [height // 4, height * 3 // 4], [width // 4, width * 3 // 4]
    return image[np.ix_(rows, columns)][..., ::-1].astype(np.int64)


def difference(one: Image, other: Image) -> float:
    assert one.shape == other.shape
    return float(np.abs(one.astype(int) - other).mean())


@pytest.fixture(scope="module")
def images(shared: Path) -> Path:
    return shared / "media/images"


@pytest.mark.parametrize("kind", WRITABLE)
def test_each_format_is_blue_green_red_and_contiguous(kind: str) -> None:
    image = decode(encoded(picture(), kind))
    assert image.shape == (48, 64, 3)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert image.flags.writeable
    assert np.abs(corners(image) - QUADRANTS).max() <= 12  # JPEG and AVIF are lossy


def test_the_formats_are_those_and_no_other() -> None:
    assert set(FORMATS) == set(WRITABLE)


@pytest.mark.parametrize("kind", ["EPS", "PDF", "PPM", "ICO", "TGA", "JPEG2000", "PCX"])
def test_other_formats_are_refused(kind: str) -> None:
    with pytest.raises(NotDecodable, match="no picture of a known format"):
        decode(encoded(picture(), kind))


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"])
def test_each_mode_of_pixels(mode: str) -> None:
    """A grey ramp keeps its order and its ends, whatever the file stores."""
    ramp = PIL.Image.fromarray(np.tile(np.linspace(0, 255, 64).astype(np.uint8), (8, 1)))
    if mode == "I;16":
        source = PIL.Image.fromarray(np.asarray(ramp).astype(np.uint16) * 257)
    else:
        source = ramp.convert("RGB").convert(mode) if mode in {"CMYK", "YCbCr", "P"} else ramp.convert(mode)
    image = decode(encoded(source, "TIFF"))
    assert image.shape == (8, 64, 3)
    row = image.mean(axis=(0, 2))
    assert row[0] <= 3
    assert row[-1] >= 252
    if mode not in {"1", "P"}:
        assert np.abs(row - np.linspace(0, 255, 64)).max() <= 3


@pytest.mark.parametrize("values", [[0, 256, 32768, 65535], [1, 300, 700, 1000]])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_by_its_range_not_clipped(kind: str, values: list[int]) -> None:
    grey = np.array([values], np.uint16)
    image = decode(encoded(PIL.Image.fromarray(grey), kind))
    assert image[0, :, 0].tolist() == [round(value / 257) for value in values]


def test_32_bit_grey_is_stretched_and_survives_not_a_number() -> None:
    grey = np.array([[-1.0, 0.0, np.nan, 1.0]], np.float32)
    assert decode(encoded(PIL.Image.fromarray(grey), "TIFF"))[0, :, 0].tolist() == [0, 127, 127, 255]
    flat = PIL.Image.fromarray(np.full((2, 2), 90, np.float32))
    assert (decode(encoded(flat, "TIFF")) == 90).all()


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "AVIF"])
def test_what_is_transparent_becomes_white(kind: str) -> None:
    source = PIL.Image.new("RGBA", (32, 16), (0, 0, 0, 255))
    source.paste((10, 20, 30, 0), (16, 0, 32, 16))
    options = {"lossless": True} if kind == "WEBP" else {}
    image = decode(encoded(source, kind, **options))
    assert image[8, 4].max() <= 6
    assert image[8, 28].min() >= 249


def test_half_transparent_is_half_white() -> None:
    image = decode(encoded(PIL.Image.new("RGBA", (4, 4), (0, 0, 0, 128)), "PNG"))
    assert np.abs(image.astype(int) - 127).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_palette_colour_becomes_white(kind: str) -> None:
    source = PIL.Image.new("P", (4, 4), 0)
    source.putpalette([200, 0, 0, 0, 0, 200])
    source.putpixel((0, 0), 1)
    image = decode(encoded(source, kind, transparency=0))
    assert image[0, 0].tolist() == [200, 0, 0]
    assert image[3, 3].tolist() == [255, 255, 255]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_of_several_frames_the_first_counts(kind: str) -> None:
    later = [PIL.Image.new("RGB", (64, 48), "black") for _ in range(3)]
    data = encoded(picture(), kind, save_all=True, append_images=later)
    assert np.abs(corners(decode(data)) - QUADRANTS).max() <= 12


@pytest.mark.parametrize("orientation", range(9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    undo = {6: 8, 8: 6}.get(orientation, orientation)  # how the camera held what stands upright
    source = picture() if undo not in UPRIGHT else picture().transpose(UPRIGHT[undo])
    exif = oriented(orientation)
    image = decode(encoded(source, kind, exif=exif))
    assert image.shape == (48, 64, 3)
    assert np.abs(corners(image) - QUADRANTS).max() <= 12


@pytest.mark.parametrize("name", ["Landscape_1", "Portrait_6"])
def test_photographs_of_every_orientation_look_the_same(images: Path, name: str) -> None:
    upright = decode((images / f"exif/{name}.jpg").read_bytes())
    same = sorted((images / "exif").glob(f"{name.split('_', maxsplit=1)[0]}_*.jpg"))
    assert len(same) >= 2
    for path in same:
        assert difference(decode(path.read_bytes()), upright) < 5, path.name
    assert difference(np.ascontiguousarray(upright[:, ::-1]), upright) > 20


def with_exif(exif: bytes) -> bytes:
    """A JPEG whose first segment is that."""
    plain = encoded(picture(), "JPEG")
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")  # that is what it is
@pytest.mark.parametrize("exif", [b"", b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0garbage!"])
def test_damaged_exif_does_not_fail_the_picture(exif: bytes) -> None:
    assert (decode(with_exif(exif)) == decode(encoded(picture(), "JPEG"))).all()


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_without_meaning_is_upright(value: int) -> None:
    data = encoded(picture(), "JPEG", exif=oriented(value))
    assert np.abs(corners(decode(data)) - QUADRANTS).max() <= 12


def test_an_orientation_of_another_type_is_upright() -> None:
    text = b"\x01\x12\0\x02\0\0\0\x04six\0"  # tag, ASCII, four characters
    data = with_exif(b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + text + b"\0\0\0\0")
    assert (decode(data) == decode(encoded(picture(), "JPEG"))).all()


@pytest.mark.parametrize("kind", WRITABLE)
def test_one_pixel(kind: str) -> None:
    image = decode(encoded(PIL.Image.new("RGB", (1, 1), (250, 0, 0)), kind))
    assert image.shape == (1, 1, 3)
    assert image[0, 0, 2] > 230


# The limit.


@pytest.mark.parametrize("kind", WRITABLE)
def test_the_limit_counts_pixels_and_tells_both_numbers(kind: str) -> None:
    data = encoded(picture(), kind)
    assert decode(data, max_pixels=64 * 48).shape == (48, 64, 3)
    with pytest.raises(TooLarge, match=r"64 x 48 = 3072 pixels; the limit is 3071 pixels"):
        decode(data, max_pixels=3071)


def test_a_bomb_is_refused_by_its_header(images: Path) -> None:
    """30000 x 30000 pixels would take 2.7 GB; the header alone is enough to refuse them."""
    data = (images / "broken/bomb_30000x30000.png").read_bytes()
    for given in (data, data[:64]):
        with pytest.raises(TooLarge, match=r"30000 x 30000 = 900000000 pixels; the limit is 50000000"):
            decode(given)


def test_a_limit_above_pillows_own_holds() -> None:
    """Pillow warns above 89 million pixels by itself."""
    data = encoded(PIL.Image.new("1", (10_000, 9_000)), "PNG")
    assert decode(data, max_pixels=90_000_000).shape == (9_000, 10_000, 3)


# Damage.

EXPECTED: dict[str, tuple[int, int] | type[Exception]] = {
    "animated.gif": (640, 512),
    "bitflips.jpg": NotDecodable,
    "bomb_30000x30000.png": TooLarge,
    "face.bmp": (640, 512),
    "face.gif": (640, 512),
    "face.png": (640, 512),
    "face.tiff": (640, 512),
    "face.webp": (640, 512),
    "face_40px.jpg": (40, 40),
    "face_blur.jpg": (640, 512),
    "face_cmyk.jpg": (640, 512),
    "face_dark.jpg": (640, 512),
    "face_exif3.jpg": (640, 512),
    "face_exif6.jpg": (640, 512),
    "face_exif8.jpg": (640, 512),
    "face_gray.jpg": (640, 512),
    "face_gray16.png": (640, 512),
    "face_ok.jpg": (640, 512),
    "face_rgba.png": (640, 512),
    "one_pixel.png": (1, 1),
    "png_named.jpg": (640, 512),
    "text_as.jpg": NotDecodable,
    "tiny_12x12.png": (12, 12),
    "truncated_half.jpg": NotDecodable,
    "truncated_header.jpg": NotDecodable,
    "zero_bytes.jpg": NotDecodable,
}


@pytest.mark.parametrize("name", EXPECTED)
def test_each_odd_file(images: Path, name: str) -> None:
    data, expected = (images / "broken" / name).read_bytes(), EXPECTED[name]
    if isinstance(expected, tuple):
        assert decode(data).shape == (*expected, 3)
        return
    with pytest.raises(expected) as told:
        decode(data)
    assert "/" not in str(told.value)
    assert "0x" not in str(told.value)


def test_every_odd_file_has_an_expectation(images: Path) -> None:
    assert {path.name for path in (images / "broken").iterdir()} == set(EXPECTED)


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("face_cmyk.jpg", 5),
        ("face_rgba.png", 5),
        ("face_exif3.jpg", 2),
        ("face_exif6.jpg", 2),
        ("face_exif8.jpg", 2),
    ]
    + [(f"face.{kind}", 5) for kind in ("bmp", "gif", "png", "tiff", "webp")],
)
def test_the_same_face_in_another_format_is_the_same_picture(images: Path, name: str, limit: float) -> None:
    face = decode((images / "broken/face_ok.jpg").read_bytes())
    assert difference(decode((images / "broken" / name).read_bytes()), face) < limit


def test_16_bit_grey_is_as_bright_as_8_bit_grey(images: Path) -> None:
    deep = decode((images / "broken/face_gray16.png").read_bytes())
    assert difference(deep, decode((images / "broken/face_gray.jpg").read_bytes())) < 5


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"x" * 5000, b"%!PS-Adobe-3.0\nshowpage", b"%PDF-1.7", b"\xff\xd8\xff"]
)
def test_what_is_no_picture(data: bytes) -> None:
    with pytest.raises(NotDecodable):
        decode(data)


SEEDS: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: encoded(picture(), "JPEG", exif=oriented(6)),
    "progressive": lambda: encoded(picture(), "JPEG", progressive=True),
    "cmyk": lambda: encoded(picture().convert("CMYK"), "JPEG"),
    "png": lambda: encoded(picture(), "PNG", exif=oriented(8)),
    "palette": lambda: encoded(picture().convert("P"), "PNG", transparency=0),
    "grey16": lambda: encoded(PIL.Image.fromarray(np.full((48, 64), 9000, np.uint16)), "PNG"),
    "webp": lambda: encoded(picture(), "WEBP", exif=oriented(3)),
    "webp lossless": lambda: encoded(picture().convert("RGBA"), "WEBP", lossless=True),
    "gif": lambda: encoded(picture(), "GIF", save_all=True, append_images=[picture().rotate(90)]),
    "bmp": lambda: encoded(picture(), "BMP"),
    "avif": lambda: encoded(picture(), "AVIF", exif=oriented(6)),
    "tiff": lambda: encoded(picture(), "TIFF"),
    "tiff lzw": lambda: encoded(picture(), "TIFF", compression="tiff_lzw"),
    "tiff jpeg": lambda: encoded(picture(), "TIFF", compression="jpeg"),
    "tiff float": lambda: encoded(picture().convert("F"), "TIFF"),
}


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Cut short, or a few bytes changed, more often near the header."""
    if chance.random() < 0.25:
        return data[: chance.randrange(len(data))]
    wrong = bytearray(data)
    for _ in range(chance.choice((1, 1, 3, 10))):
        reach = min(len(data), 300) if chance.random() < 0.7 else len(data)
        wrong[chance.randrange(reach)] = chance.choice((0, 1, 128, 255, chance.randrange(256)))
    return bytes(wrong)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns of odd metadata and reads on
@pytest.mark.parametrize("seed", SEEDS)
def test_damage_is_told_as_one_of_two_errors(seed: str) -> None:
    data, chance, refused = SEEDS[seed](), random.Random(seed), 0  # noqa: S311 - damage, not secrets
    assert sorted(decode(data).shape) == [3, 48, 64]
    for _ in range(200):
        try:
            image = decode(damaged(data, chance), max_pixels=1_000_000)
        except (NotDecodable, TooLarge):
            refused += 1
        else:
            assert image.ndim == 3
            assert image.dtype == np.uint8
    assert refused > 20


def test_many_threads_decode_at_once(images: Path) -> None:
    files = [path.read_bytes() for path in sorted((images / "broken").glob("face*"))]
    alone = [decode(data) for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(decode, files * 4))
    assert all((image == alone[i % len(files)]).all() for i, image in enumerate(together))
