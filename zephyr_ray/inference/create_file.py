"""Creates a file completely, and only if there is none of its name: of two processes that try, one does."""

from __future__ import annotations

import contextlib
import os
import posixpath
import secrets

import pyarrow.fs as pafs

from zephyr_ray.inference.response_log import sync
from zephyr_ray.pipeline.register import put_new
from zephyr_ray.storage import write_bytes

_SCHEMES = {"s3": "s3", "gcs": "gs", "abfs": "abfs"}


def create_file(filesystem: pafs.FileSystem, path: str, content: bytes) -> bool:
    """Creates a file; returns False if there is one already that has another content.

    A store without conditional writes is asked before, which is not safe against another process at the same moment.

    Raises:
        OSError: The file cannot be written.
    """
    if _created(filesystem, path, content):
        return True
    with filesystem.open_input_stream(path) as stream:  # a repeated request finds its own file
        return bool(stream.read() == content)


def _created(filesystem: pafs.FileSystem, path: str, content: bytes) -> bool:
    if isinstance(filesystem, pafs.LocalFileSystem):
        return _link(path, content)
    scheme = _SCHEMES.get(filesystem.type_name)
    created = _put(f"{scheme}://{path}", content) if scheme else None
    if created is not None:
        return created
    if filesystem.get_file_info(path).type != pafs.FileType.NotFound:
        return False
    write_bytes(filesystem, path, content)
    return True


def _link(path: str, content: bytes) -> bool:
    partial = f"{path}.{secrets.token_hex(8)}.partial"
    with open(partial, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(partial, path)
    except FileExistsError:
        return False
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)
    sync(posixpath.dirname(path))
    return True


def _put(uri: str, content: bytes) -> bool | None:
    """As `_created`; None if the store has no conditional writes."""
    import obstore
    from obstore.store import from_url

    folder, _, name = uri.rpartition("/")
    try:
        return put_new(from_url(folder, client_options={"allow_http": True}), name, content)
    except obstore.exceptions.NotSupportedError:
        return None
    except obstore.exceptions.BaseError as error:
        raise OSError(f"{uri}: {error}") from error
