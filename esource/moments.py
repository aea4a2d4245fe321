"""Moments in time: now, and the one text that a moment is stored as."""

from __future__ import annotations

from datetime import datetime, timezone


def utc_now() -> datetime:
    """The current moment, aware, in UTC."""
    return datetime.now(timezone.utc)


def to_iso(value: datetime) -> str:
    """The one text form of a moment that we write: UTC, six digits of microseconds, ``+00:00``."""
    return utc_to_iso(value.astimezone(timezone.utc))


def utc_to_iso(value: datetime) -> str:
    """The same of a moment that is in UTC. To let `isoformat` ask for the offset takes half as long again."""
    return f"{value.replace(tzinfo=None).isoformat('T', 'microseconds')}+00:00"


def from_iso(text: str) -> datetime:
    """A moment from any text form that a writer of these tables may have left, in UTC.

    Accepts our own form, other offsets, a ``Z``, and SQLite's ``YYYY-MM-DD HH:MM:SS`` (which is UTC).
    """
    if text.endswith(("Z", "z")):
        text = text[:-1] + "+00:00"
    value = datetime.fromisoformat(text)
    return value.replace(tzinfo=timezone.utc) if value.tzinfo is None else value.astimezone(timezone.utc)


def canonical_moment(text: str) -> str:
    """A moment's text in our own form, whatever form it has."""
    return text if len(text) == 32 and text.endswith("+00:00") else to_iso(from_iso(text))


def as_utc(value: datetime) -> datetime:
    """The same moment in UTC."""
    return value.astimezone(timezone.utc)
