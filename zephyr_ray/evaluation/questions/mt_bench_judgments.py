"""A judge's scores of a model's answers to MT-Bench, and its verdicts on them beside the baseline's, in both orders."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from zephyr_ray.config.evaluation import EvaluationSection, MTBench
from zephyr_ray.evaluation.fastchat_files import TURNS, QuestionId
from zephyr_ray.evaluation.questions import judge_prompts, judging, mt_bench_questions
from zephyr_ray.evaluation.questions.asking import Row
from zephyr_ray.evaluation.questions.files import fingerprint
from zephyr_ray.evaluation.recorded_files import ERROR
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.stage import Stage, StageContext


class Answers(NamedTuple):
    """Whose answers are judged."""

    model: str
    own: Mapping[QuestionId, list[str]]
    """The model's answers by question, a text for each turn that has one."""
    baseline: str | None = None
    """Whom they are compared with; None: nobody."""
    others: Mapping[QuestionId, list[str]] = {}
    """The baseline's answers."""


def stage(
    evaluation: EvaluationSection,
    section: MTBench,
    seed: int,
    answers: Stage,
    baseline: Stage | None,
    models: Mapping[str, Stage],
) -> Stage:
    """The stage `evaluation/mt_bench_judgments/NAME`.

    Args:
        evaluation: The judge, and bounds on the requests.
        section: What is judged, and how.
        seed: The run's.
        answers: The model's.
        baseline: Those that they are compared with; None: they are not.
        models: The stages of this run that make models, by the names that deployments use for them.
    """
    name = answers.kind.rpartition("/")[2]

    def plan(context: StageContext) -> list[Row]:
        own = read_answers(context.input("answers"))
        if baseline is None:
            return planned(section, Answers(name, own))
        return planned(section, Answers(name, own, section.baseline, read_answers(context.input("baseline"))))

    return judging.stage(
        f"evaluation/mt_bench_judgments/{name}",
        evaluation,
        seed,
        models,
        config={
            "single": section.mode != "pairwise",
            "samples": section.samples,
            "baseline": None if baseline is None else section.baseline,
        },
        inputs={"answers": answers} | ({} if baseline is None else {"baseline": baseline}),
        outside=functools.partial(files_of, section),
        plan=plan,
    )


def files_of(section: MTBench) -> dict[str, str]:
    """Fingerprints of everything that decides what a judge is asked. Raises UserError where a file is missing."""
    return {
        **fingerprint("questions", "evaluation.mt_bench.questions", section.questions),
        **fingerprint("references", "evaluation.mt_bench.references", section.references),
        "judge prompts": judge_prompts.fingerprint(section.judge_prompts),
    }


def read_answers(artifact: Artifact) -> dict[QuestionId, list[str]]:
    """The answers of an artifact of `mt_bench_answers.ANSWERS` by question."""
    return {json.loads(row["question"]): row["answers"] for row in artifact.table().to_pylist()}


def planned(section: MTBench, answers: Answers) -> list[Row]:
    """What the judge is asked about a model.

    Raises:
        UserError: A file is not what it should be.
    """
    questions = mt_bench_questions.read(section)
    references = mt_bench_questions.read_references(section, questions)
    prompts = judge_prompts.prompts(section.judge_prompts)
    games = [0] if section.mode != "pairwise" else []
    games += [1, 2] if answers.baseline is not None else []
    return [
        _planned_row(prompts, name, question["turns"][:turn], references.get(name, ()), answers, game, sample)
        for name, question in questions.items()
        for turn in TURNS[: len(question["turns"])]
        for game in games
        for sample in range(section.samples)
    ]


def _planned_row(
    prompts: judge_prompts.Prompts,
    name: QuestionId,
    turns: Sequence[str],
    references: Sequence[str],
    answers: Answers,
    game: int,
    sample: int,
) -> Row:
    turn, own, others = len(turns), answers.own.get(name, []), answers.others.get(name, [])
    shown = {0: [own], 1: [own, others], 2: [others, own]}[game]
    return judging.planned_row(
        prompts["verdict" if game else "rating", bool(references), turn],
        dict(judge_prompts.fields(turns, [_up_to(each, turn) for each in shown], references)),
        [answers.model, *([str(answers.baseline)] if game else [])],
        question=json.dumps(name),
        turn=turn,
        game=game,
        sample=sample,
        is_answered=all(len(each) >= turn for each in shown),
    )


def _up_to(answers: Sequence[str], turn: int) -> list[str]:
    """The answers up to a turn; in the place of a missing one stands FastChat's mark of an error."""
    return [*answers, *[ERROR] * turn][:turn]
