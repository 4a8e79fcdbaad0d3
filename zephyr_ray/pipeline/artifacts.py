"""The artifacts of a run: where each lives, what it was made from, and whether it is complete.

<root>/<stage>/data/e<epoch>-*.parquet              the artifact, or
<root>/<stage>/checkpoint-<epoch>/                  a model; on a disk `checkpoint` is a link to it
<root>/<stage>/dropped/e<epoch>-*.parquet           the rows left out of it, with their reasons
<root>/<stage>/changed/e<epoch>-*.parquet           what cleaning changed in the rows that were kept
<root>/<stage>/unfinished-<epoch>.json              while it is being made: what it is made from, and the files of
                                                    earlier tries that count
<root>/<stage>/manifest-<epoch>.json                written last; an artifact without one does not exist. On a disk
                                                    `manifest.json` is a link to it
<root>/<stage>/replies/                             paid replies of servers; outlives the artifact
<root>/<stage>.replaced-<fingerprint>-<epoch>/      an artifact that was made anew

The epoch is that of the lease (`lease`): each driver of a run has a higher one than those before it. An artifact is
finished if the highest epoch of a manifest is not lower than the highest of an `unfinished` file. So a driver whose
lease was taken over can write what it likes: its epoch is lower than that of the file with which its successor began,
nothing of it is in a manifest that counts, and no name that it writes is a successor's. It deletes only what lies
beside a manifest of its own that counts. Without a lease the epoch is 0, and names have none.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from zephyr_ray.cluster.shared_storage import not_here
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline import epochs
from zephyr_ray.pipeline.epochs import MANIFEST, UNFINISHED
from zephyr_ray.pipeline.folder import Folder
from zephyr_ray.storage import check_there, open_filesystem, refusal, write_bytes

REPLIES = "replies"
ROW_FOLDERS = ("data", "dropped", "changed")
"""Where an artifact's rows lie: those that are kept, those that were left out, and what was changed of the kept."""


class Run:
    """The root of a run and the artifacts under it."""

    def __init__(self, root: str):
        self.filesystem, self.path = open_filesystem(root)
        self.is_local = isinstance(self.filesystem, pafs.LocalFileSystem)
        self.root = self.path if self.is_local else root.rstrip("/")
        self.epoch = 0
        """That of this driver's lease; pickled with artifacts for workers."""

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
        write_bytes(self.filesystem, posixpath.join(self.path, name), text.encode())

    def highest_epoch(self) -> int:
        """The highest epoch of any artifact, for a run whose lease was deleted."""
        selector = pafs.FileSelector(self.path, allow_not_found=True, recursive=True)
        found = self.filesystem.get_file_info(selector)
        return max((epochs.epoch_of(info.base_name) for info in found), default=0)


@dataclass(frozen=True)
class FileEntry:
    """A file of a manifest."""

    name: str
    """Relative to the artifact."""
    rows: int | None = None
    """None for files that hold no rows, and in manifests that do not say."""
    bytes: int | None = None
    """Its size; None in manifests that do not say."""


