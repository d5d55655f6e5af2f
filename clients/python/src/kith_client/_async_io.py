"""What the asynchronous client waits with. `_sync_io` has the same names for the synchronous one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread

T = TypeVar("T")


async def sleep(seconds: float) -> None:
    """Waits without holding up other tasks."""
    await anyio.sleep(seconds)


async def blocking(work: Callable[[], T]) -> T:
    """Runs work that reads files or computes, without holding up other tasks."""
    return await anyio.to_thread.run_sync(work)
