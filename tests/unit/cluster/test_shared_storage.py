"""Which paths of a recipe every node must see, and what tells one machine's file from another's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.making import stage_of
from zephyr_ray.cluster.shared_storage import look
from zephyr_ray.config import loader


def test_the_local_paths_of_the_stages_that_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("model", "base", "judge"):
        (tmp_path / name).mkdir()
    for name in ("rows.jsonl", "held_out.jsonl", "mt_bench.txt", "chat.jinja"):
        (tmp_path / name).write_text("{{ messages }}")
    judge = "{type: deployment, name: judge, model: judge, accelerator: cpu}"
    overrides = [
        "model.path=model",
        "sft.base=owner/name",
        "chat.template=chat.jinja",
        "dialogues.train={type: function, function: 'x:y'}",
    ]
    overrides += ["preferences.train=[rows.jsonl, s3://bucket/more.jsonl]", "preferences.decontaminate=[mt_bench.txt]"]
    overrides += ["preferences.held_out=held_out.jsonl", "sampling.pool=[{type: deployment, name: sft, model: sft}]"]
    recipe = loader.load([], [*overrides, f"judging.judge={{type: language_models, models: [{judge}]}}"])

    def seen(*stages: str) -> dict[str, str]:
        return dict(file for name in stages for file in stage_of(recipe, name).local_files)

    assert seen("dpo") == {"model.path": str(tmp_path / "model")}
    assert seen("sft", "dialogues") == {}  # the driver alone reads the template
    assert seen("preferences") == {"preferences.train": "rows.jsonl"}  # the driver alone reads the benchmarks
    assert seen("judgments") == {"judging.judge.models judge": str(tmp_path / "judge")}
    assert seen("held_out_pairs") == {"preferences.held_out": "held_out.jsonl"}
    assert seen("held_out_reference") == seen("dpo")
    assert seen("evaluation/preferences") == {}


def test_another_file_of_the_same_name_looks_otherwise(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "rows").write_text("one")
    before = look(str(tmp_path / "a" / "rows")), look(str(tmp_path / "a"))
    (tmp_path / "a" / "rows").write_text("two")
    assert (look(str(tmp_path / "a" / "rows")) != before[0], look(str(tmp_path / "a")) == before[1]) == (True, True)
    (tmp_path / "a" / "rows").write_text("three")
    assert look(str(tmp_path / "a")) != before[1]
