"""Waiting for something that another thread or process does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


def eventually(true: Callable[[], bool], timeout_s: float = 5.0) -> None:
    """Return as soon as `true()`; fail after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.005)


async def eventually_async(true: Callable[[], bool], timeout_s: float = 5.0) -> None:
    """As `eventually`, letting the loop run meanwhile."""
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "did not happen in time"
        await asyncio.sleep(0.005)
