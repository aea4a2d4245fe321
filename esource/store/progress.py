"""The checkpoint of a subscription: where it begins, and how it moves on."""

from __future__ import annotations

import re
import time

from esource.errors import DatabaseError, InvalidOptionError
from esource.log.reader import LogReader
from esource.log.streams import StoredEvent
from esource.repositories.checkpoint import CheckpointRepository

ADVANCE_SECONDS = 1.0
"""A checkpoint that only moves past events which the filters left out is saved so often at most, in seconds."""


class Progress:
    """A subscription's checkpoint; each partition has one of its own. No I/O to make it."""

    def __init__(self, reader: LogReader, name: str, partition: tuple[int, int] | None) -> None:
        self._checkpoints = CheckpointRepository(reader)
        self._reader = reader
        self._family = name
        self.name = (
            name if partition is None or partition[1] == 1 else f"{name}[{partition[0]}/{partition[1]}]"
        )
        """What it is called in the database."""
        self._dealt = 0
        """Everything up to here was dealt with when it was saved last."""
        self._position = 0
        self._is_stored = False
        self._next = 0.0

    async def begin(self) -> int:
        """The position to begin at. One query; one more before the first save.

        Raises:
            InvalidOptionError: it was saved by another number of partitions, or is ahead of the log.
        """
        position = await self._checkpoints.get_position(self.name)
        self._is_stored = position is not None
        if position is None:
            position = await self._of_family()
        await self._reader.require_reached(self.name, position)
        self._dealt = self._position = position
        return position

    async def _of_family(self) -> int:
        """Where to begin without a checkpoint of its own: where the checkpoint without partitions is."""
        pattern = re.compile(re.escape(self._family) + r"\[\d+/(\d+)\]")
        own = pattern.fullmatch(self.name)
        begun = 0
        others = []
        for found in await self._checkpoints.get_all_checkpoints():
            match = pattern.fullmatch(found.projection_name)
            if found.projection_name == self._family:
                begun = found.global_position or 0
            elif match is not None and (own is None or match[1] != own[1]):
                others.append(found.projection_name)
        if others:
            raise InvalidOptionError(
                f"the checkpoint {self._family} was saved by another number of partitions ({', '.join(sorted(others))}): "
                "go on with as many as before. To change their number, let them come to the end of the log, save "
                "that position under the new names, and delete these (`esource projections reset NAME`)"
            )
        return begun

    async def save(self, last: StoredEvent) -> None:
        """Everything up to this event has been dealt with."""
        await self._checkpoints.save_position(self.name, last.global_position, last.event_id, last.event_type)
        self._dealt = max(self._dealt, last.global_position)
        self._position = max(self._position, self._dealt)
        self._is_stored = True

    async def advance(self, handed: int, position: int, *, at_once: bool = False) -> float:
        """Move past events that the filters left out, if all that was handed over is dealt with; how many seconds
        are left until that is due, if it is not due now. One statement at most.

        Args:
            handed: The position of the event that was handed over last; 0 if there was none.
            position: Where the subscription is.
            at_once: Do it although it was done just before.
        """
        if position <= self._position:
            return float("inf")
        left = self._next - time.monotonic()
        if left > 0 and not at_once:
            return left
        self._next = time.monotonic() + ADVANCE_SECONDS
        try:
            # The application may save in its own transactions: what is stored decides, not what was saved here.
            is_first = not self._is_stored and not handed
            if await self._checkpoints.move_past(
                self.name, max(handed, self._dealt), position, create=is_first
            ):
                self._position, self._is_stored = position, True
        except DatabaseError:
            pass  # the next time will do: nothing is handed over again for it
        return float("inf")
