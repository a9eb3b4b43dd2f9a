"""Where URLs may lead: schemes, hosts, redirects, names that change their mind."""

from collections.abc import Awaitable, Callable, Coroutine, Sequence

import pytest

from engines.errors import ConfigurationError, InvalidInput, MediaUnavailable
from graphs.media import MAX_URL_CHARS, MediaReader, MediaRules

NOT_ALLOWED = "img: the URL points to an address that is not allowed"

Serve = Callable[..., Awaitable[int]]
Read = Callable[..., Coroutine[None, None, bytes]]


def answer(body: bytes = b"", status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers]
    if not any(header.lower().startswith(("content-length", "transfer-encoding")) for header in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def redirect(location: str, status: str = "302 Found") -> bytes:
    return answer(b"", status, f"Location: {location}")


def names(*answers: Sequence[str]) -> Callable[[str, int], Awaitable[Sequence[str]]]:
    """A resolver that gives these answers one after another."""
    remaining = list(answers)

    async def resolve(host: str, port: int) -> Sequence[str]:
        del host, port
        return remaining.pop(0)

    return resolve


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/a.jpg",
        "file:///etc/passwd",
        "FILE:/etc/passwd",
        "gopher://example.com/",
        "dict://127.0.0.1:11211/",
        "javascript:alert(1)",
        "blob:http://example.com/1",
        "ws://example.com/",
        "http+unix://socket/",
    ],
)
async def test_other_schemes(read: Read, url: str) -> None:
    with pytest.raises(InvalidInput, match="only http and https"):
        await read(url)


@pytest.mark.parametrize(
    "url",
    [
        "http:",
        "http://",
        "http:///path",
        "https://?x",
        "http://:80/",
        "http://host:0/",
        "http://host:65536/",
        "http://host:-1/",
        "http://host:x/",
        "http://[::1/",
        "http://[fe80::1%25lo]/",
        "http://ho st/",
        "http://ho%00st/",
        "http://h\x00st/",
        "http://a..b/",
        "http://localhost../",
        "http://" + "a" * 64 + ".com/",
        "http://host\\evil/",
        "http://\u2100.com\u2028/",
        "http://example.com/" + "a" * MAX_URL_CHARS,
    ],
)
async def test_what_is_no_url(read: Read, url: str) -> None:
    with pytest.raises(InvalidInput, match=r"^img: (not a valid URL|the URL has more than)"):
        await read(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://user@127.0.0.1/",
        "http://user:secret@127.0.0.1/",
        "http://@127.0.0.1/",
        "http://a\\@127.0.0.1/",
    ],
)
async def test_credentials(read: Read, url: str) -> None:
    with pytest.raises(InvalidInput, match="user name or password") as caught:
        await read(url)
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "LOCALHOST", "localhost.", "a.localhost", "printer.local", "x.internal",
        "metadata.google.internal", "metadata.google.internal.", "instance-data", "2130706433", "0x7f.1",
        "0x7f000001", "017700000001", "0177.0.0.1", "127.1", "0", "0.0.0.0", "10.0.0.1", "172.16.5.4",
        "\u2460\u2461\u2466.\u24ea.\u24ea.\u2460", "\uff11\uff12\uff17\u30020\u30020\u30021",
        "192.168.1.1", "100.64.0.1", "169.254.169.254", "0xa9fea9fe", "2852039166", "224.0.0.1",
        "255.255.255.255", "[::1]", "[::]",
        "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[fe80::1]", "[fd00:ec2::254]", "[fec0::1]",
        "[ff02::1]", "[2002:7f00:1::]", "[64:ff9b::7f00:1]", "[2001:db8::1]", "[2001:0:7f00:1::]",
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["http://{}:{}/a.jpg", "HTTPS://{}:{}/#part"])
async def test_refused_hosts_hear_nothing_and_are_all_told_the_same(
    serve: Serve, read: Read, host: str, form: str
) -> None:
    seen: list[bytes] = []
    port = await serve(answer(b"secret"), seen=seen)
    with pytest.raises(MediaUnavailable) as caught:
        await read(form.format(host, port), MediaRules(fetch_timeout_s=5))
    assert caught.value.message == NOT_ALLOWED
    assert not seen


async def test_urls_can_be_switched_off(serve: Serve, read: Read) -> None:
    port = await serve(answer(b"picture"))
    rules = MediaRules(allow_urls=False, allow_networks=("127.0.0.0/8",))
    with pytest.raises(InvalidInput, match="not fetched here"):
        await read(f"http://127.0.0.1:{port}/", rules)


