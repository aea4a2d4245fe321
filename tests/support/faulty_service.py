"""A service with a projection, a subscription and a relay, whose handlers do as a file tells them.

Called with the database's URL and a folder. The folder's ``fault`` is ``FOLLOWER FAULT`` or nothing; what the relay has
published is in ``published``, how all are doing in ``health.json``, and log records are on standard error. In ``moments`` are
those at which a fault has passed its limit, and those at which `health_now()` has shown a new error.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Integer, MetaData, Table

from esource import EventStore, OutboxRelay, Projection, ProjectionRunner, Retry, handles, open_store
from esource.cli.serving import LogFormat, serving
from esource.store.subscription import Subscription
from esource.telemetry import Health
from support.orders import OrderPlaced

LIMIT_SECONDS = 0.4
LOOK_SECONDS = 0.005
BUSY_SECONDS = 0.3

logger = logging.getLogger("esource")


def effects(name: str) -> Table:
    """One row for each event that was handled: twice is two rows."""
    return Table(
        name, MetaData(), Column("number", Integer, primary_key=True), Column("position", Integer, index=True)
    )


ROWS, MAILS = effects("service_rows"), effects("service_mails")


class Faults:
    def __init__(self, folder: Path) -> None:
        self._file = folder / "fault"
        self._moments = (folder / "moments").open("a")

    async def strike(self, follower: str) -> None:
        """Do what is to go wrong in a handler of this follower now."""
        if not self._file.exists():
            return
        told = self._file.read_text().split()
        if told[:1] != [follower]:
            return
        limit = LIMIT_SECONDS if told[1] == "hang" else 0.0
        self.note("passed", follower, time.time() + limit)
        if told[1] == "raise":
            raise ValueError("the handler was told to raise")
        if told[1] == "hang":
            await asyncio.Event().wait()
        future = asyncio.get_running_loop().create_future()
        future.cancel()  # as a client does that closes what is awaited
        await future

    def note(self, what: str, follower: str, at: float) -> None:
        print(what, follower, at, file=self._moments, flush=True)

    async def watch(self, healths: Callable[[], list[Health]]) -> None:
        seen: dict[str, Any] = {}
        while True:
            for health in healths():
                trouble = health.last_error_at, health.unreachable
                if trouble != (None, None) and trouble != seen.get(health.kind):
                    seen[health.kind] = trouble
                    self.note("health", health.kind, time.time())
            await asyncio.sleep(LOOK_SECONDS)


class Rows(Projection):
    name = "rows"
    retry = Retry(attempts=2, first_seconds=0.01, longest_seconds=0.05)
    handler_seconds = LIMIT_SECONDS

    def __init__(self, faults: Faults) -> None:
        self.faults = faults

    async def reset(self, connection: Any) -> None:
        await connection.run_sync(lambda sync: ROWS.drop(sync, checkfirst=True))
        await connection.run_sync(ROWS.create)

    @handles(OrderPlaced)
    async def placed(self, event: OrderPlaced, context: Any) -> None:
        await context.connection.execute(ROWS.insert().values(position=context.position))
        await self.faults.strike("projection")


class Publisher:
    def __init__(self, faults: Faults, folder: Path) -> None:
        self.faults = faults
        self._file = (folder / "published").open("a")

    async def publish(self, entry: Any) -> None:
        await self.faults.strike("relay")
        self._file.write(f"{entry.global_position}\n")
        self._file.flush()


class Mailer:
    """A subscription whose effect and checkpoint are in one transaction, begun again by the application itself."""

    def __init__(self, store: EventStore, faults: Faults) -> None:
        self.store = store
        self.faults = faults
        self.subscription: Subscription | None = None
        self.is_stopped = False

    def stop(self) -> None:
        self.is_stopped = True
        if self.subscription is not None:
            self.subscription.stop()

    async def run(self) -> None:
        while not self.is_stopped:
            try:
                async with self.store.subscribe(checkpoint="mails", poll_seconds=0.2) as events:
                    self.subscription = events
                    async for stored in events:
                        await asyncio.wait_for(self.send(stored), LIMIT_SECONDS)
            except Exception as error:
                logger.warning("subscription mails begins again: %r", error)
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                if asyncio.current_task().cancelling():  # type: ignore[union-attr]
                    raise
                logger.warning("subscription mails begins again: CancelledError")

    async def send(self, stored: Any) -> None:
        assert self.subscription is not None
        async with self.store.transaction() as transaction:
            await transaction.connection.execute(MAILS.insert().values(position=stored.global_position))
            await transaction.checkpoints.save_position(
                self.subscription.checkpoint, stored.global_position, stored.event_id, stored.event_type
            )
            await self.faults.strike("subscription")


async def main(url: str, folder: Path) -> None:
    faults = Faults(folder)
    options = {"busy_timeout": int(1000 * BUSY_SECONDS)} if url.startswith("sqlite") else {}
    async with open_store(url, enable_tracing=False, outbox_enabled=True, **options) as store:
        store.reader.database.retry_seconds = 0.5
        quick = {"restart_seconds": 0.05, "max_restart_seconds": 0.2}
        runner = ProjectionRunner(store, Rows(faults), lease_seconds=1.0, poll_seconds=0.2, **quick)
        relay = OutboxRelay(
            *(store, Publisher(faults, folder)),
            publish_seconds=LIMIT_SECONDS,
            retry_seconds=0.05,
            max_retry_seconds=0.2,
            max_attempts=1_000_000,
            lease_seconds=1.0,
            poll_seconds=0.2,
        )
        mailer = Mailer(store, faults)

        def healths() -> list[Health]:
            followers = [runner.health_now(), relay.health_now()]
            if mailer.subscription is not None:
                followers.append(mailer.subscription.health_now())
            return followers

        service = serving(mailer.stop, healths, health_file=folder / "health.json", log_format=LogFormat.json)
        async with service, runner, relay.supervised(**quick):
            watching = asyncio.create_task(faults.watch(healths))
            await mailer.run()
            watching.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
