"""Looking at a store: ``info``, ``streams``, ``show``, ``event``, ``tail`` and ``backup``."""

from __future__ import annotations

import functools
import json
from collections import deque
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer

from esource import Query, QueryItem, ReadDirection, ReadOptions, StoredEvent
from esource.browsing import StreamSummary, overview
from esource.browsing.units import duration, one_line, size
from esource.checks import check_path, check_whole
from esource.cli.errors import Refusal, wrong_usage
from esource.cli.opening import DatabaseUrl, reading
from esource.cli.output import Output
from esource.cli.progress import Bar
from esource.cli.running import AsJson, asynchronous, shows
from esource.copying.backup import back_up
from esource.errors import EventDecodeError
from esource.log.pages import event_by_id
from esource.repositories.checkpoint import LagMetrics
from esource.repositories.outbox import OutboxStats

commands = typer.Typer(no_args_is_help=True)


def reachable(param: typer.CallbackParam, value: int | None) -> int | None:
    """A number that a database can count to.

    Raises:
        InvalidOptionError: it is larger.
    """
    return None if value is None else check_whole(param.opts[0], value)


Limit = Annotated[int, typer.Option(min=1, callback=reachable, help="Show at most N rows.")]
Days = Annotated[int, typer.Option(min=0, help="Delete only rows older than N days.")]


def parse_id(text: str, what: str) -> UUID:
    """The id that a text stands for.

    Raises:
        Refusal: it is not a UUID.
    """
    try:
        return UUID(text)
    except ValueError as error:
        raise wrong_usage(f"{what} is a UUID, not {text!r}.") from error


def as_document(stored: StoredEvent) -> dict[str, Any]:
    """An event with its places, as JSON has it."""
    return {
        "global_position": stored.global_position,
        "stream_id": stored.stream_id,
        "version": stored.stream_position,
        "event_id": stored.event_id,
        "event_type": stored.event_type,
        "tenant_id": stored.tenant_id,
        "actor_id": stored.actor_id,
        "occurred_at": stored.occurred_at,
        "stored_at": stored.stored_at,
        "tags": sorted(stored.tags),
        "payload": _payload(stored),
    }


def _payload(stored: StoredEvent) -> Any:
    try:
        return json.loads(stored.payload)
    except ValueError as error:
        row = stored.event_type, str(stored.event_id), stored.global_position
        raise EventDecodeError(*row, f"its payload is no JSON: {error}") from error


def _say_overview(found: overview.Overview, output: Output) -> None:
    whole, *parts = found.sizes
    moved = [] if found.moved_to is None else [("moved to", f"{found.moved_to}; undo with `esource reopen`")]
    output.facts(
        [
            ("database", found.database),
            ("product", found.product),
            ("schema", found.schema),
            *moved,
            ("size", size(whole.bytes)),
            *((f"size of {part.name}", size(part.bytes)) for part in parts),
            ("events", f"{found.events:,}"),
            ("last position", f"{found.position:,}"),
            ("streams", ", ".join(f"{count:,} {kind}" for kind, count in found.streams.items()) or "none"),
            ("outbox", _outbox(found.outbox)),
            ("dead letters", f"{found.dead_letters.total_failed + found.dead_letters.total_retrying}"),
            *(
                (
                    "tags being filled",
                    f"{filling.tag_name}:... of {filling.event_type}, at {filling.global_position:,}",
                )
                for filling in found.fillings
            ),
        ]
    )
    if found.types:
        output.heading("Events")
        output.table(
            ["aggregate type", "event type", "events", "newest"],
            [(row.aggregate_type, row.event_type, row.events, row.newest) for row in found.types],
        )
    if found.projections:
        output.heading("Projections")
        say_lags(found.projections, output)
    if found.indexes:
        output.heading("Indexes")
        output.table(
            ["table", "index", "size", "used"],
            [(row.table, row.index, size(row.bytes), row.scans) for row in found.indexes],
            spare=["table"],
        )


@commands.command("info")
@shows(_say_overview)
async def info(url: DatabaseUrl = None) -> overview.Overview:
    """Show a store at a glance: sizes, counts, positions, lag, index use."""
    async with reading(url) as store:
        return await overview.overview(store)


def _outbox(stats: OutboxStats) -> str:
    return f"{stats.pending_count} pending, {stats.failed_count} failed, {stats.published_count} published"


def say_lags(lags: list[LagMetrics], output: Output) -> None:
    """A table of how far projections are."""
    output.table(
        ["projection", "position", "behind", "for", "last event"],
        [
            (
                lag.projection_name,
                lag.global_position,
                lag.lag_events,
                duration(lag.lag_seconds),
                (lag.last_processed_at or "-")[:19].replace("T", " "),
            )
            for lag in lags
        ],
        empty="no checkpoints",
    )


def _say_streams(found: list[StreamSummary], output: Output) -> None:
    output.table(
        ["stream", "version", "position", "last event"],
        [(row.stream_id, row.version, row.global_position, row.newest) for row in found],
        empty="no streams",
        spare=["position"],
    )


