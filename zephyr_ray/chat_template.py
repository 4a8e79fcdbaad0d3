"""Convert messages to text and token ids, for training and serving alike.

The exported tokenizer has the same template, so a server that applies it (vLLM, transformers) builds the prompt that
training saw, including BOS. A message's text never becomes a control token: `encode` splits every control string in a
message before the tokenizer sees it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from zephyr_ray.config.model import Chat
from zephyr_ray.config.section import compute
from zephyr_ray.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, str]

_NAMED = ("zephyr", "model")
"""Names of templates that are not files."""
_NEXT = "\ue0f9"  # private use: stands for the text of a message that is to be written
_BREAK = "\ue0f8"  # private use: marks where a control string of a message is split; the tokenizer never sees it


class EncodedPair(NamedTuple):
    """Token ids of a pair before truncation; each completion continues the same prompt."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]


class UserStart(NamedTuple):
    """What a model is given to write a user's message, and how that ends."""

    ids: list[int]
    """Token ids of the conversation and of all that the template puts before the message's text."""
    end: str
    """What the template puts after the text, without whitespace around it."""
    end_ids: tuple[int, ...]
    """The control token that `end` begins with, if it does and no engine stops there by itself."""


class FileChat(Chat):
    """A chat section whose template is a file, with the file's text: what all stages of a command use."""

    text: str = compute(...)


def read_template(chat: Chat) -> Chat:
    """The section, with the text of its template if that is a file. Workers do not open the file again, so one that is
    edited while a command runs is used by none of its stages.

    Raises:
        UserError: As `template_text`.
    """
    text = template_text(chat)
    if text is None or chat.template in _NAMED:
        return chat
    return FileChat(template=chat.template, tokenization=chat.tokenization, text=text)


def fingerprints(chat: Chat) -> dict[str, str]:
    """The fingerprint of the template's text by the name of its field, or empty if the template is not a file.

    Raises:
        UserError: As `template_text`.
    """
    if chat.template in _NAMED:
        return {}
    text = template_text(chat) or ""
    return {"chat.template": hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}


def template_text(chat: Chat) -> str | None:
    """The Jinja template that a recipe names, or None for the tokenizer's own.

    Raises:
        UserError: The template file cannot be read, or does not fit the tokenization.
    """
    if chat.tokenization == "zephyr_legacy" and chat.template != "zephyr":
        raise UserError(f"chat.tokenization=zephyr_legacy needs chat.template=zephyr, not {chat.template}")
    if isinstance(chat, FileChat):
        return chat.text
    if chat.template == "model":
        return None
    if chat.template == "zephyr":
        name = "zephyr_legacy.jinja" if chat.tokenization == "zephyr_legacy" else "zephyr.jinja"
        return resources.files("zephyr_ray").joinpath("templates", name).read_text(encoding="utf-8").rstrip("\n")
    try:
        return Path(chat.template).read_text(encoding="utf-8").rstrip("\n")
    except OSError as error:
        raise UserError(
            f"chat.template={chat.template}: {error.strerror}; use zephyr, model or the path of a Jinja file"
        ) from None


def load_tokenizer(path: str, chat: Chat, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, with the recipe's chat template and a padding token.

    Raises:
        UserError: There is no tokenizer, no chat template, or no end-of-sequence token.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=False)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"model {path} has no tokenizer that loads ({reason}); save one beside the weights") from None
    template = template_text(chat)
    if template is not None:
        tokenizer.chat_template = template
    if not tokenizer.chat_template:
        raise UserError(
            f"model {path} has no chat template; save the one that it was trained with into its folder as "
            "chat_template.jinja, or (not for a reward model) set chat.template=zephyr"
        )
    if tokenizer.eos_token_id is None:
        raise UserError(f"the tokenizer of model {path} has no end-of-sequence token; set eos_token in its config")
    if tokenizer.bos_token_id is None and chat.tokenization == "zephyr_legacy":
        raise UserError(f"the tokenizer of model {path} has no BOS token; use chat.tokenization=modern")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer


