"""The state of an aggregate as JSON, and back: what a snapshot keeps."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic_core import to_json

from esource.domain.comparison import How, difference
from esource.domain.core_schemas import aliases_mislead
from esource.domain.impossible import require_possible
from esource.domain.shape import shape_of
from esource.errors import InvalidEventError

_REMEDY = "Declare it so that JSON keeps it, or use a repository without snapshot_store"


def require_restored(state: Any, restored: Any) -> None:
    """Refuse a snapshot from which an aggregate would not start with the state that it was taken of.

    Raises:
        InvalidEventError: it would not.
    """
    lost = difference("state", state, restored, how=How.STRICTLY)
    if lost is not None:
        raise InvalidEventError(lost.path, lost.problem, remedy=_REMEDY)


class StateForm:
    """How the state of one class of aggregates is written and read."""

    def __init__(self, state_type: Any) -> None:
        self._type = state_type
        self._is_model = isinstance(state_type, type) and issubclass(state_type, BaseModel)
        self._adapter: TypeAdapter[Any] = TypeAdapter(state_type)
        # States are written with the fields' own names, whatever aliases their class has today.
        self._by_alias = not aliases_mislead(self._adapter.core_schema)

    def require_possible(self) -> None:
        """Refuse a class of states with a field that can never come back.

        Raises:
            InvalidOptionError: it has one.
        """
        if self._is_model:
            require_possible(self._type)

    def written(self, state: Any) -> dict[str, Any]:
        """The state as JSON values.

        Raises:
            InvalidEventError: it cannot be written, or would not come back equal: an aggregate that starts from
                it would decide otherwise than one that replays its events.
        """
        try:
            if isinstance(state, BaseModel):
                values = state.model_dump(mode="json", round_trip=True, by_alias=False, warnings=False)
            else:
                values = {
                    "value": self._adapter.dump_python(state, mode="json", by_alias=False, warnings=False)
                }
        except Exception as error:  # a serializer of the application can raise anything
            raise InvalidEventError("state", f"cannot be written as JSON: {error}") from error
        if not (type(state) is self._type and self._is_model and shape_of(self._type).holds(state.__dict__)):
            self._require_equal(state, values)
        return values

    def _require_equal(self, state: Any, values: dict[str, Any]) -> None:
        try:
            found = self.read(values)
        except Exception as error:
            raise InvalidEventError("state", f"could not be read again: {error}", remedy=_REMEDY) from error
        require_restored(state, found)

    def read(self, values: dict[str, Any]) -> Any:
        """The state of JSON values. As JSON, which is what they are: a strict model would refuse them from Python.

        Raises:
            pydantic.ValidationError: they are not the state of this class.
        """
        text = to_json(values if self._is_model else values["value"], inf_nan_mode="constants")
        return self._adapter.validate_json(text, by_alias=self._by_alias, by_name=True)
