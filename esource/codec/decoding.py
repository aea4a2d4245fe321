"""What decoding an event takes: the row as the database hands it over, and the form of its type."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from pydantic import ValidationError

from esource.codec.untyped import untyped_fields
from esource.domain.events import DomainEvent
from esource.privacy.fields import personal_fields


@lru_cache(maxsize=4096)
def _aliases_mislead(event_class: type[DomainEvent]) -> bool:
    """Whether one field's alias is another's name: then only names, which is what we write, are read."""
    fields = event_class.model_fields
    return any(field.validation_alias in fields.keys() - {name} for name, field in fields.items())


class Form:
    """What decoding one event type needs, looked up once."""

    __slots__ = (
        "aggregate_type",
        "event_class",
        "has_untyped_fields",
        "has_upcasters",
        "is_personal",
        "registered",
        "types",
        "validate",
    )

    def __init__(
        self,
        registered: type[DomainEvent] | None,
        event_class: type[DomainEvent],
        event_type: str,
        aggregate_type: str,
    ) -> None:
        self.registered = registered
        """What the registry said: the form serves as long as it says so."""
        self.event_class = event_class
        self.aggregate_type = aggregate_type
        self.types = f'"event_type":{json.dumps(event_type)},"aggregate_type":{json.dumps(aggregate_type)},'
        self.validate: Callable[[str], Any] = event_class.__pydantic_validator__.validate_json
        if "validation_alias" in str(event_class.__pydantic_core_schema__):  # its own or a nested model's
            # Payloads are written with the fields' own names, whatever alias their class has today.
            self.validate = partial(self.validate, by_alias=not _aliases_mislead(event_class), by_name=True)
        self.has_upcasters = bool(event_class.__esource_upcasters__)
        self.is_personal = personal_fields(event_class) is not None
        extra = event_class.model_config.get("extra") == "allow"
        self.has_untyped_fields = extra or len(untyped_fields(event_class)) > 1  # metadata is one


def without_values(error: Exception) -> str:
    """What is wrong with an event, without what it holds: that would go into logs and dead letters."""
    if isinstance(error, ValidationError):
        return "; ".join(
            f"{'.'.join(map(str, found['loc']))}: {found['type']}"
            for found in error.errors(include_input=False)
        )
    return type(error).__name__
