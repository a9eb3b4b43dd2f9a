"""Which addresses are allowed, and that connections go to the checked address alone."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

import httpcore
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import ConfigurationError
from graphs.addresses import (
    MAX_ATTEMPTS,
    METADATA,
    NAT64,
    CheckedNetwork,
    RefusedAddressError,
    is_allowed,
    parse_networks,
    system_resolver,
)

FORBIDDEN = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.255", "127.0.0.1",
    "127.255.255.254", "169.254.0.1", "169.254.169.254", "169.254.170.2", "172.16.0.1", "172.31.255.255",
    "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.0.1", "192.168.255.255", "198.18.0.1",
    "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1",
    "255.255.255.255", "168.63.129.16", "100.100.100.200",
    "::", "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",
    "64:ff9b::7f00:1", "64:ff9b::10.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b:1::1", "100::1",
    "2001::1", "2001:0:808:808::1", "2001:2::1", "2001:10::1", "2001:db8::1", "2002:7f00:1::1",
    "2002:808:808::1", "3fff::1", "5f00::1", "fc00::1", "fd00::1", "fd00:ec2::254", "fd20:ce::254", "fe80::1",
    "fe80::1%eth0", "febf::1", "fec0::1", "ff02::1", "ff0e::1", "1fff::1", "4000::1",
]  # fmt: skip
PUBLIC = [
    "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255",
    "128.0.0.1", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.1", "192.167.0.1",
    "192.169.0.1", "198.17.255.255", "198.20.0.0", "223.255.255.255", "2000::1", "2001:200::1",
    "2606:4700::1111", "3ffe::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8",
]  # fmt: skip


@pytest.mark.parametrize("address", FORBIDDEN)
def test_forbidden(address: str) -> None:
    assert not is_allowed("pictures.example.com", ip_address(address), ())


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address: str) -> None:
    assert is_allowed("pictures.example.com", ip_address(address), ())


@given(st.ip_addresses(v=4))
def test_never_wider_than_the_standard_library_says(address: IPv4Address) -> None:
    if is_allowed("example.com", address, ()):
        assert address.is_global
        assert not address.is_multicast


@given(st.ip_addresses(v=6))
def test_never_wider_than_the_standard_library_says_for_ipv6(address: IPv6Address) -> None:
    if is_allowed("example.com", address, ()):
        assert address.ipv4_mapped is not None or address in NAT64 or address.is_global


@given(st.ip_addresses(v=4))
def test_a_wrapped_address_is_judged_as_the_one_it_wraps(address: IPv4Address) -> None:
    plain = is_allowed("example.com", address, ())
    assert is_allowed("example.com", IPv6Address((0xFFFF << 32) + int(address)), ()) == plain
    assert is_allowed("example.com", IPv6Address(int(NAT64[0]) + int(address)), ()) == plain


@pytest.mark.parametrize(
    "name",
    [
        "localhost",
        "a.localhost",
        "printer.local",
        "db.internal",
        "metadata.google.internal",
        "instance-data",
        "instance-data.ec2.internal",
    ],
)
def test_internal_names_are_refused_wherever_they_lead(name: str) -> None:
    assert not is_allowed(name, ip_address("8.8.8.8"), ())


@pytest.mark.parametrize(
    "name", ["local.example.com", "localhost.example.com", "mylocalhost", "internal.org"]
)
def test_names_that_only_look_internal(name: str) -> None:
    assert is_allowed(name, ip_address("8.8.8.8"), ())


@pytest.mark.parametrize(
    ("network", "address"),
    [
        ("10.1.0.0/16", "10.1.2.3"),
        ("10.1.0.0/16", "::ffff:10.1.2.3"),
        ("10.1.0.0/16", "64:ff9b::10.1.2.3"),
        ("127.0.0.2", "127.0.0.2"),
        ("fd12::/16", "fd12::9"),
        (" ::1/128 ", "::1"),
    ],
)
def test_an_allowed_network_opens_its_addresses_for_any_name(network: str, address: str) -> None:
    networks = parse_networks([network])
    assert is_allowed("pictures.local", ip_address(address), networks)
    assert not is_allowed("pictures.local", ip_address("10.2.0.1"), networks)


@pytest.mark.parametrize("address", sorted(map(str, METADATA)))
def test_no_network_opens_metadata_services(address: str) -> None:
    everything = parse_networks(["0.0.0.0/0", "::/0"])
    assert is_allowed("a", ip_address("127.0.0.1"), everything)
    assert not is_allowed("a", ip_address(address), everything)


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "example.com", "", "10.0.0"])
def test_what_is_no_network_is_a_configuration_error(text: str) -> None:
    with pytest.raises(ConfigurationError, match="allow_networks"):
        parse_networks(["10.0.0.0/8", text])


async def test_the_system_resolver_knows_this_machine() -> None:
    assert "127.0.0.1" in await system_resolver("127.0.0.1", 80)
    with pytest.raises(OSError, match=r"."):
        await system_resolver("name.invalid", 80)


class Names:
    """A resolver with scripted answers, one for each call."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.calls = 0

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        del host, port
        self.calls += 1
        return self.answers[min(self.calls, len(self.answers)) - 1]


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """A server on 127.0.0.2 that says where it is."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(writer.get_extra_info("sockname")[0].encode())
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.2", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def greeting(names: Names, port: int, *networks: str) -> bytes:
    backend = CheckedNetwork(parse_networks(networks), names)
    stream = await backend.connect_tcp("pictures.test", port, timeout=5)
    try:
        return await stream.read(100, timeout=5)
    finally:
        await stream.aclose()


async def test_connects_to_the_very_address_that_was_checked(port: int) -> None:
    names = Names(["127.0.0.2"], ["127.0.0.1"])
    assert await greeting(names, port, "127.0.0.2/32") == b"127.0.0.2"
    assert names.calls == 1
    with pytest.raises(RefusedAddressError):
        await greeting(names, port, "127.0.0.2/32")


async def test_one_forbidden_address_refuses_the_name(port: int) -> None:
    with pytest.raises(RefusedAddressError):
        await greeting(Names(["127.0.0.2", "127.0.0.1"]), port, "127.0.0.2/32")


async def test_tries_the_next_address_when_one_does_not_answer(port: int) -> None:
    assert await greeting(Names(["127.0.0.3", "127.0.0.4", "127.0.0.2"]), port, "127.0.0.0/8") == b"127.0.0.2"


async def test_gives_up_after_a_few_addresses(port: int) -> None:
    silent = [f"127.0.1.{n}" for n in range(MAX_ATTEMPTS)]
    with pytest.raises(httpcore.ConnectError):
        await greeting(Names([*silent, "127.0.0.2"]), port, "127.0.0.0/8")


async def test_a_name_without_addresses(port: int) -> None:
    with pytest.raises(socket.gaierror):
        await greeting(Names([]), port)


async def test_internal_names_are_not_even_looked_up() -> None:
    names = Names(["8.8.8.8"])
    with pytest.raises(RefusedAddressError):
        await CheckedNetwork((), names).connect_tcp("printer.local", 80)
    assert names.calls == 0
