"""What may be given to an aggregate as a command."""

from __future__ import annotations

from esource.checks import shown
from esource.domain.aggregates import AggregateRoot
from esource.errors import InvalidOptionError


def require_command(command: object) -> None:
    """Refuse what could not be called on the aggregate that is loaded.

    Raises:
        InvalidOptionError: it is no function, or the method of an object.
    """
    if not callable(command):
        raise InvalidOptionError(
            f"the command must be a function of the aggregate, as Order.ship, not {shown(command)}"
        )
    if isinstance(getattr(command, "__self__", None), AggregateRoot):
        raise InvalidOptionError(
            f"the command must be the method of the class ({command.__qualname__}), not that of an object: it is called "  # type: ignore[attr-defined]
            "on the aggregate that is loaded"
        )
