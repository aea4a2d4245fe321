"""What is to hold of a store that is opened on what a power cut has left."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from adversity.powercut.disk import Cut, Disk, cuts
from adversity.powercut.recording import Call
from adversity.torture.log import check_log, whole_log
from adversity.torture.writer import Written
from esource import StoredEvent, open_store

Log = Sequence[tuple[int, UUID]]
"""Positions and event ids."""


@dataclass(frozen=True)
class Recording:
    """A writer's life on a disk."""

    base: Path
    """The folder before."""
    calls: Sequence[Call]
    after: Mapping[str, str]
    """What was in the folder then (`contents`)."""
    whole: Log
    """The log in the end."""

    def missed(self, folder: Path) -> set[str]:
        """Files that are not what they became when all calls are played: the recording would not be the whole truth."""
        disk = Disk(self.base)
        for call in self.calls:
            disk.take(call)
        disk.cut("everything", random.Random(), folder)
        return {path for path, _ in contents(folder).items() ^ self.after.items()}

    def cuts(self, moments: int, draw: random.Random, folder: Path) -> Iterator[Cut]:
        """Cuts at so many moments: one half anywhere, one half just when an append was acknowledged."""
        said = [number for number, call in enumerate(self.calls) if call.name == "say"]
        half = moments // 2
        anywhere = [number for number in range(len(self.calls)) if number not in said]
        chosen = draw.sample(anywhere, min(len(anywhere), half)) + draw.sample(
            said, min(len(said), moments - half)
        )
        return cuts(self.base, self.calls, chosen, draw, folder)

    def acknowledged(self) -> int:
        """Events that the writer was told are stored."""
        said = b"".join(call.data for call in self.calls if call.name == "say").splitlines()
        return sum(int(line.split()[1]) for line in said)


def contents(folder: Path, ignore: Callable[[str], bool] = lambda _: False) -> Mapping[str, str]:
    """The files of a folder by their paths in it, each as a digest."""
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in files.items()
        if not ignore(name)
    }


def places(log: Sequence[StoredEvent]) -> Log:
    return [(stored.global_position, stored.event_id) for stored in log]


async def log_at(url: str) -> Log:
    async with open_store(url, enable_tracing=False) as store:
        return places(await whole_log(store))


async def lost_after(cut: Cut, url: str, whole: Log) -> set[str]:
    """The appends that were acknowledged before a cut and are not stored after it.

    Fails unless the rest is as promised of any cut: the store opens, no append is there by half, what is there is the
    beginning of the log as it was going to be, and appends are taken.
    """
    # The power is cut once; what happens afterwards need not wait for the real disk.
    hurry: dict[str, Any] = {"synchronous": "NORMAL"} if url.startswith("sqlite") else {}
    async with open_store(url, enable_tracing=False, **hurry) as store:
        await store.initialize()
        log = await whole_log(store)
        stored = check_log(log)
        assert places(log) == whole[: len(log)], "what is left is no beginning of the log"
        event = Written(aggregate_id=uuid4(), batch_id=uuid4(), batch_size=1)
        result = await store.append_events(event.aggregate_id, "Torture", [event], 0)
        assert not log or result.global_position > log[-1].global_position
    return {batch for batch, size in cut.acknowledged.items() if stored[UUID(batch)] != size}
