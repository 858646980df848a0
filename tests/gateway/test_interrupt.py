"""One wait within another: each ends with its own error, and a client's going with neither."""

from __future__ import annotations

import asyncio

import pytest

from forebay_gateway.interrupt import Interruptible


async def test_the_inner_wait_ends_alone_and_may_be_begun_again() -> None:
    outer = Interruptible()
    inner = Interruptible()
    inner.outer = outer
    went_on = 0
    with outer:
        for _ in range(2):
            asyncio.get_running_loop().call_soon(inner.interrupt, ValueError("inner"))
            with pytest.raises(ValueError, match="inner"), inner:
                await asyncio.Event().wait()
            went_on += 1
            await asyncio.sleep(0)
    assert went_on == 2


async def test_the_outer_wait_takes_the_inner_one_with_it() -> None:
    outer = Interruptible()
    inner = Interruptible()
    inner.outer = outer
    asyncio.get_running_loop().call_soon(outer.interrupt, ValueError("outer"))
    with pytest.raises(ValueError, match="outer"), outer, inner:
        await asyncio.Event().wait()


async def test_a_cancellation_from_elsewhere_passes() -> None:
    outer = Interruptible()
    inner = Interruptible()
    inner.outer = outer
    began = asyncio.Event()

    async def wait() -> None:
        with outer, inner:
            began.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
