"""jobs/evaluate.py as a user runs it: tables, JSON, one line for wrong input, and nothing heavy is loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from zephyr_ray.cli.evaluate import command
from zephyr_ray.cli.exit_status import exit_with

REPO = Path(__file__).parents[3]


def status_of(*arguments: str) -> int:
    with pytest.raises(SystemExit) as raised:
        exit_with(command("What it does."), arguments, "evaluate.py")
    assert isinstance(raised.value.code, int)
    return raised.value.code


def written(folder: Path, name: str, *rows: object) -> str:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / name)


def numbers(out: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(out.read_text())
    return loaded


JUDGMENTS = [
    {"question_id": 81, "model": "m", "judge": ["gpt-4", "single-v1"], "turn": turn, "score": score}
    for turn, score in ((1, 8), (2, 5), (2, 6))
]


def test_mt_bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "single.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in JUDGMENTS) + '{"question_id": 82, "mod')
    questions = written(tmp_path, "question.jsonl", {"question_id": 81, "category": "writing", "turns": ["x", "y"]})
    out = tmp_path / "out.json"
    assert status_of("mt-bench", "--judgments", str(file), "--questions", questions, "--json", str(out)) == 0
    told = numbers(out)
    keys = ("turn_1", "turn_2", "average", "n", "categories")
    assert {key: told["models"]["m"][key] for key in keys} == dict(
        zip(keys, (8.0, 6.0, 7.0, 2, {"writing": 7.0}), strict=True)
    )
    assert (told["lines"], told["broken"], told["repeated"]) == (4, 1, 1)
    shown = capsys.readouterr().out
    assert "2 of 2" in shown
    assert "left out of 4 lines: 1 no JSON object, 1 replaced by a later judgment" in shown


def test_mt_bench_says_what_is_mixed_or_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, "single.jsonl", *JUDGMENTS, JUDGMENTS[0] | {"judge": ["other", "single-v1"]})
    questions = written(tmp_path, "question.jsonl", {"question_id": 1, "category": "math", "turns": ["x"]})
    assert status_of("mt-bench", "--judgments", file, "--questions", questions) == 0
    shown = capsys.readouterr().out
    assert "the scores of 2 judges are averaged: gpt-4, other" in shown
    assert "judgments of questions that --questions lacks, which count: 3" in shown


def test_mt_bench_of_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = {"model_1": "m", "model_2": "n", "g1_winner": "model_1", "judge": ["gpt-4", "pair-v2"], "turn": 1}
    rows = [pair | {"question_id": 1, "g2_winner": "model_1"}, pair | {"question_id": 2, "g2_winner": "model_2"}]
    out = tmp_path / "out.json"
    assert status_of("mt-bench", "--judgments", written(tmp_path, "p.jsonl", *rows), "--json", str(out)) == 0
    assert numbers(out)["models"]["m"]["win_rate_adjusted"] == 0.75
    assert "both orders say the same in 1 of 2; the answer shown first wins both in 1" in capsys.readouterr().out


def test_alpaca_eval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "annotations.json", tmp_path / "out.json"
    file.write_text(json.dumps([{"preference": each, "generator_2": "m"} for each in (2.0, 1.0, None)]))
    assert status_of("alpaca-eval", "--annotations", str(file), "--json", str(out)) == 0
    told = numbers(out)
    assert (told["win_rate"], told["n"], told["length_controlled_win_rate"]) == (50.0, 2, None)
    assert "no length-controlled win rate: " in capsys.readouterr().out


def test_agreement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"id": 1, "label": "a", "verdict": "a", "swapped_verdict": "a", "retest_verdict": "b"},
        {"id": 2, "label": "b", "verdict": "b", "swapped_verdict": "a"},
        {"id": 3, "label": "tie", "verdict": None},
    ]
    out = tmp_path / "out.json"
    assert status_of("agreement", "--judged", written(tmp_path, "j.jsonl", *rows), "--json", str(out)) == 0
    told = numbers(out)
    asked = {key: told[key] for key in ("accuracy", "kappa", "swap_consistency", "retest", "parse_rate", "n")}
    assert asked == {
        "accuracy": 1.0,
        "kappa": 1.0,
        "swap_consistency": 0.5,
        "retest": 0.0,
        "parse_rate": pytest.approx(2 / 3),
        "n": 2,
    }
    assert "2 of 3" in capsys.readouterr().out


def test_versus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"id": 1, "a_score": 2, "b_score": 1}, {"id": 2, "verdict": "b"}, {"id": 3, "verdict": None}]
    out = tmp_path / "out.json"
    assert status_of("versus", "--judged", written(tmp_path, "c.jsonl", *rows), "--json", str(out)) == 0
    told = numbers(out)
    assert (told["win_rate"], told["n"], told["comparisons"], told["lines"]) == (0.5, 2, 3, 3)
    assert told["left_out"] == {"no_verdict": 1}
    assert "2 of 3 comparisons count" in capsys.readouterr().out


def test_versus_of_a_runs_judgments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from zephyr_ray.schemas import JUDGMENTS

    def row(prompt: str, m: float, n: float) -> dict[str, Any]:
        completions = [
            {"model": name, "content": name, "overall_score": score} for name, score in zip("mn", (m, n), strict=True)
        ]
        return {"prompt_id": prompt, "messages": [], "completions": completions}

    folder = tmp_path / "run" / "judgments"
    (folder / "data").mkdir(parents=True)
    table = pa.Table.from_pylist([row("1", 5, 3), row("2", 4, 4)], schema=JUDGMENTS)
    pq.write_table(table, folder / "data" / "a.parquet")
    (folder / "manifest.json").write_text(json.dumps({"files": [{"name": "data/a.parquet", "rows": 2}]}))
    assert status_of("versus", "--judgments", str(folder)) == 0
    assert "A = m, B = n: 2 of 2 comparisons count" in capsys.readouterr().out
    assert status_of("versus", "--judgments", str(tmp_path / "nowhere")) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("versus",), "error: versus reads --judged FILE or --judgments ROOT/judgments; give one of them"),
        (("versus", "--judged", "{file}"), "error: {file}: no row is a comparison"),
        (("versus", "--judged", "{nulls}"), "error: {nulls}: none of 1 comparisons has a result (1 no_verdict)"),
        (("mt-bench",), "error: Missing option '--judgments'; see --help"),
        (("mt-bench", "--judgments", "nowhere.jsonl"), "error: nowhere.jsonl cannot be read: No such file"),
        (("mt-bench", "--judgments", "{file}"), "error: {file}: none of 1 lines is a judgment with question_id"),
        (("alpaca-eval", "--annotations", "{file}"), "error: {file}: none of 1 annotations has a preference"),
        (("agreement", "--judged", "{file}"), "error: {file}: no row has a verdict"),
        (("bench",), "error: No such command 'bench'"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str
) -> None:
    files = {
        "file": written(tmp_path, "other.jsonl", {"something": "else"}),
        "nulls": written(tmp_path, "nulls.jsonl", {"id": 1, "verdict": None}),
    }
    assert status_of(*(each.format(**files) for each in arguments)) == 2
    seen = capsys.readouterr()
    assert seen.err.startswith(says.format(**files))
    assert seen.err.count("\n") == 1


def test_numbers_that_cannot_be_written_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = written(tmp_path, "single.jsonl", *JUDGMENTS), tmp_path / "nowhere" / "out.json"
    assert status_of("mt-bench", "--judgments", file, "--json", str(out)) == 2
    assert capsys.readouterr().err == f"error: --json {out} cannot be written: No such file or directory\n"


def test_the_job_loads_nothing_heavy(tmp_path: Path) -> None:
    file = written(tmp_path, "single.jsonl", *JUDGMENTS)
    heavy = "('ray', 'torch', 'transformers', 'pyarrow', 'scipy', 'sklearn')"
    script = (
        "import atexit, runpy, sys; "
        f"atexit.register(lambda: print([name for name in {heavy} if name in sys.modules])); "
        f"sys.argv = ['evaluate.py', 'mt-bench', '--judgments', {file!r}]; "
        f"runpy.run_path({str(REPO / 'jobs' / 'evaluate.py')!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=REPO)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


RECIPE = """
run: {root: ROOT}
evaluation:
  models: [{type: endpoint, name: one, model: m, base_url: "http://127.0.0.1:9/v1"}]
  judge: {type: endpoint, name: gpt, model: gpt, base_url: "http://127.0.0.1:9/v1"}
  mt_bench: {questions: QUESTIONS, references: null}
