"""Supervised fine-tuning on tokenized dialogues.

On packed rows whole dialogues share a row of tokens, and none sees another. Padded batches, and dialogues that are
joined (`sft.packing_strategy=wrapped`), have TRL's own loss, which is the oracle that ours is tested against.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zephyr_ray.config.training import SFT
from zephyr_ray.training.methods import Method, Trainers
from zephyr_ray.training.trl_options import EVALUATION, NO_DATASET

if TYPE_CHECKING:
    from zephyr_ray.pipeline.artifacts import Artifact
    from zephyr_ray.training.dataset import Rows


def options(section: SFT) -> dict[str, Any]:
    """What is fixed, under TRL's names: the rows are tokenized, cut and joined by stages before this one."""
    return {"max_length": None, "packing": False, "dataset_kwargs": {"skip_prepare_dataset": True}}


def load_rows(section: SFT, tokenized: Artifact, reference_logps: Artifact | None) -> Rows:
    """The dialogues, joined where the section says so."""
    from zephyr_ray.training.dataset import load_dialogues, load_joined_dialogues

    if section.packing_strategy == "wrapped":
        return load_joined_dialogues(tokenized, section.max_length)
    return load_dialogues(tokenized, section.loss_on)


def trainers() -> Trainers:
    from trl import SFTConfig

    from zephyr_ray.training.trainers.sft import PackedSFTTrainer, PlannedSFTTrainer

    return Trainers(SFTConfig, PackedSFTTrainer, PlannedSFTTrainer)


_ITS_EVALUATION = dict.fromkeys(EVALUATION, "the loss on dialogues.held_out is evaluated, at sft.eval_steps")

METHOD = Method(
    name="sft",
    section=SFT,
    rows="dialogues",
    meets_a_reference=False,
    length_field="sft.max_length",
    options=options,
    load_rows=load_rows,
    trainers=trainers,
    eval_steps=lambda section: section.eval_steps,
    packs=lambda section: section.packing_strategy == "isolated",  # joined dialogues see each other and fill their rows
    passed=frozenset({"loss_type"}),
    refused=_ITS_EVALUATION
    | {
        "max_length": "set sft.max_length",
        "pad_to_multiple_of": "packed rows have no padding, and TRL chooses it for padded ones",
        "truncation_mode": "a longer dialogue keeps the turns that fit: set sft.max_length",
        "packing": "set sft.packing_strategy",
        "packing_strategy": "set sft.packing_strategy",
        "eval_packing": "dialogues that are held out are packed as those that are trained on",
        "eval_strategy": "set sft.eval_steps",
        "eval_steps": "set sft.eval_steps",
        "eval_on_start": "the loss on dialogues.held_out is evaluated before the first step, too",
        "per_device_eval_batch_size": "set sft.training.tokens_per_micro_batch, or micro_batch where rows are padded",
        "completion_only_loss": "set sft.loss_on",
        "assistant_only_loss": "set sft.loss_on",
        "chat_template_path": "set chat.template",
        "eos_token": "it is the tokenizer's own",
        "dataset_text_field": NO_DATASET,
        "dataset_kwargs": NO_DATASET,
        "shuffle_dataset": "the order of rows follows from run.seed",
    },
    shown={"eval_loss": "held-out loss"},
)
