"""A lease is ours for as long as nobody else can have it, whatever becomes of the tasks around it."""

from __future__ import annotations

import asyncio
import time

import pytest

from esource import EventStore, Lease


def others() -> set[asyncio.Task]:
    return asyncio.all_tasks() - {asyncio.current_task()}


async def test_a_lease_is_renewed_although_every_task_was_cancelled(store: EventStore):
    other = Lease(store, "reader")
    async with Lease(store, "reader", seconds=0.3) as lease:
        until = time.monotonic() + 1.0  # thrice its length: there is nothing to wait for
        while time.monotonic() < until:
            for task in others():
                task.cancel()
            await asyncio.sleep(0.02)
            assert lease.is_held
            assert not await other.acquire()
    assert await other.acquire()


async def test_a_lease_that_cannot_be_renewed_is_held_no_longer_than_its_term(store: EventStore, monkeypatch):
    async with Lease(store, "reader", seconds=0.2) as lease:

        async def failing(names):
            raise LookupError("not today")

        monkeypatch.setattr(lease._leases, "renew", failing)
        other = Lease(store, "reader")
        while not await other.acquire():
            await asyncio.sleep(0.01)
        assert not lease.is_held


async def test_a_lease_that_hangs_in_its_renewal_is_held_no_longer_than_its_term(
    store: EventStore, monkeypatch
):
    async with Lease(store, "reader", seconds=0.2) as lease:

        async def hanging(names):
            await asyncio.Event().wait()

        monkeypatch.setattr(lease._leases, "renew", hanging)
        other = Lease(store, "reader")
        while not await other.acquire():
            await asyncio.sleep(0.01)
        assert not lease.is_held


async def test_a_lease_acquired_by_hand_runs_out_by_itself(store: EventStore):
    lease, other = Lease(store, "reader", seconds=0.05), Lease(store, "reader")
    assert await lease.acquire()
    while not await other.acquire():
        await asyncio.sleep(0.01)
    assert not lease.is_held


async def test_leaving_the_block_leaves_no_task_behind(store: EventStore):
    before = others()
    for _ in range(3):
        async with Lease(store, "reader", seconds=0.003):
            await asyncio.sleep(0.01)
    assert others() <= before


@pytest.mark.parametrize("turns", [1, 2, 3, 5, 8, 13, 21])
@pytest.mark.awaited
async def test_a_lease_whose_taker_is_cancelled_is_free_for_the_next_one(
    shared_store: EventStore, turns: int
):
    for _ in range(5):
        first, next_one = Lease(shared_store, "mails"), Lease(shared_store, "mails")
        taking = asyncio.create_task(first.acquire())
        for _ in range(turns):
            await asyncio.sleep(0)
        taking.cancel()
        await asyncio.wait([taking])
        if taking.cancelled():
            assert not first.is_held
            assert await next_one.acquire()
        await first.release()
        await next_one.release()
