"""Tags of events, for rules that span streams.

An event has its tags in a column of its own, as a JSON array of texts: so they go wherever the event goes. `event_tags` is the
index of them, from a tag to positions; triggers keep it, in the transaction of the event. On SQLite a trigger costs each
insert a quarter, tags or none: there whoever inserts an event writes its tags. The index can be made anew from the column.
Both are empty until an event has a tag: older code goes on writing. `tag_fillings` says which tags are being given to events
that were stored without them.

On PostgreSQL a function judges the condition of an append. It is VOLATILE, so that each of its queries sees what was
committed before that query: the snapshot of the append's own statement is older than the lock for which it has waited.
Where row-level security is on, a tenant's role sees the tags of its own events, and writes them with its events alone.

Taking this back forgets the tags, and no event.
"""

import sqlalchemy as sa
from alembic.util import CommandError
from sqlalchemy.dialects import postgresql

from esource.schema.operations import op, record_revision, require_named_branch

revision = "esource_0004"
down_revision = "esource_0003"
branch_labels = None
depends_on = None

NAME = sa.Text().with_variant(sa.String(255), "postgresql")
POSITION = sa.Integer().with_variant(sa.BigInteger(), "postgresql")
MOMENT = sa.Text().with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
JSON = sa.Text().with_variant(postgresql.JSONB(), "postgresql")

SQLITE = [
    (
        "CREATE TRIGGER esource_event_tags_update AFTER UPDATE OF tags, global_position ON events BEGIN "
        "DELETE FROM event_tags WHERE tag IN (SELECT value FROM json_each(coalesce(OLD.tags, '[]'))) "
        "AND global_position = OLD.global_position; "
        "INSERT INTO event_tags (tag, global_position) "
        "SELECT DISTINCT value, NEW.global_position FROM json_each(coalesce(NEW.tags, '[]')); END"
    ),
    (
        "CREATE TRIGGER esource_event_tags_delete AFTER DELETE ON events WHEN OLD.tags IS NOT NULL BEGIN "
        "DELETE FROM event_tags WHERE tag IN (SELECT value FROM json_each(OLD.tags)) "
        "AND global_position = OLD.global_position; END"
    ),
]

KEEP_TAGS = """
DO $do$ BEGIN EXECUTE replace($create$
    CREATE OR REPLACE FUNCTION esource_keep_event_tags() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $body$ BEGIN
        IF TG_OP <> 'INSERT' THEN
            DELETE FROM <schema>.event_tags WHERE global_position = OLD.global_position
            AND tag IN (SELECT jsonb_array_elements_text(OLD.tags));
        END IF;
        IF TG_OP <> 'DELETE' THEN
            INSERT INTO <schema>.event_tags (tag, global_position)
            SELECT DISTINCT jsonb_array_elements_text(NEW.tags), NEW.global_position ON CONFLICT DO NOTHING;
        END IF;
        RETURN NULL;
    END $body$
$create$, '<schema>', quote_ident(current_schema())); END $do$"""
"""With the rights of the owner: no other role needs a right to write the index. An entry that is there is no mistake: a restored
dump may have brought the index before the events."""

NOBODY_CALLS = """
DO $do$ DECLARE other name; BEGIN
    REVOKE ALL ON FUNCTION esource_keep_event_tags() FROM PUBLIC;
    FOR other IN SELECT DISTINCT rolname FROM pg_proc, aclexplode(proacl) AS given JOIN pg_roles
        ON pg_roles.oid = given.grantee WHERE pg_proc.oid = 'esource_keep_event_tags()'::regprocedure
        AND grantee <> proowner LOOP
        EXECUTE 'REVOKE ALL ON FUNCTION esource_keep_event_tags() FROM ' || quote_ident(other);
    END LOOP;
END $do$"""

NOBODY_WRITES = """
DO $do$ DECLARE other name; BEGIN
    REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON event_tags, tag_fillings FROM PUBLIC;
    FOR other IN SELECT DISTINCT rolname FROM pg_class, aclexplode(relacl) AS given JOIN pg_roles
        ON pg_roles.oid = given.grantee
        WHERE pg_class.oid IN ('event_tags'::regclass, 'tag_fillings'::regclass) AND grantee <> relowner LOOP
        EXECUTE 'REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON event_tags, tag_fillings FROM ' || quote_ident(other);
    END LOOP;
END $do$"""
"""Default privileges, such as those of `esource.schema.roles`, let others write a new table. Only the owner changes events, and so
fills their tags."""

