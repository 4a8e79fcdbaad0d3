"""`jobs/evaluate.py lm-eval`: lm-evaluation-harness against an endpoint."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zephyr_ray.cli.result import Out, check_folder_of, show
from zephyr_ray.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zephyr_ray.evaluation.lm_eval_process import Evaluation
    from zephyr_ray.evaluation.lm_eval_results import TaskResult
    from zephyr_ray.evaluation.mmlu_files import Subjects

BaseUrl = Annotated[str, typer.Option(metavar="URL", help="an OpenAI-compatible endpoint, such as http://HOST:8000/v1")]
Model = Annotated[str, typer.Option(metavar="NAME", help="the model's name at the endpoint")]
Tasks = Annotated[str, typer.Option(metavar="NAMES", help="tasks, groups and tags of lm-eval, separated by commas")]
Mmlu = Annotated[
    str | None, typer.Option(metavar="DIR", help="MMLU's dev/*.csv and test/*.csv: lm-eval's tasks, without a hub")
]
IncludePath = Annotated[str | None, typer.Option(metavar="DIR", help="task configs of your own")]
Tokenizer = Annotated[
    str | None, typer.Option(metavar="DIR", help="folder of the model's tokenizer; needed without --chat")
]
Chat = Annotated[
    bool, typer.Option("--chat", help="ask for chat completions, in tasks that generate; else for completions")
]
Limit = Annotated[int | None, typer.Option(min=1, metavar="N", help="the first N questions of each task")]
NumFewshot = Annotated[
    int | None, typer.Option(min=0, metavar="N", help="examples before a question (default: task's)")
]
MaxLength = Annotated[
    int | None, typer.Option(min=2, metavar="N", help="context in tokens (default: the endpoint's, or the model's)")
]
Concurrency = Annotated[int, typer.Option(min=1, metavar="N", help="open requests")]
ApiKeyEnv = Annotated[str | None, typer.Option(metavar="NAME", help="environment variable with the endpoint's key")]
Samples = Annotated[
    str | None, typer.Option(metavar="FILE", help="write every question with prompts and replies here, as JSON lines")
]
Python = Annotated[
    str | None, typer.Option("--lm-eval-python", metavar="PY", help="Python of an environment with lm-eval")
]


def lm_eval(
    base_url: BaseUrl,
    model: Model,
    tasks: Tasks = "",
    mmlu: Mmlu = None,
    include_path: IncludePath = None,
    tokenizer: Tokenizer = None,
    chat: Chat = False,
    limit: Limit = None,
    num_fewshot: NumFewshot = None,
    max_length: MaxLength = None,
    concurrency: Concurrency = 8,
    api_key_env: ApiKeyEnv = None,
    samples: Samples = None,
    lm_eval_python: Python = None,
    json_: Out = None,
) -> int:
    """Benchmarks of lm-evaluation-harness, against an OpenAI-compatible endpoint.

        python jobs/evaluate.py lm-eval --base-url http://127.0.0.1:8000/v1 --model zephyr --tokenizer DIR \\
            --mmlu DIR --num-fewshot 5 --json mmlu.json
        python jobs/evaluate.py lm-eval --base-url URL --model zephyr --chat --tasks gsm8k --json gsm8k.json

    It takes the package lm-eval (pip install 'zephyr_ray[lm-eval]'). A task with an error has no result, and the exit
    status is 1; the same command asks for what is missing only.
    """
    from zephyr_ray.evaluation import endpoint, lm_eval_process, mmlu_files

    python = lm_eval_python or sys.executable
    names = tuple(name for name in tasks.split(",") if name)
    _check_options(names, mmlu, include_path, tokenizer, chat)
    check_folder_of("--json", json_)
    check_folder_of("--samples", samples)
    lm_eval_process.check_python(python)
    subjects = mmlu_files.read_subjects(mmlu) if mmlu else {}
    base_url, key = base_url.rstrip("/"), endpoint.api_key(api_key_env)
    told = endpoint.described_model(base_url, model, key)
    length = max_length or lm_eval_process.longest(tokenizer, told)
    if length is None and not chat:
        raise UserError(f"neither {base_url} nor {tokenizer} says how long the context is; give --max-length")
    asked = lm_eval_process.Evaluation(
        base_url, model, tokenizer, chat, names, include_path, limit, num_fewshot, length or 2048, concurrency
    )
    identity = _identity(asked, told, subjects)
    answers = _answers_folder(json_, identity)
    found = _collect(lm_eval_process.events(asked, subjects, python=python, key=key, answers=answers), answers)
    if samples:
        shutil.move(answers / _SAMPLES, samples)
    return _report(found, identity, json_, answers)


_SAMPLES = "samples.jsonl"


@dataclass
class Found:
    """What the events told."""

    results: list[TaskResult] = field(default_factory=list)
    groups: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    cut: int = 0


def _check_options(
    names: tuple[str, ...], mmlu: str | None, include_path: str | None, tokenizer: str | None, chat: bool
) -> None:
    from zephyr_ray.evaluation.lm_eval_process import check_tokenizer

    if not names and not mmlu:
        raise UserError("nothing to evaluate: give --tasks or --mmlu")
    if mmlu and chat:
        raise UserError("--mmlu compares log-likelihoods, which chat completions have none of; leave --chat out")
    if include_path and not Path(include_path).is_dir():
        raise UserError(f"--include-path {include_path} is no folder")
    if chat:
        return
    if tokenizer is None:
        raise UserError("--tokenizer DIR is missing: prompts are sent as token ids of the model's own tokenizer")
    check_tokenizer(tokenizer)


def _identity(asked: Evaluation, told: dict[str, Any], subjects: Subjects) -> dict[str, Any]:
    """What was asked, of which model, on which data."""
    from zephyr_ray.evaluation import lm_eval_process, mmlu_files

    kept = {key: value for key, value in asdict(asked).items() if key not in ("tokenizer", "concurrency")}
    return kept | {
        "fingerprint": told.get("fingerprint"),
        "tokenizer": asked.tokenizer and lm_eval_process.tokenizer_id(asked.tokenizer),
        "mmlu": mmlu_files.content(subjects) if subjects else None,
    }


def _answers_folder(out: str | None, identity: dict[str, Any]) -> Path:
    """Where replies are kept until all tasks have a result; another model or prompt has another folder."""
    from zephyr_ray.pipeline.fingerprints import content_id

    per_question = {key: value for key, value in identity.items() if key not in ("tasks", "limit")}
    folder = Path(f"{out}.answers", content_id(per_question)) if out else Path(tempfile.mkdtemp(prefix="lm-eval-"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _collect(events: Iterable[dict[str, Any]], answers: Path) -> Found:
    from zephyr_ray.evaluation import lm_eval_results

    found = Found()
    with (answers / _SAMPLES).open("w", encoding="utf-8") as file:
        for event in events:
            found.versions |= event.get("versions", {})
            if "unknown" in event:
                shutil.rmtree(answers)
                raise UserError(
                    f"lm-eval {found.versions['lm_eval']} has no task {', '.join(event['unknown'])}; "
                    "`python -m lm_eval ls tasks` lists them, and --include-path names a folder of others"
                )
            if task := event.get("task"):
                results = lm_eval_results.task_results(task)
                print(*(_progress(result) for result in results), sep="\n", file=sys.stderr)
                found.results += results
                found.groups |= lm_eval_results.group_numbers(task)
                found.cut += task.get("cut", 0)
                for name, rows in task.get("samples", {}).items():
                    file.writelines(json.dumps({"task": name} | row, ensure_ascii=False) + "\n" for row in rows)
    return found


def _progress(result: TaskResult) -> str:
    return f"{result.name}: " + ("no result" if result.error else f"{result.n} questions")


def _report(found: Found, identity: dict[str, Any], out: str | None, answers: Path) -> int:
    from zephyr_ray.evaluation import lm_eval_results

    failed = any(result.error for result in found.results)
    lines = lm_eval_results.table_lines(found.results)
    if found.cut:
        lines.append(
            f"prompts longer than {identity['max_length'] - 1} tokens, which lost their beginning: {found.cut}"
        )
    if failed:
        lines.append(f"the log is {answers / 'log'}; with --json, the same command asks for what is missing only")
    else:  # the same name may be another model tomorrow
        shutil.rmtree(answers)
        if out and not any(answers.parent.iterdir()):
            answers.parent.rmdir()
    versions = {"versions": found.versions, "cut": found.cut, "groups": found.groups}
    show(lines, lm_eval_results.as_json(found.results) | versions | {"asked": identity}, out)
    return 1 if failed else 0