class Artifact(Folder):
    """One stage's output. It is complete or absent: only a manifest makes it exist."""

    def __init__(self, run: Run, stage: str):
        super().__init__(run.filesystem, posixpath.join(run.path, stage))
        self.run, self.stage = run, stage
        self.begun: str | None = None
        """The fingerprint of what the driver is making here; pickled with the artifact for workers."""
        self.adopted: tuple[str, ...] = ()
        """The files of kept rows of earlier tries that count, relative to the artifact; known once it is begun."""

    @property
    def uri(self) -> str:
        return posixpath.join(self.run.root, self.stage)

    @property
    def epoch(self) -> int:
        return self.run.epoch

    def manifest(self) -> dict[str, Any] | None:
        """The manifest, or None if the artifact does not exist."""
        states = self.states()
        return self.read_json(epochs.state_name(MANIFEST, states.finished)) if states.is_finished else None

    def unfinished(self) -> dict[str, Any] | None:
        """What `begin` wrote for an artifact that is not finished, else None."""
        states = self.states()
        return self.read_json(epochs.state_name(UNFINISHED, states.begun)) if states.is_unfinished else None

    def record(self, states: epochs.States | None = None) -> dict[str, Any] | None:
        """The manifest, or what `begin` wrote where there is none that counts; None if the artifact has not begun.

        Args:
            states: How it stands, if that is known (`states`).
        """
        states = states or self.states()
        kind = MANIFEST if states.is_finished else UNFINISHED
        return self.read_json(epochs.state_name(kind, states.highest)) if states.highest >= 0 else None

    def manifest_lines(self) -> list[str]:
        """The manifest's lines for a person; empty if the artifact does not exist."""
        return list((self.manifest() or {}).get("lines", ()))

    def is_finished(self, fingerprint: str) -> bool:
        manifest = self.manifest()
        return manifest is not None and manifest["fingerprint"] == fingerprint

    def was_finished(self) -> bool:
        """Whether there is a manifest, even one that does not count because its driver had just been taken over."""
        return self.states().finished >= 0

    def check_ours(self) -> None:
        """Refuses a folder with something in it that no stage made.

        Raises:
            UserError: Names the folder.
        """
        if self.states() == epochs.States() and self.has_files():
            raise UserError(f"{self.uri} is not empty and not a stage of a run; choose another --set run.root=")

    def begin(self, fingerprint: str, config: Any = None, inputs: Mapping[str, str] | None = None) -> bool:
        """Begins the artifact, and returns whether an earlier try left work to resume.

        The files of an earlier try of the same fingerprint are adopted, as far as they are there now. Those of another
        fingerprint do not count, and go when the artifact is finished.

        Args:
            fingerprint: Of what is made.
            config: The semantic values that it is made from.
            inputs: The fingerprints of what it is made from.

        Raises:
            UserError: The folder holds something that no stage made, or it is another driver's.
            ValueError: The artifact is finished.
        """
        states = self.states()
        self._check_epoch(states)
        if states.is_finished:
            raise ValueError(f"{self.uri} is finished; move it aside first")
        self.check_ours()
        earlier = self.unfinished() or {}
        if "moving_to" in earlier:
            raise self.changed_meanwhile()
        resumes = earlier.get("fingerprint") == fingerprint
        self.begun = fingerprint
        self.adopted = tuple(self.files_that_count()) if resumes else ()
        self.run.filesystem.create_dir(self.path, recursive=True)
        if not resumes and not self.epoch:  # no names would tell the tries apart
            self._write_state(UNFINISHED, {"fingerprint": None})
            self._delete_all_but_replies()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self.seal(
            {
                "fingerprint": fingerprint,
                "config": config,
                "inputs": inputs or {},
                "adopted": self.adopted,
                "begun": earlier.get("begun", now) if resumes else now,
            },
            states,
        )
        return resumes

    def seal(self, state: Mapping[str, Any], seen: epochs.States) -> None:
        """Writes how far the artifact is: from now on it is not finished, and no driver of a lower epoch counts.

        Args:
            state: What `unfinished` returns from now on.
            seen: The states on which the decision to do so was made.

        Raises:
            UserError: A driver that was taken over has changed the artifact since; the seal is taken back.
        """
        self._write_state(UNFINISHED, state)
        mine = epochs.state_name(UNFINISHED, self.epoch)
        others = epochs.states(name for name in self.names() if name != mine)
        if others.finished > seen.finished or others.begun > seen.begun:
            self.delete(mine)
            raise self.changed_meanwhile()

    def changed_meanwhile(self) -> UserError:
        """The error where a driver that was taken over has changed the artifact since this one looked at it."""
        return UserError(f"{self.uri} was changed by the command that held the run before; start this one again")

    def check_current(self) -> None:
        """Fails if another driver has taken the run over, or on a machine that does not see what this one has begun.
        Workers call it before they write.

        Raises:
            UserError: Names the artifact, and the node.
        """
        if self.begun is None:
            return
        self.check_epoch()
        if self.run.is_local:
            found = self.read_json(epochs.state_name(UNFINISHED, self.epoch))
            if found is None or found["fingerprint"] != self.begun:
                raise not_here(self.path)

    def check_epoch(self) -> None:
        """Fails if a driver of a higher epoch has begun or finished the artifact.

        Raises:
            UserError: Names the artifact.
        """
        self._check_epoch(self.states())

    def _check_epoch(self, states: epochs.States) -> None:
        if states.highest > self.epoch:
            raise UserError(f"{self.uri} is made by another command now, which has taken the run over; this one ends")

    def finish(self, manifest: dict[str, Any]) -> None:
        """Writes the manifest, which makes the artifact exist, and deletes what an earlier try left beside it.

        Raises:
            UserError: Another driver has taken the run over: its artifact counts.
        """
        self.check_epoch()
        self._write_state(MANIFEST, {**manifest, "files": self._with_sizes(manifest.get("files", ()))})
        self.check_epoch()
        self.tidy()

    def tidy(self) -> None:
        """Does what is left to do of a finished artifact, where a kill may have prevented it: links its names, and
        deletes what its driver and those before it wrote on the way."""
        manifest = self.manifest()
        if manifest is None:
            return
        epoch = manifest.get("epoch", 0)
        keep = {"manifest.json", epochs.state_name(MANIFEST, epoch), manifest.get("checkpoint")}
        self.link("manifest.json", epochs.state_name(MANIFEST, epoch))
        self.link("checkpoint", manifest.get("checkpoint", "checkpoint"))
        for name in self.names():
            if epochs.is_state(name) and name not in keep and epochs.epoch_of(name) <= epoch:
                self.delete(name)
        named = {each if isinstance(each, str) else each["name"] for each in manifest.get("files", ())}
        for folder in ("", *ROW_FOLDERS):
            for name in self.names(folder):
                path = posixpath.join(folder, name)
                if path not in named | keep and 0 < epochs.epoch_of(name) <= epoch:
                    self.delete(path)
        for folder in manifest.get("temporary", ()):
            names = self.names(folder)
            earlier = [name for name in names if epochs.epoch_of(name) <= epoch]
            for name in earlier if len(earlier) < len(names) else ():
                self.delete(posixpath.join(folder, name))
            if len(earlier) == len(names):
                self.delete(folder)

    def files_that_count(self) -> list[str]:
        """The files of kept rows of an unfinished artifact, relative to it: those of the driver that has begun it, and
        those that it adopted."""
        unfinished = self.unfinished() or {}
        adopted, epoch = set(unfinished.get("adopted", ())), unfinished.get("epoch", 0)
        there = [posixpath.join("data", name) for name in self.names("data") if name.endswith(".parquet")]
        return sorted(name for name in there if name in adopted or epochs.epoch_of(posixpath.basename(name)) == epoch)

    def new_name(self, name: str) -> str:
        """The name under which this driver writes a file, relative to the artifact."""
        folder, base = posixpath.split(name)
        return posixpath.join(folder, epochs.written(base, self.epoch))

    def new_prefix(self, tries: int) -> str:
        """What the names of this driver's files of rows begin with. Without a lease the number of files that earlier
        tries have left tells them apart."""
        return epochs.written("", self.epoch) or (f"{tries:03d}-" if tries else "")

    def new_checkpoint(self) -> str:
        """The name of the folder into which this driver writes a model."""
        return epochs.checkpoint_name(self.epoch)

    def write_text(self, name: str, text: str) -> None:
        """Writes a small text file of the artifact, completely or not at all. Raises as `check_current`."""
        self.write_bytes(name, text.encode())

    def write_bytes(self, name: str, content: bytes) -> None:
        """Writes a small binary file of the artifact, completely or not at all. Raises as `check_current`."""
        self.check_current()
        write_bytes(self.run.filesystem, posixpath.join(self.path, name), content)

    def entries(self, folder: str = "data") -> list[FileEntry]:
        """The files in this folder that the manifest names, sorted.

        Raises:
            UserError: The artifact does not exist.
        """
        return _entries(self._finished(), folder)

    def check_files(self) -> None:
        """Checks that the files which the manifest names are there, as long as they were; with one look per folder.

        Raises:
            UserError: The artifact does not exist, or files are missing or of another size.
        """
        manifest = self._finished()
        for folder in ROW_FOLDERS:
            sizes = self.sizes(folder)
            wrong = [
                entry.name
                for entry in _entries(manifest, folder)
                if sizes.get(entry.name) != (entry.bytes or sizes.get(entry.name, -1))
            ]
            if wrong:
                raise UserError(
                    f"{self.uri} is damaged: files that its manifest names are missing or of another size "
                    f"({len(wrong)}, the first is {wrong[0]}); put them back, or delete {self.uri} to make it anew"
                )

    def files(self, folder: str = "data") -> list[str]:
        """Paths (in the run's filesystem) of the files in this folder that the manifest names. Raises as `entries`."""
        return [posixpath.join(self.path, entry.name) for entry in self.entries(folder)]

    def uris(self) -> tuple[str, ...]:
        """The files of its rows as any reader of outside files takes them. Raises as `entries`."""
        return tuple(posixpath.join(self.uri, entry.name) for entry in self.entries())

    def rows(self, folder: str = "data") -> int | None:
        """Rows of these files by the manifest; None if it does not say. Raises as `entries`."""
        total = 0
        for entry in self.entries(folder):
            if entry.rows is None:
                return None
            total += entry.rows
        return total

    def table(self, folder: str = "data") -> pa.Table:
        """The artifact's rows, all of them in memory; of the folder `dropped` those left out, with their reasons.

        Raises:
            UserError: The artifact does not exist.
        """
        import pyarrow.parquet as pq

        tables = [pq.read_table(path, filesystem=self.run.filesystem) for path in self.files(folder)]
        return pa.concat_tables(tables) if tables else pa.table({})

    def _finished(self) -> dict[str, Any]:
        manifest = self.manifest()
        if manifest is None:
            raise UserError(f"{self.uri} is not finished; make it first: zephyr-ray run RECIPE --until {self.stage}")
        return manifest

    def states(self) -> epochs.States:
        """How the artifact stands by the names of its files."""
        return epochs.states(self.names())

    def _with_sizes(self, files: Sequence[Any]) -> list[Any]:
        entries = [each for each in files if not isinstance(each, str)]
        folders = {posixpath.dirname(each["name"]) for each in entries}
        sizes = {name: size for folder in folders for name, size in self.sizes(folder).items()}
        lost = [each["name"] for each in entries if each["name"] not in sizes]
        if lost:
            self.check_epoch()
            raise RuntimeError(f"{self.uri}: {lost[0]} was written and is not there")
        return [each if isinstance(each, str) else {**each, "bytes": sizes[each["name"]]} for each in files]

    def _write_state(self, kind: str, value: Mapping[str, Any]) -> None:
        text = json.dumps({**value, "epoch": self.epoch}, indent=2, ensure_ascii=False, default=str) + "\n"
        path = posixpath.join(self.path, epochs.state_name(kind, self.epoch))
        write_bytes(self.run.filesystem, path, text.encode())

    def _delete_all_but_replies(self) -> None:
        filesystem = self.run.filesystem
        for info in filesystem.get_file_info(pafs.FileSelector(self.path)):
            if info.type == pafs.FileType.Directory:
                if info.base_name != REPLIES:
                    filesystem.delete_dir(info.path)
            elif not epochs.is_state(info.base_name):
                filesystem.delete_file(info.path)


def _entries(manifest: Mapping[str, Any], folder: str) -> list[FileEntry]:
    found = [
        FileEntry(each) if isinstance(each, str) else FileEntry(each["name"], each["rows"], each.get("bytes"))
        for each in manifest.get("files", ())
    ]
    return sorted((entry for entry in found if entry.name.startswith(folder + "/")), key=lambda entry: entry.name)
