"""Sources of raw rows: JSON lines, JSON arrays, Parquet, folders, URIs, Hugging Face datasets and functions.

The driver only lists what there is to read (`SourcePart`s). Reader tasks stream each part, JSON in chunks of whole
lines of a megabyte, and other tasks split and decode them in parallel: nothing ever holds a file, let alone all rows.
"""

from __future__ import annotations

import functools
import json
import os
import posixpath
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from zephyr_ray.cluster import connect, shared_storage
from zephyr_ray.config.data import Files, HubDataset, RowFunction, Source
from zephyr_ray.data.io import readers
from zephyr_ray.data.io.file_tasks import MOST_TASKS
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline import plugin
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.file_versions import file_versions
from zephyr_ray.pipeline.fingerprints import content_id, fingerprint_files
from zephyr_ray.storage import check_there, is_uri, refusal

if TYPE_CHECKING:
    import ray.data

OF_THE_RUN = "judgments"
"""What is not read from outside: the run's own judgments."""
GENERATED = "generated"
"""As `OF_THE_RUN` for dialogues: those that the run's teachers made."""
RAW_ROW = pa.schema([("source", pa.string()), ("line", pa.large_binary())])
"""A row as it was read: `file:number` (line, array element or row, from 1), and its JSON. Those of Parquet have `row`
instead of `line`: a struct of the file's columns."""

_BLOCK_BYTES = 2 << 20  # of raw rows for one task: enough to hide Ray's overhead, small enough to keep memory flat
_IN_FLIGHT_BYTES = 256 << 20  # of blocks between the operators: a reader that is faster than its consumer waits
_AT_ONCE = 16  # files that the driver looks at, where each may be some way off
_READER_CPUS = 0.25  # reading waits on the disk; and operators that ask for different resources are not fused
_SUFFIXES = re.compile(r"\.(jsonl|json|ndjson)(\.gz)?$|\.parquet$", re.IGNORECASE)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")

Kind = Literal["lines", "array", "parquet", "hub"]


class SourcePart(TypedDict):
    """What one reader task reads."""

    kind: Kind
    uri: str
    """File or URI; for a hub dataset its id."""
    unit: int
    """Row group of a Parquet file, shard of a hub dataset; else 0."""
    units: int
    """How many shards the hub dataset is cut into; else 1."""
    first: int
    """Number of its first row."""
    split: str
    revision: str


def read_rows(spec: Source, split: str = "train", seed: int = 0, *, num_cpus: float = 1) -> ray.data.Dataset:
    """A stream of raw rows (`RAW_ROW`) of everything that a spec names.

    Args:
        spec: Files (.jsonl, .json, .gz of both, .parquet), folders of these, URIs, hub datasets, or a function.
        split: Split of a dataset that is given as text (`org/name`, `org/name@revision`).
        seed: What a function is called with.
        num_cpus: Logical CPUs of the tasks that split what was read into rows; a map that asks for as many is part of
            the same tasks.

    Raises:
        UserError: Something is missing, unreadable, empty or of an unknown kind. Raised here, before any Ray work.
    """
    if isinstance(spec, RowFunction):
        plugin.load("source", spec.function)  # a wrong name fails here, before any work
        call = {"function": spec.function, "options": json.dumps(spec.options), "seed": seed}
        chunks = stream([call], readers.call_function)
    else:
        chunks = stream(parts_of(spec, split), readers.read_part)
    return chunks.map_batches(readers.split_lines, batch_format="pyarrow", batch_size=None, num_cpus=num_cpus)


def read_artifact(artifact: Artifact) -> ray.data.Dataset:
    """A stream of the rows of an artifact.

    Raises:
        UserError: The artifact does not exist.
    """
    read = functools.partial(readers.read_table, filesystem=artifact.run.filesystem)
    return stream([{"path": path} for path in artifact.files()], read)


def check_all_read(artifact: Artifact, rows: int) -> None:
    """Holds a count of rows that came out of `read_artifact` against the manifest.

    Raises:
        RuntimeError: They differ.
    """
    there = count_rows(artifact)
    if there != rows:
        raise RuntimeError(f"{artifact.uri} holds {there} rows, and {rows} arrived")


