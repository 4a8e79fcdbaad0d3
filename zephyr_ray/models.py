"""Reads model.path, sft.base and the run -> where a stage's model lies, and what it is."""

from __future__ import annotations

import logging
import os
import posixpath
from dataclasses import dataclass

import pyarrow.fs as pafs

from zephyr_ray.artifacts import Artifact, Run, content_id, fingerprint_files
from zephyr_ray.errors import UserError
from zephyr_ray.recipe import Recipe
from zephyr_ray.recipe_feedback import Judging
from zephyr_ray.shared_files import not_here
from zephyr_ray.storage import check_there, is_uri, local_copy, open_filesystem, refusal


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


def model_source(recipe: Recipe, run: Run) -> ModelSource:
    """The supervised model: `model.path`, or the checkpoint of this run's `sft` stage."""
    if recipe.model.path is not None:
        return external_source("model.path", recipe.model.path, recipe.model.revision)
    return stage_source(run.artifact("sft"))


def base_source(recipe: Recipe, run: Run) -> ModelSource:
    """The raw model that SFT starts from."""
    assert recipe.sft is not None
    if recipe.sft.base == "tiny":
        return stage_source(run.artifact("base"))
    return external_source("sft.base", recipe.sft.base, recipe.sft.revision)


def reward_model_source(judging: Judging) -> ModelSource:
    """The reward model that judges."""
    assert judging.reward_model is not None
    return external_source("judging.reward_model", judging.reward_model, judging.revision)


def external_fingerprint(field: str, path: str, revision: str | None) -> str:
    """What a model from outside is: the content of a folder, size and time of a URI's files, or a hub id's commit.

    Raises:
        UserError: A folder without a model or tokenizer in it, or nothing at that path.
    """
    if is_uri(path):
        return _remote_fingerprint(field, path)
    if os.path.isdir(path):
        _check_names(field, path, set(os.listdir(path)))
        return fingerprint_files([path])
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
            f"{artifact.uri} is not there or not finished; run jobs/{artifact.stage}.py on the same run.root"
        )
    return ModelSource(posixpath.join(artifact.uri, "checkpoint"), None, manifest["fingerprint"])


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