TRIGGERS = [
    (
        "CREATE TRIGGER esource_event_tags_insert AFTER INSERT ON events FOR EACH ROW WHEN (NEW.tags IS NOT NULL) "
        "EXECUTE FUNCTION esource_keep_event_tags()"
    ),
    (
        "CREATE TRIGGER esource_event_tags_update AFTER UPDATE OF tags, global_position ON events FOR EACH ROW "
        "WHEN (OLD.tags IS NOT NULL OR NEW.tags IS NOT NULL) EXECUTE FUNCTION esource_keep_event_tags()"
    ),
    (
        "CREATE TRIGGER esource_event_tags_delete AFTER DELETE ON events FOR EACH ROW WHEN (OLD.tags IS NOT NULL) "
        "EXECUTE FUNCTION esource_keep_event_tags()"
    ),
]

REFUSAL = """
CREATE OR REPLACE FUNCTION esource_refusal(wanted jsonb) RETURNS jsonb LANGUAGE plpgsql VOLATILE
-- A plan of a young table, or one that suits any values, is kept while the table grows: it has to use the indexes.
SET enable_seqscan = off SET enable_bitmapscan = off AS $body$
#variable_conflict use_variable
DECLARE
    since bigint := CAST(wanted->>'after' AS bigint);
    tenant uuid := CAST(wanted->>'tenant' AS uuid);
    item record;
    filling record;
    place bigint;
    earliest bigint;
    start text;
    come integer;
    few integer;
    shared boolean;
BEGIN
    IF wanted IS NULL THEN RETURN NULL; END IF;
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RETURN jsonb_build_object('isolation', current_setting('transaction_isolation'));
    END IF;
    IF wanted->'streams' <> '[]' THEN
        FOR item IN SELECT * FROM jsonb_to_recordset(wanted->'streams') AS s(id uuid, type text, version integer) LOOP
            SELECT e.version INTO place FROM events AS e
            WHERE (e.aggregate_id, e.aggregate_type) >= (item.id, item.type)
            AND (e.aggregate_id, e.aggregate_type) <= (item.id, item.type) AND (tenant IS NULL OR e.tenant_id = tenant)
            ORDER BY e.aggregate_id DESC, e.aggregate_type DESC, e.version DESC LIMIT 1;
            IF coalesce(place, 0) <> item.version THEN
                RETURN jsonb_build_object('id', item.id, 'type', item.type, 'version', coalesce(place, 0));
            END IF;
        END LOOP;
    END IF;
    IF EXISTS (SELECT FROM tag_fillings AS f WHERE f.completed_at IS NULL) THEN
        SELECT f.event_type, f.tag_name INTO filling FROM tag_fillings AS f
        WHERE f.completed_at IS NULL AND EXISTS (
            SELECT FROM jsonb_to_recordset(wanted->'items') AS i(tags text[], types text[])
            WHERE (i.types IS NULL OR f.event_type = ANY (i.types))
            AND EXISTS (SELECT FROM unnest(i.tags) AS t WHERE starts_with(t, f.tag_name || ':'))) LIMIT 1;
        IF FOUND THEN
            RETURN jsonb_build_object('filled', filling.event_type, 'with', filling.tag_name);
        END IF;
    END IF;
    -- Most often few events have come, or none: then these are looked at, whatever the number of items.
    SELECT count(*) INTO come FROM (SELECT FROM events AS e WHERE e.global_position > since
        ORDER BY e.global_position LIMIT 33) AS counted;
    IF come = 0 THEN RETURN NULL; END IF;
    IF come <= 32 THEN
        SELECT e.global_position INTO earliest FROM events AS e
        WHERE e.global_position > since AND (tenant IS NULL OR e.tenant_id = tenant) AND EXISTS (
            SELECT FROM jsonb_to_recordset(wanted->'items') AS i(tags jsonb, types jsonb)
            WHERE (i.types IS NULL OR i.types ? e.event_type) AND (i.tags IS NULL OR e.tags @> i.tags))
        ORDER BY e.global_position LIMIT 1;
        wanted := wanted - 'items';
    END IF;
    FOR item IN SELECT * FROM jsonb_to_recordset(wanted->'items') AS i(tags text[], types text[]) LOOP
        IF item.tags IS NULL THEN
            -- Planned anew with these very values: whether the log or the index of the types is shorter depends on them.
            EXECUTE 'SELECT e.global_position FROM events AS e WHERE e.global_position > $1 '
                'AND ($2 IS NULL OR e.event_type = ANY ($2)) AND ($3 IS NULL OR e.tenant_id = $3) '
                'ORDER BY e.global_position LIMIT 1' INTO place USING since, item.types, tenant;
        ELSE
            start := item.tags[1];
            IF cardinality(item.tags) > 1 THEN
                -- From the tag with the fewest places, counted up to a thousand. A tag's places are asked for as a range of
                -- the index, in its order: with equalities all places of a hot tag may be gathered first.
                SELECT t INTO start FROM unnest(item.tags) AS t ORDER BY (
                    SELECT count(*) FROM (SELECT FROM event_tags AS c
                    WHERE (c.tag, c.global_position) > (t, since) AND c.tag <= t
                    ORDER BY c.tag, c.global_position LIMIT 1000) AS counted) LIMIT 1;
            END IF;
            -- A tag that many tenants share: from the tenant's own events, if these are fewer.
            IF tenant IS NULL AND row_security_active('events') AND to_regprocedure('esource_tenant()') IS NOT NULL THEN
                EXECUTE 'SELECT esource_tenant()' INTO tenant;
            END IF;
            few := 0;
            IF tenant IS NULL THEN
                NULL;
            ELSIF row_security_active('event_tags') THEN
                few := 1000;  -- how often others have the tag is hidden
            ELSIF 1000 = ALL (SELECT (SELECT count(*) FROM (SELECT FROM event_tags AS c
                    WHERE (c.tag, c.global_position) > (t, since) AND c.tag <= t
                    ORDER BY c.tag, c.global_position LIMIT 1000) AS counted) FROM unnest(item.tags) AS t) THEN
                few := 10000;
            END IF;
            shared := few > 0 AND few > (SELECT count(*) FROM (SELECT FROM events AS e
                WHERE e.tenant_id = tenant AND e.global_position > since LIMIT few) AS counted);
            IF shared THEN
                SELECT min(e.global_position) INTO place FROM (SELECT o.global_position, o.event_type FROM events AS o
                    WHERE o.tenant_id = tenant AND o.global_position > since OFFSET 0) AS e
                WHERE (item.types IS NULL OR e.event_type = ANY (item.types)) AND NOT EXISTS (
                    SELECT FROM unnest(item.tags) AS other WHERE (SELECT p.global_position FROM event_tags AS p
                    WHERE p.tag = other AND p.global_position = e.global_position) IS NULL);
                earliest := least(earliest, place);
                CONTINUE;
            END IF;
            SELECT t.global_position INTO place FROM event_tags AS t
            WHERE (t.tag, t.global_position) > (start, since) AND t.tag <= start
            AND (cardinality(item.tags) = 1 OR NOT EXISTS (
                SELECT FROM unnest(item.tags) AS other WHERE (SELECT p.global_position FROM event_tags AS p
                WHERE p.tag = other AND p.global_position = t.global_position) IS NULL))
            -- Of a part of the log that was detached the index still tells.
            AND (SELECT (item.types IS NULL OR e.event_type = ANY (item.types)) AND (tenant IS NULL OR e.tenant_id = tenant)
                FROM events AS e WHERE e.global_position = t.global_position)
            ORDER BY t.tag, t.global_position LIMIT 1;
        END IF;
        earliest := least(earliest, place);
    END LOOP;
    IF earliest IS NULL THEN RETURN NULL; END IF;
    RETURN jsonb_build_object('position', earliest, 'type',
        (SELECT e.event_type FROM events AS e WHERE e.global_position = earliest));
END $body$"""
"""What is in the way of an append with such a condition; NULL if nothing is."""

