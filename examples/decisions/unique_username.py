"""A user name belongs to one account at a time, and becomes free some days after it was given up."""

import asyncio
import sys
from datetime import datetime, timedelta, timezone
from typing import Annotated

from esource import DomainEvent, EventStore, Tag, View, handles, open_store, register_event

USERNAME = Tag("username")
RETENTION = timedelta(days=3)


@register_event
class AccountRegistered(DomainEvent):
    username: Annotated[str, USERNAME]


@register_event
class AccountClosed(DomainEvent):
    username: Annotated[str, USERNAME]


@register_event
class UsernameChanged(DomainEvent):
    """It concerns both names, so it has the tags of both."""

    old_username: Annotated[str, USERNAME]
    new_username: Annotated[str, USERNAME]


class RefusedError(Exception):
    """What the rules do not allow."""


class Username(View):
    def __init__(self, username: str, now: datetime | None = None) -> None:
        super().__init__(USERNAME.of(username))
        self.username = username
        self.now = now or datetime.now(timezone.utc)
        self.is_claimed = False

    def given_up(self, event: DomainEvent) -> None:
        self.is_claimed = self.now - event.occurred_at <= RETENTION

    @handles
    def registered(self, event: AccountRegistered) -> None:
        self.is_claimed = True

    @handles
    def closed(self, event: AccountClosed) -> None:
        self.given_up(event)

    @handles
    def changed(self, event: UsernameChanged) -> None:
        if event.new_username == self.username:
            self.is_claimed = True
        else:
            self.given_up(event)


def register(name: Username) -> AccountRegistered:
    if name.is_claimed:
        raise RefusedError(f'Username "{name.username}" is claimed')
    return AccountRegistered(username=name.username)


def change(old: Username, new: Username) -> UsernameChanged:
    if new.is_claimed:
        raise RefusedError(f'Username "{new.username}" is claimed')
    return UsernameChanged(old_username=old.username, new_username=new.username)


async def main(store: EventStore) -> None:
    async def try_to_register(name: str) -> bool:
        try:
            await store.decide(register, Username(name))
        except RefusedError:
            return False
        return True

    registered = await asyncio.gather(*(try_to_register("ada") for _ in range(5)))
    print(f"{sum(registered)} of {len(registered)} got the name ada")
    await store.decide(change, Username("ada"), Username("lovelace"))
    print(f"ada is free at once: {await try_to_register('ada')}")


async def run(url: str) -> None:
    async with open_store(url) as store:
        await store.initialize()
        await main(store)


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1] if len(sys.argv) > 1 else "sqlite://"))
