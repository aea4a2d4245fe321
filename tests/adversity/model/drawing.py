"""The operations, drawn: streams, tenants and numbers are few, so that they meet."""

from __future__ import annotations

from hypothesis import strategies as st

from adversity.model.beside import (
    NAMES,
    AddLetter,
    ChangeLetter,
    ChangeOutbox,
    CountLetters,
    DeleteSnapshot,
    ResetCheckpoint,
    SaveEvent,
    SavePosition,
    SaveSnapshot,
)
from adversity.model.operations import (
    HOSTILE,
    MOMENTS,
    STREAMS,
    UNSTORABLE,
    Append,
    Ask,
    ByType,
    Close,
    Follow,
    Load,
    Read,
    ReadHalfKnown,
)
from esource import ExpectedVersion

_stream = st.integers(0, len(STREAMS) - 1)
_tenant = st.sampled_from([None, None, 0, 1])
_name = st.sampled_from([0, 0, 0, *range(len(NAMES))])
_few = st.integers(0, 12)
_limit = st.none() | st.integers(0, 4)
_contents = st.one_of(
    st.just(0), st.integers(0, len(HOSTILE) - 1), st.integers(0, len(HOSTILE) + len(UNSTORABLE) - 1)
)
_event = st.tuples(_few, _tenant, st.sampled_from([0, 0, 0, 1]) | _contents)
_expected = st.sampled_from([ExpectedVersion.ANY] * 3 + [ExpectedVersion.STREAM_EXISTS, 0, 0, 1, 2, 3])
_has_outbox = st.sampled_from([True, True, True, False])
appends = st.builds(
    Append, _stream, st.lists(_event, min_size=0, max_size=3).map(tuple), _expected, _tenant, _has_outbox
)
# The log is there to be read: what leaves most of it out is drawn less often.
_no = st.none()
_own = st.sampled_from([None] * 6 + [0, 1])
_types = _no | st.lists(st.sampled_from(["Noted", "Counted", "x'"]), max_size=2).map(tuple)
_aggregates = _no | st.lists(st.sampled_from(["Order", "Invoice", "%"]), max_size=2).map(tuple)
_moment = _no | st.integers(0, len(MOMENTS) - 1)
_read = st.builds(
    Read,
    _no | _stream,
    _own,
    st.booleans(),
    st.just(0) | _few,
    _limit,
    _moment,
    _moment,
    _types,
    _aggregates,
    _own,
)
reads = st.one_of(
    _read,
    st.builds(Load, _stream, _tenant, st.just(0) | _few, _moment, _moment, st.booleans()),
    st.builds(ByType, st.sampled_from(["Order", "Invoice", "Order'; --", "x"]), _tenant, _tenant, _moment),
    st.builds(
        ReadHalfKnown,
        st.sampled_from(["raise", "skip", "untyped"]),
        _own,
        st.booleans(),
        _limit,
        _no | _stream,
    ),
    st.builds(Follow, st.just(0) | _few, _tenant, _types),
    st.builds(Ask, _few, _stream, _tenant),
)
_changes = st.sampled_from(["publish", "fail", "count", "again", "clean"])
_status = st.sampled_from([None, "failed", "retrying", "resolved"])
beside = st.one_of(
    st.builds(SavePosition, _name, _few, _tenant, _types),
    st.builds(SavePosition, _name, _few, _tenant, _types),
    st.builds(SaveEvent, _name, _few, _tenant, _types),
    st.builds(ResetCheckpoint, _name, _tenant),
    st.builds(SaveSnapshot, _stream, st.integers(1, len(HOSTILE) - 1), st.integers(1, 2), _tenant),
    st.builds(DeleteSnapshot, _stream, st.none() | st.integers(1, 3), _tenant),
    st.builds(AddLetter, _few, _name, st.integers(0, 3), _tenant),
    st.builds(ChangeLetter, _few, st.booleans(), _tenant),
    st.builds(CountLetters, st.none() | _name, _status, st.integers(1, 3), st.booleans(), _tenant),
    st.builds(ChangeOutbox, _few, _changes, _tenant),
)
first_appends = st.lists(
    st.builds(
        Append,
        _stream,
        st.lists(st.tuples(st.integers(0, 40), _own, st.sampled_from([0, 0, 1])), min_size=1, max_size=3).map(
            tuple
        ),
        st.just(ExpectedVersion.ANY),
        st.none(),
    ),
    min_size=3,
    max_size=8,
)
"""So that there is something to read from the beginning."""
# Closing the others would leave little to do with them.
closes = st.builds(Close, st.just(2), st.sampled_from([-1, -1, -2, 0, 1, 2]), _tenant)
operations = st.one_of(appends, reads, beside, closes)  # each kind as often as any other
