"""Files of events: ``export``, ``import``, ``close``, ``archive`` and ``restore``; and ``verify``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated

import typer

from esource import copying
from esource.checks import STANDARD_LIMITS, Limits
from esource.cli.asking import Yes, confirm
from esource.cli.errors import wrong_usage
from esource.cli.loading import App, registry_of
from esource.cli.moving import Reset, resets, say_checkpoints
from esource.cli.opening import DatabaseUrl, database_url, reading, writing
from esource.cli.output import Output
from esource.cli.progress import Bar
from esource.cli.running import asynchronous, shows
from esource.copying import archiving, integrity
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


def _say_integrity(found: integrity.Integrity, output: Output) -> None:
    rows = ", ".join(f"{count} {table}" for table, count in found.rows.items())
    output.say(f"{found.database}: {rows}.")
    for finding in found.findings:
        output.say(str(finding), "red")
    if found.more:
        output.say(f"... and {found.more} more.")
    if found.is_whole:
        output.say(f"In order: {', '.join(found.checks)}.")


@commands.command("verify")
@shows(_say_integrity, found=lambda found: not found.is_whole)
async def verify(url: DatabaseUrl = None, app: App = None) -> integrity.Integrity:
    """Check every row of a store. Exit code 1 if something is wrong. Changes nothing."""
    bar = Bar()
    registry = registry_of(app)
    async with reading(url) as store:
        with bar.progress:
            return await integrity.verify_store(store, registry=registry, on_progress=bar.tell)


def _say_exchange(done: str) -> Callable[[copying.ExchangeResult, Output], None]:
    def say(result: copying.ExchangeResult, output: Output) -> None:
        rows = ", ".join(f"{count} {table}" for table, count in result.rows.items()) or "nothing"
        output.say(f"{rows} {done} {result.file}.")
        say_checkpoints(result.checkpoints, result.reset, output)

    return say


@commands.command("export")
@shows(_say_exchange("exported to"))
async def export(
    file: EventsFile,
    url: DatabaseUrl = None,
    source: Annotated[str, typer.Option(help="The CloudEvents source.")] = copying.SOURCE,
) -> copying.ExchangeResult | None:
    """Write a whole store to a file, as it is at one moment. Each event is a CloudEvent."""
    bar = Bar()
    async with reading(url) as store:
        with bar.progress:
            result = await copying.export_store(
                store, sys.stdout.buffer if file == "-" else file, source=source, on_progress=bar.tell
            )
    return None if file == "-" else result


@commands.command("import")
@shows(_say_exchange("imported from"))
async def import_(
    file: EventsFile,
    url: DatabaseUrl = None,
    payload_characters: Annotated[
        int, typer.Option(min=1, help="Characters of JSON that an event or a snapshot may have.")
    ] = STANDARD_LIMITS.payload_characters,
    reset: Reset = None,
) -> copying.ExchangeResult:
    """Fill an empty database from an exported file. Imports the whole file, or nothing."""
    bar = Bar()
    with bar.progress:
        return await copying.import_store(
            database_url(url),
            sys.stdin.buffer if file == "-" else file,
            limits=Limits(payload_characters=payload_characters),
            reset=resets(reset),
            on_progress=bar.tell,
        )


@commands.command("close")
@asynchronous
async def close(
    stream: StreamName,
    url: DatabaseUrl = None,
    reason: Annotated[str | None, typer.Option(help="The reason, as a text for people.")] = None,
    yes: Yes = False,
) -> None:
    """Close a stream for ever. After that no event can be appended to it."""
    aggregate_id, aggregate_type = parse_stream_name(stream)
    async with writing(url) as store:
        confirm(f"close {aggregate_type} {aggregate_id} for ever", yes=yes)
        result = await store.close_stream(aggregate_id, aggregate_type, reason=reason)
    was = "was closed before" if result.idempotent else "is closed"
    Output().say(f"{aggregate_type} {aggregate_id} {was}, at version {result.new_version}.")


def _say_archive(done: str) -> Callable[[archiving.ArchiveResult, Output], None]:
    def say(result: archiving.ArchiveResult, output: Output) -> None:
        if result.streams:
            output.say(f"{result.events} events of {result.streams} closed streams {done} {result.file}.")
        else:
            output.say(f"There was nothing to be {done} {result.file}.")

    return say


@commands.command("archive")
@shows(_say_archive("archived in"))
async def archive(
    file: ArchiveFile,
    url: DatabaseUrl = None,
    stream: Annotated[
        list[str] | None, typer.Option(metavar="STREAM", help="Only this stream; may be repeated.")
    ] = None,
    closed_before: Annotated[
        datetime | None, typer.Option(help="Only streams that were closed before this moment, in UTC.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Write the file, and delete nothing.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue deleting the events that a complete FILE holds.")
    ] = False,
    ignore_projection: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A projection that does not need the events; may be repeated."),
    ] = None,
    yes: Yes = False,
) -> archiving.ArchiveResult:
    """Move the events of closed streams from the log to a file."""
    if resume and (keep or stream or closed_before):
        raise wrong_usage("--resume takes what the file holds: it goes with no other choice.")
    async with writing(url) as store:
        if not keep:
            confirm("delete the events of closed streams once they are in the file", yes=yes)
        if resume:
            return await archiving.remove(store, file, ignore_projections=ignore_projection or ())
        return await archiving.archive(
            store,
            file,
            streams=None if not stream else [parse_stream_name(name) for name in stream],
            closed_before=None if closed_before is None else closed_before.replace(tzinfo=timezone.utc),
            keep=keep,
            ignore_projections=ignore_projection or (),
        )


@commands.command("restore")
@shows(_say_archive("restored from"))
async def restore(file: ArchiveFile, url: DatabaseUrl = None) -> archiving.ArchiveResult:
    """Put the events of an archive back into the log, each at its old place."""
    async with writing(url) as store:
        return await archiving.restore(store, file)
