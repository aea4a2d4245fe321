"""Telling that a projection has passed events over, because it did not handle their types when it came past them."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from esource.projections.job import Job
from esource.repositories.checkpoint import CheckpointRepository

logger = logging.getLogger("esource")


async def tell_of_missed(job: Job) -> None:
    """Say so if fewer events were dealt with than there are of its types up to the checkpoint: a handler was added
    since. As many queries as partitions, and two that count the events of its types."""
    checkpoints = CheckpointRepository(job.database)
    own = [await checkpoints.get_checkpoint_data(name) for name in job.checkpoints]
    position = min((found.global_position or 0 if found else 0 for found in own), default=0)
    codec = job.reader.codec
    types = job.projection.event_types(codec.registry)
    if position and not (types is None and codec.unknown_events == "skip"):
        done = sum(found.events_processed for found in own if found)
        await _tell(job, position, types, done)


async def tell_of_new_types(job: Job, position: int, types: Iterable[str]) -> None:
    """Say so if there are events of these types, which are handled from now on, up to a position. Two queries."""
    if position and types:
        await _tell(job, position, types, 0)


async def count_up_to(job: Job, position: int, types: Iterable[str] | None) -> int:
    """How many events of these types there are up to a position. Two queries."""
    checkpoints = CheckpointRepository(job.database)
    everything, _ = await checkpoints.get_lag(0, types)
    later, _ = await checkpoints.get_lag(position, types)
    return everything - later


async def _tell(job: Job, position: int, types: Iterable[str] | None, done: int) -> None:
    missed = await count_up_to(job, position, types) - done
    if missed > 0:
        logger.warning(
            "%s: %d events of the types that it handles lie before its checkpoint (position %d) and were not "
            "handled: a handler or a class of events was added since. Raise its version or rebuild it, if its read "
            "model needs them",
            job.stats.title,
            missed,
            position,
        )
