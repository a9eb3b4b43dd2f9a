"""One remote call: deadline, cancellation and errors."""

import asyncio
import time
from typing import Any

from grpc.aio import AioRpcError
from ray.exceptions import ObjectLostError, RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RequestCancelledError
from ray.serve.handle import DeploymentHandle

from engines.errors import Busy, DeadlineExceeded, PresenceError

BY_VALUE_BYTES = 1_000_000
"""Above this a request goes through shared memory: gRPC by value is faster below, slower above."""


class RemoteMethod:
    """One method of a deployment, called by value (gRPC) or by reference (shared memory)."""

    def __init__(self, handle: DeploymentHandle[Any], method: str) -> None:
        self._by_value = handle.options(method_name=method, _by_reference=False)
        self._by_reference = handle.options(method_name=method, _by_reference=True)

    async def call(self, argument: object, deadline: float, *, large: bool = False) -> Any:
        """The method's answer.

        Raises the PresenceError that the deployment answered, Busy when its queue is full or its
        replica died, DeadlineExceeded when `deadline` (seconds since the epoch) passes.
        """
        remaining = deadline - time.time()
        if remaining <= 0:
            raise DeadlineExceeded("the deadline of the request has passed")
        response = (self._by_reference if large else self._by_value).remote(argument, deadline)
        try:
            async with asyncio.timeout(remaining):
                answer = await response
        except TimeoutError:
            response.cancel()  # type: ignore[no-untyped-call] # Ray leaves it without annotations
            raise DeadlineExceeded("the model did not answer before the deadline") from None
        except (BackPressureError, DeploymentUnavailableError):
            raise Busy("the model is busy; try again") from None
        except (RayActorError, ObjectLostError, RequestCancelledError, AioRpcError):
            raise Busy("a replica of the model was lost; try again") from None
        if isinstance(answer, PresenceError):
            raise answer
        return answer
