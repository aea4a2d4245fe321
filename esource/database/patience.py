"""Repeating what can be repeated, with growing pauses, for a limited time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 1.0
"""A pause is a random part of a span that doubles from the first of these to the second: many who were refused at
once do not come back at once."""


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
