"""Wakes every waiting stream at once when rows were added."""

from __future__ import annotations

import asyncio


class Bell:
    """Any number of coroutines wait; one ring wakes them all."""

    def __init__(self) -> None:
        self.stopped = False
        self._waiting: set[asyncio.Future[None]] = set()

    def ring(self) -> None:
        """Wake all who wait now."""
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()

    def stop(self) -> None:
        """Wake all, now and from here on: nothing more will come."""
        self.stopped = True
        self.ring()

    async def wait(self) -> None:
        """Until the next ring; at once when stopped."""
        if self.stopped:
            return
        future = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await future
        finally:
            # Who gives up waiting, again and again, on a node where nothing happens must not pile up here.
            self._waiting.discard(future)
