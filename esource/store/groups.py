"""Commands on one aggregate that one append stores together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic
from uuid import UUID

from esource.errors import OptimisticLockError
from esource.store.saving import Saved, TAggregate

GROUP_COMMANDS = 100
"""Commands that one append stores at most."""

GROUP_EVENTS = 1000
"""Events that one append stores at most, unless a single command has more."""


class Group(Generic[TAggregate]):
    """Commands on one aggregate that one append stores."""

    def __init__(
        self,
        send: Callable[[UUID, Group[TAggregate]], Awaitable[None]],
        aggregate: TAggregate,
        *,
        is_proved: bool,
    ) -> None:
        self.send = send
        """Stores it: a method of the executor that has begun it."""
        self.aggregate = aggregate
        self.base = aggregate.version - len(aggregate.uncommitted_events)
        """The version before its first event."""
        self.is_proved = is_proved
        """Whether the aggregate was loaded for it, so that a conflict is news."""
        self.commands = 1
        self.is_sent = False
        self.wake = asyncio.Event()
        """Set when it is stored, or when its first command has to look whether it must store it."""
        self.settled = asyncio.Event()
        """Set when it is known what became of it."""
        self.done = asyncio.Event()
        """Set when its commands may return."""
        # What became of it; nothing of these: its commands have to be called again.
        self.saved: Saved[TAggregate] | None = None
        self.conflict: OptimisticLockError | None = None
        self.error: Exception | None = None
        self.is_divided = False
        """Whether one of its commands is to blame, so that each has to be stored alone."""

    @property
    def is_full(self) -> bool:
        """Whether it is to be stored, though others wait."""
        return self.commands >= GROUP_COMMANDS or self.aggregate.version - self.base >= GROUP_EVENTS

    async def follow(self) -> None:
        """What comes after its commit, when that is known."""
        await self.settled.wait()
        if self.saved is not None and self.saved.is_settled:
            await self.saved.follow()


@dataclass(frozen=True, slots=True)
class Target(Generic[TAggregate]):
    """A command and its aggregate."""

    aggregate_id: UUID
    find: Callable[[UUID], Awaitable[TAggregate]]
    call: Callable[[TAggregate], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Part(Generic[TAggregate]):
    """One command of a group."""

    group: Group[TAggregate]
    leads: bool
    """Whether it is the first one."""
    version: int
    """That of the aggregate after it."""
    has_events: bool
    refusal: Exception | None
    """What it has raised."""
