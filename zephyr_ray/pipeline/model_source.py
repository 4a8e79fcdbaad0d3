"""Resolve references to models: the location and the fingerprint of each model that a stage reads.

Each `ModelInput` looks once, so that all stages of a command fingerprint, record and load the same commit of a hub id.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow.fs as pafs

from zephyr_ray.cluster.shared_storage import local_folder, not_here
from zephyr_ray.config.feedback import OWN_MODELS, Deployment, Endpoint, Member, OfflineModel
from zephyr_ray.config.serving import semantic_engine
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import Artifact, Run
from zephyr_ray.pipeline.file_versions import file_versions
from zephyr_ray.pipeline.fingerprints import content_id, fingerprint_files
from zephyr_ray.pipeline.lineage.facts import FILE as LINEAGE
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


@dataclass(frozen=True)
class ExternalModel:
    """What identifies a model from outside."""

    fingerprint: str
    """Of a folder's content, of the sizes and times of a URI's files, or of a hub commit."""
    commit: str | None = None
    """Of a hub id."""
    versions: str | None = None
    """A hash of the versions that a store gives a URI's files (`file_versions`), if it does."""

    @property
    def whole_fingerprint(self) -> str:
        return content_id(self.fingerprint, self.versions) if self.versions else self.fingerprint


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
    is_reward_model: bool = False
    """Whether it has to be one; else it must not."""

    @property
    def inputs(self) -> dict[str, Stage]:
        return {self.stage.kind: self.stage} if self.stage else {}

    def check_named(self) -> None:
        """Raises UserError if the recipe names no model."""
        if self.stage is None and self.path is None:
            raise UserError(f"{self.field} is not set; name a folder, a URI or a hub id")

    @functools.cached_property
    def external(self) -> ExternalModel | None:
        """What identifies it if it comes from outside. Raises as `external_model`."""
        if self.path is None:
            return None
        return external_model(self.field, self.path, self.revision, self.is_reward_model)

    def outside(self) -> dict[str, str]:
        """Its fingerprints by name if it comes from outside, else empty. Raises as `external_model`."""
        if self.external is None:
            return {}
        versions = {f"{self.name} versions": self.external.versions} if self.external.versions else {}
        return {self.name: self.external.fingerprint} | versions

    def commits(self) -> dict[str, str]:
        """The commit by the hub id, if it is one. Raises as `external_model`."""
        return {self.path: self.external.commit} if self.path and self.external and self.external.commit else {}

    @property
    def local_files(self) -> tuple[tuple[str, str], ...]:
        return () if self.path is None else local_folder(self.field, self.path)

    def source(self, run: Run) -> ModelSource:
        """The model, located. Raises as `external_model` or `stage_source`."""
        if self.stage is not None:
            return stage_source(run.artifact(self.stage.name))
        assert self.path is not None
        assert self.external is not None
        return _located(self.path, self.external)


@dataclass(frozen=True, eq=False)
class PoolModels:
    """The models that a stage runs itself: checkpoints of this run and models from outside."""

    inputs: dict[str, Stage]
    """The stages that make the run's own models, by the name that deployments use for them."""
    external: tuple[ModelInput, ...]
    """Those from outside, each with its member's name."""
    engines: dict[str, dict[str, Any]]
    """The engine options of deployments that change their answers, by member."""

    def outside(self) -> dict[str, str]:
        """Fingerprints of the models from outside and of the engines, by member. Raises as `external_model`."""
        models = {name: found for each in self.external for name, found in each.outside().items()}
        return models | {f"{name} engine": content_id(options) for name, options in self.engines.items()}

    def commits(self) -> dict[str, str]:
        """The commits of hub ids. Raises as `external_model`."""
        return {hub_id: commit for each in self.external for hub_id, commit in each.commits().items()}

    def at_commits(self, members: Iterable[Member]) -> tuple[Member, ...]:
        """The members, whose hub ids name the commit that was found. Raises as `external_model`."""
        found = {each.name: each.external.commit for each in self.external if each.external}
        return tuple(_at_commit(member, found.get(member.name)) for member in members)

    @property
    def local_files(self) -> tuple[tuple[str, str], ...]:
        return tuple(file for each in self.external for file in each.local_files)


def _at_commit(member: Member, commit: str | None) -> Member:
    if commit is None or isinstance(member, Endpoint):
        return member
    if isinstance(member, OfflineModel):
        return member.model_copy(update={"engine": member.engine | {"revision": commit}})
    return member.model_copy(update={"revision": commit})


def pool_models(
    field: str, members: Sequence[Member], own: Mapping[str, Stage], policy: ModelInput | None = None
) -> PoolModels:
    """The models of a section's deployments and offline members.

    Args:
        field: The field of the recipe that lists them.
        members: The members; endpoints have no model here.
        own: The stages of this run whose checkpoints may be deployed, by name.
        policy: The model that learns; a deployment of it from outside is named by its field.

    Raises:
        UserError: A deployment names a stage that this run does not have.
    """
    deployments = [each for each in members if isinstance(each, Deployment)]
    offline = [each for each in members if isinstance(each, OfflineModel)]
    for each in deployments:
        if each.model in OWN_MODELS and each.model not in own:
            raise UserError(f"{field} {each.name}: this recipe has no stage {each.model}")
    inputs = {name: own[name] for name in sorted({each.model for each in deployments} & {*own})}
    named = [(each.name, each.model, each.revision) for each in deployments if each.model not in own]
    named += [(each.name, each.model, each.engine.get("revision")) for each in offline]

    def field_of(name: str, model: str, revision: str | None) -> str:
        if policy is not None and (policy.path, policy.revision) == (model, revision):
            return policy.field
        return f"{field} {name}"

    external = tuple(ModelInput(each[0], field_of(*each), *each[1:]) for each in named)
    engines = {each.name: semantic_engine(each.engine) for each in deployments}
    return PoolModels(inputs, external, {name: options for name, options in engines.items() if options})


