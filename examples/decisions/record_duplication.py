"""A form that is sent twice is one order: the client sends a token with it, and a token counts once."""

import asyncio
import sys
from typing import Annotated

from esource import DomainEvent, EventStore, Tag, View, handles, open_store, register_event

ORDER = Tag("order")
IDEMPOTENCY = Tag("idempotency")


@register_event
class OrderSubmitted(DomainEvent):
    order_id: Annotated[str, ORDER]
    idempotency_token: Annotated[str, IDEMPOTENCY]


class RefusedError(Exception):
    """What the rules do not allow."""


class Submission(View):
    def __init__(self, token: str) -> None:
        super().__init__(IDEMPOTENCY.of(token))
        self.token = token
        self.was_used = False

    @handles
    def submitted(self, event: OrderSubmitted) -> None:
        self.was_used = True


def submit(submission: Submission, order_id: str) -> OrderSubmitted:
    if submission.was_used:
        raise RefusedError("Re-submission")
    return OrderSubmitted(order_id=order_id, idempotency_token=submission.token)


async def main(store: EventStore) -> None:
    async def press_the_button(order_id: str) -> str:
        try:
            await store.decide(lambda submission: submit(submission, order_id), Submission("11111"))
        except RefusedError as refused:
            return str(refused)
        return "ordered"

    print(sorted(await asyncio.gather(*(press_the_button(f"o{number}") for number in range(3)))))


async def run(url: str) -> None:
    async with open_store(url) as store:
        await store.initialize()
        await main(store)


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1] if len(sys.argv) > 1 else "sqlite://"))
