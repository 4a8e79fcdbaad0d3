"""The stages behind a model, as manifests tell them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from tests import small_run
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import Run
from zephyr_ray.pipeline.fingerprints import content_id
from zephyr_ray.pipeline.lineage.facts import Counts, Input, Lineage, UsedModel, as_json, facts, from_json
from zephyr_ray.pipeline.lineage.reading import exported, exported_recipe, lineage_of, located, stages_of
from zephyr_ray.pipeline.lineage.text import lines_of, tree_lines
from zephyr_ray.pipeline.model_source import external_model, stage_source
from zephyr_ray.pipeline.move_aside import move_aside

BEHIND = ["prompts", "candidates", "judgments", "preferences", "tokenized", "dpo"]


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "run")


def lineage(root: str) -> Lineage:
    return lineage_of(located(root))


def names(found: Lineage) -> list[str]:
    return [each.stage for each in found.stages]


def test_a_models_stages_come_in_order_with_what_each_was_made_from(root: str) -> None:
    run = small_run.make(root)
    found = lineage(root)
    assert (found.of, names(found)) == (("dpo",), BEHIND)
    prompts, candidates, judgments, preferences, tokenized, dpo = found.stages
    assert prompts.inputs == (Input("prompts", "0" * 32),)
    assert prompts.data == ("questions.jsonl",)
    assert prompts.counts == Counts(5, 3, {"repeated": 1, "undecodable_line": 1})
    assert candidates.inputs == (Input("prompts", str(prompts.fingerprint), "prompts"),)
    assert candidates.models == (
        UsedModel("answers", "endpoint", "first-1", "first"),
        UsedModel("answers", "deployment", "owner/base", "own", "c" * 40),
    )
    assert candidates.asked["usd"] == 0.5
    assert judgments.models == (UsedModel("judges", "endpoint", "judge-2", "judge"),)
    assert preferences.counts == Counts(3, 2, {"tie": 1})
    assert preferences.data == ()  # the run's own judgments
    assert (tokenized.is_model, dpo.is_model, dpo.seed, dpo.code) == (False, True, 7, "d" * 40)
    assert dpo.models == (UsedModel("start", "checkpoint", "owner/base", commit="c" * 40),)
    assert found.fingerprint == stage_source(run.artifact("dpo")).fingerprint == content_id(dpo.fingerprint, "e" * 32)


def test_a_stage_or_its_checkpoint_names_its_run(root: str) -> None:
    small_run.make(root)
    assert names(lineage(f"{root}/judgments")) == BEHIND[:3]
    assert names(lineage(f"{root}/dpo")) == BEHIND
    assert located(f"{root}/dpo").stage == "dpo"


def test_a_checkpoint_has_its_lineage_with_it(root: str) -> None:
    small_run.make(root)
    there = exported(f"{root}/dpo/checkpoint")
    assert there is not None
    assert there == lineage(f"{root}/dpo")
    assert from_json(json.loads(json.dumps(as_json(there)))) == there
    assert exported_recipe(f"{root}/dpo/checkpoint") == "run: {}\n"
    assert exported(f"{root}/prompts") is None


def test_of_an_unfinished_run_it_shows_what_is_there(root: str) -> None:
    small_run.make(root, until="preferences")
    found = lineage(root)
    assert (found.of, names(found)) == ((), BEHIND[:4])
    assert [each.finished for each in found.stages] == [True, True, True, False]
    assert found.stages[-1].inputs[0].stage == "judgments"
    said = "\n".join(lines_of(found))
    assert said.startswith(f"No model is finished; all stages in {root}")
    assert "UNFINISHED" in said


def test_what_was_replaced_is_still_what_a_model_was_made_from(root: str) -> None:
    run = small_run.make(root)
    old = run.artifact("preferences").manifest()
    assert old is not None
    run.epoch = 2
    move_aside(run.artifact("preferences"))
    found = lineage(root)
    assert names(found) == [*BEHIND[:3], f"preferences.replaced-{old['fingerprint']}-000001", *BEHIND[4:]]
    assert found.others == {"preferences": False}


def test_the_tree_opens_each_stage_once() -> None:
    def stage(name: str, *inputs: str) -> object:
        return facts(
            name,
            {"fingerprint": f"of {name}", "inputs": {each: f"of {each}" for each in inputs}},
            finished=True,
            holders={f"of {each}": each for each in ("sft", "rows", "pairs")},
        )

    found = [stage("rows"), stage("sft", "rows"), stage("pairs", "sft"), stage("dpo", "pairs", "sft")]
    assert tree_lines(Lineage("run", ("dpo",), tuple(found))) == [  # type: ignore[arg-type]
        "dpo of dpo",
        "├── pairs of pairs",
        "│   └── sft of sft",
        "│       └── rows of rows",
        "└── sft of sft (see above)",
    ]


def test_a_person_reads_rows_models_cost_and_code(root: str) -> None:
    small_run.make(root)
    said = "\n".join(lines_of(lineage(root)))
    assert "5 in = 3 kept + 2 dropped (repeated 1, undecodable_line 1)" in said
    assert f"own: owner/base (deployment, commit {'c' * 40})" in said
    assert "60 s, 9 replies, 90 + 27 tokens, 0.50 US dollars" in said
    assert "2 rows, each 2 times" in said
    assert f"made by commit {'d' * 40}: all stages" in said


def test_a_manifest_of_an_earlier_version_says_what_it_has() -> None:
    old = facts("dpo", {"fingerprint": "1", "config": None}, finished=True, changed_at="2025-01-01")
    assert (old.inputs, old.counts, old.seed, old.uncommitted, old.ended) == ((), None, None, None, "2025-01-01")
    assert not old.names_all_inputs


def test_a_model_that_began_with_another_runs_has_that_ones_lineage_too(root: str, tmp_path: Path) -> None:
    """A later round is a run of its own. Its checkpoint keeps both, even where the first run is gone."""
    small_run.make(root)
    first = f"{root}/dpo/checkpoint"
    second = str(tmp_path / "second")
    small_run.make(second, start=first)
    found = lineage(second)
    assert found.before == {first: exported(first)}
    assert f"{first} was made by another run:" in lines_of(found)
    shutil.rmtree(root)
    kept = exported(f"{second}/dpo/checkpoint")
    assert kept is not None
    assert names(kept.before[first]) == BEHIND
    card = (tmp_path / "second" / "dpo" / "checkpoint" / "README.md").read_text()
    assert 'base_model: "owner/base"' in card
    assert f"from {first}, which another run of zephyr_ray made of owner/base" in card
    assert lineage(second).before == {}


def test_a_run_in_a_bucket(root: str, bucket: str) -> None:
    """What is read there is what is read on a disk, but for the place."""
    small_run.make(root)
    filesystem, path = pafs.FileSystem.from_uri(bucket)
    pafs.copy_files(root, path, destination_filesystem=filesystem)
    there = lineage(bucket)
    assert (there.root, names(there)) == (bucket, BEHIND)
    assert [each.inputs for each in there.stages] == [each.inputs for each in lineage(root).stages]
    assert located(f"{bucket}/dpo").run.root == bucket
    assert exported(f"{bucket}/dpo/checkpoint-000001") == exported(f"{root}/dpo/checkpoint")


def test_the_file_counts_for_no_models_fingerprint(tmp_path: Path) -> None:
    """It has times in it: a model that is trained again to the same weights stays the same to other runs."""
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_text(name)
    before = external_model("model.path", str(tmp_path), None)
    (tmp_path / "lineage.json").write_text("{}")
    assert external_model("model.path", str(tmp_path), None) == before
    (tmp_path / "config.json").write_text("{}")
    assert external_model("model.path", str(tmp_path), None) != before


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere is not there; give the run.root"):
        located(str(tmp_path / "nowhere"))
    (tmp_path / "runs" / "empty").mkdir(parents=True)
    with pytest.raises(UserError, match=r"runs is no run: no stage has begun there; give the run.root of a recipe$"):
        stages_of(Run(str(tmp_path / "runs")))
    small_run.make(str(tmp_path / "runs" / "one"), until="prompts")
    with pytest.raises(UserError, match=r"of a recipe, such as .*/runs/one$"):
        stages_of(Run(str(tmp_path / "runs")))


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    run = small_run.make(str(tmp_path / "run"))
    (tmp_path / "run" / "prompts" / "manifest-000001.json").write_text("{")
    with pytest.raises(UserError, match=r"run/prompts: its manifest is damaged"):
        stages_of(run)
    assert "prompts" not in stages_of(run, skip_damaged=True)


@pytest.mark.parametrize("text", ["{", "[]", '{"stages": []}', '{"root": "", "of": [], "stages": [1]}'])
def test_a_foreign_lineage_file_is_named(tmp_path: Path, text: str) -> None:
    small_run.make(str(tmp_path / "run"))
    copied = shutil.copytree(tmp_path / "run" / "dpo" / "checkpoint", tmp_path / "copied")
    (copied / "lineage.json").write_text(text)
    with pytest.raises(UserError, match=r"copied/lineage.json is not a lineage that zephyr_ray wrote"):
        exported(str(copied))
