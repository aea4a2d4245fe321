"""What is not as it should be, and mending it: ``doctor`` and ``tag``."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import typer

from esource import copying, schema
from esource.browsing import overview
from esource.cli.errors import wrong_usage
from esource.cli.loading import App, registry_of
from esource.cli.opening import DatabaseUrl, reading, writing
from esource.cli.output import Output
from esource.cli.progress import Bar
from esource.cli.running import shows
from esource.copying.tagging import lacking_tags
from esource.dialect.inspection import Symptom

commands = typer.Typer(no_args_is_help=True)


class _Examined(NamedTuple):
    database: str
    symptoms: list[Symptom]


def _say_symptoms(found: _Examined, output: Output) -> None:
    for symptom in found.symptoms:
        output.say(f"- {symptom.problem}.")
        output.say(f"  {symptom.remedy}")  # often a command to be copied: no full stop
    if not found.symptoms:
        output.say(f"{found.database}: nothing to mend.")


@commands.command("doctor")
@shows(_say_symptoms, document=lambda found: found.symptoms, found=lambda found: bool(found.symptoms))
async def doctor(url: DatabaseUrl = None, app: App = None) -> _Examined:
    """Say what is wrong or slow in a database, and what to do. Exit code 1 if it finds anything."""
    registry = registry_of(app)
    async with reading(url, any_schema=True) as store:
        symptoms = await overview.examine(store)
        if registry is not None and await schema.current(store) == schema.HEAD:
            symptoms += [
                Symptom(
                    f"stored events of type {event_type} lack tags {tag_name}:... that their class declares",
                    "Let every program that appends have this class, then run `esource tag --app ...`",
                )
                for event_type, tag_name in await lacking_tags(store, registry=registry)
            ]
        return _Examined(store.name, symptoms)


def _say_tags(found: copying.TagsFilled, output: Output) -> None:
    output.say(
        f"{found.database}: {found.filled} of {found.looked_at} events {'lack' if found.is_dry_run else 'were given'} tags."
    )
    names = (f"{each}:... of {event_type}" for event_type, tags in found.tags.items() for each in tags)
    output.say(f"Up to position {found.position} all have {', '.join(names) or 'what is declared: nothing'}.")


@commands.command("tag")
@shows(_say_tags, found=lambda found: found.is_dry_run and found.filled > 0)
async def tag(
    url: DatabaseUrl = None,
    app: App = None,
    event_type: Annotated[
        list[str] | None,
        typer.Option("--type", metavar="TYPE", help="Only events of this type; may be repeated."),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Begin at the start of the log, although it was done before.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing. Exit code 1 if events lack tags.")
    ] = False,
) -> copying.TagsFilled:
    """Give stored events the tags that their classes declare by now. The application may write meanwhile."""
    registry = registry_of(app)
    if registry is None:
        raise wrong_usage("name the module of the event classes with --app: they declare the tags.")
    bar = Bar()
    async with reading(url) if dry_run else writing(url) as store:
        with bar.progress:
            return await copying.fill_tags(
                store, registry=registry, types=event_type, again=again, dry_run=dry_run, on_progress=bar.tell
            )
