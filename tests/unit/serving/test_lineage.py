"""The lineage in the folder of a served checkpoint."""

from __future__ import annotations

from pathlib import Path

from tests import small_run
from zephyr_ray.serving.lineage import lineage_in


def test_it_is_the_folders_with_the_fingerprint_of_the_answers_and_without_the_recipe(tmp_path: Path) -> None:
    small_run.make(str(tmp_path))
    found = lineage_in(str(tmp_path / "dpo" / "checkpoint"), "served")
    assert found is not None
    assert (found["system_fingerprint"], found["of"]) == ("served", ["dpo"])
    assert found["stages"][0]["stage"] == "prompts"
    assert "recipe" not in found


def test_a_folder_without_one_and_a_hub_id_have_none(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "lineage.json").write_text("{")
    for place in (str(tmp_path), str(tmp_path / "broken"), "owner/model"):
        assert lineage_in(place, "served") is None
