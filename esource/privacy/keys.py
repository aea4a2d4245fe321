"""Where the keys of subjects are, and which of them are at hand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, MutableMapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import UUID
from weakref import WeakSet

from esource.checks import check_seconds, check_whole
from esource.database.calls import answer_of
from esource.errors import InvalidOptionError, KeyNotFoundError, MissingDriverError, SubjectErasedError
from esource.privacy.cipher import new_key, require_cipher
from esource.privacy.fields import Keys, subject_name
from esource.privacy.payloads import sealed_subjects, subjects_of

if TYPE_CHECKING:
    from esource.database.database import Database

CACHED_KEYS = 10_000
CACHE_SECONDS = 60.0


class _KeysAtHand:
    """The keys for some events, until their reader lets go of them; destroyed ones vanish from it."""

    __slots__ = ("__weakref__", "_keys")

    def __init__(self, keys: dict[str, bytes | None]) -> None:
        self._keys = keys

    def __getitem__(self, subject: str) -> bytes | None:
        try:
            return self._keys[subject]
        except KeyError:
            raise KeyNotFoundError(subject) from None

    def forget(self, subject: str) -> None:
        if subject in self._keys:
            self._keys[subject] = None


class KeyStore(ABC):
    """The keys of subjects: made when a subject is first written of, destroyed once and for all.

    Give one to every store that writes or reads personal fields; several stores of an event loop may share
    it, and then a destroyed key is gone for all of them at once. Keys are kept in memory for a while, so that
    an event costs no query: in other processes a destroyed key works for ``cache_seconds`` more, and for as
    long as a reader takes over the page of events at hand.

    A subclass for a key management service has three methods to write: `load`, `create` and `erase`.

    Args:
        cached_keys: How many keys are kept in memory at most.
        cache_seconds: For how long, in seconds.

    Raises:
        MissingDriverError: the extra ``privacy`` is not installed.
        InvalidOptionError: an option that makes no sense.
    """

    def __init__(self, *, cached_keys: int = CACHED_KEYS, cache_seconds: float = CACHE_SECONDS) -> None:
        require_cipher()
        try:
            from cachetools import TTLCache
        except ImportError as error:
            raise MissingDriverError("cachetools", "privacy") from error
        self._cache: MutableMapping[str, bytes | None] = TTLCache(
            check_whole("cached_keys", cached_keys, least=1), check_seconds("cache_seconds", cache_seconds)
        )
        self._held: WeakSet[_KeysAtHand] = WeakSet()
        self._destroyed = 0
        """How often a key was destroyed here: what was being loaded meanwhile is loaded again."""

    @abstractmethod
    async def load(self, subjects: Collection[str]) -> Mapping[str, bytes | None]:
        """The keys of those subjects that ever had one; None for one that was destroyed. One query."""

    @abstractmethod
    async def create(self, keys: Mapping[str, bytes]) -> Mapping[str, bytes | None]:
        """Keep these keys, where a subject has none and never had one; then what `load` says.

        Of two that do this at once for one subject, both get the same key.
        """

    @abstractmethod
    async def erase(self, subject: str) -> bool:
        """Destroy a subject's key, and remember that; whether there was one to destroy."""

    async def destroy(self, subject: UUID | int | str) -> bool:
        """Destroy the key of a subject, so that its personal data can never be read again.

        A subject that never had a key will not get one either. May be repeated.

        Returns:
            Whether there was a key to destroy.

        Raises:
            InvalidOptionError: it is no id.
        """
        name = subject_name(subject)
        try:
            erased: bool = await answer_of(self.erase, name)
        finally:
            self._destroyed += 1
            with suppress(KeyError):  # pop() looks first, and the entry may expire before it is taken
                del self._cache[name]
            for keys in self._held:
                keys.forget(name)
        return erased

    async def keys_to_seal(self, events: Iterable[object]) -> Keys | None:
        """The keys for events that are to be written, made where there is none; None if none is needed.

        Raises:
            InvalidEventError: an event does not say whose data it holds.
            SubjectErasedError: a subject's key was destroyed.
        """
        subjects = subjects_of(events)
        if not subjects:
            return None
        keys = await self._get(subjects, make=True)
        for subject in subjects:
            if keys[subject] is None:
                raise SubjectErasedError(subject)
        return keys

    async def keys_to_open(self, payloads: Iterable[str]) -> Keys | None:
        """The keys for payloads that are to be read; None if none is needed. One query at most."""
        subjects = sealed_subjects(payloads)
        return await self._get(subjects, make=False) if subjects else None

    def require_apart_from(self, database: Database) -> None:  # noqa: B027 - most kinds of key stores are apart
        """Refuse to keep the keys where the events are: a backup of one would hold both.

        Raises:
            InvalidOptionError: the keys are in the same database as the events.
        """

    async def _get(self, subjects: set[str], *, make: bool) -> _KeysAtHand:
        found: dict[str, bytes | None] = {}
        while True:
            begun = self._destroyed
            for subject in subjects:
                with suppress(KeyError):  # an entry may expire between a look for it and its use
                    found[subject] = self._cache[subject]
            missing = subjects - found.keys()
            if missing:
                loaded = dict(await answer_of(self.load, missing))
                if make and (unmade := missing - loaded.keys()):
                    loaded |= await answer_of(self.create, {subject: new_key() for subject in sorted(unmade)})
                if begun != self._destroyed:
                    found.clear()
                    continue
                for subject, key in loaded.items():
                    self._cache[subject] = found[subject] = key
            keys = _KeysAtHand(found)
            self._held.add(keys)
            return keys


def check_key_store(value: KeyStore | None, database: Database) -> KeyStore | None:
    """The key store itself, if it may serve a store on this database.

    Raises:
        InvalidOptionError: it is no key store, or keeps the keys in the same database.
    """
    if value is not None:
        if not isinstance(value, KeyStore):
            raise InvalidOptionError(
                f"key_store must be a KeyStore of esource.privacy, not {type(value).__name__}"
            )
        value.require_apart_from(database)
    return value


class InMemoryKeyStore(KeyStore):
    """Keys that are gone with the program: for tests, and for events that need not outlive it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._keys: dict[str, bytes | None] = {}

    async def load(self, subjects: Collection[str]) -> Mapping[str, bytes | None]:
        return {subject: self._keys[subject] for subject in subjects if subject in self._keys}

    async def create(self, keys: Mapping[str, bytes]) -> Mapping[str, bytes | None]:
        return {subject: self._keys.setdefault(subject, key) for subject, key in keys.items()}

    async def erase(self, subject: str) -> bool:
        had_one = self._keys.get(subject) is not None
        self._keys[subject] = None
        return had_one
