"""The conditions of a batch, which PostgreSQL judges together, are judged as each of them by itself."""

from __future__ import annotations

import json
import random

from support.effort import seed
from support.schemas import execute, rows

WRITE = """
    INSERT INTO events (event_id, aggregate_id, aggregate_type, event_type, tenant_id, version, timestamp, payload, tags)
    SELECT gen_random_uuid(), CAST(lpad(to_hex(n), 32, '0') AS uuid), 'Desk', 'Type' || (n % 3),
        CASE WHEN n % 4 = 0 THEN CAST('{tenant}' AS uuid) END, 1, now(), '{{}}',
        CASE WHEN n % 5 > 0 THEN jsonb_build_array('all', 'half:' || (n % 2), 'tenth:' || (n % 10), 'one:' || n) END
    FROM generate_series(1, 300) AS n"""
TENANT = "00000000-0000-4000-8000-00000000000a"
BOTH = """
    SELECT CAST(esource_refusal(each) AS text), CAST(together AS text) FROM
    unnest(CAST(ARRAY[{wanted}] AS jsonb[]), esource_refusals(CAST(ARRAY[{wanted}] AS jsonb[]))) AS b(each, together)"""


def item(chance: random.Random) -> dict[str, list[str] | None]:
    of = [
        "all",
        f"half:{chance.randrange(3)}",
        f"tenth:{chance.randrange(12)}",
        f"one:{chance.randrange(320)}",
    ]
    types = [f"Type{n}" for n in chance.sample(range(4), chance.randrange(3))]
    return {"types": types or None, "tags": sorted(chance.sample(of, chance.randrange(4))) or None}


def condition(chance: random.Random, least: int) -> str:
    if chance.random() < 0.1:
        return "NULL"
    streams = [
        {"id": f"{n:032x}", "type": "Desk", "version": chance.randrange(2)}
        for n in chance.sample(range(1, 310), chance.choice([0, 0, 0, 1, 2]))
    ]
    items = [item(chance) for _ in range(chance.randrange(0 if streams else 1, 5))]
    tenant = TENANT if chance.random() < 0.3 else None
    wanted = {"after": chance.randrange(least, 305), "tenant": tenant, "items": items, "streams": streams}
    return f"'{json.dumps(wanted)}'"


async def test_conditions_that_are_judged_together_are_judged_as_each_by_itself(postgres_url):
    await execute(postgres_url, WRITE.format(tenant=TENANT))
    chance = random.Random(seed())  # noqa: S311 - no secret
    answers = set()
    for turn in range(60):
        least = chance.choice([0, 200, 290])  # of many that have come, and of few
        if turn == 50:
            await execute(
                postgres_url,
                "INSERT INTO tag_fillings (event_type, tag_name, global_position) VALUES ('Type1', 'half', 0)",
            )
        wanted = ", ".join(condition(chance, least) for _ in range(chance.randrange(1, 40)))
        for each, together in await rows(postgres_url, BOTH.format(wanted=wanted)):
            assert each == together
            answers.add(None if each is None else min(json.loads(each)))
    assert answers == {None, "position", "id", "filled"}
    [(each,)] = await rows(postgres_url, "SELECT esource_refusals('{}')")
    assert not each