def count_rows(artifact: Artifact) -> int:
    """Rows of an artifact, from its manifest; from its Parquet footers where that does not say.

    Raises:
        UserError: The artifact does not exist.
    """
    rows = artifact.rows()
    if rows is not None:
        return rows
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        footers = pool.map(lambda path: pq.read_metadata(path, filesystem=artifact.run.filesystem), artifact.files())
        return sum(footer.num_rows for footer in footers)


def read_first_row(artifact: Artifact, file: str) -> dict[str, Any]:
    """The first row of one of an artifact's files, which holds at least one."""
    with pq.ParquetFile(posixpath.join(artifact.path, file), filesystem=artifact.run.filesystem) as opened:
        return next(opened.iter_batches(batch_size=1)).to_pylist()[0]


def stream(items: Sequence[Mapping[str, Any]], read: Any) -> ray.data.Dataset:
    """A dataset of what `read(batch of one item)` yields for each item, in at most `MOST_TASKS` tasks; each streams, so
    that memory is bounded.
    """
    import ray.data  # here: fingerprints of data are all that a command with nothing to do needs of this module

    tasks = max(1, min(len(items), MOST_TASKS))
    dataset = ray.data.from_items([dict(item) for item in items], override_num_blocks=tasks)
    context = dataset.context  # this dataset's own copy
    context.target_max_block_size = _BLOCK_BYTES
    limits = context.execution_options.resource_limits
    context.execution_options.resource_limits = limits.copy(object_store_memory=_IN_FLIGHT_BYTES)
    readers_at_once = None if connect.is_joined() else connect.cores()
    return dataset.map_batches(
        read, batch_size=1, batch_format="pyarrow", num_cpus=_READER_CPUS, concurrency=readers_at_once
    )


def semantic_source(spec: Source | None, split: str = "train") -> tuple[Any, str]:
    """A source and its split as the settings of a stage hold them: the same, however a recipe writes it.

    Args:
        spec: The source.
        split: Split of a dataset that is given as text.
    """
    if isinstance(spec, RowFunction):
        return {"function": spec.function, "options": spec.options}, split
    if isinstance(spec, HubDataset):
        return _hub_name(spec), spec.split
    if isinstance(spec, Files):
        return spec.paths[0] if len(spec.paths) == 1 else list(spec.paths), split
    return list(spec) if isinstance(spec, tuple) else spec, split


class OutsideRows:
    """What a stage reads from outside of the run. A dataset's revision is resolved once, so that the commit in the
    fingerprint is the one that is recorded and read."""

    def __init__(self, name: str, spec: Source | None):
        """
        Args:
            name: Of the stage's input.
            spec: What is read; None or `OF_THE_RUN`: nothing from outside.
        """
        self.name, self._spec = name, None if spec == OF_THE_RUN else spec

    def fingerprints(self) -> dict[str, str]:
        """Fingerprints by name; of remote files also those of their versions, of functions also of what they import.

        Raises:
            UserError: Something is missing or cannot be read.
        """
        if self._spec is None:
            return {}
        if isinstance(self._spec, RowFunction):
            return plugin.fingerprints(self.name, "source", self._spec.function)
        return {self.name: describe_source(self.at_commits)} | self._versions()

    def commits(self) -> dict[str, str]:
        """The commit of each dataset of the hub, by its id. Raises as `fingerprints`."""
        return {name.partition("@")[0]: sha for name, sha in self._found.items()}

    @functools.cached_property
    def at_commits(self) -> Any:
        """The source, whose datasets name the commit that was found. Raises as `fingerprints`."""
        spec, found = self._spec, self._found
        if spec is None or not found:
            return spec
        if isinstance(spec, HubDataset):
            return spec.model_copy(update={"revision": found[_hub_name(spec)]})
        return tuple(f"{name.partition('@')[0]}@{found[name]}" if name in found else name for name in names_of(spec))

    @functools.cached_property
    def _found(self) -> dict[str, str]:
        if self._spec is None or isinstance(self._spec, RowFunction):
            return {}
        return {name: _commit(name) for name, split in _names_and_splits(self._spec) if split is not None}

    def _versions(self) -> dict[str, str]:
        assert self._spec is not None
        files = [name for name, split in _names_and_splits(self._spec) if split is None and is_uri(name)]
        versions = file_versions([file for name in files for file in _files(name)])
        return {f"{self.name} versions": content_id(versions)} if any(versions) else {}


