"""The console command as people and scripts meet it: a process, its output and its exit code."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import typer
from support.commands import esource as run
from support.orders import placed, several

from esource import CheckpointRepository, __version__
from esource.cli.app import PANELS
from esource.cli.asking import confirm
from esource.cli.progress import Bar
from esource.copying import Progress


async def esource(*arguments: str, folder: Path | None = None) -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "esource",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
    )
    out, error = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), error.decode()


@pytest.mark.slow
async def test_a_new_database_is_made_and_found_in_order(empty_database_url):
    for command, said in (("init", "was created, at schema"), ("init", "already"), ("current", "000")):
        code, out, error = await esource(command, "--url", empty_database_url)
        assert (code, error) == (0, "")
        assert said in out
    code, out, _ = await esource("check", "--url", empty_database_url)
    assert code == 0


async def test_a_file_that_is_not_there_is_named_and_not_made(tmp_path):
    """SQLite only: a server's databases are no files."""
    code, out, error = await esource("current", "--url", "none.db", folder=tmp_path)
    assert (code, out) == (3, "")
    assert "none.db" in error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


async def test_a_server_that_is_away_is_one_sentence_without_the_password():
    """PostgreSQL only: SQLite has no server."""
    code, _, error = await esource("current", "--url", "postgresql://me:secret@127.0.0.1:1/db")
    assert code == 3
    assert "secret" not in error
    assert "Traceback" not in error


async def test_a_setting_that_nobody_knows_is_a_wrong_url_and_no_server_that_is_away():
    """PostgreSQL only: SQLite's URLs have no settings."""
    done = await run("info", "--url", "postgresql://me:secret@127.0.0.1:1/db?sslmode=bogus")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "sslmode must be one of" in done.stderr
    assert "secret" not in done.stderr


@pytest.mark.parametrize(
    ("command", "buffered"),
    [
        ("history", True),
        pytest.param("sql --url sqlite:///x.db", False, marks=pytest.mark.slow),
        *(
            pytest.param(command, buffered, marks=pytest.mark.slow)
            for command in ("history --json", "--help")
            for buffered in (True, False)
        ),
        pytest.param("history", False, marks=pytest.mark.slow),
        pytest.param("sql --url sqlite:///x.db", True, marks=pytest.mark.slow),
    ],
)
async def test_output_that_cannot_be_written_is_one_sentence(command, buffered):
    """A process: the interpreter itself writes what is left when it ends. Needs no database."""
    with open("/dev/full", "w") as full:  # noqa: ASYNC230, PTH123
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *([] if buffered else ["-u"]),
            *("-m", "esource", *command.split()),
            stdout=full,
            stderr=asyncio.subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
        )
        _, error = await process.communicate()
    assert process.returncode == 74
    assert error.decode() == "Error: the output cannot be written: No space left on device.\n"


@pytest.mark.slow
async def test_a_reader_that_is_gone_and_an_output_that_was_closed_are_no_bug():
    read, write = os.pipe()
    os.close(read)
    arguments = [sys.executable, "-m", "esource", "history", "--json"]
    for stdout, close, code in ((write, [], 1), (None, ["sh", "-c", 'exec "$@" >&-', "sh"], 0)):
        process = await asyncio.create_subprocess_exec(
            *close, *arguments, stdout=stdout, stderr=asyncio.subprocess.PIPE
        )
        _, error = await process.communicate()
        assert (process.returncode, error) == (code, b"")
    os.close(write)


async def test_no_url_is_wrong_usage():
    code, _, error = await esource("current")
    assert code == 2
    assert "ESOURCE_URL" in error


@pytest.mark.slow
async def test_a_store_is_copied_compared_cut_over_and_reopened(shared_store, shared_database_url, tmp_path):
    [first, *_] = events = several(5)
    await shared_store.append_events(first.aggregate_id, "Order", events, 0)
    target = f"sqlite:///{tmp_path / 'target.db'}"
    code, out, error = await esource("copy", shared_database_url, target, "--verify", "--json")
    assert (code, error) == (0, "")
    said = json.loads(out)
    assert (said["events"], said["global_position"]) == (5, 5)
    code, out, _ = await esource("copy", shared_database_url, target)
    assert "Nothing was to be done" in out
    await CheckpointRepository(shared_store).save_position("p", 1, first.event_id, "OrderPlaced")
    code, out, _ = await esource("verify-copy", shared_database_url, target)
    assert code == 1
    assert "projection_checkpoints" in out
    code, out, error = await esource("cut-over", shared_database_url, target)
    assert (code, error) == (0, "")
    assert "identical" in out
    code, out, error = await esource("cut-over", shared_database_url, target)
    assert code != 0
    assert "has moved to" in error
    code, out, _ = await esource("reopen", "--url", shared_database_url)
    assert code == 0
    event = placed()
    assert await shared_store.append_events(event.aggregate_id, "Order", [event])


