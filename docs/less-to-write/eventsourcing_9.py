from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event


class Order(Aggregate):
    @event("Placed")
    def __init__(self, customer_id: str, total: float) -> None:
        self.customer_id = customer_id
        self.total = total
        self.status = "placed"
        self.tracking_number: str | None = None

    @event("Shipped")
    def ship(self, tracking_number: str) -> None:
        if self.status != "placed":
            raise ValueError("Order must be placed to ship")
        self.status = "shipped"
        self.tracking_number = tracking_number


class Orders(Application):
    pass


def main() -> None:
    with Orders(env={"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": "orders.db"}) as orders:
        order = Order("customer-123", 99.99)
        orders.save(order)
        order = orders.repository.get(order.id)
        order.ship("TRACK-ABC123")
        orders.save(order)
        print(order.version, order.status, order.tracking_number)


main()
