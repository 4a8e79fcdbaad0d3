"""Local and remote storage: filesystems of paths and URIs, whole-file writes, and a local cache of remote folders.

Credentials, region and endpoint of a bucket come from the environment of the process that opens it (AWS_ACCESS_KEY_ID,
AWS_REGION, AWS_ENDPOINT_URL ...). They are never part of a URI, so they get into no recipe, manifest or log.
"""

from __future__ import annotations

import os
import posixpath
import re
import shutil

import pyarrow as pa
import pyarrow.fs as pafs
from filelock import FileLock

from zephyr_ray.errors import UserError

_WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".pth", ".h5", ".msgpack", ".onnx")
_SECRET = re.compile(r"(?<=://)[^/@]*@")
_SAID = re.compile(r"AWS Error (?P<code>[A-Z_]+).*? operation: (?P<text>.*?)(?: \(Request ID: \S+\))?$", re.DOTALL)
_REFUSED = {
    "ACCESS_DENIED",
    "INVALID_ACCESS_KEY_ID",
    "SIGNATURE_DOES_NOT_MATCH",
    "INVALID_CLIENT_TOKEN_ID",
    "UNRECOGNIZED_CLIENT",
    "INVALID_SIGNATURE",
    "MISSING_AUTHENTICATION_TOKEN",
    "ACCOUNT_PROBLEM",
    "REQUEST_EXPIRED",
}


def is_uri(path: str) -> bool:
    return "://" in path


def open_filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    """The pyarrow filesystem and the path in it, for a local path or a URI.

    Raises:
        UserError: The URI's scheme is unknown, it contains options or credentials, or its filesystem cannot be opened.
    """
    if not is_uri(uri):
        return pafs.LocalFileSystem(), os.path.abspath(os.path.expanduser(uri))
    _check_plain(uri)
    try:
        return pafs.FileSystem.from_uri(uri)
    except OSError as error:
        raise refusal(uri, error) from None
    except (ValueError, ImportError, pa.ArrowException) as error:
        raise UserError(f"{uri}: {error}; give a local path or a URI that pyarrow opens (s3://, gs://)") from None


def _check_plain(uri: str) -> None:
    """Refuses credentials and options, which would be printed, stored in manifests and joined to file names."""
    scheme, _, rest = uri.partition("://")
    user = rest.partition("/")[0].rpartition("@")[0]
    if user and (scheme in ("s3", "gs", "gcs") or ":" in user):
        raise UserError(
            f"{_SECRET.sub('***@', uri)}: credentials do not belong in a URI; set them in the environment "
            "(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)"
        )
    if "?" in rest or "#" in rest:
        plain = re.split(r"[?#]", uri)[0]
        raise UserError(
            f"{plain}?...: a URI takes no options; set AWS_ENDPOINT_URL and AWS_REGION in the environment and write "
            f"{plain}"
        )


def check_there(uri: str, filesystem: pafs.FileSystem, path: str) -> None:
    """Checks with one request that a store can be read. A missing folder is allowed, a missing bucket is not.

    Raises:
        UserError: The bucket is missing, or the store refuses or does not answer.
    """
    try:
        filesystem.get_file_info(pafs.FileSelector(path))
    except FileNotFoundError:
        return
    except OSError as error:
        raise refusal(uri, error) from None


def refusal(uri: str, error: OSError) -> UserError:
    """Translates a store's error into plain words with the fix."""
    bucket = uri.partition("://")[2].partition("/")[0]
    where = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    said = _SAID.search(str(error))
    code = said["code"] if said else ""
    if code == "NO_SUCH_BUCKET" or str(error).startswith(f"Bucket '{bucket}' not found"):
        at = f" at {where}" if where else ""
        return UserError(f"{uri}: there is no bucket {bucket}{at}; make it first, or name another")
    if code in _REFUSED:
        keys = "" if os.environ.get("AWS_ACCESS_KEY_ID") else " (AWS_ACCESS_KEY_ID is not set)"
        return UserError(
            f"{uri}: access is refused ({code}); check the credentials in the environment{keys} and what they may do "
            f"in the bucket {bucket}"
        )
    if code == "NETWORK_CONNECTION":
        reason = " ".join(said["text"].rpartition("Details: ")[2].split()) if said else ""
        return UserError(
            f"{uri}: {where or 'the object store'} does not answer ({reason}); check AWS_ENDPOINT_URL and the network"
        )
    reason = error.strerror or " ".join(str(error).split())[:300]
    return UserError(f"{uri} cannot be used: {reason}")


def cache_root() -> str:
    """The folder of this machine's cache, which can be deleted at any time."""
    return os.environ.get("ZEPHYR_RAY_CACHE") or os.path.join(os.path.expanduser("~"), ".cache", "zephyr_ray")


def local_copy(uri: str, key: str, *, weights: bool = True) -> str:
    """Copies a URI's folder into this machine's cache, once for all processes, and returns the local folder.

    Args:
        uri: The folder.
        key: A hash of its identity, which changes with its content.
        weights: Whether to copy the files of a model's weights too.

    Raises:
        UserError: The folder is missing, or the store refuses.
    """
    name = f"{key}{'' if weights else '-light'}"
    target = os.path.join(cache_root(), "models", name)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.isdir(target):
        return target
    with FileLock(f"{target}.lock"):  # released if the process is killed
        if not os.path.isdir(target):
            partial = f"{target}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            _copy_folder(uri, partial, weights)
            os.rename(partial, target)
    return target


def _copy_folder(uri: str, target: str, weights: bool) -> None:
    filesystem, path = open_filesystem(uri)
    try:
        found = filesystem.get_file_info(pafs.FileSelector(path, recursive=True))
        files = [info.path for info in found if info.type == pafs.FileType.File]
        light = files if weights else [file for file in files if not file.endswith(_WEIGHTS)]
        for folder in {posixpath.dirname(file) for file in light}:
            os.makedirs(os.path.join(target, posixpath.relpath(folder, path)), exist_ok=True)
        if weights:
            pafs.copy_files(path, target, source_filesystem=filesystem)
        else:
            for file in light:
                copy = os.path.join(target, posixpath.relpath(file, path))
                pafs.copy_files(file, copy, source_filesystem=filesystem)
    except FileNotFoundError:
        files = []
    except OSError as error:
        raise refusal(uri, error) from None
    if not files:
        raise UserError(f"{uri} is not there; was it deleted? Make it anew, or name another")


def write_bytes(filesystem: pafs.FileSystem, path: str, content: bytes | memoryview) -> None:
    """Writes a file completely or not at all: by rename on a local disk, by one upload to an object store."""
    partial = f"{path}.partial" if isinstance(filesystem, pafs.LocalFileSystem) else path
    with filesystem.open_output_stream(partial) as stream:
        stream.write(content)
    if partial != path:
        filesystem.move(partial, path)
