"""Log-probs of completions with labels under the frozen reference model, and of those that their prompts meet in KTO.

Beside its own completion a prompt meets that of the row before it in its step, another one in each epoch. So what is
written depends on the order of training: its seed, its steps' size and how many epochs there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from zephyr_ray.config.model import Chat
from zephyr_ray.config.training import ReferenceLogps
from zephyr_ray.data.io.rows import all_kept
from zephyr_ray.data.reference_logps import Layout, ReferenceModel, Whose, scored_stage, settings
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.model_source import ModelInput, ModelSource
from zephyr_ray.pipeline.stage import Stage
from zephyr_ray.schemas import UNPAIRED_LOGPS
from zephyr_ray.training.arithmetic import Scoring

Order = Mapping[str, Any]
"""What says in which order rows are trained on: the fields of `sampler.Plan` beside `rows`."""


def stage(
    section: ReferenceLogps, scoring: Scoring, chat: Chat, tokenized: Stage, model: ModelInput, order: Order | None
) -> Stage:
    """The stage `unpaired_reference_logps`.

    Args:
        section: The actors.
        scoring: How the policy's own log-probs are computed.
        chat: The template of the model's tokenizer.
        tokenized: The completions.
        model: The reference.
        order: That of the training whose prompts meet other rows' completions; None: none do.
    """
    config = settings(section, scoring) | ({"order": dict(order)} if order else {})
    layout = Layout("completion_id", UNPAIRED_LOGPS, ReferenceOfUnpaired, lambda rows: (rows, order))
    kind = "unpaired_reference_logps"
    return replace(scored_stage(kind, section, scoring, chat, config, tokenized, model, "ref", layout), unit="rows")


class ReferenceOfUnpaired(ReferenceModel):
    """As `ReferenceModel`, of completions with labels. It has all of them on its machine's disk."""

    def __init__(
        self,
        section: ReferenceLogps,
        scoring: Scoring,
        chat: Chat,
        source: ModelSource,
        whose: Whose,
        tokenized: Artifact,
        order: Order | None,
    ):
        from zephyr_ray.training.dataset import load_unpaired
        from zephyr_ray.training.sampler import Plan, partners

        super().__init__(section, scoring, chat, source, whose)
        self.rows = load_unpaired(tokenized)
        count = len(self.rows)
        self.partners = partners(Plan(count, **order)) if order else np.empty((0, count), np.int64)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """`schemas.TOKENIZED_UNPAIRED` rows -> `rows.mixed_schema` of `schemas.UNPAIRED_LOGPS` rows.

        Each completion lies alone behind its prompt, as in training: in bfloat16 its place counts.
        """
        numbers = self.rows.numbers_of(batch["completion_id"])
        groups = []
        for row, number in zip(batch.select(["prompt_ids", "completion_ids"]).to_pylist(), numbers, strict=True):
            met = (self.rows.met_by(row["prompt_ids"], int(partner)) for partner in self.partners[:, number])
            groups += [{"prompt_ids": row["prompt_ids"], "completions": [ids]} for ids in (row["completion_ids"], *met)]
        sums = np.concatenate(self.scorer.completions(groups)).reshape(len(numbers), -1)
        of_others = pa.array(list(sums[:, 1:]), pa.list_(pa.float32()))
        return all_kept([batch["completion_id"], pa.array(sums[:, 0]), of_others], UNPAIRED_LOGPS)
