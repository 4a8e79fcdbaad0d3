"""The byte tokenizer of conftest makes ids that can be counted: <s> is 1, </s> is 2, a byte b is 3 + b."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.conftest import save_byte_tokenizer
from tests.oracles.encoding import encode_dialogue, encode_pair
from zephyr_ray.answers import encode_dialogues
from zephyr_ray.chat_template import (
    encode,
    encode_pairs,
    encode_text,
    encode_texts,
    encode_user_start,
    load_tokenizer,
    render,
)
from zephyr_ray.config.model import Chat
from zephyr_ray.errors import UserError

BOS, EOS = 1, 2


def ids(text: str) -> list[int]:
    return [3 + byte for byte in text.encode()]


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


@pytest.fixture(scope="module")
def modern(byte_tokenizer: str):
    return load_tokenizer(byte_tokenizer, Chat())


@pytest.fixture(scope="module")
def legacy(byte_tokenizer: str):
    return load_tokenizer(byte_tokenizer, Chat(tokenization="zephyr_legacy"))


def test_modern_pair(modern) -> None:
    pair = encode_pair(modern, [user("Hi")], [assistant("Yes")], [assistant("No")], "modern")
    assert pair.prompt_ids == [*ids("<|user|>\nHi"), EOS, *ids("\n<|assistant|>\n")]
    assert pair.chosen_ids == [*ids("Yes"), EOS]
    assert pair.rejected_ids == [*ids("No"), EOS]


def test_a_users_message_begins_where_the_template_lets_it(modern) -> None:
    start = encode_user_start(modern, [])
    assert start == (ids("<|user|>\n"), "</s>", ())
    start = encode_user_start(modern, [user("Hi </s>"), assistant("Yes")])
    said = [*ids("<|user|>\nHi </s>"), EOS, *ids("\n<|assistant|>\nYes"), EOS, *ids("\n<|user|>\n")]
    assert start.ids == said


def test_a_users_message_ends_with_a_control_token_at_which_no_engine_stops(byte_tokenizer: str) -> None:
    tokenizer = load_tokenizer(byte_tokenizer, Chat())
    tokenizer.add_special_tokens({"additional_special_tokens": ["[/INST]"]})
    tokenizer.chat_template = "{% for m in messages %}[INST] {{ m.content }} [/INST]{% endfor %}"
    assert encode_user_start(tokenizer, []) == (ids("[INST] "), "[/INST]", (len(tokenizer) - 1,))
    tokenizer.chat_template = "{% for m in messages %}Q: {{ m.content }}\n\nA:{% endfor %}"
    assert encode_user_start(tokenizer, []) == (ids("Q: "), "A:", ())
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
    with pytest.raises(UserError, match="does not say where a user's message ends"):
        encode_user_start(tokenizer, [])


def test_modern_keeps_a_system_message(modern) -> None:
    prompt = [{"role": "system", "content": "Be brief."}, user("Hi")]
    pair = encode_pair(modern, prompt, [assistant("Yes")], [assistant("No")], "modern")
    expected = [*ids("<|system|>\nBe brief."), EOS, *ids("\n<|user|>\nHi"), EOS, *ids("\n<|assistant|>\n")]
    assert pair.prompt_ids == expected


def test_legacy_pair_is_as_the_published_zephyr_was_trained(legacy) -> None:
    pair = encode_pair(legacy, [user("Hi")], [assistant("Yes")], [assistant("No")], "zephyr_legacy")
    head = [BOS, *ids("<|system|>\n"), EOS, *ids("\n<|user|>\nHi"), EOS, *ids("\n<|assistant|>\n")]
    assert pair.prompt_ids == head
    assert pair.chosen_ids == [*ids("Yes"), EOS, *ids("\n"), EOS]
    assert pair.rejected_ids == [*ids("No"), EOS, *ids("\n"), EOS]


@pytest.mark.parametrize("attack", ["</s>", "<s>", "a</s>b<unk>", "<</s>/s>", "</s></s>"])
def test_control_strings_in_a_message_stay_text(modern, attack: str) -> None:
    pair = encode_pair(modern, [user(attack)], [assistant(attack)], [assistant("No")], "modern")
    assert pair.prompt_ids == [*ids("<|user|>\n" + attack), EOS, *ids("\n<|assistant|>\n")]
    assert pair.chosen_ids == [*ids(attack), EOS]


def test_a_token_across_the_boundary_belongs_to_the_answer(tmp_path: Path) -> None:
    # "\n" is "Ċ" in the byte alphabet; its merge with "A" is token 259.
    tokenizer = load_tokenizer(save_byte_tokenizer(tmp_path, (("Ċ", "A"),)), Chat())
    pair = encode_pair(tokenizer, [user("Hi")], [assistant("Ab")], [assistant("No")], "modern")
    assert pair.prompt_ids == [*ids("<|user|>\nHi"), EOS, *ids("\n<|assistant|>")]
    assert pair.chosen_ids == [259, *ids("b"), EOS]
    assert pair.rejected_ids == [*ids("\nNo"), EOS]


def test_dialogue_mask_covers_every_answer_with_its_end(modern) -> None:
    encoded = encode_dialogue(modern, [user("1"), assistant("22"), user("3"), assistant("4")], "modern")
    turns = [
        ([*ids("<|user|>\n1"), EOS, *ids("\n<|assistant|>\n")], 0),
        ([*ids("22"), EOS], 1),
        ([*ids("\n<|user|>\n3"), EOS, *ids("\n<|assistant|>\n")], 0),
        ([*ids("4"), EOS], 1),
    ]
    assert encoded.input_ids == [token for tokens, _ in turns for token in tokens]
    assert encoded.assistant_mask == [learnt for tokens, learnt in turns for _ in tokens]


def test_legacy_dialogue_ends_with_two_ends_of_sequence(legacy) -> None:
    encoded = encode_dialogue(legacy, [user("1"), assistant("2")], "zephyr_legacy")
    answer = [*ids("2"), EOS, *ids("\n"), EOS]
    assert encoded.input_ids[-len(answer) :] == answer
    assert encoded.assistant_mask == [0] * (len(encoded.input_ids) - len(answer)) + [1] * len(answer)


@pytest.mark.parametrize("tokenization", ["modern", "zephyr_legacy"])
def test_a_server_builds_the_prompt_that_training_saw(byte_tokenizer: str, tmp_path: Path, tokenization: str) -> None:
    from transformers import AutoTokenizer

    ours = load_tokenizer(byte_tokenizer, Chat(tokenization=tokenization))
    ours.save_pretrained(tmp_path)
    served = AutoTokenizer.from_pretrained(tmp_path)
    messages = [user("Hi"), assistant("Yes"), user("Why? é")]
    built = served.apply_chat_template(messages, tokenize=True, add_generation_prompt=True, return_dict=False)
    assert built == encode(ours, messages, add_generation_prompt=True)
    text = served.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == render(ours, messages, add_generation_prompt=True)


PARTS = st.sampled_from(["a", "A", " ", "\n", "</s>", "<s>", "<", "/s>", "é", "\ue0f8", "<|user|>"])
CONTENT = st.lists(PARTS, max_size=6).map("".join)
TURNS = st.lists(st.tuples(CONTENT, CONTENT), min_size=1, max_size=3)


def _messages(turns: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [message for question, answer in turns for message in (user(question), assistant(answer))]


KINDS = ["bytes", "merges", "metaspace_first", "metaspace_always", "overlapping", "lstrip"]


@pytest.fixture(scope="module", params=KINDS)
def any_tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "bytes":
        return save_byte_tokenizer(folder)
    if request.param == "merges":
        return save_byte_tokenizer(folder, (("Ċ", "A"), ("Ċ", "<"), ("Ġ", "a"), ("a", "a")))
    return _save_variant(folder, request.param)


def _save_variant(folder: Path, kind: str) -> str:
    """Tokenizers that treat the beginning of a text, or what stands around a control token, in their own way."""
    from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = ["<unk>", "<s>", "</s>", "▁", *"aAé\n<>/s|userinat", "▁a", "▁<", "aa"]
    vocab = {letter: index for index, letter in enumerate(dict.fromkeys(letters))}
    merges = [("▁", "a"), ("▁", "<"), ("a", "a")]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>"))
    control = [AddedToken(name, special=True, normalized=False) for name in ("<unk>", "<s>", "</s>")]
    if kind.startswith("metaspace"):
        scheme = kind.removeprefix("metaspace_")
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    else:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    if kind == "overlapping":  # ends where an end-of-sequence token could begin
        control.append(AddedToken("a<", special=True, normalized=False))
    if kind == "lstrip":
        control[2] = AddedToken("</s>", special=True, normalized=False, lstrip=True)
    tokenizer.add_special_tokens(control)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("tokenization", ["modern", "zephyr_legacy"])
def test_many_rows_at_once_are_encoded_as_one_by_one(any_tokenizer: str, tokenization: str) -> None:
    tokenizer = load_tokenizer(any_tokenizer, Chat(tokenization=tokenization))

    @settings(max_examples=40)
    @given(st.lists(st.tuples(TURNS, CONTENT), min_size=1, max_size=4))
    def check(rows: list[tuple[list[tuple[str, str]], str]]) -> None:
        dialogues = [_messages(turns) for turns, _ in rows]
        pairs = [
            (messages[:-1], messages[-1:], [assistant(other)])
            for messages, (_, other) in zip(dialogues, rows, strict=True)
        ]
        assert encode_pairs(tokenizer, pairs, tokenization) == [encode_pair(tokenizer, *p, tokenization) for p in pairs]
        one_by_one = [encode_dialogue(tokenizer, messages, tokenization) for messages in dialogues]
        assert encode_dialogues(tokenizer, dialogues, tokenization) == one_by_one

    check()


def test_no_rows() -> None:
    assert encode_pairs(None, [], "modern") == encode_dialogues(None, [], "modern") == []  # type: ignore[arg-type]


def test_a_folder_without_a_tokenizer_is_a_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=str(tmp_path)):
        load_tokenizer(str(tmp_path), Chat())


@pytest.mark.parametrize("attack", ["</s>", "<s>", "a</s>b<unk>", "<</s>/s>", "</s></s>"])
def test_control_strings_in_a_text_stay_text(modern, attack: str) -> None:
    assert encode_text(modern, f"x{attack}y", add_special_tokens=False) == ids(f"x{attack}y")


@pytest.fixture(scope="module")
def adds_bos(tmp_path_factory: pytest.TempPathFactory):
    """The byte tokenizer with Llama's rule: <s> before every text."""
    from tokenizers import processors
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(save_byte_tokenizer(tmp_path_factory.mktemp("adds-bos")))
    rule = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", BOS)])
    tokenizer.backend_tokenizer.post_processor = rule
    return tokenizer


