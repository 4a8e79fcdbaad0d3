"""Vectors that stand for dialogues, by a sentence-embedding model in a pool of Ray Data actors.

They are written as they are computed: a rerun after a kill embeds only the dialogues that were in flight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from zephyr_ray.cluster import connect, resources
from zephyr_ray.cluster.preload import ROWS, Preload
from zephyr_ray.config.section import semantic
from zephyr_ray.config.selection import Embeddings
from zephyr_ray.data.io import drop_report, resume, sources, writer
from zephyr_ray.data.io.rows import all_kept
from zephyr_ray.data.io.writer import Report
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.model_source import ModelInput, ModelSource
from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext
from zephyr_ray.schemas import EMBEDDINGS

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_ID = "dialogue_id"
_BATCHES = 4  # of a file at least: what a kill may cost, at most, for each actor
_MODELS = Preload(("torch", "transformers", "sentence_transformers"), ())


def stage(section: Embeddings, dialogues: Stage, kind: str = "dialogue_embeddings") -> Stage:
    """The stage `dialogue_embeddings`, or another one that embeds dialogues."""
    model = ModelInput("model", "embeddings.model", section.model, section.revision)

    def make(context: StageContext) -> Manifest:
        source = model.source(context.run)
        report = make_embeddings(
            section, source, context.input(dialogues.kind), context.artifact, progress=context.progress
        )
        return drop_report.manifest(report) | {"model": source.fingerprint}

    return Stage(
        kind,
        "rows",
        {"embeddings": semantic(section).without("model", "revision")},
        make,
        inputs={dialogues.kind: dialogues},
        outside=model.outside,
        commits=model.commits,
        local_files=model.local_files,
        resources=(resources.of_workers("embeddings", section, section.workers),),
        preload=ROWS + _MODELS,
    )


class DialogueEmbedder:
    """Holds a model in one actor and embeds batches of dialogues."""

    def __init__(self, section: Embeddings, source: ModelSource):
        from zephyr_ray.training.model import device_of_actor

        device = device_of_actor(section.cpus_per_worker, section.gpus_per_worker, "embeddings")
        self.model, self.path, self.batch_size = load_model(source, device), source.path, section.batch_size

    def __call__(self, batch: pa.Table) -> pa.Table:
        """`schemas.DIALOGUES` rows -> `rows.mixed_schema(schemas.EMBEDDINGS)` rows."""
        texts = [text_of(messages) for messages in batch["messages"].to_pylist()]
        vectors = self.model.encode(
            texts, batch_size=self.batch_size, normalize_embeddings=True, show_progress_bar=False
        ).astype(np.float32)
        if not np.isfinite(vectors).all():
            raise UserError(f"embeddings.model={self.path} gives vectors with NaN; name another model")
        made = pa.array(list(vectors), EMBEDDINGS.field("embedding").type)
        return all_kept([batch[_ID], made], EMBEDDINGS)


def text_of(messages: list[dict[str, str]]) -> str:
    """What is embedded of a dialogue: the texts of its messages, one after the other. A model reads as much of the
    beginning as it can (256 tokens in all-MiniLM-L6-v2): the first question and what answers it."""
    return "\n\n".join(message["content"] for message in messages)


def load_model(source: ModelSource, device: str) -> SentenceTransformer:
    """A sentence-embedding model. One without a pooling of its own gets the mean over tokens.

    Raises:
        UserError: It does not load.
    """
    from sentence_transformers import SentenceTransformer

    try:
        return SentenceTransformer(source.local(), revision=source.revision, device=device, trust_remote_code=False)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"embeddings.model={source.path} does not load: {reason}") from None


def make_embeddings(
    section: Embeddings,
    source: ModelSource,
    dialogues: Artifact,
    artifact: Artifact,
    *,
    progress: Any = None,
) -> Report:
    """Writes a vector (`schemas.EMBEDDINGS`) for every dialogue, beside those that an earlier try wrote.

    Raises:
        RuntimeError: The files do not hold every dialogue exactly once.
        UserError: The model does not load.
    """
    import ray.data

    done, rows = writer.written_ids(artifact, _ID), sources.count_rows(dialogues)
    if progress is not None:
        progress.set(len(done), total=rows)
    left = resume.rows_left(dialogues, done, _ID).select_columns([_ID, "messages"])
    embedded = left.map_batches(
        DialogueEmbedder,
        fn_constructor_args=(section, source),
        batch_format="pyarrow",
        batch_size=section.batch_size * _BATCHES,
        compute=ray.data.ActorPoolStrategy(size=section.workers),
        num_cpus=section.cpus_per_worker,
        num_gpus=section.gpus_per_worker or None,
        label_selector=connect.selector(section.labels),
    )
    report = writer.write(
        embedded, artifact, EMBEDDINGS, progress=progress, keep=True, rows_per_file=writer.rows_per_file(rows)
    )
    resume.check_exactly_once(dialogues, artifact, report, _ID)
    return report
