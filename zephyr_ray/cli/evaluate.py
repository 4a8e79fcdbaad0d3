"""The command line of jobs/evaluate.py: a command for each benchmark."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from zephyr_ray.cli.alpaca_eval import alpaca_eval
from zephyr_ray.cli.exit_status import exit_with
from zephyr_ray.cli.help_text import as_written
from zephyr_ray.cli.lm_eval import lm_eval
from zephyr_ray.cli.recipe_options import DryRun, Json, NoLease, Overrides, Overwrite, RecipeFiles, TakeOver, consent
from zephyr_ray.cli.result import Out, show
from zephyr_ray.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zephyr_ray.config.recipe import Recipe
    from zephyr_ray.evaluation.fastchat_files import Judgments, QuestionId
    from zephyr_ray.evaluation.recorded_files import Row

Judgments_ = Annotated[
    str, typer.Option("--judgments", metavar="FILE", help="FastChat's judgments, single or pairwise")
]
Questions = Annotated[
    str | None, typer.Option("--questions", metavar="FILE", help="question.jsonl: categories, and what is missing")
]
JudgedFile_ = Annotated[
    str, typer.Option("--judged", metavar="FILE", help="JSON lines with label and verdicts, or Arena-Hard's")
]
Compared_ = Annotated[
    str | None, typer.Option("--judged", metavar="FILE", help="JSON lines of comparisons, or another program's")
]
JudgmentsRoot = Annotated[
    str | None, typer.Option("--judgments", metavar="ROOT/judgments", help="judgments of a run, of two of its models")
]
NameA = Annotated[str | None, typer.Option("--a", metavar="NAME", help="the model whose wins are counted")]
NameB = Annotated[str | None, typer.Option("--b", metavar="NAME", help="the model that it is compared with")]
Block = Annotated[int, typer.Option(min=1, help="prompts between two looks of the sequential rule")]
Seed = Annotated[int, typer.Option(min=0, help="of the resamples, and of the order of the prompts for that rule")]


def run(
    recipe: RecipeFiles = None,
    set_: Overrides = None,
    dry_run: DryRun = False,
    overwrite: Overwrite = None,
    take_over: TakeOver = False,
    no_lease: NoLease = False,
    json_: Json = False,
) -> int:
    """Evaluates the models that a recipe's evaluation section names.

        python jobs/evaluate.py run --recipe RECIPE
        python jobs/evaluate.py run --recipe RECIPE --set run.root=DIR --dry-run

    It asks the models questions and the judge about the answers, and makes first what is missing of the models of this
    run. Results are in <run.root>/evaluation. What is finished is skipped, and replies are kept and paid once.
    """
    from zephyr_ray.cli import jobs, pipeline

    return pipeline.run(
        lambda: jobs.load(recipe, set_ or []),
        _evaluations,
        "evaluate",
        only_show=dry_run,
        consent=consent(overwrite, take_over, no_lease),
        as_json=json_,
    )


def _evaluations(recipe: Recipe) -> Sequence[str]:
    from zephyr_ray import zephyr

    return zephyr.evaluations(recipe)


def mt_bench(judgments: Judgments_, questions: Questions = None, json_: Out = None) -> int:
    """MT-Bench's scores from FastChat's judgments.

        python jobs/evaluate.py mt-bench --judgments gpt-4_single.jsonl --questions question.jsonl
        python jobs/evaluate.py mt-bench --judgments gpt-4_pair.jsonl --json scores.json

    A file of pairs gives wins, losses and ties: two orders that disagree are a tie.
    """
    from zephyr_ray.evaluation import fastchat_files, mt_bench, mt_bench_pairs, recorded_files

    asked = fastchat_files.read_questions(questions) if questions else {}
    recorded = recorded_files.read(judgments)
    if fastchat_files.is_pairwise(recorded):
        pairs = fastchat_files.pair_judgments(recorded)
        _check_some(judgments, pairs, "question_id, model_1, model_2, g1_winner, g2_winner")
        lines, numbers = mt_bench_pairs.table_lines(pairs.judgments), mt_bench_pairs.as_json(pairs.judgments)
        return show([*lines, *_file_notes(pairs)], numbers | _file_counts(pairs), json_)
    singles = fastchat_files.single_judgments(recorded)
    _check_some(judgments, singles, "question_id, model, turn, score")
    scores = mt_bench.summarise(singles.judgments, asked)
    numbers = mt_bench.as_json(scores) | _file_counts(singles)
    return show([*mt_bench.table_lines(scores), *_single_notes(singles, asked)], numbers, json_)


def agreement(judged: JudgedFile_, json_: Out = None) -> int:
    """A judge's agreement with labels and with itself.

        python jobs/evaluate.py agreement --judged verdicts.jsonl --json agreement.json

    A line is {"id", "label", "verdict", "swapped_verdict", "retest_verdict"} with a, b, tie or null, where a and b name
    the answers, whichever was shown first; the last two may be absent. Arena-Hard's judgments are read too.
    """
    from zephyr_ray.evaluation import agreement, judged_files

    read = judged_files.read_judged(judged)
    result = agreement.agreement(read.judged)
    counts = {"rows": len(read.judged), "lines": read.lines, "broken": read.broken, "repeated": read.repeated}
    numbers = agreement.as_json(result) | counts | {"left_out": read.left_out, "same_answers": read.same_answers}
    return show([*agreement.table_lines(result), *judged_files.notes(read)], numbers, json_)


def versus(
    judged: Compared_ = None,
    judgments: JudgmentsRoot = None,
    a: NameA = None,
    b: NameB = None,
    block: Block = 20,
    seed: Seed = 0,
    json_: Out = None,
) -> int:
    """A against B: win rate, sign test, win rate at equal lengths, and after how many prompts it was decided.

        python jobs/evaluate.py versus --judged comparisons.jsonl --json versus.json
        python jobs/evaluate.py versus --judgments runs/mine/judgments --a strong --b small

    A line is {"id", "a_score", "b_score"} or {"id", "verdict", "swapped_verdict"} with a, b, tie or null, and perhaps
    group, category, a_tokens and b_tokens, or a_text and b_text. FastChat's judgments, AlpacaEval's annotations,
    Arena-Hard's and rated completions are read too.
    """
    from zephyr_ray.evaluation import comparison_files
    from zephyr_ray.evaluation.versus import as_json, compare, table_lines

    if (judged is None) == (judgments is None):
        raise UserError("versus reads --judged FILE or --judgments ROOT/judgments; give one of them")
    if judged is not None:
        read = comparison_files.read_comparisons(judged, a, b)
    else:
        from zephyr_ray.evaluation.compared_artifact import read_judgments

        read = read_judgments(str(judgments), a, b)
    if all(each.outcome is None for each in read.comparisons):
        reasons = comparison_files.listed_problems(read)
        raise UserError(f"{judged or judgments}: none of {len(read.comparisons)} comparisons has a result{reasons}")
    result = compare(read.a, read.b, read.comparisons, block=block, seed=seed)
    return show(
        [*table_lines(result), *comparison_files.notes(read)],
        as_json(result) | comparison_files.counts(read),
        json_,
    )


def command(doc: str) -> typer.Typer:
    """The job's command line, with a docstring for its help."""
    app = typer.Typer(help=as_written(doc), rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)
    app.callback(invoke_without_command=True)(_without_command)
    for function in (run, mt_bench, alpaca_eval, agreement, versus, lm_eval):
        app.command(help=as_written(str(function.__doc__)))(function)
    return app


