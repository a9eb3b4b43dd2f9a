"""Steps that are under way at once: results, errors, and what becomes of the others."""

import asyncio

import pytest

from deployments.together import together


async def value(number: int, *, after: asyncio.Event | None = None) -> int:
    if after is not None:
        await after.wait()
    return number


async def test_results_keep_the_order_of_the_steps() -> None:
    last = asyncio.Event()

    async def second() -> int:
        last.set()
        return 2

    assert await together(value(1, after=last), second(), value(3)) == (1, 2, 3)


@pytest.mark.parametrize("given_up", [False, True], ids=["one fails", "the caller is cancelled"])
async def test_no_step_outlives_the_others(given_up: bool) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def long() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def fails() -> None:
        await begun.wait()
        if given_up:
            await asyncio.Event().wait()
        raise LookupError

    all_of_it = asyncio.create_task(together(long(), fails()))
    await begun.wait()
    if given_up:
        all_of_it.cancel()
    with pytest.raises(asyncio.CancelledError if given_up else LookupError):
        await all_of_it
    async with asyncio.timeout(10):
        await ended.wait()
