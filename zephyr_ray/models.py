"""Reads model.path, sft.base and the run -> where a stage's model lies, and what it is."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

from zephyr_ray.artifacts import Run, content_id, fingerprint_files
from zephyr_ray.errors import UserError
from zephyr_ray.recipe import Recipe
from zephyr_ray.recipe_feedback import Judging


@dataclass(frozen=True)
class ModelSource:
    """A folder on this machine or a hub id, with what identifies it."""

    path: str
    revision: str | None
    fingerprint: str


def model_source(recipe: Recipe, run: Run) -> ModelSource:
    """The supervised model: `model.path`, or the checkpoint of this run's `sft` stage."""
    if recipe.model.path is not None:
        return _external("model.path", recipe.model.path, recipe.model.revision)
    return _of_stage(run, "sft")


def base_source(recipe: Recipe, run: Run) -> ModelSource:
    """The raw model that SFT starts from."""
    assert recipe.sft is not None
    if recipe.sft.base == "tiny":
        return _of_stage(run, "base")
    return _external("sft.base", recipe.sft.base, recipe.sft.revision)


def reward_model_source(judging: Judging) -> ModelSource:
    """The reward model that judges."""
    assert judging.reward_model is not None
    return _external("judging.reward_model", judging.reward_model, judging.revision)


def external_fingerprint(field: str, path: str, revision: str | None) -> str:
    """What a model from outside is: the content of a folder, or the commit of a hub id.

    Raises:
        UserError: A folder without a model or tokenizer in it, or nothing at that path.
    """
    if os.path.isdir(path):
        _check_folder(field, path)
        return fingerprint_files([path])
    if os.path.exists(path) or path.startswith(("/", "./", "../", "~")) or path.count("/") > 1:
        raise UserError(f"{field}={path} is not a folder; give a Hugging Face folder or a hub id (owner/name)")
    return content_id("hub", path, _commit(field, path, revision))


def _external(field: str, path: str, revision: str | None) -> ModelSource:
    fingerprint = external_fingerprint(field, path, revision)
    return ModelSource(os.path.abspath(path) if os.path.isdir(path) else path, revision, fingerprint)


def _of_stage(run: Run, stage: str) -> ModelSource:
    artifact = run.artifact(stage)
    manifest = artifact.manifest()
    if manifest is None:
        raise UserError(f"{artifact.uri} is not there or not finished; run jobs/{stage}.py on the same run.root")
    return ModelSource(artifact.local_folder(), None, manifest["fingerprint"])


def _check_folder(field: str, path: str) -> None:
    names = set(os.listdir(path))
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
