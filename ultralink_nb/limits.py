"""Going no faster than an endpoint allows: requests and tokens a minute, and one pause that all requests share.

Times are of the monotonic clock, in seconds. All objects here belong to one event loop.
"""

import asyncio
import contextlib
import email.utils
import math
import random
import time
from collections.abc import Mapping

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0


def backoff(step: int) -> float:
    """Seconds to wait before asking again for the `step`-th time, from 0: doubled every time, and spread by half either way."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(step, 30)) * random.uniform(0.5, 1.5)


def named_pause(headers: Mapping[str, str]) -> float | None:
    """The seconds that a response asks to wait, 0 or more: `Retry-After` in seconds or as a date; None where it names none.

    A date is held against the response's own `Date`, so that a server whose clock is wrong is understood too.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
            if math.isfinite(seconds):
                return max(0.0, seconds)
        except ValueError:
            continue
    try:
        until = email.utils.parsedate_to_datetime(headers.get("retry-after", "")).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
    try:
        now = email.utils.parsedate_to_datetime(headers.get("date", "")).timestamp()
    except (TypeError, ValueError, OverflowError):
        now = time.time()
    return max(0.0, until - now)


class RateLimit:
    """At most `per_minute` of something, spread evenly: what is not used is saved up for one second, or for one piece.

    `take(amount)` returns when so much may be used, first come, first served; more than is saved up is lent and waited for by
    those who come after. `correct(difference)` is for when more (or, negative, less) was used than had been taken.
    """

    def __init__(self, per_minute: float):
        if not per_minute > 0:
            raise ValueError(f"a rate limit must be above 0 a minute, not {per_minute!r}")
        self.rate = per_minute / 60.0
        self.capacity = max(1.0, self.rate)
        self._level, self._at = self.capacity, time.monotonic()
        self._turn, self._given_back = asyncio.Lock(), asyncio.Event()

    def _fill(self) -> None:
        now = time.monotonic()
        self._level = min(self.capacity, self._level + (now - self._at) * self.rate)
        self._at = now

    async def take(self, amount: float = 1.0) -> None:
        async with self._turn:
            needed = min(amount, self.capacity)
            while True:
                self._fill()
                if self._level >= needed - 1e-9:
                    break
                self._given_back.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._given_back.wait(), (needed - self._level) / self.rate)
            self._level -= amount

    def correct(self, difference: float) -> None:
        self._fill()
        self._level = min(self.capacity, self._level - difference)
        if difference < 0:
            self._given_back.set()


class SharedPause:
    """One pause for all requests at an endpoint: where the server tells one to slow down, or is away, all wait.

    `since` is when the trouble began that still lasts, None where there is none.
    """

    def __init__(self) -> None:
        self.since: float | None = None
        self._until, self._began, self._step = 0.0, -math.inf, 0

    async def wait(self) -> None:
        """Returns when there is no pause; those who waited go on one after another, within a second."""
        while (left := self._until - time.monotonic()) > 0:
            await asyncio.sleep(left + random.uniform(0.0, min(1.0, 0.25 * left)))

    def begin(self, sent: float, named: float | None = None) -> float:
        """A request sent at that time met trouble; the seconds that all wait now. named: what the server asks for.

        Requests that were under way when the pause began met the same trouble: they do not lengthen it.
        """
        now = time.monotonic()
        self.since = now if self.since is None else self.since
        if named is not None:
            self._until = max(self._until, now + named)
        elif sent >= self._began:
            self._until = max(self._until, now + backoff(self._step))
        if sent >= self._began:
            self._step, self._began = self._step + 1, now
        return max(0.0, self._until - now)

    def longer_than(self, patience: float) -> bool:
        """Whether the trouble has lasted longer than so many seconds."""
        return self.since is not None and time.monotonic() - self.since > patience

    def end(self, sent: float) -> None:
        """A request sent at that time was answered."""
        if sent >= self._began:
            self._step, self.since = 0, None
