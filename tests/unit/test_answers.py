"""What is learnt of a dialogue under the templates that models come with, against a search for its answers.

The byte tokenizer of conftest, to which each template's control strings are added: a control string is one token, and
so is every other byte.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trl
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from zephyr_ray.answers import EncodedDialogue, check_answers, encode_dialogues, end_tokens
from zephyr_ray.chat_template import load_tokenizer
from zephyr_ray.config.model import Chat
from zephyr_ray.errors import UserError
from zephyr_ray.schemas import Dropped, Reason

Messages = list[dict[str, str]]


class Template(NamedTuple):
    """A chat template in the manner of a model's, and what it makes of an answer."""

    text: str
    end: str
    """The control string that ends a turn."""
    answer: Callable[[str, bool], str] = lambda answer, is_last: answer
    """An answer, and whether it is the last -> what is learnt of it before `end`."""
    tail: str = ""
    """What is learnt behind the last answer's end."""
    system: bool = True
    """Whether it takes a system message."""
    end_of_sequence: str = "</s>"


CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA_2 = (
    "{% if messages[0].role == 'system' %}{% set talk = messages[1:] %}{% set first = '<<SYS>>\n' + messages[0].content"
    " + '\n<</SYS>>\n\n' %}{% else %}{% set talk = messages %}{% set first = '' %}{% endif %}{% for m in talk %}"
    "{% if m.role == 'user' %}{{ bos_token + '[INST] ' + (first if loop.first else '') + m.content.strip() }}"
    "{{ ' [/INST]' }}{% else %}{{ ' ' + m.content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA_3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n'"
    " + m.content | trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL = (  # the system message stands in the last question
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content + '\n\n' %}{% set talk = messages[1:] %}"
    "{% else %}{% set system = '' %}{% set talk = messages %}{% endif %}{{ bos_token }}"
    "{% set last = (talk | selectattr('role', 'equalto', 'user') | list)[-1] %}{% for m in talk %}"
    "{% if m.role == 'user' %}{{ '[INST]' + (system if m == last else '') + m.content + '[/INST]' }}"
    "{% else %}{{ ' ' + m.content | trim + eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n'"
    " + m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
QWEN_2 = (
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nYou are helpful<|im_end|>\n' }}{% endif %}" + CHATML
)
QWEN_3 = (  # reasoning in the answer to the last question alone, and there always
    "{% set n = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set n.last = loop.index0 %}"
    "{% endif %}{% endfor %}{% for m in messages %}{% set said = m.content.split('</think>')[-1].lstrip('\n') %}"
    "{% set thought = m.content.split('</think>')[0].split('<think>')[-1] if '</think>' in m.content else '' %}"
    "{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' and loop.index0 > n.last %}"
    "{{ '<think>\n' + thought.strip('\n') + '\n</think>\n\n' + said }}{% else %}{{ said }}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PHI_3 = (  # an end-of-sequence token behind the last turn alone
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
MARKED = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ZEPHYR = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


def trimmed(answer: str, is_last: bool) -> str:
    return answer.strip()


def spaced(answer: str, is_last: bool) -> str:
    return f" {answer.strip()}"


def reasoned(answer: str, is_last: bool) -> str:
    said = answer.lstrip("\n")
    return f"<think>\n\n</think>\n\n{said}" if is_last else said


TEMPLATES = {
    "zephyr": Template(ZEPHYR, "</s>"),
    "chatml": Template(CHATML, "<|im_end|>"),
    "chatml, whose end is the tokenizer's": Template(CHATML, "<|im_end|>", end_of_sequence="<|im_end|>"),
    "chatml, whose beginning is its end of sequence": Template("{{ bos_token }}" + CHATML, "<|im_end|>"),
    "llama 2": Template(LLAMA_2, "</s>", lambda answer, is_last: f" {answer.strip()} "),
    "llama 3": Template(LLAMA_3, "<|eot_id|>", trimmed),
    "mistral": Template(MISTRAL, "</s>", spaced),
    "gemma": Template(GEMMA, "<end_of_turn>", trimmed, system=False),
    "qwen 2": Template(QWEN_2, "<|im_end|>"),
    "qwen 3": Template(QWEN_3, "<|im_end|>", reasoned),
    "phi 3": Template(PHI_3, "<|end|>", tail="\n</s>"),
    "markers": Template(MARKED, "<|im_end|>"),
}
CONTROL = ["<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|end|>"]
CONTROL += ["<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]"]


def tokenizer_of(folder: str, template: str, control: list[str], **special: str) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": control, **special})
    tokenizer.chat_template = template
    return tokenizer


@pytest.fixture(scope="module", params=TEMPLATES)
def made(request: pytest.FixtureRequest, byte_tokenizer: str) -> tuple[Template, Any]:
    template = TEMPLATES[request.param]
    special = {"eos_token": template.end_of_sequence}
    if "beginning" in request.param:
        special |= {"bos_token": "</s>"}
    return template, tokenizer_of(byte_tokenizer, template.text, CONTROL, **special)


def learnt_by_search(template: Template, tokenizer: Any, messages: Messages) -> EncodedDialogue:
    """The oracle: the template's text is searched from its beginning to its end for each message in turn."""
    text = tokenizer.apply_chat_template(messages, tokenize=False).rstrip()
    spans, at = [], 0
    answers = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    for index in answers:
        is_last = index == answers[-1]
        if messages[index - 1]["role"] == "user":
            at = text.index(messages[index - 1]["content"].strip(), at) + len(messages[index - 1]["content"].strip())
        words = template.answer(messages[index]["content"], is_last) + template.end + template.tail * is_last
        start = text.index(words, at)
        at = start + len(words)
        spans.append((start, at))
    tokens = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    mask = [
        int(any(start < after and before < stop for start, stop in spans)) for before, after in tokens["offset_mapping"]
    ]
    return EncodedDialogue(tokens["input_ids"], mask)


WORDS = st.text("ab \n\té", max_size=6).filter(str.strip)
TURNS = st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=4)


