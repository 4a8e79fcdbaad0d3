"""lm-evaluation-harness itself, by `jobs/evaluate.py lm-eval`, against the served model. Where it is not installed (it
is an extra of its own) only its recorded requests are tried, by test_chat_clients.py."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.integration.cluster import REPO
from tests.integration.service import Service

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        importlib.util.find_spec("lm_eval") is None,
        reason="lm-eval is not installed: pip install 'zephyr_ray[lm-eval]'",
    ),
]

QUESTIONS = [
    ("Reverse the word: tree", "eert", "tree", "reet", "rete", "A"),
    ("Sort these words: pear, fig", "pear, fig", "fig, pear", "fig", "None", "B"),
    ("Reverse the word: fig", "fig", "gfi", "gif", "0.50", "C"),
]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with MMLU's layout, of a subject with three questions, and with a task of one's own that generates."""
    folder = tmp_path_factory.mktemp("tasks")
    for split in ("dev", "test"):
        (folder / split).mkdir()
        lines = (",".join(f'"{cell}"' for cell in question) for question in QUESTIONS)
        (folder / split / f"anatomy_{split}.csv").write_text("\n".join(lines) + "\n")
    (folder / "rows.json").write_text("".join(json.dumps({"question": q[0], "answer": q[1]}) + "\n" for q in QUESTIONS))
    task = {
        "task": "reversed",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "rows.json")}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "answer",
        "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": 8},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    (folder / "own").mkdir()
    (folder / "own" / "reversed.yaml").write_text(yaml.safe_dump(task))
    return folder


@pytest.fixture
def float32(chat_service: Service) -> Iterator[Service]:
    """The endpoint with engines in float32; vLLM's `auto` computes with weights of float32 in bfloat16."""
    chat_service.deploy(dtype="float32")
    yield chat_service
    chat_service.deploy(dtype="auto")


def evaluate(service: Service, monkeypatch: pytest.MonkeyPatch, *options: str) -> subprocess.CompletedProcess[str]:
    monkeypatch.setenv("TEST_KEY", service.key)
    command = [sys.executable, "jobs/evaluate.py", "lm-eval", "--base-url", f"{service.url}/v1", "--model", "tiny"]
    command += ["--api-key-env", "TEST_KEY", *options]
    return subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=300)


def log_likelihood(model: Any, tokenizer: Any, context: str, answer: str) -> float:
    """Of an answer's tokens after the context's, in nats, by plain transformers in float32.

    The harness takes as the answer's tokens what the two together have beyond the length of the context's own.
    """
    before = tokenizer(context, add_special_tokens=False).input_ids
    after = tokenizer(context + answer, add_special_tokens=False).input_ids[len(before) :]
    ids = torch.tensor([before + after])
    with torch.no_grad():
        logps = model(ids).logits[0, :-1].log_softmax(-1)
    return float(logps.gather(1, ids[0, 1:, None])[len(before) - 1 :].sum())


def test_log_likelihoods_are_the_models_own(
    float32: Service, base_model: Path, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, samples = tmp_path / "out.json", tmp_path / "samples.jsonl"
    options = ("--tokenizer", str(base_model), "--mmlu", str(tasks), "--num-fewshot", "1")
    done = evaluate(float32, monkeypatch, *options, "--json", str(out), "--samples", str(samples))
    assert done.returncode == 0, done.stderr
    told = json.loads(out.read_text())
    assert (told["tasks"]["mmlu_anatomy"]["n"], told["failed"], told["cut"]) == (3, 0, 0)
    assert told["asked"]["fingerprint"]
    assert not (tmp_path / "out.json.answers").exists()
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    prompts = [row["arguments"][0][0] for row in rows]
    assert prompts[1] == (
        "The following are multiple choice questions (with answers) about anatomy.\n\n"
        "Reverse the word: tree\nA. eert\nB. tree\nC. reet\nD. rete\nAnswer: A\n\n"
        "Sort these words: pear, fig\nA. pear, fig\nB. fig, pear\nC. fig\nD. None\nAnswer:"
    )
    assert [[answer for _, answer in row["arguments"]] for row in rows] == [[" A", " B", " C", " D"]] * 3
    model = AutoModelForCausalLM.from_pretrained(base_model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(base_model)
    for row in rows:
        own = [log_likelihood(model, tokenizer, context, answer) for context, answer in row["arguments"]]
        assert [float(value) for value, _ in row["filtered_resps"]] == pytest.approx(own, abs=1e-4)
        assert row["acc"] == float(own.index(max(own)) == row["target"])


def test_what_fails_is_no_result_and_is_asked_again(
    chat_service: Service, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prompt longer than the model's context fails its task; the other task keeps its result."""
    out = tmp_path / "out.json"
    long = tasks / "own" / "long.yaml"
    task = yaml.safe_load((tasks / "own" / "reversed.yaml").read_text())
    long.write_text(yaml.safe_dump(task | {"task": "long", "doc_to_text": "{{question * 200}}"}))
    options = ("--chat", "--tasks", "reversed,long", "--include-path", str(tasks / "own"), "--json", str(out))
    done = evaluate(chat_service, monkeypatch, *options)
    long.unlink()
    assert done.returncode == 1, done.stderr
    told = json.loads(out.read_text())
    assert told["tasks"]["reversed"]["metrics"]["exact_match"]["value"] >= 0
    assert told["tasks"]["long"]["metrics"] is None
    assert "400" in told["tasks"]["long"]["error"]
    assert (told["average"], told["average_reason"]) == (None, "1 of 2 tasks have no result")
    assert "reversed: 3 questions\nlong: no result\n" in done.stderr
    (answers,) = (tmp_path / "out.json.answers").iterdir()
    assert (answers / "reversed_rank0.db").stat().st_size > 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--tasks", "mmlu_nothing", "--chat"), "has no task mmlu_nothing;"),
        (("--model", "other", "--tasks", "mmlu", "--chat"), "has no such model; it lists tiny, tiny-lora"),
        (("--api-key-env", "NO_SUCH_KEY", "--tasks", "mmlu", "--chat"), "NO_SUCH_KEY: this variable is not set"),
    ],
)
def test_wrong_input_is_one_line(
    chat_service: Service, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], says: str
) -> None:
    done = evaluate(chat_service, monkeypatch, *options)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert says in done.stderr
