"""The steps of docs/growth.md: the commands of the page, and an application that writes between them."""

from __future__ import annotations

import re
import shlex
from uuid import UUID, uuid4

import pytest
from sqlalchemy.engine import make_url
from support.commands import esource
from support.documents import ROOT, blocks
from support.orders import placed, several

from esource import open_store
from esource.directory import Directory
from esource.errors import StoreMovedError
from esource.testing import server

PAGE = (ROOT / "docs" / "growth.md").read_text(encoding="utf-8")
TENANT, OTHER = UUID("7b0c4a52-6d3f-4b8e-8b70-6f1f7c2f2a11"), UUID(int=8)


async def run(block: str, real: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the commands of a block, with the names of real things."""
    for name, url in real.items():
        block = block.replace(name, url)
    for line in block.splitlines():
        command, *words = shlex.split(line)
        if command == "export":
            monkeypatch.setenv(*re.fullmatch(r"(\w+)=(.*)", words[0]).groups())
        else:
            done = await esource(*words)
            assert (done.exit_code, command) == (0, "esource"), (line, done.stdout, done.stderr)


@pytest.mark.slow
async def test_an_application_goes_from_one_file_to_two_servers(tmp_path, postgres_server, monkeypatch):
    with server.new_database(postgres_server) as first, server.new_database(postgres_server) as second:
        real = {
            "sqlite:///shop.db": f"sqlite:///{tmp_path / 'shop.db'}",
            "postgresql://user@first/shop": first.replace(":@", "@"),
            "postgresql://user@second/shop?": second.replace(":@", "@") + "&",
        }

        written: dict[UUID, list[UUID]] = {TENANT: [], OTHER: []}

        async def write(store, tenant: UUID) -> None:
            event = placed()
            written[tenant].append(event.event_id)
            await store.for_tenant(tenant).append_events(event.aggregate_id, "Order", [event])

        steps = blocks(PAGE, "sh")
        await run(steps[0], real, monkeypatch)
        async with open_store(real["sqlite:///shop.db"]) as store:
            await write(store, OTHER)
            await run(steps[1], real, monkeypatch)
            with pytest.raises(StoreMovedError):
                await store.append_events((lost := placed()).aggregate_id, "Order", [lost])
        async with open_store(first) as store:
            await write(store, OTHER)
            await run(steps[2], real, monkeypatch)
            await write(store, OTHER)  # who does not know of the directory yet
        async with Directory(first) as directory:
            for tenant in (TENANT, OTHER):
                await write(await directory.store(tenant), tenant)
            await run(steps[3], real, monkeypatch)
            for tenant in (TENANT, OTHER):
                await write(await directory.store(tenant), tenant)
                store = await directory.store(tenant)
                assert [stored.event_id async for stored in store.read_all()] == written[tenant]
            assert (await directory.store(TENANT)).name != (await directory.store(OTHER)).name


@pytest.mark.usefixtures("citus")
async def test_a_tenant_goes_from_there_to_a_citus_cluster(citus, postgres_server, monkeypatch):
    name = f"tenant_{uuid4().hex}"
    with server.new_database(postgres_server) as second:
        real = {
            "postgresql://user@coordinator/shop?": citus.render_as_string(hide_password=False) + "?",
            "postgresql://user@coordinator/shop": citus.render_as_string(hide_password=False),
            "postgresql://user@second/shop?": second.replace(":@", "@") + "&",
            "tenant_8": name,
        }
        there = make_url(second).update_query_dict({"schema": name})
        events = several(3)
        async with open_store(there) as store:
            await store.initialize()
            await store.append_events(events[0].aggregate_id, "Order", events)
        try:
            await run(blocks(PAGE, "sh")[4], real, monkeypatch)
            async with Directory(citus, append_lock="row", notify=False) as directory:
                store = await directory.log(name)
                event = placed(events[0].aggregate_id)
                await store.append_events(event.aggregate_id, "Order", [event], 3)
                found = [stored.event_id async for stored in store.read_all()]
            assert found == [event.event_id for event in [*events, event]]
        finally:
            done = await esource("logs", "drop", name, "--everything", "--yes")
            assert done.exit_code == 0, done.stderr
