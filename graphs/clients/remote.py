"""One remote call: deadline, cancellation and errors."""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Any, cast

from grpc.aio import AioRpcError
from ray.exceptions import ObjectLostError, RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RequestCancelledError
from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator

from engines.errors import Busy, DeadlineExceeded, PresenceError

BY_VALUE_BYTES = 1_000_000
"""Above this a request goes through shared memory: gRPC by value is faster below, slower above."""


PICKLED: dict[str, Any] = {"request_serialization": "pickle", "response_serialization": "pickle"}
"""All messages are of modules that both sides have; Serve's default also carries code, and takes longer."""


class RemoteMethod:
    """One method of a deployment, called by value (gRPC) or by reference (shared memory)."""

    def __init__(self, handle: DeploymentHandle[Any], method: str) -> None:
        self._by_value = handle.options(method_name=method, _by_reference=False, **PICKLED)
        self._by_reference = handle.options(method_name=method, _by_reference=True)

    async def call(self, argument: object, deadline: float, *, large: bool = False) -> Any:
        """The method's answer.

        Raises the PresenceError that the deployment answered, Busy when its queue is full or its
        replica died, DeadlineExceeded when `deadline` (seconds since the epoch) passes.
        """
        remaining = _remaining(deadline)
        response = (self._by_reference if large else self._by_value).remote(argument, deadline)
        with _translated():
            try:
                async with asyncio.timeout(remaining):
                    answer = await response
            except TimeoutError:
                response.cancel()  # type: ignore[no-untyped-call] # Ray leaves it without annotations
                raise
        if isinstance(answer, PresenceError):
            raise answer
        return answer


class RemoteStream:
    """One method of a deployment that answers piece by piece, by value or by reference."""

    def __init__(self, handle: DeploymentHandle[Any], method: str) -> None:
        self._by_value = handle.options(method_name=method, stream=True, _by_reference=False, **PICKLED)
        self._by_reference = handle.options(method_name=method, stream=True, _by_reference=True)

    async def call(
        self, argument: object, deadline: float, *, large: bool = False
    ) -> AsyncGenerator[Any, None]:
        """The method's pieces. Whoever stops early closes the generator: that cancels the method.

        Raises what RemoteMethod.call raises, also between pieces.
        """
        remaining = _remaining(deadline)
        until = asyncio.get_running_loop().time() + remaining
        handle = self._by_reference if large else self._by_value
        response = cast(DeploymentResponseGenerator[Any], handle.remote(argument, deadline))
        ended = False
        try:
            while True:
                with _translated():
                    async with asyncio.timeout_at(until):
                        piece = await anext(response, None)
                if piece is None:
                    ended = True
                    return
                if isinstance(piece, PresenceError):
                    raise piece
                yield piece
        finally:
            if not ended:
                response.cancel()  # type: ignore[no-untyped-call] # Ray leaves it without annotations


def _remaining(deadline: float) -> float:
    """Seconds until the deadline. Raises DeadlineExceeded."""
    remaining = deadline - time.time()
    if remaining <= 0:
        raise DeadlineExceeded("the deadline of the request has passed")
    return remaining


@contextmanager
def _translated() -> Iterator[None]:
    """What Ray raises, as errors of ours."""
    try:
        yield
    except TimeoutError:
        raise DeadlineExceeded("the model did not answer before the deadline") from None
    except (BackPressureError, DeploymentUnavailableError):
        raise Busy("the model is busy; try again") from None
    except (RayActorError, ObjectLostError, RequestCancelledError, AioRpcError):
        raise Busy("a replica of the model was lost; try again") from None
