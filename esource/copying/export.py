"""A whole store as one file, and back: for keeping, for other programs, for a database far away."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO, TypeAlias

from esource import schema
from esource.checks import LARGEST_POSITION, STANDARD_LIMITS, Limits
from esource.copying.files import RowsReader, RowsWriter, opened, path_of, written
from esource.copying.mirror import counters, load, raise_counters
from esource.copying.movable import unmovable
from esource.copying.progress import OnProgress, Progress
from esource.copying.restarts import Reset, Restarts
from esource.copying.rows import CHECKPOINTS, EVENTS, MIRRORED, Relation, Row, require_empty, same_keys, scan
from esource.database.sources import Source
from esource.errors import FileRefusedError, InvalidEventError, InvalidOptionError
from esource.log.filling import require_all_filled

File: TypeAlias = "str | os.PathLike[str] | BinaryIO"
"""A file's name, compressed if it ends in ``.gz`` or ``.zst``; or one that is open for bytes."""

HOLDS = "store"
"""What the first line of an export says that it holds."""

SOURCE = "/esource"
"""The CloudEvents ``source`` unless another is asked for."""


_GLOBAL_POSITION = CHECKPOINTS.columns(with_key=True).index("global_position")


@dataclass(frozen=True, slots=True)
class ExchangeResult:
    """What was exported or imported."""

    database: str
    file: str
    rows: dict[str, int]
    """Rows by table; tables without rows are missing."""
    seconds: float
    checkpoints: dict[str, int] = field(default_factory=dict)
    """The checkpoints that were imported, with their positions. What their projections, or subscriptions, have made
    of the events is in no export."""
    reset: list[str] = field(default_factory=list)
    """The checkpoints that were left out, because their projections are to begin anew."""

    @property
    def events(self) -> int:
        return self.rows.get(EVENTS.name, 0)


async def export_store(
    store: Source, file: File, *, source: str = SOURCE, on_progress: OnProgress | None = None
) -> ExchangeResult:
    """Write all five tables to a file of JSON Lines, as they are at one moment.

    Writers go on meanwhile, but not those of a SQLite file without WAL (``wal_mode=False``): they cannot commit while
    it is read, and fail after their ``busy_timeout``. Export a backup of such a file (`back_up`), if it is written to.

    Each event is a CloudEvent, with its global position and the moment it was stored as attributes. The file
    appears under its name when it is complete and on the disk.

    Args:
        store: a store, an engine or a URL, at the newest schema.
        file: what to write; it must not be there yet.
        source: the CloudEvents ``source``: a URI reference that names the application.
        on_progress: called now and then.

    Raises:
        InvalidOptionError: the file is there already or cannot be made, or the source is empty.
        InvalidEventError: a row that another program wrote cannot be read; nothing is left of the file.
        MissingDriverError: ``.zst`` without the extra ``zstd``.
        TagsIncompleteError: events are still being given tags; see `fill_tags`.
        SchemaError: the tables are missing, older or newer.
    """
    if not source:
        raise InvalidOptionError("source must not be empty: CloudEvents demands one, such as '/shop'")
    started = time.monotonic()
    async with schema.whole_store(store, "an export") as database:
        async with _to(file) as opened_file, database.reading():
            await require_all_filled(database)
            header = {
                "holds": HOLDS,
                "schema": schema.HEAD,
                "database": database.backend.name,
                "counters": await counters(database, (EVENTS, *MIRRORED)),
            }
            writer = RowsWriter(opened_file, header, source)
            [(total,)] = await database.rows(EVENTS.count, {})
            for relation in (EVENTS, *MIRRORED):
                async for rows in scan(database, relation):
                    await asyncio.to_thread(_write, writer, relation, rows, database.name)
                    if on_progress is not None:
                        done = writer.counts[relation.name]
                        step, of = ("export", total) if relation is EVENTS else (relation.name, 0)
                        on_progress(Progress(step, done, of))
            await asyncio.to_thread(writer.end)
        return ExchangeResult(database.name, name_of(file), dict(writer.counts), time.monotonic() - started)


def _write(writer: RowsWriter, relation: Relation, rows: list[Row], database: str) -> None:
    try:
        writer.rows(relation, rows)
    except (ValueError, TypeError, AttributeError, RecursionError):
        for row in rows:
            problem = unmovable(relation, row)
            if problem is not None:
                raise InvalidEventError(
                    *problem,
                    remedy=f"It is the row {row[relation.key_place]} of {relation.name} in {database}: mend "
                    "it, then export again",
                ) from None
        raise


