"""After the redundant indexes went, every query that the tutorial names for them still has one."""

import json

import pytest
from support.schemas import execute, rows

QUERIES = {
    "load a stream": (
        "SELECT payload FROM events WHERE aggregate_id = '{id}' AND aggregate_type = 'Type3' AND version > 2 "
        "ORDER BY version"
    ),
    "by aggregate id": "SELECT payload FROM events WHERE aggregate_id = '{id}'",
    "by aggregate type": "SELECT payload FROM events WHERE aggregate_type = 'Type3'",
    "by event type": "SELECT payload FROM events WHERE event_type = 'Event7'",
    "time range": (
        "SELECT payload FROM events WHERE timestamp >= '2025-01-01T01:00:00.000000+00:00' "
        "AND timestamp < '2025-01-01T01:05:00.000000+00:00'"
    ),
    "by tenant": "SELECT payload FROM events WHERE tenant_id = '{tenant}'",
    "type, tenant and time": (
        "SELECT payload FROM events WHERE aggregate_type = 'Type3' AND tenant_id = '{tenant}' "
        "AND timestamp >= '2025-01-01T01:00:00.000000+00:00' ORDER BY timestamp"
    ),
    "by event id": "SELECT payload FROM events WHERE event_id = '{event}'",
    "global order": "SELECT payload FROM events WHERE global_position > 4000 ORDER BY global_position LIMIT 10",
    "snapshot of an aggregate": (
        "SELECT state FROM snapshots WHERE aggregate_id = '{id}' AND aggregate_type = 'Type3'"
    ),
    "snapshots of a type": "SELECT state FROM snapshots WHERE aggregate_type = 'Type3'",
    "dead letters of an event": "SELECT error_message FROM dead_letter_queue WHERE event_id = '{event}'",
    "dead letters of a projection": (
        "SELECT error_message FROM dead_letter_queue WHERE projection_name = 'Projection3'"
    ),
    "what waits in the outbox": (
        "SELECT event_id FROM event_outbox WHERE status = 'pending' ORDER BY created_at LIMIT 10"
    ),
}

FILL = (
    (
        "INSERT INTO events (event_id, aggregate_id, aggregate_type, event_type, tenant_id, version, timestamp, "
        "payload) SELECT {n_id}, {stream_id}, 'Type' || (n % 200), 'Event' || (n % 100), "
        "CASE WHEN n % 50 = 0 THEN {tenant_id} END, n / 500 + 1, {moment}, '{{}}' FROM {numbers}"
    ),
    (
        "INSERT INTO snapshots (aggregate_id, aggregate_type, version, state) "
        "SELECT {n_id}, 'Type' || (n % 200), 1, '{{}}' FROM {numbers}"
    ),
    (
        "INSERT INTO dead_letter_queue (event_id, projection_name, event_type, event_data, error_message) "
        "SELECT {n_id}, 'Projection' || (n % 100), 'Event', '{{}}', 'no' FROM {numbers}"
    ),
    (
        "INSERT INTO event_outbox (event_id, event_type, aggregate_id, aggregate_type, event_data, created_at, "
        "status) SELECT {n_id}, 'Event', {stream_id}, 'Type', '{{}}', {moment}, "
        "CASE WHEN n % 100 = 0 THEN 'pending' ELSE 'published' END FROM {numbers}"
    ),
    "ANALYZE",
)
SQLITE = {
    "n_id": "printf('%08x-0000-4000-8000-000000000000', n)",
    "stream_id": "printf('%08x-0000-4000-8000-000000000001', n % 500)",
    "tenant_id": "printf('%08x-0000-4000-8000-000000000002', n % 500)",
    "moment": "strftime('%Y-%m-%dT%H:%M:%S', '2025-01-01', n || ' seconds') || '.000000+00:00'",
    "numbers": "(WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 20000) SELECT n FROM c)",
}
POSTGRESQL = {
    "n_id": "CAST(lpad(to_hex(n), 8, '0') || '-0000-4000-8000-000000000000' AS uuid)",
    "stream_id": "CAST(lpad(to_hex(n % 500), 8, '0') || '-0000-4000-8000-000000000001' AS uuid)",
    "tenant_id": "CAST(lpad(to_hex(n % 500), 8, '0') || '-0000-4000-8000-000000000002' AS uuid)",
    "moment": "TIMESTAMPTZ '2025-01-01 00:00:00+00' + n * INTERVAL '1 second'",
    "numbers": "generate_series(1, 20000) AS n",
}


@pytest.fixture
async def filled_url(shared_store, shared_database_url):
    words = SQLITE if shared_database_url.startswith("sqlite") else POSTGRESQL
    await execute(shared_database_url, *(statement.format(**words) for statement in FILL))
    return shared_database_url


async def scans(url: str, query: str) -> tuple[list[str], list[str]]:
    """The indexes that a query uses, and the tables that it reads from one end to the other."""
    if url.startswith("sqlite"):
        details = [row[3] for row in await rows(url, f"EXPLAIN QUERY PLAN {query}")]
        return (
            [detail for detail in details if "USING" in detail],
            [detail for detail in details if detail.startswith("SCAN") and "INDEX" not in detail],
        )
    [(plan,)] = await rows(url, f"EXPLAIN (FORMAT JSON) {query}")
    nodes = [json.loads(plan)[0]["Plan"]]
    indexes, tables = [], []
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", [])
        indexes += [node["Index Name"]] if "Index Name" in node else []
        tables += [node["Relation Name"]] if node["Node Type"] == "Seq Scan" else []
    return indexes, tables


async def test_every_query_that_the_tutorial_names_is_served_by_an_index(filled_url):
    stream = (await rows(filled_url, "SELECT aggregate_id FROM events WHERE global_position = 3"))[0][0]
    tenant = (await rows(filled_url, "SELECT min(CAST(tenant_id AS TEXT)) FROM events"))[0][0]
    event = (await rows(filled_url, "SELECT event_id FROM events WHERE global_position = 3"))[0][0]
    found = {
        name: await scans(filled_url, query.format(id=stream, tenant=tenant, event=event))
        for name, query in QUERIES.items()
    }

    assert {name: plan for name, plan in found.items() if not plan[0] or plan[1]} == {}


async def test_the_check_of_plans_sees_a_query_without_an_index(filled_url):
    indexes, tables = await scans(filled_url, "SELECT payload FROM events WHERE actor_id = 'nobody'")

    assert not indexes
    assert tables
