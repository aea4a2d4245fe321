"""Those who follow the log: ``projections``, ``dlq`` and ``outbox``."""

from __future__ import annotations

import getpass
import sys
from enum import Enum
from typing import Annotated, Any

import typer

from esource import (
    CheckpointRepository,
    DLQRepository,
    OutboxRelay,
    OutboxRepository,
    Projection,
    ProjectionRunner,
)
from esource.browsing import overview
from esource.cli.asking import Yes, confirm
from esource.cli.errors import Code, Refusal, wrong_usage
from esource.cli.loading import loaded, made
from esource.cli.looking import Limit, show_lags
from esource.cli.opening import DatabaseUrl, asynchronous, reading, writing
from esource.cli.output import AsJson, Output
from esource.cli.progress import Bar
from esource.copying.stores import CopyProgress
from esource.errors import MissingDriverError
from esource.publishing.publishers import Publisher, to_cloud_event
from esource.repositories.outbox import OutboxEntry

projections = typer.Typer(help="Projections: where they are, and building them anew.", no_args_is_help=True)
dlq = typer.Typer(help="Dead letters: events that a projection gave up on.", no_args_is_help=True)
outbox = typer.Typer(help="The outbox: events that wait to be published.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The projection's name.")]
App = Annotated[
    str, typer.Option(metavar="MODULE:PROJECTION", help="The projection: its class, or an object of it.")
]
LetterId = Annotated[int, typer.Argument(metavar="ID", help="The dead letter's number.")]
Days = Annotated[int, typer.Option(min=0, help="Only those older than so many days.")]


def _projection(app: str) -> Projection:
    found = loaded(app)
    if isinstance(found, type) and issubclass(found, Projection):
        found = made(found, app)
    if not isinstance(found, Projection):
        raise wrong_usage(f"{app!r} is no Projection.")
    return found


# -- projections -------------------------------------------------------------------------------------