def render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
    """The text of a conversation, as `tokenizer.apply_chat_template` writes it for a server."""
    text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=add_generation_prompt)
    assert isinstance(text, str)
    return text


def encode(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, add_generation_prompt: bool
) -> list[int]:
    """Token ids of a conversation; those of `render`'s text if no message contains a control string."""
    (broken,) = without_control_strings(tokenizer, [messages])
    return _encode_rendered(tokenizer, render(tokenizer, broken, add_generation_prompt=add_generation_prompt))


def encode_user_start(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> UserStart:
    """A conversation up to where the text of the user's next message begins (Magpie, arXiv 2406.08464).

    Raises:
        UserError: The template puts nothing after a user's message, or leaves it out.
    """
    (broken,) = without_control_strings(tokenizer, [messages])
    asked = [*broken, {"role": "user", "content": _NEXT}]
    before, next_, after = render(tokenizer, asked, add_generation_prompt=False).rpartition(_NEXT)
    end = after.strip()
    if not next_ or not end:
        raise UserError(
            f"the chat template of {tokenizer.name_or_path} does not say where a user's message ends, so that magpie "
            "cannot tell; use another method"
        )
    first = next((string for string in control_strings(tokenizer) if end.startswith(string)), None)
    ids = (tokenizer.get_vocab()[first],) if first and first != tokenizer.eos_token else ()
    return UserStart(_encode_rendered(tokenizer, before), first or end, ids)


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str, *, add_special_tokens: bool) -> list[int]:
    """Token ids of a text outside a conversation. Control strings stay text here too.

    Args:
        tokenizer: The model's tokenizer.
        text: The prompt of a completion request.
        add_special_tokens: Whether the tokenizer adds its own tokens (a BOS) in front.
    """
    first, *rest = _split_control_strings(text, control_strings(tokenizer)).split(_BREAK)
    ids = list(tokenizer(first, add_special_tokens=add_special_tokens)["input_ids"])
    for piece in rest:
        ids += tokenizer(piece, add_special_tokens=False)["input_ids"]
    return ids


def encode_pairs(
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[tuple[Sequence[Message], Sequence[Message], Sequence[Message]]],
    tokenization: str,
) -> list[EncodedPair]:
    """Token ids of preference pairs (prompt, chosen, rejected), split where prompt and completions part.

    The boundary is the longest common prefix of the prompt's own ids and both whole conversations' ids, so that a
    token that spans prompt and completion belongs to the completion. Template and tokenizer are called few times.
    """
    conversations = [[*prompt, *completion] for prompt, *completions in pairs for completion in completions]
    prompts = render_many(tokenizer, [prompt for prompt, _, _ in pairs], add_generation_prompt=True)
    whole = render_many(tokenizer, conversations, add_generation_prompt=False)
    ids = encode_texts(tokenizer, [*prompts, *whole])
    ends = [_normalize_end(tokenizer, completion, tokenization) for completion in ids[len(pairs) :]]
    return [_split_prompt(*ids) for ids in zip(ids[: len(pairs)], ends[0::2], ends[1::2], strict=True)]


