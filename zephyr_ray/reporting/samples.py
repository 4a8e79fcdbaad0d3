"""A bounded look at rows: pairs of preferences, and answers of several models to the same prompts.

However many rows a run has, a few files are opened and some hundred rows of each are read.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from zephyr_ray.data.io.readers import open_parquet
from zephyr_ray.evaluation.recorded_files import ERROR
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.reporting.evaluations import is_evaluation
from zephyr_ray.reporting.run_stages import MadeStage, Round

MOST_FILES = 8
ROWS_PER_FILE = 250
MOST_BYTES = 16 << 20
"""Of a file of answers as JSON lines; what lies beyond is not read."""
_FIRST = ("base", "sft")
_PROMPTS, _ANSWERS = ("instruction", "prompt", "question"), ("answers", "answer", "output")


@dataclass(frozen=True)
class Answer:
    """An answer of a model to a prompt."""

    text: str
    passed: bool | None = None
    """Whether a program found it right; None where none has looked."""


@dataclass(frozen=True)
class Answers:
    """Answers of several models to the same prompts."""

    stage: str
    """The evaluation that asked for them."""
    models: list[str]
    """In the order of training: base, sft, dpo."""
    rows: list[tuple[str, list[list[Answer]]]]
    """A prompt, and of each model its answers."""

    @property
    def policy_and_start(self) -> tuple[str, str] | None:
        """The model that was trained last, and the one that it started from; None where there is only one."""
        start = next((name for name in reversed(_FIRST) if name in self.models), None)
        later = [name for name in self.models if name not in _FIRST] or ["sft"]
        return (later[-1], start) if start and later[-1] in self.models and later[-1] != start else None

    def texts(self, model: str) -> list[str]:
        at = self.models.index(model)
        return [answer.text for _, answers in self.rows for answer in answers[at]]


def sampled_rows(artifact: Artifact, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The first rows of some of an artifact's files, which are chosen evenly among all.

    Raises:
        UserError: A file that the manifest names is not there.
    """
    files = artifact.files()
    step = max(1, -(-len(files) // MOST_FILES))
    return [row for path in files[::step] for row in first_rows(path, artifact.run.filesystem, columns)]


def first_rows(path: str, filesystem: pafs.FileSystem, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The first rows of a Parquet file, at most `ROWS_PER_FILE`."""
    with open_parquet(path, filesystem) as file:
        known = [name for name in columns if name in file.schema_arrow.names] if columns else None
        batch = next(file.iter_batches(batch_size=ROWS_PER_FILE, columns=known), None)
    return pa.Table.from_batches([batch]).to_pylist() if batch is not None else []


def answers(found: Round) -> list[Answers]:
    """Answers to the same prompts, of each evaluation of the round that keeps them.

    Known are `data/NAME.parquet` of a function's evaluation (a slash in the name as a hyphen), with a column
    `instruction` (or `prompt`) and one `answers` (or `answer`), FastChat's `model_answer/NAME.jsonl` and AlpacaEval's
    `model_outputs/NAME.json`.
    """
    readers = (_of_function, _of_fastchat, _of_alpaca_eval)
    made = [read(stage) for stage in found.stages if _has_answers(stage) for read in readers]
    return [each for each in made if each is not None and each.rows]


def _has_answers(stage: MadeStage) -> bool:
    return stage.is_finished and is_evaluation(stage)


def _of_function(stage: MadeStage) -> Answers | None:
    config = stage.manifest.get("config")
    section = config.get("evaluation", {}) if isinstance(config, dict) else {}
    named = section.get("models", ()) if isinstance(section, dict) else ()
    files = {posixpath.basename(entry.name).removesuffix(".parquet"): entry.name for entry in stage.artifact.entries()}
    models = [name for name in named if _file_of(name) in files]
    by_model: list[dict[str, list[Answer]]] = []
    for model in models:
        path = posixpath.join(stage.artifact.path, files[_file_of(model)])
        by_model.append(dict(_asked_and_answered(first_rows(path, stage.artifact.run.filesystem))))
    return _joined(stage.name, models, by_model)


def _file_of(model: str) -> str:
    """What a model's file is named by: `round_2/dpo` lies in round_2-dpo.parquet."""
    return model.replace("/", "-")


def _asked_and_answered(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[str, list[Answer]]]:
    for row in rows:
        prompt = next((row[name] for name in _PROMPTS if isinstance(row.get(name), str)), None)
        given = next((row[name] for name in _ANSWERS if row.get(name) is not None), None)
        if prompt is None or given is None:
            continue
        texts, passed = given if isinstance(given, list) else [given], row.get("passed")
        known = passed if isinstance(passed, list) and len(passed) == len(texts) else [passed] * len(texts)
        yield prompt, [Answer(str(text), right) for text, right in zip(texts, known, strict=True)]


def _of_fastchat(stage: MadeStage) -> Answers | None:
    folder = posixpath.join(stage.artifact.path, "model_answer")
    names = _in_order(stage.artifact.names("model_answer"), ".jsonl")
    filesystem = stage.artifact.run.filesystem
    questions = {
        row.get("question_id"): row.get("turns")
        for row in _json_lines(posixpath.join(stage.artifact.path, "question.jsonl"), filesystem)
    }
    by_model = []
    for name in names:
        rows: dict[str, list[Answer]] = {}
        for row in _json_lines(posixpath.join(folder, f"{name}.jsonl"), filesystem):
            for turn, text in enumerate(_turns(row), 1):
                asked = questions.get(row.get("question_id"))
                prompt = asked[turn - 1] if isinstance(asked, list) and len(asked) >= turn else ""
                rows[f"question {row.get('question_id')}, turn {turn}" + (f"\n{prompt}" if prompt else "")] = [
                    Answer(text)
                ]
        by_model.append(rows)
    return _joined(stage.name, names, by_model)


def _of_alpaca_eval(stage: MadeStage) -> Answers | None:
    names = _in_order(stage.artifact.names("model_outputs"), ".json")
    by_model = []
    for name in names:
        rows = stage.artifact.read_json(posixpath.join("model_outputs", f"{name}.json"))
        by_model.append(dict(_asked_and_answered([row for row in rows if isinstance(row, dict)])))
    return _joined(stage.name, names, by_model)


def _in_order(files: Sequence[str], ending: str) -> list[str]:
    """The models of files, as they are trained: base, sft, and what came of them."""
    names = [file.removesuffix(ending) for file in files if file.endswith(ending)]
    return sorted(names, key=lambda name: (_FIRST.index(name) if name in _FIRST else len(_FIRST), name))


def _turns(row: dict[str, Any]) -> list[str]:
    choices = row.get("choices")
    first = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    turns = first.get("turns", [])
    return [turn for turn in turns if isinstance(turn, str) and turn != ERROR] if isinstance(turns, list) else []


def _joined(stage: str, models: list[str], by_model: list[dict[str, list[Answer]]]) -> Answers | None:
    """Answers by prompt, for the prompts that all models have answered."""
    if not models:
        return None
    shared = [prompt for prompt in by_model[0] if all(prompt in each for each in by_model)]
    return Answers(stage, models, [(prompt, [each[prompt] for each in by_model]) for prompt in shared])


def _json_lines(path: str, filesystem: pafs.FileSystem) -> list[dict[str, Any]]:
    """The objects in the first `MOST_BYTES` of a file; empty where there is no such file."""
    try:
        with filesystem.open_input_stream(path) as stream:
            text = stream.read(MOST_BYTES)
    except FileNotFoundError:
        return []
    found = []
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, UnicodeDecodeError):  # cut at the limit, or no answer
            continue
        if isinstance(row, dict):
            found.append(row)
    return found
