"""The steps of docs/growth.md: the commands of the page, and an application that writes between them."""

from __future__ import annotations

import re
import shlex
from uuid import UUID

import pytest
from support.commands import esource
from support.documents import ROOT, blocks
from support.orders import placed

from esource import open_store
from esource.directory import Directory
from esource.errors import StoreMovedError
from esource.testing import server

PAGE = (ROOT / "docs" / "growth.md").read_text(encoding="utf-8")
TENANT, OTHER = UUID("7b0c4a52-6d3f-4b8e-8b70-6f1f7c2f2a11"), UUID(int=8)


@pytest.mark.slow
async def test_an_application_goes_from_one_file_to_two_servers(tmp_path, postgres_server, monkeypatch):
    with server.new_database(postgres_server) as first, server.new_database(postgres_server) as second:
        real = {
            "sqlite:///shop.db": f"sqlite:///{tmp_path / 'shop.db'}",
            "postgresql://user@first/shop": first.replace(":@", "@"),
            "postgresql://user@second/shop?": second.replace(":@", "@") + "&",
        }

        async def run(block: str) -> None:
            for name, url in real.items():
                block = block.replace(name, url)
            for line in block.splitlines():
                command, *words = shlex.split(line)
                if command == "export":
                    monkeypatch.setenv(*re.fullmatch(r"(\w+)=(.*)", words[0]).groups())
                else:
                    done = await esource(*words)
                    assert (done.exit_code, command) == (0, "esource"), (line, done.stdout, done.stderr)

        written: dict[UUID, list[UUID]] = {TENANT: [], OTHER: []}

        async def write(store, tenant: UUID) -> None:
            event = placed()
            written[tenant].append(event.event_id)
            await store.for_tenant(tenant).append_events(event.aggregate_id, "Order", [event])

        steps = blocks(PAGE, "sh")
        await run(steps[0])
        async with open_store(real["sqlite:///shop.db"]) as store:
            await write(store, OTHER)
            await run(steps[1])
            with pytest.raises(StoreMovedError):
                await store.append_events((lost := placed()).aggregate_id, "Order", [lost])
        async with open_store(first) as store:
            await write(store, OTHER)
            await run(steps[2])
            await write(store, OTHER)  # who does not know of the directory yet
        async with Directory(first) as directory:
            for tenant in (TENANT, OTHER):
                await write(await directory.store(tenant), tenant)
            await run(steps[3])
            for tenant in (TENANT, OTHER):
                await write(await directory.store(tenant), tenant)
                store = await directory.store(tenant)
                assert [stored.event_id async for stored in store.read_all()] == written[tenant]
            assert (await directory.store(TENANT)).name != (await directory.store(OTHER)).name
