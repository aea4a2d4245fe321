"""Personal data in events that are stored for ever: encrypted under a key per person, and that key destroyed.

Mark fields with `Personal`, give the store a key store, and `KeyStore.destroy` makes all that was ever
written of a subject unreadable: in the log, its copies, exports, archives and backups. ``docs/privacy.md``
shows it, with what it does not cover. `esource.publishing.open_personal_data` opens them for a broker.
"""

from esource.privacy.database import DatabaseKeyStore, new_master_key
from esource.privacy.fields import Personal
from esource.privacy.keys import InMemoryKeyStore, KeyStore

__all__ = [
    "DatabaseKeyStore",
    "InMemoryKeyStore",
    "KeyStore",
    "Personal",
    "new_master_key",
]
