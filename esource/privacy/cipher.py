"""Text that only the holder of a key can read: AES-256-SIV, from the ``cryptography`` package.

SIV mode (RFC 5297) needs no nonce and gives the same result for the same text, key and associated data: an
append that is repeated after a lost answer is the same append, and nothing has to be counted. What the
associated data binds a text to (the event, the subject) has to be named again to read it, so that it cannot be
moved to another place unnoticed.
"""

from __future__ import annotations

import base64
import binascii
import os

from esource.errors import MissingDriverError

KEY_BYTES = 64
"""Of every key: two of 256 bits, as AES-256-SIV takes them."""


class BrokenSealError(ValueError):
    """The text was not sealed with this key, or not for this place, or was changed since."""


def require_cipher() -> None:
    """Refuse to go on without the package ``cryptography``.

    Raises:
        MissingDriverError: the extra is not installed.
    """
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise MissingDriverError("cryptography", "privacy") from error


def new_key() -> bytes:
    """A new random key."""
    return os.urandom(KEY_BYTES)


def seal(key: bytes, content: bytes, *place: str) -> str:
    """The content, encrypted and bound to a place, as text."""
    from cryptography.hazmat.primitives.ciphers.aead import AESSIV

    sealed = AESSIV(key).encrypt(content, [part.encode() for part in place])
    return base64.b64encode(sealed).decode()


def break_seal(key: bytes, sealed: str, *place: str) -> bytes:
    """The content that `seal` made unreadable.

    Raises:
        BrokenSealError: it is another key or another place, or the text was changed.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESSIV

    try:
        content = base64.b64decode(sealed, validate=True)
        return AESSIV(key).decrypt(content, [part.encode() for part in place])
    except (InvalidTag, binascii.Error, TypeError, ValueError) as error:
        raise BrokenSealError("another key, another place, or changed since") from error
