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

_LOCK = "esource_lock_positions()"
_DRAW = "esource_draw_positions(bigint, bigint)"
_DRAWN = "esource_has_drawn(bigint)"
FUNCTIONS = (_LOCK, _DRAW, _DRAWN)
"""What locks the row, what draws from it, and what a policy asks about a position; each runs with the rights of its owner."""

MOST_AT_ONCE = 10_000_000
"""How many positions may be drawn at once: a role that may call the function alone can make holes, but not use up all numbers."""

FROM_ROW = f"to_regprocedure('{_DRAW}') IS NOT NULL"
"""Whether the log draws its positions from the row, as SQL. A look into a cache of the session."""

LOCK = f"SELECT {_LOCK}"
IS_FROM_ROW = f"SELECT {FROM_ROW}"
LAST = f"SELECT last_position FROM {LOCK_TABLE}"  # noqa: S608 - our own name
SET_LAST = f"UPDATE {LOCK_TABLE} SET last_position = $1"  # noqa: S608 - our own name
REMEDY = "call esource.schema.create_append_lock(url) as the role that migrates (`esource append-lock row`)"
"""What makes the row, and brings it up to the end of the log."""

POLICY = "esource_drawn_positions"
_SEQUENCE = SEQUENCES[0]


# Each append leaves an old version of the row. As long as a snapshot that is older is in use, as that of pg_dump, they cannot be
# removed: reading the table would take longer with each append, and be 5 times as long after 12 000. So the row is found from the
# end of the index of its positions, where the newest version is. That the table is small tells the planner otherwise.
_NEWEST = f"FROM <schema>.{LOCK_TABLE} ORDER BY last_position DESC LIMIT 1"


def _function(signature: str, result: str, body: str) -> str:
    return f"""
DO $do$ BEGIN EXECUTE replace($create$
    CREATE OR REPLACE FUNCTION {signature} RETURNS {result}
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
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
    f"CREATE TABLE IF NOT EXISTS {LOCK_TABLE} (last_position bigint NOT NULL)",
    f"ALTER TABLE {LOCK_TABLE} ADD COLUMN IF NOT EXISTS last_position bigint NOT NULL DEFAULT 0",
    # Earlier releases locked a row that had nothing but a number.
    f"ALTER TABLE {LOCK_TABLE} DROP COLUMN IF EXISTS id, DROP CONSTRAINT IF EXISTS {LOCK_TABLE}_pkey",
    f"ALTER TABLE {LOCK_TABLE} ADD CONSTRAINT {LOCK_TABLE}_pkey PRIMARY KEY (last_position)",
    f"ALTER TABLE {LOCK_TABLE} ADD COLUMN IF NOT EXISTS first_drawn bigint",
    f"ALTER TABLE {LOCK_TABLE} ADD COLUMN IF NOT EXISTS drawn_in int, ADD COLUMN IF NOT EXISTS drawn_at timestamptz",
    f"INSERT INTO {LOCK_TABLE} (last_position) SELECT 0 WHERE NOT EXISTS (SELECT FROM {LOCK_TABLE})",  # noqa: S608
    f"UPDATE {LOCK_TABLE} SET last_position = greatest(last_position, {_AT_LEAST})",  # noqa: S608
    "ALTER TABLE events ALTER COLUMN global_position DROP DEFAULT",
    _function(
        "esource_lock_positions()",
        "bigint",
        f"DECLARE reached bigint; BEGIN SELECT last_position INTO STRICT reached {_NEWEST} FOR UPDATE; RETURN reached; END",
    ),
    _function(
        "esource_draw_positions(how_many bigint, reached bigint)",
        "bigint",
        # The two are variables because Citus refuses functions inside of CASE, if their values change.
        f"""DECLARE pid int := pg_backend_pid(); since timestamptz := transaction_timestamp(); BEGIN
        IF how_many NOT BETWEEN 0 AND {MOST_AT_ONCE} THEN
            RAISE EXCEPTION 'at most {MOST_AT_ONCE} positions can be drawn at once, not %', how_many;
        END IF;
        IF how_many > 0 THEN
            UPDATE <schema>.{LOCK_TABLE} SET last_position = reached + how_many, drawn_in = pid, drawn_at = since,
                first_drawn = CASE WHEN drawn_in = pid AND drawn_at = since THEN first_drawn ELSE reached + 1 END
                WHERE last_position = reached;
            IF NOT FOUND THEN RAISE EXCEPTION 'the log has not come to position %', reached; END IF;
        END IF;
        RETURN reached;
    END""",  # noqa: S608 - our own names
    ),
    # A tenant's role sends the position with the event. It is one that this very transaction has drawn, under the lock. Not by the
    # number of the transaction: not every server that speaks PostgreSQL has such.
    _function(
        "esource_has_drawn(place bigint)",
        "boolean",
        "BEGIN RETURN (SELECT drawn_in = pg_backend_pid() AND drawn_at = transaction_timestamp() "
        f"AND place BETWEEN first_drawn AND last_position {_NEWEST}); END",
    ),
]
"""Idempotent: each time the row is brought up to the end of the log. In one transaction, as the owner of the tables."""

APPENDERS = f"""
DO $do$ DECLARE appender text; BEGIN
    REVOKE ALL ON FUNCTION {_LOCK}, {_DRAW} FROM PUBLIC;
    FOR appender IN SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END
        FROM pg_class, aclexplode(relacl) WHERE pg_class.oid = 'events'::regclass AND privilege_type = 'INSERT'
        AND grantee <> relowner LOOP
        EXECUTE 'GRANT EXECUTE ON FUNCTION {_LOCK}, {_DRAW} TO ' || appender;
    END LOOP;
    FOR appender IN SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END
        FROM pg_class, aclexplode(relacl) WHERE pg_class.oid = 'events'::regclass AND privilege_type = 'SELECT'
        AND grantee <> relowner LOOP
        EXECUTE 'GRANT SELECT ON {LOCK_TABLE} TO ' || appender;
    END LOOP;
END $do$"""  # noqa: S608
"""Who may append may lock the row, and draw from it. None but the owner may change it otherwise. Who may read the log may read how
far it has come."""

GRANTED = [
    f"GRANT SELECT ON {LOCK_TABLE} TO {{role}}",
    f"GRANT EXECUTE ON FUNCTION {_LOCK}, {_DRAW} TO {{role}}",
    "GRANT INSERT (global_position) ON events TO {role}",
]
"""What a tenant's role needs in addition. `POLICY` says which positions it may send."""

REVOKED = [
    f"REVOKE ALL ON {LOCK_TABLE} FROM {{role}}",
    f"REVOKE ALL ON FUNCTION {_LOCK}, {_DRAW} FROM {{role}}",
]


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
