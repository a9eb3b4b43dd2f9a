"""Servers on loopback that play scripts, and readers that may reach them."""

import asyncio
import math
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack

import pytest

from graphs.media import MediaReader, MediaRules

LOOPBACK = MediaRules(max_bytes=1000, fetch_timeout_s=5, allow_networks=("127.0.0.0/8",))

Script = bytes | Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Serve = Callable[..., Awaitable[int]]
Read = Callable[..., Coroutine[None, None, bytes]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts servers that answer each request with the next script, the last one again and again."""
    async with AsyncExitStack() as stack:

        async def start(
            *scripts: Script,
            host: str = "127.0.0.1",
            port: int = 0,
            tls: ssl.SSLContext | None = None,
            seen: list[bytes] | None = None,
        ) -> int:
            remaining = list(scripts)

            async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                try:
                    while request := await reader.readuntil(b"\r\n\r\n"):
                        if seen is not None:
                            seen.append(request)
                        script = remaining.pop(0) if len(remaining) > 1 else remaining[0]
                        if callable(script):
                            await script(reader, writer)
                            break
                        writer.write(script)
                        if b"\r\nConnection: close" in script:
                            break
                except (asyncio.IncompleteReadError, ConnectionError):
                    pass
                finally:
                    writer.close()

            server = await asyncio.start_server(handle, host, port, ssl=tls)
            await stack.enter_async_context(server)
            number: int = server.sockets[0].getsockname()[1]
            return number

        yield start


@pytest.fixture
async def read() -> AsyncIterator[Read]:
    """Reads one value with a reader of its own."""
    readers: list[MediaReader] = []

    async def once(
        value: str,
        rules: MediaRules = LOOPBACK,
        resolve: Callable[[str, int], Awaitable[Sequence[str]]] | None = None,
        deadline: float = math.inf,
    ) -> bytes:
        reader = MediaReader(rules, resolve) if resolve else MediaReader(rules)
        readers.append(reader)
        return await reader.read(value, "img", deadline)

    yield once
    for reader in readers:
        await reader.close()
