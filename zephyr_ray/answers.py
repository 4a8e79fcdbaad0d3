"""Which tokens of a dialogue the assistant wrote: the mask of a loss on its answers alone.

An answer runs from the end of its generation prompt, where a server's model begins, to the token that ends its turn,
where it has to stop. What a template writes behind that token (ChatML's newline) is not part of it. A template with
`{% generation %}` says itself what an answer is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import jinja2

from zephyr_ray.chat_template import (
    Message,
    common_prefix,
    control_strings,
    encode_texts,
    render_many,
    without_control_strings,
)
from zephyr_ray.errors import UserError
from zephyr_ray.schemas import Dropped, Reason

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]
"""Where an answer starts and ends in a text."""

_GENERATION = re.compile(r"{%[-+]?\s*generation\s*[-+]?%}")
_OPEN, _CLOSE = "\ue0f9", "\ue0fa"  # private use: stand around an answer while it is searched for
_EXAMPLE: list[Message] = [
    {"role": "user", "content": "First question"},
    {"role": "assistant", "content": "First answer"},
    {"role": "user", "content": "Second question"},
    {"role": "assistant", "content": "Second answer"},
]


class EncodedDialogue(NamedTuple):
    """Token ids of a dialogue, and a mask that is 1 on the assistant's tokens (including the ends of its turns)."""

    input_ids: list[int]
    assistant_mask: list[int]


def encode_dialogues(
    tokenizer: PreTrainedTokenizerBase, dialogues: Sequence[Sequence[Message]], tokenization: str
) -> list[EncodedDialogue | Dropped]:
    """Token ids of dialogues, and a `Dropped` for each in whose text an answer cannot be found.

    A token that spans prompt and answer belongs to the answer. The template and the tokenizer are called few times.
    """
    found = _find_answers(tokenizer, dialogues, tokenization)
    edges = [text[:edge] for text, spans in found for span in spans or () for edge in span]
    ids = encode_texts(tokenizer, [*(text for text, _ in found), *edges])
    before = iter(ids[len(found) :])
    encoded = [_mask(each, spans, before) for each, (_, spans) in zip(ids, found, strict=False)]
    if tokenization == "zephyr_legacy":  # old TRL appended one more end-of-sequence token
        end = tokenizer.eos_token_id
        return [
            each if isinstance(each, Dropped) else EncodedDialogue([*each.input_ids, end], [*each.assistant_mask, 1])
            for each in encoded
        ]
    return encoded


def check_answers(tokenizer: PreTrainedTokenizerBase, tokenization: str) -> None:
    """Refuses a chat template of which nothing could be learnt, or not when to stop.

    Raises:
        UserError: The answers cannot be found in what it writes, or no token ends them.
    """
    try:
        ((text, spans),) = _find_answers(tokenizer, [_EXAMPLE], tokenization)
    except jinja2.TemplateError:  # it refuses the example, and perhaps nothing else
        return
    way_out = "put {% generation %} and {% endgeneration %} around the assistant's text and the token that ends it"
    if spans is None:
        raise UserError(f"chat.template: the assistant's text cannot be found in what it writes; {way_out}")
    if _end_of_answer(tokenizer, text, spans) is None:
        if not _has_markers(tokenizer):
            way_out = "write {{ eos_token }} behind its text"
        raise UserError(
            f"chat.template: no token ends the assistant's turn, so no model would learn to stop; {way_out}"
        )


