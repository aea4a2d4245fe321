"""Asking before something is lost."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from esource.cli.errors import wrong_usage

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
"""The option ``--yes`` of every command that destroys something."""


def confirm(what: str, *, yes: bool) -> None:
    """Go on if the person says so, or has said so with ``--yes``.

    Raises:
        typer.Abort: no.
        Refusal: there is no terminal to ask at.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise wrong_usage(f"this will {what}: there is no terminal to ask at, so say --yes.")
    typer.confirm(f"This will {what}. Go on?", abort=True, err=True)
