"""Steps of one request that are under way at once."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar, overload

A = TypeVar("A")
B = TypeVar("B")


@overload
async def together(one: Coroutine[Any, Any, A], two: Coroutine[Any, Any, B], /) -> tuple[A, B]: ...
@overload
async def together(*steps: Coroutine[Any, Any, A]) -> tuple[A, ...]: ...


async def together(*steps: Coroutine[Any, Any, Any]) -> tuple[Any, ...]:
    """Their results, in order. When one raises, that is raised at once and the others are cancelled."""
    tasks = [asyncio.create_task(step) for step in steps]
    try:
        return tuple(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
