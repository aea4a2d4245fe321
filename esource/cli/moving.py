"""Moving a store to another database: ``copy``, ``cut-over``, ``reopen`` and ``verify-copy``."""

from __future__ import annotations

from typing import Annotated

import typer

from esource import copying
from esource.cli.opening import DatabaseUrl, reading, writing
from esource.cli.output import Output
from esource.cli.progress import Bar
from esource.cli.running import asynchronous, shows

commands = typer.Typer(no_args_is_help=True)

Source = Annotated[str, typer.Argument(metavar="SOURCE", help="The database to copy from, as in --url.")]
Target = Annotated[str, typer.Argument(metavar="TARGET", help="The database to copy to, as in --url.")]


Reset = Annotated[
    list[str] | None,
    typer.Option(
        "--reset",
        metavar="NAME",
        help="Do not copy the checkpoint of this projection: it begins anew in the target. May be repeated; "
        "all is for every checkpoint.",
    ),
]
"""The option ``--reset`` of every command that brings checkpoints to another database."""


def resets(names: list[str] | None) -> copying.Reset:
    """The projections that ``--reset`` names."""
    return "all" if names == ["all"] else names or ()


def say_checkpoints(checkpoints: dict[str, int], reset: list[str], output: Output) -> None:
    """Say which projections begin anew, and which go on without what they have written."""
    if reset:
        output.say(f"Not copied, so that they begin anew: the checkpoints {', '.join(reset)}.")
    if checkpoints:
        named = ", ".join(f"{name} (at {position})" for name, position in checkpoints.items())
        output.say(
            f"Copied checkpoints, without what was made with them: {named}. Copy those read models before their "
            "projections continue, or use --reset NAME to begin anew."
        )


def _say_result(result: copying.CopyResult, output: Output) -> None:
    if not result.changed:
        output.say(f"Nothing was to be done: {result.target} holds all of {result.source}.")
    else:
        output.say(f"{result.events} events were copied from {result.source} to {result.target}.")
        for table, change in result.tables.items():
            if change != (0, 0):
                output.say(f"{table}: {change.added} rows added, {change.removed} removed.")
    output.say(f"The copy reaches to global position {result.position}.")
    say_checkpoints(result.checkpoints, result.reset, output)
    if result.not_copied:
        output.say(f"Not copied, because they are tables of the application: {', '.join(result.not_copied)}.")
    if result.verification is not None:
        _say_verification(result.verification, output)


def _say_verification(found: copying.Verification, output: Output) -> None:
    if found.is_identical:
        output.say(f"Both are identical: {found.events} events and {len(found.tables)} tables were compared.")
        return
    for difference in found.differences:
        output.say(difference)


def _differs(result: copying.CopyResult) -> bool:
    return result.verification is not None and not result.verification.is_identical


@commands.command("copy")
@shows(_say_result, found=_differs)
async def copy(
    source: Source,
    target: Target,
    follow: Annotated[
        bool, typer.Option("--follow", help="Continue to copy new events until `esource cut-over`.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare every row of both stores at the end.")
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume/--no-resume",
            help="Continue an earlier copy, or refuse a target that is not empty.",
        ),
    ] = True,
    reset: Reset = None,
) -> copying.CopyResult:
    """Copy a whole store to another database, in any direction.

    A copy that was ended at any moment continues when you start it again. Does not change the source.
    """
    bar = Bar()
    async with reading(source) as here, writing(target, any_schema=True, create=True) as there:
        with bar.progress:
            return await copying.copy(
                here,
                there,
                follow=follow,
                verify=verify,
                resume=resume,
                reset=resets(reset),
                on_progress=bar.tell,
            )


@commands.command("cut-over")
@shows(_say_result)
async def cut_over(source: Source, target: Target, reset: Reset = None) -> copying.CopyResult:
    """Finish a copy, compare both stores, and make the source refuse every further write.

    Writers wait while the last events are copied. If anything fails, the source is unchanged.
    """
    bar = Bar()
    async with writing(source) as here, writing(target, any_schema=True, create=True) as there:
        with bar.progress:
            return await copying.cut_over(here, there, reset=resets(reset), on_progress=bar.tell)


@commands.command("reopen")
@asynchronous
async def reopen(url: DatabaseUrl = None) -> None:
    """Allow writes again to a store that was cut over."""
    async with writing(url) as store:
        moved_to = await copying.reopen(store)
        name = store.name
    Output().say(
        f"{name} takes writes as it always did: it had not moved."
        if moved_to is None
        else f"{name} takes writes again. What was appended to {moved_to} meanwhile is not in it."
    )


@commands.command("verify-copy")
@shows(_say_verification, found=lambda found: not found.is_identical)
async def verify_copy(source: Source, target: Target, reset: Reset = None) -> copying.Verification:
    """Compare two stores row by row. Exit code 1 if they differ."""
    bar = Bar()
    async with reading(source) as here, reading(target) as there:
        with bar.progress:
            return await copying.verify_copy(here, there, reset=resets(reset), on_progress=bar.tell)
