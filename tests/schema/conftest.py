"""An environment with the wheel; roles of a PostgreSQL, and one that is bound to a tenant."""

from __future__ import annotations

import sys
import venv
import zipfile
from pathlib import Path
from uuid import uuid4

import pytest
from support.orders import several
from support.schemas import CHECKOUT, execute, run
from support.tenants import (
    BLUE,
    NOBODYS,
    OURS,
    PASSWORD,
    RED,
    THEIRS,
    as_role,
)

from esource import (
    CheckpointRepository,
    DLQRepository,
    Snapshot,
    SnapshotStore,
)
from esource.schema import row_level_security


@pytest.fixture(scope="session")
def installed(tmp_path_factory) -> Path:
    """The interpreter of a fresh environment with the wheel, and nothing of the checkout.

    What the wheel depends on comes from the environment of the tests.
    """
    folder = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), cwd=CHECKOUT)
    [wheel] = folder.glob("esource-*.whl")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    [site_packages] = (folder / "venv" / "lib").glob("python*/site-packages")
    zipfile.ZipFile(wheel).extractall(site_packages)  # all that installing pure Python means
    import sqlalchemy

    (site_packages / "dependencies.pth").write_text(f"{Path(sqlalchemy.__file__).parents[1]}\n")
    return folder / "venv" / "bin" / "python"


@pytest.fixture
async def roles(postgres_url):
    """Makes login roles; a cluster has its roles in common, so each is dropped again."""
    made = []

    async def make(attributes=""):
        role = f"tenant_{uuid4().hex}"
        await execute(postgres_url, f"CREATE ROLE \"{role}\" LOGIN PASSWORD '{PASSWORD}' {attributes}")
        made.append(role)
        return role

    yield make
    for role in made:
        await execute(postgres_url, f'DROP OWNED BY "{role}"', f'DROP ROLE "{role}"')


@pytest.fixture
async def owner(postgres_url, open_stores):
    """The owner's store, on a database with row-level security in which two tenants and nobody wrote."""
    store = await open_stores(postgres_url, outbox_enabled=True)
    await row_level_security.enable(store)
    await store.append_events(NOBODYS, "Order", several(2, NOBODYS))
    for tenant, stream in ((RED, OURS), (BLUE, THEIRS)):
        bound = store.for_tenant(tenant)
        await bound.append_events(stream, "Order", several(3, stream), 0)
        await SnapshotStore(bound).save_snapshot(Snapshot(stream, "Order", 3, {"tenant": str(tenant)}))
        event = (await bound.get_events(stream)).events[0]
        await DLQRepository(bound).add_failed_event(event.event_id, "p", "OrderPlaced", {}, ValueError("x"))
        await CheckpointRepository(bound).save_position("p", 1, event.event_id, "OrderPlaced")
    return store


@pytest.fixture
async def red_url(owner, roles, postgres_url):
    """The database's URL for a role that is bound to one of the tenants."""
    role = await roles()
    await row_level_security.bind_role(owner, role, RED)
    return as_role(postgres_url, role)
