"""Values without a declared type: which fields can hold them, and which of their texts are UUIDs."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, get_args, get_origin
from uuid import UUID

from typing_inspection.introspection import is_union_origin
from typing_inspection.typing_objects import is_annotated

from esource.checks import check_names
from esource.domain.events import DomainEvent


def _mentions(annotation: Any, wanted: Any) -> bool:
    """Whether the annotation, or anything that it is made of, satisfies the condition."""
    return bool(wanted(annotation)) or any(_mentions(part, wanted) for part in get_args(annotation))


def _is_untyped(annotation: Any) -> bool:
    return annotation is Any or annotation is object or annotation in (dict, list)


@lru_cache(maxsize=4096)
def untyped_fields(event_class: type[DomainEvent]) -> tuple[tuple[str, Any], ...]:
    """The fields that can hold values of no declared type, with their annotations."""
    return tuple(
        (name, field.annotation)
        for name, field in event_class.model_fields.items()
        if _mentions(field.annotation, _is_untyped)
    )


class UuidNames:
    """Finds UUIDs by name where no type is declared: extra fields, ``dict`` and ``Any`` values, and events read
    without their class. A declared type always decides. `metadata` is what other programs see as JSON: there only
    the names that were given hold UUIDs, and everything else stays the text that is stored.

    Args:
        uuid_fields: Names that hold UUIDs, also in `metadata`.
        string_id_fields: Names ending in ``_id`` that do not.
        auto_detect_uuid: Whether other names ending in ``_id`` do.
    """

    def __init__(
        self, uuid_fields: set[str] | None, string_id_fields: set[str] | None, *, auto_detect_uuid: bool
    ) -> None:
        self._uuid_fields = check_names("uuid_fields", uuid_fields) or frozenset()
        self._string_id_fields = check_names("string_id_fields", string_id_fields) or frozenset()
        self._auto_detect_uuid = auto_detect_uuid
        self._of_metadata = (
            UuidNames(uuid_fields, string_id_fields, auto_detect_uuid=False) if auto_detect_uuid else self
        )

    def apply(self, event: DomainEvent) -> None:
        for name, annotation in untyped_fields(type(event)):
            value = getattr(event, name)
            names = self._of_metadata if name == "metadata" else self
            detected = names._where_untyped(annotation, name, value)  # noqa: SLF001 - of its own class
            if detected is not value:
                event.__dict__[name] = detected
        extra = event.model_extra
        if extra:
            for name, value in extra.items():
                extra[name] = self._with_uuids(name, value)

    def _where_untyped(self, annotation: Any, name: str, value: Any) -> Any:
        """The value with UUIDs detected where its annotation declares no type."""
        if _is_untyped(annotation):
            return self._with_uuids(name, value)
        origin, parts = get_origin(annotation), get_args(annotation)
        if is_annotated(origin):
            return self._where_untyped(parts[0], name, value)
        if is_union_origin(origin):
            # A text is what the union says it is, if it names str; else the first member that fits.
            for part in parts:
                if part is type(value):
                    return value
            for part in parts:
                kind = get_origin(part) or part
                if _is_untyped(part) or (isinstance(kind, type) and isinstance(value, kind)):
                    return self._where_untyped(part, name, value)
            return value
        if isinstance(value, dict) and len(parts) == 2:
            return {key: self._where_untyped(parts[1], str(key), item) for key, item in value.items()}
        if isinstance(value, list) and len(parts) == 1:
            return [self._where_untyped(parts[0], name, item) for item in value]
        return value

    def _with_uuids(self, name: str, value: Any) -> Any:
        if isinstance(value, str):
            if len(value) == 36 and self._is_uuid_name(name):
                try:
                    found = UUID(value)
                except ValueError:
                    return value
                return found if str(found) == value.lower() else value
            return value
        if isinstance(value, dict):
            return {key: self._with_uuids(str(key), item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._with_uuids(name, item) for item in value]
        return value

    def _is_uuid_name(self, name: str) -> bool:
        if name in self._string_id_fields:
            return False
        return name in self._uuid_fields or (self._auto_detect_uuid and name.endswith("_id"))
