"""A JSON value that several processes replace by compare-and-swap, on a disk, NFS or an object store.

The value has versions, a file each: `<folder>/000000000012.json`. The highest one counts. A file is created only if
there is none of its name (`If-None-Match: *` on an object store, link(2) on a disk), so of two processes that replace
the same version one wins. Old versions are deleted. A process that was paused for long may then create a deleted
version again; it finds a higher one beside it and knows that it has lost.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from zephyr_ray.errors import UserError
from zephyr_ray.storage import is_uri

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_NAME = re.compile(r"(\d{12})\.json")
_TIMEOUT = timedelta(seconds=10)  # of one request
_RETRY_TIMEOUT = timedelta(seconds=30)  # of a request with all its retries


@dataclass(frozen=True)
class Version:
    """A version of the value."""

    number: int
    value: dict[str, Any]


class Register:
    """The versions of one value. Its methods raise OSError or obstore's errors if the store does not answer."""

    def __init__(self, root: str, name: str):
        """
        Args:
            root: A local folder or a URI.
            name: The folder of the versions under it.
        """
        self.uri = posixpath.join(root, name)
        self._store, self._folder = _open(root), name

    def read(self) -> Version | None:
        """The version that counts, or None if there is none.

        Raises:
            UserError: Its file is not a JSON object.
        """
        while (number := max(self._numbers(), default=None)) is not None:
            try:
                content = _get(self._store, self._path(number))
            except FileNotFoundError:  # replaced and deleted in the meantime
                continue
            return Version(number, self._parse(content, number))
        return None

    def replace(self, version: Version | None, value: dict[str, Any]) -> Version | None:
        """Replaces a version, or the value that is not there yet; returns the new one, or None if another won."""
        number = version.number + 1 if version else 1
        value = {**value, "nonce": secrets.token_hex(8)}
        if not self._create(number, json.dumps(value).encode()):
            return None
        others = self._numbers()
        if max(others, default=number) > number:
            return None
        for old in others:
            if old < number:
                _delete(self._store, self._path(old))
        return Version(number, value)

    def _create(self, number: int, content: bytes) -> bool:
        if put_new(self._store, self._path(number), content):
            return True
        try:  # a retried request finds its own file
            return _get(self._store, self._path(number)) == content
        except FileNotFoundError:
            return False

    def _numbers(self) -> list[int]:
        import obstore

        found = obstore.list_with_delimiter(self._store, self._folder)["objects"]
        matches = [_NAME.fullmatch(posixpath.basename(each["path"])) for each in found]
        return [int(match[1]) for match in matches if match]

    def _path(self, number: int) -> str:
        return f"{self._folder}/{number:012d}.json"

    def _parse(self, content: bytes, number: int) -> dict[str, Any]:
        try:
            value = json.loads(content)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise UserError(
                f"{posixpath.join(self.uri, posixpath.basename(self._path(number)))} is not a JSON object; it was not "
                "written by zephyr-ray: look at it, and delete it if no other command uses this run"
            )
        return value


def check_conditional(root: str) -> None:
    """Checks that a store refuses to create a file that is there already.

    Raises:
        UserError: It overwrites the file: compare-and-swap does not work there.
    """
    import obstore

    store, path = _open(root), f".conditional-{secrets.token_hex(8)}"
    try:
        put_new(store, path, b"1")
        works = not put_new(store, path, b"2")
    except obstore.exceptions.NotSupportedError:
        works = False
    finally:
        _delete(store, path)
    if not works:
        raise UserError(
            f"{root}: this store has no conditional writes (If-None-Match), so two commands on one run could "
            "overwrite each other; use a store that has them, or --no-lease if you are sure that no other one runs"
        )


def put_new(store: ObjectStore, path: str, content: bytes) -> bool:
    """Creates a file, completely or not at all; returns False if there is one already."""
    import obstore

    try:
        obstore.put(store, path, content, mode="create", use_multipart=False)
    except obstore.exceptions.AlreadyExistsError:
        return False
    return True


def _open(root: str) -> ObjectStore:
    from obstore.store import LocalStore, from_url

    if not is_uri(root):
        path = os.path.abspath(os.path.expanduser(root))
        os.makedirs(path, exist_ok=True)
        return LocalStore(path)
    return from_url(
        root,
        client_options={"allow_http": True, "timeout": _TIMEOUT},
        retry_config={"max_retries": 5, "retry_timeout": _RETRY_TIMEOUT},
    )


def _get(store: ObjectStore, path: str) -> bytes:
    import obstore

    return bytes(obstore.get(store, path).bytes())


def _delete(store: ObjectStore, path: str) -> None:
    import obstore

    try:
        obstore.delete(store, path)
    except FileNotFoundError:  # another process has deleted it
        return
