"""MT-Bench's result: FastChat's files of answers and judgments, and the scores that they make.

It writes `model_answer/NAME.jsonl`, `model_judgment/JUDGE_single.jsonl` and `JUDGE_pair.jsonl`, which FastChat's
`show_result.py` reads, `summary.json` and `table.md`. The scores are counted from these files by what counts recorded
ones.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from zephyr_ray.config.evaluation import EvaluationSection, MTBench
from zephyr_ray.errors import UserError
from zephyr_ray.evaluation import fastchat_files, mt_bench, mt_bench_pairs
from zephyr_ray.evaluation.fastchat_files import QuestionId
from zephyr_ray.evaluation.questions import mt_bench_questions
from zephyr_ray.evaluation.questions.asking import Row
from zephyr_ray.evaluation.questions.files import cut_lines, write_lines, write_result
from zephyr_ray.evaluation.questions.judging import judged_rows
from zephyr_ray.evaluation.questions.mt_bench_judgments import Answers, files_of, planned, read_answers
from zephyr_ray.evaluation.recorded_files import ERROR, Recorded
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext

_WINNERS = {1: {"A": "model_1", "B": "model_2", "C": "tie"}, 2: {"A": "model_2", "B": "model_1", "C": "tie"}}
"""Who wins a game by its verdict, as FastChat names them."""


def stage(
    evaluation: EvaluationSection, section: MTBench, answers: Mapping[str, Stage], judgments: Mapping[str, Stage]
) -> Stage:
    """The stage `evaluation/mt_bench`.

    Args:
        evaluation: The judge, for its name.
        section: The questions.
        answers: Of all models, by their names.
        judgments: The same, of those that are judged.
    """
    judge = evaluation.judge
    assert judge is not None
    judge_name = judge.name

    def make(context: StageContext) -> Manifest:
        return make_result(section, judge_name, [*answers], [*judgments], context)

    inputs = {f"answers {name}": each for name, each in answers.items()}
    return Stage(
        "evaluation/mt_bench",
        "judgments",
        {
            "judge": judge_name,
            "models": [*answers],
            "mode": section.mode,
            "samples": section.samples,
            "baseline": section.baseline,
        },
        make,
        inputs=inputs | {f"judgments {name}": each for name, each in judgments.items()},
        outside=lambda: files_of(section),
        is_evaluation=True,
    )


def make_result(
    section: MTBench, judge: str, models: Sequence[str], judged: Sequence[str], context: StageContext
) -> Manifest:
    """Writes FastChat's files and what is counted of them; returns the stage's part of the manifest.

    Args:
        section: The questions, and the baseline.
        judge: Its name.
        models: Those that answered.
        judged: Those of them that were judged.
        context: The stage's, with the inputs `answers NAME` and `judgments NAME`.
    """
    artifact = context.artifact
    questions = mt_bench_questions.read(section)
    answers = {name: read_answers(context.input(f"answers {name}")) for name in models}
    files = [_write_answers(artifact, name, questions, answers[name]) for name in models]
    singles: list[Row] = []
    pairs: list[Row] = []
    for name in judged:
        compared = section.baseline if name != section.baseline else None
        whose = Answers(name, answers[name], compared, answers[compared] if compared else {})
        rows = judged_rows(planned(section, whose), context.input(f"judgments {name}"))
        singles += [single_row(row, name, judge) for row in rows if row["game"] == 0]
        pairs += pair_rows(rows, name, str(compared), judge)
    if singles:
        files.append(write_lines(artifact, f"model_judgment/{judge}_single.jsonl", singles))
    if pairs:
        files.append(write_lines(artifact, f"model_judgment/{judge}_pair.jsonl", pairs))
    numbers, lines, counts = _counted(singles, pairs, questions)
    reasons = {name: _finish_reasons(context.input(f"answers {name}")) for name in models}
    numbers["cut_answers"] = {name: each.count("length") for name, each in reasons.items()}
    return write_result(artifact, files, numbers, [*cut_lines(reasons, section.max_tokens), *lines], counts)


def _finish_reasons(answers: Artifact) -> list[str | None]:
    """Of all answers of an artifact of `mt_bench_answers.ANSWERS`."""
    return [reason for row in answers.table().to_pylist() for reason in row["finish_reasons"]]


def single_row(row: Row, model: str, judge: str) -> Row:
    """A row of `judging.JUDGED` as FastChat's judgment of an answer; a score of -1 is none."""
    return {
        **_common(row, judge),
        "model": model,
        "user_prompt": row["user_prompt"],
        "judgment": row["judgment"],
        "score": -1 if row["rating"] is None else row["rating"],
        "judgment_id": row["judgment_id"],
    }


