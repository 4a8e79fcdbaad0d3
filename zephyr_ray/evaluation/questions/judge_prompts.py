"""What a judge is asked: FastChat's prompts from its file, or our own from prompts/, which have the same scheme."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from zephyr_ray.errors import UserError
from zephyr_ray.evaluation import recorded_files
from zephyr_ray.evaluation.questions.judge_replies import Kind
from zephyr_ray.pipeline.fingerprints import content_id

Message = dict[str, str]

PROMPT_VERSION = 1
"""Increased whenever code changes what a judge is sent or how its replies are read."""

_FASTCHAT: dict[tuple[Kind, bool, int], str] = {
    ("rating", False, 1): "single-v1",
    ("rating", True, 1): "single-math-v1",
    ("rating", False, 2): "single-v1-multi-turn",
    ("rating", True, 2): "single-math-v1-multi-turn",
    ("verdict", False, 1): "pair-v2",
    ("verdict", True, 1): "pair-math-v1",
    ("verdict", False, 2): "pair-v2-multi-turn",
    ("verdict", True, 2): "pair-math-v1-multi-turn",
}
"""FastChat's names of prompts, by what they ask for, whether there is a reference, and the turn."""
_OUR_NAMES: dict[tuple[Kind, bool, int], str] = {
    ("rating", False, 1): "single",
    ("rating", True, 1): "single-reference",
    ("rating", False, 2): "single-multi-turn",
    ("rating", True, 2): "single-reference-multi-turn",
    ("verdict", False, 1): "pair",
    ("verdict", True, 1): "pair-reference",
    ("verdict", False, 2): "pair-multi-turn",
    ("verdict", True, 2): "pair-reference-multi-turn",
}
"""The names of ours, which are files, by the same."""
_FORMATS = {"rating": "[[rating]]", "verdict": "[[A]]"}


@dataclass(frozen=True)
class JudgePrompt:
    """A prompt with placeholders."""

    name: str
    system: str
    """The system message; empty: none."""
    template: str
    """The user's message, with fields in braces."""

    def text(self, fields: Mapping[str, str]) -> str:
        """The user's message. Texts that are filled in are not filled again: a brace in an answer stays."""
        return self.template.format(**fields)

    def messages(self, user: str) -> list[Message]:
        """The conversation with the judge."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": user}]


Prompts = dict[tuple[Kind, bool, int], JudgePrompt]
"""Prompts by what they ask for, whether there is a reference, and the turn."""


def prompts(path: str | None) -> Prompts:
    """The prompts of FastChat's `judge_prompts.jsonl`, or ours where no file is named.

    Raises:
        UserError: The file cannot be read, or lacks a prompt.
    """
    return _ours() if path is None else _of_file(path)


def fingerprint(path: str | None) -> str:
    """A hash of what a judge is sent, and of how its replies are read. Raises as `prompts`."""
    found = {str(key): [each.system, each.template] for key, each in prompts(path).items()}
    return content_id(PROMPT_VERSION, found)


def fields(
    turns: Sequence[str], shown: Sequence[Sequence[str]], references: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """FastChat's names of what a prompt is filled with, and the texts.

    Args:
        turns: The user's messages, up to the one whose answer is judged.
        shown: The answers to them of one model, or of A and of B.
        references: Reference answers; empty without any.
    """
    is_second = len(turns) > 1
    for number, turn in enumerate(turns, 1):
        yield (f"question_{number}" if is_second else "question"), turn
    for place, answers in zip(("_a", "_b") if len(shown) > 1 else ("",), shown, strict=True):
        for number, answer in enumerate(answers, 1):
            yield (f"answer{place}_{number}" if is_second else f"answer{place}"), answer
    for number, reference in enumerate(references, 1):
        yield f"ref_answer_{number}", reference


@cache
def _ours() -> Prompts:
    folder = resources.files("zephyr_ray").joinpath("evaluation", "questions", "prompts")
    return {
        key: JudgePrompt(name, "", folder.joinpath(f"{name}.txt").read_text(encoding="utf-8").strip())
        for key, name in _OUR_NAMES.items()
    }


def _of_file(path: str) -> Prompts:
    rows = {row.get("name"): row for row in recorded_files.read(path).rows}
    return {key: _of_row(path, name, rows.get(name), key) for key, name in _FASTCHAT.items()}


def _of_row(path: str, name: str, row: Mapping[str, object] | None, key: tuple[Kind, bool, int]) -> JudgePrompt:
    if row is None:
        raise UserError(f"{path} has no prompt {name}; give FastChat's judge_prompts.jsonl, or leave judge_prompts out")
    system, template = row.get("system_prompt"), row.get("prompt_template")
    if not (isinstance(system, str) and isinstance(template, str) and row.get("output_format") == _FORMATS[key[0]]):
        raise UserError(
            f"{path}: prompt {name} has system_prompt and prompt_template, and output_format {_FORMATS[key[0]]}; "
            "FastChat's file is read as it is"
        )
    prompt, (_, has_reference, turn) = JudgePrompt(name, system, template), key
    shown = [["text"] * turn] * (2 if key[0] == "verdict" else 1)
    try:
        prompt.text(dict(fields(["text"] * turn, shown, ["text"] * 2 if has_reference else ())))
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: prompt {name} cannot be filled in: {type(error).__name__}: {error}") from None
    return prompt
