"""The function that appends on PostgreSQL: a whole batch in one call, and so in one round trip and one transaction.

VOLATILE, so that each of its queries sees what was committed before that query, and so all that came before the lock. As the
revision 0004 makes it; a test compares.
"""

from __future__ import annotations

from sqlalchemy import DDL, event

from esource.tables.constructs import CHANNEL, LISTENING_KEY
from esource.tables.model import metadata

LOG_LOCK_CLASS = 0x65736F75
"""First half of the append lock's key ("esou"); the second is the events table's own id, so that stores
in other schemas do not wait for each other."""

SIGNATURE = (
    "esource_append(boolean, boolean, boolean, uuid[], text[], integer[], uuid[], text[], integer[], integer[], uuid[], text[], "
    "uuid[], text[], timestamptz[], text, text)"
)

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

CREATE = f"""
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
        locked := CAST(pg_advisory_xact_lock({LOG_LOCK_CLASS}, 'events'::regclass::oid::int4) AS text);
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
    IF tell AND (by_row OR NOT pg_try_advisory_xact_lock({LISTENING_KEY})) THEN
        PERFORM pg_notify({CHANNEL}, '');
    END IF;
END $body$"""  # noqa: S608 - our own text

_create = DDL(CREATE.replace("%", "%%")).execute_if(dialect="postgresql")  # type: ignore[no-untyped-call]
event.listen(metadata, "after_create", _create)
