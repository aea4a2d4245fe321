"""Keys in a database of their own, each wrapped with a master key that is in none."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Column, MetaData, Table, Text, bindparam, literal_column, select, update
from sqlalchemy.engine import URL
from typing_extensions import Self

from esource.database.database import Database
from esource.dialect.urls import backend_for_url, parse_url
from esource.errors import InvalidOptionError, KeyStoreError, SchemaMissingError
from esource.moments import utc_now
from esource.privacy.cipher import KEY_BYTES, BrokenSealError, break_seal, new_key, seal
from esource.privacy.keys import CACHE_SECONDS, CACHED_KEYS, KeyStore
from esource.tables.constructs import member_of, upsert
from esource.tables.statement import Statement
from esource.tables.types import Name, Timestamp

_metadata = MetaData()
_keys = Table(
    "esource_keys",
    _metadata,
    Column("subject", Name, primary_key=True),
    Column("wrapped_key", Text),  # none: destroyed
    Column("master_key", Text),  # the fingerprint of what it is wrapped with
    Column("created_at", Timestamp, nullable=False),
    Column("destroyed_at", Timestamp),
)
_of_subject = _keys.c.subject == bindparam("of_subject", type_=_keys.c.subject.type)
_now = bindparam("now", type_=Timestamp())
_NULL: Any = literal_column("NULL")
_LOAD = Statement(
    select(_keys.c.subject, _keys.c.wrapped_key, _keys.c.master_key).where(
        member_of(_keys.c.subject, "subjects")
    )
)
_ADD = Statement(
    upsert(_keys)
    .values(
        {
            name: bindparam(name, type_=_keys.c[name].type)
            for name in ("subject", "wrapped_key", "master_key", "created_at")
        }
    )
    .on_conflict_do_nothing(index_elements=[_keys.c.subject])
    .returning(_keys.c.subject)
)
_ERASE = Statement(
    update(_keys)
    .where(_of_subject, _keys.c.wrapped_key.is_not(None))
    .values(wrapped_key=_NULL, master_key=_NULL, destroyed_at=_now)
    .returning(_keys.c.subject)
)
_BURY = Statement(
    upsert(_keys)
    .values(
        {
            "subject": bindparam("subject", type_=_keys.c.subject.type),
            "created_at": _now,
            "destroyed_at": _now,
        }
    )
    .on_conflict_do_nothing(index_elements=[_keys.c.subject])
)
_OTHERWISE_WRAPPED = Statement(
    select(_keys.c.subject, _keys.c.wrapped_key, _keys.c.master_key)
    .where(
        _keys.c.wrapped_key.is_not(None),
        _keys.c.master_key != bindparam("current", type_=_keys.c.master_key.type),
    )
    .order_by(_keys.c.subject)
    .limit(bindparam("page"))
)
_REWRAP = Statement(
    update(_keys)
    # Not one that was destroyed meanwhile.
    .where(_of_subject, _keys.c.wrapped_key == bindparam("before", type_=Text()))
    .values(
        wrapped_key=bindparam("wrapped_key", type_=Text()), master_key=bindparam("master_key", type_=Text())
    )
    .returning(_keys.c.subject)
)

PAGE = 500


def new_master_key() -> str:
    """A master key for `DatabaseKeyStore`, as base64 text: keep it where secrets are kept."""
    return base64.b64encode(new_key()).decode()


class _MasterKey(NamedTuple):
    key: bytes
    fingerprint: str

    @classmethod
    def of(cls, given: str | bytes) -> _MasterKey:
        try:
            key = base64.b64decode(given, validate=True) if isinstance(given, str) else bytes(given)
        except (binascii.Error, TypeError, ValueError):
            key = b""
        if len(key) != KEY_BYTES:
            raise InvalidOptionError(
                f"a master key is {KEY_BYTES} bytes, or base64 text of so many: make one with new_master_key()"
            )
        return cls(key, hashlib.sha256(b"esource master key\0" + key).hexdigest()[:16])

    def wrap(self, subject: str, key: bytes) -> str:
        return seal(self.key, key, "key", subject)


class DatabaseKeyStore(KeyStore):
    """Keys in a SQLite file or a PostgreSQL database that holds no events.

    Kept apart, because a backup of the events must not bring a destroyed key back: back the two up
    separately, and let backups of the keys expire. A stolen copy of the keys is of no use without the master
    key. Opened on first use; call `initialize` once.

    Args:
        url: ``sqlite:///keys.db``, a SQLite file's name, or ``postgresql://user@host/keys``.
        master_key: From `new_master_key`. Without it nothing personal can be read: keep it safe.
        retired_master_keys: Earlier ones, which keys may still be wrapped with; see `rotate_master_key`.
        cached_keys: How many keys are kept in memory at most.
        cache_seconds: How long keys stay in memory, in seconds. A key that another process destroys works for that long.
        database_options: Keywords of the database, such as ``busy_timeout`` or ``pool_size``.

    Raises:
        InvalidOptionError: a URL or a master key that cannot be one.
        MissingDriverError: the extra ``privacy``, or the one with the driver, is not installed.
    """

    def __init__(
        self,
        url: str | URL,
        master_key: str | bytes,
        *,
        retired_master_keys: Iterable[str | bytes] = (),
        cached_keys: int = CACHED_KEYS,
        cache_seconds: float = CACHE_SECONDS,
        **database_options: Any,
    ) -> None:
        super().__init__(cached_keys=cached_keys, cache_seconds=cache_seconds)
        self._master_key = _MasterKey.of(master_key)
        retired = [_MasterKey.of(key) for key in retired_master_keys]
        self._master_keys = {key.fingerprint: key for key in (*retired, self._master_key)}
        if isinstance(url, str) and "://" not in url:
            url = URL.create("sqlite", database=url)
        parsed = parse_url(url)
        forgetful = backend_for_url(parsed).forgetful_options
        self._database = Database.from_url(parsed, **{**forgetful, **database_options})

    async def initialize(self) -> None:
        """Make the table, if it is not there. Safe to repeat, and safe when many processes do it at once."""
        with self._errors():
            backend = self._database.backend
            async with self._database.transaction() as unit:
                with backend.errors(self._database.name):
                    await backend.lock_schema(unit.connection, self._database.schema)
                    await unit.connection.run_sync(_metadata.create_all)

    async def close(self) -> None:
        """Give the connections back. Stores do not close their key store."""
        self._cache.clear()
        await self._database.close()

    async def __aenter__(self) -> Self:
        await self._database.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def require_apart_from(self, database: Database) -> None:
        if _place(self._database) == _place(database):
            raise InvalidOptionError(
                f"the keys are to be in another database than the events, not in {database.name} as well: a "
                "backup of the events would bring destroyed keys back"
            )

    async def load(self, subjects: Collection[str]) -> Mapping[str, bytes | None]:
        listed = self._database.backend.names(sorted(subjects))
        with self._errors():
            rows = await self._database.read(_LOAD, {"subjects": listed})
        return {subject: self._unwrapped(subject, wrapped, by) for subject, wrapped, by in rows}

    async def create(self, keys: Mapping[str, bytes]) -> Mapping[str, bytes | None]:
        async def add() -> None:
            async with self._database.transaction() as unit:
                # In one order: two that make the same keys wait for each other, and not in a circle.
                for subject in sorted(keys):
                    values = {
                        "subject": subject,
                        "wrapped_key": self._master_key.wrap(subject, keys[subject]),
                        "master_key": self._master_key.fingerprint,
                        "created_at": utc_now(),
                    }
                    await self._database.write(_ADD, values, unit)

        with self._errors():
            await self._database.persist(add)
        return await self.load(keys.keys())

    async def erase(self, subject: str) -> bool:
        async def bury() -> bool:
            async with self._database.transaction() as unit:
                values = {"of_subject": subject, "subject": subject, "now": utc_now()}
                await self._database.write(_BURY, values, unit)
                return bool(await self._database.write(_ERASE, values, unit))

        with self._errors():
            return await self._database.persist(bury)

    async def rotate_master_key(self) -> int:
        """Wrap the keys that a retired master key has wrapped with the current one; how many there were.

        Afterwards the retired one is not needed, and what a lost backup or a file system still holds of
        destroyed keys is of no use once it is destroyed, too. Other processes may go on meanwhile, if they
        have both.

        Raises:
            KeyStoreError: a key is wrapped with a master key that is not given.
        """
        rotated = 0
        while True:
            async with self._database.transaction() as unit:
                with self._errors():
                    current = self._master_key.fingerprint
                    rows = await self._database.read(
                        _OTHERWISE_WRAPPED, {"current": current, "page": PAGE}, unit
                    )
                if not rows:
                    return rotated
                for subject, wrapped, by in rows:
                    key = self._unwrapped(subject, wrapped, by)
                    assert key is not None
                    values = {
                        "of_subject": subject,
                        "before": wrapped,
                        "wrapped_key": self._master_key.wrap(subject, key),
                        "master_key": current,
                    }
                    rotated += len(await self._database.write(_REWRAP, values, unit))

    def _unwrapped(self, subject: str, wrapped: str | None, fingerprint: str | None) -> bytes | None:
        if wrapped is None:
            return None
        master_key = self._master_keys.get(fingerprint or "")
        if master_key is None:
            raise KeyStoreError(
                f"{self._database.name}: the key of subject {subject} is wrapped with master key {fingerprint}, "
                f"not with {', '.join(self._master_keys)}: give that one as well, with retired_master_keys"
            )
        try:
            return break_seal(master_key.key, wrapped, "key", subject)
        except BrokenSealError as error:
            raise KeyStoreError(
                f"{self._database.name}: the key of subject {subject} was changed or moved: restore the keys "
                "from a backup"
            ) from error

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except SchemaMissingError as error:
            raise KeyStoreError(
                f"{self._database.name} has no table of keys: call `await key_store.initialize()` once"
            ) from error


def _place(database: Database) -> object:
    """Which database a URL leads to, however it is written; a private one is like no other."""
    url = database.url
    if url.host is None and not url.query:
        if url.database in (None, "", ":memory:"):
            return object()
        return database.backend.name, str(Path(url.database or "").resolve())
    # Another schema is the same database: one backup has both.
    query = {name: value for name, value in url.query.items() if name != "schema"}
    return database.backend.name, url.host, url.port, url.database, tuple(sorted(query.items()))