def end_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens at which a model stops: the tokenizer's end-of-sequence token, and the one that ends an answer of the
    chat template where that is another."""
    found: list[Any] = [tokenizer.eos_token_id]
    try:
        ((text, spans),) = _find_answers(tokenizer, [_EXAMPLE], "modern")
    except jinja2.TemplateError:
        return found
    end = _end_of_answer(tokenizer, text, spans or [])
    if end is not None:
        found.append(tokenizer.convert_tokens_to_ids(end))
    return list(dict.fromkeys(found))


def _mask(ids: list[int], spans: list[Span] | None, before: Iterator[list[int]]) -> EncodedDialogue | Dropped:
    """The dialogue with its mask; `before` has the ids of the text before each edge of its spans."""
    if spans is None:
        return Dropped(Reason.UNCLEAR_ANSWERS, "its answers cannot be found in what the chat template writes")
    mask = [0] * len(ids)
    for _ in spans:
        start, stop = (common_prefix(next(before), ids) for _ in range(2))
        mask[start:stop] = [1] * (stop - start)
    return EncodedDialogue(ids, mask)


def _end_of_answer(tokenizer: PreTrainedTokenizerBase, text: str, spans: Sequence[Span]) -> str | None:
    """The control string that ends the example's last answer, if one does and is a part of it."""
    words = _EXAMPLE[-1]["content"]
    at = text.rfind(words, 0, spans[-1][1]) if spans else -1
    end = _Ends(tokenizer).behind(text, at + len(words)) if at >= 0 else None
    return end.group(1) if end and end.end() <= spans[-1][1] else None


class _Ends:
    """Finds the control strings that end turns; those that are whitespace do not."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.strings = tuple(string for string in control_strings(tokenizer) if string.strip())
        self.pattern = re.compile(rf"\s*({'|'.join(map(re.escape, self.strings)) or '(?!)'})")

    def behind(self, text: str, at: int) -> re.Match[str] | None:
        """The next control string, where nothing but whitespace lies before it."""
        return self.pattern.match(text, at)

    def last(self, text: str) -> str:
        """The end of a text from its last control string on; empty where there is none."""
        at = max((text.rfind(string) for string in self.strings), default=-1)
        return text[at:] if at >= 0 else ""

    def cut(self, text: str) -> str:
        """The text up to its last control string, where nothing but whitespace follows that."""
        stripped = text.rstrip()
        return stripped if stripped.endswith(self.strings) else text


def _has_markers(tokenizer: PreTrainedTokenizerBase) -> bool:
    return _GENERATION.search(str(tokenizer.chat_template)) is not None


def _find_answers(
    tokenizer: PreTrainedTokenizerBase, dialogues: Sequence[Sequence[Message]], tokenization: str
) -> list[tuple[str, list[Span] | None]]:
    """The text of each dialogue and its answers in it; None where they cannot be told. zephyr_legacy: what the template
    writes behind the end of a turn is kept, as a part of the answer."""
    if not dialogues:
        return []
    ends = _Ends(tokenizer)
    if _has_markers(tokenizer):
        found = _marked_answers(tokenizer, dialogues)
    else:
        found = _added_answers(tokenizer, dialogues, None if tokenization == "zephyr_legacy" else ends)
    if tokenization == "zephyr_legacy":
        return found
    texts = [ends.cut(text) for text, _ in found]
    return [
        (text, spans and [(start, min(stop, len(text))) for start, stop in spans])
        for text, (_, spans) in zip(texts, found, strict=True)
    ]


def _answers(messages: Sequence[Message]) -> list[int]:
    """The numbers of the assistant's messages."""
    return [index for index, message in enumerate(messages) if message["role"] == "assistant"]


def _marked_answers(
    tokenizer: PreTrainedTokenizerBase, dialogues: Sequence[Sequence[Message]]
) -> list[tuple[str, list[Span] | None]]:
    """Of a template with `{% generation %}`, which may stand several times in a message."""
    from transformers.utils.chat_template_utils import render_jinja_template

    strings: dict[str, Any] = tokenizer.special_tokens_map
    rendered: Any = render_jinja_template(
        without_control_strings(tokenizer, dialogues),
        chat_template=str(tokenizer.chat_template),
        return_assistant_tokens_mask=True,
        **strings,
    )
    texts, marked = rendered
    return [
        (text, spans if len(spans) >= len(_answers(messages)) else None)
        for text, spans, messages in zip(texts, marked, dialogues, strict=True)
    ]


