"""Log-probs of tokenized pairs under the frozen reference model, by a pool of Ray Data actors.

Computed once per (reference model, tokenized rows) and shared by every epoch and every beta. Ray Data's checkpoint by
`pair_id` makes it resumable: a rerun after a kill computes only the pairs that were in flight. Held-out pairs are
scored in the same way, by the reference and by the policy.
"""

from __future__ import annotations

import contextlib
import functools
import posixpath
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from zephyr_ray import chat_template
from zephyr_ray.cluster import connect, resources
from zephyr_ray.cluster.preload import ROWS, TRAINING
from zephyr_ray.cluster.shared_storage import check_visible
from zephyr_ray.config.recipe import Chat, ReferenceLogps
from zephyr_ray.data.io.sources import count_rows
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.model_source import ModelInput, ModelSource
from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext
from zephyr_ray.training.arithmetic import Scoring

_DONE_IDS = "done_ids"


Whose = Literal["ref", "policy"]
"""Begins the names of the columns."""


def stage(section: ReferenceLogps, scoring: Scoring, chat: Chat, tokenized: Stage, model: ModelInput) -> Stage:
    """The stage `reference_logps`: of the pairs that a policy is trained on, as its loss reads them.

    Args:
        section: The actors.
        scoring: How the policy's own log-probs are computed.
        chat: The template of the model's tokenizer.
        tokenized: The pairs.
        model: The reference.
    """
    return _stage("reference_logps", section, scoring, chat, settings(section, scoring), tokenized, model, "ref")


def settings(section: ReferenceLogps, scoring: Scoring) -> dict[str, Any]:
    """What the reference's log-probs are made from, as JSON values."""
    counted = {"ld_alpha": scoring.ld_alpha, "load_in_4bit": scoring.load_in_4bit}
    return counted | {"arithmetic": scoring.identity(_device(section))}


def held_out_stage(
    kind: str,
    section: ReferenceLogps,
    scoring: Scoring,
    chat: Chat,
    tokenized: Stage,
    model: ModelInput,
    whose: Whose,
) -> Stage:
    """A stage that scores held-out pairs as `Scoring.of_exported` says: by the reference or by the policy."""
    config = {"arithmetic": scoring.identity(_device(section))}
    return _stage(kind, section, scoring.of_exported(), chat, config, tokenized, model, whose)


def _device(section: ReferenceLogps) -> Literal["cpu", "cuda"]:
    return "cuda" if section.gpus_per_worker > 0 else "cpu"


def _stage(
    kind: str,
    section: ReferenceLogps,
    scoring: Scoring,
    chat: Chat,
    config: dict[str, Any],
    tokenized: Stage,
    model: ModelInput,
    whose: Whose,
) -> Stage:
    def make(context: StageContext) -> Manifest:
        source, pairs = model.source(context.run), context.input(tokenized.kind)
        rows, files = make_reference_logps(
            section, scoring, chat, pairs, context.artifact, source, whose=whose, progress=context.progress
        )
        scored = {"reference" if kind == "reference_logps" else "model": source.fingerprint}
        return {"files": files, "counts": {"in": rows, "out": rows, "dropped": {}}} | scored

    return Stage(
        kind,
        "pairs",
        config,
        make,
        inputs={tokenized.kind: tokenized, **model.inputs},
        outside=model.outside,
        local_files=chat_template.local_files(chat) + model.local_files,
        resources=(resources.of_workers("reference_logps", section, section.workers),),
        preload=ROWS + TRAINING,
    )


class ReferenceModel:
    """Holds a frozen model in one actor and answers batches of pairs with their log-probs."""

    def __init__(
        self, section: ReferenceLogps, scoring: Scoring, chat: Chat, source: ModelSource, whose: Whose, progress: Any
    ):
        import torch

        from zephyr_ray.training.logps import scorer
        from zephyr_ray.training.model import device_for

        device = device_for(section.gpus_per_worker, "reference_logps")
        if device == "cpu":
            torch.set_num_threads(max(1, int(section.cpus_per_worker)))
        self.scorer = scorer(scoring, chat, source, device)
        self.whose, self.progress = whose, progress

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        columns = ("prompt_ids", "chosen_ids", "rejected_ids")
        rows = [{name: batch[name][index].tolist() for name in columns} for index in range(len(batch["pair_id"]))]
        chosen, rejected = self.scorer(rows)
        if self.progress is not None:
            self.progress.add(len(rows))
        return {
            "pair_id": batch["pair_id"],
            f"{self.whose}_chosen_logps": chosen,
            f"{self.whose}_rejected_logps": rejected,
        }


