"""Pairs of answers to the same instruction, in the baseline's order; what is not judged is counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from zephyr_ray.errors import UserError
from zephyr_ray.evaluation.alpaca_eval_pairs import pair, read_outputs


def row(instruction: str, output: str, **more: str) -> dict[str, str]:
    return {"instruction": instruction, "output": output, **more}


def test_pairs_go_by_instruction_in_the_baselines_order() -> None:
    baseline = [row("x", "1", generator="gpt", dataset="koala"), row("y", "2"), row("x", "3"), row("z", "4")]
    outputs = [row("y", "b", generator="me"), row("x", "a"), row("x", "c"), row("w", "d")]
    pairs = pair(outputs, baseline)
    assert [(each["output_1"], each["output_2"]) for each in pairs.rows] == [("1", "a"), ("2", "b"), ("3", "c")]
    assert pairs.positions == [0, 1, 2]
    assert (pairs.rows[0]["generator_1"], pairs.rows[1]["generator_2"]) == ("gpt", "me")
    assert pairs.rows[0]["dataset"] == "koala"
    assert pairs.left_out == {
        "instructions without an answer of the model": 1,
        "answers to instructions that the baseline lacks": 1,
    }


def test_an_error_in_the_place_of_an_answer_is_not_judged() -> None:
    pairs = pair([row("x", "$ERROR$"), row("y", "b")], [row("x", "1"), row("y", "2")])
    assert (pairs.positions, pairs.left_out) == ([1], {"$ERROR$ in the place of an answer": 1})


def test_files_without_a_shared_instruction_are_told() -> None:
    with pytest.raises(UserError, match="--outputs and --baseline share no instruction"):
        pair([row("x", "1")], [row("y", "2")])


def test_a_row_without_a_text_is_told(tmp_path: Path) -> None:
    file = tmp_path / "outputs.json"
    file.write_text(json.dumps([row("x", "1"), {"instruction": "y", "output": None}]))
    with pytest.raises(UserError, match=r"--outputs \S+: 1 of 2 rows have no text as instruction and output"):
        read_outputs(str(file), "--outputs")
