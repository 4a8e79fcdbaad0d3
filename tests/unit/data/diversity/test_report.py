"""Measures of a few dialogues, and their page: the numbers are there, texts are nobody's markup, it loads nothing."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.unit.data.cleaning.test_chain import dialogue
from tests.unit.data.diversity.vectors import drawn, unit
from tests.unit.data.pages import Page
from zephyr_ray.data.diversity import report
from zephyr_ray.data.diversity.measures import Measures, as_json, measure
from zephyr_ray.data.diversity.stage import lines
from zephyr_ray.schemas import MESSAGES

EVIL = "<script>alert('x')</script>\"&"


def texts(*dialogues: list[dict[str, str]], **columns: Any) -> pa.Table:
    return pa.table({"messages": pa.array(dialogues, MESSAGES), **columns})


def measured(count: int = 40, with_seeds: bool = True, with_vectors: bool = True) -> Measures:
    """Half of the dialogues ask of cats, half of ships; the two last are of the same words and of one vector."""
    kinds = ["cats", "ships"] * (count // 2)
    rows = [dialogue(f"Tell me of {kind} {EVIL} {number}", f"So be it: {kind}.") for number, kind in enumerate(kinds)]
    centres = drawn(2, 16)[[0, 1] * (count // 2)]
    vectors = unit(centres + 0.3 * drawn(count, 16, seed=1))
    vectors[-2] = vectors[-1]
    return measure(
        texts(*rows, source=[f"magpie:{EVIL}:{number}" for number in range(count)]),
        texts(*([{"role": "user", "content": text}] for text in ("Tell me of", "Go"))) if with_seeds else None,
        vectors if with_vectors else None,
        {"magpie": 2 * count},
        0,
    )


def test_the_page() -> None:
    found = measured()
    page = Page(report.render(found))
    page.check_loads_nothing()
    assert page.html.count("alert('x')") == 0
    embedded = found.embedded
    assert embedded is not None
    for phrase in (
        "80 dialogues: 80 by magpie",
        "40 of them measured here, drawn by seed",
        f"{100 * embedded.near:.1f} % are near another one",
        f"{embedded.novel_sum.by_proximity:.3f} NovelSum by proximity",
        f"{embedded.novel_sum.by_proximity_and_density:.3f} NovelSum by proximity and density",
        "4 seeds 1.000 1.000 1.000 \u2013",  # Tell me of Go: no message has four words
        "tell me of 100.0 % 50.0 %",
        f"in random order {embedded.generations['magpie'].shuffled[-1]:.3f}",
        "1.000 magpie:" + EVIL,
    ):
        assert phrase in page.text, phrase
    assert page.tags.count("circle") == 40
    assert page.tags.count("polyline") == 2
    assert {"cats", "ships"} <= {word for topic in embedded.topics for word in topic.words}
    assert page.marked[:6] == [  # after the two that the page explains itself with
        ("del", "Words"),
        ("ins", "words"),
        ("del", "cats"),
        ("del", "38"),
        ("del", "cats"),
        ("ins", "ships"),
    ]


def test_the_nearest_pair_comes_first() -> None:
    embedded = measured().embedded
    assert embedded is not None
    assert (embedded.pairs[0].first, embedded.pairs[0].second) == (f"magpie:{EVIL}:38", f"magpie:{EVIL}:39")
    assert embedded.pairs[0].similarity == pytest.approx(1, abs=1e-6)
    assert len(embedded.pairs) == 10
    assert [pair.similarity for pair in embedded.pairs] == sorted((p.similarity for p in embedded.pairs), reverse=True)
    assert sum(topic.dialogues for topic in embedded.topics) == 40


def test_it_works_without_seeds_and_embeddings() -> None:
    found = measured(with_seeds=False, with_vectors=False)
    page = Page(report.render(found))
    assert "name one in embeddings.model" in page.text
    assert "Topics" not in page.text
    assert "seeds" not in page.text
    assert as_json(found)["embedded"] is None
    assert [line for line in lines(found) if "NovelSum" in line] == []
    assert found.openings[3][0] == ("tell me of", 1.0, None)


def test_one_dialogue_has_no_neighbour() -> None:
    one = texts(dialogue("a", "b"), source=["magpie:t:1"])
    found = measure(one, None, drawn(1), {"magpie": 1}, 0)
    assert found.embedded is None
    Page(report.render(found))


def test_the_numbers_are_json_and_come_again() -> None:
    first, second = (json.dumps(as_json(measured()), allow_nan=False) for _ in range(2))
    assert first == second
    assert json.loads(first)["openings"]["1"][0] == {"text": "tell", "share": 1.0, "seeds_share": 0.5}


def test_lines_compare_at_one_size() -> None:
    """Users and assistant have thousands of words, seeds four: of each its own is told, with its size."""
    words = np.random.default_rng(0).integers(400, size=(120, 20))
    rows = [dialogue(" ".join(f"w{word}" for word in row), " ".join(f"v{word}" for word in row)) for row in words]
    table = texts(*rows, source=["magpie:t:1"] * 120)
    assert "users 0." in lines(measure(table, None, None, {"magpie": 120}, 0))[1]
    assert lines(measure(table, None, None, {"magpie": 120}, 0))[1].count("(of 1,000 words)") == 2
    seeded = measure(table, texts([{"role": "user", "content": "a b a b"}]), None, {"magpie": 120}, 0)
    assert "seeds 0.667 (of 4 words)" in lines(seeded)[1]