def pair_rows(rows: Sequence[Row], model: str, baseline: str, judge: str) -> Iterator[Row]:
    """The two games about each answer as one of FastChat's judgments; a winner of `error` is none."""
    second = {(row["question"], row["turn"], row["sample"]): row for row in rows if row["game"] == 2}
    for first in rows:
        if first["game"] == 1:
            games = {1: first, 2: second[first["question"], first["turn"], first["sample"]]}
            winners = {f"g{game}_winner": _WINNERS[game].get(row["verdict"], "error") for game, row in games.items()}
            texts = {f"g{game}_{key}": row[key] for game, row in games.items() for key in ("user_prompt", "judgment")}
            ids = {f"g{game}_judgment_id": row["judgment_id"] for game, row in games.items()}
            yield {**_common(first, judge), "model_1": model, "model_2": baseline, **winners, **texts, **ids}


def _common(row: Row, judge: str) -> Row:
    question: QuestionId = json.loads(row["question"])
    return {"question_id": question, "turn": row["turn"], "sample": row["sample"], "judge": [judge, row["prompt"]]}


def _write_answers(
    artifact: Artifact, model: str, questions: Mapping[QuestionId, Row], answers: Mapping[QuestionId, list[str]]
) -> str:
    """FastChat's file of a model's answers. One that is missing is its mark of an error."""
    ids = {row["question"]: row["answer_id"] for row in mt_bench_questions.planned_answers(questions, model)}
    rows = []
    for name, question in questions.items():
        said = answers.get(name, [])
        turns = [*said, *[ERROR] * (len(question["turns"]) - len(said))]
        choices = [{"index": 0, "turns": turns}]
        rows.append({"question_id": name, "answer_id": ids[json.dumps(name)], "model_id": model, "choices": choices})
    return write_lines(artifact, f"model_answer/{model}.jsonl", rows)


def _counted(
    singles: Sequence[Row], pairs: Sequence[Row], questions: Mapping[QuestionId, Row]
) -> tuple[dict[str, Any], list[str], dict[str, Any]]:
    """The numbers, the lines for a person, and the manifest's counts."""
    numbers: dict[str, Any] = {}
    lines: list[str] = []
    problems: Counter[str] = Counter()
    if singles:
        judged = fastchat_files.single_judgments(Recorded([*singles], broken=0)).judgments
        scores = mt_bench.summarise(judged, questions)
        numbers["single"] = mt_bench.as_json(scores)
        lines += mt_bench.table_lines(scores)
        problems.update(each.problem for each in judged if each.problem)
    if pairs:
        compared = fastchat_files.pair_judgments(Recorded([*pairs], broken=0)).judgments
        numbers["pairwise"] = mt_bench_pairs.as_json(compared)
        lines += [*([""] if lines else []), *mt_bench_pairs.table_lines(compared)]
        problems.update(each.problem for each in compared if each.problem)
    wanted, lost = len(singles) + len(pairs), problems.total()
    counts = {"in": wanted, "out": wanted - lost, "dropped": dict(sorted(problems.items()))}
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(problems.items()))
    lines.append(f"{wanted} judgments = {wanted - lost} results + {lost} without" + (f" ({reasons})" if lost else ""))
    if not wanted - lost:
        raise UserError(f"MT-Bench: not one of {wanted} judgments has a result ({reasons}); is it the right judge?")
    return numbers, lines, counts
