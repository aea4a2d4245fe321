"""Repeating what can be repeated, with growing pauses, for a limited time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from esource.checks import check_seconds, check_whole

T = TypeVar("T")

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 1.0
"""A pause is a random part of a span that doubles from the first of these to the second: many who were refused at
once do not come back at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often something that failed is tried, with exponentially growing, jittered pauses between.

    Raises:
        InvalidOptionError: no attempt at all, or a negative pause.
    """

    attempts: int = 5
    """Attempts in all, the first included."""
    first_seconds: float = 0.1
    """The first pause; each next one is about twice as long."""
    longest_seconds: float = 30.0
    """No pause is longer."""

    def __post_init__(self) -> None:
        check_whole("attempts", self.attempts, least=1)
        check_seconds("first_seconds", self.first_seconds)
        check_seconds("longest_seconds", self.longest_seconds)

    def pause_after(self, attempts: int) -> float:
        """The pause after so many attempts, in seconds. It is drawn between a half and the whole of what it has
        grown to, so that many that failed together do not come back together."""
        longest = min(self.longest_seconds, self.first_seconds * 2.0 ** min(attempts - 1, 62))
        return random.uniform(longest / 2, longest)  # noqa: S311 - spreads load, keeps no secret


async def pause_or_raise(retry: Retry, attempts: int, conflict: Exception) -> None:
    """Pause after so many attempts, before the next one.

    Raises the conflict with which the last attempt ended if there is to be no other.
    """
    if attempts >= retry.attempts:
        raise conflict
    await asyncio.sleep(retry.pause_after(attempts))


async def retry(
    operation: Callable[[], Awaitable[T]],
    *,
    while_: Callable[[BaseException], bool],
    seconds: float,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> T:
    """Run an operation; again, after a pause, while its error is one that may pass.

    Raises the operation's last error when the time is over, and any other error at once.

    Args:
        operation: What can safely be done more than once.
        while_: Whether an error is one that may pass.
        seconds: How long to go on after the first failure.
        sleep: How to wait between two attempts, for so many seconds.
    """
    try:
        return await operation()
    except Exception as error:
        if not while_(error):
            raise
    from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_random_exponential

    async def attempt() -> T:
        return await operation()

    return await AsyncRetrying(
        stop=stop_after_delay(seconds),
        wait=wait_random_exponential(multiplier=FIRST_PAUSE_SECONDS, max=LONGEST_PAUSE_SECONDS),
        retry=retry_if_exception(while_),
        sleep=sleep,
        reraise=True,
    )(attempt)
