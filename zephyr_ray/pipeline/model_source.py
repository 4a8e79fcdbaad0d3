"""References to models: where a stage's model lies, and the fingerprint of what it is."""

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
    """A model that every node can find, with what identifies it. Travels by pickle to whoever loads it."""

    path: str
    """A folder of a disk that all nodes share, a folder's URI, or a hub id."""
    revision: str | None = None
    fingerprint: str = ""

    def local(self) -> str:
        """The folder on this machine, or the hub id. What lies at a URI is copied into the machine's cache, once.

        Raises:
            UserError: The URI's folder is gone or its store refuses, or this machine has no such folder.
        """
        return local_copy(self.path, self._key()) if is_uri(self.path) else self._shared()

    def without_weights(self) -> str:
        """The same, good for the tokenizer and the configuration alone."""
        return local_copy(self.path, self._key(), weights=False) if is_uri(self.path) else self._shared()

    def _shared(self) -> str:
        if os.path.isabs(self.path) and not os.path.isdir(self.path):
            raise not_here(self.path)
        return self.path

    def _key(self) -> str:
        return content_id(self.path, self.fingerprint)


@dataclass(frozen=True, eq=False)
class ModelInput:
    """A model that a stage reads: the checkpoint of another stage of the run, or one from outside of it."""

    name: str
    """In the stage's inputs, where it comes from outside."""
    field: str
    """The field of the recipe that names it."""
    path: str | None = None
    """A folder, URI or hub id; None where a stage makes it."""
    revision: str | None = None
    stage: Stage | None = None

    @property
    def inputs(self) -> dict[str, Stage]:
        return {self.stage.kind: self.stage} if self.stage else {}

    def check_named(self) -> None:
        """Raises UserError where the recipe names no model."""
        if self.stage is None and self.path is None:
            raise UserError(f"{self.field} is not set; name a folder, a URI or a hub id")

    def outside(self) -> dict[str, str]:
        """Its fingerprint by its name, where it comes from outside. Raises as `external_fingerprint`."""
        return {} if self.path is None else {self.name: external_fingerprint(self.field, self.path, self.revision)}

    @property
    def local_files(self) -> tuple[tuple[str, str], ...]:
        return () if self.path is None else local_folder(self.field, self.path)

    def source(self, run: Run) -> ModelSource:
        """Where it lies."""
        if self.stage is not None:
            return stage_source(run.artifact(self.stage.name))
        assert self.path is not None
        return external_source(self.field, self.path, self.revision)


@dataclass(frozen=True, eq=False)
class DeployedModels:
    """The models that a stage deploys: checkpoints of this run, and models from outside of it."""

    inputs: dict[str, Stage]
    """The stages that make those of this run, by the name that deployments have for them."""
    external: tuple[ModelInput, ...]

    def outside(self) -> dict[str, str]:
        """Fingerprints of those from outside, by deployment. Raises as `external_fingerprint`."""
        return {name: found for each in self.external for name, found in each.outside().items()}

    @property
    def local_files(self) -> tuple[tuple[str, str], ...]:
        return tuple(file for each in self.external for file in each.local_files)


def deployed_models(field: str, deployments: Sequence[Deployment], own: Mapping[str, Stage]) -> DeployedModels:
    """The models of a section's deployments.

    Args:
        field: The section's name.
        deployments: Its deployments.
        own: The stages of this run whose checkpoints may be deployed, by name.

    Raises:
        UserError: A deployment names a stage that this run does not have.
    """
    for each in deployments:
        if each.model in OWN_MODELS and each.model not in own:
            raise UserError(f"{field}.deployments {each.name}: this recipe has no stage {each.model}")
    inputs = {name: own[name] for name in sorted({each.model for each in deployments} & {*own})}
    external = tuple(
        ModelInput(each.name, f"{field}.deployments {each.name}", each.model, each.revision)
        for each in deployments
        if each.model not in own
    )
    return DeployedModels(inputs, external)


def external_fingerprint(field: str, path: str, revision: str | None) -> str:
    """What a model from outside is: the content of a folder, size and time of a URI's files, or a hub id's commit.

    Raises:
        UserError: A folder without a model or tokenizer in it, or nothing at that path.
    """
    if is_uri(path):
        return _remote_fingerprint(field, path)
    if os.path.isdir(path):
        _check_names(field, path, set(os.listdir(path)))
        return _folder_fingerprint(os.path.abspath(path), _look(path))
    if os.path.exists(path) or path.startswith(("/", "./", "../", "~")) or path.count("/") > 1:
        raise UserError(f"{field}={path} is not a folder; give a Hugging Face folder or a hub id (owner/name)")
    return content_id("hub", path, _commit(field, path, revision))


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
    return ModelSource(posixpath.join(artifact.uri, "checkpoint"), None, manifest["fingerprint"])


def _look(folder: str) -> tuple[tuple[str, int, int, int], ...]:
    """Path, size, time and inode of each file: while they are the same, so is the content."""
    found = []
    for top, _, names in os.walk(folder):
        for name in names:
            info = os.stat(os.path.join(top, name))
            found.append((os.path.join(top, name), info.st_size, info.st_mtime_ns, info.st_ino))
    return tuple(sorted(found))


@functools.cache
def _folder_fingerprint(folder: str, look: tuple[tuple[str, int, int, int], ...]) -> str:
    """A hash of a folder's content, which is read once in a process: several stages have the same model."""
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


def _commit(field: str, hub_id: str, revision: str | None) -> str:
    """The commit that a hub id stands for now; a copy in the local cache is used where the hub is out of reach."""
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
