"""Sound on the wire: whole files, streams of bytes, server-sent events."""

import base64
import json
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import Response
from starlette.responses import StreamingResponse
from starlette.types import Send

from engines.errors import PresenceError
from engines.tts.formats import Target
from graphs.http.errors import error_body, status_of

logger = logging.getLogger("presence.speech")

Pieces = AsyncGenerator[bytes, None]


def headers_of(target: Target) -> dict[str, str]:
    """What every answer with sound says of itself, beside its type."""
    return {
        "Content-Disposition": f'attachment; filename="speech.{target.format.extension}"',
        "X-Content-Type-Options": "nosniff",
    }


def file_response(data: bytes, target: Target) -> Response:
    """A whole file."""
    return Response(data, media_type=target.format.content_type, headers=headers_of(target))


class SoundStream(StreamingResponse):
    """Pieces as they are spoken. When the client leaves, or at an error, their source is closed at once.

    An error after the first piece ends the body without its last chunk, so that clients see it is not whole.
    """

    def __init__(self, pieces: Pieces, target: Target) -> None:
        super().__init__(_logged(pieces), media_type=target.format.content_type, headers=headers_of(target))
        self._pieces = pieces

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self._pieces):
            await super().stream_response(send)


class EventStream(StreamingResponse):
    """OpenAI's events: speech.audio.delta for each piece, speech.audio.done, or one of an error.

    characters: how many of the text; engines count no tokens.
    """

    def __init__(self, pieces: Pieces, characters: int) -> None:
        super().__init__(
            _events(pieces, characters), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )
        self._pieces = pieces

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self._pieces):
            await super().stream_response(send)


async def _logged(pieces: Pieces) -> Pieces:
    try:
        async for piece in pieces:
            yield piece
    except PresenceError as error:
        logger.warning("speech broke off: %s", error.message)
        raise


async def _events(pieces: Pieces, characters: int) -> AsyncGenerator[str, None]:
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
