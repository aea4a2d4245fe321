"""What a PostgreSQL URL may look like, and its settings in the words of asyncpg: people copy libpq's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from esource.checks import shown
from esource.dialect.postgresql.quoting import check_schema, identifier
from esource.errors import InvalidOptionError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.engine import URL


LAST_PORT = 65535

URL_OPTIONS = frozenset(
    {
        *("host", "port", "user", "password", "database", "ssl", "passfile", "target_session_attrs"),
        *("krbsrvname", "gsslib", "prepared_statement_cache_size"),
        # libpq's words, which `for_asyncpg` translates
        *("sslmode", "connect_timeout", "application_name", "channel_binding"),
        "schema",  # ours
    }
)
"""What the driver and SQLAlchemy take as text, and our own; the rest has other types, and goes into ``connect_args``."""


def checked(url: URL) -> URL:
    """The URL, with a password that stands among its options moved to where nothing shows it.

    Raises:
        InvalidOptionError: an option that neither asyncpg nor SQLAlchemy takes as text, a name that no schema can have,
            or a part that the driver would report with the text in question.
    """
    unknown = sorted(url.query.keys() - URL_OPTIONS)
    if unknown:
        raise InvalidOptionError(
            f"a PostgreSQL URL has no option {shown(unknown[0])}: pass what asyncpg.connect takes with "
            "connect_args={...}"
        )
    # The driver would report these in errors of other kinds, or with the text in question.
    ports = [port for given in _each(url.query.get("port", ())) for port in given.split(",")]
    ports += [] if url.port is None else [str(url.port)]
    if not all(port.isdecimal() and len(port) <= 5 and 0 < int(port) <= LAST_PORT for port in ports):
        raise InvalidOptionError("the port of the PostgreSQL URL is no number from 1 to 65535")
    if any(
        "\0" in part for part in (url.username or "", url.password or "", url.host or "", url.database or "")
    ):
        raise InvalidOptionError("the PostgreSQL URL holds a NUL character")
    if "schema" in url.query:
        check_schema(url.query["schema"])
    if "password" not in url.query:
        return url
    passwords = _each(url.query["password"])
    if len(passwords) > 1:
        raise InvalidOptionError("the PostgreSQL URL has several passwords among its options")
    return url.difference_update_query(["password"]).set(password=passwords[0])


def check_text(text: str) -> None:
    """Refuse a URL whose password may have been cut off at an ``@``: the rest would be a host or a name, which messages
    show. Of options, it is those that SQLAlchemy leaves out without a word.

    Raises:
        InvalidOptionError: it has more than one ``@`` before its options, or an option without a value.
    """
    place, _, query = text.partition("?")
    options = parse_qsl(query, keep_blank_values=True)
    if any(name not in URL_OPTIONS or ("@" in value and name not in _NAMES) for name, value in options):
        place = text  # that question mark may be one of the password
    if place.count("@") > 1:
        raise InvalidOptionError(
            "the PostgreSQL URL has more than one @: write %40 for each that belongs to a password or a name"
        )
    if "@" not in query and not all(value for _, value in options):
        raise InvalidOptionError("an option of the PostgreSQL URL has no value: write ?name=value")


_NAMES = frozenset({"host", "user", "password", "database", "passfile", "application_name"})
"""Options whose values may have an ``@``."""


def _each(given: str | tuple[str, ...]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else given


_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
CHOICES = {
    "sslmode": _SSL_MODES,
    "ssl": _SSL_MODES,
    "target_session_attrs": ("any", "primary", "standby", "prefer-standby", "read-write", "read-only"),
    "gsslib": ("gssapi", "sspi"),
}
"""Settings of a few words, which asyncpg would refuse as if the server could not be reached."""


def schema_of(url: URL) -> str | None:
    """The schema that the URL names; None if the server decides."""
    return str(url.query["schema"]) if "schema" in url.query else None


def for_asyncpg(url: URL, connect_args: Mapping[str, Any]) -> tuple[URL, dict[str, Any]]:
    """The URL with the settings that asyncpg takes as they are, and its arguments: for the other settings, and those that
    are given.

    Raises:
        InvalidOptionError: ``channel_binding=require``, which asyncpg cannot do; a word that a setting does not have; or a
            search path beside a schema.
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
    for_server = _for_server(settings, connect_args.get("server_settings", {}))
    if "connect_timeout" in settings:
        arguments["timeout"] = _seconds(settings.pop("connect_timeout"))
    if "channel_binding" in settings:
        raise InvalidOptionError("channel_binding: asyncpg has no such setting. Take it out of the URL")
    arguments |= connect_args
    if for_server:
        arguments["server_settings"] = for_server
    return url.set(query=settings), arguments


def _for_server(settings: dict[str, Any], given: Mapping[str, str]) -> dict[str, Any]:
    """What the server is told of a session: those of the URL's settings that are for it, and what is given."""
    found = {}
    if "application_name" in settings:
        found["application_name"] = settings.pop("application_name")
    if "schema" in settings:
        if "search_path" in given:
            raise InvalidOptionError("schema sets the search path: leave search_path out of server_settings")
        found["search_path"] = identifier(str(settings.pop("schema")))
    return {**found, **given}


def _seconds(text: Any) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        raise InvalidOptionError(f"connect_timeout must be a number of seconds, not {text!r}") from None
