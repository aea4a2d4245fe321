"""Core schemas of pydantic, walked: what a class is made of, whichever way its types were written down."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, TypeAlias

from pydantic import AliasChoices, AliasPath, BaseModel, PydanticUserError, TypeAdapter

Schema: TypeAlias = dict[str, Any]
"""A core schema, or a part of one."""

PERSONAL = "esource:personal"
"""In the metadata of a schema: its values say something about a person."""

_LEAVES = frozenset({"metadata", "default", "expected", "members", "config", "cls", "function"})
"""Parts of a schema that hold values, not schemas."""


def nodes(schema: Any) -> Iterator[Schema]:
    """All schemas that a schema is made of, itself included; each definition once."""
    left = [schema]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            if isinstance(part.get("type"), str):
                yield part
                left += [inner for name, inner in part.items() if name not in _LEAVES]
            else:
                left += part.values()
        elif isinstance(part, (list, tuple)):
            left += part


def without_definitions(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    """The schema itself where it is given by reference; the definitions are added to those at hand."""
    while schema["type"] in ("definitions", "definition-ref"):
        if schema["type"] == "definitions":
            definitions.update((part["ref"], part) for part in schema["definitions"])
            schema = schema["schema"]
        else:
            schema = definitions[schema["schema_ref"]]
    return schema


def fields_of(node: Schema) -> dict[str, Schema]:
    """The fields of a model, a TypedDict or a dataclass, if the node is the schema of one."""
    fields = node.get("fields", {})
    if isinstance(fields, dict):
        return fields
    return {field["name"]: field for field in fields if isinstance(field, dict)}  # of a dataclass


def has_aliases(schema: Any) -> bool:
    """Whether a field of this class, or of one inside of it, is also read under another name."""
    return any("validation_alias" in field for node in nodes(schema) for field in fields_of(node).values())


def aliases_mislead(schema: Any) -> bool:
    """Whether, in this class or one inside of it, the alias of a field is the name of another: values would be
    swapped if aliases were read."""
    for node in nodes(schema):
        fields = fields_of(node)
        for name, field in fields.items():
            if first_names(field.get("validation_alias")) & (fields.keys() - {name}):
                return True
    return False


def first_names(alias: Any) -> set[Any]:
    """The members that an alias may be read from. In a core schema, `AliasPath` and `AliasChoices` are lists."""
    if isinstance(alias, (AliasPath, AliasChoices)):
        alias = alias.convert_to_aliases()
    if isinstance(alias, list):
        several = alias if isinstance(alias[0], list) else [alias]
        return {part[0] for part in several}
    return {alias}


@lru_cache(maxsize=4096)
def known_members(model: type[BaseModel]) -> set[str]:
    """The members that a model reads: the names of its fields and their aliases."""
    aliases = (first_names(field.validation_alias) for field in model.model_fields.values())
    return {*model.model_fields}.union(*aliases)


def personal_members(model: type[BaseModel]) -> set[str]:
    """The fields of a model that are marked as personal, or have something inside that is."""
    definitions: dict[str, Schema] = {}
    schema = without_definitions(dict(model.__pydantic_core_schema__), definitions)
    own = next((node for node in nodes(schema) if node["type"] == "model-fields"), {})
    return {name for name, field in fields_of(own).items() if _is_personal(field, definitions, set())}


@lru_cache(maxsize=4096)
def is_personal(kind: type) -> bool:
    """Whether a model, a dataclass or a named tuple has something that is marked as personal."""
    try:
        schema: Any = TypeAdapter(kind).core_schema
    except PydanticUserError:  # of which pydantic knows nothing: it has no marks that would be seen
        return False
    return any(PERSONAL in node.get("metadata", {}) for node in nodes(schema))


def _is_personal(schema: Schema, definitions: dict[str, Schema], seen: set[str]) -> bool:
    for node in nodes(schema):
        if PERSONAL in node.get("metadata", {}):
            return True
        name = node.get("schema_ref")
        if name is not None and name not in seen:
            seen.add(name)
            if _is_personal(definitions[name], definitions, seen):
                return True
    return False


def treats_extras_inside(model: type[BaseModel]) -> bool:
    """Whether a class inside of this one says itself what becomes of members that it does not know."""
    return any(
        node.get("cls") is not model
        and ("extra_fields_behavior" in node.get("config", {}) or node.get("extra_behavior") is not None)
        for node in nodes(model.__pydantic_core_schema__)
    )
