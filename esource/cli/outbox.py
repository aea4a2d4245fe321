"""The outbox: ``outbox stats``, ``list``, ``relay``, ``retry`` and ``purge``."""

from __future__ import annotations

import sys
from typing import Annotated, Any, NamedTuple

import typer

from esource import OutboxRelay, OutboxRepository
from esource.cli.asking import Yes, confirm
from esource.cli.errors import Code, wrong_usage
from esource.cli.loading import loaded, made
from esource.cli.looking import Days, Limit
from esource.cli.opening import DatabaseUrl, reading, writing
from esource.cli.output import Output
from esource.cli.running import asynchronous, ended_by_sigterm, shows
from esource.cli.serving import HealthFile, LogFormat, LogFormatOption, serving
from esource.errors import MissingDriverError
from esource.publishing.publishers import Publisher, check_source, to_cloud_event
from esource.publishing.relay import PUBLISH_SECONDS
from esource.repositories.outbox import OutboxEntry, OutboxStats
from esource.telemetry import Health

commands = typer.Typer(help="The outbox: events that wait to be published.", no_args_is_help=True)


def _say_stats(found: OutboxStats, output: Output) -> None:
    output.facts(
        [
            ("pending", found.pending_count),
            ("published", found.published_count),
            ("failed", found.failed_count),
            ("oldest pending", found.oldest_pending),
            ("tries per pending row", f"{found.avg_retries:.1f}"),
        ]
    )


@commands.command("stats")
@shows(_say_stats)
async def outbox_stats(url: DatabaseUrl = None) -> OutboxStats:
    """Count the rows by status."""
    async with reading(url) as store:
        return await OutboxRepository(store).get_stats()


class _Listed(NamedTuple):
    rows: list[OutboxEntry]
    failed: bool


def _say_rows(found: _Listed, output: Output) -> None:
    output.table(
        ["id", "event type", "stream", "tries", "since", "last error"],
        [
            (
                row.id,
                row.event_type,
                f"{row.aggregate_id}:{row.aggregate_type}",
                row.retry_count,
                row.created_at,
                (row.last_error or "-").splitlines()[0][:60],
            )
            for row in found.rows
        ],
        empty="nothing was given up" if found.failed else "nothing waits",
        spare=["since"] if found.failed else ["last error", "since"],
    )


@commands.command("list")
@shows(_say_rows, document=lambda found: found.rows)
async def list_outbox(
    url: DatabaseUrl = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only rows that the relay gave up.")] = False,
    limit: Limit = 100,
) -> _Listed:
    """List the rows that wait to be published."""
    async with reading(url) as store:
        rows = OutboxRepository(store)
        found = await (rows.get_failed_events(limit) if failed else rows.get_pending_events(limit))
    return _Listed(found, failed)


class StandardOutput:
    """Publishes to standard output: one CloudEvent a line."""

    def __init__(self, source: str) -> None:
        try:
            from cloudevents.core.formats.json import JSONFormat
        except ImportError as error:
            raise MissingDriverError("cloudevents", "cloudevents") from error
        self._write = JSONFormat().write
        self._source = check_source(source)

    async def publish(self, entry: OutboxEntry) -> None:
        """Write one line, at once."""
        sys.stdout.write(self._write(to_cloud_event(entry, self._source)).decode() + "\n")
        sys.stdout.flush()


@commands.command("relay")
@asynchronous
async def relay(
    url: DatabaseUrl = None,
    publisher: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:OBJECT", help="The publisher. Without it, CloudEvents go to standard output."
        ),
    ] = None,
    source: Annotated[
        str, typer.Option(help="The source of the CloudEvents on standard output.")
    ] = "/esource",
    publish_seconds: Annotated[
        float, typer.Option(min=0.001, help="How long the publisher may take with one message, in seconds.")
    ] = PUBLISH_SECONDS,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Continue with new rows.")] = False,
    restart: Annotated[
        bool,
        typer.Option("--restart", help="With --follow: begin again after a failure, after a growing pause."),
    ] = False,
    health_file: HealthFile = None,
    log_format: LogFormatOption = LogFormat.text,
) -> None:
    """Publish the waiting rows at least once, each stream in order. Exit code 1 if it gave up a row."""
    sends: Any = StandardOutput(source) if publisher is None else loaded(publisher)
    if isinstance(sends, type):
        sends = made(sends, str(publisher))
    if not callable(getattr(sends, "publish", None)):
        raise wrong_usage(f"{publisher!r} is no Publisher: it has no method publish.")
    chosen: Publisher = sends
    if not follow and (restart or health_file is not None):
        raise wrong_usage("--restart and --health-file are for a service: add --follow.")
    async with writing(url) as store, OutboxRelay(store, chosen, publish_seconds=publish_seconds) as running:
        if follow:

            def healths() -> list[Health]:
                return [running.health_now()]

            async with serving(running.stop, healths, health_file=health_file, log_format=log_format):
                await (_run_supervised(running) if restart else running.run())
            count = running.health_now().events_processed
        else:
            with ended_by_sigterm(running.stop):
                count = await running.drain()
        failed = (await OutboxRepository(store).get_stats()).failed_count
    print(f"{count} rows were dealt with, {failed} are given up.", file=sys.stderr)  # noqa: T201
    if failed:
        raise typer.Exit(Code.FOUND)


async def _run_supervised(relay: OutboxRelay) -> None:
    async with relay.supervised():
        await relay.wait()


@commands.command("retry")
@asynchronous
async def retry_outbox(url: DatabaseUrl = None) -> None:
    """Try again the rows that the relay gave up."""
    async with writing(url) as store:
        count = await OutboxRepository(store).retry_failed()
    Output().say(f"{count} rows wait again.")


@commands.command("purge")
@asynchronous
async def purge_outbox(url: DatabaseUrl = None, days: Days = 7, yes: Yes = False) -> None:
    """Delete rows that were published long ago."""
    async with writing(url) as store:
        confirm(f"delete rows that were published more than {days} days ago", yes=yes)
        count = await OutboxRepository(store).cleanup_published(days)
    Output().say(f"{count} rows were deleted.")
