"""A file that somebody has changed is refused, and nothing of it is stored."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections import Counter
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.effort import examples
from support.orders import placed

from esource import EventSourceError, InMemoryEventStore, open_store
from esource.copying import export_store, import_store
from esource.copying.archiving import restore

PAIR = '"\\ud800"'


@pytest.fixture(scope="module")
def lines(tmp_path_factory) -> list[str]:
    """A small export without its last line."""

    async def export(path: Path) -> None:
        async with InMemoryEventStore(enable_tracing=False) as store:
            order = uuid4()
            await store.append_events(order, "Order", [placed(order), placed(order)])
            async with store.transaction() as tx:
                await tx.checkpoints.save_position("p", 1, order, "OrderPlaced")
            await export_store(store, path)

    from esource.testing.server import apart

    path = tmp_path_factory.mktemp("export") / "store.jsonl"
    apart(lambda: export(path))
    return path.read_text().splitlines()[:-1]


def ended(lines: list[str]) -> bytes:
    """The file with a last line that is right: whoever changes a file can do that, too."""
    body = "".join(f"{line}\n" for line in lines).encode()
    tables = Counter("projection_checkpoints" if '"row"' in line else "events" for line in lines[1:])
    digest = hashlib.sha256(body).hexdigest()
    return body + json.dumps({"esource": "end", "rows": tables, "sha256": digest}).encode() + b"\n"


def changed(line: str, **members) -> str:
    return json.dumps({**json.loads(line), **members})


def raw(line: str, data: str) -> str:
    found = json.loads(line)
    del found["data"]
    return f'{json.dumps(found)[:-1]},"data":{data}}}'


EVENTS = {
    "a version below 1": lambda line: changed(line, aggregateversion=-1),
    "a position below 1": lambda line: changed(line, globalposition=0),
    "a position past 64 bits": lambda line: changed(line, globalposition="9999999999999999999"),
    "a version past 32 bits": lambda line: changed(line, aggregateversion=str(2**31)),
    "a fraction": lambda line: changed(line, globalposition=1.5),
    "an endless number": lambda line: line.replace('"globalposition":"1"', f'"globalposition":{"9" * 5000}'),
    "another type": lambda line: changed(line, type=["x"]),
    "no type": lambda line: changed(line, type=None),
    "an empty type": lambda line: changed(line, type=""),
    "a long type": lambda line: changed(line, type="x" * 256),
    "a NUL": lambda line: changed(line, type="a\x00"),
    "half a pair": lambda line: changed(line, type="\ud800"),
    "half a pair as an actor": lambda line: changed(line, actorid="\udfff"),
    "no stream": lambda line: changed(line, subject=5),
    "a stream without an id": lambda line: changed(line, subject="Order/x"),
    "an id that is none": lambda line: changed(line, id="'; DROP TABLE events; --"),
    "a tenant that is none": lambda line: changed(line, tenantid="x"),
    "a moment that is none": lambda line: changed(line, time="yesterday"),
    "a moment before all others": lambda line: changed(line, time="0001-01-01T00:00:00+14:00"),
    "data that is a list": lambda line: changed(line, data=[1]),
    "data that is nothing": lambda line: changed(line, data=None),
    "data with a NUL": lambda line: changed(line, data={"a": "\x00"}),
    "data with half a pair": lambda line: raw(line, f'{{"a":{PAIR}}}'),
    "data with no number": lambda line: raw(line, '{"a":NaN}'),
    "deep data": lambda line: raw(line, f'{{"a":{"[" * 250}{"]" * 250}}}'),
    "far too deep data": lambda line: raw(line, f'{{"a":{"[" * 100_000}{"]" * 100_000}}}'),
    "a member twice": lambda line: f'{line[:-1]},"id":"x"}}',
    "an unknown table": lambda line: '{"esource":"pg_class","row":{}}',
    "a column that is a statement": lambda line: '{"esource":"snapshots","row":{"id) VALUES (1); --":1}}',
    "no object": lambda line: "[]",
    "nothing": lambda line: "",
    "no JSON": lambda line: "hello",
    "brackets": lambda line: "[" * 100_000,
}
HEADS = {
    "counters that are text": lambda line: changed(line, counters="x"),
    "a counter below 0": lambda line: changed(line, counters={"events": -1}),
    "a counter past 64 bits": lambda line: changed(line, counters={"events": 2**63}),
    "another format": lambda line: changed(line, format="x"),
    "something else inside": lambda line: changed(line, holds=[]),
    "brackets": lambda line: "[" * 100_000,
}
FILES = {
    "empty": lambda good: b"",
    "zeros": lambda good: bytes(1000),
    "cut off": lambda good: good[:-50],
    "cut off in the first line": lambda good: good[:50],
    "without the last line break": lambda good: good[:-1],
    "with more behind": lambda good: good + b"{}\n",
    "no text": lambda good: good[:300] + b"\xff" + good[301:],
    "in plain.gz": lambda good: good,
    "cut off.gz": lambda good: gzip.compress(good)[:-20],
    "changed.gz": lambda good: gzip.compress(good)[:60] + b"\xff\xff" + gzip.compress(good)[62:],
    "twice.gz": lambda good: gzip.compress(gzip.compress(good)),
    "in plain.zst": lambda good: good,
    "compressed in plain": gzip.compress,
}


async def refuse(store, path: Path, content: bytes, name: str) -> None:
    path.write_bytes(content)
    for use in (import_store, restore):
        with pytest.raises(EventSourceError) as caught:
            await use(store, path)
            pytest.fail(name)
        assert len(str(caught.value)) < 1000, name
    assert await store.get_global_position() == 0, name


async def test_files_that_somebody_changed_are_refused_whole(store, tmp_path, lines):
    [head, first, second, *others] = lines
    for name, change in EVENTS.items():
        await refuse(store, tmp_path / "x", ended([head, second, change(first), *others]), name)
    for name, change in HEADS.items():
        await refuse(store, tmp_path / "x", ended([change(head), *lines[1:]]), name)
    for name, change in FILES.items():
        await refuse(store, tmp_path / name, change(ended(lines)), name)
    for name, twice in {"id": changed(second, id=json.loads(first)["id"]), "row": first}.items():
        await refuse(store, tmp_path / "x", ended([head, first, twice]), name)


async def test_ids_in_any_spelling_are_stored_in_one(store, tmp_path, lines):
    event_id = uuid4()
    for spelling in (f"{{{event_id}}}", event_id.urn, event_id.hex, str(event_id).upper()):
        (tmp_path / "x").write_bytes(ended([lines[0], changed(lines[1], id=spelling)]))
        async with InMemoryEventStore(enable_tracing=False) as other:
            await import_store(other, tmp_path / "x")
            assert await other.event_exists(event_id)
    await import_store(store, tmp_path / "x")
    assert await store.event_exists(event_id)


async def test_what_is_appended_next_comes_after_what_was_imported(store, tmp_path, lines):
    head, event = changed(lines[0], counters={}), changed(lines[1], globalposition="1000")
    (tmp_path / "x").write_bytes(ended([head, event]))
    await import_store(store, tmp_path / "x")
    result = await store.append_events((order := placed()).aggregate_id, "Order", [order])
    assert result.global_position == 1001


async def test_a_gzip_bomb_is_refused_at_its_first_endless_line(tmp_path):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(b'{"esource":"begin","format":1,"holds":"store"}\n' + b"[" * 2**26))
    async with InMemoryEventStore(enable_tracing=False) as store:
        with pytest.raises(EventSourceError, match="the line has"):
            await import_store(store, path)


@given(data=st.data())
@settings(
    max_examples=examples(20), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_no_changed_byte_is_overlooked(tmp_path, lines, data):
    good = ended(lines)
    place = data.draw(st.integers(0, len(good) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != good[place]))
    (tmp_path / "x").write_bytes(good[:place] + bytes([byte]) + good[place + 1 :])
    async with open_store("sqlite://", enable_tracing=False) as store:
        with pytest.raises(EventSourceError):
            await import_store(store, tmp_path / "x")
