"""The statements that make a partitioned table of PostgreSQL's `events`, and a plain one again.

Ranges of `global_position`, because a primary key must contain the partition key. Uniqueness over the whole log
moves to a table of keys, under the same constraint names, so that errors are told and appends repeated as before;
a trigger fills it once for each statement.
"""

from __future__ import annotations

from sqlalchemy import Dialect
from sqlalchemy.schema import CreateIndex

from esource.dialect.postgresql.quoting import identifier
from esource.dialect.postgresql.row_level_security import owners_only
from esource.tables.model import events, indexes_of
from esource.tables.names import KEYS_TABLE, PARTITION_PREFIX

LOCK = "LOCK TABLE events IN ACCESS EXCLUSIVE MODE"
IS_PARTITIONED = "SELECT relkind = 'p' FROM pg_class WHERE oid = to_regclass('events')"
LAST_POSITION = "SELECT coalesce(max(global_position), 0) FROM events"
PARTITIONS = f"""
    SELECT relname, CAST(substring(relname FROM {len(PARTITION_PREFIX) + 1}) AS bigint) FROM pg_inherits
    JOIN pg_class ON pg_class.oid = inhrelid WHERE inhparent = 'events'::regclass ORDER BY 2"""
OBSTACLES = """
    SELECT 'row-level security' FROM pg_class WHERE oid = 'events'::regclass AND relrowsecurity
    UNION ALL SELECT 'the trigger ' || tgname FROM pg_trigger
        WHERE tgrelid = 'events'::regclass AND NOT tgisinternal AND tgname <> 'esource_event_keys'
    UNION ALL SELECT 'the foreign key ' || conname FROM pg_constraint WHERE confrelid = 'events'::regclass
    UNION ALL SELECT DISTINCT 'the view ' || ev_class::regclass FROM pg_rewrite JOIN pg_depend
        ON pg_depend.objid = pg_rewrite.oid AND pg_depend.classid = 'pg_rewrite'::regclass
        WHERE pg_depend.refobjid = 'events'::regclass AND ev_class <> 'events'::regclass"""
"""What holds on to the table itself, and would stay with a part of it."""

_NAMES = ("events_pkey", "events_event_id_key", "uq_events_aggregate_version")
_COLUMNS = ", ".join(column.name for column in events.columns)
_KEYS = "event_id, aggregate_id, aggregate_type, version"
_UNIQUE = (
    "CONSTRAINT events_event_id_key UNIQUE (event_id)",
    "CONSTRAINT uq_events_aggregate_version UNIQUE (aggregate_id, aggregate_type, version)",
)


def _indexes(dialect: Dialect) -> list[str]:
    return [str(CreateIndex(index).compile(dialect=dialect)) for index in indexes_of(events)]


def _copy_rights(source: str, target: str) -> str:
    return f"""
DO $do$ DECLARE given record; BEGIN
    FOR given IN SELECT privilege_type, CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(rolname) END AS role
        FROM pg_class, aclexplode(relacl) AS acl LEFT JOIN pg_roles ON pg_roles.oid = grantee
        WHERE pg_class.oid = '{source}'::regclass AND grantee <> relowner LOOP
        EXECUTE format('GRANT %s ON {target} TO %s', given.privilege_type, given.role);
    END LOOP;
END $do$"""


def partition(last_position: int, dialect: Dialect) -> list[str]:
    """From a plain table: what is stored becomes the first partition, and the second is open."""
    first, bound = f"{PARTITION_PREFIX}0", last_position + 1
    return [
        f"CREATE TABLE {KEYS_TABLE} AS SELECT {_KEYS} FROM events",
        f"ALTER TABLE events RENAME TO {first}",
        f"ALTER TABLE {first} RENAME CONSTRAINT events_pkey TO {first}_pkey",
        *(f"ALTER TABLE {first} DROP CONSTRAINT {name}" for name in _NAMES[1:]),
        *(f"ALTER INDEX {index.name} RENAME TO {index.name}_0" for index in events.indexes),
        *(f"ALTER TABLE {KEYS_TABLE} ADD {constraint}" for constraint in _UNIQUE),
        (
            f"CREATE TABLE events (LIKE {first} INCLUDING DEFAULTS INCLUDING CONSTRAINTS) "
            "PARTITION BY RANGE (global_position)"
        ),
        "ALTER TABLE events ADD CONSTRAINT events_pkey PRIMARY KEY (global_position)",
        "ALTER SEQUENCE events_global_position_seq OWNED BY events.global_position",
        *_indexes(dialect),
        "CREATE INDEX idx_events_stream ON events (aggregate_id, aggregate_type, version)",
        "CREATE INDEX idx_events_event_id ON events (event_id)",
        # Rights are on the log, not on its parts: what may not be changed there may not be changed here.
        *owners_only("events"),
        _copy_rights(first, "events"),
        *owners_only(first),
        *owners_only(KEYS_TABLE),
        f"ALTER TABLE events ATTACH PARTITION {first} FOR VALUES FROM (MINVALUE) TO ({bound})",
        f"CREATE TABLE {PARTITION_PREFIX}{bound} PARTITION OF events FOR VALUES FROM ({bound}) TO (MAXVALUE)",
        *owners_only(f"{PARTITION_PREFIX}{bound}"),
        # With the rights of the owner: nobody else needs any on the keys.
        f"""
DO $do$ BEGIN EXECUTE replace($create$
    CREATE FUNCTION esource_keep_event_keys() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $body$ BEGIN
        INSERT INTO <schema>.{KEYS_TABLE} ({_KEYS}) SELECT {_KEYS} FROM appended; RETURN NULL;
    END $body$
$create$, '<schema>', quote_ident(current_schema())); END $do$""",
        (
            "CREATE TRIGGER esource_event_keys AFTER INSERT ON events REFERENCING NEW TABLE AS appended "
            "FOR EACH STATEMENT EXECUTE FUNCTION esource_keep_event_keys()"
        ),
    ]


def begin(open_partition: str, first: int, last_position: int) -> list[str]:
    """Close the open partition behind its last event, and open the next."""
    bound = last_position + 1
    low, name = str(first) if first else "MINVALUE", identifier(open_partition)
    return [
        detach(open_partition),
        f"ALTER TABLE events ATTACH PARTITION {name} FOR VALUES FROM ({low}) TO ({bound})",
        f"CREATE TABLE {PARTITION_PREFIX}{bound} PARTITION OF events FOR VALUES FROM ({bound}) TO (MAXVALUE)",
        *owners_only(f"{PARTITION_PREFIX}{bound}"),
    ]


def detach(name: str) -> str:
    return f"ALTER TABLE events DETACH PARTITION {identifier(name)}"


def merge(dialect: Dialect) -> list[str]:
    """Back to a plain table with all that the partitions hold."""
    return [
        "CREATE TABLE events_merged (LIKE events INCLUDING DEFAULTS INCLUDING CONSTRAINTS)",
        f"INSERT INTO events_merged ({_COLUMNS}) SELECT {_COLUMNS} FROM events ORDER BY global_position",
        "ALTER SEQUENCE events_global_position_seq OWNED BY events_merged.global_position",
        *owners_only("events_merged"),
        _copy_rights("events", "events_merged"),
        "DROP TABLE events",
        "DROP FUNCTION esource_keep_event_keys()",
        f"DROP TABLE {KEYS_TABLE}",
        "ALTER TABLE events_merged RENAME TO events",
        "ALTER TABLE events ADD CONSTRAINT events_pkey PRIMARY KEY (global_position)",
        *(f"ALTER TABLE events ADD {constraint}" for constraint in _UNIQUE),
        *_indexes(dialect),
    ]
