"""Digests of local files that were read before, so that a command does not read a terabyte to find it unchanged.

A digest is kept in this machine's cache with the size, inode, time of modification and time of change of each file. It
is used only if all of them are the same: a file that is written anew has another inode or time of change, even where
its size and time of modification are set to what they were. What has changed only just now is not kept, because a file
system's clock may be too coarse to tell a change that follows.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Sequence

from zephyr_ray.storage import cache_root

_SMALL = 1 << 20  # bytes that are read as quickly as looked up
SETTLED_NS = 2_000_000_000

NamedFile = tuple[str, str]
"""(name, path)."""
State = list[list[str | int]]


def kept_digest(files: Sequence[NamedFile], digest_of: Callable[[Sequence[NamedFile]], str]) -> str:
    """The digest of local files: that of an earlier command if they are as they were, else what `digest_of` returns.

    Args:
        files: The files, and the names under which they are part of the digest.
        digest_of: Reads them.

    Raises:
        OSError: A file cannot be read.
    """
    before = _state(files)
    if sum(int(size) for _, _, size, *_ in before) < _SMALL:
        return digest_of(files)
    path = _place(files)
    kept = _read(path)
    if kept is not None and kept["files"] == before:
        return str(kept["digest"])
    started = time.time_ns()
    digest = digest_of(files)
    if _state(files) == before and _is_settled(before, started):
        _write(path, {"files": before, "digest": digest})
    return digest


def _state(files: Sequence[NamedFile]) -> State:
    stats = [(name, os.path.abspath(path), os.stat(path)) for name, path in files]
    return [[name, path, at.st_size, at.st_dev, at.st_ino, at.st_mtime_ns, at.st_ctime_ns] for name, path, at in stats]


def _is_settled(state: State, now_ns: int) -> bool:
    return all(int(change) < now_ns - SETTLED_NS for *_, change in state)


def _place(files: Sequence[NamedFile]) -> str:
    names = json.dumps([(name, os.path.abspath(path)) for name, path in files])
    name = hashlib.blake2b(names.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
    return os.path.join(cache_root(), "digests", name[:2], f"{name}.json")


def _read(path: str) -> dict[str, object] | None:
    """What was kept; None where nothing was, or what is there is broken."""
    try:
        with open(path, encoding="utf-8") as stream:
            kept = json.load(stream)
    except (OSError, ValueError):
        return None
    return kept if isinstance(kept, dict) and isinstance(kept.get("digest"), str) and "files" in kept else None


def _write(path: str, kept: dict[str, object]) -> None:
    """Keeps it, whole; a cache that cannot be written costs time, and nothing else."""
    partial = f"{path}.{secrets.token_hex(4)}"
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(partial, "w", encoding="utf-8") as stream:
            json.dump(kept, stream)
        os.replace(partial, path)
    except OSError:
        return
