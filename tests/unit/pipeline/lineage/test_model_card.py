"""The README.md of a checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests import small_run
from zephyr_ray.pipeline.lineage.facts import Lineage, StageFacts, facts
from zephyr_ray.pipeline.lineage.model_card import base_model, card


def checkpoint(root: Path) -> str:
    small_run.make(str(root))
    return (root / "dpo" / "checkpoint" / "README.md").read_text()


def test_it_says_what_the_model_was_made_from(tmp_path: Path) -> None:
    text = checkpoint(tmp_path)
    commit = "c" * 40
    _, metadata, words = text.split("---\n", 2)
    assert yaml.safe_load(metadata) == {
        "library_name": "transformers",
        "base_model": "owner/base",
        "tags": ["zephyr_ray", "dpo"],
    }
    assert f"from owner/base@{commit} (licence: apache-2.0), by direct preference optimization" in words
    assert "with beta 0.1." in words
    for line in (
        "| prompts | 5 in = 3 kept + 2 dropped (repeated 1, undecodable_line 1) | questions.jsonl |",
        "| preferences | 3 in = 2 kept + 1 dropped (tie 1) | judgments |",
        f"- own: owner/base (deployment, commit {commit}) answered prompts (candidates)",
        "- judge: judge-2 (endpoint) judged answers (judgments)",
        "| beta | 0.1 |",
        "| loss | 0.5 |",
        "    zephyr-ray run recipe.yaml --until dpo --set run.root=NEW_ROOT",
    ):
        assert line in words.splitlines(), line
    assert f"(commit {'d' * 40}) with python 3.11, trl 1.16.0. Seed 7." in words
    assert "There was none when this file was written." in words


def trained(stage: str, **more: object) -> StageFacts:
    config = {stage: {"learning_rate": 0.1}, "model": {"lora": more.pop("lora", None)}, "seed": 0}
    record = {"fingerprint": stage, "checkpoint": "checkpoint", "config": config, "trained": {"rows": 1}, **more}
    return facts(stage, record, finished=True, holders={"sft": "sft", "base": "base"})


def test_an_adapter_that_training_began_with_and_one_that_it_trained() -> None:
    model = {"path": "own/adapter", "adapter_of": "owner/base"}
    text = card(Lineage("run", ("dpo",), (trained("dpo", model=model, lora={"r": 4, "alpha": 8}),)))
    assert "from the adapter own/adapter, merged into its base model owner/base, by" in text
    assert "a LoRA adapter (r=4, alpha=8) was trained on that model and merged into it" in text


@pytest.mark.parametrize(
    ("scored_by", "said"), [("dpo", "the model that it starts from"), ("sft", "the model that the first round started")]
)
def test_the_reference_of_a_later_round(scored_by: str, said: str) -> None:
    sft, dpo = trained("sft"), trained("dpo", inputs={"sft": "sft"})
    holders = {"sft": "sft", "dpo": "dpo", "logps": "round_2/reference_logps"}
    logps = facts(
        "round_2/reference_logps", {"inputs": {scored_by: scored_by}, "config": {}}, finished=True, holders=holders
    )
    config = {"dpo": {"learning_rate": 0.1}, "model": {"lora": None}, "seed": 0}
    record = {"fingerprint": "f", "checkpoint": "checkpoint", "config": config, "trained": {"rows": 1}}
    record["inputs"] = {"dpo": "dpo", "reference_logps": "logps"}
    model = facts("round_2/dpo", record, finished=True, holders=holders)
    text = card(Lineage("run", ("round_2/dpo",), (sft, dpo, logps, model)))
    assert (
        f"from the run's own dpo (sft), by direct preference optimization (DPO, arXiv 2305.18290) against {said}"
        in text
    )


def test_the_base_model_is_the_one_from_outside() -> None:
    """However many trainings of the run lie between."""
    given = trained("sft", model={"path": "owner/base"})
    dpo = trained("dpo", model={"path": "run/sft/checkpoint"}, inputs={"sft": "sft"})
    lineage = Lineage("run", ("dpo",), (given, dpo))
    assert base_model(lineage, dpo) == "owner/base"
    assert "from the run's own sft (owner/base), by" in card(lineage)
    base = facts(
        "base", {"fingerprint": "base", "checkpoint": "c", "config": {"base": {"function": "my:base"}}}, finished=True
    )
    made = trained("sft", model={"path": "run/base/checkpoint"}, inputs={"base": "base"})
    lineage = Lineage("run", ("dpo",), (base, made, dpo))
    assert base_model(lineage, dpo) == "my:base"


def test_evaluations_and_alarms_of_the_sources_are_in_it() -> None:
    model = trained("dpo", model={"path": "owner/base"})
    lines = ["accuracy 61 % (52 to 70)"]
    measured = facts("evaluation/preferences", {"fingerprint": "m", "config": {}, "lines": lines}, finished=True)
    text = card(Lineage("run", ("dpo",), (model,), (measured,)))
    assert "evaluation/preferences:\n\n    accuracy 61 % (52 to 70)\n" in text
    assert "There was none" not in text