def describe_source(spec: Source) -> str:
    """A fingerprint of what a spec names: of the content of local files, of size and time of remote ones, of the commit
    of a hub dataset.

    Raises:
        UserError: Something is missing or cannot be read.
    """
    return content_id(
        [_describe_files(name) if split is None else _describe_hub(name) for name, split in _names_and_splits(spec)]
    )


def local_files(field: str, spec: Source | None) -> tuple[tuple[str, str], ...]:
    """(field, path) of the local files of a spec, which workers open."""
    if spec is None or spec == OF_THE_RUN or isinstance(spec, RowFunction | HubDataset):
        return ()
    return shared_storage.local_files(field, names_of(spec))


def check_named(field: str, spec: Source | None) -> None:
    """Refuses a stage whose recipe does not say what it reads.

    Raises:
        UserError: Naming the field.
    """
    if spec is None:
        raise UserError(f"{field} is not set; name files, folders, a dataset id or a function (docs/data.md)")


def names_of(spec: Source) -> list[str]:
    """Everything that a spec names, for a person and for the readers."""
    if isinstance(spec, RowFunction):
        return [spec.function]
    if isinstance(spec, HubDataset):
        return [_hub_name(spec)]
    names = [spec] if isinstance(spec, str) else list(spec.paths if isinstance(spec, Files) else spec)
    if not names or not all(names):
        raise UserError("no data: name a file, a folder or a Hugging Face dataset id")
    return names


def parts_of(spec: Source, split: str = "train") -> list[SourcePart]:
    """What there is to read of files and datasets. Arguments and errors as `read_rows`."""
    return [
        part
        for name, its_split in _names_and_splits(spec, split)
        for part in (_parts_of_files(name) if its_split is None else hub_parts(name, its_split))
    ]


def _names_and_splits(spec: Source, split: str = "train") -> list[tuple[str, str | None]]:
    """Each name of a spec, with the split where it is a dataset's and None where it is of files."""
    if isinstance(spec, HubDataset):
        return [(_hub_name(spec), spec.split)]
    if isinstance(spec, Files):
        return [(name, None) for name in names_of(spec)]
    return [(name, split if _is_hub_id(name) else None) for name in names_of(spec)]


def _hub_name(dataset: HubDataset) -> str:
    return f"{dataset.id}@{dataset.revision}" if dataset.revision else dataset.id


def _parts_of_files(name: str) -> list[SourcePart]:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return [part for parts in pool.map(_file_parts, _files(name)) for part in parts]


def _is_hub_id(name: str) -> bool:
    looks_like_file = is_uri(name) or os.path.exists(name) or _SUFFIXES.search(name) or name.endswith(".gz")
    return not looks_like_file and _HUB_ID.fullmatch(name) is not None


def _files(name: str) -> list[str]:
    """The files that a path or URI names, each as a path or URI."""
    filesystem, path = readers.open_uri(name)
    info = _file_info(filesystem, path, name)
    if info.type == pafs.FileType.NotFound:
        if is_uri(name):
            check_there(name, filesystem, path)  # is it the bucket that is not there?
        raise UserError(f"{name} is not there; give the path of a file or folder, a URI or a Hugging Face dataset id")
    if info.type == pafs.FileType.File:
        if not _SUFFIXES.search(name):
            raise UserError(f"{name} is of no known kind; known are .jsonl, .json, .jsonl.gz, .json.gz and .parquet")
        return [name]
    try:
        found = filesystem.get_file_info(pafs.FileSelector(path, recursive=True))
    except OSError as error:
        raise _unreadable(name, error) from None
    files = [info for info in found if info.type == pafs.FileType.File and _SUFFIXES.search(info.path)]
    # A file without a byte is one that its writer was killed over: it has no rows, and takes none from the others.
    inside = sorted(info.path for info in files if info.size != 0) or sorted(info.path for info in files)
    if not inside:
        raise UserError(f"{name} holds no .jsonl, .json, .jsonl.gz, .json.gz or .parquet file")
    return [name.rstrip("/") + entry.removeprefix(path.rstrip("/")) for entry in inside]


