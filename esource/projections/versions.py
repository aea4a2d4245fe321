"""Beginning, rebuilding and replacing a read model.

The row of the projection's bare name says which version is active. A version is built beside the active
one with checkpoints of its own; the switch happens in one transaction under the append lock: what is left
of the log is handled, the hook `Projection.take_over` runs, the active version changes. Nothing can be
appended in between, so that readers never see a read model that lacks an event which the old one had.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from esource.checks import check_whole
from esource.database.calls import answer_of
from esource.database.sources import Source, database_of
from esource.database.unit_of_work import Unit
from esource.errors import InvalidOptionError
from esource.log.pages import LAST_POSITION, page_after
from esource.projections import checkpoints
from esource.projections.dead_letters import forget, halted_streams, hold_back, stream_of
from esource.projections.job import Job
from esource.projections.missed import count_up_to

if TYPE_CHECKING:
    from esource.projections.checkpoints import CheckpointState
    from esource.tables.rows import EventRow


class _NotYet(Exception):  # noqa: N818 - a turn of events, not an error
    """The new version cannot take over now."""


def active_in(states: dict[str, CheckpointState], name: str) -> int | None:
    """The active version; a checkpoint from before there were versions is the first."""
    state = states.get(name)
    if state is None:
        return None
    return state.active_version or (1 if state.has_started else None)


async def active_version(database: Source, name: str) -> int | None:
    """The version of a projection's read model that readers are to use; None before it was first run.
    One query.

    Args:
        database: A store, an engine, a URL.
        name: `Projection.name`.
    """
    return active_in(await checkpoints.states(database_of(database)), name)


async def _lock_family(job: Job, unit: Unit) -> int | None:
    """Lock the row of the projection's bare name; the active version."""
    name = job.projection.name
    await checkpoints.create(job.database, unit, [name])
    position, active = (await checkpoints.lock(job.database, unit, [name]))[name]
    return active or (1 if position is not None else None)


async def prepare(job: Job) -> bool:
    """Create what this version needs before its first event; False if a newer version is the active one.

    Raises:
        InvalidOptionError: it has been running in another number of partitions, or a checkpoint is ahead of the log.
    """
    projection, database = job.projection, job.database
    for name, state in job.own(await checkpoints.states(database)).items():
        await job.reader.require_reached(name, state.position)
    async with database.transaction() as unit:
        active = await _lock_family(job, unit)
        if active is None:
            await checkpoints.activate(database, unit, projection.name, projection.version)
            active = projection.version
        if active > projection.version:
            return False
        job.is_building = active < projection.version
        states = await checkpoints.states(database)
        others = job.otherwise_divided(states)
        if others:
            raise InvalidOptionError(
                f"{projection.checkpoint_name} has checkpoints of other partitions ({', '.join(sorted(others))}): "
                "run it with as many as before, or rebuild it"
            )
        own = job.own(states)
        if not any(state.has_started for state in own.values()):
            await checkpoints.create(database, unit, job.checkpoints)
            await job.reset(unit)
            await checkpoints.rewind(database, unit, job.checkpoints, 0)
    return True


async def rewind(job: Job, from_position: int) -> None:
    """Empty the read model and set its checkpoints to a position, even while workers run."""
    check_whole("from_position", from_position)
    projection, database = job.projection, job.database
    async with database.transaction() as unit:
        active = await _lock_family(job, unit)
        if active is None:
            await checkpoints.activate(database, unit, projection.name, projection.version)
        # Locked before the read model is emptied: a worker that is about to commit does so before, and
        # one that is not finds its checkpoint moved.
        others = job.otherwise_divided(await checkpoints.states(database))
        await checkpoints.create(database, unit, job.checkpoints)
        await checkpoints.lock(database, unit, sorted({*job.checkpoints, *others}))
        await job.reset(unit)
        await checkpoints.delete(database, unit, [name for name in others if name != projection.name])
        done = 0
        if from_position:
            types = projection.event_types(job.reader.codec.registry)
            done = -(-await count_up_to(job, from_position, types) // job.partitions)
        await checkpoints.rewind(database, unit, job.checkpoints, from_position, done)
        await forget(database, unit, projection.checkpoint_name, from_position)


async def take_over(job: Job) -> bool:
    """Make this version the active one if it has caught up but for a batch; whether it is active now.

    Raises whatever `Projection.take_over` raises.
    """
    projection, database = job.projection, job.database
    try:
        async with database.transaction() as unit:
            with database.backend.errors(database.name):
                await database.backend.lock_log(unit.driver)
            active = await _lock_family(job, unit)
            if active is not None and active >= projection.version:
                return True
            head: int = (await database.rows(LAST_POSITION, {}, unit))[0][0] or 0
            states = job.own(await checkpoints.states(database))
            if len(states) < job.partitions:
                raise _NotYet  # noqa: TRY301 - rolls the transaction back
            for number, name in enumerate(job.checkpoints):
                await _finish(job, unit, number, states[name].position, head)
            await job.call(
                answer_of(projection.take_over, unit.lent), "take_over()"
            )  # no append is possible meanwhile
            await checkpoints.activate(database, unit, projection.name, projection.version)
    except _NotYet:
        return False
    return True


async def _finish(job: Job, unit: Unit, number: int, position: int, head: int) -> None:
    """Handle what a partition has left to do.

    Raises:
        _NotYet: it is more than a batch, or fails: the worker of that partition will see to it.
    """
    if position >= head:
        return
    size = job.projection.batch_size
    wanted = job.selection(job.projection.event_types(job.reader.codec.registry))
    rows = await page_after(job.database, wanted, position, size)
    if len(rows) == size:
        raise _NotYet
    rows = job.known(rows, number)
    try:
        await _handle(job, unit, rows)
    except Exception as error:
        raise _NotYet from error
    last = rows[-1] if rows else None
    name = job.checkpoint(number)
    if not await checkpoints.advance(job.database, unit, name, position, head, last, len(rows)):
        raise _NotYet


async def _handle(job: Job, unit: Unit, rows: list[EventRow]) -> None:
    projection = job.projection
    halted = {}
    if rows and projection.on_failure == "halt_stream":
        halted = await halted_streams(job.database, unit, projection.checkpoint_name)
    for row in rows:
        behind = halted.get(stream_of(row))
        if behind is not None:
            await hold_back(job.database, projection.checkpoint_name, row, behind)
        else:
            await job.handle(row, unit if job.in_transaction else None)
