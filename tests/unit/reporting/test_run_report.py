"""The report of small runs: what the page says, what its files hold, and what is missing or broken."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.unit.data.pages import Page
from tests.unit.reporting.runs import counts, finish, pair, pairs_table, write_metrics
from zephyr_ray.pipeline.artifacts import Run
from zephyr_ray.reporting import run_report
from zephyr_ray.reporting.run_stages import open_root, read_rounds
from zephyr_ray.reporting.samples import Answer, answers

EVIL = "<script>alert(1)</script>"


def make_run(root: Path, beta: float = 0.1) -> Path:
    """A run of pairs, DPO and a function's evaluation, with a bias of length and a fall of chosen log-probs."""
    stats = {f"{side}_characters": {"mean": mean} for side, mean in (("chosen", 300.0), ("rejected", 200.0))}
    pairs = [pair(n, f"**bold** {EVIL}", "plain") for n in range(60)]
    finish(root, "preferences", "f1", tables={"p": pairs_table(pairs)}, counts=counts(90, 60, tie=30), stats=stats)
    dpo = finish(root, "dpo", "f2", "f1", config={"dpo": {"beta": beta}}, trained={"rows": 60})
    steps = [
        {
            "loss": 0.7 - n / 100,
            "rewards/chosen": -beta * n,
            "rewards/rejected": -2 * beta * n,
            "step": n,
            "grad_norm": n,
        }
        for n in range(1, 9)
    ]
    write_metrics(dpo, [*steps, {"train_runtime": 10.0, "num_tokens": 500.0, "step": 8}])
    tables = {
        model: pa.table({"instruction": ["hi"] * 1, "answers": [[answer, EVIL]], "passed": [[True, False]]})
        for model, answer in (("sft", "no"), ("dpo", "yes"))
    }
    rates = {name: {"mean": 0.5, "low": 0.4, "high": 0.6} for name in tables}
    gain = {"mean": 0.1, "low": -0.1, "high": 0.3}
    evaluation = {"evaluation": {"name": "held_out", "models": ["sft", "dpo"]}}
    finish(root, "held_out", "f3", "f2", config=evaluation, tables=tables, pass_rate=rates, dpo_minus_sft=gain)
    (root / "recipe.yaml").write_text(f"run: {{root: {root}}}\ndpo: {{beta: {beta}}}\n")
    return root


def test_one_run(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run")
    page = Path(run_report.write([str(root)]))
    assert page == root / "report.html"
    text = page.read_text()
    numbers = json.loads((root / "report.json").read_text())["runs"][0]
    about = [(alarm["about"], alarm["said"].partition(":")[0]) for alarm in numbers["alarms"]]
    assert ("preferences", "chosen answers have 300 characters on average and rejected ones 200") in about
    assert ("preferences", "bold") in about
    assert ("preferences", "30 of 90 rows were dropped, 33.3 % (limit 20 %); most, 30, as tie") in about
    assert any(where == "dpo" and said.startswith("at the end the log-prob of chosen") for where, said in about)
    assert ("held_out", "dpo minus sft") in about
    said = Page(text).text
    assert all(alarm["said"] in said for alarm in numbers["alarms"])
    assert numbers["rows"] == [{"stage": "preferences", "in": 90, "added": 0, "out": 60, "dropped": {"tie": 30}}]
    assert numbers["trainings"]["dpo"]["curves"]["grad_norm"][:2] == [[1.0, 1.0], [2.0, 2.0]]
    assert numbers["trainings"]["dpo"]["tokens_per_second"] == 50.0
    compared = json.loads((root / "llm_comparator.json").read_text())
    assert [model["name"] for model in compared["models"]] == ["dpo", "sft"]


def test_the_page_loads_nothing_and_escapes_what_models_wrote(tmp_path: Path) -> None:
    text = Path(run_report.write([str(make_run(tmp_path / "run"))])).read_text()
    assert EVIL not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "embed", "form"} & {*page.tags}
    assert [value for name, value in page.attributes if name in ("src", "href") and "//" in str(value)] == []
    assert "url(" not in text
    assert "@import" not in text


def test_several_runs_side_by_side(tmp_path: Path) -> None:
    roots = [str(make_run(tmp_path / name, beta)) for name, beta in (("one", 0.1), ("two", 0.5))]
    page = Path(run_report.write(roots))
    assert page == tmp_path / "one" / "comparison" / "report.html"
    compared = json.loads((page.parent / "report.json").read_text())["comparison"]
    assert compared["labels"] == ["one", "two"]
    assert compared["recipe"] == [{"field": "dpo.beta", "values": ["0.1", "0.5"]}]
    assert compared["rows"] == []
    assert ["held_out: pass rate dpo", ["50.0 % (40.0 % to 60.0 %)"] * 2] in compared["results"]
    assert page.read_text().count('points="') == 2 * 4  # loss, two rewards, gradient norm: a line of each run
    assert Path(run_report.write(roots, str(tmp_path / "there"))) == tmp_path / "there" / "report.html"


