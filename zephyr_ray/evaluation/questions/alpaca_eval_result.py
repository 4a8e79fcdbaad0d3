"""AlpacaEval's result: its files of answers and annotations, and the win rates that they make.

It writes `model_outputs/NAME.json`, `annotations/NAME.json`, `summary.json` and `table.md`. A preference is 1 for the
baseline's answer (`output_1`), 2 for the model's (`output_2`), 1.5 for a draw, and null where the judge gave none.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from zephyr_ray.config.evaluation import AlpacaEval, EvaluationSection
from zephyr_ray.evaluation import alpaca_eval
from zephyr_ray.evaluation.questions.alpaca_eval_annotations import Compared, compared, files_of, planned
from zephyr_ray.evaluation.questions.alpaca_eval_outputs import read_instructions, read_outputs
from zephyr_ray.evaluation.questions.asking import Row
from zephyr_ray.evaluation.questions.files import cut_lines, write_array, write_result
from zephyr_ray.evaluation.questions.judging import judged_rows
from zephyr_ray.evaluation.recorded_files import ERROR
from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext

_PREFERENCES = {1: {"A": 2.0, "B": 1.0, "C": 1.5}, 2: {"A": 1.0, "B": 2.0, "C": 1.5}}
"""The preference by the game and the verdict."""
_DRAW = 1.5


def stage(
    evaluation: EvaluationSection,
    section: AlpacaEval,
    seed: int,
    outputs: Mapping[str, Stage],
    annotations: Mapping[str, Stage],
) -> Stage:
    """The stage `evaluation/alpaca_eval`.

    Args:
        evaluation: The judge, for its name.
        section: The instructions.
        seed: The run's.
        outputs: Of all models, by their names.
        annotations: The same, of those that are compared with the baseline.
    """
    judge = evaluation.judge
    assert judge is not None
    judge_name = judge.name

    def make(context: StageContext) -> Manifest:
        return make_result(section, seed, judge_name, [*outputs], [*annotations], context)

    inputs = {f"outputs {name}": each for name, each in outputs.items()}
    return Stage(
        "evaluation/alpaca_eval",
        "annotations",
        {"judge": judge_name, "models": [*outputs], "baseline": section.baseline, "orders": section.orders},
        make,
        inputs=inputs | {f"annotations {name}": each for name, each in annotations.items()},
        outside=lambda: files_of(section, outputs.get(section.baseline)),
        is_evaluation=True,
    )


def make_result(
    section: AlpacaEval, seed: int, judge: str, models: Sequence[str], judged: Sequence[str], context: StageContext
) -> Manifest:
    """Writes AlpacaEval's files and what is counted of them; returns the stage's part of the manifest.

    Args:
        section: The instructions, and the baseline.
        seed: The run's.
        judge: Its name.
        models: Those that answered.
        judged: Those of them that were compared with the baseline.
        context: The stage's, with the inputs `outputs NAME` and `annotations NAME`.
    """
    artifact, instructions = context.artifact, read_instructions(section)
    files: list[str] = []
    ends: dict[str, list[str | None]] = {}
    numbers: dict[str, Any] = {}
    lines: list[str] = []
    problems: Counter[str] = Counter()
    for name in models:
        made = context.input(f"outputs {name}")
        outputs, ends[name] = read_outputs(made, len(instructions)), made.table()["finish_reason"].to_pylist()
        files.append(write_array(artifact, f"model_outputs/{name}.json", model_outputs(name, instructions, outputs)))
    for name in judged:
        answers = compared(section, name, context, f"outputs {name}", f"outputs {section.baseline}")
        rows = judged_rows(planned(section, seed, answers), context.input(f"annotations {name}"))
        annotated = annotated_rows(instructions, answers, rows, judge)
        files.append(write_array(artifact, f"annotations/{name}.json", annotated))
        rate = alpaca_eval.summarise(annotated)
        numbers[name] = alpaca_eval.as_json(rate)
        lines += [*([""] if lines else []), *alpaca_eval.table_lines(rate)]
        problems.update(each["reason"] for each in annotated if each["preference"] is None)
    wanted, lost = len(judged) * len(instructions), problems.total()
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(problems.items()))
    lines += ["", f"{wanted} annotations = {wanted - lost} results + {lost} without" + f" ({reasons})" * bool(lost)]
    counts = {"in": wanted, "out": wanted - lost, "dropped": dict(sorted(problems.items()))}
    lines = [*cut_lines(ends, section.max_tokens), *lines]
    cut = {name: each.count("length") for name, each in ends.items()}
    return write_result(artifact, files, {"models": numbers, "cut_answers": cut}, lines, counts)


def model_outputs(model: str, instructions: Sequence[Row], outputs: Sequence[str | None]) -> list[dict[str, Any]]:
    """AlpacaEval's `model_outputs`: the answers that there are."""
    return [
        {**row, "output": output, "generator": model}
        for row, output in zip(instructions, outputs, strict=True)
        if output is not None
    ]


def annotated_rows(
    instructions: Sequence[Row], answers: Compared, judged: Sequence[Row], judge: str
) -> list[dict[str, Any]]:
    """AlpacaEval's `annotations.json`: a row for each instruction, with its preference or the reason why there is none.

    Args:
        instructions: In the order of the answers.
        answers: Both.
        judged: The judge's verdicts (`judging.JUDGED`), one or two of each.
        judge: Its name.
    """
    games: dict[int, list[Row]] = {}
    for row in judged:
        games.setdefault(json.loads(row["question"]), []).append(row)
    return [
        {
            **row,
            "output_1": answers.others[place] if answers.others[place] is not None else ERROR,
            "generator_1": answers.baseline,
            "output_2": answers.outputs[place] if answers.outputs[place] is not None else ERROR,
            "generator_2": answers.model,
            "annotator": judge,
            "preference": preference(games[place]),
            "reason": next((each["problem"] for each in games[place] if each["problem"]), None),
            "raw_completion": [each["reply"] for each in games[place]],
            "annotation_id": [each["judgment_id"] for each in games[place]],
        }
        for place, row in enumerate(instructions)
    ]


def preference(games: Sequence[Row]) -> float | None:
    """The preference that one or two verdicts make: two that differ are a draw; None where one is missing."""
    found = [_PREFERENCES[each["game"]].get(each["verdict"]) for each in games]
    if None in found:
        return None
    return found[0] if len(set(found)) == 1 else _DRAW
