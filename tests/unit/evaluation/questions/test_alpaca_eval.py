"""AlpacaEval's answers and annotations: preferences by hand, orders by seed, and a baseline of a file."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.evaluation.questions.asked import REFUSED, Model
from zephyr_ray.config.evaluation import AlpacaEval
from zephyr_ray.errors import UserError
from zephyr_ray.evaluation import alpaca_eval
from zephyr_ray.evaluation.questions import alpaca_eval_outputs
from zephyr_ray.evaluation.questions.alpaca_eval_annotations import Compared, games_of, planned
from zephyr_ray.evaluation.questions.alpaca_eval_outputs import answer_instruction, read_baseline, read_instructions
from zephyr_ray.evaluation.questions.alpaca_eval_result import annotated_rows, model_outputs, preference
from zephyr_ray.evaluation.questions.judging import judge_answer

INSTRUCTIONS = [{"instruction": text, "dataset": "made"} for text in ("name a fish", "count", "name a fish")]


def section(folder: Path, instructions: Any = INSTRUCTIONS, baseline: Any = (), **fields: Any) -> AlpacaEval:
    paths = {}
    for name, rows in (("instructions", instructions), ("baseline", baseline)):
        (folder / f"{name}.json").write_text(json.dumps(rows))
        paths[name] = str(folder / f"{name}.json")
    return AlpacaEval.model_validate({**paths, **fields})


def output(instruction: str, text: str, generator: str = "davinci") -> dict[str, str]:
    return {"instruction": instruction, "output": text, "generator": generator}


@pytest.mark.parametrize(
    ("games", "expected"),
    [
        ([(1, "A")], 2),  # the model's answer was shown as A
        ([(1, "B")], 1),
        ([(2, "A")], 1),
        ([(2, "B")], 2),
        ([(2, "C")], 1.5),
        ([(1, None)], None),
        ([(1, "A"), (2, "B")], 2),
        ([(1, "B"), (2, "A")], 1),
        ([(1, "A"), (2, "A")], 1.5),  # whichever is shown first
        ([(1, "A"), (2, "C")], 1.5),
        ([(1, "A"), (2, None)], None),
    ],
)
def test_preferences(games: list[tuple[int, str | None]], expected: float | None) -> None:
    assert preference([{"game": game, "verdict": verdict} for game, verdict in games]) == expected


def test_orders_are_drawn_by_seed(tmp_path: Path) -> None:
    drawn = section(tmp_path)
    games = [games_of(drawn, 0, str(number)) for number in range(1000)]
    assert games == [games_of(drawn, 0, str(number)) for number in range(1000)]
    assert 450 < games.count((1,)) < 550
    assert games.count((1,)) + games.count((2,)) == 1000
    assert games != [games_of(drawn, 1, str(number)) for number in range(1000)]
    assert games_of(section(tmp_path, orders="both"), 0, "x") == (1, 2)


def test_a_repeated_instruction_is_asked_again_under_another_id(tmp_path: Path) -> None:
    rows = alpaca_eval_outputs.planned(read_instructions(section(tmp_path)), "mine")
    assert len({row["output_id"] for row in rows}) == 3
    assert [row["place"] for row in rows] == [0, 1, 2]
    model = Model("a trout")
    made = asyncio.run(answer_instruction(rows[0], model, fields={"max_tokens": 3}))
    assert (made["output"], made["place"]) == ("a trout", 0)
    assert model.asked == [([{"role": "user", "content": "name a fish"}], 0, {"max_tokens": 3})]
    assert asyncio.run(answer_instruction(rows[0], Model(REFUSED), fields={})).get("output") is None


def test_a_baseline_of_a_file(tmp_path: Path) -> None:
    rows = [output("count", "1 2"), output("name a fish", "cod"), output("name a fish", "hake")]
    bench = section(tmp_path, baseline=[*rows, output("not asked", "x")])
    assert read_baseline(bench, read_instructions(bench)) == ("davinci", ["cod", "1 2", "hake"])
    bench = section(tmp_path, baseline=rows[:2])
    with pytest.raises(UserError, match="lacks answers to 1 of 3 instructions"):
        read_baseline(bench, read_instructions(bench))
    bench = section(tmp_path, baseline=[*rows, output("more", "x", "other")])
    with pytest.raises(UserError, match="the baseline is one model, named by generator; there are 2"):
        read_baseline(bench, read_instructions(bench))


def test_instructions_without_text(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="2 of 3 rows have no text under instruction"):
        read_instructions(section(tmp_path, [INSTRUCTIONS[0], {"prompt": "x"}, {"instruction": " "}]))


def test_annotations_and_their_win_rate(tmp_path: Path) -> None:
    """Of three instructions one is won in both orders, one is answered by the baseline alone, one has no verdict."""
    bench = section(tmp_path, orders="both")
    answers = Compared("mine", ["trout", None, "cod"], "davinci", ["hake", "1 2", "cod"])
    rows = planned(bench, 0, answers)
    assert [(row["question"], row["game"], row["is_answered"]) for row in rows] == [
        (str(place), game, place != 1) for place in range(3) for game in (1, 2)
    ]
    replies = {("0", 1): "[[A]]", ("0", 2): "[[B]]", ("2", 1): "[[C]]", ("2", 2): "they are alike"}
    judged = [
        asyncio.run(
            judge_answer(
                row,
                Model(*[replies[row["question"], row["game"]]] if row["is_answered"] else []),
                fields={},
                structured=False,
            )
        )
        for row in rows
    ]
    annotated = annotated_rows(read_instructions(bench), answers, judged, "gpt")
    assert [(each["preference"], each["reason"]) for each in annotated] == [
        (2.0, None),
        (None, "answer_error"),
        (None, "no_verdict"),
    ]
    assert annotated[0]["raw_completion"] == ["[[A]]", "[[B]]"]
    keys = ("generator_1", "output_1", "generator_2", "output_2", "dataset", "annotator")
    assert [annotated[0][key] for key in keys] == ["davinci", "hake", "mine", "trout", "made", "gpt"]
    rate = alpaca_eval.summarise(annotated)
    assert (rate.win_rate, rate.n, rate.rows, rate.left_out) == (100.0, 1, 3, {"answer_error": 1, "null": 1})
    written = model_outputs("mine", read_instructions(bench), answers.outputs)
    assert [each["output"] for each in written] == ["trout", "cod"]
    assert written[0] == {**INSTRUCTIONS[0], "output": "trout", "generator": "mine"}
