"""The artifacts of a run: where each lives, what it was made from, and whether it is complete.

<root>/<stage>/data/*.parquet or checkpoint/     the artifact
<root>/<stage>/dropped/*.parquet                 the rows left out of it, with their reasons
<root>/<stage>/unfinished.json                   while it is being made: the fingerprint of what is being made
<root>/<stage>/manifest.json                     written last; an artifact without one does not exist
<root>/<stage>/replies/                          paid replies of servers; outlives the artifact
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from zephyr_ray.cluster.shared_storage import not_here
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.digest_cache import kept_digest
from zephyr_ray.storage import check_there, open_filesystem, refusal, write_bytes

REPLIES = "replies"
_CHUNK = 1 << 22


def content_id(*parts: Any) -> str:
    """A hash of JSON values, 32 hex digits: a row has the same id in every run, partition and retry."""
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


class Run:
    """The root of a run and the artifacts under it."""

    def __init__(self, root: str):
        self.filesystem, self.path = open_filesystem(root)
        self.is_local = isinstance(self.filesystem, pafs.LocalFileSystem)
        self.root = self.path if self.is_local else root.rstrip("/")

    def artifact(self, stage: str) -> Artifact:
        return Artifact(self, stage)

    def check_readable(self) -> None:
        """Fails if the root's bucket cannot be read. A missing root is allowed.

        Raises:
            UserError: Names the root and what is wrong.
        """
        if not self.is_local:
            check_there(self.root, self.filesystem, self.path)

    def check_writable(self) -> None:
        """Fails before any work if the root cannot be written.

        Raises:
            UserError: Names the root and the filesystem's error.
        """
        probe = posixpath.join(self.path, ".writable")
        try:
            self.filesystem.create_dir(self.path, recursive=True)
            write_bytes(self.filesystem, probe, b"")
            self.filesystem.delete_file(probe)
        except OSError as error:
            if not self.is_local:
                raise refusal(f"run.root={self.root}", error) from None
            reason = error.strerror or str(error)
            raise UserError(
                f"run.root={self.root} cannot be written: {reason}; choose another with --set run.root="
            ) from None

    def write_text(self, name: str, text: str) -> None:
        _write_text(self.filesystem, posixpath.join(self.path, name), text)


class Artifact:
    """One stage's output. It is complete or absent: only a manifest makes it exist."""

    def __init__(self, run: Run, stage: str):
        self.run, self.stage = run, stage
        self.path = posixpath.join(run.path, stage)
        self.begun: str | None = None
        """The fingerprint of what the driver is making here; pickled with the artifact for workers."""

    @property
    def uri(self) -> str:
        return posixpath.join(self.run.root, self.stage)

    def manifest(self) -> dict[str, Any] | None:
        """The manifest, or None if the artifact does not exist."""
        return _read_json(self.run.filesystem, posixpath.join(self.path, "manifest.json"))

    def manifest_lines(self) -> list[str]:
        """The manifest's lines for a person; empty if the artifact does not exist."""
        return list((self.manifest() or {}).get("lines", ()))

    def is_finished(self, fingerprint: str) -> bool:
        manifest = self.manifest()
        return manifest is not None and manifest["fingerprint"] == fingerprint

    def begin(self, fingerprint: str) -> bool:
        """Prepares the folder for this fingerprint and returns whether an earlier attempt left work to resume.

        Work of another fingerprint is deleted, the manifest first and `unfinished.json` never, so that a kill in the
        middle leaves neither a manifest without its files nor a folder without an owner. Replies stay, so that requests
        that are made again find them.

        Raises:
            UserError: The folder holds something that no stage made.
        """
        self.begun = fingerprint
        filesystem = self.run.filesystem
        unfinished = _read_json(filesystem, self._unfinished)
        if unfinished is not None and unfinished["fingerprint"] == fingerprint:
            return True
        if unfinished is None and self.manifest() is None and _has_files(filesystem, self.path):
            raise UserError(f"{self.uri} is not empty and not a stage of a run; choose another --set run.root=")
        filesystem.create_dir(self.path, recursive=True)
        _write_text(filesystem, self._unfinished, json.dumps({"fingerprint": None}))
        self._delete_all_but_replies()
        _write_text(filesystem, self._unfinished, json.dumps({"fingerprint": fingerprint}))
        return False

    def check_visible(self) -> None:
        """Fails on a machine that does not see the stage that the driver has begun; call it before a worker writes.

        Raises:
            UserError: Names the artifact and the node.
        """
        if self.begun is None or not self.run.is_local:
            return
        found = self.read_json("unfinished.json")
        if found is None or found["fingerprint"] != self.begun:
            raise not_here(self.path)

    def _delete_all_but_replies(self) -> None:
        filesystem = self.run.filesystem
        inside = filesystem.get_file_info(pafs.FileSelector(self.path))
        for info in sorted(inside, key=lambda each: each.base_name != "manifest.json"):
            if info.type == pafs.FileType.Directory:
                if info.base_name != REPLIES:
                    filesystem.delete_dir(info.path)
            elif info.base_name != "unfinished.json":
                filesystem.delete_file(info.path)

    def finish(self, manifest: dict[str, Any]) -> None:
        """Writes the manifest, which makes the artifact exist."""
        text = json.dumps(manifest, indent=2, ensure_ascii=False, default=str)
        _write_text(self.run.filesystem, posixpath.join(self.path, "manifest.json"), text + "\n")
        self.run.filesystem.delete_file(self._unfinished)

    def write_text(self, name: str, text: str) -> None:
        """Writes a small text file of the artifact, completely or not at all."""
        _write_text(self.run.filesystem, posixpath.join(self.path, name), text)

    def write_bytes(self, name: str, content: bytes) -> None:
        """Writes a small binary file of the artifact, completely or not at all."""
        write_bytes(self.run.filesystem, posixpath.join(self.path, name), content)

    def read_json(self, name: str) -> Any:
        """The content of a JSON file of the artifact, or None if there is no such file."""
        return _read_json(self.run.filesystem, posixpath.join(self.path, name))

    def files(self, folder: str = "data") -> list[str]:
        """Paths (in the run's filesystem) of the files in this folder that the manifest names, sorted.

        Raises:
            UserError: The artifact does not exist.
        """
        manifest = self.manifest()
        if manifest is None:
            raise UserError(f"{self.uri} is not finished; make it first: zephyr-ray run RECIPE --until {self.stage}")
        return [posixpath.join(self.path, name) for name in manifest["files"] if name.startswith(folder + "/")]

    def table(self, folder: str = "data") -> pa.Table:
        """The artifact's rows, all of them in memory; of the folder `dropped` those left out, with their reasons.

        Raises:
            UserError: The artifact does not exist.
        """
        import pyarrow.parquet as pq

        tables = [pq.read_table(path, filesystem=self.run.filesystem) for path in self.files(folder)]
        return pa.concat_tables(tables) if tables else pa.table({})

    @property
    def _unfinished(self) -> str:
        return posixpath.join(self.path, "unfinished.json")


def fingerprint(stage: str, config: Any, inputs: dict[str, str]) -> str:
    """The fingerprint of an artifact, from its stage, the semantic part of its recipe, and its inputs' fingerprints."""
    return content_id(stage, config, inputs)


def fingerprint_files(paths: Iterable[str]) -> str:
    """A hash of the content of local files and folders; their location and age do not matter.

    Files that have not changed since an earlier command are not read again (`digest_cache`).
    """
    found = [(os.path.relpath(path, top), path) for top in sorted(paths) for path in sorted(_files_under(top))]
    return kept_digest(found, _digest)


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


def _has_files(filesystem: pafs.FileSystem, path: str) -> bool:
    selector = pafs.FileSelector(path, allow_not_found=True, recursive=True)
    return any(info.type == pafs.FileType.File for info in filesystem.get_file_info(selector))


def _read_json(filesystem: pafs.FileSystem, path: str) -> dict[str, Any] | None:
    try:
        with filesystem.open_input_stream(path) as stream:
            return json.loads(stream.read())
    except (FileNotFoundError, NotADirectoryError):  # a root below a file is refused later, when it is written
        return None


def _write_text(filesystem: pafs.FileSystem, path: str, text: str) -> None:
    write_bytes(filesystem, path, text.encode())
