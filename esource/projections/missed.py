"""Telling that a projection has passed events over, because it did not handle their types when it came past them."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from esource.projections.checkpoints import CheckpointState
from esource.projections.job import Job
from esource.projections.names import Doing
from esource.repositories.checkpoint import CheckpointRepository

logger = logging.getLogger("esource")


async def tell_of_missed(job: Job, own: dict[str, CheckpointState]) -> bool:
    """Say so if its checkpoints were moved by workers that handled other types, and fewer events were dealt with than there
    are of its types up to there; or if another class has moved them. Returns whether events were missed.

    Where the last worker handled the same types, nothing is asked. Else as many queries as partitions, and two that count
    the events of its types.
    """
    codec = job.reader.codec
    types = job.projection.event_types(codec.registry)
    wanted = Doing.of(job.projection, types)
    before = {Doing.in_owner(state.last_owner) for state in own.values() if state.position}
    for each in before:
        if each is not None and each.is_of_another_class(wanted):
            logger.warning(
                "%s: its checkpoint was moved by another class before, %s. Nothing is wrong if that is its old name; else give "
                "one of the two another name, since each has passed over what the other has handled",
                job.stats.title,
                each.class_name,
            )
    if before <= {wanted} or (types is None and codec.unknown_events == "skip"):
        return False
    checkpoints = CheckpointRepository(job.database)
    found = [await checkpoints.get_checkpoint_data(name) for name in job.checkpoints]
    position = min((data.global_position or 0 if data else 0 for data in found), default=0)
    done = sum(data.events_processed for data in found if data)
    return bool(position) and await _tell(job, position, types, done)


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


async def _tell(job: Job, position: int, types: Iterable[str] | None, done: int) -> bool:
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
    return missed > 0
