"""A reward model as judge: batches give what one answer at a time gives, and what is no reward model is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, MistralConfig, MistralForCausalLM

from tests.unit.judging.examples import row
from zephyr_ray import chat_template
from zephyr_ray.config.model import Chat
from zephyr_ray.errors import UserError
from zephyr_ray.judging.reward_judge import RewardModel
from zephyr_ray.pipeline.model_source import ModelSource
from zephyr_ray.schemas import JUDGMENTS

TEXTS = ["", "owl", "a raven, " * 12, "the wren", "An owl is a bird that hunts at night."]
ROWS = [row("owl", "", "a raven " * 9), row(), row("wren")]


def config(labels: int = 1, positions: int = 256) -> MistralConfig:
    return MistralConfig(
        vocab_size=259,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=positions,
        num_labels=labels,  # type: ignore[call-arg]
        sliding_window=None,
    )


def save(folder: Path, tokenizer: str, labels: int = 1, positions: int = 256) -> Path:
    torch.manual_seed(0)
    shutil.copytree(tokenizer, folder)
    (folder / "chat_template.jinja").write_text(chat_template.template_text(Chat()) or "")
    AutoModelForSequenceClassification.from_config(config(labels, positions)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, byte_tokenizer: str) -> Path:
    return save(tmp_path_factory.mktemp("reward") / "model", byte_tokenizer)


def score_alone(folder: Path, text: str, asked: str = "Name a bird") -> float:
    """The logit at the last token of one conversation, without padding and by no code of ours but the template's."""
    tokenizer = chat_template.load_tokenizer(str(folder), Chat())
    prompt = f"<|user|>\n{asked}</s>\n<|assistant|>\n{text}</s>\n"
    ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        states = model.model(input_ids=ids).last_hidden_state
        return float(model.score(states[0, -1])[0])


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_batches_give_what_one_answer_alone_gives(folder: Path, batch_size: int) -> None:
    judge = RewardModel(ModelSource(str(folder)), batch_size=batch_size, device="cpu")
    scores = judge.score([([{"role": "user", "content": "Name a bird"}], text) for text in TEXTS])
    alone = [score_alone(folder, text) for text in TEXTS]
    assert scores == pytest.approx(alone, abs=1e-5)
    assert max(alone) - min(alone) > 1e-3


def test_rows_get_their_own_scores(folder: Path) -> None:
    made = RewardModel(ModelSource(str(folder)), batch_size=3, device="cpu").judge(ROWS)
    found = [[each["overall_score"] for each in judged["completions"]] for judged in made]
    assert [len(each) for each in found] == [3, 0, 1]
    assert found[0][0] == pytest.approx(score_alone(folder, "owl"), abs=1e-5)
    assert found[2][0] == pytest.approx(score_alone(folder, "wren"), abs=1e-5)
    assert all(set(judged) == set(JUDGMENTS.names) for judged in made)


def test_what_is_longer_than_the_model_gets_no_score(tmp_path: Path, byte_tokenizer: str) -> None:
    judge = RewardModel(ModelSource(str(save(tmp_path / "short", byte_tokenizer, positions=64))), device="cpu")
    made = judge.judge([row("owl", "x" * 64)])[0]
    assert made["completions"][0]["overall_score"] is not None
    assert made["completions"][1]["overall_score"] is None


def test_two_outputs_are_no_reward_model(tmp_path: Path, byte_tokenizer: str) -> None:
    path = save(tmp_path / "two", byte_tokenizer, labels=2)
    with pytest.raises(UserError, match=f"^judging.judge.model={path} has 2 outputs; .* with one$"):
        RewardModel(ModelSource(str(path)), device="cpu")


def test_a_language_model_is_no_reward_model_whatever_its_config_says(tmp_path: Path, byte_tokenizer: str) -> None:
    shutil.copytree(byte_tokenizer, tmp_path / "lm")
    (tmp_path / "lm" / "chat_template.jinja").write_text(chat_template.template_text(Chat()) or "")
    MistralForCausalLM(config()).save_pretrained(tmp_path / "lm")
    with pytest.raises(UserError, match=r"lacks weights of a reward model: score\.weight"):
        RewardModel(ModelSource(str(tmp_path / "lm")), device="cpu")


def test_pickled_weights_are_not_read(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "pickled"
    shutil.copytree(folder, path)
    (path / "model.safetensors").unlink()
    torch.save({}, path / "pytorch_model.bin")
    with pytest.raises(UserError, match="does not load"):
        RewardModel(ModelSource(str(path)), device="cpu")


def test_an_adapter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "x"}))
    with pytest.raises(UserError, match="is an adapter"):
        RewardModel(ModelSource(str(tmp_path)), device="cpu")
