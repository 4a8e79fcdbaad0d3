"""Versions of remote files as their stores give them, which tell a change that size and time do not.

An object of equal size can be overwritten within the second that a store counts in, and many HTTP servers give no time
that pyarrow sees. An ETag or a version id changes all the same.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

_AT_ONCE = 16
_BUCKETS = ("s3", "gs", "gcs", "az", "abfs", "abfss")
_TELLS = ("ETag", "etag", "version_id", "generation", "Content-MD5", "md5Hash", "blob_id", "Last-Modified")
"""Under which names filesystems of fsspec have something that changes with a file, the best first."""
_logger = logging.getLogger(__name__)


def file_versions(uris: Sequence[str]) -> list[list[str] | None]:
    """The version of each file: ETag and version id in a bucket, ETag or time of change of a web server.

    None for a file whose store gives none or cannot be asked; such a file is known by size and time alone.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(_version, uris))


def _version(uri: str) -> list[str] | None:
    scheme = uri.partition("://")[0]
    if scheme in ("file", uri):
        return None
    try:
        return _version_in_bucket(uri) if scheme in _BUCKETS else _version_by_fsspec(uri)
    except Exception as error:  # a store's own errors; pyarrow has read the file, so only this way of asking fails
        _logger.warning("%s: its version is not known (%s); size and time tell a change", uri, _first_line(error))
        return None


def _version_in_bucket(uri: str) -> list[str] | None:
    import obstore
    from obstore.store import from_url

    scheme, _, place = uri.partition("://")
    bucket, _, path = place.partition("/")
    store: Any = from_url(f"{scheme}://{bucket}", client_options={"allow_http": True})
    meta = obstore.head(store, path)
    return [str(each) for each in (meta["e_tag"], meta["version"]) if each] or None


def _version_by_fsspec(uri: str) -> list[str] | None:
    import fsspec

    filesystem, path = fsspec.core.url_to_fs(uri)
    info = filesystem.info(path)
    return next(([name, str(info[name])] for name in _TELLS if info.get(name)), None)


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