REFUSALS = """
CREATE OR REPLACE FUNCTION esource_refusals(wanted jsonb[]) RETURNS jsonb[] LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off AS $body$
#variable_conflict use_variable
DECLARE
    most integer := least(1000, 32 + 4 * cardinality(wanted));
    since bigint;
    found jsonb[];
    come integer;
BEGIN
    SELECT min(CAST(w->>'after' AS bigint)) INTO since FROM unnest(wanted) AS w WHERE w->'streams' = '[]';
    SELECT count(*) INTO come FROM (SELECT FROM events AS e WHERE e.global_position > since
        ORDER BY e.global_position LIMIT most + 1) AS counted;
    IF come > most OR current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted')
        OR EXISTS (SELECT FROM tag_fillings AS f WHERE f.completed_at IS NULL) THEN
        SELECT array_agg(esource_refusal(w) ORDER BY ordinal) INTO found
            FROM unnest(wanted) WITH ORDINALITY AS u(w, ordinal);
        RETURN found;
    END IF;
    -- Few events have come since the first of these decisions: all are judged by them at once.
    WITH come AS MATERIALIZED (
        SELECT e.global_position, e.event_type, e.tenant_id, e.tags FROM events AS e WHERE e.global_position > since
    ), tagged AS MATERIALIZED (
        SELECT t.tag, come.* FROM come,
            jsonb_array_elements_text(CASE WHEN jsonb_typeof(come.tags) = 'array' THEN come.tags END) AS t(tag)
    ), counted AS (
        SELECT tagged.tag, count(*) AS places FROM tagged GROUP BY tagged.tag
    ), asked AS MATERIALIZED (
        SELECT row_number() OVER () AS item, u.ordinal, CAST(u.w->>'after' AS bigint) AS after,
            CAST(u.w->>'tenant' AS uuid) AS tenant, i.tags, i.types
        FROM unnest(wanted) WITH ORDINALITY AS u(w, ordinal), jsonb_to_recordset(u.w->'items') AS i(tags jsonb, types jsonb)
        WHERE u.w->'streams' = '[]'
    ), begun AS (  -- each item with its rarest tag among them
        SELECT DISTINCT ON (a.item) a.*, t.tag, coalesce(counted.places, 0) AS places
        FROM asked AS a, jsonb_array_elements_text(a.tags) AS t(tag) LEFT JOIN counted USING (tag)
        ORDER BY a.item, places
    ), met AS (
        SELECT b.ordinal, c.global_position, c.event_type FROM begun AS b JOIN tagged AS c USING (tag)
        WHERE c.global_position > b.after AND c.tags @> b.tags AND (b.types IS NULL OR b.types ? c.event_type)
        AND (b.tenant IS NULL OR b.tenant = c.tenant_id)
        UNION ALL SELECT a.ordinal, c.global_position, c.event_type FROM asked AS a, come AS c WHERE a.tags IS NULL
        AND c.global_position > a.after AND (a.types IS NULL OR a.types ? c.event_type)
        AND (a.tenant IS NULL OR a.tenant = c.tenant_id)
    ), first AS (
        SELECT DISTINCT ON (met.ordinal) met.* FROM met ORDER BY met.ordinal, met.global_position
    )
    SELECT array_agg(CASE WHEN u.w->'streams' <> '[]' THEN esource_refusal(u.w) WHEN first.ordinal IS NOT NULL THEN
        jsonb_build_object('position', first.global_position, 'type', first.event_type) END ORDER BY u.ordinal) INTO found
        FROM unnest(wanted) WITH ORDINALITY AS u(w, ordinal) LEFT JOIN first USING (ordinal);
    RETURN found;
END $body$"""
"""The same for all appends of a batch, in their order."""

