"""Which network addresses a URL of a request may lead to, and connections to those alone.

The addresses are those of IANA's special-purpose registries (RFC 6890 and its updates).
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias

import httpcore

from engines.errors import ConfigurationError

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network
Resolver: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""(host name, port) -> its addresses as text. Raises OSError when the name has none."""

NOT_PUBLIC_V4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
PUBLIC_V6 = IPv6Network("2000::/3")
"""The only part of IPv6 that is given out as global unicast addresses."""
NOT_PUBLIC_V6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments, Teredo among them
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
    )
)
NAT64 = IPv6Network("64:ff9b::/96")
"""IPv6 addresses whose last 32 bits are the IPv4 address that they lead to (RFC 6052)."""
METADATA = frozenset(
    ip_address(address)
    for address in (
        "169.254.169.254",  # AWS, Azure, Google, Oracle and others
        "169.254.170.2",  # AWS ECS
        "169.254.170.23",  # AWS EKS
        "168.63.129.16",  # Azure
        "100.100.100.200",  # Alibaba
        "192.0.0.192",  # Oracle
        "fd00:ec2::254",  # AWS
        "fd00:ec2::23",  # AWS EKS
        "fd20:ce::254",  # Google
    )
)
"""Where clouds hand credentials to their machines. No setting opens them."""

INTERNAL_NAMES = frozenset({"localhost", "local", "internal", "instance-data"})
"""Last labels of names that mean this machine, this network or a cloud's metadata service."""

MAX_ATTEMPTS = 4
"""Addresses of one name that are tried before its connection counts as failed."""


class RefusedAddressError(Exception):
    """A host name leads to an address that is not allowed."""


async def system_resolver(host: str, port: int) -> list[str]:
    """Addresses of a host name by the system's resolver, in its order. Raises OSError."""
    answers = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in answers]


def parse_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Networks from CIDR notation; a lone address is a network of one.

    Raises ConfigurationError that names the text which is no network.
    """
    networks = []
    for text in texts:
        try:
            networks.append(ip_network(text.strip()))
        except ValueError as error:
            raise ConfigurationError(
                f"allow_networks: {error}; write a network such as 10.1.0.0/16 or an address"
            ) from None
    return tuple(networks)


def is_allowed(host: str, address: Address, networks: Sequence[Network]) -> bool:
    """Whether a connection for `host` (lower case, no trailing dot) may go to one of its addresses.

    Metadata services never. Everything in `networks`. Else public addresses, unless the name is internal.
    """
    real = _embedded_v4(address) or address
    if real in METADATA:
        return False
    if any(candidate in network for network in networks for candidate in (address, real)):
        return True
    return _is_public(real) and not is_internal(host)


def is_internal(host: str) -> bool:
    """Whether a host name means this machine, this network or a cloud's metadata service."""
    return host.rpartition(".")[2] in INTERNAL_NAMES


def _embedded_v4(address: Address) -> IPv4Address | None:
    if isinstance(address, IPv4Address):
        return None
    if address in NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in network for network in NOT_PUBLIC_V4)
    return address in PUBLIC_V6 and not any(address in network for network in NOT_PUBLIC_V6)


class CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to hosts whose every address is allowed, at exactly the addresses that were checked."""

    def __init__(self, networks: Sequence[Network], resolve: Resolver = system_resolver) -> None:
        self._networks = networks
        self._resolve = resolve
        self._tcp = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature is httpcore's
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Resolves once, checks all, tries one after another; the attempts share `timeout` (seconds).

        Raises RefusedAddressError, OSError when the name has no address, and httpcore's connection errors.
        """
        addresses = await self._addresses(host, port)
        share = None if timeout is None else timeout / len(addresses)
        for address in addresses[:-1]:
            try:
                return await self._tcp.connect_tcp(address, port, share, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._tcp.connect_tcp(addresses[-1], port, share, local_address, socket_options)

    async def _addresses(self, host: str, port: int) -> list[str]:
        if not self._networks and is_internal(host):
            raise RefusedAddressError
        answers = list(dict.fromkeys(await self._resolve(host, port)))
        if not answers:
            raise socket.gaierror(socket.EAI_NONAME, "the name has no address")
        if not all(is_allowed(host, ip_address(answer), self._networks) for answer in answers):
            raise RefusedAddressError
        return answers[:MAX_ATTEMPTS]
