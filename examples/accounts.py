"""The account of the documentation: three events, and the aggregate that decides about them."""

from pydantic import BaseModel

from esource import DeclarativeAggregate, DomainEvent, handles, register_event


@register_event
class Opened(DomainEvent):
    aggregate_type: str = "Account"
    owner: str


@register_event
class Deposited(DomainEvent):
    aggregate_type: str = "Account"
    amount: int


@register_event
class Withdrawn(DomainEvent):
    aggregate_type: str = "Account"
    amount: int


class AccountState(BaseModel):
    owner: str = ""
    balance: int = 0


class Account(DeclarativeAggregate[AccountState]):
    def _get_initial_state(self) -> AccountState:
        return AccountState()

    def open(self, owner: str) -> None:
        if self.version > 0:
            raise ValueError("the account is open already")
        self.apply_event(self.create_event(Opened, owner=owner))

    def deposit(self, amount: int) -> None:
        if amount <= 0:
            raise ValueError("a deposit is more than nothing")
        self.apply_event(self.create_event(Deposited, amount=amount))

    def withdraw(self, amount: int) -> None:
        if amount > self.current.balance:
            raise ValueError(f"{amount} is more than the balance of {self.current.balance}")
        self.apply_event(self.create_event(Withdrawn, amount=amount))

    @handles(Opened)
    def _opened(self, event: Opened) -> None:
        self._state = AccountState(owner=event.owner)

    @handles(Deposited)
    def _deposited(self, event: Deposited) -> None:
        self._change_balance(event.amount)

    @handles(Withdrawn)
    def _withdrawn(self, event: Withdrawn) -> None:
        self._change_balance(-event.amount)

    def _change_balance(self, by: int) -> None:
        self._state = self.current.model_copy(update={"balance": self.current.balance + by})
