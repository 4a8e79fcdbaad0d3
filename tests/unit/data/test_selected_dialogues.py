"""The stage, from rows in a file to the chosen dialogues, for every way of choosing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.unit.data.pages import Page
from zephyr_ray import zephyr
from zephyr_ray.config.recipe import Recipe
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import Artifact, Run
from zephyr_ray.pipeline.stage import StageContext, up_to

ROWS = 40


def row(number: int) -> dict[str, Any]:
    """The score rises with the number, and the answer's length falls with it."""
    return {"prompt": f"Question {number}?", "completion": "x" * (ROWS - number) + f" {number}.", "grade": number / 8}


def points(messages: list[dict[str, str]], completion: str) -> float | None:
    """A judge: numbers that 7 divides are best, and of those below 3 it has no opinion."""
    number = int(messages[-1]["content"].split()[1].rstrip("?"))
    return None if number < 3 else float(number % 7 == 0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row(number)) + "\n" for number in range(ROWS)))
    return path


@pytest.fixture(scope="module")
def embedding_model(tmp_path_factory: pytest.TempPathFactory, byte_tokenizer: str) -> str:
    """A sentence-embedding model without training; sentence-transformers takes the mean over its tokens."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    folder = tmp_path_factory.mktemp("embedding-model")
    tokenizer = AutoTokenizer.from_pretrained(byte_tokenizer, pad_token="<unk>", model_max_length=64)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    size: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    BertModel(BertConfig(vocab_size=len(tokenizer), **size)).save_pretrained(folder)
    return str(folder)


def selected(root: Path, file: Path, select: Mapping[str, Any], **sections: Any) -> tuple[Artifact, dict[str, Any]]:
    """The chosen dialogues and their manifest."""
    given = {"dialogues": {"train": str(file), "select": dict(select), "max_dropped": 0.9}, **sections}
    recipe = Recipe.model_validate({"run": {"root": str(root), "seed": 5}, **given})
    run = Run(str(root))
    for stage in up_to(zephyr.stages(recipe), ["selected_dialogues"]):
        artifact = run.artifact(stage.name)
        artifact.begin("f")
        artifact.finish({"fingerprint": "f", **stage.make(StageContext(stage, run, artifact, None))})
    manifest = artifact.manifest()
    assert manifest is not None
    counts = manifest["counts"]
    assert counts["in"] == counts["out"] + sum(counts["dropped"].values())
    return artifact, manifest


def numbers(artifact: Artifact) -> list[int]:
    return sorted(int(each["messages"][0]["content"].split()[1].rstrip("?")) for each in artifact.table().to_pylist())


@pytest.mark.usefixtures("ray_cluster")
def test_the_longest_are_chosen(tmp_path: Path, file: Path) -> None:
    artifact, manifest = selected(tmp_path / "run", file, {"n": 4, "by": "length"})
    assert numbers(artifact) == [0, 1, 2, 3]
    dropped = artifact.table("dropped").to_pylist()
    assert {(each["reason"], each["detail"]) for each in dropped} == {("not_selected", "not among the 4 by length")}
    assert len({each["source"] for each in dropped}) == ROWS - 4
    assert manifest["lines"][0] == "4 of 40 dialogues by length, beside as many at random:"
    page = Page((Path(artifact.path) / "report.html").read_text())
    page.check_loads_nothing()
    assert "4 of 40, by length" in page.text


@pytest.mark.usefixtures("ray_cluster")
def test_any_are_chosen_by_seed_and_all_where_there_are_not_more(tmp_path: Path, file: Path) -> None:
    chosen = numbers(selected(tmp_path / "one", file, {"n": 10, "by": "random"})[0])
    assert len(chosen) == 10
    assert chosen == numbers(selected(tmp_path / "two", file, {"n": 10, "by": "random"})[0])
    assert numbers(selected(tmp_path / "all", file, {"n": 99, "by": "random"})[0]) == list(range(ROWS))


@pytest.mark.usefixtures("ray_cluster")
def test_a_column_of_the_rows_is_a_score(tmp_path: Path, file: Path) -> None:
    rows = [row(number) for number in range(ROWS)]
    rows[39]["grade"], rows[38]["grade"] = None, "n/a"
    del rows[37]["grade"]
    file.write_text("".join(json.dumps(each) + "\n" for each in rows))
    artifact, _ = selected(tmp_path / "run", file, {"n": 3, "by": "quality", "column": "grade"})
    assert numbers(artifact) == [34, 35, 36]
    dropped = artifact.run.artifact("dialogues").table("dropped").to_pylist()
    assert {each["detail"] for each in dropped if each["reason"] == "unscored"} == {
        "grade: None is no number",
        "grade: 'n/a' is no number",
    }
    assert "Score, mean 2.25" in Page((Path(artifact.path) / "report.html").read_text()).text  # of 0/8 to 36/8


@pytest.mark.usefixtures("ray_cluster")
def test_a_judge_rates_the_last_answer(tmp_path: Path, file: Path) -> None:
    judging = {"judge": {"type": "function", "function": f"{__name__}:points"}}
    artifact, _ = selected(tmp_path / "run", file, {"n": 5, "by": "quality"}, judging=judging)
    assert numbers(artifact) == [7, 14, 21, 28, 35]
    judged = artifact.run.artifact("dialogue_judgments").table()
    ids = artifact.run.artifact("dialogues").table()["dialogue_id"]
    assert sorted(judged["prompt_id"].to_pylist()) == sorted(ids.to_pylist())


@pytest.mark.usefixtures("ray_cluster")
def test_varied_ones_are_chosen_by_their_vectors(tmp_path: Path, file: Path, embedding_model: str) -> None:
    embedded_by = {"model": embedding_model, "batch_size": 8}
    artifact, manifest = selected(tmp_path / "run", file, {"n": 6, "by": "diversity"}, embeddings=embedded_by)
    assert len(numbers(artifact)) == 6
    vectors = artifact.run.artifact("dialogue_embeddings").table().to_pylist()
    assert len(vectors) == ROWS
    assert all(sum(x * x for x in each["embedding"]) == pytest.approx(1, abs=1e-5) for each in vectors)
    assert any("to the nearest, mean" in line for line in manifest["lines"])


@pytest.mark.parametrize(
    ("select", "complaint"),
    [
        ({"n": 5, "by": "diversity"}, "embeddings.model=FOLDER_OR_HUB_ID"),
        ({"n": 5, "by": "quality"}, "dialogues.select.column"),
    ],
)
def test_what_a_recipe_lacks_is_said_before_any_work(select: dict[str, Any], complaint: str) -> None:
    recipe = Recipe.model_validate({"dialogues": {"train": "rows.jsonl", "select": select}})
    with pytest.raises(UserError, match=complaint):
        zephyr.stages(recipe)


def test_sft_learns_from_the_chosen_ones() -> None:
    section = {"train": "rows.jsonl", "select": {"n": 5, "by": "random"}}
    stages = {each.name: each for each in zephyr.stages(Recipe.model_validate({"dialogues": section, "sft": {}}))}
    assert stages["tokenized_dialogues"].inputs["selected_dialogues"] is stages["selected_dialogues"]
    assert "dialogues" in stages["selected_dialogues"].inputs


def test_cleaning_does_not_depend_on_what_is_selected() -> None:
    chosen = [
        zephyr.stages(Recipe.model_validate({"dialogues": {"train": "rows.jsonl", "select": select}}))[0].config
        for select in (None, {"n": 5, "by": "random"}, {"n": 9, "by": "quality", "column": "grade"})
    ]
    assert chosen[0] == chosen[1] != chosen[2]
