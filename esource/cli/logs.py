"""A directory of logs: ``logs create``, ``list``, ``upgrade``, ``verify``, ``move``, ``drop``, ``assign`` and ``where``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, NamedTuple

import typer

from esource import copying
from esource.cli.asking import Yes, confirm
from esource.cli.errors import Code, Refusal
from esource.cli.moving import Reset, resets, say_checkpoints
from esource.cli.opening import CONNECT_SECONDS, DatabaseUrl, database_url, sqlite_file
from esource.cli.output import Output
from esource.cli.progress import Bar
from esource.cli.running import asynchronous, shows
from esource.directory import Directory, LogReport, Outcome

commands = typer.Typer(
    help="A directory of logs: many logs under one name, on one or several servers. --url names the directory's database.",
    no_args_is_help=True,
)

Log = Annotated[str, typer.Argument(metavar="NAME", help="The log.")]
Names = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME]...", help="Only these logs; all if left out.")
]
Key = Annotated[str, typer.Argument(metavar="KEY", help="A key, or the id of a tenant.")]


@asynccontextmanager
async def _directory(url: str | None, *, create: bool = False, **options: Any) -> AsyncIterator[Directory]:
    parsed = database_url(url)
    file = sqlite_file(parsed)
    if file is not None and not create and not file.exists():
        raise Refusal(
            f"SQLite database {file}: there is no such file. Check the path, or make a directory there with `esource logs "
            "create`.",
            Code.DATABASE,
        )
    async with Directory(
        parsed,
        unknown_events="untyped",
        enable_tracing=False,
        execution="caller",
        connect_args={"timeout": CONNECT_SECONDS},
        **options,
    ) as directory:
        yield directory


@commands.command("create")
@asynchronous
async def create(
    name: Log,
    url: DatabaseUrl = None,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="PLACE",
            help="Where, if not beside the directory: a URL without a password, a file, or ?schema=NAME.",
        ),
    ] = None,
    takes_keys: Annotated[
        bool | None,
        typer.Option(
            "--takes-keys/--no-takes-keys",
            help="Whether keys that nobody has assigned may come into it. Left out: not into a new log.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Create a log, or add one that is there already. The first makes the directory.

    You may repeat it. Left out, PLACE is a schema of this name in the directory's database, or a file of this name in a folder
    beside the directory's file.
    """
    async with _directory(url, create=True) as directory:
        entry = await directory.create(name, at=at, takes_keys=takes_keys)
        Output().say(f"The log {name} is at {entry.place}, at schema {entry.revision}.")


def _say_reports(reports: list[LogReport], output: Output) -> None:
    output.table(
        ["name", "place", "state", "schema", "global position", "behind", "bytes", "keys", "error"],
        [
            (
                log.name,
                log.place,
                log.state,
                log.revision,
                log.position,
                log.behind,
                log.size,
                log.keys,
                log.error,
            )
            for log in reports
        ],
        empty="no logs",
    )


@commands.command("list")
@shows(_say_reports, found=lambda reports: any(found.error for found in reports))
async def list_logs(names: Names = None, url: DatabaseUrl = None) -> list[LogReport]:
    """List the logs: their places, states, schemas, last positions, lags and sizes.

    Exit code 1 if one of them cannot be reached.
    """
    async with _directory(url) as directory:
        return await directory.report(names or None)


def _say_outcomes(outcomes: list[Outcome], output: Output) -> None:
    for outcome in outcomes:
        if outcome.error is None:
            output.say(f"{outcome.name} {outcome.done}.")
        else:
            output.say(f"{outcome.name}: {outcome.error}", "red")
    failed = sum(outcome.error is not None for outcome in outcomes)
    output.say(f"{len(outcomes) - failed} of {len(outcomes)} logs are in order.")


def _failed(outcomes: list[Outcome]) -> bool:
    return any(outcome.error is not None for outcome in outcomes)


