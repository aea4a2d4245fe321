"""Where the positions of a log come from: a sequence, or the row that the appends lock.

A sequence belongs to one server, and a number that a rolled back append has drawn is lost: a hole. The row of a small table
holds the last position. Whoever appends locks it and moves it on in the same transaction, so that a rollback gives back what it
has drawn: positions are 1 to n without holes, in the order of the commits, wherever the table lies.

A log draws from the row if it has the function that does so. Then ``events.global_position`` has no default: what counts
on the sequence is refused by NOT NULL, whatever program it is.
"""

from __future__ import annotations

from esource.dialect.moving import LOCK_SECONDS
from esource.dialect.postgresql.quoting import literal
from esource.errors import InvalidOptionError
from esource.tables.names import LOCK_TABLE, SEQUENCES

_DRAW = "esource_draw_positions(bigint)"
_DRAWN = "esource_has_drawn(bigint)"
FUNCTIONS = (_DRAW, _DRAWN)
"""What draws from the row, and what a policy asks about a position; each runs with the rights of its owner."""

MOST_AT_ONCE = 10_000_000
"""How many positions may be drawn at once: a role that may call the function alone can make holes, but not use up all numbers."""

FROM_ROW = f"to_regprocedure('{_DRAW}') IS NOT NULL"
"""Whether the log draws its positions from the row, as SQL. A look into a cache of the session."""

IS_FROM_ROW = f"SELECT {FROM_ROW}"
LAST = f"SELECT last_position FROM {LOCK_TABLE}"  # noqa: S608 - our own name
SET_LAST = f"UPDATE {LOCK_TABLE} SET last_position = $1"  # noqa: S608 - our own name
REMEDY = "call esource.schema.create_append_lock(url) as the role that migrates (`esource append-lock row`)"
"""What makes the row, and brings it up to the end of the log."""

POLICY = "esource_drawn_positions"
_SEQUENCE = SEQUENCES[0]


def _function(signature: str, result: str, body: str) -> str:
    return f"""
DO $do$ BEGIN EXECUTE replace($create$
    CREATE OR REPLACE FUNCTION {signature} RETURNS {result}
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $body$ {body} $body$
$create$, '<schema>', quote_ident(current_schema())); END $do$"""


def _if_from_row(*statements: str) -> str:
    """A statement that runs others where the log draws its positions from the row."""
    return f"DO {literal(f'BEGIN IF {FROM_ROW} THEN {chr(59).join(statements)}; END IF; END')}"


_LOCKED = [
    f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'",
    # In the order in which an append takes them.
    (
        f"DO $do$ BEGIN IF to_regclass('{LOCK_TABLE}') IS NOT NULL THEN "
        f"LOCK TABLE {LOCK_TABLE} IN ACCESS EXCLUSIVE MODE; END IF; END $do$"
    ),
    "LOCK TABLE events IN ACCESS EXCLUSIVE MODE",
]
_AT_LEAST = f"""(SELECT greatest(coalesce(max(global_position), 0), (SELECT last_value - 1 + is_called::int FROM {_SEQUENCE}))
    FROM events)"""  # noqa: S608 - our own name

TO_ROW = [
    *_LOCKED,
    f"CREATE TABLE IF NOT EXISTS {LOCK_TABLE} (id int PRIMARY KEY CHECK (id = 1))",
    # Each append writes the row anew: it finds room on the same page, so that no index has to know.
    f"ALTER TABLE {LOCK_TABLE} SET (fillfactor = 10)",
    (
        f"ALTER TABLE {LOCK_TABLE} ADD COLUMN IF NOT EXISTS last_position bigint NOT NULL DEFAULT 0, "
        "ADD COLUMN IF NOT EXISTS first_drawn bigint, ADD COLUMN IF NOT EXISTS drawn_by xid8"
    ),
    (
        f"INSERT INTO {LOCK_TABLE} AS kept (id, last_position) VALUES (1, {_AT_LEAST}) ON CONFLICT (id) DO UPDATE "  # noqa: S608
        "SET last_position = greatest(kept.last_position, excluded.last_position)"
    ),
    "ALTER TABLE events ALTER COLUMN global_position DROP DEFAULT",
    _function(
        "esource_draw_positions(how_many bigint)",
        "bigint",
        f"""DECLARE before bigint; BEGIN
        IF how_many NOT BETWEEN 1 AND {MOST_AT_ONCE} THEN
            IF how_many = 0 THEN RETURN 0; END IF;
            RAISE EXCEPTION 'at most {MOST_AT_ONCE} positions can be drawn at once, not %', how_many;
        END IF;
        UPDATE <schema>.{LOCK_TABLE} SET last_position = last_position + how_many, drawn_by = pg_current_xact_id(),
            first_drawn = CASE WHEN drawn_by = pg_current_xact_id() THEN first_drawn ELSE last_position + 1 END
            RETURNING last_position - how_many INTO before;
        RETURN before;
    END""",  # noqa: S608
    ),
    # A tenant's role sends the position with the event. It is one that this very transaction has drawn, under the lock.
    _function(
        "esource_has_drawn(place bigint)",
        "boolean",
        f"BEGIN RETURN EXISTS (SELECT FROM <schema>.{LOCK_TABLE} WHERE drawn_by = pg_current_xact_id() "
        "AND place BETWEEN first_drawn AND last_position); END",
    ),
]
"""Idempotent: each time the row is brought up to the end of the log. In one transaction, as the owner of the tables."""

