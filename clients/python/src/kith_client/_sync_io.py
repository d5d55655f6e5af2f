"""What the synchronous client waits with. `_async_io` has the same names for the asynchronous one."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def sleep(seconds: float) -> None:
    """Waits."""
    time.sleep(seconds)


def blocking(work: Callable[[], T]) -> T:
    """Runs work that reads files or computes."""
    return work()
