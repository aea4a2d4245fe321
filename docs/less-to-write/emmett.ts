import { CommandHandler, IllegalStateError, type Event } from '@event-driven-io/emmett';
import { getSQLiteEventStore } from '@event-driven-io/emmett-sqlite';
import { randomUUID } from 'node:crypto';

type OrderPlaced = Event<'OrderPlaced', { customerId: string; total: number }>;
type OrderShipped = Event<'OrderShipped', { trackingNumber: string }>;
type OrderEvent = OrderPlaced | OrderShipped;

type Order =
  | { status: 'draft' }
  | { status: 'placed'; customerId: string; total: number }
  | { status: 'shipped'; customerId: string; total: number; trackingNumber: string };

const initialState = (): Order => ({ status: 'draft' });

const evolve = (order: Order, { type, data }: OrderEvent): Order => {
  switch (type) {
    case 'OrderPlaced':
      return { status: 'placed', customerId: data.customerId, total: data.total };
    case 'OrderShipped':
      return order.status === 'placed'
        ? { ...order, status: 'shipped', trackingNumber: data.trackingNumber }
        : order;
  }
};

const place = (order: Order, customerId: string, total: number): OrderPlaced => {
  if (order.status !== 'draft') throw new IllegalStateError('Order already placed');
  return { type: 'OrderPlaced', data: { customerId, total } };
};

const ship = (order: Order, trackingNumber: string): OrderShipped => {
  if (order.status !== 'placed') throw new IllegalStateError('Order must be placed to ship');
  return { type: 'OrderShipped', data: { trackingNumber } };
};

const handle = CommandHandler<Order, OrderEvent>({ evolve, initialState });

const main = async () => {
  const store = getSQLiteEventStore({ fileName: 'orders.db' });
  const orderId = `order-${randomUUID()}`;
  await handle(store, orderId, (order) => place(order, 'customer-123', 99.99));
  const { newState, nextExpectedStreamVersion } = await handle(store, orderId, (order) =>
    ship(order, 'TRACK-ABC123'),
  );
  console.log(nextExpectedStreamVersion, newState.status);
};

await main();
