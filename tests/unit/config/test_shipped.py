"""Recipes by their names."""

from __future__ import annotations

from pathlib import Path

import pytest

from zephyr_ray.config import loader, shipped


def test_the_names_are_the_repositorys_files() -> None:
    folder = Path(__file__).parents[3] / "recipes"
    assert {f"{name}.yaml" for name in shipped.names()} == {
        str(path.relative_to(folder)) for path in folder.rglob("*.yaml")
    }
    path = shipped.path_of("zephyr-7b-beta/paper")
    assert path is not None
    assert path.samefile(folder / "zephyr-7b-beta" / "paper.yaml")


@pytest.mark.parametrize("name", ["", "paper", "../recipes/tiny", "tiny.yaml", "/etc/passwd"])
def test_another_name_is_none(name: str) -> None:
    assert shipped.path_of(name) is None


def test_a_file_goes_before_a_name_and_a_folder_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    by_name = loader.load(["tiny"])
    assert by_name.run.root == "runs/tiny"
    (tmp_path / "tiny").rmdir()
    (tmp_path / "tiny").write_text("run: {root: mine}\nmodel: {path: a/model}")
    assert loader.load(["tiny"]).run.root == "mine"