@projections.command("list")
@asynchronous
async def list_projections(url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """List the checkpoints."""
    async with reading(url) as store:
        found = await CheckpointRepository(store).get_all_checkpoints()
    output = Output(as_json=as_json)
    if as_json:
        output.document(found)
        return
    output.table(
        ["projection", "position", "events", "last event"],
        [
            (row.projection_name, row.global_position, row.events_processed, row.last_processed_at)
            for row in found
        ],
        empty="no checkpoints",
    )


@projections.command("lag")
@asynchronous
async def lag(url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Say how far each projection is behind the end of the log."""
    async with reading(url) as store:
        found = await overview.lags(store)
    output = Output(as_json=as_json)
    if as_json:
        output.document(found)
    else:
        show_lags(found, output)


@projections.command("reset")
@asynchronous
async def reset(name: Name, url: DatabaseUrl = None, yes: Yes = False) -> None:
    """Forget a checkpoint: the projection begins at the start of the log. Its read model stays as it is."""
    async with writing(url) as store:
        checkpoints = CheckpointRepository(store)
        if await checkpoints.get_checkpoint_data(name) is None:
            raise Refusal(f"there is no checkpoint {name}: see `esource projections list`.")
        confirm(f"forget the checkpoint {name}", yes=yes)
        await checkpoints.reset_checkpoint(name)
    Output().say(f"{name} begins at the start of the log.")


@projections.command("rebuild")
@asynchronous
async def rebuild(app: App, url: DatabaseUrl = None, yes: Yes = False) -> None:
    """Empty a read model and handle every event again, up to the end of the log."""
    projection = _projection(app)
    bar = Bar()
    async with writing(url, unknown_events="raise") as store:
        confirm(f"empty the read model of {projection.name} and build it anew", yes=yes)
        runner = ProjectionRunner(store, projection)
        with bar.progress:
            await runner.rebuild(
                on_progress=lambda far: bar.tell(CopyProgress(projection.name, far.position, far.head))
            )
        health = await runner.health()
    Output().say(f"{projection.name} is at position {health.position}.")


# -- dead letters ------------------------------------------------------------------------------------


class Status(str, Enum):
    """What ``--status`` may be."""

    FAILED = "failed"
    RETRYING = "retrying"
    RESOLVED = "resolved"
    ANY = "any"


@dlq.command("list")
@asynchronous
async def list_letters(
    url: DatabaseUrl = None,
    projection: Annotated[str | None, typer.Option(help="Only of this projection.")] = None,
    status: Annotated[Status, typer.Option(help="Which.")] = Status.FAILED,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """List dead letters, oldest first."""
    async with reading(url) as store:
        found = await DLQRepository(store).get_failed_events(
            projection, None if status is Status.ANY else status.value, limit
        )
    output = Output(as_json=as_json)
    if as_json:
        output.document(found)
        return
    output.table(
        ["id", "projection", "event type", "error", "tries", "since"],
        [
            (
                row.id,
                row.projection_name,
                row.event_type,
                row.error_message.splitlines()[0][:60],
                row.retry_count,
                row.first_failed_at,
            )
            for row in found
        ],
        empty="no dead letters",
        spare=["since"],
    )


@dlq.command("show")
@asynchronous
async def show_letter(letter: LetterId, url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Show a dead letter with its event and the error's traceback."""
    async with reading(url) as store:
        found = await DLQRepository(store).get_failed_event(letter)
    if found is None:
        raise Refusal(f"there is no dead letter {letter}: see `esource dlq list`.")
    output = Output(as_json=as_json)
    if as_json:
        output.document(found)
        return
    output.facts(
        [
            ("event", f"{found.event_type} {found.event_id}"),
            ("projection", found.projection_name),
            ("status", found.status),
            ("error", found.error_message),
            ("tries", found.retry_count),
            ("first failed", found.first_failed_at),
            ("last failed", found.last_failed_at),
        ]
    )
    output.json_text(found.event_data)
    if found.error_stacktrace:
        output.say(found.error_stacktrace.rstrip())


@dlq.command("retry")
@asynchronous
async def retry_letters(
    app: App,
    letters: Annotated[
        list[int] | None, typer.Argument(metavar="[ID]...", help="These; all of the projection if none.")
    ] = None,
    url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Give dead letters to their projection again; exit code 1 if any fails again."""
    projection = _projection(app)
    async with writing(url, unknown_events="raise") as store:
        done = await ProjectionRunner(store, projection).retry_dead_letters(letters or None)
    output = Output(as_json=as_json)
    if as_json:
        output.document(done)
    else:
        output.say(
            f"{done.resolved} resolved, {done.failed} failed again, {done.waiting} wait for an earlier one."
        )
    if done.failed:
        raise typer.Exit(Code.FOUND)


@dlq.command("resolve")
@asynchronous
async def resolve(
    letter: LetterId,
    url: DatabaseUrl = None,
    by: Annotated[str | None, typer.Option(help="Who says so; you, if left out.")] = None,
) -> None:
    """Close a dead letter: its event is not tried again."""
    async with writing(url) as store:
        if not await DLQRepository(store).mark_resolved(letter, by or getpass.getuser()):
            raise Refusal(f"there is no dead letter {letter}: see `esource dlq list`.")
    Output().say(f"Dead letter {letter} is resolved.")


@dlq.command("purge")
@asynchronous
async def purge_letters(url: DatabaseUrl = None, days: Days = 30, yes: Yes = False) -> None:
    """Delete dead letters that were resolved long ago."""
    async with writing(url) as store:
        confirm(f"delete dead letters that were resolved more than {days} days ago", yes=yes)
        count = await DLQRepository(store).delete_resolved_events(days)
    Output().say(f"{count} dead letters were deleted.")


# -- the outbox --------------------------------------------------------------------------------------


@outbox.command("stats")
@asynchronous
async def outbox_stats(url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Count the rows by status."""
    async with reading(url) as store:
        found = await OutboxRepository(store).get_stats()
    output = Output(as_json=as_json)
    if as_json:
        output.document(found)
        return
    output.facts(
        [
            ("pending", found.pending_count),
            ("published", found.published_count),
            ("failed", found.failed_count),
            ("oldest pending", found.oldest_pending),
            ("tries per pending row", f"{found.avg_retries:.1f}"),
        ]
    )


@outbox.command("list")
@asynchronous
async def list_outbox(
    url: DatabaseUrl = None,
    failed: Annotated[bool, typer.Option("--failed", help="Those that were given up.")] = False,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """List what waits to be published."""
    async with reading(url) as store:
        rows = OutboxRepository(store)
        found = await (rows.get_failed_events(limit) if failed else rows.get_pending_events(limit))
    output = Output(as_json=as_json)
    if as_json:
        output.document(found)
        return
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
            for row in found
        ],
        empty="nothing waits" if not failed else "nothing was given up",
        spare=["since"] if failed else ["last error", "since"],
    )


class StandardOutput:
    """Publishes to standard output: one CloudEvent a line."""

    def __init__(self, source: str) -> None:
        try:
            from cloudevents.core.formats.json import JSONFormat
        except ImportError as error:
            raise MissingDriverError("cloudevents", "cloudevents") from error
        self._write = JSONFormat().write
        self._source = source

    async def publish(self, entry: OutboxEntry) -> None:
        """Write one line, at once."""
        sys.stdout.write(self._write(to_cloud_event(entry, self._source)).decode() + "\n")
        sys.stdout.flush()


@outbox.command("relay")
@asynchronous
async def relay(
    url: DatabaseUrl = None,
    publisher: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:OBJECT", help="A Publisher; CloudEvents on standard output if left out."
        ),
    ] = None,
    source: Annotated[str, typer.Option(help="The CloudEvents source, on standard output.")] = "/esource",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes.")] = False,
) -> None:
    """Publish what waits, each stream in order, at least once; exit code 1 if anything was given up."""
    sends: Any = StandardOutput(source) if publisher is None else loaded(publisher)
    if isinstance(sends, type):
        sends = made(sends, str(publisher))
    if not callable(getattr(sends, "publish", None)):
        raise wrong_usage(f"{publisher!r} is no Publisher: it has no method publish.")
    chosen: Publisher = sends
    async with writing(url) as store, OutboxRelay(store, chosen) as running:
        count = await running.drain()
        if follow:
            await running.run()
        failed = (await OutboxRepository(store).get_stats()).failed_count
    print(f"{count} rows were dealt with, {failed} are given up.", file=sys.stderr)  # noqa: T201
    if failed:
        raise typer.Exit(Code.FOUND)


@outbox.command("retry")
@asynchronous
async def retry_outbox(url: DatabaseUrl = None) -> None:
    """Let rows that were given up be tried again."""
    async with writing(url) as store:
        count = await OutboxRepository(store).retry_failed()
    Output().say(f"{count} rows wait again.")


@outbox.command("purge")
@asynchronous
async def purge_outbox(url: DatabaseUrl = None, days: Days = 7, yes: Yes = False) -> None:
    """Delete rows that were published long ago."""
    async with writing(url) as store:
        confirm(f"delete rows that were published more than {days} days ago", yes=yes)
        count = await OutboxRepository(store).cleanup_published(days)
    Output().say(f"{count} rows were deleted.")
