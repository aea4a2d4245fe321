"""Payloads with personal fields: sealed when they are written, opened when they are read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakSet

from pydantic import ValidationError
from pydantic_core import from_json

from esource.checks import STANDARD_LIMITS, Limits, check_json, check_size
from esource.domain.events import DomainEvent, Payload
from esource.errors import InvalidEventError, InvalidOptionError, SubjectErasedError
from esource.privacy.cipher import BrokenSealError, break_seal, seal
from esource.privacy.fields import (
    ALL_ERASED,
    COLUMN_FIELDS,
    FORM,
    MARK,
    SEALED,
    Keys,
    PersonalFields,
    personal_fields,
    subject_name,
)


def subjects_of(events: Iterable[object]) -> set[str]:
    """Whose keys it takes to write these events.

    Raises:
        InvalidEventError: a subject is no id.
    """
    subjects: set[str] = set()
    for event in events:
        personal = personal_fields(type(event)) if isinstance(event, DomainEvent) else None
        if personal is not None:
            subjects.update(_subject(event, group.subject) for group in personal.groups)
    return subjects


def _subject(event: object, field: str) -> str:
    try:
        return subject_name(getattr(event, field))
    except InvalidOptionError as error:
        raise InvalidEventError(field, f"says whose personal data this is: {error}") from error


def personal_parts(
    event: DomainEvent, personal: PersonalFields, limits: Limits = STANDARD_LIMITS
) -> list[str]:
    """The personal fields of an event as JSON, one object for each subject.

    Raises:
        InvalidEventError: a value may not be stored.
    """
    parts = []
    for group in personal.groups:
        try:
            text = event.__pydantic_serializer__.to_json(
                event, include=group.names, by_alias=False, round_trip=True, warnings=False
            ).decode()
        except (ValueError, TypeError, RecursionError) as error:
            names = ", ".join(sorted(group.names))
            raise InvalidEventError(names, f"cannot be written as JSON: {type(error).__name__}") from None
        check_size("payload", text, limits)
        parts.append(check_json("", text, limits.json_depth))
    return parts


def joined(parts: list[str]) -> str:
    """Several JSON objects as one."""
    members = [part[1:-1] for part in parts if len(part) > 2]
    return f"{{{','.join(members)}}}"


def sealed_payload(
    event: DomainEvent, personal: PersonalFields, payload: str, parts: list[str], keys: Keys
) -> str:
    """The payload's plain part, with the personal fields sealed.

    Raises:
        InvalidEventError: a subject is no id.
        SubjectErasedError: the key of a subject was destroyed.
    """
    entries = []
    for group, part in zip(personal.groups, parts, strict=True):
        subject = _subject(event, group.subject)
        key = keys[subject]
        if key is None:
            raise SubjectErasedError(subject)
        entries.append(
            {
                "form": FORM,
                "subject": subject,
                "data": seal(key, part.encode(), str(event.event_id), subject, str(FORM)),
                "erased": group.erased,
            }
        )
    separator = "," if len(payload) > 2 else ""
    return f"{payload[:-1]}{separator}{MARK}{json.dumps(entries, separators=(',', ':'))}}}"


_erasable: WeakSet[type[DomainEvent]] = WeakSet()


def require_erasable(event: DomainEvent, payload: str, validate: Callable[[str], object]) -> None:
    """Look once for each class whether it takes the placeholders: when the first key is destroyed it is too late.

    Args:
        event: An event of the class.
        payload: Its payload, sealed.
        validate: What reads an event of the class from JSON.

    Raises:
        InvalidOptionError: the class does not take them.
    """
    event_class = type(event)
    if event_class in _erasable:
        return
    members = unsealed(from_json(payload), str(event.event_id), ALL_ERASED)
    members |= event.model_dump(mode="json", include=COLUMN_FIELDS, by_alias=False)
    try:
        validate(json.dumps(members))
    except (ValidationError, InvalidEventError) as error:
        raise InvalidOptionError(
            f"{event_class.__name__} could not be read once its personal fields are erased "
            f"({without_values(error)}): say what stands in for them, with Personal(placeholder=...)"
        ) from None
    _erasable.add(event_class)


def without_values(error: Exception) -> str:
    """What is wrong with an event, without what it holds: that would go into logs and dead letters."""
    if isinstance(error, ValidationError):
        return "; ".join(
            f"{'.'.join(map(str, found['loc']))}: {found['type']}"
            for found in error.errors(include_input=False)
        )
    return type(error).__name__


def sealed_subjects(payloads: Iterable[str]) -> set[str]:
    """Whose keys it takes to read these payloads. What is no payload of ours needs none."""
    subjects: set[str] = set()
    for payload in payloads:
        if MARK in payload:
            try:
                members = from_json(payload)
            except ValueError:
                continue  # it is refused where this event is read, and is no reason to refuse the others
            for entry in _entries(members):
                if isinstance(entry, dict) and isinstance(entry.get("subject"), str):
                    subjects.add(entry["subject"])
    return subjects


def _entries(members: object) -> list[Any]:
    found = members.get(SEALED) if isinstance(members, dict) else None
    return found if isinstance(found, list) else []


def is_sealed(members: Payload) -> bool:
    """Whether a payload has personal fields that are still sealed."""
    return isinstance(members, dict) and SEALED in members


def unsealed(members: Payload, event_id: str, keys: Keys) -> Payload:
    """A payload with its personal fields, or what stands in for them where the key was destroyed.

    Raises:
        BrokenSealError: the sealed text was changed, or moved to another event.
        KeyNotFoundError: the key store has never had the key.
    """
    result = {name: value for name, value in members.items() if name != SEALED}
    entries = members[SEALED]
    if not isinstance(entries, list):
        raise BrokenSealError(f"{SEALED} is no list")
    for entry in entries:
        try:
            form, subject, data, erased = (entry[name] for name in ("form", "subject", "data", "erased"))
        except (TypeError, KeyError) as error:
            raise BrokenSealError(f"an entry of {SEALED} is incomplete") from error
        if form != FORM:
            raise BrokenSealError(f"it has the form {form!r}, this program knows {FORM}")
        key = keys[subject]
        fields = erased if key is None else from_json(break_seal(key, data, event_id, subject, str(FORM)))
        result.update(fields)
    return result