def _encode_rendered(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a rendered text, in whose messages control strings are split."""
    ids: list[int] = []
    for piece in text.split(_BREAK):
        ids += tokenizer(piece, add_special_tokens=False)["input_ids"]
    return ids


def render_many(
    tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Sequence[Message]], *, add_generation_prompt: bool
) -> list[str]:
    """The texts of many conversations, with control strings in messages split: what `encode_texts` takes."""
    if not conversations:
        return []
    broken = without_control_strings(tokenizer, conversations)
    texts = tokenizer.apply_chat_template(broken, tokenize=False, add_generation_prompt=add_generation_prompt)
    return [str(text) for text in texts]


def without_control_strings(
    tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Sequence[Message]]
) -> list[list[Message]]:
    """The conversations with every control string in their messages split."""
    control = control_strings(tokenizer)
    return [
        [{**message, "content": _split_control_strings(message["content"], control)} for message in messages]
        for messages in conversations
    ]


def encode_texts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of rendered texts, with one call of the tokenizer.

    Texts are cut before every end-of-sequence string and each distinct piece is tokenized once, so a prompt shared by a
    pair's conversations, or turns shared by a dialogue's prefixes, cost nothing the second time.
    """
    if not texts:
        return []
    cut = _cut_before_eos(tokenizer)
    pieces = [[part for piece in text.split(_BREAK) for part in cut(piece)] for text in texts]
    flat = list(dict.fromkeys(part for row in pieces for part in row))
    ids = dict(zip(flat, _ids_of(tokenizer, flat), strict=True))
    return [[token for part in row for token in ids[part]] for row in pieces]


def _ids_of(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """What the tokenizer returns as `input_ids`, without the offsets and masks, which cost it a third of its time."""
    from transformers import TokenizersBackend

    is_plain = (
        isinstance(tokenizer, TokenizersBackend) and type(tokenizer)._encode_plus is TokenizersBackend._encode_plus
    )
    if not is_plain:
        return list(tokenizer(texts, add_special_tokens=False)["input_ids"])
    tokenizer("", add_special_tokens=False)  # sets the backend to neither pad nor truncate
    return [each.ids for each in tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def _cut_before_eos(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], list[str]]:
    """A function that cuts a text into pieces whose concatenated ids are the ids of the text.

    A fast tokenizer first finds control tokens and then tokenizes the text between them separately. So cutting before
    an end-of-sequence token is safe if the tokenizer always finds it there: the token absorbs no adjacent space, and no
    other control string can overlap its beginning.
    """
    eos = tokenizer.eos_token
    token = tokenizer.added_tokens_decoder.get(tokenizer.eos_token_id)
    if (
        not tokenizer.is_fast
        or token is None
        or token.content != eos
        or token.normalized
        or token.lstrip
        or token.rstrip
        or token.single_word
        or any(_reaches_into(other, eos) for other in control_strings(tokenizer) if other != eos)
    ):
        return lambda text: [text]
    start = re.compile(f"(?!^)(?={re.escape(eos)})")
    return start.split


def _reaches_into(other: str, eos: str) -> bool:
    """Whether an occurrence of `other` in a text can cover the beginning of an occurrence of `eos`."""
    return eos in other or any(other.endswith(eos[:length]) for length in range(1, len(eos)))


def _split_prompt(prompt_ids: list[int], chosen: list[int], rejected: list[int]) -> EncodedPair:
    boundary = min(common_prefix(prompt_ids, chosen), common_prefix(prompt_ids, rejected))
    return EncodedPair(prompt_ids[:boundary], chosen[boundary:], rejected[boundary:])


def _normalize_end(tokenizer: PreTrainedTokenizerBase, ids: list[int], tokenization: str) -> list[int]:
    """Ids with the tokenization's end. modern: nothing after the last end-of-sequence token. zephyr_legacy: one more
    (old TRL appended it)."""
    eos = tokenizer.eos_token_id
    if tokenization == "zephyr_legacy":
        return [*ids, eos]
    if eos not in ids:
        return ids
    return ids[: len(ids) - ids[::-1].index(eos)]


def control_strings(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """All strings that the tokenizer would turn into control tokens, longest first."""
    added: dict[int, Any] = tokenizer.added_tokens_decoder
    return sorted({token.content for token in added.values() if len(token.content) > 1}, key=len, reverse=True)


def _split_control_strings(text: str, control: Sequence[str]) -> str:
    """The text with a mark in each control string, which `encode_texts` takes out again between tokens."""
    text = text.replace(_BREAK, "")
    for string in control:
        if string in text:
            text = text.replace(string, string[0] + _BREAK + string[1:])
    return text


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the longest common prefix, by comparing halves of what is left."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
