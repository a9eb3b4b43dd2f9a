"""Adapters of the parts of a face model: which crops travel together, and what is asked twice."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from deployments.messages import DetectRequest, FoundFaces
from engines.errors import Busy, PresenceError
from engines.types import Image
from graphs.clients.face import REPLY_BYTES, RemoteFaceDetector, RemoteFaceRecognizer
from graphs.clients.remote import BY_VALUE_BYTES


class Handle:
    """A deployment's handle that answers each crop with its first number, the later calls sooner."""

    def __init__(self, refuses: int | None = None) -> None:
        self.calls: list[list[int]] = []
        self._refuses = refuses

    def options(self, **_: Any) -> "Handle":
        return self

    async def remote(self, crops: Sequence[Image], deadline: float) -> list[np.ndarray] | PresenceError:  # noqa: ARG002 - as the deployment has it
        numbers = [int(crop[0, 0, 0]) for crop in crops]
        self.calls.append(numbers)
        await asyncio.sleep(0.01 / len(self.calls))
        if self._refuses in numbers:
            return Busy("no more")
        return [np.array([number], np.float32) for number in numbers]


def crops(count: int) -> list[Image]:
    return [np.full((2, 2, 3), number, np.uint8) for number in range(count)]


@pytest.mark.parametrize(
    ("batch", "calls"),
    [(1, [[0], [1], [2]]), (2, [[0, 1], [2]]), (3, [[0, 1, 2]]), (8, [[0, 1, 2]])],
)
async def test_crops_of_different_runs_go_in_calls_of_their_own(batch: int, calls: list[list[int]]) -> None:
    handle: Any = Handle()
    rows = await RemoteFaceRecognizer(handle, batch).embed(crops(3), time.time() + 10)
    assert handle.calls == calls
    assert [float(row[0]) for row in rows] == [0, 1, 2]


async def test_no_crops_need_no_call() -> None:
    handle: Any = Handle()
    assert await RemoteFaceRecognizer(handle, 1).embed([], time.time() + 10) == []
    assert handle.calls == []


async def test_an_error_of_one_call_is_that_of_all() -> None:
    handle: Any = Handle(refuses=1)
    with pytest.raises(Busy, match="no more"):
        await RemoteFaceRecognizer(handle, 1).embed(crops(2), time.time() + 10)


class Detector:
    """A detector's handle. incomplete: it says that not all crops fit, as long as there is a limit."""

    def __init__(self, *, incomplete: bool) -> None:
        self.calls: list[tuple[bool, int | None]] = []
        self._incomplete = incomplete
        self._by_reference = False

    def options(self, *, _by_reference: bool, **_: Any) -> "Detector":
        chosen = Detector(incomplete=self._incomplete)
        chosen.calls, chosen._by_reference = self.calls, _by_reference
        return chosen

    async def remote(self, request: DetectRequest, deadline: float) -> FoundFaces:  # noqa: ARG002 - as above
        self.calls.append((self._by_reference, request.reply_limit))
        return FoundFaces((), complete=not (self._incomplete and request.reply_limit))


@pytest.mark.parametrize(
    ("size", "incomplete", "calls"),
    [
        (BY_VALUE_BYTES, False, [(False, REPLY_BYTES)]),
        (BY_VALUE_BYTES, True, [(False, REPLY_BYTES), (True, None)]),
        (BY_VALUE_BYTES + 1, True, [(True, None)]),
    ],
    ids=["small", "of a crowd", "large"],
)
async def test_a_crowd_whose_crops_fill_no_message_is_asked_for_again_by_reference(
    size: int, incomplete: bool, calls: list[tuple[bool, int | None]]
) -> None:
    handle: Any = Detector(incomplete=incomplete)
    found = await RemoteFaceDetector(handle).detect(DetectRequest(bytes(size)), time.time() + 10)
    assert found.complete
    assert handle.calls == calls
