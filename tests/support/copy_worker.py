"""A copying process for the tests that kill: copies in small steps, and says each one."""

from __future__ import annotations

import asyncio
import sys

from esource.copying import Progress, copy, log, mirror, rows


def say(progress: Progress) -> None:
    sys.stdout.write(f"{progress.step} {progress.done}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    log.CHUNK_EVENTS = 60
    log.DEFERRED_FROM = 1
    log.FIRST_PAGE = 5
    rows.PAGE_ROWS = 20
    mirror.BATCH_ROWS = 10
    asyncio.run(copy(sys.argv[1], sys.argv[2], on_progress=say))
