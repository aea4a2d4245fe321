"""Projections: ``projections list``, ``lag``, ``reset``, ``rebuild`` and ``run``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
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
from esource.cli.running import asynchronous, shows
from esource.cli.serving import HealthFile, LogFormat, LogFormatOption, serving
from esource.copying.progress import Progress
from esource.repositories.checkpoint import CheckpointData, LagMetrics
from esource.telemetry import Health

logger = logging.getLogger("esource")

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
async def rebuild(
    app: App,
    url: DatabaseUrl = None,
    without_reset: Annotated[
        bool,
        typer.Option("--without-reset", help="Do it without a reset(), too: every effect is repeated."),
    ] = False,
    yes: Yes = False,
) -> None:
    """Empty a read model, and handle every event again up to the end of the log."""
    projection = projection_of(app)
    bar = Bar()
    async with writing(url, unknown_events="raise") as store:
        confirm(f"empty the read model of {projection.name} and build it anew", yes=yes)
        runner = ProjectionRunner(store, projection)
        with bar.progress:
            await runner.rebuild(
                without_reset=without_reset,
                on_progress=lambda far: bar.tell(Progress(projection.name, far.position, far.head)),
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
    restart: Annotated[
        bool,
        typer.Option(
            "--restart",
            help="Begin a projection that has failed again, after a growing pause; the others go on.",
        ),
    ] = False,
    handler_seconds: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            help="How long a handler may take with one event, in seconds; otherwise what each projection says, "
            "which is 60 unless it is set.",
        ),
    ] = None,
    health_file: HealthFile = None,
    log_format: LogFormatOption = LogFormat.text,
) -> None:
    """Run projections as a service, until SIGTERM. If one fails, all stop, and the exit code says why."""
    if once and restart:
        raise wrong_usage(
            "--once and --restart exclude each other: --once ends with the exit code of what failed."
        )
    projections = [projection_of(app) for app in apps]
    names = [each.checkpoint_name for each in projections]
    if len({*names}) < len(names):
        raise wrong_usage("Two of these projections have one name, and would share a checkpoint.")
    async with writing(url, unknown_events="raise") as store:
        runners = [
            ProjectionRunner(store, projection, partitions=partitions, handler_seconds=handler_seconds)
            for projection in projections
        ]

        def stop() -> None:
            for runner in runners:
                runner.stop()

        def healths() -> list[Health]:
            return [runner.health_now() for runner in runners]

        async with serving(stop, healths, health_file=health_file, log_format=log_format):
            logger.info("Running %s.", ", ".join(each.name for each in projections))
            if restart:
                await _run_supervised(runners)
            else:
                tasks = [asyncio.create_task(runner.run(live=not once)) for runner in runners]
                await _ended(tasks, stop)


async def _run_supervised(runners: list[ProjectionRunner]) -> None:
    async with AsyncExitStack() as stack:
        for runner in runners:
            await stack.enter_async_context(runner)
        for runner in runners:
            await runner.wait()


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
