"""A log as a distributed schema of Citus: all its tables on one node of the cluster, which may change."""

from __future__ import annotations

from esource.dialect.postgresql.quoting import identifier, literal
from esource.tables.append_function import SIGNATURE

HAS_CITUS = "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'citus')"
IS_DISTRIBUTED = (
    "SELECT EXISTS (SELECT FROM pg_dist_schema WHERE schemaid = to_regnamespace(quote_ident($1)))"
)
"""Whether a schema is a distributed one. Only where there is Citus."""

ALLOW_TRIGGERS = "SET LOCAL citus.enable_unsafe_triggers = on"
"""Lets the tables of a distributed schema have triggers. Ours write to the table beside, which is always on the same node. A
server without Citus takes it for a setting of an extension that is not there."""


def distribute(schema: str) -> list[str]:
    """Let a node of the cluster have the tables of a schema."""
    return [ALLOW_TRIGGERS, f"SELECT citus_schema_distribute({literal(identifier(schema))})"]


def delegate(schema: str) -> list[str]:
    """Let that node run each append whole. Idempotent; to be repeated when the function was made anew."""
    function = f"{identifier(schema)}.{SIGNATURE}"
    events = f"{identifier(schema)}.events"
    return [
        # The node does not know in which schema the session works that asks it.
        f"ALTER FUNCTION {function} SET search_path = {identifier(schema)}",
        f"SELECT create_distributed_function({literal(function)}, colocate_with => {literal(events)})",
    ]
