"""A model that SFT has trained stops where its answer ends: greedy answers to prompts that it was not trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from transformers import GenerationConfig

from zephyr_ray.answers import EncodedDialogue, encode_dialogues
from zephyr_ray.chat_template import encode, load_tokenizer
from zephyr_ray.config import loader
from zephyr_ray.config.model import Chat
from zephyr_ray.embedded import world
from zephyr_ray.embedded.model import Sizes, make_base
from zephyr_ray.pipeline.model_source import ModelSource
from zephyr_ray.training.dataset import Rows
from zephyr_ray.training.export import write_generation_config
from zephyr_ray.training.settings import TrainingSettings
from zephyr_ray.training.worker import make_trainer

pytestmark = pytest.mark.usefixtures("one_thread")

LONGEST = 48
"""Tokens of an answer: the teacher's longest has about 35."""
CHATML = (  # ends a turn with a token that is not the tokenizer's end-of-sequence token
    "{% for m in messages %}{{ '<|system|>' + m.role + '\n' + m.content + '<|user|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|system|>assistant\n' }}{% endif %}"
)


@pytest.mark.parametrize("template", ["zephyr", CHATML], ids=["zephyr", "chatml"])
def test_nine_answers_of_ten_end(tmp_path: Path, template: str) -> None:
    base, chat = tmp_path / "base", Chat()
    if template != "zephyr":
        (tmp_path / "chat.jinja").write_text(template)
        chat = Chat(template=str(tmp_path / "chat.jinja"))
    make_base(base, Sizes(hidden_size=64, layers=2, heads=2, dialogues=500, flawed=0.0), seed=0)
    recipe = loader.load(
        [],
        [
            f"sft.base={base}",
            "sft.loss_on=assistant",
            "sft.learning_rate=0.01",
            "sft.global_batch=24",
            "sft.max_steps=60",
            "sft.training.logging_steps=60",
            "sft.training.report_to=[]",
        ],
    )
    assert recipe.sft is not None
    tokenizer = load_tokenizer(str(base), chat)
    settings = TrainingSettings("sft", recipe.sft, recipe.model, chat, recipe.run.seed)
    rows = rows_of(tokenizer, 500)
    trainer = make_trainer(settings, ModelSource(str(base)), rows, str(tmp_path / "out"), "cpu", 0, 1)
    trainer.args.save_strategy = "no"
    before = share_that_ends(trainer.model, tokenizer, tmp_path)
    trainer.train()
    assert before < 0.5
    assert share_that_ends(trainer.model, tokenizer, tmp_path) >= 0.9


def rows_of(tokenizer: Any, count: int) -> Rows:
    dialogues = [row["messages"] for row in world.dialogues(count, 0, 0.0)]
    encoded = [each for each in encode_dialogues(tokenizer, dialogues, "modern") if isinstance(each, EncodedDialogue)]
    assert len(encoded) == count
    return Rows(datasets.Dataset.from_list([each._asdict() for each in encoded]), np.arange(count), loss_on="assistant")


def share_that_ends(model: Any, tokenizer: Any, folder: Path) -> float:
    """As a server stops that reads the checkpoint's generation config."""
    write_generation_config(str(folder), tokenizer)
    config = GenerationConfig.from_pretrained(folder, do_sample=False, max_new_tokens=LONGEST)
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    prompts = [
        encode(tokenizer, [{"role": "user", "content": text}], add_generation_prompt=True)
        for text in world.prompts("held_out", 40, 0)
    ]
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    with torch.inference_mode():
        answers = model.eval().generate(ids, attention_mask=mask, generation_config=config)[:, longest:]
    return float(np.mean([any(end in answer for end in ends) for answer in answers.tolist()]))
