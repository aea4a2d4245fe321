"""The statements that make a partitioned table of PostgreSQL's `events`, and a plain one again.

Ranges of `global_position`, because a primary key must contain the partition key. Uniqueness over the whole log
moves to a table of keys, under the same constraint names, so that errors are told and appends repeated as before;
triggers fill it, and take out of it what is deleted, once for each statement.

What an application has added to the table goes along: columns with their values, indexes, CHECK constraints, rights, comments.
What cannot go along is an obstacle, and refused.
"""

from __future__ import annotations

from sqlalchemy import Dialect
from sqlalchemy.schema import CreateIndex

from esource.dialect.postgresql.quoting import identifier, literal
from esource.dialect.postgresql.row_level_security import TRIGGER_FUNCTIONS, only_the_owner_calls, owners_only
from esource.tables.model import events, indexes_of
from esource.tables.names import KEYS_TABLE, PARTITION_PREFIX
from esource.tables.tag_index import POSTGRESQL_TRIGGERS, TRIGGER_NAMES

LOCK = "LOCK TABLE events IN ACCESS EXCLUSIVE MODE"
LOCK_FILLINGS = "LOCK TABLE tag_fillings IN EXCLUSIVE MODE"
"""Before the log, in the order of `esource.copying.fill_tags`: it holds a row here while it writes tags there."""
IS_PARTITIONED = "SELECT relkind = 'p' FROM pg_class WHERE oid = to_regclass('events')"
LAST_POSITION = "SELECT coalesce(max(global_position), 0) FROM events"
PARTITIONS = f"""
    SELECT relname, CAST(substring(relname FROM {len(PARTITION_PREFIX) + 1}) AS bigint) FROM pg_inherits
    JOIN pg_class ON pg_class.oid = inhrelid WHERE inhparent = 'events'::regclass ORDER BY 2"""
OBSTACLES = """
    SELECT 'row-level security' FROM pg_class WHERE oid = 'events'::regclass AND relrowsecurity
    UNION ALL SELECT 'the trigger ' || tgname FROM pg_trigger
        WHERE tgrelid = 'events'::regclass AND NOT tgisinternal
        AND tgname NOT IN ('esource_event_keys', 'esource_deleted_event_keys', 'esource_event_tags_insert',
            'esource_event_tags_update', 'esource_event_tags_delete')
    UNION ALL SELECT 'the foreign key ' || conname FROM pg_constraint
        WHERE 'events'::regclass IN (confrelid, conrelid) AND contype = 'f'
    UNION ALL SELECT 'the constraint ' || conname FROM pg_constraint
        WHERE conrelid = 'events'::regclass AND contype IN ('u', 'x')
        AND conname NOT IN ('events_event_id_key', 'uq_events_aggregate_version')
    UNION ALL SELECT 'the unique index ' || indexrelid::regclass FROM pg_index WHERE indrelid = 'events'::regclass
        AND indisunique AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
    UNION ALL SELECT 'the index ' || indexrelid::regclass || ' of a part alone' FROM pg_index
        WHERE indrelid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'events'::regclass)
        AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = indexrelid)
    UNION ALL SELECT 'the identity column ' || attname FROM pg_attribute
        WHERE attrelid = 'events'::regclass AND attidentity <> ''
    UNION ALL SELECT 'the sequence ' || objid::regclass FROM pg_depend JOIN pg_class ON pg_class.oid = objid
        WHERE refobjid = 'events'::regclass AND refobjsubid <> 0 AND deptype = 'a' AND relkind = 'S'
        AND relname <> 'events_global_position_seq'
    UNION ALL SELECT 'the rule ' || rulename FROM pg_rewrite WHERE ev_class = 'events'::regclass
    UNION ALL SELECT 'the policy ' || polname FROM pg_policy WHERE polrelid = 'events'::regclass
        AND NOT (SELECT relrowsecurity FROM pg_class WHERE oid = 'events'::regclass)
    UNION ALL SELECT 'the publication ' || pubname FROM pg_publication_rel
        JOIN pg_publication ON pg_publication.oid = prpubid WHERE prrelid = 'events'::regclass
    UNION ALL SELECT 'a replica identity' FROM pg_class WHERE oid = 'events'::regclass AND relreplident <> 'd'
    UNION ALL SELECT DISTINCT 'the view ' || ev_class::regclass FROM pg_rewrite JOIN pg_depend
        ON pg_depend.objid = pg_rewrite.oid AND pg_depend.classid = 'pg_rewrite'::regclass
        WHERE pg_depend.refobjid = 'events'::regclass AND ev_class <> 'events'::regclass"""
