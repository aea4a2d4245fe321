from uuid import uuid4

import pytest
from support.orders import OrderPlaced

from esource import DomainEvent, EventRegistry, default_registry, register_event
from esource.errors import DuplicateEventTypeError, UnknownEventTypeError


class Opened(DomainEvent):
    aggregate_type: str = "Account"


class Closed(DomainEvent):
    aggregate_type: str = "Account"
    event_type: str = "account.closed"


@pytest.fixture
def registry():
    registry = EventRegistry()
    registry.register(Opened)
    registry.register(Closed)
    return registry


def define(name, module=__name__, **fields):
    namespace = {"__module__": module, "__qualname__": name, "__annotations__": {}}
    return type(name, (DomainEvent,), {**namespace, **fields})


def test_a_class_is_found_by_its_event_type(registry):
    assert registry.get("Opened") is Opened
    assert registry.get("account.closed") is Closed
    assert registry.get_or_none("Opened") is Opened
    assert registry.contains("Opened")
    assert "Opened" in registry
    assert not registry.contains("Closed")
    assert registry.get_or_none("Closed") is None


def test_an_unknown_type_names_those_that_are_known(registry):
    with pytest.raises(
        UnknownEventTypeError, match=r"'Closed' \(registered: Opened, account.closed\)"
    ) as found:
        registry.get("Closed")
    assert found.value.event_type == "Closed"
    assert found.value.known_types == ["Opened", "account.closed"]
    assert isinstance(found.value, KeyError)


def test_everything_is_listed(registry):
    assert registry.list_types() == ["Opened", "account.closed"]
    assert registry.list_classes() == [Opened, Closed]
    assert list(registry) == ["Opened", "account.closed"]
    assert len(registry) == 2


def test_types_are_forgotten(registry):
    assert registry.unregister("Opened") is True
    assert registry.unregister("Opened") is False
    assert list(registry) == ["account.closed"]
    registry.clear()
    assert len(registry) == 0


def test_an_empty_registry_is_still_true():
    assert EventRegistry()


def test_a_redefined_class_replaces_the_old_one():
    registry = EventRegistry()
    first, second = define("Moved"), define("Moved")
    registry.register(first)
    registry.register(second)
    assert registry.get("Moved") is second


def test_a_different_class_under_a_taken_name_is_refused():
    registry = EventRegistry()
    first, other = define("Moved"), define("Moved", module="elsewhere")
    registry.register(first)
    with pytest.raises(
        DuplicateEventTypeError, match="'Moved' belongs to .*Moved; elsewhere.Moved"
    ) as refused:
        registry.register(other)
    assert (refused.value.existing, refused.value.new) == (first, other)
    assert registry.get("Moved") is first


def test_the_bare_decorator_registers_in_the_default_registry():
    assert default_registry.get("OrderPlaced") is OrderPlaced


def test_the_decorator_takes_a_registry():
    registry = EventRegistry()

    @register_event(registry=registry)
    class Frozen(DomainEvent):
        aggregate_type: str = "Account"

    assert registry.get("Frozen") is Frozen
    assert "Frozen" not in default_registry


def test_the_decorator_gives_the_class_its_event_type():
    registry = EventRegistry()

    @register_event(event_type="account.thawed", registry=registry)
    class Thawed(DomainEvent):
        aggregate_type: str = "Account"

    assert Thawed(aggregate_id=uuid4()).event_type == "account.thawed"
    assert list(registry) == ["account.thawed"]


def test_a_class_that_declares_its_event_type_keeps_it_and_reads_the_other_name_too():
    registry = EventRegistry()

    @register_event(event_type="account.thawed.v0", registry=registry)
    class Thawed(DomainEvent):
        event_type: str = "account.thawed"
        aggregate_type: str = "Account"

    assert Thawed(aggregate_id=uuid4()).event_type == "account.thawed"
    assert registry.get("account.thawed") is registry.get("account.thawed.v0") is Thawed
