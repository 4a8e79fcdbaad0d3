"""Fingerprints and ids: hashes of content, which are the same on every machine, in every run, partition and retry."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterable
from typing import Any

from zephyr_ray.pipeline.digest_cache import kept_digest

_CHUNK = 1 << 22


def content_id(*parts: Any) -> str:
    """A hash of JSON values, 32 hex digits: a row has the same id in every run, partition and retry."""
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def fingerprint(stage: str, config: Any, inputs: dict[str, str]) -> str:
    """The fingerprint of an artifact, from its stage, the semantic part of its recipe, and its inputs' fingerprints."""
    return content_id(stage, config, inputs)


def fingerprint_files(paths: Iterable[str], without: Collection[str] = ()) -> str:
    """A hash of the content of local files and folders; their location and age do not matter.

    Files that have not changed since an earlier command are not read again (`digest_cache`).

    Args:
        paths: The files and folders.
        without: Names of files in such a folder that do not count, relative to it.
    """
    found = [(os.path.relpath(path, top), path) for top in sorted(paths) for path in sorted(_files_under(top))]
    return kept_digest([each for each in found if each[0] not in without], _digest)


def _digest(files: Iterable[tuple[str, str]]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, path in files:
        digest.update(name.encode())
        with open(path, "rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def _files_under(top: str) -> Iterable[str]:
    if os.path.isfile(top):
        yield top
    for folder, _, names in os.walk(top):
        yield from (os.path.join(folder, name) for name in names)
