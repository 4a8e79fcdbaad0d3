"""Real judges' replies, where they are: no rating is read that the reply does not give."""

from __future__ import annotations

import gzip
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.judging.examples import question
from zephyr_ray.judging.parsing.reply import Unreadable, parse_reply

DATA = Path(os.environ.get("ZEPHYR_TEST_DATA", ""))
pytestmark = pytest.mark.usefixtures("outside_data")

ONE = question("overall", (0,))


def rows(name: str) -> Iterator[dict[str, Any]]:
    path = DATA / name
    raw = gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes()
    yield from (json.loads(line) for line in raw.splitlines())


def read(text: str) -> float | None:
    try:
        return parse_reply(text, ONE)[0].rating
    except Unreadable:
        return None


def tally(replies: Iterator[tuple[str, float | None]]) -> Counter[str]:
    """How often our rating and the one published with the reply are the same, or one of them is missing."""
    counts: Counter[str] = Counter()
    for text, published in replies:
        ours = read(text)
        if ours == published:
            counts["same" if ours is not None else "neither"] += 1
        else:
            counts["ours only" if published is None else "theirs only" if ours is None else "other"] += 1
    return counts


def published(score: float) -> float | None:
    return score if score > 0 else None


def test_gpt_4s_mt_bench_judgments_are_read_but_for_the_fractions() -> None:
    found = tally(
        (row["judgment"], published(row["score"])) for row in rows("benchmarks/mt_bench_judgments_gpt-4.jsonl")
    )
    fractions = sum(row["score"] % 1 != 0 for row in rows("benchmarks/mt_bench_judgments_gpt-4.jsonl"))
    assert found == {"same": 480 - fractions, "theirs only": fractions}
    assert fractions == 6


def test_replies_of_which_some_are_empty() -> None:
    found = tally((row["judgment"], published(row["score"])) for row in rows("judge_replies/with_empty_320.jsonl"))
    assert found == {"same": 296, "theirs only": 13, "neither": 11}  # 12 times 8.5, once 7.5; ten empty, one rambles


def test_a_judge_that_invents_formats_is_read_only_where_it_is_clear() -> None:
    found = tally((row["judgment"], published(row["score"])) for row in rows("judge_replies/instructlab_160.jsonl"))
    # Published without ours: two ratings in one reply (3 times) and a number in a sentence. Ours without published:
    # a lone 5.0, a lone 10.0, and [7/10] under a heading.
    assert found == {"same": 34, "neither": 119, "theirs only": 4, "ours only": 3}


def test_the_arenas_critiques() -> None:
    found = tally(
        (answer["critique"], answer["overall_score"])
        for row in rows("judged/arena_bench_v1.jsonl.gz")
        for answer in row["completions"]
    )
    assert found["other"] == found["ours only"] == 0
    assert found == {"same": 4457, "neither": 32, "theirs only": 11}


def test_a_reply_cut_anywhere_gives_its_own_rating_or_none() -> None:
    """A cut is found by its finish_reason; where a server does not say, brackets and JSON still protect a 10."""
    for row in list(rows("benchmarks/mt_bench_judgments_gpt-4.jsonl"))[:100]:
        whole = row["judgment"]
        mark = re.search(r"\[\[[^\]]*\]\]", whole)
        if mark is None:
            continue
        for end in range(mark.start(), mark.end()):
            assert read(whole[:end]) is None
