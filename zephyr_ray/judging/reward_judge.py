"""A reward model as judge, which gives overall scores only.

A reward model is a sequence classifier with one output, read at the last token of the conversation. Its scores have no
scale; only their order matters.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from zephyr_ray import chat_template
from zephyr_ray.config.model import Chat
from zephyr_ray.errors import UserError
from zephyr_ray.judging.aggregation import scored_row
from zephyr_ray.training.model import is_adapter, whole_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from zephyr_ray.pipeline.model_source import ModelSource


class RewardModel:
    """A reward model in memory, its tokenizer and its chat template."""

    def __init__(self, source: ModelSource, *, batch_size: int = 16, device: str | None = None):
        """Loads it: bfloat16 on a GPU, float32 on a CPU.

        Args:
            source: Its weights as safetensors, with the chat template that it was trained with: under another one its
                scores mean nothing.
            batch_size: Completions per forward pass.
            device: None: a GPU if there is one.

        Raises:
            UserError: It does not load, does not have exactly one output, or lacks trained weights for it.
        """
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._batch_size = batch_size
        path = source.path
        folder = _whole_model_folder(path, source.local(), source.revision)
        self._tokenizer = chat_template.load_tokenizer(folder, Chat(template="model"))
        self._model = _load_classifier(folder, path, torch.bfloat16 if self._device == "cuda" else torch.float32)
        # The classifier reads the last token that is not padding, so it must know the padding id.
        self._model.config.get_text_config().pad_token_id = self._pad = int(self._tokenizer.pad_token_id)
        self._model.to(self._device).eval()  # type: ignore[arg-type]
        self._longest = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)

    def judge(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """A row of `judgments` for each row; completions of all rows share the batches."""
        pairs = [(row["messages"], each["content"]) for row in rows for each in row["completions"]]
        scores = iter(self.score(pairs))
        return [scored_row(row, [next(scores) for _ in row["completions"]]) for row in rows]

    def score(self, pairs: Sequence[tuple[Sequence[chat_template.Message], str]]) -> list[float | None]:
        """The score of each (messages, completion); None if they exceed the model's positions."""
        ids = [self._encode(messages, completion) for messages, completion in pairs]
        scores: list[float | None] = [None] * len(pairs)
        fitting = [index for index, each in enumerate(ids) if self._longest is None or len(each) <= self._longest]
        fitting.sort(key=lambda index: len(ids[index]))  # similar lengths together, for little padding
        for start in range(0, len(fitting), self._batch_size):
            batch = fitting[start : start + self._batch_size]
            for index, score in zip(batch, self._forward([ids[index] for index in batch]), strict=True):
                scores[index] = score if math.isfinite(score) else None
        return scores

    def _encode(self, messages: Sequence[chat_template.Message], completion: str) -> list[int]:
        whole = [*messages, {"role": "assistant", "content": completion}]
        return chat_template.encode(self._tokenizer, whole, add_generation_prompt=False)

    @torch.inference_mode()
    def _forward(self, ids: Sequence[list[int]]) -> list[float]:
        """One forward pass over rows of ids, padded on the right."""
        longest = max(map(len, ids))
        padded = torch.tensor([[*each, *[self._pad] * (longest - len(each))] for each in ids], device=self._device)
        mask = torch.tensor([[1] * len(each) + [0] * (longest - len(each)) for each in ids], device=self._device)
        return self._model(input_ids=padded, attention_mask=mask, use_cache=False).logits[:, 0].float().tolist()


def _whole_model_folder(path: str, local: str, revision: str | None) -> str:
    if os.path.isdir(local) and is_adapter(local):
        raise UserError(f"judging.judge.model={path} is an adapter; merge it into its base model first")
    return whole_weights(local, revision)


def _load_classifier(folder: str, path: str, dtype: torch.dtype) -> PreTrainedModel:
    """The classifier. transformers initializes missing weights at random, so a model without a trained head is refused.

    Raises:
        UserError: It does not load, does not have exactly one output, or lacks weights.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification

    where = f"judging.judge.model={path}"
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        outputs = config.num_labels
        if outputs != 1:
            raise UserError(f"{where} has {outputs} outputs; a reward model is a sequence classifier with one")
        model, info = AutoModelForSequenceClassification.from_pretrained(
            folder,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=dtype,
            attn_implementation=_attention(config),
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{where} does not load: {' '.join(str(error).split())[:300]}") from None
    if info["missing_keys"]:
        raise UserError(f"{where} lacks weights of a reward model: {', '.join(sorted(info['missing_keys']))[:200]}")
    return model


def _attention(config: Any) -> str | None:
    """transformers' own choice, but where that would leave out the caps on attention scores that a model has."""
    capped = getattr(config.get_text_config(), "attn_logit_softcapping", None) is not None
    return "eager" if capped else None