@commands.command("streams")
@shows(_say_streams)
async def streams(
    url: DatabaseUrl = None,
    aggregate_type: Annotated[
        str | None, typer.Option("--type", help="Only streams of this aggregate type.")
    ] = None,
    limit: Limit = 50,
) -> list[StreamSummary]:
    """List streams. The stream with the latest append comes first."""
    async with reading(url) as store:
        return await overview.streams(store, aggregate_type=aggregate_type, limit=limit)


def _say_events(found: list[StoredEvent], output: Output) -> None:
    for stored in found:
        _say_event(stored, output)


def _say_event(stored: StoredEvent, output: Output) -> None:
    output.heading(
        f"{one_line(stored.event_type)}  version {stored.stream_position}, position {stored.global_position}"
    )
    facts = {
        "stream": stored.stream_id,
        "event id": stored.event_id,
        "occurred": stored.occurred_at,
        "stored": stored.stored_at,
        "tenant": stored.tenant_id,
        "actor": stored.actor_id,
        "tags": ", ".join(map(one_line, sorted(stored.tags))) or None,
    }
    output.facts((name, value) for name, value in facts.items() if value is not None)
    output.json_text(_payload(stored))


@commands.command("show")
@shows(_say_events, document=lambda found: [as_document(stored) for stored in found])
async def show(
    stream: Annotated[str, typer.Argument(metavar="STREAM", help="<aggregate id>:<aggregate type>")],
    url: DatabaseUrl = None,
    after: Annotated[
        int, typer.Option("--from", min=0, callback=reachable, help="Only events after this version.")
    ] = 0,
    limit: Annotated[
        int | None, typer.Option(min=1, callback=reachable, help="Show at most N events.")
    ] = None,
) -> list[StoredEvent]:
    """Show a stream's events with their payloads."""
    async with reading(url) as store:
        options = ReadOptions(from_position=after, limit=limit)
        found = [stored async for stored in store.read_stream(stream, options)]
        if not found and not after:
            raise Refusal(f"there is no stream {stream} in {store.name}.")
        return found


@commands.command("event")
@shows(_say_event, document=as_document)
async def event(
    event_id: Annotated[str, typer.Argument(metavar="ID", help="The event's id.")],
    url: DatabaseUrl = None,
) -> StoredEvent:
    """Show one event."""
    wanted = parse_id(event_id, "an event id")
    async with reading(url) as store:
        row = await event_by_id(store._opened.database, wanted)
        if row is None:
            raise Refusal(f"there is no event {wanted} in {store.name}.")
        return StoredEvent(row, store.codec.decode)


@commands.command("tail")
@asynchronous
async def tail(
    url: DatabaseUrl = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Continue with new events as they are appended.")
    ] = False,
    event_type: Annotated[
        list[str] | None, typer.Option("--type", help="Only this event type; may be repeated.")
    ] = None,
    aggregate_type: Annotated[
        list[str] | None, typer.Option(help="Only this aggregate type; may be repeated.")
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(help="Only events with this tag; if repeated, with all of them.")
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's events.")] = None,
    after: Annotated[
        int | None,
        typer.Option("--from", min=0, callback=reachable, help="Begin after this position."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, callback=reachable, help="Show at most N events; 10 without --from."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the last events of the log, one in each line. With --json each line is JSON."""
    chosen: dict[str, Any] = {
        "event_types": event_type or None,
        "aggregate_types": aggregate_type or None,
        "tenant_id": None if tenant is None else parse_id(tenant, "a tenant id"),
    }
    if tag:
        chosen["query"] = Query(QueryItem(chosen.pop("event_types") or (), tag))
    write = _json_line if as_json else functools.partial(_line, Output())
    async with reading(url) as store:
        shown, position = 0, after or 0
        if after is None:
            position = await store.get_global_position()
            for stored in await _last(store, position, limit or 10, chosen):
                write(stored)
                shown += 1
            if not follow:
                return
        if limit is not None and shown >= limit:
            return
        async for stored in store.subscribe(position, live=follow, **chosen):
            write(stored)
            shown += 1
            if shown == limit:
                return


async def _last(store: Any, upto: int, limit: int, chosen: dict[str, Any]) -> list[StoredEvent]:
    if "query" in chosen:  # which is read forward
        found = deque[StoredEvent](maxlen=limit)
        async for stored in store.read_all(ReadOptions(**chosen)):
            found.append(stored)
        return list(found)
    options = ReadOptions(direction=ReadDirection.BACKWARD, from_position=upto + 1, limit=limit, **chosen)
    return [stored async for stored in store.read_all(options)][::-1]


def _json_line(stored: StoredEvent) -> None:
    Output().json_line(as_document(stored))


def _line(output: Output, stored: StoredEvent) -> None:
    moment = stored.stored_at.strftime("%Y-%m-%d %H:%M:%S")
    output.say(
        f"{stored.global_position:>8}  {moment}  {one_line(stored.event_type)}  {one_line(stored.stream_id)}  "
        f"v{stored.stream_position}"
    )


@commands.command("backup")
@asynchronous
async def backup(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="The new file.")], url: DatabaseUrl = None
) -> None:
    """Copy a SQLite database to a new file while it is written to, and check the copy."""
    target, bar = Path(check_path("the file", target)), Bar()
    async with reading(url, any_schema=True) as store:
        with bar.progress:
            await back_up(store, target, on_progress=bar.tell)
    Output().say(f"{target} is a complete copy, {size(target.stat().st_size)}.")