"""


def recipe(folder: Path) -> str:
    questions = written(folder, "question.jsonl", {"question_id": 81, "category": "writing", "turns": ["x", "y"]})
    text = RECIPE.replace("ROOT", str(folder / "run")).replace("QUESTIONS", questions)
    (folder / "recipe.yaml").write_text(text)
    return str(folder / "recipe.yaml")


def test_what_a_run_would_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("run", "--recipe", recipe(tmp_path), "--dry-run") == 0
    told = capsys.readouterr().out.split("status\n")[1].splitlines()
    rows = [line.split() for line in told]
    answers, judgments = "evaluation/mt_bench_answers/one", "evaluation/mt_bench_judgments/one"
    assert [(row[0], row[-2:]) for row in rows] == [
        (name, ["to", "do"]) for name in (answers, judgments, "evaluation/mt_bench")
    ]
    assert rows[2][1:3] == [f"{answers},", judgments]
    assert not (tmp_path / "run").exists()


def test_a_run_of_a_recipe_that_evaluates_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.yaml").write_text(f"run: {{root: {tmp_path / 'run'}}}\n")
    assert status_of("run", "--recipe", str(tmp_path / "recipe.yaml")) == 2
    assert "error: this recipe evaluates nothing; name models, a judge" in capsys.readouterr().err


def test_a_dry_run_loads_nothing_heavy(tmp_path: Path) -> None:
    script = (
        "import runpy, sys; "
        f"sys.argv = ['evaluate.py', 'run', '--recipe', {recipe(tmp_path)!r}, '--dry-run']\n"
        "try:\n"
        f"    runpy.run_path({str(REPO / 'jobs' / 'evaluate.py')!r}, run_name='__main__')\n"
        "finally:\n"
        "    print('loaded', sorted({'ray', 'torch', 'trl', 'openai', 'vllm'} & sys.modules.keys()))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=REPO, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "loaded []", done.stdout + done.stderr