"""What holds on to the table itself, and would stay with a part of it."""

_NAMES = ("events_pkey", "events_event_id_key", "uq_events_aggregate_version")
_KEYS = "event_id, aggregate_id, aggregate_type, version"
_UNIQUE = (
    "CONSTRAINT events_event_id_key UNIQUE (event_id)",
    "CONSTRAINT uq_events_aggregate_version UNIQUE (aggregate_id, aggregate_type, version)",
)


def _indexes(dialect: Dialect) -> list[str]:
    return [str(CreateIndex(index).compile(dialect=dialect)) for index in indexes_of(events)]


_OF_THE_LOG = ("idx_events_stream", "idx_events_event_id")
"""The indexes that a partitioned log has in place of the unique constraints."""

_KEPT = "esource_kept_indexes"


def _keep_indexes() -> list[str]:
    """Note the indexes that the application has added, in a table that is gone with the transaction."""
    ours = ", ".join(f"'{name}'" for name in (*_OF_THE_LOG, *(index.name for index in indexes_of(events))))
    return [
        f"""
CREATE TEMPORARY TABLE {_KEPT} ON COMMIT DROP AS
    SELECT relname, replace(pg_get_indexdef(indexrelid), ' ON ONLY ', ' ON ') AS definition
    FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid WHERE indrelid = 'events'::regclass
    AND relname NOT IN ({ours}) AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)"""
    ]


def _for_each_kept(statement: str) -> str:
    return f"""
DO $do$ DECLARE kept record; BEGIN
    FOR kept IN SELECT relname, definition FROM {_KEPT} LOOP EXECUTE {statement}; END LOOP;
END $do$"""


def _copy_owner_and_rights(source: str, target: str) -> list[str]:
    """What belongs to a table beside what ``LIKE`` copies."""
    role = "CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(rolname) END AS role, is_grantable"
    grant = f"""EXECUTE format('GRANT %s %s ON {target} TO %s%s', given.privilege_type, given.of, given.role,
            CASE WHEN given.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END);"""
    return [
        *owners_only(target),
        f"""
DO $do$ DECLARE given record; remark text; BEGIN
    EXECUTE 'ALTER TABLE {target} OWNER TO '
        || (SELECT quote_ident(pg_get_userbyid(relowner)) FROM pg_class WHERE oid = '{source}'::regclass);
    remark := obj_description('{source}'::regclass, 'pg_class');
    IF remark IS NOT NULL THEN EXECUTE format('COMMENT ON TABLE {target} IS %L', remark); END IF;
    FOR given IN SELECT privilege_type, '' AS of, {role}
        FROM pg_class, aclexplode(relacl) AS acl LEFT JOIN pg_roles ON pg_roles.oid = grantee
        WHERE pg_class.oid = '{source}'::regclass AND grantee <> relowner
    UNION ALL SELECT privilege_type, '(' || quote_ident(attname) || ')', {role}
        FROM pg_attribute, aclexplode(attacl) AS acl LEFT JOIN pg_roles ON pg_roles.oid = grantee
        WHERE attrelid = '{source}'::regclass AND NOT attisdropped LOOP
        {grant}
    END LOOP;
END $do$""",
    ]


def _keys_trigger(name: str, function: str, when: str, body: str) -> list[str]:
    """A trigger, and its function with the rights of the owner, so that no other role needs a right on the keys."""
    return [
        f"""
DO $do$ BEGIN EXECUTE replace($create$
    CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $body$ BEGIN {body}; RETURN NULL; END $body$
$create$, '<schema>', quote_ident(current_schema())); END $do$""",
        only_the_owner_calls(f"{function}()"),
        f"CREATE TRIGGER {name} AFTER {when} FOR EACH STATEMENT EXECUTE FUNCTION {function}()",
    ]


