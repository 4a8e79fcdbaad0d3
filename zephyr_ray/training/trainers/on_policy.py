"""The trainers of methods that learn from a model's own completions: TRL's GRPO and RLOO on the plan's prompts."""

from __future__ import annotations

from typing import Any

import jinja2
import numpy as np
import torch
from transformers import set_seed
from transformers.integrations import is_deepspeed_zero3_enabled
from trl import GRPOTrainer, RLOOTrainer

from zephyr_ray.answers import end_tokens
from zephyr_ray.chat_template import encode_texts, render_many
from zephyr_ray.errors import UserError
from zephyr_ray.training.dataset import Rows
from zephyr_ray.training.model import restore_buffers
from zephyr_ray.training.prompt_plan import draw_seed
from zephyr_ray.training.sampler import RankPlan
from zephyr_ray.training.token_batching import PackedRankPlan
from zephyr_ray.training.trl_trainers import PlannedMixin

_TOGETHER = 1024  # prompts that one call of the tokenizer takes


class OnPolicyMixin(PlannedMixin):
    """Goes before TRL's trainer among a class's bases. Prompts are rendered by the recipe's template, completions end
    where answers of that end, and their random numbers follow from the seed and the step."""

    model: Any
    num_generations: int
    state: Any
    args: Any
    accelerator: Any
    processing_class: Any
    _step: int
    _buffered_inputs: Any = None

    def __init__(self, **kwargs: Any):
        kwargs["model"].generation_config.eos_token_id = end_tokens(kwargs["processing_class"])
        super().__init__(**kwargs)
        reference = self.ref_model  # type: ignore[attr-defined]
        if reference is not None and is_deepspeed_zero3_enabled():
            restore_buffers(self.accelerator.unwrap_model(reference))  # as the policy's

    def follow(self, rows: Rows, rank_plan: RankPlan | PackedRankPlan) -> None:
        super().follow(rows, rank_plan)
        positions = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if positions is not None:
            check_room(self.processing_class, rows, self.section.max_new_tokens, positions)

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        return torch.utils.data.DataLoader(self.rows, batch_sampler=self.rank_plan, collate_fn=as_prompts)

    def _prepare_inputs(self, batch: list[dict[str, Any]]) -> Any:
        of_step = self.args.gradient_accumulation_steps
        if self._buffered_inputs is None:  # TRL counts from 0 where a training goes on from a checkpoint
            self._step = self.state.global_step * of_step
        if self._step % of_step == 0:
            np.add.at(self.seen, [row["row"] for row in batch[:: self.num_generations]], 1)
        return super()._prepare_inputs(batch)  # type: ignore[misc]

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        set_seed(draw_seed(self.args.seed, self.state.global_step, self.accelerator.process_index))
        return super()._generate_and_score_completions(inputs)  # type: ignore[misc]

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
        """Token ids, and no images. No text of a message becomes a control token."""
        texts = render_many(self.processing_class, prompts, add_generation_prompt=True)
        return encode_texts(self.processing_class, texts), None, {}


class OnPolicyGRPOTrainer(OnPolicyMixin, GRPOTrainer):  # type: ignore[misc]  # TRL's own batches are no dicts
    """TRL's GRPO on the plan's prompts."""


class OnPolicyRLOOTrainer(OnPolicyMixin, RLOOTrainer):  # type: ignore[misc]
    """TRL's RLOO on the plan's prompts."""


def check_room(tokenizer: Any, rows: Rows, max_new_tokens: int, positions: int) -> None:
    """Refuses prompts that leave no room for a completion.

    Raises:
        UserError: With how many they are; or the chat template refuses one.
    """
    longest, longer, room = 0, 0, positions - max_new_tokens
    for start in range(0, len(rows), _TOGETHER):
        messages = rows.table[start : start + _TOGETHER]["messages"]
        try:
            texts = render_many(tokenizer, messages, add_generation_prompt=True)
        except jinja2.TemplateError as error:
            raise UserError(f"prompts: the chat template refuses one: {error}; leave it out of prompts.train") from None
        lengths = [len(ids) for ids in encode_texts(tokenizer, texts)]
        longest, longer = max(longest, *lengths), longer + sum(length > room for length in lengths)
    if longer:
        raise UserError(
            f"prompts: {longer:,} of {len(rows):,} have more than {max(room, 0):,} tokens (the longest {longest:,}), "
            f"which max_new_tokens={max_new_tokens} leaves of the model's {positions:,} positions; lower it, or leave "
            "them out of prompts.train"
        )


def as_prompts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows as TRL's trainers take them, with the prompt's number beside it."""
    return [{"prompt": row["messages"], "row": row["row"]} for row in rows]