def test_a_wrong_network_fails_at_the_start() -> None:
    with pytest.raises(ConfigurationError, match="allow_networks"):
        MediaReader(MediaRules(allow_networks=("10.0.0.0/99",)))


async def test_follows_redirects_relative_and_absolute(serve: Serve, read: Read) -> None:
    seen: list[bytes] = []
    last = await serve(answer(b"picture"))
    port = await serve(
        redirect("../b?c", "301 Moved"),
        redirect("//127.0.0.1:{port}/d", "303 See Other").replace(b"{port}", b"%d" % last),
        seen=seen,
    )
    assert await read(f"http://127.0.0.1:{port}/x/a") == b"picture"
    assert [request.split(b" ")[1] for request in seen] == [b"/x/a", b"/b?c"]


async def test_five_redirects_are_followed_and_six_are_not(serve: Serve, read: Read) -> None:
    port = await serve(*[redirect("/next")] * 5, answer(b"picture"))
    assert await read(f"http://127.0.0.1:{port}/") == b"picture"
    port = await serve(*[redirect("/next")] * 6, answer(b"picture"))
    with pytest.raises(MediaUnavailable, match="more than 5 times"):
        await read(f"http://127.0.0.1:{port}/")


async def test_a_redirect_loop_ends(serve: Serve, read: Read) -> None:
    seen: list[bytes] = []
    port = await serve(redirect("/"), seen=seen)
    with pytest.raises(MediaUnavailable, match="more than 5 times"):
        await read(f"http://127.0.0.1:{port}/")
    assert len(seen) == 6


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("http://127.0.0.1:{port}/", NOT_ALLOWED),
        ("http://2130706433:{port}/", NOT_ALLOWED),
        ("//[::ffff:127.0.0.1]:{port}/", NOT_ALLOWED),
        ("http://169.254.169.254/latest/meta-data/", NOT_ALLOWED),
        ("http://localhost:{port}/", NOT_ALLOWED),
        ("file:///etc/passwd", "img: only http and https URLs are fetched"),
        ("ftp://127.0.0.2/", "img: only http and https URLs are fetched"),
        ("data:,secret", "img: only http and https URLs are fetched"),
        ("http://user:pass@127.0.0.2/", "img: URLs with a user name or password are not fetched"),
        ("http://[", "img: the URL redirects to something that is no URL"),
        ("http://localhost../", "img: not a valid URL"),
    ],
)
async def test_every_redirect_is_checked_again(serve: Serve, read: Read, location: str, message: str) -> None:
    seen: list[bytes] = []
    inner = await serve(answer(b"secret"), seen=seen)
    outer = await serve(redirect(location.format(port=inner)), host="127.0.0.2")
    rules = MediaRules(allow_networks=("127.0.0.2/32",))
    with pytest.raises(InvalidInput) as caught:
        await read(f"http://127.0.0.2:{outer}/", rules)
    assert caught.value.message == message
    assert not seen


async def test_a_rebinding_name_reaches_the_checked_address_or_nothing(serve: Serve, read: Read) -> None:
    seen: list[bytes] = []
    port = await serve(answer(b"public", "200 OK", "Connection: close"), host="127.0.0.2")
    await serve(answer(b"secret"), port=port, seen=seen)
    rules = MediaRules(allow_networks=("127.0.0.2/32",))
    rebinding = names(["127.0.0.2"], ["127.0.0.1"])
    assert await read(f"http://rebinding.test:{port}/", rules, rebinding) == b"public"
    with pytest.raises(MediaUnavailable) as caught:
        await read(f"http://rebinding.test:{port}/", rules, rebinding)
    assert caught.value.message == NOT_ALLOWED
    assert not seen


async def test_rebinding_between_redirects(serve: Serve, read: Read) -> None:
    seen: list[bytes] = []
    port = await serve(answer(b"", "302 Found", "Location: /again", "Connection: close"), host="127.0.0.2")
    await serve(answer(b"secret"), port=port, seen=seen)
    rules = MediaRules(allow_networks=("127.0.0.2/32",))
    with pytest.raises(MediaUnavailable) as caught:
        await read(f"http://rebinding.test:{port}/", rules, names(["127.0.0.2"], ["127.0.0.1"]))
    assert caught.value.message == NOT_ALLOWED
    assert not seen