_ONE = """aggregate_id, aggregate_type, version, event_id, event_type, tenant_id, actor_id, timestamp, payload, tags)
            VALUES (<drawn>stream_ids[1], stream_types[1], versions[1] + 1, event_ids[1], event_types[1], tenant_ids[1],
                actor_ids[1], moments[1], CAST(payloads AS jsonb), CAST(tag_lists AS jsonb))"""
_MANY = """aggregate_id, aggregate_type, version, event_id, event_type, tenant_id, actor_id, timestamp, payload, tags)
            SELECT <drawn>s.id, s.type, s.version + coalesce(r.step, r.place), r.event_id, <type>, <tenant>,
                CASE WHEN cardinality(actor_ids) = 1 THEN actor_ids[1] ELSE r.actor_id END, r.moment,
                CAST(r.payload AS jsonb), CAST(r.tags AS jsonb)
            FROM unnest(row_streams, row_steps, event_ids, event_types, tenant_ids, actor_ids, moments,
                string_to_array(payloads, chr(31), ''), string_to_array(tag_lists, chr(31), ''))
                WITH ORDINALITY AS r(stream, step, event_id, event_type, tenant_id, actor_id, moment, payload, tags, place)
            JOIN unnest(stream_ids, stream_types, versions, accepted) WITH ORDINALITY AS s(id, type, version, accepted, place)
                ON s.place = coalesce(r.stream, 1)
            WHERE s.accepted ORDER BY r.place"""
