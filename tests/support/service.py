"""A service on a store: writers, readers, a subscription, a projection and a relay, until a signal ends it.

`python service.py URL LOOP END`: LOOP is ``asyncio`` or ``uvloop``. END says what a signal does: ``interrupt`` leaves it to
`asyncio.run`, which cancels the tasks; ``cancel`` cancels them all, and closes the store afterwards. Each line of its output is
the id of an event that it was told is stored; ``ready`` comes before.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from esource import (
    EventStore,
    OutboxRelay,
    Projection,
    ProjectionRunner,
    handles,
    open_store,
)
from esource.errors import StoreClosedError
from support.orders import OrderPlaced, placed


class Counting(Projection):
    name = "counting"

    @handles(OrderPlaced)
    async def placed(self, event: OrderPlaced, context: Any) -> None:
        await asyncio.sleep(0)


class Publisher:
    async def publish(self, entry: Any) -> None:
        await asyncio.sleep(0)


def tell(line: object) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def write(store: EventStore) -> None:
    while True:
        event = placed()
        await store.append_events(event.aggregate_id, "Order", [event], 0)
        tell(event.event_id)


async def transact(store: EventStore) -> None:
    while True:
        event = placed()
        async with store.transaction() as tx:
            await tx.append_events(event.aggregate_id, "Order", [event], 0)
        tell(event.event_id)


async def read(store: EventStore) -> None:
    while True:
        async for _ in store.read_all():
            await asyncio.sleep(0)


async def follow(store: EventStore) -> None:
    async with store.subscribe() as events:
        async for _ in events:
            pass


async def serve(url: str, end: str) -> None:
    tasks: list[asyncio.Task[None]] = []
    try:
        async with open_store(url, enable_tracing=False, outbox_enabled=True) as store:
            works: list[Any] = [
                *(write(store) for _ in range(8)),
                transact(store),
                transact(store),
                read(store),
                follow(store),
            ]
            works += [ProjectionRunner(store, Counting()).run(), OutboxRelay(store, Publisher()).run()]
            tasks += [asyncio.create_task(work) for work in works]
            if end == "cancel":
                cancel_all_on_a_signal()
            tell("ready")
            await asyncio.wait(tasks)
    finally:
        # The store was closed under those that nobody has cancelled.
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def cancel_all_on_a_signal() -> None:
    loop, me = asyncio.get_running_loop(), asyncio.current_task()

    def stop() -> None:
        for task in asyncio.all_tasks() - {me}:
            task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)


def main(url: str, loop: str, end: str) -> None:
    # A shell that starts tests in the background lets them ignore this signal, and they hand that on.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if end == "interrupt":
        # The store is closed under its followers, each of which says so. Whatever else they say is told.
        handler = logging.StreamHandler()
        handler.addFilter(lambda record: not tells_of_a_closed_store(record))
        logging.getLogger("esource").addHandler(handler)
    with suppress(KeyboardInterrupt):
        if loop == "uvloop":
            import uvloop

            uvloop.run(serve(url, end))
        else:
            asyncio.run(serve(url, end))
    for left in [*open_threads(), *open_handles()]:
        sys.stderr.write(f"left behind: {left}\n")


def tells_of_a_closed_store(record: logging.LogRecord) -> bool:
    return record.exc_info is not None and isinstance(record.exc_info[1], StoreClosedError)


def open_threads() -> list[threading.Thread]:
    """The threads that are left, after those that are about to end have ended."""
    others = threading.enumerate()[1:]
    for thread in others:
        thread.join(10)
    return [thread for thread in others if thread.is_alive()]


def open_handles() -> list[str]:
    """The database files and the sockets that this process still has open, where the system tells (Linux)."""
    handles = Path("/proc/self/fd")
    found = [str(handle.resolve()) for handle in handles.iterdir()] if handles.exists() else []
    return [name for name in found if "socket:" in name or ".db" in name]


if __name__ == "__main__":
    main(*sys.argv[1:])
