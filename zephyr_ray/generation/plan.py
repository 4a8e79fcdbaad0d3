"""The dialogues that are planned, as rows: what each starts from, and who makes it.

They depend on the run's seed, the recipe and the seeds' texts alone, not on partitions or on the order of files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from zephyr_ray.config.generation import Generation, Magpie, Method, SelfInstruct
from zephyr_ray.generation.self_instruct import Instruction
from zephyr_ray.inference.seeds import draw_members
from zephyr_ray.pipeline.fingerprints import content_id
from zephyr_ray.schemas import MESSAGES

PLANNED = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("source", pa.string()),
        ("method", pa.string()),
        ("teacher", pa.string()),
        ("messages", MESSAGES),
    ]
)
"""A planned dialogue: `prompt_id` is a hash of what it starts from; `source` is method:teacher:origin, and no other's;
`messages` are what it starts from, none for magpie, and null where no instruction was found for it."""


def teacher_of(section: Generation, run_seed: int, row_id: str) -> str:
    """The teacher that is drawn for a row."""
    return draw_members(run_seed, row_id, [member.name for member in section.pool], 1)[0]


def planned(
    section: Generation,
    run_seed: int,
    method: Method,
    numbers: range,
    seeds: Sequence[dict[str, Any]],
    instructions: Sequence[Instruction],
) -> Iterator[dict[str, Any]]:
    """Rows of `PLANNED`.

    Args:
        section: The teachers.
        run_seed: Of the draws.
        method: How the dialogues are made.
        numbers: Which of its dialogues, from 0.
        seeds: Rows of `schemas.PROMPTS`, by `prompt_id`; the dialogues take them in turn.
        instructions: Those of Self-Instruct.
    """
    for number in numbers:
        if isinstance(method, Magpie):
            row_id, origin, messages = content_id("magpie", number), str(number + 1), []
        elif isinstance(method, SelfInstruct):
            if number >= len(instructions):
                yield {"source": f"self_instruct::{number + 1}", "method": method.type}
                continue
            instruction = instructions[number]
            row_id, origin = content_id("self_instruct", instruction.text), instruction.origin
            messages = [{"role": "user", "content": instruction.text}]
        else:
            seed, turn = seeds[number % len(seeds)], number // len(seeds)
            row_id = content_id(method.type, seed["prompt_id"], turn)
            origin, messages = seed["source"] + (f"/{turn + 1}" if turn else ""), seed["messages"]
        teacher = teacher_of(section, run_seed, row_id)
        yield {
            "prompt_id": row_id,
            "source": f"{method.type}:{teacher}:{origin}",
            "method": method.type,
            "teacher": teacher,
            "messages": messages,
        }
