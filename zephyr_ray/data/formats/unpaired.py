"""Convert one raw row of a known layout into completions with labels, or drop it.

TRL unpaired            prompt, completion: message lists or plain strings; label: true or false
a thumb                 prompt, chosen, rejected, of which one is null (what the chat page writes)
pairs                   any preference layout of layouts.py: chosen is desirable, rejected is not
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from zephyr_ray.data.binarize import Rule
from zephyr_ray.data.formats import layouts
from zephyr_ray.data.formats.layouts import CheckPrompt
from zephyr_ray.data.formats.messages import Row, as_answer, as_prompt, assistant, check_text, checked_prompt
from zephyr_ray.pipeline.fingerprints import content_id
from zephyr_ray.schemas import Dropped, Reason

_SIDES = (("chosen", True), ("rejected", False))


def is_single(raw: Row) -> bool:
    """Whether a raw row has one completion with a label, and is no pair."""
    thumb = raw.keys() >= {"chosen", "rejected"} and (raw["chosen"] is None) != (raw["rejected"] is None)
    return thumb or raw.keys() >= {"completion", "label"}


def unpaired(raw: Row, rule: Rule, *, check_prompt: CheckPrompt | None = None) -> list[dict[str, Any] | Dropped]:
    """The completions of a raw row, each once, with the columns of `schemas.UNPAIRED` except `source`.

    Args:
        raw: The row as read.
        rule: How pairs come of scored completions.
        check_prompt: Refuses prompts.

    Raises:
        Dropped: The row fits no layout, or has no usable completion.
    """
    if is_single(raw):
        row = _single(layouts.strip_nulls(dict(raw)))
        if check_prompt:
            check_prompt(row["prompt"])
        return [row]
    found: dict[str, dict[str, Any] | Dropped] = {}
    for pair in layouts.preferences(raw, rule, check_prompt=check_prompt):
        if isinstance(pair, Dropped):
            found[f"dropped {len(found)}"] = pair
        else:
            found |= {row["completion_id"]: row for row in _sides(pair)}
    return list(found.values())


def _single(row: dict[str, Any]) -> dict[str, Any]:
    """The columns of a row whose nulls are gone."""
    label = row.get("label", "chosen" in row)
    completion = next((row[key] for key in ("completion", "chosen", "rejected") if key in row), None)
    if "prompt" not in row or completion is None or not isinstance(label, bool):
        keys = ", ".join(f"{key} ({type(value).__name__})" for key, value in row.items())
        raise Dropped(
            Reason.UNKNOWN_LAYOUT, f"an answer needs prompt, completion, and label true or false; keys {keys}"
        )
    prompt, text = checked_prompt(as_prompt(row["prompt"])), as_answer(completion)
    check_text(text)
    return _columns(prompt, assistant(text), label)


def _sides(pair: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for side, label in _SIDES:
        yield _columns(pair["prompt"], pair[side], label, pair[f"{side}_cut"])


def _columns(prompt: Any, completion: Any, label: bool, is_cut: bool = False) -> dict[str, Any]:
    name = content_id(prompt, completion, label)
    return {"completion_id": name, "prompt": prompt, "completion": completion, "label": label, "is_cut": is_cut}
