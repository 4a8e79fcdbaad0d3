"""Resolve references to models: the location and the fingerprint of each model that a stage reads."""

from __future__ import annotations

import functools
import logging
import os
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow.fs as pafs

from zephyr_ray.cluster.shared_storage import local_folder, not_here
from zephyr_ray.config.feedback import OWN_MODELS, Deployment
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import Artifact, Run, content_id, fingerprint_files
from zephyr_ray.storage import check_there, is_uri, local_copy, open_filesystem, refusal

if TYPE_CHECKING:
    from zephyr_ray.pipeline.stage import Stage


@dataclass(frozen=True)
class ModelSource:
    """A model that every node can find, with its fingerprint. It is pickled for the process that loads it."""

    path: str
    """A folder on a disk that all nodes share, a folder's URI, or a hub id."""
    revision: str | None = None
    fingerprint: str = ""

    def local(self) -> str:
        """The folder on this machine, or the hub id. A folder at a URI is copied into the machine's cache, once.

        Raises:
            UserError: The URI's folder is gone, its store refuses, or this machine has no such folder.
        """
        return local_copy(self.path, self._cache_key()) if is_uri(self.path) else self._shared_folder()

    def without_weights(self) -> str:
        """As `local`, without the weights: enough for the tokenizer and the configuration."""
        return local_copy(self.path, self._cache_key(), weights=False) if is_uri(self.path) else self._shared_folder()

    def _shared_folder(self) -> str:
        if os.path.isabs(self.path) and not os.path.isdir(self.path):
            raise not_here(self.path)
        return self.path

    def _cache_key(self) -> str:
        return content_id(self.path, self.fingerprint)


@dataclass(frozen=True, eq=False)
class ModelInput:
    """A model that a stage reads: the checkpoint of another stage of the run, or one from outside of it."""

    name: str
    """Its name among the stage's inputs, if it comes from outside."""
    field: str
    """The field of the recipe that names it."""
    path: str | None = None
    """A folder, URI or hub id; None if a stage makes it."""
    revision: str | None = None
    stage: Stage | None = None

    @property
    def inputs(self) -> dict[str, Stage]:
        return {self.stage.kind: self.stage} if self.stage else {}

    def check_named(self) -> None:
        """Raises UserError if the recipe names no model."""
        if self.stage is None and self.path is None:
            raise UserError(f"{self.field} is not set; name a folder, a URI or a hub id")

    def outside(self) -> dict[str, str]:
        """{name: fingerprint} if it comes from outside, else empty. Raises as `external_fingerprint`."""
        return {} if self.path is None else {self.name: external_fingerprint(self.field, self.path, self.revision)}

    @property
    def local_files(self) -> tuple[tuple[str, str], ...]:
        return () if self.path is None else local_folder(self.field, self.path)

    def source(self, run: Run) -> ModelSource:
        """The model, located. Raises as `external_source` or `stage_source`."""
        if self.stage is not None:
            return stage_source(run.artifact(self.stage.name))
        assert self.path is not None
        return external_source(self.field, self.path, self.revision)


@dataclass(frozen=True, eq=False)
class DeployedModels:
    """The models that a stage deploys: checkpoints of this run and models from outside."""

    inputs: dict[str, Stage]
    """The stages that make the run's own models, by the name that deployments use for them."""
    external: tuple[ModelInput, ...]

    def outside(self) -> dict[str, str]:
        """Fingerprints of the models from outside, by deployment. Raises as `external_fingerprint`."""
        return {name: found for each in self.external for name, found in each.outside().items()}

    @property
    def local_files(self) -> tuple[tuple[str, str], ...]:
        return tuple(file for each in self.external for file in each.local_files)


def deployed_models(field: str, deployments: Sequence[Deployment], own: Mapping[str, Stage]) -> DeployedModels:
    """The models of a section's deployments.

    Args:
        field: The field of the recipe that lists them.
        deployments: The deployments.
        own: The stages of this run whose checkpoints may be deployed, by name.

    Raises:
        UserError: A deployment names a stage that this run does not have.
    """
    for each in deployments:
        if each.model in OWN_MODELS and each.model not in own:
            raise UserError(f"{field} {each.name}: this recipe has no stage {each.model}")
    inputs = {name: own[name] for name in sorted({each.model for each in deployments} & {*own})}
    external = tuple(
        ModelInput(each.name, f"{field} {each.name}", each.model, each.revision)
        for each in deployments
        if each.model not in own
    )
    return DeployedModels(inputs, external)


