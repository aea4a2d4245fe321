"""Row-level security on PostgreSQL: a database role that sees and writes one tenant's rows, whatever SQL it
sends.

Which tenant a role is for stands in a table that the role can neither read nor write, under the name that
the session was authenticated with: neither SET ROLE nor any setting changes that. The owner of the tables,
superusers and roles with BYPASSRLS are not restricted; nor is a role that is listed without a tenant. A role
that is not listed sees nothing.

There is no FORCE: the owner migrates, relays and projects for all tenants. A member of the owner's role could
switch the policies off anyway, so no such role is taken for a tenant's.
"""

from __future__ import annotations

from esource.dialect.postgresql import positions
from esource.tables.names import OUR_TABLES, ROLES_TABLE, SEQUENCES, VERSION_TABLE
from esource.tables.rows import EncodedEvent
from esource.tables.tag_index import FUNCTIONS as TAG_FUNCTIONS

_IS_OWN = "tenant_id = (SELECT esource_tenant())"
_SEES_ALL = "(SELECT esource_every_tenant())"
_VISIBLE = {
    "events": _IS_OWN,
    "event_outbox": _IS_OWN,
    "projection_checkpoints": "left(projection_name, 37) = CAST((SELECT esource_tenant()) AS text) || ':'",
    # What these select of events is restricted in turn.
    "dead_letter_queue": "EXISTS (SELECT FROM events WHERE events.event_id = dead_letter_queue.event_id)",
    "snapshots": "EXISTS (SELECT FROM events WHERE events.aggregate_id = snapshots.aggregate_id "
    "AND events.aggregate_type = snapshots.aggregate_type)",
    # Not EXISTS: for that the planner may read all events of the tenant first, once for each statement.
    "event_tags": "(SELECT true FROM events WHERE events.global_position = event_tags.global_position)",
    "tag_fillings": "true",  # it says nothing of any tenant
}
_STORABLE = {
    **_VISIBLE,
    # What Python has no value for would stop a reader of all tenants' rows.
    "events": f"{_IS_OWN} AND timestamp BETWEEN '0001-01-02' AND '9999-12-30' AND jsonb_typeof(payload) = 'object' "
    "AND esource_own_stream(aggregate_id, aggregate_type, version)",
    "event_tags": "false",  # the trigger of the events writes it, with the rights of the owner
    "tag_fillings": "false",
}

TEXTS_AS_TAGS = """
CREATE POLICY esource_texts_as_tags ON events AS RESTRICTIVE FOR INSERT WITH CHECK (
    CASE WHEN jsonb_typeof(tags) = 'array' THEN (
        SELECT coalesce(bool_and(jsonb_typeof(tag) = 'string' AND length(tag #>> '{}') BETWEEN 1 AND 255), false)
        FROM jsonb_array_elements(tags) AS given(tag))
    ELSE tags IS NULL END)"""
"""Other tags than an append writes would stop a reader of all tenants' rows. A policy of its own, which a migration that
drops the column can drop."""


def _function(signature: str, result: str, body: str, *, sees: str = "STABLE") -> str:
    """A function with the rights of the owner. It trusts no name that the session could have taken: a
    temporary table comes before all others unless the path says otherwise.

    One that is VOLATILE sees what is committed now, and what its own statement has written: the statement's snapshot may
    be older than what another session has committed meanwhile.
    """
    return f"""
DO $do$ BEGIN EXECUTE replace($create$
    CREATE OR REPLACE FUNCTION {signature} RETURNS {result}
    LANGUAGE sql {sees} SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $body$ {body} $body$
$create$, '<schema>', quote_ident(current_schema())); END $do$"""


_PROGRESS = "esource_progress(text)"
FUNCTIONS = (
    "esource_own_stream(uuid, text)",  # of earlier releases
    "esource_own_stream(uuid, text, integer)",
    "esource_own_row(jsonb)",
    "esource_newest_outbox_row()",
    "esource_every_tenant()",
    "esource_tenant()",
    _PROGRESS,
)
"""What the policies ask, and what a tenant's role may ask; each runs with the rights of its owner."""

HAS_PROGRESS = f"SELECT to_regprocedure('{_PROGRESS}') IS NOT NULL"
PROGRESS = "SELECT projection_name, global_position, lease_owner, active_version FROM esource_progress($1)"
"""The checkpoints of one projection of all tenants, which the policies hide."""

