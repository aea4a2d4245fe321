"""A sign-up is confirmed with a one-time password, by its own address, once, and within an hour.

No table of tokens is needed: the events say which are open. Only the password is a tag. An address is personal, and tags are
stored as they are, so the decision compares it.
"""

import asyncio
import sys
from datetime import datetime, timedelta, timezone
from typing import Annotated

from esource import DomainEvent, EventStore, Tag, View, handles, open_store, register_event

OTP = Tag("otp")
VALID = timedelta(minutes=60)


@register_event
class SignUpInitiated(DomainEvent):
    email_address: str
    otp: Annotated[str, OTP]
    name: str


@register_event
class SignUpConfirmed(DomainEvent):
    email_address: str
    otp: Annotated[str, OTP]
    name: str


class RefusedError(Exception):
    """What the rules do not allow."""


class SignUp(View):
    def __init__(self, email_address: str, otp: str, now: datetime | None = None) -> None:
        super().__init__(OTP.of(otp))
        self.email_address = email_address
        self.otp = otp
        self.now = now or datetime.now(timezone.utc)
        self.name: str | None = None
        self.is_used = self.is_expired = False

    @handles
    def initiated(self, event: SignUpInitiated) -> None:
        if event.email_address == self.email_address:
            self.name = event.name
            self.is_used = False
            self.is_expired = self.now - event.occurred_at > VALID

    @handles
    def confirmed(self, event: SignUpConfirmed) -> None:
        if event.email_address == self.email_address:
            self.is_used = True


def confirm(sign_up: SignUp) -> SignUpConfirmed:
    if sign_up.name is None:
        raise RefusedError("No pending sign-up for this OTP / email address")
    if sign_up.is_used:
        raise RefusedError("OTP was already used")
    if sign_up.is_expired:
        raise RefusedError("OTP expired")
    return SignUpConfirmed(email_address=sign_up.email_address, otp=sign_up.otp, name=sign_up.name)


async def main(store: EventStore) -> None:
    await store.append([SignUpInitiated(email_address="ada@example.com", otp="111111", name="Ada")])

    async def try_to_confirm() -> str:
        try:
            await store.decide(confirm, SignUp("ada@example.com", "111111"))
        except RefusedError as refused:
            return str(refused)
        return "confirmed"

    print(f"attempt 1: {await try_to_confirm()}")
    print(f"attempt 2: {await try_to_confirm()}")


async def run(url: str) -> None:
    async with open_store(url) as store:
        await store.initialize()
        await main(store)


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1] if len(sys.argv) > 1 else "sqlite://"))