def external_model(field: str, path: str, revision: str | None, is_reward_model: bool = False) -> ExternalModel:
    """Identifies a model from outside: a folder, a URI or a hub id.

    Raises:
        UserError: The folder has no model or tokenizer, or a reward model where a language model is asked for, or the
            other way round; or nothing is at that path.
    """
    if is_uri(path):
        return _remote_model(field, path)
    if os.path.isdir(path):
        _check_names(field, path, set(os.listdir(path)))
        check_kind(f"{field}={path}", path, is_reward_model)
        return ExternalModel(fingerprint_files([os.path.abspath(path)], without=[LINEAGE]))
    if os.path.exists(path) or path.startswith(("/", "./", "../", "~")) or path.count("/") > 1:
        raise UserError(f"{field}={path} is not a folder; give a Hugging Face folder or a hub id (owner/name)")
    commit = _resolve_commit(field, path, revision)
    return ExternalModel(content_id("hub", path, commit), commit)


def external_source(field: str, path: str, revision: str | None) -> ModelSource:
    """A model from outside. Raises as `external_model`."""
    return _located(path, external_model(field, path, revision))


def _located(path: str, found: ExternalModel) -> ModelSource:
    place = os.path.abspath(path) if os.path.isdir(path) else path
    return ModelSource(place, found.commit, found.whole_fingerprint)


def stage_source(artifact: Artifact) -> ModelSource:
    """The checkpoint of a stage. Its fingerprint says which weights it holds, not only what they were made from, if the
    manifest does: one recipe that is trained again on other hardware gives other weights.

    Raises:
        UserError: The stage is not finished.
    """
    manifest = artifact.manifest()
    if manifest is None:
        raise UserError(
            f"{artifact.uri} is not finished; make it first: zephyr-ray run RECIPE --until {artifact.stage}"
        )
    weights = manifest.get("weights")
    fingerprint = content_id(manifest["fingerprint"], weights) if weights else manifest["fingerprint"]
    return ModelSource(posixpath.join(artifact.uri, manifest.get("checkpoint", "checkpoint")), None, fingerprint)


def _remote_model(field: str, uri: str) -> ExternalModel:
    filesystem, path = open_filesystem(uri)
    check_there(f"{field}={uri}", filesystem, path)
    try:
        found = filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True, recursive=True))
    except OSError as error:
        raise refusal(f"{field}={uri}", error) from None
    files = {posixpath.relpath(info.path, path): info for info in found if info.type == pafs.FileType.File}
    _check_names(field, uri, set(files))
    fingerprint = content_id("files", [[name, files[name].size, files[name].mtime_ns] for name in sorted(files)])
    versions = file_versions([posixpath.join(uri.rstrip("/"), name) for name in sorted(files)])
    return ExternalModel(fingerprint, versions=content_id(versions) if any(versions) else None)


def check_kind(what: str, folder: str, is_reward_model: bool = False) -> None:
    """Holds what a local folder's configuration says it is against what is asked for; an adapter says nothing.

    Raises:
        UserError: It is a reward model, or another sequence classifier, and a language model is asked for; or the other
            way round.
    """
    try:
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as stream:
            named = json.load(stream).get("architectures") or []
    except (FileNotFoundError, json.JSONDecodeError):  # of an adapter there is none, and what is broken does not load
        return
    classifies = any(name.endswith("ForSequenceClassification") for name in named)
    if classifies and not is_reward_model:
        raise UserError(f"{what} is a sequence classifier, as a reward model is, which writes no text; name another")
    if named and not classifies and is_reward_model:
        raise UserError(f"{what} is no reward model, which is a sequence classifier, but a {named[0]}; name another")


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
    from httpx2 import HTTPError  # of which huggingface_hub's own errors are some
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

    if not constants.HF_HUB_OFFLINE:
        try:
            return str(HfApi().model_info(hub_id, revision=revision, timeout=20).sha)
        except RepositoryNotFoundError:
            raise UserError(f"{field}={hub_id}: there is no such folder here and no such model on the hub") from None
        except (HTTPError, OSError) as error:
            logging.getLogger(__name__).warning("the hub does not answer (%s); looking in the local cache", error)
    try:
        folder = snapshot_download(hub_id, revision=revision, local_files_only=True, allow_patterns=["config.json"])
    except (LocalEntryNotFoundError, OSError, ValueError):
        raise UserError(
            f"{field}={hub_id} is not a folder here, and the hub cannot be reached; download it first or give a folder"
        ) from None
    return os.path.basename(folder)
