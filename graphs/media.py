"""Pictures and clips of requests: http(s) URL, data URI or base64 -> bytes."""

import asyncio
import binascii
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes, urljoin, urlsplit

import httpcore

from engines.errors import DeadlineExceeded, InvalidInput, MediaUnavailable, NotDecodable, TooLarge
from graphs.addresses import CheckedNetwork, RefusedAddressError, Resolver, parse_networks, system_resolver

MAX_URL_CHARS = 8192
MAX_ESCAPES = 100_000
"""Percent signs in one data URI: undoing more of them would hold up other requests."""
MAX_CONNECTIONS = 64
"""Fetches at the same time; further ones wait, within their own time limit."""
IDLE_S = 2.0
"""How long a connection is kept for the next fetch; below what servers usually grant (5 s)."""

SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)
HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*|[0-9a-f:.]{2,45}")
DEFAULT_PORTS = {"http": 80, "https": 443}
REDIRECTS = frozenset({301, 302, 303, 307, 308})
URL_SAFE_TO_STANDARD = bytes.maketrans(b"-_", b"+/")
WHITESPACE = b" \t\r\n\f\v"
HEADERS = [
    (b"Accept", b"*/*"),
    (b"Accept-Encoding", b"identity"),
    (b"User-Agent", b"presence"),
]
REFUSED = "the URL points to an address that is not allowed"


@dataclass(frozen=True, slots=True)
class MediaRules:
    """What may come in.

    max_bytes: largest picture or clip. fetch_timeout_s: seconds for one URL, names, redirects and
    body included. max_redirects: hops followed. allow_networks: networks in CIDR notation that URLs
    may lead to although they are not public. allow_urls: whether URLs are fetched at all.
    """

    max_bytes: int = 15 * 2**20
    fetch_timeout_s: float = 15.0
    max_redirects: int = 5
    allow_networks: tuple[str, ...] = ()
    allow_urls: bool = True


@contextmanager
def naming(field: str) -> Iterator[None]:
    """Names the field whose picture or clip is wrong: before the message, and as the error's `param`."""
    try:
        yield
    except (InvalidInput, NotDecodable, TooLarge) as error:
        raise type(error)(f"{field}: {error.message}", field) from None


class MediaReader:
    """Reads what requests carry. One event loop uses it; idle connections are kept for a moment.

    Raises ConfigurationError when `allow_networks` holds something that is no network.
    """

    def __init__(self, rules: MediaRules, resolve: Resolver = system_resolver) -> None:
        self._rules = rules
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpcore.default_ssl_context(),
            max_connections=MAX_CONNECTIONS,
            keepalive_expiry=IDLE_S,
            network_backend=CheckedNetwork(parse_networks(rules.allow_networks), resolve),
        )

    async def read(self, value: str, field: str, deadline: float) -> bytes:
        """The bytes that `value` holds or points to, at least one; `field` is the name that errors give it.

        deadline: seconds since the epoch.
        Raises InvalidInput for a value of no known form, MediaUnavailable when a URL cannot be
        fetched, TooLarge over `max_bytes`, DeadlineExceeded.
        """
        with naming(field):
            data = await self._read(value.strip(), deadline)
            if not data:
                raise InvalidInput("empty")
            return data

    async def _read(self, value: str, deadline: float) -> bytes:
        scheme = SCHEME.match(value)
        match scheme and scheme[1].lower():
            case None:
                return _from_base64(value, self._rules.max_bytes)
            case "data":
                return _from_data_uri(value, self._rules.max_bytes)
            case "http" | "https":
                return await self._fetch(value, deadline)
            case _:
                raise InvalidInput("only http and https URLs, data URIs and base64 are read")

    async def close(self) -> None:
        """Closes idle connections."""
        await self._pool.aclose()

    async def _fetch(self, url: str, deadline: float) -> bytes:
        if not self._rules.allow_urls:
            raise InvalidInput("URLs are not fetched here; send a data URI or base64")
        left = deadline - time.time()
        try:
            async with asyncio.timeout(min(self._rules.fetch_timeout_s, left)):
                return await self._follow(url)
        except RefusedAddressError:
            reason = REFUSED
        except (TimeoutError, httpcore.TimeoutException):
            if left <= self._rules.fetch_timeout_s:
                raise DeadlineExceeded("the URL gave no complete answer before the deadline") from None
            reason = f"the URL gave no complete answer within {self._rules.fetch_timeout_s:g} s"
        except httpcore.ProtocolError:
            reason = "the URL gave no valid HTTP answer, or an incomplete one"
        except (OSError, httpcore.NetworkError):
            reason = "the host of the URL cannot be reached, or its certificate is not valid"
        raise MediaUnavailable(reason)

    async def _follow(self, url: str) -> bytes:
        for _ in range(self._rules.max_redirects + 1):
            answer = await self._get(url)
            if isinstance(answer, bytes):
                return answer
            url = _redirected(url, answer)
        raise MediaUnavailable(f"the URL redirects more than {self._rules.max_redirects} times")

    async def _get(self, url: str) -> bytes | str:
        """The body of the answer, or the `Location` that it redirects to."""
        target = _parse_url(url)
        limits = dict.fromkeys(("connect", "read", "write", "pool"), self._rules.fetch_timeout_s)
        async with self._pool.stream(
            "GET", target, headers=[_host_header(target), *HEADERS], extensions={"timeout": limits}
        ) as response:
            headers = {name.lower(): value for name, value in response.headers}
            if response.status in REDIRECTS and b"location" in headers:
                return headers[b"location"].decode("latin-1")
            if not 200 <= response.status < 300:
                raise MediaUnavailable(f"the URL answered with status {response.status}")
            if headers.get(b"content-encoding", b"identity").strip().lower() not in (b"", b"identity"):
                raise MediaUnavailable("the URL answered with compressed content")
            return await self._body(response, int(headers.get(b"content-length", b"0")))

    async def _body(self, response: httpcore.Response, declared: int) -> bytes:
        data = bytearray()
        if declared <= self._rules.max_bytes:
            async for chunk in response.aiter_stream():
                data += chunk
                if len(data) > self._rules.max_bytes:
                    break
            else:
                return bytes(data)
        raise _too_large(self._rules.max_bytes)


