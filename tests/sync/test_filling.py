"""Stored events are given their tags by a program without an event loop."""

from __future__ import annotations

from typing import Annotated

import pytest

from esource import DomainEvent, EventRegistry, Query, QueryItem, Tag
from esource.errors import InvalidOptionError
from esource.sync import fill_tags, open_store


class Joined(DomainEvent):
    """As it was."""

    student: str


class JoinedNow(DomainEvent):
    event_type: str = "Joined"
    student: Annotated[str, Tag("student")]


OLD, NEW = EventRegistry(), EventRegistry()
OLD.register(Joined)
NEW.register(JoinedNow)


def test_a_program_without_an_event_loop_fills_tags(shared_database_url: str) -> None:
    with open_store(shared_database_url, OLD) as old, open_store(shared_database_url, NEW) as store:
        old.initialize()
        old.append([Joined(student="ada")])
        with pytest.raises(InvalidOptionError, match="declares no tag"):
            fill_tags(old, registry=OLD, types=[Joined])
        ada = Query(QueryItem(tags=["student:ada"]))
        assert store.read_query(ada).events == []
        seen = []
        assert fill_tags(store, registry=NEW, on_progress=seen.append).filled == 1
        assert [progress.done for progress in seen] == [1]
        assert len(store.read_query(ada).events) == 1
        assert fill_tags(shared_database_url, registry=NEW, again=True, dry_run=True).filled == 0