TRIGGER_FUNCTIONS = ("esource_keep_event_keys()", "esource_drop_event_keys()", TAG_FUNCTIONS[0])
"""What the triggers of the log call, with the rights of its owner: of one in parts, and of the tags of any."""

_OFF = [
    *(f"DROP POLICY IF EXISTS esource_tenants ON {table}" for table in OUR_TABLES),
    "DROP POLICY IF EXISTS esource_texts_as_tags ON events",
    positions.DROP_POLICY,
    "DROP POLICY IF EXISTS esource_own_rows ON event_outbox",
    "DROP POLICY IF EXISTS esource_kept_row ON event_outbox",
    *(f"ALTER TABLE IF EXISTS {table} DISABLE ROW LEVEL SECURITY" for table in OUR_TABLES),
    *(f"DROP FUNCTION IF EXISTS {function}" for function in FUNCTIONS),
]


def owners_only(table: str) -> list[str]:
    """Take away what default privileges, such as those of `esource.schema.roles`, give others on a new table."""
    return [
        f"REVOKE ALL ON {table} FROM PUBLIC",
        f"""
DO $do$ DECLARE other name; BEGIN
    FOR other IN SELECT DISTINCT rolname FROM pg_class, aclexplode(relacl) AS given JOIN pg_roles
        ON pg_roles.oid = given.grantee WHERE pg_class.oid = '{table}'::regclass AND grantee <> relowner LOOP
        EXECUTE 'REVOKE ALL ON {table} FROM ' || quote_ident(other);
    END LOOP;
END $do$""",
    ]


def only_the_owner_calls(function: str) -> str:
    """Let no role but the owner call a function of a trigger, if there is one: a role that may call it may put it into a
    trigger on a table of its own. The trigger itself needs no right."""
    return f"""
DO $do$ DECLARE other name; BEGIN
    IF to_regprocedure('{function}') IS NOT NULL THEN
        REVOKE ALL ON FUNCTION {function} FROM PUBLIC;
        FOR other IN SELECT DISTINCT rolname FROM pg_proc, aclexplode(proacl) AS given JOIN pg_roles
            ON pg_roles.oid = given.grantee WHERE pg_proc.oid = to_regprocedure('{function}') AND grantee <> proowner LOOP
            EXECUTE 'REVOKE ALL ON FUNCTION {function} FROM ' || quote_ident(other);
        END LOOP;
    END IF;
END $do$"""


_WRITTEN_BY_APPEND = ", ".join(["aggregate_id", "aggregate_type", "version", *EncodedEvent._fields])
_OF_A_ROW = (
    "event_id, event_type, aggregate_id, aggregate_type, tenant_id, event_data, created_at, global_position"
)
_OF_AN_ATTEMPT = "status, published_at, retry_count, last_error, available_at, claimed_by, claimed_until"
_OWN_ROWS = ("projection_checkpoints", "dead_letter_queue", "snapshots")
_REVOKED = [
    f"REVOKE ALL ON {', '.join((*OUR_TABLES, VERSION_TABLE))} FROM {{role}}",
    f"REVOKE ALL ON SEQUENCE {', '.join(SEQUENCES)} FROM {{role}}",
    "REVOKE USAGE ON SCHEMA {schema} FROM {role}",
]
_GRANTED = [
    "GRANT USAGE ON SCHEMA {schema} TO {role}",
    f"GRANT SELECT, INSERT ({_WRITTEN_BY_APPEND}) ON events TO {{role}}",
    f"GRANT SELECT, INSERT ({_OF_A_ROW}), UPDATE ({_OF_AN_ATTEMPT}), DELETE ON event_outbox TO {{role}}",
    f"GRANT SELECT, INSERT, UPDATE, DELETE ON {', '.join(_OWN_ROWS)} TO {{role}}",
    "GRANT SELECT ON event_tags, tag_fillings TO {role}",
    f"GRANT SELECT ON {VERSION_TABLE} TO {{role}}",
    f"GRANT USAGE ON SEQUENCE {', '.join(SEQUENCES)} TO {{role}}",
]
"""What a tenant's role needs, and no more: nothing stored is changed, and no position is chosen."""


def _filled_in(template: str, role: str, schema: str) -> str:
    return template.format(role=role, schema=schema)  # in one go: a name may look like another's place