def external_fingerprint(field: str, path: str, revision: str | None) -> str:
    """The fingerprint of a model from outside: a folder's content, size and time of a URI's files, or a hub commit.

    Raises:
        UserError: The folder has no model or tokenizer, or nothing is at that path.
    """
    if is_uri(path):
        return _remote_fingerprint(field, path)
    if os.path.isdir(path):
        _check_names(field, path, set(os.listdir(path)))
        return _folder_fingerprint(os.path.abspath(path), _file_stats(path))
    if os.path.exists(path) or path.startswith(("/", "./", "../", "~")) or path.count("/") > 1:
        raise UserError(f"{field}={path} is not a folder; give a Hugging Face folder or a hub id (owner/name)")
    return content_id("hub", path, _resolve_commit(field, path, revision))


def external_source(field: str, path: str, revision: str | None) -> ModelSource:
    """A model from outside. Raises as `external_fingerprint`."""
    fingerprint = external_fingerprint(field, path, revision)
    return ModelSource(os.path.abspath(path) if os.path.isdir(path) else path, revision, fingerprint)


def stage_source(artifact: Artifact) -> ModelSource:
    """The checkpoint of a stage.

    Raises:
        UserError: The stage is not finished.
    """
    manifest = artifact.manifest()
    if manifest is None:
        raise UserError(
            f"{artifact.uri} is not finished; make it first: zephyr-ray run RECIPE --until {artifact.stage}"
        )
    return ModelSource(
        posixpath.join(artifact.uri, manifest.get("checkpoint", "checkpoint")), None, manifest["fingerprint"]
    )


def _file_stats(folder: str) -> tuple[tuple[str, int, int, int], ...]:
    """Path, size, time and inode of each file: while these do not change, neither does the content."""
    found = []
    for top, _, names in os.walk(folder):
        for name in names:
            info = os.stat(os.path.join(top, name))
            found.append((os.path.join(top, name), info.st_size, info.st_mtime_ns, info.st_ino))
    return tuple(sorted(found))


@functools.cache
def _folder_fingerprint(folder: str, look: tuple[tuple[str, int, int, int], ...]) -> str:
    """A hash of a folder's content, read once per process because several stages share a model."""
    return fingerprint_files([folder])


def _remote_fingerprint(field: str, uri: str) -> str:
    filesystem, path = open_filesystem(uri)
    check_there(f"{field}={uri}", filesystem, path)
    try:
        found = filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True, recursive=True))
    except OSError as error:
        raise refusal(f"{field}={uri}", error) from None
    files = {posixpath.relpath(info.path, path): info for info in found if info.type == pafs.FileType.File}
    _check_names(field, uri, set(files))
    return content_id("files", [[name, files[name].size, files[name].mtime_ns] for name in sorted(files)])


def _check_names(field: str, path: str, names: set[str]) -> None:
    if not names & {"config.json", "adapter_config.json"}:
        raise UserError(f"{field}={path} holds no config.json; give the folder of a Hugging Face model")
    if "adapter_config.json" not in names and not names & {
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
    }:
        raise UserError(f"{field}={path} holds no tokenizer; save the model's tokenizer into that folder")
    if not any(name.endswith(".safetensors") for name in names):
        raise UserError(f"{field}={path} holds no .safetensors weights; save the model with save_pretrained")


def _resolve_commit(field: str, hub_id: str, revision: str | None) -> str:
    """The commit that a hub id refers to now, from the local cache if the hub cannot be reached."""
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    if not constants.HF_HUB_OFFLINE:
        try:
            return str(HfApi().model_info(hub_id, revision=revision, timeout=20).sha)
        except RepositoryNotFoundError:
            raise UserError(f"{field}={hub_id}: there is no such folder here and no such model on the hub") from None
        except (HfHubHTTPError, OSError) as error:
            logging.getLogger(__name__).warning("the hub does not answer (%s); looking in the local cache", error)
    try:
        folder = snapshot_download(hub_id, revision=revision, local_files_only=True, allow_patterns=["config.json"])
    except (LocalEntryNotFoundError, OSError, ValueError):
        raise UserError(
            f"{field}={hub_id} is not a folder here, and the hub cannot be reached; download it first or give a folder"
        ) from None
    return os.path.basename(folder)
