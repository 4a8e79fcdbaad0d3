"""`jobs/evaluate.py alpaca-eval`: the win rate of recorded annotations, or of new ones."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zephyr_ray.cli.result import Out, check_folder_of, show
from zephyr_ray.errors import UserError

if TYPE_CHECKING:
    from zephyr_ray.evaluation.alpaca_eval import WinRate
    from zephyr_ray.evaluation.alpaca_eval_process import Outcome

Annotations = Annotated[
    str | None, typer.Option("--annotations", metavar="FILE", help="recorded judgments: AlpacaEval's annotations.json")
]
Outputs = Annotated[
    str | None, typer.Option(metavar="FILE", help="the model's answers, to be judged anew: model_outputs.json")
]
Baseline = Annotated[str | None, typer.Option(metavar="FILE", help="the answers they are compared with")]
Config = Annotated[
    str | None, typer.Option(metavar="DIR_OR_NAME", help="folder with configs.yaml, or a name of the package's own")
]
JudgeModel = Annotated[
    str | None, typer.Option("--judge", metavar="NAME", help="model that judges (default: the config's)")
]
BaseUrl = Annotated[
    str | None, typer.Option(metavar="URL", help="OpenAI-compatible endpoint of the judge (default: the package's)")
]
ApiKeyEnv = Annotated[str | None, typer.Option(metavar="NAME", help="environment variable with the endpoint's key")]
Concurrency = Annotated[int, typer.Option(min=1, metavar="N", help="open requests")]
LengthControl = Annotated[
    str | None, typer.Option(metavar="FILE", help="df_gamed.csv of the dataset tatsu-lab/alpaca_eval")
]
Python = Annotated[
    str | None, typer.Option("--alpaca-eval-python", metavar="PY", help="Python of an environment with alpaca_eval")
]


def alpaca_eval(
    annotations: Annotations = None,
    outputs: Outputs = None,
    baseline: Baseline = None,
    annotators_config: Config = None,
    judge: JudgeModel = None,
    base_url: BaseUrl = None,
    api_key_env: ApiKeyEnv = None,
    concurrency: Concurrency = 8,
    length_control: LengthControl = None,
    alpaca_eval_python: Python = None,
    json_: Out = None,
) -> int:
    """AlpacaEval's win rate from its annotations, recorded or made now.

        python jobs/evaluate.py alpaca-eval --annotations annotations.json --json win_rate.json
        python jobs/evaluate.py alpaca-eval --outputs model_outputs.json --baseline baseline.json \\
            --annotators-config weighted_alpaca_eval_gpt4_turbo --base-url URL --judge NAME \\
            --alpaca-eval-python PY --json win_rate.json

    New ones are made by the package alpaca_eval, and kept: the same command asks only for those that failed, and its
    exit status is 1 as long as there are such. Win rate and standard error are in percent, as on the leaderboard.
    """
    if bool(annotations) == bool(outputs):
        raise UserError("give either --annotations, which are counted, or --outputs, which are judged")
    if (outputs or length_control) and not alpaca_eval_python:
        from zephyr_ray.evaluation.alpaca_eval_process import INSTALL

        raise UserError(f"--alpaca-eval-python PY is missing; {INSTALL}")
    check_folder_of("--json", json_)
    if length_control and not Path(length_control).is_file():
        raise UserError(f"--length-control {length_control} is not there")
    if annotations:
        return _count(annotations, length_control, alpaca_eval_python, json_)
    if not (outputs and baseline and annotators_config and json_ and alpaca_eval_python):
        raise UserError("--outputs takes --baseline, --annotators-config and --json, beside which judgments are kept")
    from zephyr_ray.evaluation import endpoint
    from zephyr_ray.evaluation.alpaca_eval_process import Judge

    key, base_url = endpoint.api_key(api_key_env), base_url and base_url.rstrip("/")
    if base_url and judge:
        endpoint.described_model(base_url, judge, key)
    asked = Judge(annotators_config, judge, base_url, key, concurrency)
    return _judge(outputs, baseline, asked, length_control, alpaca_eval_python, json_)


def _count(annotations: str, length_control: str | None, python: str | None, out: str | None) -> int:
    from zephyr_ray.evaluation import alpaca_eval, alpaca_eval_process, recorded_files

    recorded = recorded_files.read(annotations)
    try:
        rate = alpaca_eval.summarise(recorded.rows)
    except UserError as error:
        raise UserError(f"{annotations}: {error}") from None
    numbers: dict[str, Any] = {"broken": recorded.broken}
    if length_control and python:
        alpaca_eval_process.check_python(python)
        with tempfile.TemporaryDirectory() as scratch:
            log = Path(scratch, "log")
            outcome = alpaca_eval_process.count(recorded.rows, length_control, python=python, log=log)
        rate, numbers = _with_length_control(rate, outcome), numbers | _package(outcome)
    notes = recorded_files.left_out_note(recorded.lines, {"no JSON object": recorded.broken})
    return show([*alpaca_eval.table_lines(rate), *notes], alpaca_eval.as_json(rate) | numbers, out)


def _judge(outputs: str, baseline: str, judge: Any, length_control: str | None, python: str, out: str) -> int:
    from zephyr_ray.evaluation import alpaca_eval, alpaca_eval_pairs, alpaca_eval_process

    alpaca_eval_process.check_python(python)
    pairs = alpaca_eval_pairs.pair(
        alpaca_eval_pairs.read_outputs(outputs, "--outputs"), alpaca_eval_pairs.read_outputs(baseline, "--baseline")
    )
    answers = Path(f"{out}.answers")
    answers.mkdir(exist_ok=True)
    outcome = alpaca_eval_process.judge_pairs(pairs, judge, length_control, python=python, answers=answers)
    kept = Path(f"{Path(out).with_suffix('')}.annotations.json")
    kept.write_text(json.dumps(outcome.annotations, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    rate = _with_length_control(alpaca_eval.summarise(outcome.annotations), outcome)
    failed = sum(row["preference"] is None for row in outcome.annotations)
    lines = [*alpaca_eval.table_lines(rate), *(f"{count} {reason}" for reason, count in pairs.left_out.items())]
    lines += [f"{count} requests failed: {reason}" for reason, count in outcome.failures.items()]
    lines += [f"{failed} pairs have no judgment; the same command asks for them alone"] if failed else []
    asked = {"annotators_config": judge.annotators_config, "judge": judge.model, "base_url": judge.base_url}
    counts = {"failures": outcome.failures, "not_judged": pairs.left_out, "asked": asked}
    show([*lines, f"judgments: {kept}"], alpaca_eval.as_json(rate) | _package(outcome) | counts, out)
    return 1 if failed else 0


def _package(outcome: Outcome) -> dict[str, Any]:
    return {"package": {"win_rate": outcome.win_rate, "versions": outcome.versions}}


def _with_length_control(rate: WinRate, outcome: Outcome) -> WinRate:
    found = outcome.length_controlled
    if found is None or rate.length_controlled_reason is None:
        return rate
    value, error = found.get("value"), found.get("standard_error")
    return dataclasses.replace(
        rate,
        length_controlled_win_rate=value,
        length_controlled_standard_error=error,
        length_controlled_reason=found.get("reason"),
    )
