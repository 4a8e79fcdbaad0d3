"""Preference files that people made elsewhere, row by row: what is read, and what is left out and why."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from zephyr_ray.data.formats.layouts import preference
from zephyr_ray.schemas import Dropped


def rows(path: Path) -> list[dict[str, Any]]:
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
    return json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]


def read(raw: dict[str, Any]) -> str:
    """`read`, or why it is left out."""
    try:
        preference(raw)
    except Dropped as dropped:
        return dropped.reason.value
    return "read"


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("ultrafeedback_binarized_eval.jsonl", {"read": 175, "tie": 24, "identical_pair": 1}),
        ("ultrafeedback_binarized_label_flip_20.jsonl", {"read": 883, "tie": 110, "identical_pair": 4, "empty": 3}),
        ("hh_rlhf_harmless_test.jsonl.gz", {"read": 2303, "empty": 4, "no_shared_prompt": 5}),
        ("pandalm_testset.json", {"read": 836, "empty": 52, "tie": 105, "not_text": 6}),
        ("dpo_multi_turn_300.jsonl.gz", {"read": 236}),
        ("tulu3_if_preferences_100.jsonl.gz", {"read": 72}),
    ],
)
def test_every_row_is_read_or_has_a_reason(outside_data: Path, file: str, counts: dict[str, int]) -> None:
    assert Counter(map(read, rows(outside_data / "preferences" / file))) == counts
