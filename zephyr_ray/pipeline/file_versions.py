"""Versions of remote files as their stores give them, which tell a change that size and time do not.

An object of equal size can be overwritten within the second that a store counts in, and many HTTP servers give no time
that pyarrow sees. An ETag or a version id changes all the same.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

from zephyr_ray.storage import is_uri

_AT_ONCE = 16
_BUCKETS = ("s3", "gs", "gcs", "az", "abfs", "abfss")
_TELLS = ("ETag", "etag", "version_id", "generation", "Content-MD5", "md5Hash", "blob_id", "Last-Modified")
"""Under which names filesystems of fsspec have something that changes with a file, the best first."""
_TIMEOUT = timedelta(seconds=10)  # of one request
_RETRY: Any = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}
_logger = logging.getLogger(__name__)


def file_versions(uris: Sequence[str]) -> list[list[str] | None]:
    """The version of each file: ETag and version id in a bucket, ETag or time of change of a web server.

    None for a file whose store gives none, or cannot be asked in this way; it is known by size and time alone.
    """
    stores: dict[str, Any] = {}
    for uri in uris:
        bucket, _, path = _split(uri)
        if bucket and bucket not in stores:
            stores[bucket] = _open_bucket(bucket, path)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda uri: _version(uri, stores), uris))


def _split(uri: str) -> tuple[str, str, str]:
    """The URI of a bucket, a slash, and the path in it; an empty URI for other stores."""
    scheme, _, place = uri.partition("://")
    name, slash, path = place.partition("/")
    return (f"{scheme}://{name}", slash, path) if scheme in _BUCKETS else ("", "", uri)


def _open_bucket(bucket: str, path: str) -> Any:
    """The bucket, as obstore opens it; None if a first file cannot be asked for, which pyarrow has found."""
    import obstore
    from obstore.store import from_url

    try:
        store: Any = from_url(bucket, client_options={"allow_http": True, "timeout": _TIMEOUT}, retry_config=_RETRY)
        obstore.head(store, path)
    except Exception as error:  # of as many kinds as there are stores; none of them keeps pyarrow from reading
        _tell(bucket, error)
        return None
    return store


def _version(uri: str, stores: Mapping[str, Any]) -> list[str] | None:
    bucket, _, path = _split(uri)
    if bucket:
        return _version_in_bucket(stores[bucket], path) if stores[bucket] else None
    return _version_by_fsspec(uri) if is_uri(uri) and not uri.startswith("file://") else None


def _version_in_bucket(store: Any, path: str) -> list[str] | None:
    import obstore

    meta = obstore.head(store, path)
    return [str(each) for each in (meta["e_tag"], meta["version"]) if each] or None


def _version_by_fsspec(uri: str) -> list[str] | None:
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(uri)
        info = filesystem.info(path)
    except Exception as error:  # hdfs and others that fsspec opens otherwise than pyarrow, or not at all
        _tell(uri, error)
        return None
    return next(([name, str(info[name])] for name in _TELLS if info.get(name)), None)


def _tell(uri: str, error: Exception) -> None:
    reason = " ".join(str(error).split())[:200]
    _logger.warning("%s: versions of files are not known (%s); only size and time tell a change", uri, reason)