def _for_tenants_roles(statements: list[str], from_row: list[str]) -> str:
    """Run statements for each role that is bound to a tenant, and more where positions are drawn from a row."""

    def each(templates: list[str]) -> str:
        return "".join(
            f"EXECUTE format('{_filled_in(template, role='%1$I', schema='%2$I')}', tenant_role, current_schema());"
            for template in templates
        )

    return f"""
DO $do$ DECLARE tenant_role name; BEGIN
    IF to_regclass('{ROLES_TABLE}') IS NOT NULL THEN
        FOR tenant_role IN SELECT rolname FROM {ROLES_TABLE} JOIN pg_roles ON rolname = role_name
            WHERE tenant_id IS NOT NULL LOOP
            {each(statements)}
            IF {positions.FROM_ROW} THEN {each(from_row)} END IF;
        END LOOP;
    END IF;
END $do$"""


_RIGHTS = [*_REVOKED, *_GRANTED]
"""Gives a tenant's role its rights, and takes away what an earlier release gave beside them."""
_RIGHTS_FROM_ROW = [*positions.REVOKED, *positions.GRANTED]

_OWN_OR_NEW = (
    "coalesce((SELECT tenant_id IS NOT DISTINCT FROM <schema>.esource_tenant() FROM <schema>.events "
    "WHERE (aggregate_id, aggregate_type) >= (stream_id, stream_type) "
    "AND (aggregate_id, aggregate_type) <= (stream_id, stream_type) "
    "ORDER BY aggregate_id DESC, aggregate_type DESC, version DESC LIMIT 1), true)"
)

