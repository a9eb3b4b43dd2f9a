"""Base64 and data URIs: what is read, and what is refused."""

import base64
import math
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import InvalidInput, TooLarge
from graphs.media import MAX_ESCAPES, MediaReader, MediaRules

MAX_BYTES = 1000


@pytest.fixture(scope="module")
def offline() -> MediaReader:
    return MediaReader(MediaRules(max_bytes=MAX_BYTES))


@st.composite
def written_as_base64(draw: st.DrawFn) -> tuple[bytes, str]:
    """Bytes, and their base64 in either alphabet, padded or not, in one line or folded."""
    data = draw(st.binary(min_size=1, max_size=300))
    encode = draw(st.sampled_from([base64.b64encode, base64.urlsafe_b64encode]))
    text = encode(data).decode().rstrip("=" if draw(st.booleans()) else "")
    width = draw(st.integers(1, 80))
    end = draw(st.sampled_from(["", "\n", "\r\n", " ", "\t"]))
    return data, end.join(text[i : i + width] for i in range(0, len(text), width))


@given(
    written=written_as_base64(),
    prefix=st.sampled_from(
        ["", "data:;base64,", "DATA:image/png;name=x;Base64,", "data:a/b;codecs=opus; base64 ,"]
    ),
)
async def test_base64_in_every_dress(offline: MediaReader, written: tuple[bytes, str], prefix: str) -> None:
    data, text = written
    assert await offline.read(prefix + text, "img", math.inf) == data


@given(data=st.binary(min_size=1, max_size=300), header=st.sampled_from(["", "text/plain", "image/png;a=b"]))
async def test_percent_encoded_data(offline: MediaReader, data: bytes, header: str) -> None:
    assert await offline.read(f"data:{header},{quote_from_bytes(data)}", "img", math.inf) == data


async def test_percent_encoded_base64(offline: MediaReader) -> None:
    assert await offline.read("data:image/png;base64,%2B%2F8%3D", "img", math.inf) == b"\xfb\xff"


@given(text=st.text(max_size=200))
async def test_any_text_is_read_or_refused_in_words(offline: MediaReader, text: str) -> None:
    for value in (text, f"data:{text}", f"data:;base64,{text}"):
        try:
            assert await offline.read(value, "img", math.inf)
        except (InvalidInput, TooLarge) as error:
            message = error.message
        else:
            message = "img: read"
        assert message.startswith("img: ")


@pytest.mark.parametrize(
    "value",
    [
        "", " \n", "=", "====", "data:,", "data:image/png;base64,", "data:image/png;base64,===",
        "A", "AAAAA", "AA=", "AAA==", "AAAA=", "AA==AA==", "=AAA", "AA=A", "A!AA", "A.AA", "caf\u00e9",
        "photo.jpg", "<svg/>", "null,", "data:image/png;base64", "data:image/png;base64,A!AA",
        "data:image/png;base64,%zz", "data:image/png;base64,\u00e9AAA", "data:image/png;base64,AAAA,AAAA",
    ],
)  # fmt: skip
async def test_what_is_neither(offline: MediaReader, value: str) -> None:
    with pytest.raises(InvalidInput, match=r"^img: ") as caught:
        await offline.read(value, "img", math.inf)
    assert type(caught.value) is InvalidInput


async def test_the_size_limit_is_exact_and_holds_before_decoding(offline: MediaReader) -> None:
    fits, over = b"x" * MAX_BYTES, b"x" * (MAX_BYTES + 1)
    for make in (
        lambda data: base64.b64encode(data).decode(),
        lambda data: "data:;base64," + base64.b64encode(data).decode(),
        lambda data: "data:," + data.decode(),
    ):
        assert await offline.read(make(fits), "img", math.inf) == fits
        with pytest.raises(TooLarge, match="img: more than 1000 bytes"):
            await offline.read(make(over), "img", math.inf)
    with pytest.raises(TooLarge):
        await offline.read("!" * (2 * MAX_BYTES), "img", math.inf)


async def test_a_flood_of_escapes_is_not_decoded(offline: MediaReader) -> None:
    with pytest.raises(TooLarge, match="percent"):
        await offline.read("data:," + "%41" * (MAX_ESCAPES + 1), "img", math.inf)