async def test_a_copy_makes_no_source_and_no_target_of_a_name_that_is_wrong(tmp_path):
    """SQLite only: a server's databases are no files."""
    for command in ("copy", "cut-over", "verify-copy"):
        done = await run(command, tmp_path / "none.db", tmp_path / "target.db")
        assert (done.exit_code, done.stdout) == (3, "")
        assert "none.db" in done.stderr
    assert list(tmp_path.iterdir()) == []


async def test_a_copy_that_may_not_resume_refuses_a_target_with_rows(
    shared_store, shared_database_url, tmp_path
):
    [first, *_] = events = several(3)
    await shared_store.append_events(first.aggregate_id, "Order", events, 0)
    move = ("copy", shared_database_url, tmp_path / "target.db")
    assert (await run(*move, "--no-resume")).exit_code == 0
    done = await run(*move, "--no-resume")
    assert (done.exit_code, done.stdout) == (4, "")
    assert "is not empty: it holds 3 rows in events" in done.stderr
    assert "Choose an empty database" in done.stderr
    done = await run(*move, "--resume")
    assert done.exit_code == 0
    assert "Nothing was to be done" in done.stdout


async def test_what_is_there_and_does_not_allow_a_command_is_a_precondition(
    shared_store, shared_database_url, tmp_path
):
    event = placed()
    await shared_store.append_events(event.aggregate_id, "Order", [event])
    url = ("--url", shared_database_url)
    broken = tmp_path / "broken.jsonl"
    broken.write_text("{}")
    assert (await run("import", broken, *url)).exit_code == 4
    stream = f"{event.aggregate_id}:Order"
    assert (await run("archive", tmp_path / "a.jsonl", *url, "--stream", stream, "--yes")).exit_code == 4
    await run("cut-over", shared_database_url, tmp_path / "target.db")
    done = await run("close", stream, *url, "--yes")
    assert done.exit_code == 4
    assert "has moved to" in done.stderr


async def test_help_lists_every_command_under_a_heading():
    done = await run("--help")
    for heading in (*PANELS, "Followers of the log"):
        assert heading in done.stdout
    assert "Commands ─" not in done.stdout


async def test_copies_that_differ_are_told_from_identical_ones(shared_store, shared_database_url, tmp_path):
    [first, *_] = events = several(2)
    await shared_store.append_events(first.aggregate_id, "Order", events, 0)
    both = (shared_database_url, tmp_path / "target.db")
    await CheckpointRepository(shared_store).save_position("p", 1, first.event_id, "OrderPlaced")
    done = await run("copy", *both, "--verify")
    assert done.exit_code == 0
    for said in (
        "2 events were copied",
        "projection_checkpoints: 1 rows added, 0 removed",
        "Both are identical",
    ):
        assert said in done.stdout
    assert json.loads((await run("verify-copy", *both, "--json")).stdout)["differences"] == []
    await CheckpointRepository(shared_store).save_position("p", 2, first.event_id, "OrderPlaced")
    done = await run("verify-copy", *both)
    assert (done.exit_code, done.stdout.count("\n")) == (1, 1)
    assert done.stdout.startswith("projection_checkpoints: only the source has")
    assert json.loads((await run("copy", *both, "--json")).stdout)["changes"]["projection_checkpoints"] == {
        "added": 1,
        "removed": 1,
    }
    assert "it had not moved" in (await run("reopen", "--url", shared_database_url)).stdout


async def test_a_bug_of_the_application_is_no_mistake_of_whoever_calls(monkeypatch, tmp_path):
    (tmp_path / "crashing.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    done = await run("projections", "rebuild", "--app", "crashing:Any", "--yes")
    assert done.exit_code == 70
    assert "Error: unexpected ZeroDivisionError" in done.stderr
    assert "Traceback" not in done.stderr
    done = await run("--traceback", "projections", "rebuild", "--app", "crashing:Any", "--yes")
    assert done.exit_code == 70
    assert 'crashing.py", line 1' in done.stderr


async def test_a_database_in_memory_is_no_database_for_a_command():
    """SQLite only: no other database is gone with its process."""
    for url in ("sqlite://", "sqlite:///:memory:"):
        done = await run("current", "--url", url)
        assert (done.exit_code, "in memory" in done.stderr) == (2, True)


async def test_the_version_is_the_packages():
    assert (await run("--version")).stdout == f"esource {__version__}\n"


@pytest.mark.parametrize(("typed", "goes_on"), [("y", True), ("n", False), ("", False)])
def test_on_a_terminal_whoever_destroys_something_is_asked_before(monkeypatch, capsys, typed, goes_on):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal(f"{typed}\n"))
    with nullcontext() if goes_on else pytest.raises(typer.Abort):
        confirm("drop everything", yes=False)
    assert "This will drop everything. Go on?" in capsys.readouterr().err


def test_a_progress_bar_has_a_line_for_each_step_and_its_last_number():
    bar = Bar()
    for step, done in (("copy", 1), ("copy", 2), ("verify", 1)):
        bar.tell(Progress(step, done, 10))
    assert [(task.description, task.completed) for task in bar.progress.tasks] == [("copy", 2), ("verify", 1)]
