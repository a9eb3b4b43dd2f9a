"""Sound on the wire: whole files, streams of bytes, server-sent events."""

import asyncio
import base64
import json
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import Response
from starlette.responses import StreamingResponse
from starlette.types import Send

from engines.errors import DeadlineExceeded, PresenceError
from engines.tts.formats import Target
from graphs.http.errors import error_body, status_of

logger = logging.getLogger("presence.speech")

Pieces = AsyncGenerator[bytes, None]
Content = AsyncGenerator[bytes | str, None]


def headers_of(target: Target) -> dict[str, str]:
    """What every answer with sound says of itself, beside its type."""
    return {
        "Content-Disposition": f'attachment; filename="speech.{target.format.extension}"',
        "X-Content-Type-Options": "nosniff",
    }


def file_response(data: bytes, target: Target) -> Response:
    """A whole file."""
    return Response(data, media_type=target.format.content_type, headers=headers_of(target))


class ClosingStream(StreamingResponse):
    """Closes its source when the client leaves, at an error, and when the deadline passes before the end.

    deadline: seconds since the epoch, for the last byte too: a client that reads nothing holds a replica.
    """

    def __init__(self, pieces: Pieces, deadline: float, content: Content, headers: dict[str, str]) -> None:
        super().__init__(content, headers=headers)
        self._pieces = pieces
        self._deadline = deadline

    async def stream_response(self, send: Send) -> None:
        try:
            async with aclosing(self._pieces), asyncio.timeout(self._deadline - time.time()):
                await super().stream_response(send)
        except TimeoutError:
            raise DeadlineExceeded("the client did not take all of the sound before the deadline") from None


class SoundStream(ClosingStream):
    """Pieces as they are spoken.

    An error after the first piece ends the body without its last chunk, so that clients see it is not whole.
    """

    def __init__(self, pieces: Pieces, target: Target, deadline: float) -> None:
        headers = {**headers_of(target), "Content-Type": target.format.content_type}
        super().__init__(pieces, deadline, _logged(pieces), headers)


class EventStream(ClosingStream):
    """OpenAI's events: speech.audio.delta for each piece, speech.audio.done, or one of an error.

    characters: how many of the text; engines count no tokens.
    """

    def __init__(self, pieces: Pieces, characters: int, deadline: float) -> None:
        headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        super().__init__(pieces, deadline, _events(pieces, characters), headers)


async def _logged(pieces: Pieces) -> AsyncGenerator[bytes | str, None]:
    try:
        async for piece in pieces:
            yield piece
    except PresenceError as error:
        logger.warning("speech broke off: %s", error.message)
        raise


async def _events(pieces: Pieces, characters: int) -> AsyncGenerator[bytes | str, None]:
    try:
        async for piece in pieces:
            yield _event({"type": "speech.audio.delta", "audio": base64.b64encode(piece).decode()})
    except PresenceError as error:
        logger.warning("speech broke off: %s", error.message)
        yield _event({"type": "error", **error_body(status_of(error), error.message)})
        return
    usage = {"input_tokens": characters, "output_tokens": 0, "total_tokens": characters}
    yield _event({"type": "speech.audio.done", "usage": usage})


def _event(data: dict[str, object]) -> str:
    return f"data: {json.dumps(data)}\n\n"
