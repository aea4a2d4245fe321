"""A copy of a SQLite file, made while the store is open."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from uuid import uuid4

import pytest
from support.orders import several

from esource import EventStore, copying
from esource.copying.backup import back_up
from esource.errors import InvalidOptionError


@pytest.fixture
def synced(monkeypatch) -> list[tuple[str, set[str]]]:
    """Each sync to the disk as it comes: of a file or of a folder, and the names that are in the folder by then."""
    seen: list[tuple[str, set[str]]] = []
    sync = os.fsync

    def watched(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        folder = path if kind == "folder" else path.parent
        seen.append((kind, {entry.name for entry in folder.iterdir()}))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    return seen


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="which file is synced is read from /proc")
@pytest.mark.parametrize("write", [back_up, copying.export_store])
async def test_a_new_file_is_on_the_disk_before_it_has_its_name_and_then_its_name_is(
    sqlite_url, open_stores, tmp_path, synced, write
):
    store: EventStore = await open_stores(sqlite_url)
    events = several(3)
    await store.append_events(events[0].aggregate_id, "Order", events)
    target = tmp_path / "new" / "copy"
    target.parent.mkdir()

    await write(store, target)

    own = [(kind, "copy" in names) for kind, names in synced if {name[:4] for name in names} == {"copy"}]
    assert own == [("file", False), ("folder", True)]
    assert [path.name for path in target.parent.iterdir()] == ["copy"]


async def test_a_store_bound_to_a_tenant_is_not_backed_up_with_everybody_elses_events(
    sqlite_url, open_stores, tmp_path
):
    store: EventStore = await open_stores(sqlite_url)
    with pytest.raises(InvalidOptionError, match="a backup works for all tenants"):
        await back_up(store.for_tenant(uuid4()), tmp_path / "copy")
    assert not list(tmp_path.glob("copy*"))