def _file_info(filesystem: pafs.FileSystem, path: str, name: str) -> pafs.FileInfo:
    try:
        return filesystem.get_file_info(path)
    except OSError as error:
        raise _unreadable(name, error) from None


def _file_parts(uri: str) -> list[SourcePart]:
    """Opens a file once on the driver, so that a wrong one fails before any work."""
    try:
        if uri.lower().endswith(".parquet"):
            return _parquet_parts(uri)
        start = readers.first_byte(uri)
    except (OSError, EOFError, pa.ArrowException) as error:
        raise _unreadable(uri, error) from None
    if not start:
        raise UserError(f"{uri} is empty; give a file with at least one row")
    return [_part("array" if start == b"[" else "lines", uri)]


def _parquet_parts(uri: str) -> list[SourcePart]:
    filesystem, path = readers.open_uri(uri)
    with pq.ParquetFile(path, filesystem=filesystem) as file:
        sizes = [file.metadata.row_group(index).num_rows for index in range(file.metadata.num_row_groups)]
    if not sum(sizes):
        raise UserError(f"{uri} has no rows; give a file with at least one")
    return [_part("parquet", uri, unit=index, first=1 + sum(sizes[:index])) for index in range(len(sizes))]


def hub_parts(name: str, split: str) -> list[SourcePart]:
    """One part for each shard (file) of a split of a dataset that `datasets.load_dataset` finds."""
    repo, _, revision = name.partition("@")
    try:
        shards = readers.open_hub(repo, split, revision).num_shards
    except Exception as error:  # datasets and huggingface_hub raise a dozen unrelated kinds for "not there"
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{name} is no file or folder here, and as a Hugging Face dataset (split {split}) it cannot be read: "
            f"{type(error).__name__}: {reason}"
        ) from None
    return [_part("hub", repo, unit=index, units=shards, split=split, revision=revision) for index in range(shards)]


def _part(
    kind: Kind, uri: str, *, unit: int = 0, units: int = 1, first: int = 1, split: str = "", revision: str = ""
) -> SourcePart:
    return {
        "kind": kind,
        "uri": uri,
        "unit": unit,
        "units": units,
        "first": first,
        "split": split,
        "revision": revision,
    }


def _describe_files(name: str) -> Any:
    filesystem, path = readers.open_uri(name)
    files = _files(name)
    if isinstance(filesystem, pafs.LocalFileSystem):
        try:
            # folder by folder and file by file: what is beside the data files in a folder does not count
            local = [readers.open_uri(uri)[1] for uri in files]
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                digests = pool.map(lambda file: fingerprint_files([file]), local)
                return [[os.path.relpath(file, path), digest] for file, digest in zip(local, digests, strict=True)]
        except OSError as error:
            raise _unreadable(name, error) from None
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        infos = list(pool.map(lambda uri: _file_info(filesystem, readers.open_uri(uri)[1], uri), files))
    return [[uri, info.size, info.mtime_ns] for uri, info in zip(files, infos, strict=True)]


def _describe_hub(name: str) -> str:
    return f"{name.partition('@')[0]}@{_commit(name)}"


def _commit(name: str) -> str:
    """The commit that a dataset's name (`owner/name`, `owner/name@revision`) refers to now."""
    from huggingface_hub import HfApi

    repo, _, revision = name.partition("@")
    if _COMMIT.fullmatch(revision):
        return revision
    try:
        return str(HfApi().dataset_info(repo, revision=revision or None).sha)
    except Exception as error:  # see hub_parts
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{name} is no file or folder here, and as a Hugging Face dataset it cannot be found: "
            f"{type(error).__name__}: {reason}"
        ) from None


def _unreadable(name: str, error: Exception) -> UserError:
    if is_uri(name) and isinstance(error, OSError):
        return refusal(name, error)
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return UserError(f"{name} cannot be read: {' '.join(reason.split())[:200]}; check the file and its permissions")