# What all rows have is sent once.
_TYPE = "CASE WHEN cardinality(event_types) = 1 THEN event_types[1] ELSE r.event_type END"
_TENANT = "CASE WHEN cardinality(tenant_ids) = 1 THEN tenant_ids[1] ELSE r.tenant_id END"


def _many(drawn: str) -> str:
    return _MANY.replace("<drawn>", drawn).replace("<type>", _TYPE).replace("<tenant>", _TENANT)


# A stream is a range of the unique index, read backwards. With equalities the planner takes the index by type, or the whole of a
# young table, to be as cheap, and keeps that plan while the table grows.
LAST_VERSION = """SELECT CASE e.event_type WHEN 'esource.StreamClosed' THEN -e.version ELSE e.version END<into> FROM events AS e
            WHERE (e.aggregate_id, e.aggregate_type) >= (<place>) AND (e.aggregate_id, e.aggregate_type) <= (<place>)
            ORDER BY e.aggregate_id DESC, e.aggregate_type DESC, e.version DESC LIMIT 1"""
_FITS = "<version> >= 0 AND CASE <wanted> WHEN -1 THEN true WHEN -2 THEN <version> > 0 ELSE <version> = <wanted> END"

APPEND = f"""
CREATE OR REPLACE FUNCTION esource_append(by_row boolean, outbox boolean, tell boolean,
    stream_ids uuid[], stream_types text[], expected integer[], first_ids uuid[], conditions text[],
    row_streams integer[], row_steps integer[], event_ids uuid[], event_types text[], tenant_ids uuid[], actor_ids text[],
    moments timestamptz[], payloads text, tag_lists text,
    OUT versions integer[], OUT accepted boolean[], OUT known boolean[], OUT positions bigint[], OUT refusals text[])
LANGUAGE plpgsql VOLATILE AS $body$
#variable_conflict use_variable
DECLARE
    reached bigint;
    locked text;
    written integer;
    last integer;
    stream_id uuid := stream_ids[1];
    stream_type text := stream_types[1];
BEGIN
    -- A sequence hands out positions before the commit. A writer that takes this lock BEFORE drawing positions and holds it to
    -- the commit makes them visible in order, for every reader there is.
    IF by_row THEN
        reached := esource_lock_positions();
    ELSE
        -- The lock goes by the number of the table, which changes when the log is partitioned or merged: not while this
        -- holds the table. And who may not write, or no longer here, is told that before anything else.
        INSERT INTO events (event_id) SELECT first_ids[1] WHERE false;
        locked := CAST(pg_advisory_xact_lock({0x65736F75}, 'events'::regclass::oid::int4) AS text);
    END IF;
    IF row_streams IS NULL THEN
        {LAST_VERSION.replace("<into>", " INTO last").replace("<place>", "stream_id, stream_type")};
        last := coalesce(last, 0);
        versions := ARRAY[last];
        accepted := ARRAY[{_FITS.replace("<version>", "last").replace("<wanted>", "expected[1]")}];
        known := ARRAY[false];
    ELSE
        SELECT array_agg(l.version ORDER BY l.place), array_agg({_FITS.replace("<version>", "l.version").replace("<wanted>", "l.expected")} ORDER BY l.place),
            array_agg(false) INTO versions, accepted, known
        FROM (SELECT s.place, s.expected, coalesce(({LAST_VERSION.replace("<into>", "").replace("<place>", "s.id, s.type")}), 0) AS version
            FROM unnest(stream_ids, stream_types, expected) WITH ORDINALITY AS s(id, type, expected, place)) AS l;
    END IF;
    IF conditions IS NOT NULL THEN
        IF row_streams IS NULL THEN
            refusals := ARRAY[CAST(esource_refusal(CAST(conditions[1] AS jsonb)) AS text)];
        ELSE
            refusals := CAST(esource_refusals(CAST(conditions AS jsonb[])) AS text[]);
        END IF;
        FOR i IN 1 .. cardinality(stream_ids) LOOP
            accepted[i] := accepted[i] AND refusals[i] IS NULL;
        END LOOP;
    END IF;
    IF false = ANY (accepted) THEN
        FOR i IN 1 .. cardinality(stream_ids) LOOP
            IF NOT accepted[i] THEN
                PERFORM FROM events AS e WHERE e.event_id = first_ids[i];
                -- What a condition excludes may be this append's own, committed while it waited for the lock.
                known[i] := FOUND OR refusals[i] IS NOT NULL;
            END IF;
        END LOOP;
        SELECT count(*) INTO written FROM unnest(row_streams) AS stream WHERE accepted[stream];
        IF written = 0 THEN
            IF by_row THEN
                INSERT INTO events (event_id) SELECT first_ids[1] WHERE false; -- as above
            END IF;
            RETURN;
        END IF;
    ELSE
        written := cardinality(event_ids);
    END IF;
    IF by_row THEN
        reached := esource_draw_positions(written, reached);
        SELECT array_agg(place) INTO positions FROM generate_series(reached + 1, reached + written) AS place;
        IF cardinality(event_ids) = 1 THEN
            INSERT INTO events (global_position, {_ONE.replace("<drawn>", "positions[1], ")};
        ELSE
            INSERT INTO events (global_position, {_many("reached + row_number() OVER (ORDER BY r.place), ")};
        END IF;
    ELSIF cardinality(event_ids) = 1 THEN
        INSERT INTO events ({_ONE.replace("<drawn>", "")} RETURNING ARRAY[global_position] INTO positions;
    ELSE
        -- PostgreSQL draws a sequence default after the sort: positions follow the plan's order.
        WITH stored AS (INSERT INTO events ({_many("")} RETURNING global_position)
        SELECT array_agg(s.global_position ORDER BY s.global_position) INTO positions FROM stored AS s;
    END IF;
    IF outbox THEN
        INSERT INTO event_outbox (event_id, event_type, aggregate_id, aggregate_type, tenant_id, created_at, global_position)
        SELECT r.event_id, {_TYPE}, s.id, s.type, {_TENANT}, transaction_timestamp(),
            positions[row_number() OVER (ORDER BY r.place)]
        FROM unnest(row_streams, event_ids, event_types, tenant_ids)
            WITH ORDINALITY AS r(stream, event_id, event_type, tenant_id, place)
        JOIN unnest(stream_ids, stream_types, accepted) WITH ORDINALITY AS s(id, type, accepted, place)
            ON s.place = coalesce(r.stream, 1)
        WHERE s.accepted ORDER BY r.place;
    END IF;
    -- Delivered at the commit. PostgreSQL lets one such commit at a time on the whole server, so that logs which have nothing to
    -- do with each other would wait for each other: nobody is told where nobody listens. Whoever listens shares a lock, and gets
    -- it when no append is under way that has not told.
    IF tell AND (by_row OR NOT pg_try_advisory_xact_lock({0x65736F6C}, 'events'::regclass::oid::int4)) THEN
        PERFORM pg_notify('esource_' || 'events'::regclass::oid, '');
    END IF;
END $body$"""
"""An append: a whole batch in one call, and so in one round trip and one transaction. VOLATILE, so that each of its queries sees
what was committed before that query, and so all that came before the lock."""