APPENDERS = f"""
DO $do$ DECLARE appender text; BEGIN
    REVOKE ALL ON FUNCTION {_DRAW} FROM PUBLIC;
    FOR appender IN SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END
        FROM pg_class, aclexplode(relacl) WHERE pg_class.oid = 'events'::regclass AND privilege_type = 'INSERT'
        AND grantee <> relowner LOOP
        EXECUTE 'GRANT SELECT, UPDATE (id) ON {LOCK_TABLE} TO ' || appender;
        EXECUTE 'GRANT EXECUTE ON FUNCTION {_DRAW} TO ' || appender;
    END LOOP;
    FOR appender IN SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END
        FROM pg_class, aclexplode(relacl) WHERE pg_class.oid = 'events'::regclass AND privilege_type = 'SELECT'
        AND grantee <> relowner LOOP
        EXECUTE 'GRANT SELECT ON {LOCK_TABLE} TO ' || appender;
    END LOOP;
END $do$"""  # noqa: S608
"""Who may append may lock the row, by the right to set its id, which can be 1 and nothing else; and draw from it. None but the
owner may set the position. Who may read the log may read how far it has come."""

GRANTED = [
    f"GRANT SELECT, UPDATE (id) ON {LOCK_TABLE} TO {{role}}",
    f"GRANT EXECUTE ON FUNCTION {_DRAW} TO {{role}}",
    "GRANT INSERT (global_position) ON events TO {role}",
]
"""What a tenant's role needs in addition. `POLICY` says which positions it may send."""

REVOKED = [f"REVOKE ALL ON {LOCK_TABLE} FROM {{role}}", f"REVOKE ALL ON FUNCTION {_DRAW} FROM {{role}}"]


def policy(sees_all: str) -> str:
    """Lets those whom row-level security restricts store events at the positions that they have drawn."""
    return _if_from_row(
        f"CREATE POLICY {POLICY} ON events AS RESTRICTIVE FOR INSERT "
        f"WITH CHECK ({sees_all} OR esource_has_drawn(global_position))"
    )


DROP_POLICY = f"DROP POLICY IF EXISTS {POLICY} ON events"

TO_SEQUENCE = [
    *_LOCKED,
    _if_from_row(
        f"PERFORM setval('{_SEQUENCE}', greatest(last_position, 1), last_position > 0) FROM "  # noqa: S608
        f"(SELECT greatest({_AT_LEAST}, (SELECT last_position FROM {LOCK_TABLE})) AS last_position) AS reached",
        f"ALTER TABLE events ALTER COLUMN global_position SET DEFAULT nextval('{_SEQUENCE}')",
    ),
    DROP_POLICY,
    *(f"DROP FUNCTION IF EXISTS {function}" for function in FUNCTIONS),
    f"DROP TABLE IF EXISTS {LOCK_TABLE}",
]
"""Idempotent; in one transaction, as the owner of the tables. The sequence goes on where the row has come to."""


def other_append_lock(database: str, append_lock: str) -> InvalidOptionError:
    """The error where a log draws its positions in another way than the store was opened for."""
    if append_lock == "row":
        return InvalidOptionError(
            f"{database}: the store was opened with append_lock='row', and its log draws its positions from a sequence. The two "
            f"ways do not wait for each other. Nothing was written. Open the store without that option, or {REMEDY}."
        )
    return InvalidOptionError(
        f"{database}: the log draws its positions from the row of {LOCK_TABLE}, and the store was opened with append_lock="
        "'advisory', the default. The two ways do not wait for each other. Nothing was written. Open the store with "
        "append_lock='row', or let the log draw from the sequence again: call esource.schema.drop_append_lock(url) as the "
        "role that migrates (`esource append-lock advisory`)."
    )