def make_reference_logps(
    section: ReferenceLogps,
    scoring: Scoring,
    chat: Chat,
    tokenized: Artifact,
    artifact: Artifact,
    model: ModelSource,
    *,
    whose: Whose = "ref",
    progress: Any = None,
) -> tuple[int, list[str]]:
    """Writes a model's log-probs of every pair and returns how many there are and the files that hold them.

    Raises:
        RuntimeError: The files do not hold every pair exactly once.
        UserError: The model cannot be packed.
    """
    import ray.data

    if scoring.engine == "packed":
        # In a worker: it loads libraries that this process has no other use for.
        check = ray.remote(_check_model).options(num_cpus=0, scheduling_strategy=connect.this_node())
        ray.get(check.remote(model))
    filesystem = artifact.run.filesystem
    count = count_rows(tokenized)
    data = posixpath.join(artifact.path, "data")
    resources: dict[str, Any] = {"num_cpus": section.cpus_per_worker}
    if section.gpus_per_worker:
        resources["num_gpus"] = section.gpus_per_worker
    if labels := connect.selector(section.labels):
        resources["label_selector"] = labels
    with _resumable(artifact):
        pairs = ray.data.read_parquet(
            tokenized.files(),
            filesystem=tokenized.run.filesystem,
            columns=["pair_id", "prompt_ids", "chosen_ids", "rejected_ids"],
        )
        if progress is not None:
            progress.set(0, total=count)
        pairs.repartition(target_num_rows_per_block=section.batch_size * 4).map_batches(
            ReferenceModel,
            fn_constructor_args=(section, scoring, chat, model, whose, progress),
            batch_size=section.batch_size,
            compute=ray.data.ActorPoolStrategy(size=section.workers),
            **resources,
        ).write_parquet(data, filesystem=filesystem, arrow_parquet_args_fn=functools.partial(_where_visible, artifact))
    files = _parquet_files(filesystem, data)
    _check_exactly_once(tokenized, filesystem, files)
    filesystem.delete_dir(posixpath.join(artifact.path, _DONE_IDS))
    return count, [posixpath.relpath(name, artifact.path) for name in files]


def _check_model(model: ModelSource) -> None:
    from zephyr_ray.training.packed.check import check_folder

    check_folder(model.without_weights(), model.revision)


def _where_visible(artifact: Artifact) -> dict[str, Any]:
    """No options for the Parquet writer, which asks for them before it writes, on the machine that writes."""
    check_visible(artifact)
    return {}


@contextlib.contextmanager
def _resumable(artifact: Artifact) -> Iterator[None]:
    """Ray Data's row checkpoint for the pipeline inside."""
    import ray.data
    from ray.data.checkpoint import CheckpointConfig

    context = ray.data.DataContext.get_current()
    before = context.checkpoint_config
    context.checkpoint_config = CheckpointConfig(
        id_column="pair_id",
        checkpoint_path=posixpath.join(artifact.path, _DONE_IDS),
        override_filesystem=artifact.run.filesystem,
        delete_checkpoint_on_success=False,
    )
    try:
        yield
    finally:
        context.checkpoint_config = before


def _check_exactly_once(tokenized: Artifact, filesystem: pafs.FileSystem, files: list[str]) -> None:
    wanted = _ids(tokenized.run.filesystem, tokenized.files())
    got = _ids(filesystem, files)
    if not np.array_equal(wanted, got):
        raise RuntimeError(f"{len(got)} log-probs for {len(wanted)} pairs, or not the same pairs")


def _ids(filesystem: pafs.FileSystem, files: list[str]) -> np.ndarray:
    if not files:
        return np.array([], dtype=object)
    return np.sort(pq.read_table(files, filesystem=filesystem, columns=["pair_id"])["pair_id"].to_numpy())


def _parquet_files(filesystem: pafs.FileSystem, folder: str) -> list[str]:
    selector = pafs.FileSelector(folder, allow_not_found=True)
    return sorted(info.path for info in filesystem.get_file_info(selector) if info.path.endswith(".parquet"))