def _added_answers(
    tokenizer: PreTrainedTokenizerBase, dialogues: Sequence[Sequence[Message]], ends: _Ends | None
) -> list[tuple[str, list[Span] | None]]:
    """Of a template without markers: what an assistant's message adds to the text of the messages before it, up to the
    end of its turn (`ends`; None: all of it).

    Some templates write a message otherwise where others follow it: Qwen3's leaves its reasoning out, Mistral's moves
    the system message to the last question. There the answer's own words are searched for.
    """
    turns = [(row, index) for row, messages in enumerate(dialogues) for index in _answers(messages)]
    prompts = render_many(tokenizer, [dialogues[row][:index] for row, index in turns], add_generation_prompt=True)
    upto = [dialogues[row][: index + 1] for row, index in turns]
    texts = render_many(tokenizer, [*dialogues, *upto], add_generation_prompt=False)
    known: list[list[int | None]] = [[] for _ in dialogues]
    asked: list[list[str]] = [[] for _ in dialogues]
    for (row, _), prompt, turn in zip(turns, prompts, texts[len(dialogues) :], strict=True):
        edges = (prompt, ends.cut(turn) if ends else turn)
        known[row] += [len(edge) if texts[row].startswith(edge) else None for edge in edges]
        asked[row].append(prompt)
    lacking = [row for row, edges in enumerate(known) if _spans(edges) is None]
    searched = _search(tokenizer, [dialogues[row] for row in lacking], [asked[row] for row in lacking])
    for row, found in zip(lacking, searched, strict=True):
        if found.text == texts[row]:
            known[row] = [new if old is None else old for old, new in zip(known[row], found.places, strict=True)]
    return [(texts[row], _spans(edges)) for row, edges in enumerate(known)]


def _spans(edges: Sequence[int | None]) -> list[Span] | None:
    """Starts and ends in turn as spans; None where one is unknown, or an answer is empty or begins too early."""
    known = [edge for edge in edges if edge is not None]
    spans = list(zip(known[0::2], known[1::2], strict=False))
    is_right = len(known) == len(edges) and known == sorted(known) and all(start < stop for start, stop in spans)
    return spans if is_right else None


class _Found(NamedTuple):
    """A dialogue's text, and where in it each answer starts and the token behind it ends, if they are there at all."""

    text: str | None
    places: list[int]


def _search(
    tokenizer: PreTrainedTokenizerBase, dialogues: Sequence[Sequence[Message]], prompts: Sequence[Sequence[str]]
) -> list[_Found]:
    """Writes the dialogues with marks around the words of each answer and looks for the marks; `prompts` are the texts
    that ask for each answer."""
    ends = _Ends(tokenizer)
    texts = render_many(tokenizer, [_with_marks(messages) for messages in dialogues], add_generation_prompt=False)
    return [_take_marks(text, asked, ends) for text, asked in zip(texts, prompts, strict=True)]


def _with_marks(messages: Sequence[Message]) -> list[Message]:
    """The messages with marks around each answer: behind its reasoning, and within the whitespace around it, both of
    which a template may leave out."""
    found = [dict(message) for message in messages]
    for index in _answers(messages):
        reasoning, end, answer = messages[index]["content"].rpartition("</think>")
        words = answer.strip()
        start = len(answer) - len(answer.lstrip())
        marked = f"{answer[:start]}{_OPEN}{words}{_CLOSE}{answer[start + len(words) :]}"
        found[index]["content"] = f"{reasoning}{end}{marked}"
    return found


def _take_marks(text: str, prompts: Sequence[str], ends: _Ends) -> _Found:
    pieces = re.split(f"([{_OPEN}{_CLOSE}])", text)
    if pieces[1::2] != [_OPEN, _CLOSE] * len(prompts):
        return _Found(None, [])
    plain = "".join(pieces[0::2])
    words = list(accumulate(map(len, pieces[0:-1:2])))
    places = []
    for start, stop, prompt in zip(words[0::2], words[1::2], prompts, strict=True):
        end = ends.behind(plain, stop)
        places += [_begin(plain, start, ends.last(prompt)), end.end() if end else stop]
    return _Found(plain, places)


def _begin(text: str, words: int, asked: str) -> int:
    """Where an answer begins whose words are there: behind what asks for it, or with its words."""
    at = text.rfind(asked, 0, words) if asked else -1
    behind = at + len(asked)
    return behind if at >= 0 and not text[behind:words].strip() else words
