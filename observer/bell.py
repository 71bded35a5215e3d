"""Wakes every waiting stream at once when rows were added."""

from __future__ import annotations

import asyncio


class Bell:
    """Any number of coroutines wait; one ring wakes them all."""

    def __init__(self) -> None:
        self.stopped = False
        self._waiting: list[asyncio.Future[None]] = []

    def ring(self) -> None:
        """Wake all who wait now."""
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def stop(self) -> None:
        """Wake all, now and from here on: nothing more will come."""
        self.stopped = True
        self.ring()

    async def wait(self) -> None:
        """Until the next ring; at once when stopped."""
        if not self.stopped:
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await future