ENABLE = [
    f"CREATE TABLE IF NOT EXISTS {ROLES_TABLE} (role_name name PRIMARY KEY, tenant_id uuid)",
    *owners_only(ROLES_TABLE),
    *_OFF,
    _function(
        "esource_tenant()",
        "uuid",
        f"SELECT tenant_id FROM <schema>.{ROLES_TABLE} WHERE role_name = session_user",
    ),
    _function(
        "esource_every_tenant()",
        "boolean",
        f"SELECT EXISTS (SELECT FROM <schema>.{ROLES_TABLE} WHERE role_name = session_user "
        "AND tenant_id IS NULL)",
    ),
    # A tenant may begin a stream, and go on with one of its own. With its own rights it could not see whether a stream
    # that it may not read belongs to another tenant. The event before the new one has to be its own. If two tenants
    # begin a stream at once, the unique constraint lets one of them have version 1.
    _function(
        "esource_own_stream(stream_id uuid, stream_type text, next_version integer)",
        "boolean",
        f"SELECT CASE WHEN next_version = 1 THEN {_OWN_OR_NEW} "
        "ELSE EXISTS (SELECT FROM <schema>.events WHERE tenant_id = <schema>.esource_tenant() "
        "AND (aggregate_id, aggregate_type, version) >= (stream_id, stream_type, next_version - 1) "
        "AND (aggregate_id, aggregate_type, version) <= (stream_id, stream_type, next_version - 1)) END",
        sees="VOLATILE",
    ),
    # A row with a position is that of an event of its own; one without has its whole event, and names no stream of another's.
    # Rows are published in the order of position and moment: none may push to the front. The row comes as JSON, so that
    # no column is needed by a policy: a migration may drop it.
    _function(
        "esource_own_row(entry jsonb)",
        "boolean",
        "SELECT given.created_at BETWEEN now() - interval '1 day' AND now() + interval '1 day' "
        "AND jsonb_typeof(event_data) IN ('object', 'null') AND CASE WHEN place IS NULL "
        f"THEN jsonb_typeof(event_data) = 'object' AND {_OWN_OR_NEW} "
        "ELSE EXISTS (SELECT FROM <schema>.events WHERE tenant_id = <schema>.esource_tenant() "
        "AND global_position = place AND event_id = of_event "
        "AND aggregate_id = stream_id AND aggregate_type = stream_type) END "
        "FROM (SELECT CAST(entry->>'created_at' AS timestamptz) AS created_at, entry->'event_data' AS event_data, "
        "CAST(entry->>'global_position' AS bigint) AS place, CAST(entry->>'event_id' AS uuid) AS of_event, "
        "CAST(entry->>'aggregate_id' AS uuid) AS stream_id, entry->>'aggregate_type' AS stream_type) AS given",
        sees="VOLATILE",
    ),
    _function(
        "esource_newest_outbox_row()",
        "uuid",
        "SELECT id FROM <schema>.event_outbox WHERE event_data IS NULL ORDER BY global_position DESC LIMIT 1",
    ),
    # A tenant waits for a projection of the whole log, whose name it knows. It learns how far its versions and partitions are,
    # and whether a worker has them: no event, no other name, no worker's name, which has that of its machine, and nothing of
    # the checkpoints of other tenants, whose names begin with an id.
    _function(
        "esource_progress(family text)",
        "TABLE (projection_name varchar, global_position bigint, lease_owner varchar, active_version integer)",
        "SELECT p.projection_name, p.global_position, CASE WHEN p.lease_until > clock_timestamp() THEN 'a worker' END, "
        "p.active_version FROM <schema>.projection_checkpoints AS p WHERE left(p.projection_name, length(family)) = family "
        r"AND substr(p.projection_name, length(family) + 1) ~ '^(@[0-9]+)?(\[[0-9]+/[0-9]+\])?$' "
        "AND family <> '' AND p.projection_name !~ '^[0-9a-f-]{36}:'",
    ),
    *(
        f"CREATE POLICY esource_tenants ON {table} USING ({_VISIBLE[table]} OR {_SEES_ALL}) "
        f"WITH CHECK ({_SEES_ALL} OR ({_STORABLE[table]}))"
        for table in OUR_TABLES
    ),
    TEXTS_AS_TAGS,
    positions.policy(_SEES_ALL),
    (
        "CREATE POLICY esource_own_rows ON event_outbox AS RESTRICTIVE FOR INSERT "
        f"WITH CHECK ({_SEES_ALL} OR esource_own_row(to_jsonb(event_outbox)))"
    ),
    # By this row the stores of all tenants know that there is an outbox.
    (
        "CREATE POLICY esource_kept_row ON event_outbox AS RESTRICTIVE FOR DELETE "
        f"USING ({_SEES_ALL} OR id IS DISTINCT FROM (SELECT esource_newest_outbox_row()))"
    ),
    *(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY" for table in OUR_TABLES),
    *map(only_the_owner_calls, TRIGGER_FUNCTIONS),
    _for_tenants_roles(_RIGHTS, _RIGHTS_FROM_ROW),
]
"""Idempotent; inside the transaction of the migration."""

DISABLE = [
    # Without the policies, what the tenants' roles may do, they may do to the rows of all tenants.
    _for_tenants_roles(_REVOKED, positions.REVOKED),
    *_OFF,
    f"DROP TABLE IF EXISTS {ROLES_TABLE}",
]
"""Idempotent; the tenants' roles lose their rights."""

AFTER_SWITCH = [
    f"""
DO $do$ BEGIN IF to_regclass('{ROLES_TABLE}') IS NOT NULL THEN
    {positions.DROP_POLICY}; {positions.policy(_SEES_ALL)};
END IF; END $do$""",
    _for_tenants_roles(_RIGHTS, _RIGHTS_FROM_ROW),
]
"""What row-level security needs after a log has changed the way in which it draws its positions."""

UNFIT_ROLE = (
    "SELECT rolsuper OR rolbypassrls OR pg_has_role(oid, (SELECT relowner FROM pg_class "
    "WHERE oid = to_regclass('events')), 'MEMBER') FROM pg_roles WHERE rolname = $1"
)
"""Whether no policy would restrict the role; no row if there is no such role."""

IS_ENABLED = f"SELECT to_regclass('{ROLES_TABLE}') IS NOT NULL"
BIND = (
    f"INSERT INTO {ROLES_TABLE} (role_name, tenant_id) VALUES (CAST($1 AS name), CAST($2 AS uuid)) "
    "ON CONFLICT (role_name) DO UPDATE SET tenant_id = excluded.tenant_id"
)
UNBIND = f"DELETE FROM {ROLES_TABLE} WHERE role_name = CAST($1 AS name) RETURNING tenant_id"


def rights(role: str, schema: str, *, from_row: bool) -> list[str]:
    """Gives a tenant's role its rights. Both names come quoted. With ``from_row`` positions are drawn from a row."""
    templates = [*_RIGHTS, *(_RIGHTS_FROM_ROW if from_row else ())]
    return [_filled_in(template, role, schema) for template in templates]


def revocations(role: str, schema: str, *, from_row: bool) -> list[str]:
    """Takes a tenant's role its rights. Both names come quoted."""
    templates = [*_REVOKED, *(positions.REVOKED if from_row else ())]
    return [_filled_in(template, role, schema) for template in templates]
