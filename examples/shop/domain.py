"""What happens in the shop: orders and stock, as events, and the aggregates that decide about them."""

from __future__ import annotations

from pydantic import BaseModel

from esource import DeclarativeAggregate, DomainEvent, handles, register_event


@register_event
class OrderPlaced(DomainEvent):
    aggregate_type: str = "Order"
    customer: str
    product: str
    quantity: int
    cents: int


@register_event
class OrderShipped(DomainEvent):
    aggregate_type: str = "Order"
    parcel: str


@register_event
class StockArrived(DomainEvent):
    aggregate_type: str = "Stock"
    product: str
    quantity: int


@register_event
class StockTaken(DomainEvent):
    aggregate_type: str = "Stock"
    product: str
    quantity: int


class OrderState(BaseModel):
    product: str = ""
    quantity: int = 0
    is_shipped: bool = False


class Order(DeclarativeAggregate[OrderState]):
    aggregate_type = "Order"

    def _get_initial_state(self) -> OrderState:
        return OrderState()

    def place(self, customer: str, product: str, quantity: int, cents: int) -> None:
        self.apply_event(
            self.create_event(OrderPlaced, customer=customer, product=product, quantity=quantity, cents=cents)
        )

    def ship(self, parcel: str) -> None:
        if self.current.is_shipped:
            raise ValueError("shipped already")
        self.apply_event(self.create_event(OrderShipped, parcel=parcel))

    @handles(OrderPlaced)
    def _placed(self, event: OrderPlaced) -> None:
        self._state = OrderState(product=event.product, quantity=event.quantity)

    @handles(OrderShipped)
    def _shipped(self, event: OrderShipped) -> None:
        self._state = self.current.model_copy(update={"is_shipped": True})


class StockState(BaseModel):
    product: str = ""
    left: int = 0


class Stock(DeclarativeAggregate[StockState]):
    aggregate_type = "Stock"

    def _get_initial_state(self) -> StockState:
        return StockState()

    def arrive(self, product: str, quantity: int) -> None:
        self.apply_event(self.create_event(StockArrived, product=product, quantity=quantity))

    def take(self, quantity: int) -> None:
        if quantity > self.current.left:
            raise ValueError(f"only {self.current.left} of {self.current.product} left")
        self.apply_event(self.create_event(StockTaken, product=self.current.product, quantity=quantity))

    @handles(StockArrived)
    def _arrived(self, event: StockArrived) -> None:
        self._state = StockState(product=event.product, left=self.current.left + event.quantity)

    @handles(StockTaken)
    def _taken(self, event: StockTaken) -> None:
        self._state = self.current.model_copy(update={"left": self.current.left - event.quantity})
