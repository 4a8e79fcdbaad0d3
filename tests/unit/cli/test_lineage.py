"""`zephyr-ray lineage`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests import small_run
from tests.unit.cli.test_commands import status_of
from zephyr_ray.pipeline.artifacts import Run

NEXT = "; see --help"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return small_run.make(str(tmp_path / "run"))


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert status_of("lineage", *arguments) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert status_of("lineage", *arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    return shown.err


def test_a_run_a_stage_and_a_copied_checkpoint(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = json.loads(printed(capsys, run.root, "--json"))
    assert (told["of"], len(told["stages"])) == (["dpo"], 6)
    assert printed(capsys, run.root).startswith(f"dpo in {run.root}\n")
    assert printed(capsys, f"{run.root}/judgments").startswith(f"judgments in {run.root}\n")
    copied = shutil.copytree(f"{run.root}/dpo/checkpoint", tmp_path / "copied")
    shutil.rmtree(run.root)
    assert json.loads(printed(capsys, str(copied), "--json"))["stages"] == told["stages"]
    assert printed(capsys, str(copied), "--recipe") == "run: {}\n"


def test_a_row_as_text_and_as_json(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    pair_id = small_run.pairs(run)[0]["pair_id"]
    assert "source     questions.jsonl:1\n" in printed(capsys, run.root, "--row", pair_id[:12])
    told = json.loads(printed(capsys, run.root, "--row", pair_id, "--json"))
    assert told["pairs"][0]["pair_id"] == pair_id
    assert told["models"][0]["stage"] == "dpo"


def test_a_fingerprint_against_another_run(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_run.make(str(tmp_path / "other"), beta=0.3)
    manifest = run.artifact("dpo").manifest()
    assert manifest is not None
    asked = (run.root, "--fingerprint", manifest["fingerprint"][:8], "--against", str(tmp_path / "other"))
    assert "    dpo.beta: 0.1 -> 0.3\n" in printed(capsys, *asked)
    assert json.loads(printed(capsys, *asked, "--json"))["match"]["stage"] == "dpo"


def test_a_fingerprint_against_the_runs_own_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run of prompts alone, whose file has changed since."""
    from tests.making import stage_of
    from zephyr_ray.config import loader
    from zephyr_ray.pipeline.stage import identities

    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "Which city?"}\n')
    recipe = loader.load([], [f"prompts.train={rows}", f"run.root={tmp_path / 'run'}"])
    run, stage = Run(recipe.run.root), stage_of(recipe, "prompts")
    ((_, known),) = identities([stage]).items()
    artifact = run.artifact("prompts")
    artifact.begin(known.fingerprint, stage.config, known.inputs)
    made = {"fingerprint": known.fingerprint, "config": stage.config, "inputs": known.inputs, "code": {}, "files": []}
    artifact.finish(made)
    run.write_text("recipe.yaml", loader.to_yaml(recipe))
    asked = (run.root, "--fingerprint", known.fingerprint)
    assert f"nothing has changed; the recipe of {run.root} makes the same" in printed(capsys, *asked)
    rows.write_text('{"prompt": "Which river?"}\n')
    recipe = loader.load([], [f"prompts.train={rows}", f"run.root={tmp_path / 'run'}", "prompts.max_dropped=0.25"])
    run.write_text("recipe.yaml", loader.to_yaml(recipe))
    said = printed(capsys, *asked)
    assert "    prompts.max_dropped: 0.5 -> 0.25\n" in said
    assert f"    input prompts: {known.inputs['prompts']} -> " in said


def test_the_card_has_the_evaluations_of_now(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    dpo = run.artifact("dpo").manifest()
    assert dpo is not None
    before = printed(capsys, run.root, "--card")
    assert before == Path(run.root, "dpo", "checkpoint", "README.md").read_text()
    evaluation = run.artifact("evaluation/preferences")
    evaluation.begin("measured")
    made = {"fingerprint": "measured", "inputs": {"dpo": dpo["fingerprint"]}, "lines": ["accuracy 61 %"], "files": []}
    evaluation.finish(made)
    after = printed(capsys, f"{run.root}/dpo", "--card")
    assert "evaluation/preferences:\n\n    accuracy 61 %\n" in after
    assert printed(capsys, run.root).count("accuracy 61 %") == 1


def test_wrong_arguments_are_refused(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere is not there" in refused(capsys, str(tmp_path / "nowhere"))
    assert "is no run" in refused(capsys, str(tmp_path / "run" / "prompts" / "data"))
    assert "--row abcd: no row of" in refused(capsys, run.root, "--row", "abcd")
    assert "give at least 4 digits" in refused(capsys, run.root, "--fingerprint", "a")
    assert "--row and --card: give one of them" in refused(capsys, run.root, "--row", "abcd", "--card")
    assert "--against goes with --fingerprint" in refused(capsys, run.root, "--against", run.root)
    assert "is not one trained model; name the stage" in refused(capsys, f"{run.root}/prompts", "--card")
    assert refused(capsys) == f"error: Missing argument 'ROOT'{NEXT}\n"
