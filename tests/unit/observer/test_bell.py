"""observer/bell.py: one ring wakes all, and nobody is kept who left."""

from __future__ import annotations

import asyncio

from observer.bell import Bell


async def test_one_ring_wakes_all_who_wait() -> None:
    bell = Bell()
    waiting = [asyncio.create_task(bell.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    bell.ring()
    await asyncio.gather(*waiting)


async def test_who_waits_after_a_ring_waits_for_the_next() -> None:
    bell = Bell()
    bell.ring()
    waiting = asyncio.create_task(bell.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    bell.ring()
    await waiting


async def test_a_stopped_bell_lets_everybody_through() -> None:
    bell = Bell()
    waiting = asyncio.create_task(bell.wait())
    await asyncio.sleep(0)
    bell.stop()
    await waiting
    await bell.wait()


async def test_who_gives_up_is_forgotten() -> None:
    bell = Bell()
    for _ in range(10):
        waiting = asyncio.create_task(bell.wait())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    assert not bell._waiting
