"""A file takes no more memory than a row of the largest size that is allowed, whatever it becomes when it is read."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import pytest
from support.orders import placed

from esource import InMemoryEventStore, Limits
from esource.copying import copy, import_store, verify_copy
from esource.database.sources import database_of
from esource.errors import FileRefusedError

MEBI = 2**20


@contextmanager
def at_most(megabytes: int) -> Iterator[None]:
    """No more than this is allocated at once meanwhile."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < megabytes * MEBI, f"{peak / MEBI:.0f} MiB"


def event(position: int, payload: str) -> str:
    """A line of an export."""
    moment = "2024-01-01T00:00:00.000000+00:00"
    head = {
        "specversion": "1.0",
        "source": "/shop",
        "subject": f"Order/{uuid4()}",
        "id": str(uuid4()),
        "type": "OrderPlaced",
        "time": moment,
        "globalposition": str(position),
        "aggregateversion": "1",
        "storedat": moment,
    }
    return f'{json.dumps(head)[:-1]},"data":{payload}}}'


def export(path: Path, payloads: list[str]) -> Path:
    """A compressed export of these payloads, complete and in order."""
    begin = {"esource": "begin", "format": 1, "holds": "store", "database": "sqlite", "counters": {}}
    lines = [json.dumps(begin), *(event(number, text) for number, text in enumerate(payloads, 1))]
    data = "".join(f"{line}\n" for line in lines).encode()
    end = {"esource": "end", "rows": {"events": len(payloads)}, "sha256": sha256(data).hexdigest()}
    path.write_bytes(gzip.compress(data + json.dumps(end).encode() + b"\n", 1))
    return path


async def test_a_line_without_end_is_refused_before_it_is_read_whole(tmp_path):
    path = export(tmp_path / "bomb.gz", [f'{{"a":"{"x" * 64 * MEBI}"}}'])
    async with InMemoryEventStore(enable_tracing=False) as store:
        with (
            at_most(50),
            pytest.raises(FileRefusedError, match=r"line 2: the line has .* the limit is 3145728"),
        ):
            await import_store(store, path, limits=Limits(payload_characters=MEBI))
        assert await store.get_global_position() == 0


@pytest.mark.slow
async def test_a_row_beyond_the_limits_is_imported_with_limits_that_allow_it(tmp_path):
    path = export(tmp_path / "large.gz", [f'{{"a":"{"x" * 19 * MEBI}"}}'])
    async with InMemoryEventStore(enable_tracing=False) as store:
        with pytest.raises(FileRefusedError, match=r"pass those limits"):
            await import_store(store, path)
        assert (await import_store(store, path, limits=Limits(payload_characters=20 * MEBI))).events == 1


@pytest.mark.slow
async def test_many_large_rows_are_read_a_few_at_a_time(tmp_path):
    path = export(tmp_path / "many.gz", [f'{{"a":"{number:0{MEBI}}"}}' for number in range(60)])
    async with InMemoryEventStore(enable_tracing=False) as store:
        with at_most(30):
            assert (await import_store(store, path)).events == 60


@pytest.mark.slow
async def test_a_payload_of_many_lists_and_objects_takes_no_memory_for_each_of_them(tmp_path):
    path = export(tmp_path / "nothing.gz", [f'{{"a":[{"[[],{},[1]]," * (MEBI // 12)}1]}}'])
    async with InMemoryEventStore(enable_tracing=False) as store:
        with at_most(12):  # as a list they would take 20 or more
            assert (await import_store(store, path)).events == 1


async def test_a_payload_of_many_lists_that_is_no_json_is_refused(tmp_path):
    path = export(tmp_path / "broken.gz", [f'{{"a":[{"[]," * 20_000}[1,]]}}'])
    async with InMemoryEventStore(enable_tracing=False) as store:
        with pytest.raises(FileRefusedError, match=r"line 2: .*in the part that begins at character \d+"):
            await import_store(store, path)
        assert await store.get_global_position() == 0


async def test_a_number_that_would_fill_the_memory_is_compared_as_it_is_written(tmp_path, open_stores):
    urls = [f"sqlite:///{tmp_path / name}.db" for name in ("source", "target")]
    store = await open_stores(urls[0])
    await store.initialize()
    order = placed()
    await store.append_events(order.aggregate_id, "Order", [order])
    await database_of(store).run_script(["UPDATE events SET payload = '{\"a\": 1e300000000}'"])
    with at_most(50):
        await copy(*urls)
        assert (await verify_copy(*urls)).is_identical


@pytest.mark.parametrize("number", ["1e300000000", "1e999999999", "-1E+400000000"])
async def test_a_number_that_no_store_writes_is_refused_without_being_written_out(tmp_path, number):
    path = export(tmp_path / "number.gz", [f'{{"a":{number}}}'])
    async with InMemoryEventStore(enable_tracing=False) as store:
        with at_most(20), pytest.raises(FileRefusedError, match="line 2: payload"):
            await import_store(store, path)
        assert await store.get_global_position() == 0
