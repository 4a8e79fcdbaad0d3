"""A language model's folder becomes a reward model, the same on every machine, and loads in transformers as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from tests.unit.training.packed_workers import start
from tests.unit.training.reward_workers import train, worker
from tests.unit.training.small_models import VOCAB, make_classifier, make_model
from zephyr_ray.chat_template import encode, encode_pairs, load_tokenizer
from zephyr_ray.config.model import Chat, ModelSection
from zephyr_ray.embedded.model import Sizes, train_tokenizer
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.model_source import check_kind
from zephyr_ray.training.model import load_model
from zephyr_ray.training.reward_head import load_reward_model, set_padding, whole_ending, with_ending

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model")
    make_model("mistral").save_pretrained(path)
    train_tokenizer(Sizes(vocab_size=VOCAB), seed=0).save_pretrained(path)
    return str(path)


def load(folder: str, seed: int = 0) -> Any:
    return load_reward_model(folder, ModelSection(), torch.float32, seed)


def test_the_head_is_drawn_by_seed_and_the_rest_is_the_language_models(folder: str) -> None:
    model, again, other = load(folder), load(folder), load(folder, seed=1)
    assert torch.equal(model.score.weight, again.score.weight)
    assert not torch.equal(model.score.weight, other.score.weight)
    assert float(model.score.weight.std()) == pytest.approx(model.config.initializer_range, rel=0.4)
    causal: Any = AutoModelForCausalLM.from_pretrained(folder)
    for (name, ours), theirs in zip(model.model.named_parameters(), causal.model.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


def test_a_reward_model_keeps_its_head(tmp_path: Path) -> None:
    made = make_classifier("mistral")
    made.save_pretrained(tmp_path)
    assert torch.equal(load(str(tmp_path)).score.weight, made.score.weight)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_two_sharded_workers_train_and_export_the_model_of_one(tmp_path: Path, folder: str, dtype: str) -> None:
    one = train(folder, str(tmp_path / "one"), 0, dtype)
    start(worker, 2, folder, dtype, str(tmp_path))
    first = json.loads((tmp_path / f"{dtype}-0.json").read_text())
    wide = 1e-4 if dtype == "float32" else 0.03
    for name in ("loss", "mean_reward", "margin"):
        ours, theirs = ([row[name] for row in run["log"]] for run in (first, one))
        assert ours == pytest.approx(theirs, abs=wide), name
    assert one["log"][1]["loss"] < one["log"][0]["loss"] - 0.01
    weights, alone = (load_file(tmp_path / at / "export" / "model.safetensors") for at in (dtype, "one"))
    assert weights.keys() == alone.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor.float(), alone[name].float(), atol=10 * wide, rtol=0, msg=name)
    plain: Any = AutoModelForSequenceClassification.from_pretrained(tmp_path / dtype / "export")
    assert (plain.config.num_labels, plain.config.pad_token_id) == (1, first["padding"])


def test_a_padding_token_that_ends_conversations_is_replaced(folder: str) -> None:
    tokenizer = load_tokenizer(folder, Chat())
    ids = encode(tokenizer, [{"role": "assistant", "content": "x"}], add_generation_prompt=False)
    assert ids[-1:] == whole_ending(tokenizer) == tokenizer("\n", add_special_tokens=False)["input_ids"]
    set_padding(tokenizer)
    assert tokenizer.pad_token == "<unk>"
    tokenizer.pad_token = tokenizer.eos_token
    set_padding(tokenizer)
    assert tokenizer.pad_token == "<unk>"
    tokenizer.unk_token = tokenizer.bos_token = None
    tokenizer.pad_token = tokenizer.eos_token
    set_padding(tokenizer)
    assert tokenizer.pad_token in ("<unk>", "<s>")


@pytest.mark.parametrize("tokenization", ["modern", "zephyr_legacy"])
def test_what_is_trained_on_is_what_is_judged(folder: str, tokenization: Any) -> None:
    tokenizer = load_tokenizer(folder, Chat(tokenization=tokenization))
    prompt = [{"role": "user", "content": "Say owl."}]
    answers = [[{"role": "assistant", "content": text}] for text in ("owl", "an owl</s>\n, perhaps")]
    (pair,) = encode_pairs(tokenizer, [(prompt, answers[0], answers[1])], tokenization)
    eos, ending = tokenizer.eos_token_id, whole_ending(tokenizer)
    assert eos is not None
    for answer, completion in zip(answers, (pair.chosen_ids, pair.rejected_ids), strict=True):
        judged = encode(tokenizer, [*prompt, *answer], add_generation_prompt=False)
        assert pair.prompt_ids + with_ending(completion, eos, ending) == judged
        assert with_ending(completion[:2], eos, ending) == completion[:2]


def test_the_wrong_kind_of_model_is_one_line(tmp_path: Path, folder: str) -> None:
    make_classifier("mistral").save_pretrained(tmp_path / "reward")
    reward = str(tmp_path / "reward")
    with pytest.raises(UserError, match=r"reward is a sequence classifier, as a reward model is, which writes no text"):
        load_model(reward, ModelSection(), torch.float32)
    with pytest.raises(UserError, match=r"^judge=x is no reward model, .* but a MistralForCausalLM; name another$"):
        check_kind("judge=x", folder, is_reward_model=True)
    with pytest.raises(UserError, match="does not load"):
        load(str(tmp_path))
