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

from esource.tables.names import OUR_TABLES, ROLES_TABLE, SEQUENCES, VERSION_TABLE
from esource.tables.rows import EncodedEvent

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
}
_STORABLE = {**_VISIBLE, "events": f"{_IS_OWN} AND esource_own_stream(aggregate_id, aggregate_type)"}


def _function(signature: str, result: str, body: str) -> str:
    """A function with the rights of the owner. It trusts no name that the session could have taken: a
    temporary table comes before all others unless the path says otherwise."""
    return f"""
DO $do$ BEGIN EXECUTE replace($create$
    CREATE OR REPLACE FUNCTION {signature} RETURNS {result}
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $body$ {body} $body$
$create$, '<schema>', quote_ident(current_schema())); END $do$"""


_PROGRESS = "esource_progress(text)"
FUNCTIONS = ("esource_own_stream(uuid, text)", "esource_every_tenant()", "esource_tenant()", _PROGRESS)
"""What the policies ask, and what a tenant's role may ask; each runs with the rights of its owner."""

HAS_PROGRESS = f"SELECT to_regprocedure('{_PROGRESS}') IS NOT NULL"
PROGRESS = "SELECT projection_name, global_position, lease_owner, active_version FROM esource_progress($1)"
"""The checkpoints of one projection of all tenants, which the policies hide."""

_OFF = [
    *(f"DROP POLICY IF EXISTS esource_tenants ON {table}" for table in OUR_TABLES),
    *(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY" for table in OUR_TABLES),
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
    # A tenant may begin a stream, and go on with one of its own: with those rights it could not see whose
    # a stream is that it may not read.
    _function(
        "esource_own_stream(stream_id uuid, stream_type text)",
        "boolean",
        "SELECT coalesce((SELECT tenant_id IS NOT DISTINCT FROM <schema>.esource_tenant() FROM <schema>.events "
        "WHERE (aggregate_id, aggregate_type) >= (stream_id, stream_type) "
        "AND (aggregate_id, aggregate_type) <= (stream_id, stream_type) "
        "ORDER BY aggregate_id DESC, aggregate_type DESC, version DESC LIMIT 1), true)",
    ),
    # A tenant waits for a projection of the whole log. It learns how far that is, and which worker has it: no event, and
    # nothing of the checkpoints of other tenants, whose names begin with an id.
    _function(
        "esource_progress(family text)",
        "TABLE (projection_name varchar, global_position bigint, lease_owner varchar, active_version integer)",
        "SELECT p.projection_name, p.global_position, CASE WHEN p.lease_until > clock_timestamp() THEN p.lease_owner END, "
        "p.active_version FROM <schema>.projection_checkpoints AS p WHERE family <> '' "
        "AND left(p.projection_name, length(family)) = family AND p.projection_name !~ '^[0-9a-f-]{36}:'",
    ),
    *(
        f"CREATE POLICY esource_tenants ON {table} USING ({_VISIBLE[table]} OR {_SEES_ALL}) "
        f"WITH CHECK ({_STORABLE[table]} OR {_SEES_ALL})"
        for table in OUR_TABLES
    ),
    *(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY" for table in OUR_TABLES),
]
"""Idempotent; inside the transaction of the migration."""

DISABLE = [
    # Without the policies, what the tenants' roles may do, they may do to everybody's rows.
    f"""
DO $do$ DECLARE tenant_role name; BEGIN
    IF to_regclass('{ROLES_TABLE}') IS NOT NULL THEN
        FOR tenant_role IN SELECT rolname FROM {ROLES_TABLE} JOIN pg_roles ON rolname = role_name
            WHERE tenant_id IS NOT NULL LOOP
            EXECUTE 'REVOKE ALL ON {", ".join((*OUR_TABLES, VERSION_TABLE))} FROM ' || quote_ident(tenant_role);
            EXECUTE 'REVOKE ALL ON SEQUENCE {", ".join(SEQUENCES)} FROM ' || quote_ident(tenant_role);
            EXECUTE 'REVOKE USAGE ON SCHEMA ' || quote_ident(current_schema()) || ' FROM '
                || quote_ident(tenant_role);
        END LOOP;
    END IF;
END $do$""",
    *_OFF,
    f"DROP TABLE IF EXISTS {ROLES_TABLE}",
]
"""Idempotent; the tenants' roles lose their rights."""

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

_WRITTEN_BY_APPEND = ", ".join(["aggregate_id", "aggregate_type", "version", *EncodedEvent._fields])


def grants(role: str, schema: str) -> list[str]:
    """What a tenant's role needs, and no more: nothing stored is changed, and no position is chosen.

    Both names come quoted.
    """
    return [
        *revocations(role, schema),
        f"GRANT USAGE ON SCHEMA {schema} TO {role}",
        f"GRANT SELECT, INSERT ({_WRITTEN_BY_APPEND}) ON events TO {role}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {', '.join(OUR_TABLES[1:])} TO {role}",
        f"GRANT SELECT ON {VERSION_TABLE} TO {role}",
        f"GRANT USAGE ON SEQUENCE {', '.join(SEQUENCES)} TO {role}",
    ]


def revocations(role: str, schema: str) -> list[str]:
    """Takes all of that away again. Both names come quoted."""
    return [
        f"REVOKE ALL ON {', '.join((*OUR_TABLES, VERSION_TABLE))} FROM {role}",
        f"REVOKE ALL ON SEQUENCE {', '.join(SEQUENCES)} FROM {role}",
        f"REVOKE USAGE ON SCHEMA {schema} FROM {role}",
    ]