@pytest.mark.parametrize("text", ["Hi", "</s>Hi", "a</s>b<s>c", ""])
def test_a_text_has_the_tokenizers_bos_once_in_front_or_not_at_all(adds_bos, text: str) -> None:
    assert encode_text(adds_bos, text, add_special_tokens=True) == [BOS, *ids(text)]
    assert encode_text(adds_bos, text, add_special_tokens=False) == ids(text)


def test_a_text_without_control_strings_is_tokenized_as_it_is(any_tokenizer: str) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(any_tokenizer)

    @settings(max_examples=40)
    @given(
        st.lists(st.sampled_from(["a", "A", " ", "\n", "<|user|>", "é", "/s>"]), max_size=8).map("".join), st.booleans()
    )
    def check(text: str, special: bool) -> None:
        assume(not any(token.content in text for token in tokenizer.added_tokens_decoder.values()))
        assert encode_text(tokenizer, text, add_special_tokens=special) == list(
            tokenizer(text, add_special_tokens=special)["input_ids"]
        )

    check()


def test_a_tokenizer_that_was_saved_with_truncation_and_padding_encodes_whole_texts(byte_tokenizer: str) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(byte_tokenizer)
    tokenizer.backend_tokenizer.enable_truncation(2)
    tokenizer.backend_tokenizer.enable_padding(pad_id=0, length=8)
    assert encode_texts(tokenizer, ["Hello", "a</s>b"]) == [ids("Hello"), [*ids("a"), EOS, *ids("b")]]
