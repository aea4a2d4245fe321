"""The one place where an error becomes a sentence and an exit code."""

from __future__ import annotations

import re
import sys
import traceback
from enum import IntEnum
from typing import Any

import typer
from typer.core import TyperGroup

from esource.browsing.units import plain
from esource.cli.saying import OutputLostError, forget_output, watched_output
from esource.errors import (
    AggregateNotFoundError,
    ArchiveRefusedError,
    CopyRefusedError,
    DatabaseError,
    EventDecodeError,
    EventSourceError,
    FileRefusedError,
    OptimisticLockError,
    ProjectionFailedError,
    SchemaError,
    SchemaMissingError,
    SchemaOutdatedError,
    SchemaUnmanagedError,
    StoreClosedError,
    StoreMovedError,
    StreamClosedError,
)

_secrets: set[str] = set()

_PRECONDITIONS = (
    AggregateNotFoundError,
    ArchiveRefusedError,
    CopyRefusedError,
    FileRefusedError,
    OptimisticLockError,
    StoreMovedError,
    StreamClosedError,
)
"""What was asked for makes sense, but not with what is there."""


class Code(IntEnum):
    """How ``esource`` ends."""

    DONE = 0
    FOUND = 1
    """The check found something, or a projection's handler or a publisher failed."""
    USAGE = 2
    """A wrong URL or option, a module of the application that is not there, an extra that is not installed; a
    file to be written that is there already, or cannot be, and one to be read that is not there."""
    DATABASE = 3
    """The database refused or cannot be reached."""
    PRECONDITION = 4
    """What is there does not allow it: another schema, a target or a file to be read that holds something else, a
    closed stream, a store that has moved, no such stream, event, checkpoint or row, or an event that cannot be read."""
    BUG = 70
    """An unexpected error."""
    OUTPUT = 74
    """Standard output cannot be written: the disk behind it is full."""
    INTERRUPTED = 130
    """By Ctrl-C."""


class Refusal(Exception):  # noqa: N818 - it refuses; the error is elsewhere
    """A command cannot go on: a sentence with the remedy, and how the process is to end."""

    def __init__(self, sentence: str, code: Code = Code.PRECONDITION) -> None:
        self.code = code
        super().__init__(sentence)


def wrong_usage(sentence: str) -> Refusal:
    """The refusal of arguments that make no sense."""
    return Refusal(sentence, Code.USAGE)


def keep_secret(text: str) -> None:
    """Never show this text, in no error message."""
    _secrets.add(text)


def masked(text: str) -> str:
    """A text without what was to be kept secret."""
    for secret in sorted(_secrets, key=len, reverse=True):
        found = re.escape(secret)
        # A short one is part of many words.
        text = re.sub(found if len(secret) > 5 else rf"(?<!\w){found}(?!\w)", "***", text)
    return text


def explain(error: Exception) -> tuple[str, Code]:
    """What to tell a person about an error, and the exit code."""
    if isinstance(error, Refusal):
        return str(error), error.code
    if isinstance(error, SchemaError):
        return _with_command(error), Code.PRECONDITION
    if isinstance(error, EventDecodeError):
        return f"{error}. `esource verify` finds all such rows.", Code.PRECONDITION
    if isinstance(error, _PRECONDITIONS):
        return str(error), Code.PRECONDITION
    if isinstance(error, (DatabaseError, StoreClosedError)):
        return str(error), Code.DATABASE
    if isinstance(error, ProjectionFailedError):
        return str(error), Code.FOUND
    if isinstance(error, EventSourceError):
        return str(error), Code.USAGE
    sentence = f"unexpected {type(error).__name__}: {error}"
    return f"{sentence}. `esource --traceback …` shows where it came from.", Code.BUG


def _with_command(error: SchemaError) -> str:
    """The library's sentence, with the command line's remedy in place of the program's."""
    if isinstance(error, SchemaMissingError) and error.version is None:
        return f"{error.database} has no esource tables. Create them with `esource init`."
    if isinstance(error, SchemaOutdatedError):
        found = "an older schema" if error.found is None else f"schema {error.found}"
        return (
            f"{error.database} is at {found}, this esource works with {error.head or 'a newer one'}. "
            "Make a backup, then run `esource upgrade`."
        )
    if isinstance(error, SchemaUnmanagedError) and not error.lacking:
        return (
            f"{error.database} has event tables but no esource schema version: eventsource-py may have "
            "written it. Make a backup, then take it over with `esource adopt`."
        )
    return str(error)


class Commands(TyperGroup):
    """The root of all commands: whatever one of them raises ends here."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, BrokenPipeError, OutputLostError):
            raise
        except Exception as error:
            if hasattr(error, "format_message"):  # Typer's own: a wrong option or argument
                raise
            sentence, code = explain(error)
            if ctx.params.get("traceback"):
                trace = "".join(traceback.format_exception(error))
                print(plain(masked(trace)), file=sys.stderr, end="")  # noqa: T201
            sentence = plain(masked(" ".join(sentence.split())))
            ending = "" if sentence.endswith((".", "!", "?")) else "."
            print(f"Error: {sentence}{ending}", file=sys.stderr)  # noqa: T201
            raise typer.Exit(code) from None

    def main(self, *arguments: Any, **options: Any) -> Any:
        try:
            with watched_output():
                return super().main(*arguments, **options)
        except BrokenPipeError:  # as Click ends where the reader goes while a command writes
            forget_output()
            sys.exit(1)
        except OutputLostError as error:
            forget_output()
            print(f"Error: the output cannot be written: {error.strerror}.", file=sys.stderr)  # noqa: T201
            sys.exit(Code.OUTPUT)
