"""API keys of the chat endpoint: make one, keep its hash in a file, and find the name of a request's key."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Mapping

from zephyr_ray.errors import UserError

VARIABLE = "ZEPHYR_API_KEYS"
_PREFIX = "zr-"


class Keys:
    """The valid keys. Only their SHA-256 hashes are kept; a key has 256 bits, so no salt is needed."""

    def __init__(self, hashes: Mapping[str, str]):
        self._names = dict(hashes)

    def name_of(self, authorization: str | None) -> str | None:
        """The name of the key in an Authorization header, or None if the key is not valid."""
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        # The timing of a look-up by hash tells an attacker nothing about the stored hashes.
        return self._names.get(hash_key(key.strip()))

    def __len__(self) -> int:
        return len(self._names)


def hash_key(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def new_key() -> str:
    return _PREFIX + secrets.token_urlsafe(32)


def read(path: str | None) -> Keys | None:
    """The keys of the environment and of the file, or None if neither is given.

    Raises:
        UserError: The file cannot be read, a line of it is not a hash, or a key is too short to be safe.
    """
    hashes: dict[str, str] = {}
    variable = os.environ.get(VARIABLE)
    if variable is not None:
        for position, key in enumerate(filter(None, (part.strip() for part in variable.split(","))), start=1):
            if len(key) < 16:
                raise UserError(f"{VARIABLE}: key {position} has under 16 characters; make one with zephyr-ray keys")
            hashes[hash_key(key)] = f"key-{position}"
    if path is not None:
        hashes |= read_file(path)
    if not hashes and (variable is not None or path is not None):
        raise UserError(f"{path or VARIABLE} holds no API key; add one with `zephyr-ray keys FILE NAME`")
    return Keys(hashes) if hashes else None


def read_file(path: str) -> dict[str, str]:
    """Names by hash, from lines of `hash name`; empty lines and lines that begin with # are skipped."""
    try:
        with open(path, encoding="utf-8") as stream:
            lines = stream.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the file of API keys {path} cannot be read: {error}") from None
    hashes = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        digest, _, name = line.partition(" ")
        if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            raise UserError(f"{path}:{number} is not a SHA-256 hash and a name; write it with zephyr-ray keys")
        hashes[digest] = name.strip() or f"line-{number}"
    return hashes


def add(path: str, name: str) -> str:
    """Appends the hash of a new key and returns the key.

    Raises:
        UserError: The file is not one of ours or cannot be written, or the name has a line break.
    """
    if not name.strip() or not name.isprintable():
        raise UserError(f"a key's name is printable text, not {name!r}")
    if os.path.exists(path):
        read_file(path)
    key = new_key()
    try:
        with open(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a", encoding="utf-8") as stream:
            stream.write(f"{hash_key(key)} {name.strip()}\n")
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None
    return key
