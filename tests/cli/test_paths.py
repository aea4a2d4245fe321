"""Paths where no SQLite file is or can be: the error names what is wrong with them, and nothing is made."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import esource
from support.orders import placed

from esource import SQLiteEventStore
from esource.copying import export_store, import_store
from esource.copying.archiving import archive, restore
from esource.copying.backup import back_up
from esource.errors import DatabaseUnavailableError, InvalidOptionError

NOBODY = 65534
LOOKING = (
    "info",
    "current",
    "check",
    "doctor",
    "verify",
    "tail",
    "streams",
    "projections list",
    "backup copy.db",
)


@pytest.mark.parametrize("command", LOOKING)
async def test_looking_at_a_file_that_is_not_there_makes_no_folder(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = await esource(*command.split(), "--url", "sqlite:///nope/none.db")
    assert (done.exit_code, done.stdout) == (3, "")
    assert "there is no such file" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["copy", "cut-over", "verify-copy"])
async def test_neither_side_of_a_copy_is_made_for_a_source_that_is_not_there(command, tmp_path):
    done = await esource(command, f"sqlite:///{tmp_path}/nope/none.db", tmp_path / "other" / "target.db")
    assert done.exit_code == 3
    assert "there is no such file" in done.stderr
    assert list(tmp_path.iterdir()) == []


async def test_a_store_that_only_reads_makes_no_folder(tmp_path):
    store = SQLiteEventStore(tmp_path / "nope" / "none.db", read_only=True)
    with pytest.raises(DatabaseUnavailableError, match="there is no such file"):
        await store.get_global_position()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["init", "upgrade", "info", "current", "doctor"])
async def test_a_directory_is_called_one(command, tmp_path):
    done = await esource(command, "--url", tmp_path)
    assert done.exit_code == 3
    assert f"{tmp_path}: that is a directory. Name a file in it." in done.stderr


@pytest.fixture
def locked_folder() -> Iterator[Path]:
    """A folder that may be entered and not written, by a process that is not root."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        was_root = os.geteuid() == 0
        if was_root:
            os.seteuid(NOBODY)
        try:
            yield folder
        finally:
            if was_root:
                os.seteuid(0)
            folder.chmod(0o755)


@pytest.mark.parametrize("name", ["shop.db", "data/shop.db"])
async def test_a_folder_that_may_not_be_written_is_named(name, locked_folder):
    file = locked_folder / name
    done = await esource("init", "--url", file)
    assert (done.exit_code, done.stdout) == (3, "")
    assert f"the folder {file.parent} " in done.stderr
    assert "permissions of that folder" in done.stderr
    assert list(locked_folder.iterdir()) == []


@pytest.fixture
async def shop(tmp_path):
    async with SQLiteEventStore(tmp_path / "shop.db") as store:
        await store.initialize()
    return tmp_path / "shop.db"


async def test_a_backup_names_the_folder_that_is_not_there(shop):
    target = shop.parent / "nope" / "copy.db"
    done = await esource("backup", target, "--url", shop)
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"{target} cannot be written: No such file or directory" in done.stderr
    assert f"Look at its folder, {target.parent}." in done.stderr
    assert "unable to open" not in done.stderr
    assert [path.name for path in shop.parent.iterdir()] == ["shop.db"]


async def test_a_backup_names_the_folder_that_may_not_be_written(locked_folder):
    with tempfile.TemporaryDirectory() as name:  # of whoever has no privileges now
        async with SQLiteEventStore(Path(name) / "shop.db") as store:
            await store.initialize()
        done = await esource("backup", locked_folder / "copy.db", "--url", Path(name) / "shop.db")
        assert (done.exit_code, done.stdout) == (2, "")
        assert f"{locked_folder / 'copy.db'} cannot be written: Permission denied" in done.stderr
        assert f"Look at its folder, {locked_folder}." in done.stderr


@pytest.mark.parametrize("form", ["~/shop.db", "sqlite:///~/shop.db"])
async def test_a_tilde_that_the_shell_has_left_is_the_home_folder(form, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert (await esource("init", f"--url={form}")).exit_code == 0
    assert (await esource("doctor", f"--url={form}")).exit_code in (0, 1)
    assert (tmp_path / "shop.db").is_file()


async def test_a_tilde_is_the_home_folder_in_the_name_of_every_file(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir("/")
    url, order = ("--url", "~/shop.db"), placed()
    async with SQLiteEventStore("~/shop.db") as store:
        await store.initialize()
        await store.append_events(order.aggregate_id, "Order", [order])
        await store.close_stream(order.aggregate_id, "Order", reason="done")
    for command in (
        ("backup", "~/copy.db", *url),
        ("export", "~/all.jsonl.gz", *url),
        ("import", "~/all.jsonl.gz", "--url", "~/other.db"),
        ("archive", "~/closed.jsonl", *url, "--yes"),
        ("restore", "~/closed.jsonl", *url),
    ):
        done = await esource(*command)
        assert done.exit_code == 0, (command, done.stderr)
    assert (
        await esource("alive", "~/none.json")
    ).stdout == f"There is no file {tmp_path}/none.json: the service has not begun, or has ended.\n"
    assert {file.name for file in tmp_path.iterdir()} >= {
        "copy.db",
        "all.jsonl.gz",
        "other.db",
        "closed.jsonl",
    }
    assert not Path("/~").exists()


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b", "~nobody_of_this_name/a.jsonl", 5, b"bytes", None])
async def test_a_name_that_no_file_has_is_refused_by_all_who_write_and_read_files(store, name):
    for work in (
        back_up(store, name),
        export_store(store, name),
        archive(store, name),
        import_store(store, name),
        restore(store, name),
    ):
        with pytest.raises(InvalidOptionError):
            await work
