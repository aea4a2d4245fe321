"""Files of events: ``export``, ``import``, ``close``, ``archive`` and ``restore``; and ``verify``."""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated

import typer

from esource import copying, default_registry
from esource.cli.asking import Yes, confirm
from esource.cli.errors import Code, wrong_usage
from esource.cli.loading import loaded
from esource.cli.opening import DatabaseUrl, asynchronous, database_url, reading, writing
from esource.cli.output import AsJson, Output
from esource.cli.progress import Bar
from esource.copying import archiving, integrity
from esource.domain.registry import EventRegistry
from esource.log.streams import parse_stream_name

commands = typer.Typer(no_args_is_help=True)

EventsFile = Annotated[
    str,
    typer.Argument(
        metavar="FILE", help="JSON Lines; compressed if the name ends in .gz or .zst. - is a pipe."
    ),
]
ArchiveFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="JSON Lines; compressed if the name ends in .gz or .zst.")
]
StreamName = Annotated[str, typer.Argument(metavar="STREAM", help="<aggregate id>:<aggregate type>")]
App = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE[:REGISTRY]",
        help="The module that defines the event classes, and its registry if it is not the default one.",
    ),
]


def _registry(app: str | None) -> EventRegistry | None:
    if app is None:
        return None
    found = loaded(app)
    if ":" not in app:
        return default_registry
    if not isinstance(found, EventRegistry):
        raise wrong_usage(f"{app!r} is a {type(found).__name__}, not an EventRegistry.")
    return found


@commands.command("verify")
@asynchronous
async def verify(url: DatabaseUrl = None, app: App = None, as_json: AsJson = False) -> None:
    """Look whether a store is in order, row by row; exit code 1 if it is not. Nothing is changed."""
    bar = Bar()
    registry = _registry(app)
    async with reading(url) as store:
        with bar.progress:
            found = await integrity.verify_store(store, registry=registry, on_progress=bar.tell)
    output = Output(as_json=as_json)
    if as_json:
        output.document(found)
    else:
        rows = ", ".join(f"{count} {table}" for table, count in found.rows.items())
        output.say(f"{found.database}: {rows}.")
        for finding in found.findings:
            output.say(str(finding), "red")
        if found.more:
            output.say(f"... and {found.more} more.")
        if found.is_whole:
            output.say(f"In order: {', '.join(found.checks)}.")
    if not found.is_whole:
        raise typer.Exit(Code.FOUND)


@commands.command("export")
@asynchronous
async def export(
    file: EventsFile,
    url: DatabaseUrl = None,
    source: Annotated[str, typer.Option(help="The CloudEvents source.")] = copying.SOURCE,
    as_json: AsJson = False,
) -> None:
    """Write a whole store to a file, as it is at one moment; each event is a CloudEvent."""
    bar = Bar()
    async with reading(url) as store:
        with bar.progress:
            result = await copying.export_store(
                store, sys.stdout.buffer if file == "-" else file, source=source, on_progress=bar.tell
            )
    if file != "-":
        _told(result, "exported to", as_json=as_json)


@commands.command("import")
@asynchronous
async def import_(file: EventsFile, url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Fill an empty database with what was exported: all of the file, or nothing."""
    bar = Bar()
    with bar.progress:
        result = await copying.import_store(
            database_url(url), sys.stdin.buffer if file == "-" else file, on_progress=bar.tell
        )
    _told(result, "imported from", as_json=as_json)


def _told(result: copying.ExchangeResult, done: str, *, as_json: bool) -> None:
    output = Output(as_json=as_json)
    if as_json:
        output.document(result)
        return
    rows = ", ".join(f"{count} {table}" for table, count in result.rows.items()) or "nothing"
    output.say(f"{rows} {done} {result.file}.")


@commands.command("close")
@asynchronous
async def close(
    stream: StreamName,
    url: DatabaseUrl = None,
    reason: Annotated[str | None, typer.Option(help="Why, for people.")] = None,
    yes: Yes = False,
) -> None:
    """Close a stream for good: nothing can be appended to it any more."""
    aggregate_id, aggregate_type = parse_stream_name(stream)
    async with writing(url) as store:
        confirm(f"close {aggregate_type} {aggregate_id} for ever", yes=yes)
        result = await store.close_stream(aggregate_id, aggregate_type, reason=reason)
    was = "was closed before" if result.idempotent else "is closed"
    Output().say(f"{aggregate_type} {aggregate_id} {was}, at version {result.new_version}.")


@commands.command("archive")
@asynchronous
async def archive(
    file: ArchiveFile,
    url: DatabaseUrl = None,
    stream: Annotated[
        list[str] | None, typer.Option(metavar="STREAM", help="Only this one; may be repeated.")
    ] = None,
    closed_before: Annotated[
        datetime | None, typer.Option(help="Only streams that were closed before this moment, in UTC.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Write the file, and delete nothing.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on deleting what a complete FILE holds.")
    ] = False,
    ignore_projection: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A projection that needs none of the events; may be repeated."),
    ] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Move the events of closed streams out of the log, into a file."""
    if resume and (keep or stream or closed_before):
        raise wrong_usage("--resume takes what the file holds: it goes with no other choice.")
    async with writing(url) as store:
        if not keep:
            confirm("delete the events of closed streams once they are in the file", yes=yes)
        if resume:
            result = await archiving.remove(store, file, ignore_projections=ignore_projection or ())
        else:
            result = await archiving.archive(
                store,
                file,
                streams=None if not stream else [parse_stream_name(name) for name in stream],
                closed_before=None if closed_before is None else closed_before.replace(tzinfo=timezone.utc),
                keep=keep,
                ignore_projections=ignore_projection or (),
            )
    _archived(result, "archived in", as_json=as_json)


@commands.command("restore")
@asynchronous
async def restore(file: ArchiveFile, url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Put the events of an archive back into the log, each where it was."""
    async with writing(url) as store:
        result = await archiving.restore(store, file)
    _archived(result, "restored from", as_json=as_json)


def _archived(result: archiving.ArchiveResult, done: str, *, as_json: bool) -> None:
    output = Output(as_json=as_json)
    if as_json:
        output.document(result)
    elif not result.streams:
        output.say(f"There was nothing to be {done} {result.file}.")
    else:
        output.say(f"{result.events} events of {result.streams} closed streams {done} {result.file}.")