def main(doc: str) -> NoReturn:
    """Runs the job and leaves the process with its exit status."""
    exit_with(command(doc), sys.argv[1:], Path(sys.argv[0]).name)


def _without_command(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)


def _check_some(path: str, read: Judgments[Any], fields: str) -> None:
    if not read.judgments:
        raise UserError(f"{path}: none of {read.lines} lines is a judgment with {fields}")


def _file_counts(read: Judgments[Any]) -> dict[str, int]:
    return {"lines": read.lines, "broken": read.broken, "incomplete": read.incomplete, "repeated": read.repeated}


def _file_notes(read: Judgments[Any]) -> list[str]:
    from zephyr_ray.evaluation.recorded_files import left_out_note

    found = {
        "no JSON object": read.broken,
        "without a question, a model or a turn of 1 or 2": read.incomplete,
        "replaced by a later judgment": read.repeated,
    }
    return left_out_note(read.lines, found)


def _single_notes(read: Judgments[Any], asked: dict[QuestionId, Row]) -> list[str]:
    judges = sorted({judgment.judge for judgment in read.judgments})
    notes = [f"the scores of {len(judges)} judges are averaged: {', '.join(judges)}"] if len(judges) > 1 else []
    unknown = sum(judgment.question not in asked for judgment in read.judgments) if asked else 0
    if unknown:
        notes.append(f"judgments of questions that --questions lacks, which count: {unknown}")
    if not asked:
        notes.append("no categories: --questions names the benchmark's question.jsonl")
    return _file_notes(read) + notes