async def import_store(
    store: Source,
    file: File,
    *,
    limits: Limits = STANDARD_LIMITS,
    reset: Reset = (),
    on_progress: OnProgress | None = None,
) -> ExchangeResult:
    """Fill an empty store from a file that `export_store` wrote, on either kind of database.

    One transaction: all of the file or nothing. Positions, ids and moments stay what they are.

    Args:
        store: a store, an engine or a URL; its tables are made if there are none.
        file: what to read.
        limits: what a row may hold, as of the store that it comes from. A file that holds more is refused before
            it takes the memory.
        reset: the names of projections whose checkpoints, of all versions and partitions, and dead letters are left
            out, so that they begin anew; or "all". No read model is in the file.
        on_progress: called now and then.

    Raises:
        CopyRefusedError: the store is not empty.
        FileRefusedError: the file is cut off, was changed, or holds something else.
        InvalidOptionError: the file cannot be read, or has no checkpoint of a name in ``reset``.
        ConstraintError: two of its rows exclude each other.
    """
    started = time.monotonic()
    restarts = Restarts(reset)
    checkpoints: dict[str, int] = {}
    async with schema.whole_store(store, "an import", any_schema=True) as database:
        with _from(file, limits) as reader:
            if reader.header.get("holds") != HOLDS:
                raise FileRefusedError(
                    name_of(file), "this is no export of a store. Is it an archive?", line=1
                )
            await schema.initialize(database)
            async with database.transaction() as unit:
                await database.backend.lock_log(unit.driver)
                await require_empty(database)
                made_by = str(reader.header.get("database"))
                batches = reader.batches()
                last = 0
                while (batch := await asyncio.to_thread(next, batches, None)) is not None:
                    for relation in (EVENTS, *MIRRORED):
                        rows = [row for of, row in batch if of is relation]
                        if relation is CHECKPOINTS:
                            checkpoints |= {row[CHECKPOINTS.key_place]: _position_of(row) for row in rows}
                        rows = restarts.without(relation, rows)
                        if rows:
                            with_key = same_keys(relation, made_by, database.backend.name)
                            await load(database, unit, relation, rows, with_key=with_key)
                            if relation is EVENTS:
                                last = max(last, *(row[EVENTS.key_place] for row in rows))
                    if on_progress is not None:
                        on_progress(Progress("import", reader.counts[EVENTS.name], 0))
                restarts.require_known(checkpoints, name_of(file))
                found = _counters(reader, name_of(file))
                # Whatever the first line says: what is appended next must come after what is here.
                found[EVENTS.name] = max(last, found.get(EVENTS.name, 0))
                await raise_counters(database, (EVENTS, *MIRRORED), found)
        return ExchangeResult(
            database.name,
            name_of(file),
            dict(reader.counts),
            time.monotonic() - started,
            {name: at for name, at in checkpoints.items() if at and not restarts.concern(name)},
            [name for name in checkpoints if restarts.concern(name)],
        )


def _position_of(row: Row) -> int:
    """Where a checkpoint is; 0 if it only names the version that is in use."""
    return row[_GLOBAL_POSITION] or 0


def _counters(reader: RowsReader, file: str) -> dict[str, int]:
    found = reader.header.get("counters")
    if not isinstance(found, dict) or any(
        type(value) is not int or not 0 <= value <= LARGEST_POSITION for value in found.values()
    ):
        raise FileRefusedError(file, f"its counters are no numbers: {found!r:.80}", line=1)
    return dict(found)


@asynccontextmanager
async def _to(file: File) -> AsyncIterator[BinaryIO]:
    if isinstance(file, (str, os.PathLike)) or not hasattr(file, "write"):
        async with written(path_of(file)) as opened_file:
            yield opened_file
    else:
        yield file
        file.flush()


@contextmanager
def _from(file: File, limits: Limits) -> Iterator[RowsReader]:
    if isinstance(file, (str, os.PathLike)) or not hasattr(file, "read"):
        with opened(path_of(file), limits) as reader:
            yield reader
    else:
        yield RowsReader(file, name_of(file), limits)


def name_of(file: File) -> str:
    """The file's name for messages."""
    if isinstance(file, (str, os.PathLike)):
        return os.fspath(file)
    return str(getattr(file, "name", "the file"))
