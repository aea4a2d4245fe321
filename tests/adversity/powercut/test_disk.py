"""The model of a disk that loses its power keeps what it has to, and loses the rest."""

from __future__ import annotations

import random

import pytest

from adversity.powercut.disk import KEPT, SECTOR, Disk
from adversity.powercut.recording import Call


@pytest.fixture
def left(tmp_path):
    """What may be left of a folder with one file after these calls: every state that came out of many cuts."""
    base = tmp_path / "base"
    base.mkdir()
    (base / "old").write_bytes(b"o" * SECTOR * 2)

    def states(*calls: Call) -> set[tuple[tuple[str, bytes], ...]]:
        disk, chance, found = Disk(base), random.Random(1), set()
        for call in calls:
            disk.take(call)
        for number in range(60):
            folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
            disk.cut(KEPT[number % len(KEPT)], chance, folder)
            found.add(tuple(sorted((path.name, path.read_bytes()) for path in folder.iterdir())))
        return found

    return states


def write(began: int, data: bytes, path: str = "old", offset: int = 0) -> Call:
    return Call("write", path, began, began, offset, data)


def sync(began: int, path: str = "old", ended: int | None = None) -> Call:
    return Call("sync", path, began, began if ended is None else ended)


OLD, NEW = b"o" * SECTOR, b"n" * SECTOR


def test_what_was_synced_is_there(left):
    assert left(write(1, NEW + NEW), sync(2)) == {(("old", NEW + NEW),)}


def test_of_what_was_not_synced_any_sectors_may_be_there(left):
    parts = {state[0][1] for state in left(write(1, NEW + NEW))}
    assert parts == {OLD + OLD, NEW + NEW, NEW + OLD, OLD + NEW}


def test_a_later_write_may_be_there_without_an_earlier_one(left):
    states = {state[0][1] for state in left(write(1, NEW), write(2, NEW, offset=SECTOR))}
    assert OLD + NEW in states
    assert NEW + OLD in states


def test_a_sync_confirms_what_was_written_before_it_began(left):
    states = left(write(1, NEW), write(3, NEW, offset=SECTOR), sync(2, ended=4))
    assert {state[0][1][:SECTOR] for state in states} == {NEW}
    assert {state[0][1][SECTOR:] for state in states} == {OLD, NEW}


def test_a_file_that_is_longer_only_at_its_end_has_zeros_before(left):
    states = {
        state[0][1] for state in left(write(1, NEW, offset=2 * SECTOR), write(2, NEW, offset=3 * SECTOR))
    }
    assert OLD + OLD + bytes(SECTOR) + NEW in states


@pytest.mark.parametrize("synced", ["new", "."])
def test_a_name_is_there_when_the_file_or_the_folder_was_synced(left, synced):
    created = Call("create", "new", 1, 1)
    assert {len(state) for state in left(created)} == {1, 2}
    assert {len(state) for state in left(created, sync(2, synced))} == {2}
    assert {len(state) for state in left(created, sync(2, "old"))} == {1, 2}


def test_names_keep_their_order(left):
    calls = [
        Call("create", "a", 1, 1),
        Call("create", "b", 2, 2),
        Call("unlink", "a", 3, 3),
        Call("create", "c", 4, 4),
    ]
    names = {tuple(name for name, _ in state) for state in left(*calls)}
    assert names == {("old",), ("a", "old"), ("a", "b", "old"), ("b", "old"), ("b", "c", "old")}


def test_a_rename_replaces_a_file_whole(left):
    calls = [
        Call("create", "new", 1, 1),
        write(2, NEW, "new"),
        sync(3, "new"),
        Call("rename", "new", 4, 4, target="old"),
    ]
    assert left(*calls) == {(("new", NEW), ("old", OLD + OLD)), (("old", NEW),)}
    assert left(*calls, sync(5, ".")) == {(("old", NEW),)}
