"""What a move leaves behind: read models; and how it says so, and lets a projection begin anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.orders import placed
from support.pairs import Pair
from support.read_models import Journal, append, rows

from esource import CheckpointRepository, DLQRepository, EventStore, ProjectionRunner
from esource.copying import copy, cut_over, export_store, import_store, verify_copy
from esource.errors import InvalidOptionError

EVENTS = list("abcde")


@pytest.fixture
async def source(pair: Pair, open_stores) -> EventStore:
    """A store with a projection that has handled everything, one that shares its work, and a subscription."""
    store: EventStore = await open_stores(pair.source)
    await append(store, *EVENTS)
    await ProjectionRunner(store, Journal()).run(live=False)
    checkpoints = CheckpointRepository(store)
    for name in ("mails", "shared[0/2]", "shared[1/2]"):
        await checkpoints.save_position(name, 5, placed().event_id, "OrderPlaced")
    event = placed()
    for name in ("journal", "mails"):
        await DLQRepository(store).add_failed_event(
            event.event_id, name, "OrderPlaced", event.to_dict(), ValueError("x")
        )
    return store


async def names(store: EventStore) -> set[str]:
    return {found.projection_name for found in await CheckpointRepository(store).get_all_checkpoints()}


async def letters(store: EventStore) -> set[str]:
    return {found.projection_name for found in await DLQRepository(store).get_failed_events()}


async def test_a_copy_lists_the_checkpoints_that_came_along_and_the_tables_that_did_not(
    source: EventStore, pair: Pair
):
    result = await copy(*pair, verify=True)
    assert result.checkpoints == {"journal": 5, "mails": 5, "shared[0/2]": 5, "shared[1/2]": 5}
    assert result.not_copied == ["journal_1"]
    assert result.reset == []
    assert result.verification is not None
    assert result.verification.is_identical


@pytest.mark.parametrize("move", [copy, cut_over])
async def test_a_projection_that_begins_anew_builds_its_read_model_in_the_target(
    source: EventStore, pair: Pair, open_stores, move
):
    result = await move(*pair, reset=["journal"])
    assert result.reset == ["journal"]
    assert result.checkpoints == {"mails": 5, "shared[0/2]": 5, "shared[1/2]": 5}

    target: EventStore = await open_stores(pair.target)
    assert await names(target) == {"mails", "shared[0/2]", "shared[1/2]"}
    assert await letters(target) == {"mails"}
    assert (await verify_copy(*pair, reset=["journal"])).is_identical
    assert not (await verify_copy(*pair)).is_identical

    journal = Journal()
    await ProjectionRunner(target, journal).run(live=False)
    assert await rows(target, journal.table, "customer") == EVENTS


async def test_partitions_and_versions_begin_anew_with_their_projection_or_all_do(
    source: EventStore, pair: Pair
):
    assert (await copy(*pair, reset=["shared"])).reset == ["shared[0/2]", "shared[1/2]"]


async def test_everything_may_begin_anew(source: EventStore, pair: Pair, open_stores):
    result = await copy(*pair, reset="all", verify=True)
    assert result.checkpoints == {}
    assert result.verification is not None
    assert result.verification.is_identical
    assert await names(await open_stores(pair.target)) == set()


async def test_what_an_earlier_copy_has_brought_stays_behind_too_and_what_the_target_has_made_is_left_alone(
    source: EventStore, pair: Pair, open_stores
):
    await copy(*pair)
    target: EventStore = await open_stores(pair.target)
    assert "journal" in await names(target)

    await copy(*pair, reset=["journal"])
    assert "journal" not in await names(target)
    assert await letters(target) == {"mails"}

    journal = Journal()
    await ProjectionRunner(target, journal).run(live=False)
    await append(source, "f")
    result = await cut_over(*pair, reset=["journal"])
    assert result.events == 1
    assert await CheckpointRepository(target).get_position("journal") == 5
    await ProjectionRunner(target, journal).run(live=False)
    assert await rows(target, journal.table, "customer") == [*EVENTS, "f"]


@pytest.mark.parametrize("move", [copy, cut_over])
async def test_a_name_that_no_checkpoint_has_is_refused_before_anything_is_written(
    source: EventStore, pair: Pair, open_stores, move: Any
):
    with pytest.raises(
        InvalidOptionError, match=r"no checkpoint of journals\. It has: journal, mails, shared"
    ):
        await move(*pair, reset=["journals"])
    with pytest.raises(InvalidOptionError, match=r"a list of projections' names, or 'all', not 'journal'"):
        await move(*pair, reset="journal")
    target: EventStore = await open_stores(pair.target)
    assert await target.get_global_position() == 0
    assert await names(target) == set()


async def test_an_import_says_and_does_the_same(source: EventStore, pair: Pair, open_stores, tmp_path: Path):
    await export_store(source, tmp_path / "export")
    target: EventStore = await open_stores(pair.target)
    with pytest.raises(InvalidOptionError, match="no checkpoint of journals"):
        await import_store(target, tmp_path / "export", reset=["journals"])
    assert await target.get_global_position() == 0

    result = await import_store(target, tmp_path / "export", reset=["journal", "shared"])
    assert sorted(result.reset) == ["journal", "shared[0/2]", "shared[1/2]"]
    assert result.checkpoints == {"mails": 5}
    assert await names(target) == {"mails"}
    assert await letters(target) == {"mails"}
