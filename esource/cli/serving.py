"""Commands that run as services: signals, log records for collectors, and a file that says how they are."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from esource.checks import check_path
from esource.cli.errors import wrong_usage
from esource.cli.output import Output, jsonable
from esource.cli.running import ended_by_sigterm, shows
from esource.database.cancellation import drop, uninterrupted
from esource.errors import error_text
from esource.moments import from_iso, to_iso, utc_now
from esource.telemetry import Health

logger = logging.getLogger("esource")

WRITE_SECONDS = 1.0
"""How often a service writes its health file, in seconds."""

LOOK_SECONDS = 0.1
"""How often it looks whether something has gone wrong, so that the file says so at once, in seconds."""

ALIVE_SECONDS = 15.0
"""A health file that is older says that the service does not run any more, or stands still."""


class LogFormat(str, Enum):
    """How log records are written."""

    text = "text"
    json = "json"


HealthFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Write how it is doing to this file every second, and when something goes wrong, as JSON, for "
        "`esource alive FILE`. Removed at the end.",
    ),
]
"""The option ``--health-file`` of every command that runs as a service."""

LogFormatOption = Annotated[
    LogFormat, typer.Option(help="Log records: text, or json with one object a line.")
]
"""The option ``--log-format`` of every command that runs as a service."""


@asynccontextmanager
async def serving(
    stop: Callable[[], object],
    healths: Callable[[], Iterable[Health]],
    *,
    health_file: Path | None = None,
    log_format: LogFormat = LogFormat.text,
) -> AsyncIterator[None]:
    """Be a service until the block ends: SIGTERM stops it, log records go to standard error, and the health file says
    how it is.

    Args:
        stop: Makes the block end soon.
        healths: How each of its followers is doing, without I/O.
        health_file: Where that is written every second, and when something goes wrong; None for nowhere.
        log_format: How log records are written.

    Raises:
        Refusal: the health file cannot be written.
    """
    log_to_stderr(log_format)
    with ended_by_sigterm(stop):
        if health_file is None:
            yield
            return
        health_file = Path(check_path("the health file", health_file))
        try:
            write_health(health_file, healths())
        except OSError as error:
            raise wrong_usage(f"{health_file} cannot be written: {error.strerror}.") from error
        writing = asyncio.get_running_loop().create_task(_keep_writing(health_file, healths))
        try:
            yield
        finally:
            await uninterrupted(drop([writing]))
            with suppress(OSError):
                os.unlink(health_file)  # noqa: PTH108 - one short call at the end of the process


async def _keep_writing(path: Path, healths: Callable[[], Iterable[Health]]) -> None:
    # In the event loop itself: a loop that a handler blocks writes nothing, and that is to be seen.
    clock = asyncio.get_running_loop().time
    while True:
        due, troubles = clock() + WRITE_SECONDS, _troubles(healths())
        while clock() < due and troubles == _troubles(healths()):  # noqa: ASYNC110 - followers note, and call nobody
            await asyncio.sleep(LOOK_SECONDS)
        try:
            write_health(path, healths())
        except OSError as error:
            logger.warning("the health file %s cannot be written: %s", path, error_text(error))


def _troubles(healths: Iterable[Health]) -> list[tuple[Any, ...]]:
    return [(each.state, each.failures, each.last_error_at, each.unreachable) for each in healths]


def write_health(path: Path, healths: Iterable[Health]) -> None:
    """Write a health file, all of it at once."""
    document = {
        "written_at": to_iso(utc_now()),
        "pid": os.getpid(),
        "followers": [jsonable(health) for health in healths],
    }
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(json.dumps(document), encoding="utf-8")
        beside.replace(path)
    except OSError:
        with suppress(OSError):
            beside.unlink()
        raise


class _JsonLines(logging.Formatter):
    """One object a line, as collectors of logs take it."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": to_iso(datetime.fromtimestamp(record.created).astimezone()),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = error_text(record.exc_info[1])
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def log_to_stderr(log_format: LogFormat = LogFormat.text) -> None:
    """Write the library's log records of INFO and above to standard error, each on a line with its moment."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        _JsonLines()
        if log_format is LogFormat.json
        else logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("esource").setLevel(logging.INFO)


commands = typer.Typer()


class _Seen(NamedTuple):
    document: dict[str, Any]
    problems: Sequence[str]


def _say(found: _Seen, output: Output) -> None:
    if found.problems:
        for problem in found.problems:
            output.say(problem)
        return
    output.say("It runs.")


@commands.command("alive")
@shows(
    _say,
    document=lambda found: {**found.document, "problems": found.problems},
    found=lambda found: bool(found.problems),
)
async def alive(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What the service writes: its --health-file.")],
    ready: Annotated[
        bool, typer.Option("--ready", help="Also ask that everything in it runs, and reaches its database.")
    ] = False,
    seconds: Annotated[
        float, typer.Option(min=1.0, help="How old the file may be, in seconds.")
    ] = ALIVE_SECONDS,
) -> _Seen:
    """Say whether a service runs, by its health file. Exit code 1 if not."""
    file = Path(check_path("the health file", file))
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        written_at, followers = from_iso(document["written_at"]), list(document["followers"])
    except FileNotFoundError:
        return _Seen({}, [f"There is no file {file}: the service has not begun, or has ended."])
    except OSError as error:
        raise wrong_usage(f"{file} cannot be read: {error.strerror}.") from error
    except (ValueError, TypeError, KeyError) as error:
        raise wrong_usage(f"{file} is no health file of a service.") from error
    problems = []
    age = (utc_now() - written_at).total_seconds()
    if age > seconds:
        problems.append(f"Nothing was written for {age:.0f} s: the service has died, or stands still.")
    if ready:
        problems += [
            f"{each['kind']} {each['name']} is {each['state']}: {each['last_error'] or 'no error'}"
            for each in followers
            if each["state"] != "running"
        ]
        problems += [
            f"{each['kind']} {each['name']} cannot reach its database: {each['unreachable']}"
            for each in followers
            if each.get("unreachable") is not None
        ]
    return _Seen(document, problems)