FOR_TENANTS = """
DO $do$ DECLARE tenant_role name; BEGIN
    IF to_regclass('esource_tenant_roles') IS NOT NULL THEN
        ALTER TABLE event_tags ENABLE ROW LEVEL SECURITY;
        CREATE POLICY esource_tenants ON event_tags
            USING ((SELECT true FROM events WHERE events.global_position = event_tags.global_position)
                OR (SELECT esource_every_tenant()))
            WITH CHECK ((SELECT esource_every_tenant()) OR (false));
        ALTER TABLE tag_fillings ENABLE ROW LEVEL SECURITY;
        CREATE POLICY esource_tenants ON tag_fillings USING (true OR (SELECT esource_every_tenant()))
            WITH CHECK ((SELECT esource_every_tenant()) OR (false));
        CREATE POLICY esource_texts_as_tags ON events AS RESTRICTIVE FOR INSERT WITH CHECK (
            CASE WHEN jsonb_typeof(tags) = 'array' THEN (
                SELECT coalesce(bool_and(jsonb_typeof(tag) = 'string' AND length(tag #>> '{}') BETWEEN 1 AND 255), false)
                FROM jsonb_array_elements(tags) AS given(tag))
            ELSE tags IS NULL END);
        FOR tenant_role IN SELECT rolname FROM esource_tenant_roles JOIN pg_roles ON rolname = role_name
            WHERE tenant_id IS NOT NULL LOOP
            EXECUTE format('GRANT INSERT (tags) ON events TO %I', tenant_role);
            EXECUTE format('GRANT SELECT ON event_tags, tag_fillings TO %I', tenant_role);
        END LOOP;
    END IF;
END $do$"""

