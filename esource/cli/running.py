"""A coroutine function as a command: it is run, and what it returns is shown."""

from __future__ import annotations

import asyncio
import functools
import inspect
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Any, ParamSpec, TypeVar

import typer

from esource.cli.errors import Code
from esource.cli.output import Output

P = ParamSpec("P")
R = TypeVar("R")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
"""The option ``--json`` of every command that reads."""


def asynchronous(command: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """A command that says itself what it has to say."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(command(*args, **kwargs))

    return run


@contextmanager
def ended_by_sigterm(stop: Callable[[], object]) -> Iterator[None]:
    """SIGTERM, by which supervisors end a service, ends a follower after its batch, and not within it.

    Ctrl-C still interrupts it; what was not committed is done again by the next run.
    """
    loop = asyncio.get_running_loop()
    # Not every system has signals for a loop, and none outside of the main thread.
    with suppress(NotImplementedError, RuntimeError, ValueError):
        loop.add_signal_handler(signal.SIGTERM, stop)
    try:
        yield
    finally:
        with suppress(NotImplementedError, RuntimeError, ValueError):
            loop.remove_signal_handler(signal.SIGTERM)


def shows(
    text: Callable[[R, Output], None],
    *,
    document: Callable[[R], Any] = lambda result: result,
    found: Callable[[R], bool] = lambda result: False,
) -> Callable[[Callable[P, Coroutine[Any, Any, R | None]]], Callable[..., None]]:
    """A command that returns its result, and has the option ``--json``.

    Args:
        text: writes the result for a person.
        document: what ``--json`` prints of it; the result itself if left out.
        found: whether the result is one that a check has found: the exit code is 1 then.

    A command that returns None has nothing to show.
    """

    def made(command: Callable[P, Coroutine[Any, Any, R | None]]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(*, as_json: bool, **arguments: Any) -> None:
            result = asyncio.run(command(**arguments))  # type: ignore[call-arg]
            if result is None:
                return
            output = Output()
            if as_json:
                output.document(document(result))
            else:
                text(result, output)
            if found(result):
                raise typer.Exit(Code.FOUND)

        signature = inspect.signature(command, eval_str=True)  # Typer does not, of a signature that is set
        option = inspect.Parameter(
            "as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=AsJson
        )
        run.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*signature.parameters.values(), option]
        )
        run.__annotations__ = {**command.__annotations__, "as_json": AsJson, "return": None}
        return run

    return made
