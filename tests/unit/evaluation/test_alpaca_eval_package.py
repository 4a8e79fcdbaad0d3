"""AlpacaEval's own package, by `jobs/evaluate.py alpaca-eval`, with a judge on this machine.

Skipped where ZEPHYR_TEST_ALPACA_EVAL does not name the Python of an environment with the package.
"""

from __future__ import annotations

import csv
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

REPO = Path(__file__).parents[3]
PYTHON = os.environ.get("ZEPHYR_TEST_ALPACA_EVAL")

pytestmark = pytest.mark.skipif(not PYTHON, reason="ZEPHYR_TEST_ALPACA_EVAL names no Python with alpaca_eval")

PROMPT = (
    "<|im_start|>user\nWhich is better for {instruction}?\nOutput (a): {output_1}\nOutput (b): {output_2}\n<|im_end|>"
)
CONFIG = {
    "own_judge": {
        "prompt_template": "own_judge/prompt.txt",
        "fn_completions": "openai_completions",
        "completions_kwargs": {"model_name": "some-instruct", "max_tokens": 5, "temperature": 0},
        "fn_completion_parser": "regex_parser",
        "completion_parser_kwargs": {"outputs_to_match": {1: r"\(a\)", 2: r"\(b\)"}},
        "batch_size": 1,
    }
}


class Judge(http.server.ThreadingHTTPServer):
    """Prefers the answer "good", wherever it is shown; refuses prompts with `refused` in them."""

    refused = "nothing"
    asked: list[str]

    def reply(self, prompt: str) -> dict[str, Any]:
        choice = "Output (a)" if "Output (a): good" in prompt else "Output (b)"
        message = {"role": "assistant", "content": choice}
        usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
        choices = [{"index": 0, "finish_reason": "stop", "message": message}]
        return {"id": "1", "object": "chat.completion", "created": 0, "model": "j", "choices": choices, "usage": usage}


class Handler(http.server.BaseHTTPRequestHandler):
    """OpenAI's chat completions, and its list of models."""

    server: Judge

    def do_GET(self) -> None:
        self._answer(200, {"data": [{"id": "some-instruct"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        prompt = body["messages"][0]["content"]
        self.server.asked.append(prompt)
        if self.server.refused in prompt:
            return self._answer(400, {"error": {"message": "refused"}})
        return self._answer(200, self.server.reply(prompt))

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def judge() -> Iterator[Judge]:
    with Judge(("127.0.0.1", 0), Handler) as server:
        server.asked = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "own_judge").mkdir()
    (tmp_path / "own_judge" / "configs.yaml").write_text(yaml.safe_dump(CONFIG))
    (tmp_path / "own_judge" / "prompt.txt").write_text(PROMPT)
    instructions = [f"task {number}" for number in range(6)]
    for name, answers in (("outputs", ["good"] * 4 + ["bad"] * 2), ("baseline", ["bad"] * 4 + ["good"] * 2)):
        rows = [
            {"instruction": text, "output": answer, "generator": name}
            for text, answer in zip(instructions, answers, strict=True)
        ]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    return tmp_path


def run(files: Path, *options: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    out = files / "win.json"
    command = [sys.executable, "jobs/evaluate.py", "alpaca-eval", *options, "--json", str(out)]
    command += ["--alpaca-eval-python", str(PYTHON)]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=120)
    return done, json.loads(out.read_text()) if out.exists() else {}


def judged(files: Path, judge: Judge, *more: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    options = ("--outputs", str(files / "outputs.json"), "--baseline", str(files / "baseline.json"))
    url = f"http://127.0.0.1:{judge.server_port}/v1"
    config = str(files / "own_judge")
    return run(files, *options, "--annotators-config", config, "--base-url", url, *more)


def test_only_what_failed_is_asked_for_again(files: Path, judge: Judge) -> None:
    judge.refused = "task 3"
    done, told = judged(files, judge)
    assert done.returncode == 1, done.stderr
    assert (told["n"], told["rows"], told["win_rate"], told["left_out"]) == (5, 6, 60.0, {"null": 1})
    assert list(told["failures"].values()) == [1]
    assert len(judge.asked) == 6
    judge.refused, judge.asked = "nothing", []
    done, told = judged(files, judge)
    assert done.returncode == 0, done.stderr
    assert [prompt.split("\n")[0] for prompt in judge.asked] == ["Which is better for task 3?"]
    assert (told["n"], told["win_rate"], told["failures"]) == (6, pytest.approx(100 * 4 / 6), {})
    assert told["package"]["win_rate"]["win_rate"] == pytest.approx(told["win_rate"], abs=1e-12)
    kept = json.loads((files / "win.annotations.json").read_text())
    assert [row["preference"] for row in kept] == [2, 2, 2, 2, 1, 1]
    assert {row["generator_2"] for row in kept} == {"outputs"}


def test_a_judge_that_is_down_is_one_line(files: Path, judge: Judge) -> None:
    judge.shutdown()
    judge.server_close()
    done, told = judged(files, judge)
    assert (done.returncode, done.stderr.count("\n"), told) == (2, 1, {})
    assert "the judge gives no judgment: APIConnectionError" in done.stderr


def test_a_config_that_is_not_there_is_one_line(files: Path, judge: Judge) -> None:
    done, _ = judged(files, judge, "--annotators-config", "no_such_judge")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--annotators-config no_such_judge: there is no such file" in done.stderr


def test_length_control_by_a_local_file(files: Path) -> None:
    """Of a judge that prefers longer answers, the rate at equal lengths is lower than the plain one."""
    annotations, gamed, lengths = list[Any](), list[Any](), [5, 40, 20, 8, 60, 3, 30, 12, 50, 25] * 4
    for place, length in enumerate(lengths):
        share = 0.95 if length > 10 else 0.3
        row = {"instruction": str(place), "output_1": "x" * 10, "output_2": "x" * length, "preference": 1 + share}
        annotations.append(row | {"generator_1": "baseline", "generator_2": "model"})
    for name, sign in (("concise", -1), ("verbose", 1)):
        for place in range(len(lengths)):
            gamed.append([name, 0.5 + 0.3 * sign, place, -sign * (1 + place % 3), (place % 5) - 2, False])
    (files / "annotations.json").write_text(json.dumps(annotations))
    columns = ["model", "preference", "index", "std_delta_len", "instruction_difficulty", "not_gamed_baseline"]
    with (files / "df_gamed.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *gamed])
    recorded = ("--annotations", str(files / "annotations.json"))
    done, told = run(files, *recorded, "--length-control", str(files / "df_gamed.csv"))
    assert done.returncode == 0, done.stderr
    assert 0 < told["length_controlled_win_rate"] < told["win_rate"]
    assert (told["length_controlled_reason"], told["length_controlled_standard_error"] > 0) == (None, True)
    (files / "annotations.json").write_text(json.dumps(annotations[:-1]))
    done, told = run(files, *recorded, "--length-control", str(files / "df_gamed.csv"))
    assert told["length_controlled_win_rate"] is None
    assert "is of 40 instructions in their order, and these are 39" in told["length_controlled_reason"]
