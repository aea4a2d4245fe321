"""An application that is written to while its store moves: `docs/moving.md` shows it at work.

    python writers.py            # four writers, until it is terminated
    python writers.py --check    # whether the store holds what the writers were told, once

Which store it uses stands in the file store.url, as it would in your configuration. Nothing else tells SQLite from
PostgreSQL here.
"""

import argparse
import asyncio
import signal
import sys
import time
from pathlib import Path
from uuid import UUID, uuid4

from esource import DomainEvent, EventStore, open_store, register_event
from esource.errors import StoreMovedError

SETTING = Path("store.url")
ACKNOWLEDGED = Path("acknowledged.txt")


@register_event
class TicketSold(DomainEvent):
    aggregate_type: str = "Concert"
    seat: int


class Application:
    """Sells tickets for one concert after the other, in whichever store the setting names."""

    def __init__(self) -> None:
        self.url = SETTING.read_text().strip()
        self.store: EventStore = open_store(self.url)
        self.stopping = asyncio.Event()
        self.sold = 0
        self._reopening = asyncio.Lock()

    async def sell(self, acknowledged) -> None:
        while not self.stopping.is_set():
            concert = uuid4()
            for seat in range(1, 21):
                await self.append(concert, TicketSold(aggregate_id=concert, seat=seat), seat - 1)
                acknowledged.write(f"{concert} {seat}\n")
                self.sold += 1
                await asyncio.sleep(0.005)

    async def append(self, concert: UUID, event: TicketSold, version: int) -> None:
        while True:
            store = self.store
            try:
                await store.append_events(concert, "Concert", [event], version)
            except StoreMovedError:
                await self.reopen(store)  # nothing was written: the same append again, over there
            else:
                return

    async def reopen(self, moved: EventStore) -> None:
        async with self._reopening:
            if self.store is not moved:
                return  # another writer was here before
            say(f"the store has moved; {self.sold} tickets were sold")
            while (url := SETTING.read_text().strip()) == self.url:
                await asyncio.sleep(0.05)
            before, self.store, self.url = self.store, open_store(url), url
            await before.close()
            say("going on in the new store")

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.stopping.set)
        say("selling")
        with ACKNOWLEDGED.open("a") as acknowledged:
            await asyncio.gather(*(self.sell(acknowledged) for _ in range(4)))
        await self.store.close()
        say(f"{self.sold} tickets were sold")


async def check() -> int:
    told = ACKNOWLEDGED.read_text().splitlines()
    async with open_store(SETTING.read_text().strip()) as store:
        found = [f"{s.aggregate_id} {s.event.seat}" async for s in store.read_all()]
    missing, twice = set(told) - set(found), len(found) - len(set(found))
    print(f"{len(told)} tickets were sold: {len(missing)} are missing, {twice} are there twice.")
    return 1 if missing or twice else 0


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="whether the store holds what was sold")
    sys.exit(asyncio.run(check() if parser.parse_args().check else Application().run()))
