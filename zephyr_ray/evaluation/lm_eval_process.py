"""Runs lm-evaluation-harness in a process of its own, which may be that of another Python environment."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zephyr_ray.errors import UserError
from zephyr_ray.evaluation import mmlu_files, runner_process
from zephyr_ray.evaluation.mmlu_files import Subjects
from zephyr_ray.pipeline.fingerprints import fingerprint_files

INSTALL = "pip install 'zephyr_ray[lm-eval]'"
_RUNNER = "run_lm_eval.py"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")
_OTHER_FILES = ("special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt")


@dataclass(frozen=True)
class Evaluation:
    """What is asked of a model."""

    base_url: str
    model: str
    tokenizer: str | None
    """Folder; None with `chat`."""
    chat: bool
    tasks: tuple[str, ...]
    """Names of tasks, groups and tags of lm-eval or of `include_path`."""
    include_path: str | None
    limit: int | None
    """Questions of each task; None for all."""
    num_fewshot: int | None
    """None for each task's own."""
    max_length: int
    """Tokens of a prompt and the one after it; a longer prompt loses its beginning."""
    concurrency: int


def check_python(python: str) -> None:
    """Checks that an interpreter has lm-eval with what its clients of endpoints need.

    Raises:
        UserError: It has not.
    """
    runner_process.check_packages(python, ("lm_eval", "tenacity", "aiohttp"), "--lm-eval-python", INSTALL)


def check_tokenizer(folder: str) -> None:
    """Checks that a local folder has a tokenizer.

    Raises:
        UserError: It has none.
    """
    if not any(Path(folder, name).is_file() for name in _TOKENIZER_FILES):
        raise UserError(f"--tokenizer {folder} is no folder with a tokenizer.json; give the folder of the served model")


def tokenizer_id(folder: str) -> str:
    """A hash of a tokenizer's files."""
    paths = [Path(folder, name) for name in (*_TOKENIZER_FILES, *_OTHER_FILES)]
    return fingerprint_files(str(path) for path in paths if path.is_file())


def longest(tokenizer: str | None, told: dict[str, Any]) -> int | None:
    """The model's context in tokens: what the endpoint says, or else the config beside the tokenizer; else None."""
    if isinstance(told.get("max_model_len"), int):
        return int(told["max_model_len"])
    config = Path(tokenizer, "config.json") if tokenizer else None
    found = json.loads(config.read_text("utf-8")) if config and config.is_file() else {}
    length = found.get("max_position_embeddings")
    return length if isinstance(length, int) else None


def events(
    evaluation: Evaluation, subjects: Subjects, *, python: str, key: str | None, answers: Path
) -> Iterator[dict[str, Any]]:
    """The runner's events as they come (`runners.run_lm_eval`).

    Args:
        evaluation: What to ask.
        subjects: MMLU's questions; each subject is a task too.
        python: The interpreter that has lm-eval.
        key: The endpoint's API key.
        answers: Folder for replies, which a later call with the same folder does not ask for again, and for `log`.

    Raises:
        UserError: The process ended before its end.
    """
    with tempfile.TemporaryDirectory() as scratch:
        files = mmlu_files.write_parquet(subjects, Path(scratch, "mmlu"))
        job = asdict(evaluation) | {"mmlu": files, "folder": scratch, "answers": str(answers)}
        environment = {"OPENAI_API_KEY": key or "", "TOKENIZERS_PARALLELISM": "false"}
        if not evaluation.tasks:
            environment |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(Path(scratch, "datasets"))}
        yield from runner_process.events(python, _RUNNER, job, environment=environment, log=answers / "log")
