"""https: certificates of the test itself, checked against the name of the URL."""

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from engines.errors import MediaUnavailable

PICTURE = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\npicture"

Serve = Callable[..., Awaitable[int]]
Read = Callable[..., Coroutine[None, None, bytes]]


def redirect(location: str) -> bytes:
    return f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


async def loopback(host: str, port: int) -> Sequence[str]:
    """A resolver by which every name is this machine."""
    del host, port
    return ["127.0.0.1"]


def certificate(directory: Path, name: str) -> tuple[Path, ssl.SSLContext]:
    """A self-made certificate for `name` as a file to trust, and a server's context that presents it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    try:
        alternative: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        alternative = x509.DNSName(name)
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    trusted, private = directory / f"{name}.pem", directory / f"{name}.key"
    trusted.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trusted, private)
    return trusted, context


async def test_https_checks_the_name_of_the_url_not_the_address(
    serve: Serve, read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted, context = certificate(tmp_path, "pictures.test")
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    port = await serve(PICTURE, tls=context)
    assert await read(f"https://pictures.test:{port}/", resolve=loopback) == b"picture"
    assert await read(f"https://Pictures.test.:{port}/", resolve=loopback) == b"picture"
    for other in ("other.test", "127.0.0.1"):
        with pytest.raises(MediaUnavailable, match="certificate is not valid"):
            await read(f"https://{other}:{port}/", resolve=loopback)


async def test_a_certificate_that_nobody_signed_is_refused(serve: Serve, read: Read, tmp_path: Path) -> None:
    seen: list[bytes] = []
    _, context = certificate(tmp_path, "pictures.test")
    port = await serve(PICTURE, tls=context, seen=seen)
    with pytest.raises(MediaUnavailable, match="certificate is not valid"):
        await read(f"https://pictures.test:{port}/", resolve=loopback)
    assert not seen


async def test_https_to_a_server_without_tls(read: Read) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(MediaUnavailable, match="cannot be reached"):
            await read(f"https://127.0.0.1:{port}/")


async def test_a_redirect_from_https_to_http_is_refused(
    serve: Serve, read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bytes] = []
    trusted, context = certificate(tmp_path, "127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    plain = await serve(PICTURE, seen=seen)
    port = await serve(redirect(f"http://127.0.0.1:{plain}/"), redirect("/there"), PICTURE, tls=context)
    with pytest.raises(MediaUnavailable, match="from https to an unprotected"):
        await read(f"https://127.0.0.1:{port}/")
    assert await read(f"https://127.0.0.1:{port}/") == b"picture"
    assert not seen
