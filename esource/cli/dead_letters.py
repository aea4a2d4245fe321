"""Dead letters: ``dlq list``, ``show``, ``retry``, ``resolve`` and ``purge``."""

from __future__ import annotations

import getpass
from enum import Enum
from typing import Annotated

import typer

from esource import DLQRepository, ProjectionRunner
from esource.cli.asking import Yes, confirm
from esource.cli.errors import Refusal
from esource.cli.looking import Days, Limit
from esource.cli.opening import DatabaseUrl, reading, writing
from esource.cli.output import Output
from esource.cli.projections import App, projection_of
from esource.cli.running import asynchronous, shows
from esource.projections import Retried
from esource.repositories.dlq import DLQEntry

commands = typer.Typer(help="Dead letters: events that a projection gave up on.", no_args_is_help=True)

LetterId = Annotated[int, typer.Argument(metavar="ID", help="The dead letter's number.")]


class Status(str, Enum):
    """What ``--status`` may be."""

    FAILED = "failed"
    RETRYING = "retrying"
    RESOLVED = "resolved"
    ANY = "any"


def _say_letters(found: list[DLQEntry], output: Output) -> None:
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


@commands.command("list")
@shows(_say_letters)
async def list_letters(
    url: DatabaseUrl = None,
    projection: Annotated[str | None, typer.Option(help="Only dead letters of this projection.")] = None,
    status: Annotated[Status, typer.Option(help="Only dead letters with this status.")] = Status.FAILED,
    limit: Limit = 100,
) -> list[DLQEntry]:
    """List dead letters, oldest first."""
    async with reading(url) as store:
        return await DLQRepository(store).get_failed_events(
            projection, None if status is Status.ANY else status.value, limit
        )


def _say_letter(found: DLQEntry, output: Output) -> None:
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


@commands.command("show")
@shows(_say_letter)
async def show_letter(letter: LetterId, url: DatabaseUrl = None) -> DLQEntry:
    """Show a dead letter with its event and the error's traceback."""
    async with reading(url) as store:
        found = await DLQRepository(store).get_failed_event(letter)
    if found is None:
        raise Refusal(f"there is no dead letter {letter}: see `esource dlq list`.")
    return found


def _say_retried(done: Retried, output: Output) -> None:
    output.say(
        f"{done.resolved} resolved, {done.failed} failed again, {done.waiting} wait for an earlier one."
    )


@commands.command("retry")
@shows(_say_retried, found=lambda done: bool(done.failed))
async def retry_letters(
    app: App,
    letters: Annotated[
        list[int] | None,
        typer.Argument(
            metavar="[ID]...", help="The dead letters to retry. Without a number: all of the projection."
        ),
    ] = None,
    url: DatabaseUrl = None,
) -> Retried:
    """Let the projection handle dead letters again. Exit code 1 if one fails again."""
    projection = projection_of(app)
    async with writing(url, unknown_events="raise") as store:
        return await ProjectionRunner(store, projection).retry_dead_letters(letters or None)


@commands.command("resolve")
@asynchronous
async def resolve(
    letter: LetterId,
    url: DatabaseUrl = None,
    by: Annotated[
        str | None, typer.Option(help="The person who resolves it. Without it: your user name.")
    ] = None,
) -> None:
    """Mark a dead letter as resolved. Its event is not tried again."""
    async with writing(url) as store:
        if not await DLQRepository(store).mark_resolved(letter, by or getpass.getuser()):
            raise Refusal(f"there is no dead letter {letter}: see `esource dlq list`.")
    Output().say(f"Dead letter {letter} is resolved.")


@commands.command("purge")
@asynchronous
async def purge_letters(url: DatabaseUrl = None, days: Days = 30, yes: Yes = False) -> None:
    """Delete dead letters that were resolved long ago."""
    async with writing(url) as store:
        confirm(f"delete dead letters that were resolved more than {days} days ago", yes=yes)
        count = await DLQRepository(store).delete_resolved_events(days)
    Output().say(f"{count} dead letters were deleted.")