@commands.command("upgrade")
@shows(_say_outcomes, found=_failed)
async def upgrade(names: Names = None, url: DatabaseUrl = None) -> list[Outcome]:
    """Bring logs to the newest schema. One that fails stops no other. Exit code 1 if one failed.

    You may repeat it: logs that have this schema do not change.
    """
    async with _directory(url) as directory:
        return await directory.upgrade(names or None)


@commands.command("distribute")
@shows(_say_outcomes, found=_failed)
async def distribute(names: Names = None, url: DatabaseUrl = None) -> list[Outcome]:
    """Let a node of a Citus cluster have each of these logs, with what it holds. Exit code 1 if one failed.

    --url names a database on the coordinator. From then on open the directory with append_lock="row" and notify=False. You may
    repeat it: logs that are distributed stay where they are.
    """
    async with _directory(url, append_lock="row", notify=False) as directory:
        return await directory.distribute(names or None)


@commands.command("verify")
@shows(_say_outcomes, found=_failed)
async def verify(names: Names = None, url: DatabaseUrl = None) -> list[Outcome]:
    """Check every row of logs. Exit code 1 if something is wrong. Changes nothing."""
    async with _directory(url) as directory:
        return await directory.verify(names or None)


def _say_move(result: copying.CopyResult, output: Output) -> None:
    output.say(f"{result.source} has moved to {result.target}.")
    say_checkpoints(result.checkpoints, result.reset, output)
    if result.not_copied:
        output.say(f"Not copied, because they are tables of the application: {', '.join(result.not_copied)}.")


@commands.command("move")
@shows(_say_move)
async def move(
    name: Log,
    place: Annotated[
        str, typer.Argument(metavar="PLACE", help="A URL without a password, a file, or ?schema=NAME.")
    ],
    url: DatabaseUrl = None,
    reset: Reset = None,
) -> copying.CopyResult:
    """Move a log to another place while it is written to. Stores that are open follow.

    A move that was ended at any moment continues when you start it again. The old database stays, and takes no writes.
    """
    bar = Bar()
    async with _directory(url) as directory:
        with bar.progress:
            return await directory.move(name, place, reset=resets(reset), on_progress=bar.tell)


@commands.command("stay")
@asynchronous
async def stay(name: Log, url: DatabaseUrl = None) -> None:
    """Give up a move that was broken off before its cut-over: the log stays where it is."""
    async with _directory(url) as directory:
        await directory.stay(name)
        Output().say(f"The log {name} stays where it is.")


@commands.command("drop")
@asynchronous
async def drop(
    name: Log,
    url: DatabaseUrl = None,
    everything: Annotated[
        bool,
        typer.Option(
            "--everything", help="Also if it holds events, if keys live in it, or objects of the application."
        ),
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave its database as it is: only forget where it is.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Drop a log: its schema or its file. Refused while it holds events, or keys live in it."""
    async with _directory(url) as directory:
        what = "forget the log" if keep else "drop the log"
        confirm(f"{what} {name!r} of {directory.name}", yes=yes)
        if keep:
            await directory.forget(name)
        else:
            await directory.drop(name, everything=everything)
        Output().say(f"The log {name} was {'forgotten' if keep else 'dropped'}.")


@commands.command("assign")
@asynchronous
async def assign(key: Key, name: Log, url: DatabaseUrl = None) -> None:
    """Let a key, or a tenant, live in a log. Refused if it lives in another one."""
    async with _directory(url) as directory:
        await directory.assign(key, name)
        Output().say(f"{key} lives in the log {name}.")


class _Where(NamedTuple):
    key: str
    log: str
    place: str


def _say_where(found: _Where, output: Output) -> None:
    output.say(f"{found.key} lives in the log {found.log}, at {found.place}.")


@commands.command("where")
@shows(_say_where)
async def where(key: Key, url: DatabaseUrl = None) -> _Where:
    """Say which log a key, or a tenant, lives in, or would come to live in."""
    async with _directory(url) as directory:
        log = await directory.where(key)
        return _Where(key, log, (await directory.entry(log)).place)