def _redirected(url: str, location: str) -> str:
    try:
        target = urljoin(url, location)
    except ValueError:
        raise MediaUnavailable("the URL redirects to something that is no URL") from None
    if url[:6].lower() == "https:" and target[:6].lower() != "https:":
        raise MediaUnavailable("the URL redirects from https to an unprotected address")
    return target


def _parse_url(url: str) -> httpcore.URL:
    if len(url) > MAX_URL_CHARS:
        raise InvalidInput(f"the URL has more than {MAX_URL_CHARS} characters")
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").removesuffix(".")
        host = host if ":" in host else host.encode("idna").decode("ascii").lower()
        port = DEFAULT_PORTS[parts.scheme] if parts.port is None else parts.port
    except KeyError:
        raise InvalidInput("only http and https URLs are fetched") from None
    except ValueError:
        raise InvalidInput("not a valid URL") from None
    if "@" in parts.netloc:
        raise InvalidInput("URLs with a user name or password are not fetched")
    if not port or not HOST.fullmatch(host):
        raise InvalidInput("not a valid URL")
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
    query = "?" + quote(parts.query, safe="/?%:@!$&'()*+,;=~[]") if parts.query else ""
    explicit = None if port == DEFAULT_PORTS[parts.scheme] else port
    return httpcore.URL(scheme=parts.scheme, host=host, port=explicit, target=path + query)


def _host_header(url: httpcore.URL) -> tuple[bytes, bytes]:
    host = b"[%b]" % url.host if b":" in url.host else url.host
    return b"Host", host if url.port is None else b"%b:%d" % (host, url.port)


def _from_data_uri(value: str, max_bytes: int) -> bytes:
    """RFC 2397; `;base64` comes last before the comma, without it the data is percent-encoded."""
    header, comma, payload = value.partition(",")
    if not comma:
        raise InvalidInput("the data URI has no comma before its data")
    is_base64 = header.rpartition(";")[2].strip().lower() == "base64"
    if "%" in payload or not is_base64:
        if payload.count("%") > MAX_ESCAPES:
            raise TooLarge("too many percent signs in the data URI; send it as base64")
        try:
            raw = unquote_to_bytes(payload)
        except UnicodeEncodeError:
            raise InvalidInput("the data URI holds characters that are no text") from None
        if not is_base64:
            if len(raw) > max_bytes:
                raise _too_large(max_bytes)
            return raw
        payload = raw.decode("latin-1")
    return _from_base64(payload, max_bytes)


def _from_base64(value: str, max_bytes: int) -> bytes:
    """RFC 4648, standard or URL-safe alphabet, padding optional, white space anywhere."""
    try:
        text = value.encode("ascii").translate(URL_SAFE_TO_STANDARD, WHITESPACE)
        digits = text.rstrip(b"=")
        padding = b"=" * (-len(digits) % 4)
        if len(digits) * 3 // 4 > max_bytes:
            raise _too_large(max_bytes)
        if text not in (digits, digits + padding):
            raise InvalidInput("the padding of the base64 is wrong")
        return binascii.a2b_base64(digits + padding, strict_mode=True)
    except ValueError:
        raise InvalidInput("neither an http(s) URL nor a data URI nor base64") from None


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"more than {max_bytes} bytes")
