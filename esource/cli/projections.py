"""Projections: ``projections list``, ``lag``, ``reset``, ``rebuild`` and ``run``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from esource import CheckpointRepository, Projection, ProjectionRunner
from esource.browsing import overview
from esource.cli.asking import Yes, confirm
from esource.cli.errors import Refusal, wrong_usage
from esource.cli.loading import loaded, made
from esource.cli.looking import say_lags
from esource.cli.opening import DatabaseUrl, reading, writing
from esource.cli.output import Output
from esource.cli.progress import Bar
from esource.cli.running import asynchronous, ended_by_sigterm, log_to_stderr, shows
from esource.copying.progress import Progress
from esource.repositories.checkpoint import CheckpointData, LagMetrics

commands = typer.Typer(help="Projections: how far they are, and how to rebuild them.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The projection's name.")]
App = Annotated[
    str, typer.Option(metavar="MODULE:PROJECTION", help="The projection: its class, or an object of it.")
]
"""The option ``--app`` of every command that runs a projection."""


def projection_of(app: str) -> Projection:
    """The projection that ``module:object`` names.

    Raises:
        Refusal: there is none.
    """
    found = loaded(app)
    if isinstance(found, type) and issubclass(found, Projection):
        found = made(found, app)
    if not isinstance(found, Projection):
        raise wrong_usage(f"{app!r} is no Projection.")
    return found


def _say_checkpoints(found: list[CheckpointData], output: Output) -> None:
    output.table(
        ["projection", "position", "events", "last event"],
        [
            (row.projection_name, row.global_position, row.events_processed, row.last_processed_at)
            for row in found
        ],
        empty="no checkpoints",
    )


@commands.command("list")
@shows(_say_checkpoints)
async def list_projections(url: DatabaseUrl = None) -> list[CheckpointData]:
    """List the checkpoints."""
    async with reading(url) as store:
        return await CheckpointRepository(store).get_all_checkpoints()


@commands.command("lag")
@shows(say_lags)
async def lag(url: DatabaseUrl = None) -> list[LagMetrics]:
    """Say how far each projection is behind the end of the log."""
    async with reading(url) as store:
        return await overview.lags(store)


@commands.command("reset")
@asynchronous
async def reset(name: Name, url: DatabaseUrl = None, yes: Yes = False) -> None:
    """Delete a checkpoint, so that the projection begins again at the start of the log. Does not change its read model."""
    async with writing(url) as store:
        checkpoints = CheckpointRepository(store)
        if await checkpoints.get_checkpoint_data(name) is None:
            raise Refusal(f"there is no checkpoint {name}: see `esource projections list`.")
        confirm(f"forget the checkpoint {name}", yes=yes)
        await checkpoints.reset_checkpoint(name)
    Output().say(f"{name} begins at the start of the log.")


@commands.command("rebuild")
@asynchronous
async def rebuild(app: App, url: DatabaseUrl = None, yes: Yes = False) -> None:
    """Empty a read model, and handle every event again up to the end of the log."""
    projection = projection_of(app)
    bar = Bar()
    async with writing(url, unknown_events="raise") as store:
        confirm(f"empty the read model of {projection.name} and build it anew", yes=yes)
        runner = ProjectionRunner(store, projection)
        with bar.progress:
            await runner.rebuild(
                on_progress=lambda far: bar.tell(Progress(projection.name, far.position, far.head))
            )
        health = await runner.health()
    Output().say(f"{projection.name} is at position {health.position}.")


@commands.command("run")
@asynchronous
async def run(
    apps: Annotated[
        list[str],
        typer.Argument(
            metavar="MODULE:PROJECTION...", help="The projections: their classes, or objects of them."
        ),
    ],
    url: DatabaseUrl = None,
    partitions: Annotated[
        int, typer.Option(min=1, help="How many workers may share the work of each projection.")
    ] = 1,
    once: Annotated[bool, typer.Option("--once", help="Stop at the end of the log.")] = False,
) -> None:
    """Run projections as a service, until SIGTERM. If one fails, all stop, and the exit code says why."""
    projections = [projection_of(app) for app in apps]
    log_to_stderr()
    async with writing(url, unknown_events="raise") as store:
        runners = [ProjectionRunner(store, projection, partitions=partitions) for projection in projections]

        def stop() -> None:
            for runner in runners:
                runner.stop()

        with ended_by_sigterm(stop):
            tasks = [asyncio.create_task(runner.run(live=not once)) for runner in runners]
            print(f"Running {', '.join(each.name for each in projections)}.", file=sys.stderr)  # noqa: T201
            await _ended(tasks, stop)


async def _ended(tasks: list[asyncio.Task[None]], stop: Callable[[], None]) -> None:
    """Wait until all tasks have ended. If one fails, the others stop, and its error is raised."""
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        if any(task.done() and task.exception() is not None for task in tasks):
            stop()
        await asyncio.wait(tasks)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result
