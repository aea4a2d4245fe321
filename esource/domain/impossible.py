"""Fields whose values can never come back from JSON: told when their class is registered, not with the first event."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from esource.domain.core_schemas import Schema, fields_of, nodes, without_definitions
from esource.domain.proof import lost_members
from esource.errors import InvalidOptionError

_REMEDIES = {
    "generator": ("is an iterator, which is used up when it is written", "Declare a list"),
    "callable": ("is a function, which JSON cannot hold", "Store its name"),
    "is-subclass": ("is a class, which JSON cannot hold", "Store its name"),
    "is-instance": (
        "is of a class of which pydantic knows no JSON",
        "Give the class a serializer and a validator, or declare what JSON has",
    ),
}
_UNHASHABLE_AS_TEXT = {"tuple", "model", "dataclass", "list", "set", "frozenset", "dict", "typed-dict"}


def require_possible(model: type[BaseModel]) -> None:
    """Refuse a class with a field that no value of its type comes back for. No I/O.

    A class that names others which do not exist yet is looked at when its first instance is written.

    Raises:
        InvalidOptionError: it has one; the text says which, why, and what to declare.
    """
    if not model.__pydantic_complete__:
        return
    definitions: dict[str, Schema] = {}
    schema = without_definitions(dict(model.__pydantic_core_schema__), definitions)
    own = next((node for node in nodes(schema) if node["type"] == "model-fields"), {})
    for name, field in fields_of(own).items():
        found = _why_impossible(field, definitions)
        if found is not None:
            problem, remedy = found
            raise InvalidOptionError(f"{model.__name__}.{name} {problem}. {remedy}")


def _why_impossible(field: Schema, definitions: dict[str, Schema]) -> tuple[str, str] | None:
    schema = field["schema"]
    if field.get("serialization_exclude") and schema["type"] != "default":
        return "is excluded from what is written, and has no default", "Take exclude=True away"
    while True:
        if "serialization" in schema:
            if _is_masked(schema):
                return (
                    "is a secret, which is written as asterisks",
                    "Declare str, and mark it with Personal() to have it encrypted",
                )
            return None  # the class writes it in a form of its own
        if schema["type"] == "definition-ref":
            if schema["schema_ref"] not in definitions:
                return None
            schema = definitions[schema["schema_ref"]]
        elif schema["type"] in ("default", "lax-or-strict"):
            schema = schema.get("schema") or schema["lax_schema"]
        else:
            return _of_type(schema)


def _of_type(schema: Schema) -> tuple[str, str] | None:
    if schema["type"] == "enum":
        lost = lost_members(schema["cls"])
        if lost:
            return (
                f"is an enum whose member {lost[0].name} does not come back from JSON",
                "Give its members values that JSON has: texts or integers",
            )
    if schema["type"] == "dict" and schema.get("keys_schema", {}).get("type") in _UNHASHABLE_AS_TEXT:
        return "is a dict whose keys JSON cannot hold", "Declare a list of pairs, or keys that are texts"
    return _REMEDIES.get(schema["type"])


def _is_masked(schema: Schema) -> bool:
    function: Any = schema["serialization"].get("function")
    return getattr(function, "__module__", "") == "pydantic.types" and "secret" in function.__name__
