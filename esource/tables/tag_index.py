"""The index of the tags in a database: the triggers that keep it, and the function that judges a condition by it.

As the revision 0004 makes them; a test compares.
"""

from __future__ import annotations

from sqlalchemy import DDL, event

from esource.tables.model import metadata

SQLITE_TRIGGERS = (
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
)

POSTGRESQL_TRIGGERS = (
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
)

TRIGGER_NAMES = ("esource_event_tags_insert", "esource_event_tags_update", "esource_event_tags_delete")

FUNCTIONS = ("esource_keep_event_tags()", "esource_refusal(jsonb)", "esource_refusals(jsonb[])")
"""PostgreSQL's: what the triggers call, with the rights of the owner, what judges a condition, and all those of a batch."""

_KEEP_TAGS = """
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

_REFUSAL = """
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

_REFUSALS = """
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

for _dialect, _statements in (
    ("sqlite", SQLITE_TRIGGERS),
    ("postgresql", (_KEEP_TAGS, *POSTGRESQL_TRIGGERS, _REFUSAL, _REFUSALS)),
):
    for _statement in _statements:
        event.listen(metadata, "after_create", DDL(_statement).execute_if(dialect=_dialect))  # type: ignore[no-untyped-call]
