"""A real chat model, where `ZEPHYR_TEST_MODEL` names one: trained in every way, sampled from, and its own judge."""

from __future__ import annotations

import gzip
import itertools
import json
import math
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.integration.jobs import copy_run, manifest, metrics, run_job

TIMEOUT_S = 1200
pytestmark = pytest.mark.timeout(TIMEOUT_S)

PAIRS, BATCH, STEPS = 16, 4, 4
WAYS = list(itertools.product(("bfloat16", "float32"), ("packed", "padded"), (False, True)))
LN_2 = {"bfloat16": 1e-5, "float32": 1e-6}
"""How far from ln 2 the first loss may be."""


@pytest.fixture(scope="module")
def pairs(outside_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short pairs of people's preferences, so many that enough have two different answers."""
    with gzip.open(outside_data / "preferences" / "hh_rlhf_harmless_test.jsonl.gz", "rt") as file:
        rows = sorted(map(json.loads, file), key=lambda row: len(row["chosen"]) + len(row["rejected"]))
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[100 : 100 + 2 * PAIRS]))
    return path


@pytest.fixture(scope="module")
def settings(outside_model: str, pairs: Path) -> tuple[str, ...]:
    return (
        f"model.path={outside_model}",
        "chat.template=model",
        f"preferences.train={pairs}",
        "tokenized.max_length=256",
        "tokenized.max_prompt_length=192",
        f"dpo.global_batch={BATCH}",
        f"dpo.max_steps={STEPS}",
        "dpo.training.logging_steps=1",
        "dpo.training.workers=1",
        "dpo.training.micro_batch=2",
        "dpo.training.tokens_per_micro_batch=512",
    )


@pytest.fixture(scope="module")
def tokenized(settings: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tokenized") / "run"
    run_job("tokenized", root, *settings, timeout=TIMEOUT_S)
    assert manifest(root, "tokenized")["counts"]["out"] >= PAIRS
    return root


@pytest.mark.parametrize(("dtype", "engine", "lora"), WAYS)
def test_it_is_trained(
    settings: tuple[str, ...], tokenized: Path, tmp_path: Path, dtype: str, engine: str, lora: bool
) -> None:
    root = copy_run(tokenized, tmp_path / "run")
    # bfloat16 in DeepSpeed, as on GPUs; padded all alike, for how far a batch is padded changes what is rounded.
    way = [
        f"model.dtype={dtype}",
        f"dpo.training.engine={engine}",
        f"dpo.training.zero_stage={int(dtype == 'bfloat16')}",
    ]
    way += ["model.lora.r=8", "dpo.learning_rate=1e-3"] if lora else ["dpo.learning_rate=1e-5"]
    way += ["dpo.training.trl.pad_to_multiple_of=256"] if engine == "padded" else []
    run_job("dpo", root, *settings, *way, timeout=TIMEOUT_S)
    rows = metrics(root, "dpo")
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=LN_2[dtype])
    assert len(rows) == STEPS
    assert all(math.isfinite(row["loss"]) and row["grad_norm"] > 0 for row in rows)
    assert rows[-1]["loss"] != pytest.approx(rows[0]["loss"], abs=1e-4)
    names = {path.name for path in (root / "dpo" / "checkpoint").iterdir()}
    assert {"model.safetensors", "chat_template.jinja"} <= names
    assert ("adapter" in names) == lora


def test_it_answers_and_judges(outside_model: str, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    questions = ("What is the capital of France?", "Name three animals.", "Why is the sky blue?", "Say hello.")
    prompts.write_text("".join(json.dumps({"prompt": question}) + "\n" for question in questions))
    engine = {
        "type": "deployment",
        "name": "real",
        "model": outside_model,
        "accelerator": "cpu",
        "max_model_len": 2048,
        "max_in_flight": 8,
    }
    judge = {
        "type": "language_models",
        "models": [engine],
        "aspects": ["helpfulness"],
        "max_tokens": 400,
        "temperature": 1.0,  # the most likely tokens of so small a model repeat themselves until they are cut off
    }
    root = tmp_path / "run"
    run_job(
        "judgments",
        root,
        f"model.path={outside_model}",
        "chat.template=model",
        f"prompts.train={prompts}",
        f"sampling.pool=[{json.dumps(engine)}]",
        "sampling.samples=2",
        "sampling.max_tokens=48",
        f"judging.judge={json.dumps(judge)}",
        timeout=TIMEOUT_S,
    )
    rows = pq.read_table(root / "judgments" / "data").to_pylist()
    assert len(rows) == len(questions)
    answers = [each for row in rows for each in row["completions"]]
    assert len({each["content"] for each in answers}) == len(answers) == 2 * len(questions)
    ratings = [each["annotations"]["helpfulness"]["rating"] for each in answers]
    assert all(rating is None or 1 <= rating <= 5 for rating in ratings)
    assert sum(rating is not None for rating in ratings) >= len(questions)