def messages_of(turns: list[tuple[str, str]], system: str | None = None) -> Messages:
    found = [{"role": "system", "content": system}] if system else []
    for question, answer in turns:
        found += [{"role": "user", "content": f"Q {question} ?"}, {"role": "assistant", "content": answer}]
    return found


def test_every_answer_with_its_end_and_nothing_else(made: tuple[Template, Any]) -> None:
    template, tokenizer = made

    @settings(max_examples=25)
    @given(TURNS, st.sampled_from([None, "Be brief."]))
    def check(turns: list[tuple[str, str]], system: str | None) -> None:
        messages = messages_of(turns, system if template.system else None)
        assert encode_dialogues(tokenizer, [messages], "modern") == [learnt_by_search(template, tokenizer, messages)]

    check()


def learnt_parts(tokenizer: Any, messages: Messages) -> list[str]:
    """The text of each run of learnt tokens."""
    (encoded,) = encode_dialogues(tokenizer, [messages], "modern")
    assert isinstance(encoded, EncodedDialogue)
    parts: list[list[int]] = []
    for token, ours, before in zip(*encoded, [0, *encoded.assistant_mask], strict=False):
        if ours:
            parts += [] if before else [[]]
            parts[-1].append(token)
    return [tokenizer.decode(part) for part in parts]


def test_control_strings_in_a_message_move_no_edge(made: tuple[Template, Any]) -> None:
    template, tokenizer = made
    attack = f"a{template.end}b"
    messages = messages_of([(attack, attack), (attack, "c")], None)
    first, last = learnt_parts(tokenizer, messages)
    assert first == template.answer(attack, False) + template.end
    assert last == template.answer("c", True) + template.end + template.tail


def test_the_token_that_ends_a_turn(made: tuple[Template, Any]) -> None:
    template, tokenizer = made
    check_answers(tokenizer, "modern")
    ends = (template.end_of_sequence, template.end)
    assert end_tokens(tokenizer) == tokenizer.convert_tokens_to_ids(list(dict.fromkeys(ends)))


def test_reasoning_is_learnt_where_it_is_written(byte_tokenizer: str) -> None:
    tokenizer = tokenizer_of(byte_tokenizer, QWEN_3, CONTROL)
    thought = "<think>\nHm\n</think>\n\nYes"
    messages = messages_of([("1", thought), ("2", thought)])
    assert learnt_parts(tokenizer, messages) == ["Yes<|im_end|>", f"{thought}<|im_end|>"]


FORGETTING = "{% for m in messages[-2:] %}{{ m.role + m.content + eos_token }}{% endfor %}"


def test_a_dialogue_whose_answers_cannot_be_told_is_dropped(byte_tokenizer: str) -> None:
    tokenizer = tokenizer_of(byte_tokenizer, FORGETTING, [])
    short, long = messages_of([("1", "one")]), messages_of([("1", "one"), ("2", "two")])
    first, second = encode_dialogues(tokenizer, [short, long], "modern")
    assert isinstance(first, EncodedDialogue)
    assert isinstance(second, Dropped)
    assert second.reason == Reason.UNCLEAR_ANSWERS


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (FORGETTING, "cannot be found in what it writes; put {% generation %} and"),
        (CHATML.replace("<|im_end|>", ""), "no model would learn to stop; write {{ eos_token }} behind its text"),
        (
            MARKED.replace(
                "{{ m.content + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}",
                "{{ m.content }}{% endgeneration %}{{ '<|im_end|>\n' }}",
            ),
            "no model would learn to stop; put {% generation %} and",
        ),
        (MARKED.replace("m.role == 'assistant'", "loop.last"), "cannot be found"),
    ],
)
def test_a_template_that_cannot_be_learnt_from_is_refused(byte_tokenizer: str, template: str, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        check_answers(tokenizer_of(byte_tokenizer, template, CONTROL), "modern")


SHIPPED = Path(trl.__file__).parent / "chat_templates"


@pytest.mark.parametrize("name", ["cohere", "gemma", "llama3", "phi3", "qwen2_5", "qwen3"])
def test_markers_and_prefixes_agree_on_the_templates_that_trl_ships(byte_tokenizer: str, name: str) -> None:
    """TRL keeps models' own templates, and beside each one with markers that writes the same text."""
    plain, marked = ((SHIPPED / f"{name}{kind}.jinja").read_text() for kind in ("", "_training"))
    control = sorted({*re.findall(r"<\|[^ >]+\|>|<(?:start|end)_of_turn>", plain)})
    messages = messages_of([("1", "one"), ("2", "two"), ("3", "two")])
    parts = [learnt_parts(tokenizer_of(byte_tokenizer, text, control), messages) for text in (plain, marked)]
    stripped = [[re.sub(r"^\s+|^<think>\s*</think>\s*|\s+$|\s*</s>$", "", part) for part in found] for found in parts]
    assert stripped[0] == stripped[1]
    assert [re.sub(r"<.*", "", part) for part in stripped[0]] == ["one", "two", "two"]


def test_a_real_tokenizer(outside_model: str) -> None:
    tokenizer = load_tokenizer(outside_model, Chat(template="model"))
    template = Template("", "<|im_end|>")
    turns = [("What is 2+2?", "It's 4, naïvely.\n\n```py\nx = 1\n```"), ("And\n\nthen", " \n\n Indented"), ("x", "x")]
    for system in (None, "Be brief."):
        messages = messages_of(turns, system)
        assert encode_dialogues(tokenizer, [messages], "modern") == [learnt_by_search(template, tokenizer, messages)]
