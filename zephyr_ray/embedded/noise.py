"""Conversations of the embedded world with planted noise, of which it is known what was planted where.

Cleaning is measured on them: what the steps should find is in `rows`, by the same seed.

    python -m zephyr_ray.embedded.noise FILE     # the benchmark prompts, for dialogues.decontaminate
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, Literal

from zephyr_ray.embedded import conversations

Kind = Literal["wrong_case", "disclaimer", "benchmark", "duplicate", "near_duplicate"]
"""Noise, one kind a row.

wrong_case: every answer went through `str.capitalize`. disclaimer: every answer has one. benchmark: one of the prompts
is a benchmark's. duplicate: the conversation is that of another row. near_duplicate: it is that of another row but for
one question and its answer, which name another place.
"""

SHARES: dict[Kind, float] = {
    "wrong_case": 0.05,
    "disclaimer": 0.05,
    "benchmark": 0.02,
    "duplicate": 0.05,
    "near_duplicate": 0.05,
}
"""Share of all rows."""
BENCHMARK_PROMPTS = 200
"""Held-out prompts, the first of seed 0, that stand for a benchmark."""

DISCLAIMERS = (
    "As an AI language model, I may be wrong. {answer}",
    "As an AI language model, I do not have personal opinions, but {clause}",
    "As an AI language model, I cannot see the real world. However, {clause}",
    "As an AI language model, I can tell you that {clause}",
    "As an AI, I have no feelings about this. {answer}",
    "As an AI assistant, I don't have any preferences, but {clause}",
    "As an artificial intelligence, I lack personal experience. {answer}",
    "As a large language model, I can only guess. {answer}",
    "As a machine learning model, I do not know these people. {answer}",
    "I'm an AI language model and cannot check this. {answer}",
    "I am just a computer program, so please verify what I say. {answer}",
    "I'm sorry, but as an AI I do not have access to the internet. {answer}",
    "Please note that I am an AI and may make mistakes. {answer}",
    "Being an AI language model, I have no beliefs of my own. {answer}",
    "I don't have personal opinions or emotions. {answer}",
    "{answer} Please keep in mind that as an AI language model I can be wrong.",
    "{answer} As an AI language model, I do not have feelings about it.",
)
"""Wordings of disclaimers around an answer; `clause` is the answer without the capital that begins it."""


@dataclass(frozen=True)
class Row:
    """A conversation of the noisy data."""

    messages: list[dict[str, str]]
    planted: Kind | None
    """None: it is as it should be."""
    original: list[dict[str, str]]
    """The messages before anything was planted; of a near duplicate those of the row that it is near to."""


def dialogues(seed: int, count: int = 8_000, planted: bool = True) -> Iterator[dict[str, Any]]:
    """A recipe's source of rows: the conversations of `rows`, or without noise as many as there are without copies."""
    for row in rows(seed, count):
        if planted:
            yield {"messages": row.messages}
        elif row.planted not in ("duplicate", "near_duplicate"):
            yield {"messages": row.original}


def rows(seed: int, count: int) -> list[Row]:
    """So many rows, with `SHARES` of each kind of noise, in random order; the same seed gives the same rows."""
    rng = Random(f"noise {seed}")
    planted: list[Kind | None] = [kind for kind, share in SHARES.items() for _ in range(round(share * count))]
    copies = [kind for kind in planted if kind in ("duplicate", "near_duplicate")]
    of_themselves = [kind for kind in planted if kind not in copies]
    originals = list(conversations.dialogues(count - len(copies), seed))
    of_themselves += [None] * (len(originals) - len(of_themselves))
    benchmark = benchmark_prompts()
    made = [
        Row(_planted(each, kind, benchmark, rng), kind, each)
        for each, kind in zip(originals, of_themselves, strict=True)
    ]
    copied = rng.sample([row.original for row in made if row.planted is None], len(copies))
    made += [Row(_planted(each, kind, benchmark, rng), kind, each) for each, kind in zip(copied, copies, strict=True)]
    rng.shuffle(made)
    return made


def benchmark_prompts() -> list[str]:
    """The prompts that stand for a benchmark."""
    return list(conversations.prompts("held_out", BENCHMARK_PROMPTS, 0))


def write_benchmark(path: Path) -> None:
    """Writes them to a file as `dialogues.decontaminate` takes it, a prompt a line."""
    path.write_text("".join(f"{prompt}\n" for prompt in benchmark_prompts()), encoding="utf-8")


def held_out_prompts(count: int) -> list[str]:
    """Prompts that occur neither in the rows nor in the benchmark."""
    return list(islice(conversations.prompts("held_out", BENCHMARK_PROMPTS + count, 0), BENCHMARK_PROMPTS, None))


def with_disclaimer(answer: str, wording: str) -> str:
    """An answer in one of `DISCLAIMERS`."""
    return wording.format(answer=answer, clause=answer[:1].lower() + answer[1:])


def _planted(
    messages: list[dict[str, str]], kind: Kind | None, benchmark: list[str], rng: Random
) -> list[dict[str, str]]:
    if kind == "wrong_case":
        return _with_answers(messages, [each.capitalize() for each in _answers(messages)])
    if kind == "disclaimer":
        return _with_answers(messages, [with_disclaimer(each, rng.choice(DISCLAIMERS)) for each in _answers(messages)])
    asked = [message["content"] for message in messages if message["role"] == "user"]
    place = rng.randrange(len(asked))
    if kind == "benchmark":
        asked[place] = rng.choice(benchmark)
    elif kind == "near_duplicate":
        asked[place] = conversations.elsewhere(asked[place], rng)
    return conversations.messages(asked)


def _answers(messages: list[dict[str, str]]) -> list[str]:
    return [message["content"] for message in messages if message["role"] == "assistant"]


def _with_answers(messages: list[dict[str, str]], answers: list[str]) -> list[dict[str, str]]:
    left = iter(answers)
    return [{**message, "content": next(left)} if message["role"] == "assistant" else message for message in messages]


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python -m zephyr_ray.embedded.noise FILE")
    write_benchmark(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
