"""The raw model of the embedded world: deterministic, loadable, and with the platform's chat template."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, MistralForCausalLM

from tests.oracles.encoding import encode_dialogue
from zephyr_ray import chat_template
from zephyr_ray.config.model import Chat
from zephyr_ray.embedded import conversations, world
from zephyr_ray.embedded import model as tiny_model

TINY = tiny_model.Sizes(dialogues=500, vocab_size=512, hidden_size=32, layers=2, heads=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base")
    tiny_model.make_base(path, TINY, 0)
    return path


def test_loads_as_a_mistral_of_the_asked_shape(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert isinstance(model, MistralForCausalLM)
    assert model.dtype == torch.float32
    config = model.config
    assert (config.hidden_size, config.num_hidden_layers, config.vocab_size) == (32, 2, 512)
    assert (config.num_attention_heads, config.num_key_value_heads, config.sliding_window) == (4, 2, None)


def test_ends_at_the_tokenizers_end_of_sequence(folder: Path) -> None:
    tokenizer = chat_template.load_tokenizer(str(folder), Chat())
    generation = GenerationConfig.from_pretrained(folder)
    assert tokenizer.convert_ids_to_tokens(generation.eos_token_id) == "</s>"
    assert tokenizer.convert_ids_to_tokens(generation.pad_token_id) == tokenizer.pad_token == "<unk>"
    assert max(tokenizer.get_vocab().values()) < TINY.vocab_size


def test_the_saved_template_is_the_platforms(folder: Path) -> None:
    messages = [{"role": "user", "content": "Even or odd: 17"}, {"role": "assistant", "content": "odd"}]
    own = chat_template.load_tokenizer(str(folder), Chat(template="model"))
    assert chat_template.render(own, messages, add_generation_prompt=False) == (
        "<|user|>\nEven or odd: 17</s>\n<|assistant|>\nodd</s>\n"
    )


@pytest.mark.parametrize("text", ["Ünïcödé 漢字 🙂\n\ttabs  and   spaces", "a, b; c: d!?  ", "17 + 4 = 21\n\n"])
def test_any_text_survives_the_tokenizer(folder: Path, text: str) -> None:
    tokenizer = chat_template.load_tokenizer(str(folder), Chat())
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_a_word_is_one_token_and_the_same_one_wherever_it_stands(tmp_path: Path) -> None:
    tokenizer = tiny_model.train_tokenizer(tiny_model.Sizes(dialogues=4000, vocab_size=640), 0)
    fox = tokenizer.convert_tokens_to_ids("fox")
    for text in ("fox", "fox, ant", "ant, fox", "ant\nfox", "ant; fox", 'all but "fox"', "First: fox"):
        assert tokenizer(text, add_special_tokens=False)["input_ids"].count(fox) == 1
    assert len(tokenizer("1234")["input_ids"]) == 4


def test_same_seed_same_bytes(folder: Path, tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    tiny_model.make_base(tmp_path / "again", TINY, 0)
    assert torch.equal(state, torch.random.get_rng_state())
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "again").iterdir())
    assert {"model.safetensors", "tokenizer.json", "chat_template.jinja", "generation_config.json"} <= set(names)
    for name in names:
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_another_seed_gives_other_weights(folder: Path, tmp_path: Path) -> None:
    tiny_model.make_base(tmp_path, TINY, 1)
    assert (folder / "model.safetensors").read_bytes() != (tmp_path / "model.safetensors").read_bytes()


def test_dialogues_are_short(folder: Path) -> None:
    tokenizer = chat_template.load_tokenizer(str(folder), Chat())
    lengths = [
        len(encode_dialogue(tokenizer, row["messages"], "modern").input_ids) for row in world.dialogues(200, 5, 0.4)
    ]
    assert max(lengths) < 100


def test_config_has_no_path_of_the_machine(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "mistral"
    assert str(folder) not in json.dumps(config)


def test_a_name_of_the_conversations_is_one_token(tmp_path: Path) -> None:
    tiny_model.conversations_base(str(tmp_path), 0, vocab_size=1280, hidden_size=32, layers=1, heads=1)
    tokenizer = chat_template.load_tokenizer(str(tmp_path), Chat())
    names = (*conversations.PEOPLE, *conversations.PLACES, *conversations.ORGANIZATIONS)
    tokens = {name: tokenizer(f"to {name}.", add_special_tokens=False)["input_ids"] for name in names}
    assert {name: ids for name, ids in tokens.items() if len(ids) != 3} == {}
