"""Keys under which bodies are stored: AES-256-GCM, a random nonce each, bound to the place where they are stored.

Sealed bytes are the nonce (12 bytes), the ciphertext and its tag (16 bytes). What is authenticated beside them names
the row and the column, so that a sealed body moved to another row does not open. Which key sealed a row stands in its
column `sealed`, by the key's digest, so that keys can be changed while both are at hand.
"""

from __future__ import annotations

import hashlib
import os
import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping, Sequence
from typing import Any

from suffice.core.config import Records
from suffice.core.errors import InputError, StoreError

KEY_BYTES = 32
NONCE_BYTES = 12


class Keys:
    """The key that seals from now on (None: nothing is sealed), and former ones that still open.

    Raises InputError where the package is missing that does the sealing.
    """

    def __init__(self, current: bytes | None = None, former: Sequence[bytes] = ()) -> None:
        own = [current] if current is not None else []
        self._ciphers = {id_of(key): _cipher(key) for key in (*own, *former)}
        self.current = id_of(current) if current is not None else None
        self._digest = hashlib.blake2b(current, person=b"suffice.parts").digest() if current is not None else b""

    @property
    def known(self) -> frozenset[str]:
        """The ids of all keys that are at hand."""
        return frozenset(self._ciphers)

    def seal(self, data: bytes, about: str) -> bytes:
        """Seal with the current key; `about` names the place: the same is needed to open."""
        assert self.current is not None
        nonce = os.urandom(NONCE_BYTES)
        sealed: bytes = nonce + self._ciphers[self.current].encrypt(nonce, data, about.encode())
        return sealed

    def open(self, data: bytes, key: str, about: str) -> bytes:
        """What was sealed with this key. Raises StoreError where the key is not at hand, or the bytes were changed."""
        cipher = self._ciphers.get(key)
        if cipher is None:
            raise StoreError(f"{about} is sealed with key {key}, which is not at hand")
        from cryptography.exceptions import InvalidTag

        try:
            opened: bytes = cipher.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], about.encode())
        except InvalidTag as error:
            raise StoreError(f"{about} was changed since it was sealed with key {key}") from error
        return opened

    def digest(self, data: bytes) -> bytes:
        """16 bytes that tell contents apart; under a key nobody without it can tell what they are of."""
        return hashlib.blake2b(data, digest_size=16, key=self._digest).digest()


def id_of(key: bytes) -> str:
    """A key's name: eight hexadecimal digits that say nothing of it."""
    return hashlib.blake2b(key, digest_size=4, person=b"suffice.key").hexdigest()


def keys_of(settings: Records, environ: Mapping[str, str]) -> Keys:
    """The keys that the settings name. Raises InputError that names the variable which is missing or holds no key."""
    names = [settings.encrypt_key_env] if settings.encrypt_key_env is not None else []
    read = {name: _read(name, environ) for name in (*names, *settings.decrypt_key_envs)}
    current = read.get(settings.encrypt_key_env) if settings.encrypt_key_env is not None else None
    return Keys(current, [read[name] for name in settings.decrypt_key_envs])


def _read(name: str, environ: Mapping[str, str]) -> bytes:
    """A key out of the environment: 32 bytes as 64 hexadecimal digits or as Base64."""
    text = environ.get(name, "").strip()
    if not text:
        raise InputError(f"[records] names a key in the environment variable {name}, which is not set")
    try:
        key = bytes.fromhex(text) if re.fullmatch(r"[0-9a-fA-F]{64}", text) else b64decode(text, validate=True)
    except (Base64Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise InputError(
            f"the environment variable {name} holds no key: 32 random bytes as 64 hexadecimal digits or Base64 "
            "(`openssl rand -hex 32` makes one)"
        )
    return key


def _cipher(key: bytes) -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise InputError("encrypted records need the extra `encrypt`: pip install 'suffice[encrypt]'") from error
    return AESGCM(key)