def test_rounds_are_side_by_side_each_with_its_own_recipe(tmp_path: Path) -> None:
    for number, beta in ((1, 0.1), (2, 0.5)):
        make_run(tmp_path / f"round_{number}", beta)
    page = Path(run_report.write([str(tmp_path)]))
    assert page == tmp_path / "report.html"
    compared = json.loads((tmp_path / "report.json").read_text())["comparison"]
    assert [label.split()[-1] for label in compared["labels"]] == ["round_1", "round_2"]
    assert compared["recipe"] == [{"field": "dpo.beta", "values": ["0.1", "0.5"]}]


def test_a_run_that_is_not_finished_and_one_of_a_single_stage(tmp_path: Path) -> None:
    finish(tmp_path, "dialogues", "f1", counts=counts(3, 3), alarms=["ALARM: the loss rose; lower the rate"])
    Run(str(tmp_path)).artifact("sft").begin("f2")
    text = Page(Path(run_report.write([str(tmp_path)], expected={str(tmp_path): ["sft", "dpo"]})).read_text()).text
    assert "Note, sft: unfinished, begun" in text
    assert "Alarm, dialogues: the loss rose. lower the rate" in text
    assert "Not begun, though the recipe has them: dpo." in text
    assert not (tmp_path / "llm_comparator.json").exists()


@pytest.mark.parametrize("file", ["preferences/data/p.parquet", "dpo/metrics.jsonl", "held_out/data/dpo.parquet"])
@pytest.mark.parametrize("content", [None, b"PAR1 cut"])
def test_what_is_lost_or_cut_is_told(tmp_path: Path, file: str, content: bytes | None) -> None:
    root = make_run(tmp_path / "run")
    (root / file).unlink()
    if content is not None:
        (root / file).write_bytes(content)
    text = Page(Path(run_report.write([str(root)])).read_text()).text
    assert re.search(r"(rows of preferences|answers) cannot be read|metrics.jsonl (is not there|cannot be read)", text)
    assert "dpo minus sft" in text


def test_a_million_rows_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 20 files with 1,000 rows each, at most 8 files are opened and 250 rows of each are read."""
    tables = {f"{n:02d}": pairs_table([pair(n, "yes", "no")] * 1000) for n in range(20)}
    finish(tmp_path, "preferences", "f1", tables=tables, counts=counts(20_000, 20_000))
    seen: list[Any] = []
    original = run_report.run_picture.picture

    def picture(rounds: Any, missing: Any) -> Any:
        seen.append(rounds)
        return original(rounds, missing)

    monkeypatch.setattr(run_report.run_picture, "picture", picture)
    run_report.write([str(tmp_path)])
    ((_, sampled),) = seen[0]
    assert len(sampled.pairs) == 7 * 250
    assert len({row["pair_id"] for row in sampled.pairs}) == 7


def test_answers_as_fastchat_and_alpaca_eval_keep_them(tmp_path: Path) -> None:
    """Prompts that all models have answered; what a failed request left is no answer."""
    bench = finish(tmp_path, "evaluation/mt_bench", "f1")
    outputs = finish(tmp_path, "evaluation/alpaca_eval", "f2")
    (bench / "model_answer").mkdir()
    (outputs / "model_outputs").mkdir()
    for model in ("dpo", "sft"):
        turns = [f"{model} 1", "$ERROR$" if model == "sft" else "2"]
        line = {"question_id": 81, "model_id": model, "choices": [{"index": 0, "turns": turns}]}
        (bench / "model_answer" / f"{model}.jsonl").write_text(json.dumps(line) + "\n{cut")
        rows = [{"instruction": "hi", "output": f"{model} says", "generator": model}]
        (outputs / "model_outputs" / f"{model}.json").write_text(json.dumps(rows))
    (found,) = read_rounds(open_root(str(tmp_path)))
    first, second = answers(found)
    assert {each.stage: each for each in (first, second)}["evaluation/mt_bench"].rows == [
        ("question 81, turn 1", [[Answer("sft 1")], [Answer("dpo 1")]])
    ]
    assert {each.stage: each.texts("sft") for each in (first, second)}["evaluation/alpaca_eval"] == ["sft says"]
    assert first.policy_and_start == ("dpo", "sft")
    assert first.models == ["sft", "dpo"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run")
    (tmp_path / "file").write_text("")
    with pytest.raises(run_report.UserError, match=r"cannot be written: .*; name another folder with --out"):
        run_report.write([str(root)], str(tmp_path / "file" / "out"))


def test_what_more_answers_buy_is_drawn_and_told(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run")
    gain = [{"n": n, "prompts": 8, "best": 5.0 + n, "pass": 0.2 * n} for n in (1, 2, 3)]
    finish(root, "best_answers", "f4", counts=counts(8, 8), gain=gain)
    page = Path(run_report.write([str(root)])).read_text()
    assert "<h2>What more answers to a prompt buy</h2>" in page
    drawn = json.loads((root / "report.json").read_text())["runs"][0]["gains"]
    assert drawn == {
        "Mean score of the best of n": [[1, 6.0], [2, 7.0], [3, 8.0]],
        "pass@n: a right answer among n": [[1, 0.2], [2, 0.4], [3, pytest.approx(0.6)]],
    }
