"""Two tenants on one PostgreSQL, and sessions of a role that is bound to one of them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import asyncpg
from sqlalchemy.engine import make_url

from esource.testing.server import dsn

RED = UUID("00000000-0000-7000-8000-00000000000a")
BLUE = UUID("00000000-0000-7000-8000-00000000000b")
OURS, THEIRS, NOBODYS = uuid4(), uuid4(), uuid4()
PASSWORD = uuid4().hex
DENIED = asyncpg.InsufficientPrivilegeError


def as_role(url, role):
    return make_url(url).set(username=role, password=PASSWORD).render_as_string(hide_password=False)


@asynccontextmanager
async def session(url):
    connection = await asyncpg.connect(**dsn(make_url(url)))
    try:
        yield connection
    finally:
        await connection.close()


TENANT_OF = {
    "events": "SELECT tenant_id FROM events",
    "event_outbox": "SELECT tenant_id FROM event_outbox",
    "snapshots": "SELECT CAST(state->>'tenant' AS uuid) FROM snapshots",
    "dead_letter_queue": "SELECT tenant_id FROM dead_letter_queue JOIN events USING (event_id)",
    "projection_checkpoints": "SELECT CAST(left(projection_name, 36) AS uuid) FROM projection_checkpoints",
}


async def tenants_seen(connection):
    return {table: {row[0] for row in await connection.fetch(query)} for table, query in TENANT_OF.items()}