def _without_tag_triggers(table: str) -> list[str]:
    return [f"DROP TRIGGER {name} ON {table}" for name in TRIGGER_NAMES]


def partition(last_position: int, dialect: Dialect) -> list[str]:
    """From a plain table: what is stored becomes the first partition, and the second is open."""
    first, bound = f"{PARTITION_PREFIX}0", last_position + 1
    return [
        *_keep_indexes(),
        f"CREATE TABLE {KEYS_TABLE} AS SELECT {_KEYS} FROM events",
        *_without_tag_triggers("events"),
        f"ALTER TABLE events RENAME TO {first}",
        f"ALTER TABLE {first} RENAME CONSTRAINT events_pkey TO {first}_pkey",
        *(f"ALTER TABLE {first} DROP CONSTRAINT {name}" for name in _NAMES[1:]),
        *(f"ALTER INDEX {index.name} RENAME TO {index.name}_0" for index in events.indexes),
        _for_each_kept("format('ALTER INDEX %I RENAME TO %I', kept.relname, kept.relname || '_0')"),
        *(f"ALTER TABLE {KEYS_TABLE} ADD {constraint}" for constraint in _UNIQUE),
        (
            f"CREATE TABLE events (LIKE {first} INCLUDING ALL EXCLUDING INDEXES EXCLUDING STORAGE) "
            "PARTITION BY RANGE (global_position)"
        ),
        "ALTER TABLE events ADD CONSTRAINT events_pkey PRIMARY KEY (global_position)",
        *_indexes(dialect),
        "CREATE INDEX idx_events_stream ON events (aggregate_id, aggregate_type, version)",
        "CREATE INDEX idx_events_event_id ON events (event_id)",
        _for_each_kept("kept.definition"),
        # Rights are on the log, not on its parts: what may not be changed there may not be changed here.
        *_copy_owner_and_rights(first, "events"),
        "ALTER SEQUENCE events_global_position_seq OWNED BY events.global_position",
        *owners_only(first),
        *owners_only(KEYS_TABLE),
        f"ALTER TABLE events ATTACH PARTITION {first} FOR VALUES FROM (MINVALUE) TO ({bound})",
        f"CREATE TABLE {PARTITION_PREFIX}{bound} PARTITION OF events FOR VALUES FROM ({bound}) TO (MAXVALUE)",
        *owners_only(f"{PARTITION_PREFIX}{bound}"),
        *POSTGRESQL_TRIGGERS,
        *_keys_trigger(
            "esource_event_keys",
            "esource_keep_event_keys",
            "INSERT ON events REFERENCING NEW TABLE AS appended",
            f"INSERT INTO <schema>.{KEYS_TABLE} ({_KEYS}) SELECT {_KEYS} FROM appended",
        ),
        # As in a plain table: what is archived may be restored. A part that is detached is not deleted.
        *_keys_trigger(
            "esource_deleted_event_keys",
            "esource_drop_event_keys",
            "DELETE ON events REFERENCING OLD TABLE AS deleted",
            f"DELETE FROM <schema>.{KEYS_TABLE} AS kept USING deleted WHERE kept.event_id = deleted.event_id",
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
        *map(only_the_owner_calls, TRIGGER_FUNCTIONS),  # as earlier releases did not
    ]


def detach(name: str) -> str:
    return f"ALTER TABLE events DETACH PARTITION {identifier(name)}"


_FILLED = "esource: tags filled "
_NOW_FILLED = (
    "jsonb_build_object('type', event_type, 'tag', tag_name, 'at', extract(epoch FROM completed_at))"
)
IS_DETACHED = """
    SELECT relkind = 'r' AND NOT relispartition FROM pg_class
    WHERE relnamespace = current_schema()::regnamespace AND relname = $1"""
NEXT_OF_PARTS = f"""
    SELECT min(CAST(substring(relname FROM {len(PARTITION_PREFIX) + 1}) AS bigint)) FROM pg_class
    WHERE relnamespace = current_schema()::regnamespace AND relname ~ '^{PARTITION_PREFIX}[0-9]+$' AND relkind = 'r'
    AND CAST(substring(relname FROM {len(PARTITION_PREFIX) + 1}) AS bigint) > $1"""
"""The first position of the next part, in the log or detached."""


def take_out(name: str) -> list[str]:
    """Detach a part, and note at its table which tags all of its events have by now."""
    body = f"""BEGIN
    IF to_regclass('tag_fillings') IS NOT NULL THEN
        IF EXISTS (SELECT FROM tag_fillings WHERE completed_at IS NOT NULL) THEN
            EXECUTE (SELECT format('COMMENT ON TABLE %I IS %L', {literal(name)}, '{_FILLED}' || CAST(jsonb_agg({_NOW_FILLED}) AS text))
                FROM tag_fillings WHERE completed_at IS NOT NULL);
        END IF;
    END IF;
END"""
    return [detach(name), f"DO {literal(body)}"]


def attach(name: str, first: int, bound: int) -> list[str]:
    """Bring a part back that was detached, maybe before there were tags; with its tags in their index.

    Its events may lack tags that those of their type were given meanwhile: then the record of these says so. They have them for
    certain if no run has come to its end since. A tag of that name shows nothing: an append may have given it, or another field.
    """
    part, low = identifier(name), str(first) if first else "MINVALUE"
    noted = f"obj_description('{part}'::regclass, 'pg_class')"
    return [
        f"ALTER TABLE {part} ADD COLUMN IF NOT EXISTS tags jsonb",
        f"ALTER TABLE events ATTACH PARTITION {part} FOR VALUES FROM ({low}) TO ({bound})",
        f"""
INSERT INTO event_tags (tag, global_position)
    SELECT DISTINCT jsonb_array_elements_text(tags), global_position FROM {part} WHERE tags IS NOT NULL
    ON CONFLICT DO NOTHING""",
        f"""
UPDATE tag_fillings AS f SET completed_at = NULL, global_position = least(f.global_position, lacking.first - 1)
    FROM (SELECT g.event_type, g.tag_name, min(e.global_position) AS first
        FROM tag_fillings AS g JOIN {part} AS e ON e.event_type = g.event_type
        WHERE g.completed_at IS NULL OR NOT coalesce(CASE WHEN starts_with({noted}, '{_FILLED}') THEN
            CAST(substr({noted}, {len(_FILLED) + 1}) AS jsonb) @> jsonb_build_array(
                jsonb_build_object('type', g.event_type, 'tag', g.tag_name, 'at', extract(epoch FROM g.completed_at)))
            END, false) GROUP BY 1, 2) AS lacking
    WHERE f.event_type = lacking.event_type AND f.tag_name = lacking.tag_name""",
        *map(only_the_owner_calls, TRIGGER_FUNCTIONS),
    ]


def merge(dialect: Dialect) -> list[str]:
    """Back to a plain table with all that the partitions hold."""
    return [
        *_keep_indexes(),
        "CREATE TABLE events_merged (LIKE events INCLUDING ALL EXCLUDING INDEXES)",
        """
DO $do$ BEGIN EXECUTE (SELECT format('INSERT INTO events_merged (%1$s) SELECT %1$s FROM events ORDER BY global_position',
        string_agg(quote_ident(attname), ', ' ORDER BY attnum))
    FROM pg_attribute WHERE attrelid = 'events'::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '');
END $do$""",
        *_copy_owner_and_rights("events", "events_merged"),
        "ALTER SEQUENCE events_global_position_seq OWNED BY events_merged.global_position",
        "DROP TABLE events",
        "DROP FUNCTION esource_keep_event_keys()",
        "DROP FUNCTION IF EXISTS esource_drop_event_keys()",
        f"DROP TABLE {KEYS_TABLE}",
        "ALTER TABLE events_merged RENAME TO events",
        "ALTER TABLE events ADD CONSTRAINT events_pkey PRIMARY KEY (global_position)",
        *(f"ALTER TABLE events ADD {constraint}" for constraint in _UNIQUE),
        *_indexes(dialect),
        _for_each_kept("kept.definition"),
        *POSTGRESQL_TRIGGERS,
    ]