TAKEN = {
    "sqlite": """
SELECT 'the ' || type || ' ' || name FROM sqlite_master
    WHERE lower(name) IN ('event_tags', 'tag_fillings')
UNION ALL SELECT 'the column events.' || name FROM pragma_table_xinfo('events') WHERE lower(name) = 'tags'""",
    "postgresql": """
SELECT 'the ' || CASE relkind WHEN 'v' THEN 'view ' WHEN 'm' THEN 'materialized view ' WHEN 'i' THEN 'index '
    WHEN 'S' THEN 'sequence ' WHEN 'c' THEN 'type ' ELSE 'table ' END || relname FROM pg_class JOIN pg_namespace ON
    pg_namespace.oid = relnamespace WHERE nspname = current_schema() AND relname IN ('event_tags', 'event_tags_pkey',
    'tag_fillings', 'tag_fillings_pkey')
    AND NOT EXISTS (SELECT FROM pg_index JOIN pg_class AS of ON of.oid = indrelid
        WHERE indexrelid = pg_class.oid AND of.relname IN ('event_tags', 'tag_fillings'))
UNION ALL SELECT 'the column events.' || attname FROM pg_attribute
    WHERE attrelid = to_regclass('events') AND attname = 'tags' AND NOT attisdropped""",
}


def _require_free_names() -> None:
    """Refuse an application's own things by the names that this revision gives. A script cannot know them.

    Raises:
        CommandError: there are such.
    """
    if op.get_context().as_sql:
        return
    found = [name for (name,) in op.get_bind().execute(sa.text(TAKEN[op.get_context().dialect.name]))]
    if found:
        raise CommandError(
            f"{' and '.join(found)} would be in the way of esource's own by that name, which keep the tags of "
            "events. Nothing was changed. Rename what is the application's, then upgrade again; or keep the log "
            "in another database, or on PostgreSQL in a schema of its own (?schema=NAME in the URL)"
        )


def upgrade() -> None:
    _require_free_names()
    op.add_column("events", sa.Column("tags", JSON))
    op.create_table(
        "event_tags",
        sa.Column("tag", NAME, nullable=False),
        sa.Column("global_position", POSITION, nullable=False),
        sa.PrimaryKeyConstraint("tag", "global_position", name="event_tags_pkey"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "tag_fillings",
        sa.Column("event_type", NAME, nullable=False),
        sa.Column("tag_name", NAME, nullable=False),
        sa.Column("global_position", POSITION, nullable=False),
        sa.Column("completed_at", MOMENT),
        sa.PrimaryKeyConstraint("event_type", "tag_name", name="tag_fillings_pkey"),
    )
    if op.get_context().dialect.name == "sqlite":
        statements = SQLITE
    else:
        statements = [
            KEEP_TAGS,
            NOBODY_CALLS,
            NOBODY_WRITES,
            *TRIGGERS,
            REFUSAL,
            REFUSALS,
            APPEND,
            FOR_TENANTS,
        ]
    for statement in statements:
        op.execute(statement)
    record_revision(op, revision)


def downgrade() -> None:
    require_named_branch(op)
    is_sqlite = op.get_context().dialect.name == "sqlite"
    for when in ("insert", "update", "delete"):
        op.execute(f"DROP TRIGGER IF EXISTS esource_event_tags_{when}" + ("" if is_sqlite else " ON events"))
    if not is_sqlite:
        op.execute("DROP FUNCTION esource_keep_event_tags()")
        op.execute("DROP FUNCTION esource_refusals(jsonb[])")
        op.execute("DROP FUNCTION esource_refusal(jsonb)")
        op.execute("DROP FUNCTION esource_append")
        op.execute("DROP POLICY IF EXISTS esource_texts_as_tags ON events")
    op.drop_table("tag_fillings")
    op.drop_table("event_tags")
    op.drop_column("events", "tags")
    record_revision(op, down_revision)
