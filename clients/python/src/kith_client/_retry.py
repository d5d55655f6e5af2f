"""When a request is sent again, and after how long. Decides only; the transport waits."""

from __future__ import annotations

import random
from dataclasses import dataclass

_FIRST_WAIT = 0.25
# The request was refused before anything was done: it may be sent again, whatever it is.
_BUSY = {429, 503}
# Codes of the error that ends a stream of pairs early: what has no result is sent again.
BUSY_CODES = {"overloaded", "rate_limited", "stopping", "not_ready", "timeout"}
# The key's bytes of the day: it lasts.
QUOTA_CODE = "quota_exceeded"


@dataclass(frozen=True)
class RetryPolicy:
    """At most `max_retries` times again, each after at most `max_wait` seconds. A server that asks for more is not waited for."""

    max_retries: int = 4
    max_wait: float = 30.0

    def wait_after_status(self, status: int, retry_after: float | None, attempt: int) -> float | None:
        """Seconds to wait after an answer; `None`: it is final. `attempt` counts from 0."""
        if status not in _BUSY:
            return None
        return self._wait(retry_after, attempt)

    def wait_after_failure(self, attempt: int) -> float | None:
        """Seconds to wait after a connection that failed; `None`: give up."""
        return self._wait(None, attempt)

    def _wait(self, retry_after: float | None, attempt: int) -> float | None:
        if attempt >= self.max_retries:
            return None
        if retry_after is not None:
            return retry_after if retry_after <= self.max_wait else None
        # Spread out, so that clients that failed together do not come back together.
        return min(self.max_wait, _FIRST_WAIT * 2.0**attempt) * random.uniform(0.5, 1.0)
