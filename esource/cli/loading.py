"""Objects of the application, by name."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Annotated, Any

import typer

from esource import EventRegistry, default_registry
from esource.cli.errors import Code, Refusal, wrong_usage

App = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE[:REGISTRY]",
        help="The module that defines the event classes, and its registry if it is not the default one.",
    ),
]
"""The option ``--app`` of every command that knows events by their classes."""


def registry_of(app: str | None) -> EventRegistry | None:
    """The registry that ``--app`` names; None without one.

    Raises:
        Refusal: the module cannot be loaded, or what it names is no registry.
    """
    if app is None:
        return None
    found = loaded(app)
    if ":" not in app:
        return default_registry
    if not isinstance(found, EventRegistry):
        raise wrong_usage(f"{app!r} is a {type(found).__name__}, not an EventRegistry.")
    return found


def loaded(app: str) -> Any:
    """What ``module:object`` names, or the module itself.

    Raises:
        Refusal: there is none, or the module cannot be imported.
    """
    name, _, attribute = app.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # as `python -m` does: the console script looks only beside itself
    module = _imported(name, app)
    try:
        return getattr(module, attribute) if attribute else module
    except AttributeError as error:
        raise wrong_usage(f"{app!r} cannot be loaded: {error}. Write it as module:object.") from error


def made(found: type, app: str) -> Any:
    """An object of the class that ``module:object`` names.

    Raises:
        Refusal: it cannot be made of nothing.
    """
    try:
        return found()
    except Exception as error:
        raise wrong_usage(
            f"{app!r} cannot be called without arguments: it raised {_named(error)}. Name an object instead."
        ) from error


def _imported(name: str, app: str) -> Any:
    if not all(name.split(".")):
        raise wrong_usage(
            f"{app!r} cannot be loaded: {name!r} is no module's name. Write it as module:object."
        )
    try:
        return import_module(name)
    except (Exception, SystemExit) as error:  # the application's own code, which may raise anything
        if isinstance(error, ModuleNotFoundError) and _leads_to(name, error.name):
            raise wrong_usage(
                f"{app!r} cannot be loaded: {error}. Write it as module:object, from the folder where the module "
                "is, or with that folder in PYTHONPATH."
            ) from error
        # What it imports in vain is to be installed or named; anything else is the application's bug.
        code = Code.USAGE if isinstance(error, ImportError) else Code.BUG
        raise Refusal(
            f"unexpected {_named(error)}, raised by the module {name} when it was imported. `esource --traceback …` "
            "shows where.",
            code,
        ) from error


def _leads_to(name: str, missing: str | None) -> bool:
    """Whether the module that is not there is the one that was named, or a package above it."""
    return missing is not None and f"{name}.".startswith(f"{missing}.")


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
