"""Settings in PostgreSQL URLs as people copy them (libpq's names), in the words of asyncpg."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from esource.checks import shown
from esource.errors import InvalidOptionError

if TYPE_CHECKING:
    from sqlalchemy.engine import URL


_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
CHOICES = {
    "sslmode": _SSL_MODES,
    "ssl": _SSL_MODES,
    "target_session_attrs": ("any", "primary", "standby", "prefer-standby", "read-write", "read-only"),
    "gsslib": ("gssapi", "sspi"),
}
"""Settings of a few words, which asyncpg would refuse as if the server could not be reached."""


def for_asyncpg(url: URL) -> tuple[URL, dict[str, Any]]:
    """The URL with the settings that asyncpg takes as they are, and arguments for the others.

    Raises:
        InvalidOptionError: ``channel_binding=require``, which asyncpg cannot do, or a word that nobody knows.
    """
    settings = dict(url.query)
    for name in sorted(CHOICES.keys() & settings.keys()):
        word = settings[name]
        if name in ("ssl", "sslmode") and isinstance(word, str):
            word = word.replace("_", "-")  # which asyncpg takes, too
        if word not in CHOICES[name]:
            raise InvalidOptionError(f"{name} must be one of {', '.join(CHOICES[name])}, not {shown(word)}")
    arguments: dict[str, Any] = {}
    if "sslmode" in settings:
        settings.setdefault("ssl", settings.pop("sslmode"))
    if settings.get("channel_binding") in ("prefer", "disable"):
        del settings["channel_binding"]
    if "application_name" in settings:
        arguments["server_settings"] = {"application_name": settings.pop("application_name")}
    if "connect_timeout" in settings:
        arguments["timeout"] = _seconds(settings.pop("connect_timeout"))
    if "channel_binding" in settings:
        raise InvalidOptionError("channel_binding: asyncpg has no such setting. Take it out of the URL")
    return url.set(query=settings), arguments


def _seconds(text: Any) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        raise InvalidOptionError(f"connect_timeout must be a number of seconds, not {text!r}") from None
